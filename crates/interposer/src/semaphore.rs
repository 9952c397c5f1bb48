//! Semaphores, named and unnamed. Named ones are the C library's sem_open(3),
//! which maps a file of the replica's own; what is in it is ours.

// The condition of a waiting loop is changed by others, in their turns.
#![allow(clippy::while_immutable_condition)]

use crate::objects::{Limit, private_key, shared_key};
use crate::raw;
use crate::turn::{self, Op, begin_on};
use core::ffi::{c_int, c_uint};
use crane_scheduler::{Slot, Wake};

/// A semaphore in the space of glibc's sem_t (32 bytes); value and flag are
/// where a file of sem_open(3) has them.
#[repr(C)]
pub(crate) struct Semaphore {
    value: u32,
    _waiters: u32,
    /// glibc: 0 private, 128 shared between processes.
    shared: u32,
    _pad: u32,
    id: u64,
}

const _: () = assert!(size_of::<Semaphore>() <= size_of::<libc::sem_t>());

const SEM_VALUE_MAX: u32 = i32::MAX as u32;

impl Semaphore {
    unsafe fn key(s: *mut Self, me: Slot) -> u64 {
        // SAFETY: an initialised semaphore, as for all functions here.
        unsafe {
            if (*s).shared != 0 {
                shared_key(&raw mut (*s).id)
            } else {
                private_key(s, me)
            }
        }
    }
}

pub(crate) unsafe fn init(s: *mut Semaphore, shared: c_int, value: c_uint) -> c_int {
    if value > SEM_VALUE_MAX {
        return raw::fail(libc::EINVAL);
    }
    // SAFETY: the caller passes room for a semaphore.
    unsafe {
        *s = Semaphore {
            value,
            _waiters: 0,
            shared: if shared != 0 { 128 } else { 0 },
            _pad: 0,
            id: 0,
        }
    };
    0
}

pub(crate) unsafe fn wait(s: *mut Semaphore, limit: Limit) -> c_int {
    let me = begin_on(Op::SemWait, s);
    // SAFETY: the caller passes an initialised semaphore and a valid time.
    unsafe {
        if !limit.has_lock_clock() || !limit.is_proper() {
            return raw::fail(libc::EINVAL);
        }
        let mut deadline = None;
        while (*s).value == 0 {
            if deadline.is_none() {
                match limit.deadline(libc::EAGAIN) {
                    Ok(until) => deadline = until,
                    Err(code) => return raw::fail(code),
                }
            }
            match turn::wait(me, Semaphore::key(s, me), deadline) {
                Wake::TimedOut => return raw::fail(libc::ETIMEDOUT),
                Wake::Interrupted if deadline.is_some() || !crate::signals::restarts() => {
                    return raw::fail(libc::EINTR);
                }
                Wake::Interrupted => {}
                Wake::Woken => {}
            }
        }
        (*s).value -= 1;
    }
    0
}

pub(crate) unsafe fn trywait(s: *mut Semaphore) -> c_int {
    begin_on(Op::SemTryWait, s);
    // SAFETY: as above.
    unsafe {
        if (*s).value == 0 {
            return raw::fail(libc::EAGAIN);
        }
        (*s).value -= 1;
    }
    0
}

pub(crate) unsafe fn post(s: *mut Semaphore) -> c_int {
    let me = begin_on(Op::SemPost, s);
    // SAFETY: as above.
    unsafe {
        if (*s).value == SEM_VALUE_MAX {
            return raw::fail(libc::EOVERFLOW);
        }
        (*s).value += 1;
        if (*s).shared == 0 || (*s).id != 0 {
            turn::wake_one(Semaphore::key(s, me));
        }
    }
    0
}

pub(crate) unsafe fn getvalue(s: *mut Semaphore, value: *mut c_int) -> c_int {
    // SAFETY: as above; `value` is a place for the result.
    unsafe { *value = (*s).value as c_int };
    0
}
