//! Waits that end by virtual time: a binary heap of slots by (deadline, start
//! of the wait), so that equal deadlines fire in the order they were set.

use crate::{Scheduler, Slot};

impl Scheduler {
    /// The earliest deadline of a blocked thread, virtual nanoseconds.
    pub fn next_deadline(&self) -> Option<u64> {
        (self.heap_len > 0).then(|| self.threads[self.heap[0] as usize].deadline)
    }

    pub(crate) fn fire_due(&mut self) {
        while let Some(deadline) = self.next_deadline() {
            if deadline > self.now {
                break;
            }
            let slot = self.heap[0];
            self.time_out(slot);
        }
    }

    fn order(&self, slot: Slot) -> (u64, u64, Slot) {
        let t = &self.threads[slot as usize];
        (t.deadline, t.since, slot)
    }

    fn place(&mut self, at: usize, slot: Slot) {
        self.heap[at] = slot;
        self.threads[slot as usize].heap = at as u32 + 1;
    }

    pub(crate) fn heap_insert(&mut self, slot: Slot) {
        let at = self.heap_len as usize;
        self.heap_len += 1;
        self.place(at, slot);
        self.sift_up(at);
    }

    pub(crate) fn heap_remove(&mut self, slot: Slot) {
        let at = self.threads[slot as usize].heap as usize - 1;
        self.threads[slot as usize].heap = 0;
        self.heap_len -= 1;
        let last = self.heap_len as usize;
        if at != last {
            self.place(at, self.heap[last]);
            self.sift_up(at);
            self.sift_down(at);
        }
    }

    fn sift_up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.order(self.heap[parent]) <= self.order(self.heap[at]) {
                break;
            }
            self.exchange(parent, at);
            at = parent;
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let len = self.heap_len as usize;
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < len && self.order(self.heap[child]) < self.order(self.heap[least]) {
                    least = child;
                }
            }
            if least == at {
                break;
            }
            self.exchange(at, least);
            at = least;
        }
    }

    fn exchange(&mut self, a: usize, b: usize) {
        let (x, y) = (self.heap[a], self.heap[b]);
        self.place(a, y);
        self.place(b, x);
    }
}
