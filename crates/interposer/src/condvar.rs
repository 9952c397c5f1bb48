//! Condition variables.

use crate::cancel;
use crate::mutex::Mutex;
use crate::objects::{Limit, private_key, shared_key};
use crate::turn::{self, Op, begin_on};
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};

/// A condition variable in the space of glibc's (48 bytes); static
/// initialisers are zero.
#[repr(C)]
pub(crate) struct Cond {
    clock: c_int,
    shared: u32,
    id: u64,
}

const _: () = assert!(size_of::<Cond>() <= size_of::<libc::pthread_cond_t>());

impl Cond {
    unsafe fn key(c: *mut Self, me: Slot) -> u64 {
        // SAFETY: an initialised condition variable, as for all functions here.
        unsafe {
            if (*c).shared != 0 {
                shared_key(&raw mut (*c).id)
            } else {
                private_key(c, me)
            }
        }
    }
}

pub(crate) unsafe fn init(c: *mut Cond, attributes: *const libc::pthread_condattr_t) -> c_int {
    // SAFETY: the caller passes room for a condition variable, and valid
    // attributes or null.
    unsafe {
        (*c) = Cond {
            clock: libc::CLOCK_REALTIME,
            shared: 0,
            id: 0,
        };
        if !attributes.is_null() {
            let mut shared = 0;
            libc::pthread_condattr_getclock(attributes, &raw mut (*c).clock);
            libc::pthread_condattr_getpshared(attributes, &mut shared);
            (*c).shared = shared as u32;
        }
    }
    0
}

/// Waits; `at` null: without end. `id` -1: on the variable's own clock.
pub(crate) unsafe fn wait(
    c: *mut Cond,
    m: *mut Mutex,
    id: c_int,
    at: *const libc::timespec,
) -> c_int {
    let me = begin_on(Op::CondWait, c);
    // SAFETY: the caller passes initialised objects, the mutex locked by it,
    // and a valid time or null.
    unsafe {
        let mut deadline = None;
        if !at.is_null() {
            let limit = Limit::Until(if id < 0 { (*c).clock } else { id }, at);
            if !limit.has_lock_clock() {
                return libc::EINVAL;
            }
            match limit.deadline(0) {
                Ok(until) => deadline = until,
                Err(code) => return code,
            }
        }
        // As glibc does: one lock of a recursive mutex, not all.
        let code = Mutex::lend(m, me);
        if code != 0 {
            return code;
        }
        let why = turn::wait(me, Cond::key(c, me), deadline);
        // The caller's time bounds the wait for the signal, not for the mutex.
        turn::note(me, Op::MutexLock);
        let code = Mutex::take_back(m, me);
        // Who was signalled has used the signal up, and returns.
        if why == Wake::Interrupted {
            cancel::act_if_asked(me);
        }
        match (code, why) {
            (0, Wake::TimedOut) => libc::ETIMEDOUT,
            (code, _) => code,
        }
    }
}

pub(crate) unsafe fn signal(c: *mut Cond) -> c_int {
    let me = begin_on(Op::CondSignal, c);
    // SAFETY: as above.
    unsafe {
        if (*c).shared == 0 || (*c).id != 0 {
            turn::wake_one(Cond::key(c, me));
        }
    }
    0
}

pub(crate) unsafe fn broadcast(c: *mut Cond) -> c_int {
    let me = begin_on(Op::CondBroadcast, c);
    // SAFETY: as above.
    unsafe {
        if (*c).shared == 0 || (*c).id != 0 {
            turn::wake_all(Cond::key(c, me));
        }
    }
    0
}
