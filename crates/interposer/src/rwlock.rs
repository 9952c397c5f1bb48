//! Reader-writer locks.

use crate::objects::{Limit, owner_id, private_key, shared_key};
use crate::turn::{self, Op, begin_on};
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};

/// A reader-writer lock in the space of glibc's (56 bytes, zero when static;
/// the kind that glibc's static initialisers set lies behind our words).
#[repr(C)]
pub(crate) struct RwLock {
    readers: u32,
    writer: u32,
    writers_waiting: u32,
    shared: u32,
    id: u64,
    _space: [u32; 6],
    /// glibc: 0 and 1 prefer readers, 2 prefers writers (not recursive).
    flags: u32,
}

const _: () = assert!(core::mem::offset_of!(RwLock, flags) == 48);

const PREFER_WRITERS: u32 = 2;

impl RwLock {
    unsafe fn key(l: *mut Self, me: Slot) -> u64 {
        // SAFETY: an initialised lock, as for all functions here.
        unsafe {
            if (*l).shared != 0 {
                shared_key(&raw mut (*l).id)
            } else {
                private_key(l, me)
            }
        }
    }

    /// Lets all waiters look again.
    unsafe fn wake(l: *mut Self, me: Slot) {
        // SAFETY: as above.
        unsafe {
            if (*l).shared == 0 || (*l).id != 0 {
                turn::wake_all(Self::key(l, me));
            }
        }
    }

    unsafe fn is_busy(l: *const Self, write: bool) -> bool {
        // SAFETY: as above.
        unsafe {
            (*l).writer != 0
                || if write {
                    (*l).readers != 0
                } else {
                    // Readers who come again while they read would wait for
                    // themselves, but glibc lets them.
                    (*l).flags == PREFER_WRITERS && (*l).writers_waiting > 0
                }
        }
    }
}

pub(crate) unsafe fn init(l: *mut RwLock, attributes: *const libc::pthread_rwlockattr_t) -> c_int {
    // SAFETY: room for a lock; glibc's attribute holds kind and pshared as two ints.
    unsafe {
        core::ptr::write_bytes(l.cast::<u8>(), 0, size_of::<libc::pthread_rwlock_t>());
        if !attributes.is_null() {
            let words = attributes.cast::<c_int>();
            (*l).flags = *words as u32;
            (*l).shared = *words.add(1) as u32;
        }
    }
    0
}

pub(crate) unsafe fn take(l: *mut RwLock, write: bool, limit: Limit) -> c_int {
    let me = begin_on(if write { Op::WriteLock } else { Op::ReadLock }, l);
    // SAFETY: the caller passes an initialised lock and a valid time.
    unsafe {
        if !limit.has_lock_clock() || !limit.is_proper() {
            return libc::EINVAL;
        }
        let tid = owner_id(me);
        let mut deadline = None;
        while RwLock::is_busy(l, write) {
            if (*l).writer == tid && !matches!(limit, Limit::Try) {
                return libc::EDEADLK;
            }
            if deadline.is_none() {
                match limit.deadline(libc::EBUSY) {
                    Ok(until) => deadline = until,
                    Err(code) => return code,
                }
            }
            (*l).writers_waiting += u32::from(write);
            let why = turn::wait(me, RwLock::key(l, me), deadline);
            (*l).writers_waiting -= u32::from(write);
            if why == Wake::TimedOut {
                // Readers that let this writer go first need not any more.
                if write && (*l).writers_waiting == 0 {
                    RwLock::wake(l, me);
                }
                return libc::ETIMEDOUT;
            }
        }
        if write {
            (*l).writer = tid;
        } else if (*l).readers == u32::MAX >> 3 {
            return libc::EAGAIN;
        } else {
            (*l).readers += 1;
        }
    }
    0
}

pub(crate) unsafe fn unlock(l: *mut RwLock) -> c_int {
    let me = begin_on(Op::RwUnlock, l);
    // SAFETY: as above.
    unsafe {
        if (*l).writer != 0 {
            (*l).writer = 0;
        } else if (*l).readers > 0 {
            (*l).readers -= 1;
        }
        if (*l).readers == 0 {
            RwLock::wake(l, me);
        }
    }
    0
}
