//! A scheduler of few threads beside its model: every step is done to both.

use super::model::{Life, Model};
use crate::queues::Queue;
use crate::{Attention, Next, STEP_NS, Scheduler, Slot, Thread, Wake};
use std::boxed::Box;
use std::vec::Vec;

/// Slots that are looked at; 0 is never used.
pub(super) const SLOTS: usize = 6;
pub(super) const KEYS: [u64; 2] = [1, 2];

/// What the holder of the turn may do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Operation,
    Yield,
    /// Waits for a key (0: none), perhaps for a number of operations.
    Wait(u64, Option<u64>),
    WakeOne(u64),
    WakeAll(u64),
    Interrupt(Slot),
    Requeue(u32),
    Spawn,
    End,
    /// The process of a thread is stopped; the holder's by itself.
    Hold(Slot),
    Release(Slot),
    /// Another thread's process dies.
    Remove(Slot),
}

/// The parts of a scheduler that so few threads use, for going back.
#[derive(Clone)]
pub(super) struct Saved {
    head: Vec<u8>,
    buckets: Vec<Queue>,
    heap: [Slot; SLOTS],
    threads: [Thread; SLOTS],
    model: Model,
}

pub(super) struct Pair {
    real: Box<Scheduler>,
    pub(super) model: Model,
    /// Budgets and times of the epochs to come are taken from here.
    pub(super) budget: u32,
}

const HEAD: usize = core::mem::offset_of!(Scheduler, buckets);

impl Pair {
    pub(super) fn new(threads: usize, quantum: u32, budget: u32) -> Self {
        let mut pair = Self {
            real: super::scheduler(quantum),
            model: Model::new(quantum),
            budget,
        };
        for _ in 0..threads {
            assert_eq!(pair.real.spawn(1), Some(pair.model.spawn()));
        }
        pair.begin_epoch(1_000);
        assert_eq!(pair.real.pick(), pair.model.pick());
        pair.compare();
        pair
    }

    pub(super) fn save(&self) -> Saved {
        let mut head = std::vec![0; HEAD];
        // SAFETY: the structure is plain integers; HEAD of its bytes are read.
        unsafe {
            let from = (&raw const *self.real).cast::<u8>();
            core::ptr::copy_nonoverlapping(from, head.as_mut_ptr(), HEAD);
        }
        let bucket = |&key: &u64| self.real.buckets[crate::queues::bucket(key)];
        let mut saved = Saved {
            head,
            buckets: KEYS.iter().map(bucket).collect(),
            heap: [0; SLOTS],
            threads: [self.real.threads[0]; SLOTS],
            model: self.model.clone(),
        };
        saved.heap.copy_from_slice(&self.real.heap[..SLOTS]);
        saved.threads.copy_from_slice(&self.real.threads[..SLOTS]);
        saved
    }

    pub(super) fn restore(&mut self, saved: &Saved) {
        // SAFETY: as above; they were read from there.
        unsafe {
            let to = (&raw mut *self.real).cast::<u8>();
            core::ptr::copy_nonoverlapping(saved.head.as_ptr(), to, HEAD);
        }
        for (key, queue) in KEYS.iter().zip(&saved.buckets) {
            self.real.buckets[crate::queues::bucket(*key)] = *queue;
        }
        self.real.heap[..SLOTS].copy_from_slice(&saved.heap);
        self.real.threads[..SLOTS].copy_from_slice(&saved.threads);
        self.model.clone_from(&saved.model);
    }

    pub(super) fn hash(&self) -> u64 {
        self.real.hash()
    }

    pub(super) fn compare(&self) {
        self.model.compare(&self.real, &KEYS);
    }

    fn begin_epoch(&mut self, time: u64) {
        self.real.begin_epoch(time, self.budget);
        self.model.begin_epoch(time, self.budget);
    }

    /// All steps that are possible now, with up to `threads` threads.
    pub(super) fn steps(&self, threads: usize) -> Vec<Step> {
        let mut steps = std::vec![
            Step::Operation,
            Step::Yield,
            Step::Wait(0, Some(3)),
            Step::Wait(1, None),
            Step::Wait(1, Some(2)),
            Step::Wait(2, None),
            Step::WakeOne(1),
            Step::WakeAll(1),
            Step::WakeOne(2),
            Step::Requeue(1),
            Step::End,
        ];
        if self.model.alive() < threads {
            steps.push(Step::Spawn);
        }
        for slot in 1..SLOTS as Slot {
            let life = self.model.life[slot as usize];
            if life == Life::Blocked {
                steps.push(Step::Interrupt(slot));
            }
            if matches!(life, Life::Blocked | Life::Ready) {
                steps.push(Step::Remove(slot));
            }
            if self.model.held[slot as usize] {
                steps.push(Step::Release(slot));
            } else if life != Life::Free {
                steps.push(Step::Hold(slot));
            }
        }
        steps
    }

    /// Does a step to both and goes on to where a thread has the turn again;
    /// false when no thread is left.
    pub(super) fn step(&mut self, step: Step) -> bool {
        let next = match step {
            Step::Operation => self.operation(),
            Step::Yield => Some(self.rotate()),
            Step::Wait(key, operations) => {
                let deadline = operations.map(|n| self.model.now() + n * STEP_NS);
                self.real.block(key, deadline);
                self.model.block(key, deadline);
                Some(self.pick())
            }
            Step::WakeOne(key) => {
                assert_eq!(self.real.wake_one(key), self.model.wake_one(key));
                None
            }
            Step::WakeAll(key) => {
                let mut count = 0;
                while self.model.wake_one(key).is_some() {
                    count += 1;
                }
                assert_eq!(self.real.wake_all(key), count);
                None
            }
            Step::Interrupt(slot) => {
                let real = self.real.wake_thread(slot, Wake::Interrupted);
                assert_eq!(real, self.model.wake_thread(slot, Wake::Interrupted));
                None
            }
            Step::Requeue(count) => {
                let moved = self.real.requeue(1, 2, count);
                assert_eq!(moved, self.model.requeue(1, 2, count));
                None
            }
            Step::Spawn => {
                assert_eq!(self.real.spawn(1), Some(self.model.spawn()));
                None
            }
            Step::End => {
                let me = self.model.current();
                self.real.remove(me);
                self.model.remove(me);
                Some(self.pick())
            }
            Step::Hold(slot) => {
                self.real.hold(slot);
                self.model.hold(slot);
                (slot == self.model.current()).then(|| self.rotate())
            }
            Step::Release(slot) => {
                self.real.release(slot);
                self.model.release(slot);
                None
            }
            Step::Remove(slot) => {
                self.real.remove(slot);
                self.model.remove(slot);
                None
            }
        };
        let goes_on = self.settle(next);
        self.compare();
        goes_on
    }

    fn rotate(&mut self) -> Next {
        let next = self.real.rotate();
        assert_eq!(next, self.model.rotate(), "who is held does not run");
        next
    }

    fn pick(&mut self) -> Next {
        let next = self.real.pick();
        assert_eq!(next, self.model.pick(), "quiescent when all wait");
        next
    }

    /// An operation of the holder, and what it has to attend to.
    fn operation(&mut self) -> Option<Next> {
        let asked = self.real.tick(7);
        let mut expected = self.model.tick();
        if !asked {
            assert_eq!(expected, Attention::Continue, "exact ends");
            return None;
        }
        loop {
            assert_eq!(self.real.attend(), expected, "exact ends");
            match expected {
                Attention::Continue => return None,
                Attention::Rotate => return Some(self.rotate()),
                Attention::Boundary => {
                    self.begin_epoch(self.model.now() + STEP_NS);
                    expected = self.model.attend();
                }
            }
        }
    }

    /// Epochs until somebody runs: to the next deadline, or with an input that
    /// wakes the first waiter.
    fn settle(&mut self, mut next: Option<Next>) -> bool {
        while next == Some(Next::Quiescent) {
            if self.model.alive() == 0 {
                return false;
            }
            let deadline = self.model.next_deadline();
            self.begin_epoch(deadline.unwrap_or(0));
            if deadline.is_none() {
                let held = (1..SLOTS).find(|&one| self.model.held[one]);
                if let Some(held) = held {
                    self.real.release(held as Slot);
                    self.model.release(held as Slot);
                } else {
                    let first = (1..SLOTS).find(|&one| self.model.life[one] == Life::Blocked);
                    let first = first.unwrap_or_default() as Slot;
                    assert!(self.real.wake_thread(first, Wake::Woken));
                    assert!(self.model.wake_thread(first, Wake::Woken));
                }
            }
            next = Some(self.pick());
        }
        true
    }
}
