//! Signal masks: sigprocmask(2) and its relatives.

use crate::raw::{self, fail};
use crate::signals::{self, KEPT, bit, put_set, set_of};
use crate::turn::{Op, begin};
use crate::world::world;
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use libc::sigset_t;

fn mask(me: Slot) -> u64 {
    world().threads[me as usize].mask
}

/// Sets the mask as the program asks, and takes what it lets through.
fn change(me: Slot, new: u64) {
    signals::set_mask(me, new);
    let t = &mut world().threads[me as usize];
    t.asked = t.mask;
    signals::deliver(me);
}

fn combined(how: c_int, old: u64, set: u64) -> Option<u64> {
    match how {
        libc::SIG_BLOCK => Some(old | set),
        libc::SIG_UNBLOCK => Some(old & !set),
        libc::SIG_SETMASK => Some(set),
        _ => None,
    }
}

/// pthread_sigmask(3): 0 or an error number.
pub(crate) unsafe fn pthread_sigmask(
    how: c_int,
    new: *const sigset_t,
    old: *mut sigset_t,
) -> c_int {
    let me = begin(Op::SignalAction);
    if me == 0 {
        // A thread out of the schedule keeps its own books with the kernel.
        // SAFETY: same contract.
        let code = unsafe {
            raw::sys!(
                syscalls::Sysno::rt_sigprocmask,
                how,
                new,
                old,
                size_of::<u64>()
            )
        } as isize;
        return -code as c_int;
    }
    let before = mask(me);
    // SAFETY: the caller passes valid sets or null; they may be the same.
    unsafe {
        let wanted = (!new.is_null()).then(|| set_of(new));
        if !old.is_null() {
            put_set(before, old);
        }
        if let Some(set) = wanted {
            match combined(how, before, set) {
                Some(now) => change(me, now),
                None => return libc::EINVAL,
            }
        }
    }
    0
}

/// sigprocmask(2).
pub(crate) unsafe fn sigprocmask(how: c_int, new: *const sigset_t, old: *mut sigset_t) -> c_int {
    // SAFETY: same contract.
    match unsafe { pthread_sigmask(how, new, old) } {
        0 => 0,
        code => fail(code),
    }
}

/// rt_sigprocmask(2), whose sets are of 8 bytes.
pub(crate) unsafe fn by_number(how: c_int, new: *const u64, old: *mut u64) -> c_int {
    let me = begin(Op::SignalAction);
    let before = mask(me);
    // SAFETY: the caller passes valid sets or null; they may be the same.
    unsafe {
        let wanted = (!new.is_null()).then(|| *new);
        if !old.is_null() {
            *old = before;
        }
        if let Some(set) = wanted {
            match combined(how, before, set) {
                Some(now) => change(me, now),
                None => return fail(libc::EINVAL),
            }
        }
    }
    0
}

/// sighold(3), sigrelse(3).
pub(crate) fn hold(signal: c_int, block: bool) -> c_int {
    let me = begin(Op::SignalAction);
    if !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    let bit = bit(signal as u32);
    let old = mask(me);
    change(me, if block { old | bit } else { old & !bit });
    0
}

/// sigblock(3), sigsetmask(3): the first 32 signals in an int.
pub(crate) fn old_style(set: c_int, block: bool) -> c_int {
    let me = begin(Op::SignalAction);
    let old = mask(me);
    let set = u64::from(set as u32);
    change(me, if block { old | set } else { set });
    old as c_int
}

/// siggetmask(3).
pub(crate) fn get_old_style() -> c_int {
    mask(begin(Op::SignalAction)) as c_int
}

/// sigpending(2).
pub(crate) unsafe fn sigpending(set: *mut sigset_t) -> c_int {
    let me = begin(Op::SignalAction);
    // SAFETY: the caller passes room for a set.
    unsafe { put_set(signals::pending(me) & mask(me), set) };
    0
}

/// rt_sigpending(2), whose set is of 8 bytes.
pub(crate) unsafe fn pending_by_number(set: *mut u64) -> c_int {
    let me = begin(Op::SignalAction);
    // SAFETY: the caller passes room for a set.
    unsafe { *set = signals::pending(me) & mask(me) };
    0
}

/// sigset(3): the System V way to set an action, or to hold a signal.
pub(crate) fn sigset(signal: c_int, what: libc::sighandler_t) -> libc::sighandler_t {
    const SIG_HOLD: libc::sighandler_t = 2;
    let me = begin(Op::SignalAction);
    if !signals::valid(signal) {
        raw::set_errno(libc::EINVAL);
        return libc::SIG_ERR;
    }
    let held = mask(me) & bit(signal as u32) != 0;
    let before = if what == SIG_HOLD {
        let process = crate::process::current();
        let action = &world().processes[process as usize].actions[signal as usize];
        let handler = action.handler as libc::sighandler_t;
        hold(signal, true);
        handler
    } else {
        let before = crate::actions::signal(signal, what, 0);
        if before != libc::SIG_ERR {
            hold(signal, false);
        }
        before
    };
    if held { SIG_HOLD } else { before }
}

/// A jump out of a handler is about to go back to a mask that was saved with
/// the place. The C library tells the kernel; this tells our books.
///
/// The layout of jmp_buf on x86-64: eight registers, whether the mask was saved,
/// the mask.
pub(crate) unsafe extern "C" fn before_jump(place: *const c_void) {
    let me = crate::tls::slot();
    if me == 0 {
        return;
    }
    // SAFETY: the caller of longjmp passes a filled jmp_buf.
    unsafe {
        let words = place.cast::<u64>();
        if *words.add(8) as u32 != 0 {
            let saved = *words.add(9);
            let t = &mut world().threads[me as usize];
            t.mask = (saved & !KEPT) | (t.asked & KEPT);
        }
    }
}
