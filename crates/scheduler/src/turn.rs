//! The turn, the logical clock and the epoch's budget.

use crate::queues::Queue;
use crate::{BUCKETS, MAX_THREADS, STEP_NS, Slot, State, Thread, Wake};

/// Turns that fit into an epoch, at least, whatever the quantum.
const TURNS: u32 = 8;

/// A thread that spins lets at most two to the power of this many turns go by.
const PATIENCE: u32 = 4;

/// Who runs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This thread has the turn now.
    Run(Slot),
    /// Every thread is blocked: the boundary of the epoch.
    Quiescent,
}

/// What a thread does, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has the turn.
    Running,
    /// It waits for the turn.
    Ready,
    /// It waits for the turn, and for another thread to change memory.
    Spinning,
    /// Its process is stopped.
    Stopped,
    /// It is blocked.
    Waiting {
        /// For what; 0: for nothing that has a key.
        key: u64,
        /// Until when, virtual nanoseconds.
        deadline: Option<u64>,
    },
}

/// A thread, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The process that was given to [`Scheduler::spawn`].
    pub process: u32,
    /// What it does.
    pub doing: Doing,
}

/// What [`Scheduler::attend`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Go on; the turn is still the caller's.
    Continue,
    /// The quantum is used up and others are ready: call
    /// [`Scheduler::rotate`].
    Rotate,
    /// The budget is used up: the boundary of the epoch, with the caller
    /// still holding the turn.
    Boundary,
}

/// The scheduler's whole state. All-zero memory plus [`Scheduler::init`] is the
/// start; see the crate's documentation for the rules of use.
#[repr(C)]
pub struct Scheduler {
    pub(crate) clock: u64,
    pub(crate) now: u64,
    /// Clock at which [`Scheduler::tick`] next asks for attention.
    check_at: u64,
    quantum_end: u64,
    budget_end: u64,
    hash: u64,
    handovers: u64,
    /// Turns that may have changed memory, see [`Scheduler::spin`].
    changes: u64,
    quantum: u32,
    /// The quantum in this epoch.
    turn: u32,
    current: Slot,
    pub(crate) run: Queue,
    /// Head of the list of freed slots, linked by `next`.
    free: Slot,
    /// Slots handed out for the first time so far.
    fresh: u32,
    alive: u32,
    ready: u32,
    pub(crate) heap_len: u32,
    pub(crate) buckets: [Queue; BUCKETS],
    pub(crate) heap: [Slot; MAX_THREADS],
    pub(crate) threads: [Thread; MAX_THREADS],
}

impl Scheduler {
    /// Sets the quantum (operations a thread may do before the turn rotates,
    /// at least 1). The budget is 0 until the first epoch begins.
    pub fn init(&mut self, quantum: u32) {
        self.quantum = quantum.max(1);
        self.turn = self.quantum;
    }

    /// Logical clock: operations so far.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Virtual time, nanoseconds since the Unix epoch.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Running hash of the schedule, the sequence of (thread, operation).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Times the turn went from one thread to another.
    pub fn handovers(&self) -> u64 {
        self.handovers
    }

    /// The holder of the turn; at a quiescent boundary, who held it last.
    pub fn current(&self) -> Slot {
        self.current
    }

    /// Threads that exist.
    pub fn alive(&self) -> u32 {
        self.alive
    }

    /// Whether a thread other than the holder could run.
    pub fn others_ready(&self) -> bool {
        self.ready > 0
    }

    /// The process that was given to [`spawn`](Self::spawn).
    pub fn process_of(&self, slot: Slot) -> u32 {
        self.threads[slot as usize].process
    }

    /// Whether the slot is blocked, with its wait key (0: none).
    pub fn waits_for(&self, slot: Slot) -> Option<u64> {
        let t = &self.threads[slot as usize];
        (t.state == State::Blocked as u32).then_some(t.key)
    }

    /// What a look from outside shows of `slot`; `None` if it is free. Does not
    /// panic whatever the memory holds, so that a copy taken at any moment may
    /// be looked at.
    pub fn look(&self, slot: Slot) -> Option<Look> {
        let t = self.threads.get(slot as usize)?;
        let doing = match t.state {
            s if s == State::Ready as u32 && t.spinning != 0 => Doing::Spinning,
            s if s == State::Ready as u32 => Doing::Ready,
            s if s == State::Running as u32 => Doing::Running,
            s if s == State::Held as u32 => Doing::Stopped,
            s if s == State::Blocked as u32 => Doing::Waiting {
                key: t.key,
                deadline: (t.heap != 0).then_some(t.deadline),
            },
            _ => return None,
        };
        Some(Look {
            process: t.process,
            doing,
        })
    }

    /// Adds a thread of `process` at the end of the run queue. `None` when
    /// [`MAX_THREADS`] exist.
    pub fn spawn(&mut self, process: u32) -> Option<Slot> {
        let slot = if self.free != 0 {
            let slot = self.free;
            self.free = self.threads[slot as usize].next;
            slot
        } else {
            if self.fresh as usize + 1 >= MAX_THREADS {
                return None;
            }
            self.fresh += 1;
            self.fresh
        };
        self.threads[slot as usize] = Thread {
            state: State::Blocked as u32,
            wake: Wake::Woken as u32,
            next: 0,
            prev: 0,
            key: 0,
            deadline: 0,
            since: 0,
            heap: 0,
            process,
            spins_in: 0,
            changes: 0,
            picked: 0,
            spinning: 0,
            fruitless: 0,
            held: 0,
            _pad: 0,
        };
        self.alive += 1;
        self.make_ready(slot, Wake::Woken);
        Some(slot)
    }

    /// One operation `code` of the holder. Returns true when the holder must
    /// call [`attend`](Self::attend) before it goes on.
    #[inline]
    #[must_use]
    pub fn tick(&mut self, code: u32) -> bool {
        self.clock += 1;
        self.now += STEP_NS;
        let mixed = self.hash ^ (u64::from(self.current) << 32 | u64::from(code));
        self.hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        self.clock >= self.check_at
    }

    /// Mixes `value` (for example a lock's address) into the schedule's hash.
    #[inline]
    pub fn witness(&mut self, value: u64) {
        self.hash = (self.hash ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    /// Fires due deadlines and says whether the holder may go on. The budget
    /// comes before the quantum: a boundary is never put off by a rotation.
    pub fn attend(&mut self) -> Attention {
        self.fire_due();
        if self.clock >= self.budget_end {
            return Attention::Boundary;
        }
        if self.clock >= self.quantum_end {
            if self.ready > 0 {
                return Attention::Rotate;
            }
            self.quantum_end = self.clock + u64::from(self.turn);
        }
        self.plan_check();
        Attention::Continue
    }

    /// The next attention: the earliest of budget, quantum and deadline.
    pub(crate) fn plan_check(&mut self) {
        let mut at = self.budget_end.min(self.quantum_end);
        if let Some(deadline) = self.next_deadline() {
            let steps = deadline.saturating_sub(self.now).div_ceil(STEP_NS);
            at = at.min(self.clock.saturating_add(steps));
        }
        self.check_at = at;
    }

    /// The holder goes to the end of the run queue and the first takes the
    /// turn (perhaps the same).
    pub fn rotate(&mut self) -> Next {
        let me = self.current;
        if self.threads[me as usize].state == State::Running as u32 {
            self.enqueue_ready(me, Wake::Woken);
        }
        self.pick()
    }

    /// The holder waits: for `key` (0: only for a direct wake) and, if given,
    /// until virtual time `deadline` in nanoseconds. Follow with
    /// [`pick`](Self::pick).
    pub fn block(&mut self, key: u64, deadline: Option<u64>) {
        let me = self.current;
        let clock = self.clock;
        let t = &mut self.threads[me as usize];
        debug_assert_eq!(t.state, State::Running as u32);
        t.state = State::Blocked as u32;
        t.key = key;
        t.since = clock;
        if key != 0 {
            self.wait_enqueue(me, key);
        }
        if let Some(deadline) = deadline {
            self.threads[me as usize].deadline = deadline;
            self.heap_insert(me);
        }
    }

    /// The holder executes a loop that it cannot leave before another thread has
    /// changed memory; `which`, not 0, tells that loop from others. It goes to
    /// the end of the run queue, and is passed over there while nothing can
    /// have changed. Call after the operation's [`tick`](Self::tick).
    pub fn spin(&mut self, which: u64) -> Next {
        let me = self.current;
        let t = &mut self.threads[me as usize];
        // In the same loop still, without another operation: this turn has
        // changed nothing, so that threads which only spin come to rest.
        if t.spins_in == which && t.picked + 1 == self.clock {
            self.changes -= 1;
            t.fruitless = (t.fruitless + 1).min(PATIENCE);
        } else {
            t.fruitless = 0;
        }
        if t.state == State::Running as u32 {
            self.enqueue_ready(me, Wake::Woken);
            let t = &mut self.threads[me as usize];
            t.spinning = 1;
            t.spins_in = which;
            t.changes = self.changes;
        }
        self.pick()
    }

    /// The first ready thread for which it makes sense to run: for one that
    /// spins, when something may have changed. One that has often looked in
    /// vain lets others go first.
    fn next_ready(&mut self) -> Option<Slot> {
        for patient in [true, false] {
            for _ in 0..self.ready {
                let slot = self.run_pop()?;
                let t = &self.threads[slot as usize];
                let wants = if patient { 1 << t.fruitless } else { 1 };
                if t.spinning == 0 || self.changes >= t.changes + wants {
                    return Some(slot);
                }
                self.run_push(slot);
            }
        }
        None
    }

    /// Gives the turn to the first ready thread.
    pub fn pick(&mut self) -> Next {
        let Some(slot) = self.next_ready() else {
            return Next::Quiescent;
        };
        self.ready -= 1;
        self.changes += 1;
        if slot != self.current {
            self.handovers += 1;
        }
        let t = &mut self.threads[slot as usize];
        t.state = State::Running as u32;
        t.spinning = 0;
        t.picked = self.clock;
        self.current = slot;
        self.quantum_end = self.clock + u64::from(self.turn);
        self.plan_check();
        Next::Run(slot)
    }

    /// Why `slot` runs again after its last [`block`](Self::block).
    pub fn wake_reason(&self, slot: Slot) -> Wake {
        match self.threads[slot as usize].wake {
            1 => Wake::TimedOut,
            2 => Wake::Interrupted,
            _ => Wake::Woken,
        }
    }

    /// Starts the next epoch: virtual time moves on to `time` (never back) and
    /// `budget` more operations may run. Fires what is due. The caller holds
    /// the turn or the execution is quiescent.
    pub fn begin_epoch(&mut self, time: u64, budget: u32) {
        self.now = self.now.max(time);
        self.budget_end = self.clock + u64::from(budget.max(1));
        // A small budget says that operations take long just now: then turns
        // are short as well, so that each thread has several in an epoch.
        self.turn = self.quantum.min(budget / TURNS).max(1);
        self.quantum_end = self.quantum_end.min(self.clock + u64::from(self.turn));
        self.fire_due();
        self.plan_check();
    }

    /// Wakes the longest waiter for `key`.
    pub fn wake_one(&mut self, key: u64) -> Option<Slot> {
        let slot = self.wait_first(key)?;
        self.unblock(slot, Wake::Woken);
        Some(slot)
    }

    /// Wakes all waiters for `key` in the order in which they came.
    pub fn wake_all(&mut self, key: u64) -> u32 {
        let mut count = 0;
        while self.wake_one(key).is_some() {
            count += 1;
        }
        count
    }

    /// Wakes `slot` if it is blocked; returns whether it was.
    pub fn wake_thread(&mut self, slot: Slot, why: Wake) -> bool {
        let t = &mut self.threads[slot as usize];
        // A signal is something new for one that spins.
        t.spinning = 0;
        let blocked = t.state == State::Blocked as u32;
        if blocked {
            self.unblock(slot, why);
        }
        blocked
    }

    /// Moves up to `count` waiters from one key to another, in order, without
    /// waking them (FUTEX_REQUEUE, and condition variables' waiters to their
    /// mutex). Their deadlines stay. Returns how many moved.
    pub fn requeue(&mut self, from: u64, to: u64, count: u32) -> u32 {
        let mut moved = 0;
        while moved < count {
            let Some(slot) = self.wait_first(from) else {
                break;
            };
            self.wait_remove(slot);
            self.threads[slot as usize].key = to;
            self.wait_enqueue(slot, to);
            moved += 1;
        }
        moved
    }

    /// Keeps a thread from running until [`release`](Self::release): its process
    /// is stopped. What wakes it meanwhile, a deadline too, is not lost. The
    /// holder goes on until its next [`rotate`](Self::rotate).
    pub fn hold(&mut self, slot: Slot) {
        let ready = State::Ready as u32;
        let t = &mut self.threads[slot as usize];
        t.held = 1;
        if t.state == ready {
            t.state = State::Held as u32;
            self.run_remove(slot);
            self.ready -= 1;
        }
    }

    /// Undoes [`hold`](Self::hold): if the thread could run, it comes to the end
    /// of the run queue.
    pub fn release(&mut self, slot: Slot) {
        let t = &mut self.threads[slot as usize];
        t.held = 0;
        if t.state == State::Held as u32 {
            let why = self.wake_reason(slot);
            self.make_ready(slot, why);
        }
    }

    /// Removes a thread for good: the holder (then call [`pick`](Self::pick))
    /// or, when its process dies, any other.
    pub fn remove(&mut self, slot: Slot) {
        match self.threads[slot as usize].state {
            s if s == State::Blocked as u32 => self.detach_waits(slot),
            s if s == State::Ready as u32 => {
                self.run_remove(slot);
                self.ready -= 1;
            }
            s if s == State::Free as u32 => return,
            _ => {}
        }
        let t = &mut self.threads[slot as usize];
        t.state = State::Free as u32;
        t.next = self.free;
        self.free = slot;
        self.alive -= 1;
    }

    /// Slots that were ever used are below this. Whatever the program made of its
    /// memory: a node looks, too.
    pub fn slots_end(&self) -> Slot {
        self.fresh.saturating_add(1)
    }

    /// Whether the slot is in use.
    pub fn exists(&self, slot: Slot) -> bool {
        self.threads[slot as usize].state != State::Free as u32
    }

    fn detach_waits(&mut self, slot: Slot) {
        if self.threads[slot as usize].key != 0 {
            self.wait_remove(slot);
        }
        if self.threads[slot as usize].heap != 0 {
            self.heap_remove(slot);
        }
    }

    fn unblock(&mut self, slot: Slot, why: Wake) {
        self.detach_waits(slot);
        self.make_ready(slot, why);
    }

    pub(crate) fn time_out(&mut self, slot: Slot) {
        self.unblock(slot, Wake::TimedOut);
    }

    fn make_ready(&mut self, slot: Slot, why: Wake) {
        self.enqueue_ready(slot, why);
        // The holder's quantum may have been renewed while it was alone.
        self.check_at = self.check_at.min(self.quantum_end);
    }

    fn enqueue_ready(&mut self, slot: Slot, why: Wake) {
        let t = &mut self.threads[slot as usize];
        t.wake = why as u32;
        t.key = 0;
        t.spinning = 0;
        if t.held != 0 {
            t.state = State::Held as u32;
            return;
        }
        t.state = State::Ready as u32;
        self.run_push(slot);
        self.ready += 1;
    }
}
