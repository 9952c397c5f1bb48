//! Cancellation of threads.
//!
//! The request is a flag of the target; it ends by itself, in its own turn: at
//! an operation that is a cancellation point, or, if it asked for that, at
//! whatever operation it is in. As only the holder of the turn runs, a thread
//! that is being cancelled by another is always in an operation. The stack is
//! unwound by the C library's pthread_exit(3), which runs the clean-up handlers
//! of C and the destructors of C++.

use crate::threads;
use crate::turn::{Op, begin};
use crate::world::world;
use core::ffi::{c_int, c_void};
use crane_scheduler::{Slot, Wake};

/// Bits of [`threads::Thread::cancel`].
const REQUESTED: u32 = 1;
const DISABLED: u32 = 2;
const ASYNCHRONOUS: u32 = 4;
/// It is ending already.
const ENDING: u32 = 8;

const PTHREAD_CANCELED: usize = usize::MAX;

/// Operations at which a request is acted upon (pthreads(7)).
pub(crate) const fn is_point(op: Op) -> bool {
    matches!(
        op,
        Op::TestCancel
            | Op::ThreadJoin
            | Op::CondWait
            | Op::SemWait
            | Op::Sleep
            | Op::Read
            | Op::Write
            | Op::FileWrite
            | Op::Open
            | Op::Close
            | Op::Accept
            | Op::Connect
            | Op::Send
            | Op::Receive
            | Op::Poll
            | Op::Select
            | Op::EpollWait
            | Op::Wait
            | Op::Signal
    )
}

fn is_wanted(bits: u32) -> bool {
    bits & (REQUESTED | DISABLED | ENDING) == REQUESTED
}

/// Values of [`threads::Thread::in_point`]: whether a thread may be cancelled in
/// the operation that it is in.
const NOT_HERE: u32 = 0;
const HERE: u32 = 1;
/// Yes, but it has to take its mutex back first, and sees to it.
const WITH_MUTEX: u32 = 2;

/// The value for an operation.
pub(crate) const fn point_of(op: Op) -> u32 {
    match op {
        Op::CondWait => WITH_MUTEX,
        _ if is_point(op) => HERE,
        _ => NOT_HERE,
    }
}

/// pthread_cancel(3).
pub(crate) fn cancel(thread: libc::pthread_t) -> c_int {
    let me = begin(Op::ThreadCancel);
    let Some(slot) = threads::find(thread) else {
        return libc::ESRCH;
    };
    let w = world();
    if w.threads[slot as usize].ended != 0 {
        return 0;
    }
    w.threads[slot as usize].cancel |= REQUESTED;
    if !is_wanted(w.threads[slot as usize].cancel) {
        return 0;
    }
    if slot == me {
        if w.threads[me as usize].cancel & ASYNCHRONOUS != 0 {
            act(me);
        }
    } else {
        let t = &w.threads[slot as usize];
        if t.in_point != NOT_HERE || t.cancel & ASYNCHRONOUS != 0 {
            w.scheduler.wake_thread(slot, Wake::Interrupted);
        }
    }
    0
}

/// Whether the calling thread is to end.
pub(crate) fn is_asked(me: Slot) -> bool {
    is_wanted(world().threads[me as usize].cancel)
}

/// Ends the calling thread if that was asked for and is allowed now.
pub(crate) fn act_if_asked(me: Slot) {
    if is_wanted(world().threads[me as usize].cancel) {
        act(me);
    }
}

/// As [`act_if_asked`], for a thread that comes back from a hand-over: only
/// if it may be cancelled anywhere.
#[inline]
pub(crate) fn act_anywhere(me: Slot) {
    let bits = world().threads[me as usize].cancel;
    if bits & ASYNCHRONOUS != 0 && is_wanted(bits) {
        act(me);
    }
}

/// The calling thread is about to wait, or was interrupted while it did.
#[inline]
pub(crate) fn act_in_wait(me: Slot) {
    let t = &world().threads[me as usize];
    let here = t.in_point == HERE || t.cancel & ASYNCHRONOUS != 0;
    if is_wanted(t.cancel) && here && t.in_point != WITH_MUTEX {
        act(me);
    }
}

#[cold]
fn act(me: Slot) -> ! {
    // SAFETY: nothing of ours on the stack has a destructor or holds the world.
    unsafe { threads::unwind(me, PTHREAD_CANCELED as *mut c_void) }
}

/// The thread ends: no request counts any more.
pub(crate) fn ends(me: Slot) {
    world().threads[me as usize].cancel |= ENDING;
}

/// pthread_setcancelstate(3).
pub(crate) unsafe fn set_state(state: c_int, old: *mut c_int) -> c_int {
    let bit = match state {
        0 => 0,
        1 => DISABLED,
        _ => return libc::EINVAL,
    };
    // SAFETY: same contract.
    unsafe { set(DISABLED, bit, old) }
}

/// pthread_setcanceltype(3).
pub(crate) unsafe fn set_type(kind: c_int, old: *mut c_int) -> c_int {
    let bit = match kind {
        0 => 0,
        1 => ASYNCHRONOUS,
        _ => return libc::EINVAL,
    };
    // SAFETY: same contract.
    unsafe { set(ASYNCHRONOUS, bit, old) }
}

unsafe fn set(mask: u32, bit: u32, old: *mut c_int) -> c_int {
    let me = begin(Op::CancelState);
    let t = &mut world().threads[me as usize];
    if !old.is_null() {
        // SAFETY: a place for the result.
        unsafe { *old = (t.cancel & mask != 0).into() };
    }
    t.cancel = t.cancel & !mask | bit;
    act_anywhere(me);
    0
}

/// pthread_testcancel(3).
pub(crate) fn test() {
    begin(Op::TestCancel);
}
