//! What the scheduler promises, written down a second time as simply as can be:
//! plain vectors, searched from the front. The real one must do the same.
//!
//! Invariants that hold after every step, by the names that the messages use:
//!
//! * **one turn**: one thread at most has the turn, and it neither waits nor queues;
//! * **nobody is lost**: every other thread is in the run queue once, or waits;
//! * **first come, first served**: in the run queue and for each key;
//! * **deadlines in order**: by time, then by who began to wait first, never
//!   early, and at the first operation that is late enough;
//! * **exact ends**: a turn rotates when its quantum is used up and others are
//!   ready, an epoch ends when its budget is used up, not an operation off;
//! * **quiescent when all wait**, and only then;
//! * **who is held does not run**, and loses nothing meanwhile;
//! * **reasons are true**: a thread is told why its wait ended;
//! * **time goes on**: neither the clock nor virtual time goes back.

use super::small::SLOTS;
use crate::{Attention, Next, STEP_NS, Scheduler, Slot, Wake};
use std::vec::Vec;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Free,
    Ready,
    Running,
    Blocked,
    Held,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Model {
    clock: u64,
    now: u64,
    quantum: u64,
    /// The quantum in this epoch.
    turn: u64,
    quantum_end: u64,
    budget_end: u64,
    /// Who has, or had, the turn.
    current: Slot,
    pub(super) life: [Life; SLOTS],
    wake: [Wake; SLOTS],
    pub(super) held: [bool; SLOTS],
    run: Vec<Slot>,
    /// Who waits for what, in the order in which they came.
    waits: Vec<(u64, Slot)>,
    /// Deadline, clock when the wait began, thread.
    deadlines: Vec<(u64, u64, Slot)>,
    /// Freed slots, the latest last.
    free: Vec<Slot>,
    fresh: Slot,
}

impl Model {
    pub(super) fn new(quantum: u32) -> Self {
        Self {
            clock: 0,
            now: 0,
            quantum: quantum.into(),
            turn: quantum.into(),
            quantum_end: 0,
            budget_end: 0,
            current: 0,
            life: [Life::Free; SLOTS],
            wake: [Wake::Woken; SLOTS],
            held: [false; SLOTS],
            run: Vec::new(),
            waits: Vec::new(),
            deadlines: Vec::new(),
            free: Vec::new(),
            fresh: 0,
        }
    }

    pub(super) fn current(&self) -> Slot {
        self.current
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn alive(&self) -> usize {
        self.life.iter().filter(|&&one| one != Life::Free).count()
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.iter().min().map(|&(at, _, _)| at)
    }

    fn ready(&mut self, slot: Slot, why: Wake) {
        self.waits.retain(|&(_, one)| one != slot);
        self.deadlines.retain(|&(_, _, one)| one != slot);
        self.wake[slot as usize] = why;
        if self.held[slot as usize] {
            self.life[slot as usize] = Life::Held;
            return;
        }
        self.life[slot as usize] = Life::Ready;
        self.run.push(slot);
    }

    pub(super) fn hold(&mut self, slot: Slot) {
        self.held[slot as usize] = true;
        if self.life[slot as usize] == Life::Ready {
            self.run.retain(|&one| one != slot);
            self.life[slot as usize] = Life::Held;
        }
    }

    pub(super) fn release(&mut self, slot: Slot) {
        self.held[slot as usize] = false;
        if self.life[slot as usize] == Life::Held {
            self.ready(slot, self.wake[slot as usize]);
        }
    }

    fn fire_due(&mut self) {
        while let Some(&(at, _, slot)) = self.deadlines.iter().min() {
            if at > self.now {
                break;
            }
            self.ready(slot, Wake::TimedOut);
        }
    }

    pub(super) fn spawn(&mut self) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh
        });
        self.ready(slot, Wake::Woken);
        slot
    }

    pub(super) fn tick(&mut self) -> Attention {
        self.clock += 1;
        self.now += STEP_NS;
        self.attend()
    }

    pub(super) fn attend(&mut self) -> Attention {
        self.fire_due();
        if self.clock >= self.budget_end {
            return Attention::Boundary;
        }
        if self.clock >= self.quantum_end {
            if !self.run.is_empty() {
                return Attention::Rotate;
            }
            self.quantum_end = self.clock + self.turn;
        }
        Attention::Continue
    }

    pub(super) fn rotate(&mut self) -> Next {
        self.ready(self.current, Wake::Woken);
        self.pick()
    }

    pub(super) fn block(&mut self, key: u64, deadline: Option<u64>) {
        let me = self.current;
        self.life[me as usize] = Life::Blocked;
        if key != 0 {
            self.waits.push((key, me));
        }
        if let Some(at) = deadline {
            self.deadlines.push((at, self.clock, me));
        }
    }

    pub(super) fn pick(&mut self) -> Next {
        if self.run.is_empty() {
            return Next::Quiescent;
        }
        self.current = self.run.remove(0);
        self.life[self.current as usize] = Life::Running;
        self.quantum_end = self.clock + self.turn;
        Next::Run(self.current)
    }

    pub(super) fn begin_epoch(&mut self, time: u64, budget: u32) {
        self.now = self.now.max(time);
        self.budget_end = self.clock + u64::from(budget.max(1));
        // An eighth of a small budget.
        self.turn = self.quantum.min(u64::from(budget) / 8).max(1);
        self.quantum_end = self.quantum_end.min(self.clock + self.turn);
        self.fire_due();
    }

    pub(super) fn waiters(&self, key: u64) -> Vec<Slot> {
        let of_key = self.waits.iter().filter(|&&(one, _)| one == key);
        of_key.map(|&(_, slot)| slot).collect()
    }

    pub(super) fn wake_one(&mut self, key: u64) -> Option<Slot> {
        let slot = *self.waiters(key).first()?;
        self.ready(slot, Wake::Woken);
        Some(slot)
    }

    pub(super) fn wake_thread(&mut self, slot: Slot, why: Wake) -> bool {
        let blocked = self.life[slot as usize] == Life::Blocked;
        if blocked {
            self.ready(slot, why);
        }
        blocked
    }

    pub(super) fn requeue(&mut self, from: u64, to: u64, count: u32) -> u32 {
        let moved: Vec<Slot> = self
            .waiters(from)
            .into_iter()
            .take(count as usize)
            .collect();
        self.waits.retain(|(_, slot)| !moved.contains(slot));
        self.waits.extend(moved.iter().map(|&slot| (to, slot)));
        moved.len() as u32
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        if self.life[slot as usize] == Life::Free {
            return;
        }
        self.waits.retain(|&(_, one)| one != slot);
        self.deadlines.retain(|&(_, _, one)| one != slot);
        self.run.retain(|&one| one != slot);
        self.life[slot as usize] = Life::Free;
        self.held[slot as usize] = false;
        self.free.push(slot);
    }

    /// Asserts that the real one is in the same state.
    pub(super) fn compare(&self, s: &Scheduler, keys: &[u64]) {
        assert_eq!((s.clock(), s.now()), (self.clock, self.now), "time goes on");
        assert_eq!(s.current(), self.current, "one turn");
        assert_eq!(s.alive() as usize, self.alive(), "nobody is lost");
        assert_eq!(s.others_ready(), !self.run.is_empty(), "nobody is lost");
        assert_eq!(
            s.next_deadline(),
            self.next_deadline(),
            "deadlines in order"
        );
        assert_eq!(s.heap_len as usize, self.deadlines.len(), "nobody is lost");
        let mut queued = s.run.head;
        for &slot in &self.run {
            assert_eq!(queued, slot, "first come, first served");
            queued = s.threads[slot as usize].next;
        }
        assert_eq!(queued, 0, "nobody is lost");
        for &key in keys {
            let mut last = 0;
            for slot in self.waiters(key) {
                assert_eq!(
                    s.waiter_after(key, last),
                    Some(slot),
                    "first come, first served"
                );
                last = slot;
            }
            assert_eq!(s.waiter_after(key, last), None, "nobody is lost");
        }
        for slot in 1..SLOTS {
            let blocked = s.waits_for(slot as Slot).is_some();
            assert_eq!(blocked, self.life[slot] == Life::Blocked, "nobody is lost");
            assert_eq!(
                s.exists(slot as Slot),
                self.life[slot] != Life::Free,
                "nobody is lost"
            );
            if matches!(self.life[slot], Life::Ready | Life::Running | Life::Held) {
                assert_eq!(
                    s.wake_reason(slot as Slot),
                    self.wake[slot],
                    "reasons are true"
                );
            }
        }
    }
}
