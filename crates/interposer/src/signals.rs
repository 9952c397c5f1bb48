//! Signals in logical order.
//!
//! A signal for a process of the group is noted, and the thread that is to
//! take it raises it for itself when it has the turn: the kernel then runs the
//! handler, honours masks and default actions, at the same logical instant on
//! every replica.

use crate::raw::{self, fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::world;
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};
use libc::sigset_t;
use syscalls::Sysno;

fn bit(signal: u32) -> u64 {
    1 << ((signal - 1) & 63)
}

/// Notes a signal for a process; its first thread takes it.
pub(crate) fn post(process: u32, signal: u32) {
    let slot = world().processes[process as usize].first;
    post_to_thread(slot, signal);
}

/// Notes a signal for one thread and interrupts its wait.
pub(crate) fn post_to_thread(slot: Slot, signal: u32) {
    let w = world();
    w.threads[slot as usize].pending |= bit(signal);
    w.scheduler.wake_thread(slot, Wake::Interrupted);
}

/// A signal from the log, for the server's first process.
pub(crate) fn post_to_first(signal: u32) {
    if (1..=64).contains(&signal) {
        post(1, signal);
    }
}

/// Takes what is noted for the calling thread, which holds the turn.
#[inline]
pub(crate) fn deliver(me: Slot) {
    while world().threads[me as usize].pending != 0 {
        let t = &mut world().threads[me as usize];
        let signal = t.pending.trailing_zeros() + 1;
        t.pending &= !bit(signal);
        // SAFETY: raises a signal for the calling thread; its handler, if any,
        // runs now and may itself perform operations.
        unsafe {
            sys!(Sysno::tgkill, raw::getpid(), raw::gettid(), signal);
        }
    }
}

/// Raises a signal for the calling thread, at once.
pub(crate) fn raise(signal: u32) {
    // SAFETY: plain tgkill(2) to ourselves.
    unsafe {
        sys!(Sysno::tgkill, raw::getpid(), raw::gettid(), signal);
    }
}

/// Bytes of the kernel's signal set.
const SET: usize = 8;

/// Runs `f` under another signal mask (null: none), as ppoll(2) and its like.
pub(crate) unsafe fn with_mask<R>(mask: *const sigset_t, f: impl FnOnce() -> R) -> R {
    if mask.is_null() {
        return f();
    }
    let mut old = 0u64;
    // SAFETY: the caller passes a valid mask; `old` has room for the kernel's.
    unsafe {
        sys!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            mask,
            &raw mut old,
            SET
        )
    };
    let result = f();
    // SAFETY: restores the mask that was read.
    unsafe {
        sys!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const old,
            0,
            SET
        )
    };
    result
}

/// sigsuspend(2).
pub(crate) unsafe fn suspend(mask: *const sigset_t) -> c_int {
    let me = begin(Op::Signal);
    let mut raised = 0u64;
    // SAFETY: asks for the signals that were raised while blocked.
    unsafe { sys!(Sysno::rt_sigpending, &raw mut raised, SET) };
    // SAFETY: the caller passes a mask, whose first word is the kernel's.
    let open = raised & !unsafe { *mask.cast::<u64>() };
    // SAFETY: same contract.
    unsafe {
        with_mask(mask, || {
            // Those came when the mask was set, and end the wait.
            while open == 0 && turn::wait(me, 0, None) != Wake::Interrupted {}
        });
    }
    fail(libc::EINTR)
}

/// pause(2).
pub(crate) fn pause() -> c_int {
    let me = begin(Op::Signal);
    while turn::wait(me, 0, None) != Wake::Interrupted {}
    fail(libc::EINTR)
}
