//! Taking part in the schedule: operations, waiting, and handing the turn over.
//!
//! Only the holder of the turn runs code of the program; all others sleep at
//! their gates (an untimed futex wait on a word of the segment, which is what
//! a checkpoint can freeze). So an operation of the holder is a counter, and
//! everything an operation touches is touched without atomics or locks.

use crate::raw::{self, line};
use crate::world::{card, ensure_attached, header, world};
use crate::{
    boundary, cancel, inotify, recent, refuse, restored, signals, stack, threads, tls, trace,
};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::futex;
use crane_scheduler::{Attention, Next, Slot, Wake};

pub(crate) use crate::operations::Op;

/// Where a thread sleeps until it is given the turn.
#[repr(C)]
pub(crate) struct Gate(AtomicU32);

const CLOSED: u32 = 0;
const OPEN: u32 = 1;
const SLEEPING: u32 = 2;
/// The log is to be waited for, by this thread.
const SERVE: u32 = 3;

/// For what a thread was woken at its gate.
#[derive(PartialEq, Eq)]
enum Passed {
    /// It has the turn.
    Turn,
    /// Nobody can run; it is to serve the boundary.
    Serve,
}

impl Gate {
    fn open(&self) {
        self.let_in(OPEN);
    }

    fn let_in(&self, how: u32) {
        if self.0.swap(how, Ordering::SeqCst) == SLEEPING {
            futex::wake(&self.0, 1);
        }
    }

    fn pass(&self) -> Passed {
        let took = |how| {
            self.0
                .compare_exchange(how, CLOSED, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        };
        loop {
            if took(OPEN) {
                return Passed::Turn;
            }
            if took(SERVE) {
                return Passed::Serve;
            }
            let _ = self
                .0
                .compare_exchange(CLOSED, SLEEPING, Ordering::SeqCst, Ordering::SeqCst);
            futex::wait(&self.0, SLEEPING);
        }
    }
}

/// Begins an operation of the calling thread: the logical clock advances, and
/// the quantum or the epoch's budget may end here.
///
/// Returns the caller's slot. 0 for a thread that is not in the schedule: one
/// at the very end of its life (its successor waits for it, so it still runs
/// alone), or one that was made behind the interposer's back, which may do
/// what does not wait.
#[inline]
pub(crate) fn begin(op: Op) -> Slot {
    begin_on(op, core::ptr::null::<u8>())
}

/// As [`begin`], of an operation on an object in the program's memory.
#[inline]
pub(crate) fn begin_on<T>(op: Op, object: *const T) -> Slot {
    let me = tls::slot();
    if me == 0 {
        ensure_attached();
        return tls::slot();
    }
    let watch = trace::wanted();
    if watch != 0 {
        if watch & trace::OBJECTS != 0 && !object.is_null() {
            world().scheduler.witness(object as u64);
        }
        if watch & trace::EACH != 0 {
            trace::record(op as u32, object as u64);
        }
    }
    note(me, op);
    let scheduler = &mut world().scheduler;
    let attention = scheduler.tick(op as u32);
    recent::note(scheduler.clock(), op as u32, me, object as u64);
    // For whoever looks on from outside, see `docs/operating.md`.
    header().ticks.store(scheduler.clock(), Ordering::Relaxed);
    card(me).operation.store(op as u32, Ordering::Relaxed);
    // A turn does not end with an unlock, but before what comes next: a thread
    // whose turns all ended there would hold its lock whenever others run.
    if attention && !matches!(op, Op::MutexUnlock | Op::RwUnlock | Op::SpinUnlock) {
        attend(me);
    }
    if cancel::is_point(op) {
        cancel::act_if_asked(me);
    }
    me
}

/// Notes what the calling thread does: in a wait of which operation it is.
#[inline]
pub(crate) fn note(me: Slot, op: Op) {
    world().threads[me as usize].in_point = cancel::point_of(op);
}

#[cold]
fn attend(me: Slot) {
    loop {
        let w = world();
        match w.scheduler.attend() {
            Attention::Continue => break,
            // Inside the C library a lock of its own may be held, which a
            // thread that ran now could wait for outside the schedule.
            _ if w.threads[me as usize].pinned > 0 => break,
            Attention::Boundary => {
                boundary::budget_used();
                restored::look(me);
            }
            Attention::Rotate => {
                let next = w.scheduler.rotate();
                follow(next, me);
                break;
            }
        }
    }
    boundary::flush_if_due();
    cancel::act_anywhere(me);
    signals::deliver(me);
    stack::clean();
}

/// Gives the turn to the next in the queue and returns when it is back.
pub(crate) fn yield_now(me: Slot) {
    if me == 0 || world().threads[me as usize].pinned > 0 {
        return;
    }
    let next = world().scheduler.rotate();
    follow(next, me);
    cancel::act_anywhere(me);
    signals::deliver(me);
}

/// The calling thread's process is stopped. Returns with the turn when it goes on.
pub(crate) fn stand(me: Slot) {
    let next = world().scheduler.rotate();
    follow(next, me);
}

/// The calling thread, in the program's own code, is in a loop that only another
/// thread can end; `which` tells that loop from others. Returns with the turn,
/// after others have run.
pub(crate) fn spin(me: Slot, which: u64) {
    begin(Op::Spin);
    let next = world().scheduler.spin(which);
    follow(next, me);
    signals::deliver(me);
}

/// Waits for `key` (0: for a direct wake only) or until virtual time
/// `deadline`; returns why the wait ended, with the turn held again.
///
/// A child that was made in a handler in such a wait goes on with it as itself.
pub(crate) fn wait(me: Slot, key: u64, deadline: Option<u64>) -> Wake {
    if me == 0 {
        refuse::unscheduled_wait();
    }
    let me = tls::slot();
    inotify::look(me);
    signals::wait_begins(me);
    // A signal that came before the wait ends it at once.
    signals::deliver(me);
    if signals::handled() {
        return Wake::Interrupted;
    }
    let w = world();
    // A handler that runs in this wait does operations of its own.
    let in_point = w.threads[me as usize].in_point;
    cancel::act_in_wait(me);
    w.scheduler.block(key, deadline);
    let next = w.scheduler.pick();
    follow(next, me);
    let why = world().scheduler.wake_reason(me);
    // Who was woken goes on: it may have used up what woke it.
    if why == Wake::Interrupted {
        cancel::act_in_wait(me);
    }
    signals::deliver(me);
    let me = tls::slot();
    world().threads[me as usize].in_point = in_point;
    // Somebody else may have taken the signal meanwhile.
    if why == Wake::Interrupted && !signals::handled() && !cancel::is_asked(me) {
        return Wake::Woken;
    }
    why
}

/// As [`wait`] without a deadline, taking no signals meanwhile.
pub(crate) fn wait_deaf(me: Slot, key: u64) {
    world().threads[me as usize].pinned += 1;
    wait(me, key, None);
    world().threads[me as usize].pinned -= 1;
}

/// Wakes the longest waiter for `key`.
#[inline]
pub(crate) fn wake_one(key: u64) -> bool {
    world().scheduler.wake_one(key).is_some()
}

/// Wakes all waiters for `key`.
#[inline]
pub(crate) fn wake_all(key: u64) {
    world().scheduler.wake_all(key);
}

/// Acts on the scheduler's choice: hands the turn over and sleeps, unless the
/// choice is the caller itself.
fn follow(next: Next, me: Slot) {
    let mut chosen = settle(next);
    while chosen != me {
        world().threads[me as usize].parked = 1;
        hand_over(chosen);
        if pass(me) == Passed::Turn {
            break;
        }
        world().threads[me as usize].parked = 0;
        chosen = settle(Next::Quiescent);
    }
    world().threads[me as usize].parked = 0;
    taken(me);
}

/// Sleeps at the gate of the calling thread.
fn pass(me: Slot) -> Passed {
    // No reference into the world is kept meanwhile: others write there.
    let gate = &raw const world().threads[me as usize].gate;
    // SAFETY: the gate lies in the segment, and is an atomic.
    unsafe { (*gate).pass() }
}

/// The calling thread leaves the schedule for `call`, which touches nothing of
/// the program or of the schedule, and comes back when it is given the turn:
/// it waits for `key`.
pub(crate) fn wait_outside(me: Slot, key: u64, call: impl FnOnce()) {
    let w = world();
    w.scheduler.block(key, None);
    let next = w.scheduler.pick();
    let deputy = match next {
        Next::Run(slot) => {
            hand_over(slot);
            Some(slot)
        }
        // Somebody else has to wait for the log meanwhile.
        Next::Quiescent => {
            let end = w.scheduler.slots_end();
            let parked = |slot: &Slot| w.threads[*slot as usize].parked != 0;
            let deputy = (1..end).find(|slot| w.scheduler.exists(*slot) && parked(slot));
            if let Some(slot) = deputy {
                show_holder(slot);
                w.threads[slot as usize].gate.let_in(SERVE);
            }
            deputy
        }
    };
    call();
    if deputy.is_none() || pass(me) == Passed::Serve {
        follow(Next::Quiescent, me);
    } else {
        taken(me);
    }
}

/// Waits once more for `key`, whatever woke the calling thread.
pub(crate) fn wait_again(me: Slot, key: u64) {
    let w = world();
    w.scheduler.block(key, None);
    let next = w.scheduler.pick();
    follow(next, me);
}

/// Runs boundaries until somebody can run.
fn settle(mut next: Next) -> Slot {
    loop {
        match next {
            Next::Run(slot) => return slot,
            Next::Quiescent => {
                boundary::quiescent();
                next = world().scheduler.pick();
            }
        }
    }
}

fn hand_over(to: Slot) {
    let w = world();
    show_holder(to);
    w.threads[to as usize].gate.open();
}

/// Tells the node who has the turn.
fn show_holder(slot: Slot) {
    let (h, card) = (header(), card(slot));
    h.holder_pid
        .store(card.pid.load(Ordering::Relaxed), Ordering::Relaxed);
    h.holder_tid
        .store(card.tid.load(Ordering::Relaxed), Ordering::Relaxed);
    h.holder.store(slot, Ordering::Relaxed);
}

/// Fills the calling thread's card, with the turn held.
fn introduce(me: Slot) {
    let card = card(me);
    card.tid.store(raw::gettid(), Ordering::Relaxed);
    card.pid.store(raw::getpid(), Ordering::Relaxed);
    card.operation.store(0, Ordering::Relaxed);
    show_holder(me);
}

/// The calling thread has just taken the turn.
fn taken(me: Slot) {
    restored::look(me);
    threads::await_leavers(me);
    // How it came to the turn differs between replicas: who slept, who served.
    stack::clean();
}

/// First turn of the first thread of the server: waits at the log for the
/// first epoch. A process that attached after exec has kept its turn.
pub(crate) fn first_turn() {
    introduce(tls::slot());
    if world().epoch == 0 {
        boundary::quiescent();
        let next = world().scheduler.pick();
        debug_assert_eq!(next, Next::Run(tls::slot()));
    }
}

/// First turn of a new thread or forked child: nothing of it runs before.
pub(crate) fn await_first(me: Slot) {
    // Only a thread that has waited before is asked to serve.
    let _ = pass(me);
    introduce(me);
    taken(me);
}

/// Leaves the schedule for good: the turn goes on without the caller, whose
/// slot has been removed. When nobody is left to run, the caller serves the
/// boundary until somebody is.
pub(crate) fn leave() {
    let next = world().scheduler.pick();
    let chosen = settle(next);
    hand_over(chosen);
}

/// A line for the node's log, and for the server's standard error when fatal.
pub(crate) fn report(fatal: bool, text: &raw::Line) {
    boundary::tell(&crane_channel::output::Output::Message {
        fatal,
        text: text.as_bytes(),
    });
    boundary::flush();
    if fatal {
        raw::write_stderr(line!("crane: ").as_bytes());
        raw::write_stderr(text.as_bytes());
        raw::write_stderr(b"\n");
    }
}
