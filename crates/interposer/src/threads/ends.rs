//! Waiting for the end of threads: joining, detaching, and the real end of those
//! that have left the schedule.

use super::find;
use crate::real::real;
use crate::tls;
use crate::turn::{self, Op, begin};
use crate::world::world;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::futex;
use crane_scheduler::{Slot, Wake};

pub(super) fn end_key(slot: Slot) -> u64 {
    0x54 << 56 | u64::from(slot)
}

/// The new holder of the turn waits, in real time, until threads of its own
/// process that left have ended. (Those of other processes touch only their
/// own memory.)
pub(crate) fn await_leavers(me: Slot) {
    let w = world();
    let process = w.threads[me as usize].process as usize;
    while w.processes[process].leavers != 0 {
        let slot = w.processes[process].leavers;
        let t = &mut w.threads[slot as usize];
        w.processes[process].leavers = t.next_leaver;
        // SAFETY: the thread has not been joined, so its structure still exists;
        // the kernel writes the word as a 32-bit futex (set_tid_address(2)).
        let word = unsafe { AtomicU32::from_ptr(t.tid_word as *mut u32) };
        loop {
            let tid = word.load(Ordering::Acquire);
            if tid == 0 {
                break;
            }
            futex::wait(word, tid);
        }
        if t.detached != 0 {
            retire(slot);
        }
    }
}

/// Gives an ended thread's resources and its slot back.
fn retire(slot: Slot) {
    let handle = world().threads[slot as usize].handle;
    let me = tls::slot();
    world().threads[me as usize].pinned += 1;
    // SAFETY: the thread was created joinable, has ended, and is joined once.
    unsafe { (real().pthread_join)(handle, core::ptr::null_mut()) };
    let w = world();
    w.threads[me as usize].pinned -= 1;
    w.threads[slot as usize].handle = 0;
    w.scheduler.remove(slot);
}

/// pthread_join(3), with a deadline in virtual nanoseconds (None: no limit;
/// 0: do not wait).
pub(crate) unsafe fn join(
    thread: libc::pthread_t,
    result: *mut *mut c_void,
    deadline: Option<u64>,
) -> c_int {
    let me = begin(Op::ThreadJoin);
    let Some(slot) = find(thread) else {
        return libc::ESRCH;
    };
    let t = &world().threads[slot as usize];
    if deadline == Some(0) && t.ended == 0 {
        return libc::EBUSY;
    }
    if slot == me {
        return libc::EDEADLK;
    }
    if t.detached != 0 || is_joiner(t.joiner, slot) {
        return libc::EINVAL;
    }
    if is_joiner(slot, me) {
        return libc::EDEADLK;
    }
    while world().threads[slot as usize].ended == 0 {
        world().threads[slot as usize].joiner = me;
        if turn::wait(me, end_key(slot), deadline) == Wake::TimedOut {
            world().threads[slot as usize].joiner = 0;
            return libc::ETIMEDOUT;
        }
    }
    if !result.is_null() {
        // SAFETY: the caller passes a valid place for the result.
        unsafe { *result = world().threads[slot as usize].result as *mut c_void };
    }
    retire(slot);
    0
}

/// Whether thread `joiner` really waits for the end of thread `slot`: one that
/// was cancelled while it did is noted still.
fn is_joiner(joiner: Slot, slot: Slot) -> bool {
    joiner != 0 && world().scheduler.waits_for(joiner) == Some(end_key(slot))
}

/// pthread_detach(3).
pub(crate) fn detach(thread: libc::pthread_t) -> c_int {
    begin(Op::ThreadDetach);
    let Some(slot) = find(thread) else {
        return libc::ESRCH;
    };
    let t = &mut world().threads[slot as usize];
    if t.detached != 0 {
        return libc::EINVAL;
    }
    if is_joiner(t.joiner, slot) {
        return 0;
    }
    let t = &mut world().threads[slot as usize];
    t.detached = 1;
    if t.ended != 0 {
        retire(slot);
    }
    0
}
