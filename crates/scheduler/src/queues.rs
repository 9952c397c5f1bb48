//! FIFO queues: the run queue and the wait queues, hashed by key.

use crate::{BUCKETS, Scheduler, Slot};

/// Head and tail of a doubly linked list of slots; 0: empty.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Queue {
    pub(crate) head: Slot,
    pub(crate) tail: Slot,
}

pub(crate) fn bucket(key: u64) -> usize {
    // Keys are addresses or small numbers; their low bits say little.
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % BUCKETS
}

impl Scheduler {
    pub(crate) fn run_push(&mut self, slot: Slot) {
        let mut q = self.run;
        self.push(&mut q, slot);
        self.run = q;
    }

    pub(crate) fn run_pop(&mut self) -> Option<Slot> {
        let slot = self.run.head;
        if slot == 0 {
            return None;
        }
        self.run_remove(slot);
        Some(slot)
    }

    pub(crate) fn run_remove(&mut self, slot: Slot) {
        let mut q = self.run;
        self.unlink(&mut q, slot);
        self.run = q;
    }

    pub(crate) fn wait_enqueue(&mut self, slot: Slot, key: u64) {
        let mut q = self.buckets[bucket(key)];
        self.push(&mut q, slot);
        self.buckets[bucket(key)] = q;
    }

    pub(crate) fn wait_remove(&mut self, slot: Slot) {
        let b = bucket(self.threads[slot as usize].key);
        let mut q = self.buckets[b];
        self.unlink(&mut q, slot);
        self.buckets[b] = q;
    }

    /// The longest waiter for `key`. A bucket holds waiters of colliding keys
    /// too, in one list, so the order among equals is still FIFO.
    pub(crate) fn wait_first(&self, key: u64) -> Option<Slot> {
        let mut slot = self.buckets[bucket(key)].head;
        while slot != 0 {
            let t = &self.threads[slot as usize];
            if t.key == key {
                return Some(slot);
            }
            slot = t.next;
        }
        None
    }

    /// The waiter for `key` that came next after `previous`, which waits for it
    /// too; 0: the longest waiter.
    pub fn waiter_after(&self, key: u64, previous: Slot) -> Option<Slot> {
        if previous == 0 {
            return self.wait_first(key);
        }
        let mut slot = self.threads[previous as usize].next;
        while slot != 0 {
            let t = &self.threads[slot as usize];
            if t.key == key {
                return Some(slot);
            }
            slot = t.next;
        }
        None
    }

    fn push(&mut self, q: &mut Queue, slot: Slot) {
        let t = &mut self.threads[slot as usize];
        t.next = 0;
        t.prev = q.tail;
        if q.tail == 0 {
            q.head = slot;
        } else {
            self.threads[q.tail as usize].next = slot;
        }
        q.tail = slot;
    }

    fn unlink(&mut self, q: &mut Queue, slot: Slot) {
        let (prev, next) = {
            let t = &self.threads[slot as usize];
            (t.prev, t.next)
        };
        if prev == 0 {
            q.head = next;
        } else {
            self.threads[prev as usize].next = next;
        }
        if next == 0 {
            q.tail = prev;
        } else {
            self.threads[next as usize].prev = prev;
        }
    }
}
