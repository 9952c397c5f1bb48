//! Waiting for signals.

use crate::raw::{self, fail};
use crate::signals::{self, Info, set_of};
use crate::turn::{self, Op, begin};
use crate::world::world;
use crate::{clock, refuse};
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};
use libc::{siginfo_t, sigset_t, timespec};

/// Waits for one of `set`, until a virtual deadline (None: no limit).
pub(crate) fn await_one(me: Slot, set: u64, deadline: Option<u64>) -> Result<Info, c_int> {
    if me == 0 {
        refuse::unscheduled_wait();
    }
    loop {
        if let Some(info) = signals::take(me, set) {
            return Ok(info);
        }
        if deadline.is_some_and(|at| at <= clock::now()) {
            return Err(libc::EAGAIN);
        }
        world().threads[me as usize].awaits = set;
        let why = turn::wait(me, 0, deadline);
        world().threads[me as usize].awaits = 0;
        if why == Wake::Interrupted && signals::handled() {
            return Err(libc::EINTR);
        }
    }
}

/// sigwait(3): 0 or an error number; a handler does not end it.
pub(crate) unsafe fn sigwait(set: *const sigset_t, signal: *mut c_int) -> c_int {
    let me = begin(Op::Signal);
    // SAFETY: the caller passes a valid set and a place.
    unsafe {
        let set = set_of(set);
        loop {
            match await_one(me, set, None) {
                Ok(info) => {
                    *signal = info.signal as c_int;
                    return 0;
                }
                Err(libc::EINTR) => {}
                Err(code) => return code,
            }
        }
    }
}

/// sigtimedwait(2), and sigwaitinfo(2) without a time.
pub(crate) unsafe fn sigtimedwait(
    set: *const sigset_t,
    info: *mut siginfo_t,
    length: *const timespec,
) -> c_int {
    let me = begin(Op::Signal);
    // SAFETY: the caller passes a valid set, and valid places or null.
    unsafe {
        let mut deadline = None;
        if !length.is_null() {
            match clock::duration(length) {
                Ok(ns) => deadline = Some(clock::after(ns)),
                Err(code) => return fail(code),
            }
        }
        match await_one(me, set_of(set), deadline) {
            Ok(mut found) => {
                // As the C library does.
                if found.code == libc::SI_TKILL {
                    found.code = libc::SI_USER;
                }
                if !info.is_null() {
                    signals::store(Some(&found), info);
                }
                found.signal as c_int
            }
            Err(code) => fail(code),
        }
    }
}

/// Waits until a handler has run.
fn until_handled(me: Slot) -> c_int {
    if me == 0 {
        refuse::unscheduled_wait();
    }
    signals::wait_begins(me);
    signals::deliver(me);
    while !signals::handled() {
        turn::wait(me, 0, None);
    }
    fail(libc::EINTR)
}

/// pause(2).
pub(crate) fn pause() -> c_int {
    until_handled(begin(Op::Signal))
}

/// sigsuspend(2).
pub(crate) unsafe fn sigsuspend(mask: *const sigset_t) -> c_int {
    let me = begin(Op::Signal);
    // SAFETY: the caller passes a valid set.
    unsafe { signals::with_mask(mask, || until_handled(me)) }
}

/// sigpause(3) of System V: waits with one signal let through.
pub(crate) fn sigpause(signal: c_int) -> c_int {
    let me = begin(Op::Signal);
    if !signals::valid(signal) || me == 0 {
        return fail(libc::EINVAL);
    }
    let mask = world().threads[me as usize].mask & !signals::bit(signal as u32);
    // SAFETY: all-zero is a valid set.
    unsafe {
        let mut set: sigset_t = core::mem::zeroed();
        signals::put_set(mask, &mut set);
        signals::with_mask(&set, || until_handled(me))
    }
}

/// sigpause(3) of BSD: waits under a mask of the first 32 signals.
pub(crate) fn sigpause_mask(mask: c_int) -> c_int {
    let me = begin(Op::Signal);
    // SAFETY: all-zero is a valid set.
    unsafe {
        let mut set: sigset_t = core::mem::zeroed();
        signals::put_set(u64::from(mask as u32), &mut set);
        signals::with_mask(&set, || until_handled(me))
    }
}

/// raise(3).
pub(crate) fn raise(signal: c_int) -> c_int {
    let me = begin(Op::Kill);
    if signal == 0 {
        return 0;
    }
    if !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    if signal == libc::SIGKILL && me != 0 {
        crate::fatal::end_by(signal as u32);
    }
    let mut info = Info::of_user(signal as u32);
    info.code = libc::SI_TKILL;
    signals::raise_with(me, info);
    0
}

/// abort(3): by SIGABRT, whatever a handler of it does.
pub(crate) fn abort() -> ! {
    let me = begin(Op::Kill);
    let abort = libc::SIGABRT as u32;
    if me != 0 {
        let mask = world().threads[me as usize].mask & !signals::bit(abort);
        signals::set_mask(me, mask);
        let mut info = Info::of_user(abort);
        info.code = libc::SI_TKILL;
        signals::raise_with(me, info);
        crate::fatal::end_by(abort);
    }
    crate::actions::restore_default(abort);
    signals::raise_with(0, Info::of_user(abort));
    raw::exit_group(128 + abort as c_int)
}
