//! The deterministic scheduler: one turn, FIFO queues, a logical clock and
//! virtual time.
//!
//! Follows Parrot (SOSP'13) in its round-robin turn and FIFO wait queues, and
//! CRANE (SOSP'15) in its time bubbles; what differs is said in
//! `docs/architecture.md`. A pure state machine: operations go in, decisions
//! come out; no system calls, no allocation, no pointers. It lives in the
//! shared segment, so it is a plain structure of integers for which all-zero
//! memory is the valid empty state, and it is used by one thread at a time:
//! the holder of the turn.
//!
//! Every scheduled operation of the holder calls [`Scheduler::tick`]. The
//! holder keeps the turn until it blocks ([`Scheduler::block`]), yields, or
//! has used its quantum. When nobody can run, or the epoch's budget is used
//! up, the execution has reached a *boundary*, at which the next epoch of the
//! log is applied ([`Scheduler::begin_epoch`]). Both are functions of earlier
//! inputs alone, so the boundary is the same instant on every replica.

#![cfg_attr(not(test), no_std)]

mod deadlines;
mod queues;
mod turn;

pub use turn::{Attention, Doing, Look, Next, Scheduler};

/// Most threads at a time over all processes of a server. Slot 0 is never used.
pub const MAX_THREADS: usize = 8192;

/// Buckets of the wait queues' hash table.
const BUCKETS: usize = 4096;

/// Virtual nanoseconds that one operation takes.
///
/// Large enough for calibration loops that spin on the clock to end, small
/// enough that virtual time does not outrun real time (10 million operations
/// a second would be needed).
pub const STEP_NS: u64 = 100;

/// A thread slot, 1 to [`MAX_THREADS`]` - 1`; 0 means none.
pub type Slot = u32;

/// Why a blocked thread runs again.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody woke it: the key it waited for, or it directly.
    Woken = 0,
    /// Its deadline passed in virtual time.
    TimedOut = 1,
    /// A signal is to be taken.
    Interrupted = 2,
}

#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free = 0,
    Ready = 1,
    Running = 2,
    Blocked = 3,
    /// It could run, but its process is stopped.
    Held = 4,
}

/// One thread's record.
#[repr(C)]
#[derive(Clone, Copy)]
struct Thread {
    state: u32,
    /// Why it was last woken, a [`Wake`].
    wake: u32,
    /// Links of the run queue or of a wait bucket.
    next: Slot,
    prev: Slot,
    /// What it waits for; 0: nothing that can be woken by key.
    key: u64,
    /// Virtual time at which the wait ends; meaningful while in the heap.
    deadline: u64,
    /// Order of equal deadlines: the clock when the wait began.
    since: u64,
    /// Position in the heap plus one; 0: not there.
    heap: u32,
    /// Process the thread belongs to.
    process: u32,
    /// The loop in which it was found last, see [`Scheduler::spin`]; 0: none.
    spins_in: u64,
    /// [`Scheduler`]'s count of changes then.
    changes: u64,
    /// The clock when it was last given the turn.
    picked: u64,
    /// 1: it waits in that loop for something to change.
    spinning: u32,
    /// Turns in a row that it spent in that loop.
    fruitless: u32,
    /// 1: its process is stopped, see [`Scheduler::hold`].
    held: u32,
    _pad: u32,
}

#[cfg(test)]
mod tests;
