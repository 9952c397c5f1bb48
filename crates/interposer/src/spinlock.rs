//! Spin locks: waiting in the queue instead of spinning.

use crate::memory::memory_key;
use crate::objects::private_key;
use crate::turn::{self, Op, begin_on};
use core::ffi::c_int;
use crane_scheduler::Slot;

/// The whole lock is one word, so its flags are in it.
const LOCKED: u32 = 1;
/// Made for several processes.
const SHARED: u32 = 2;
/// Somebody waits, or did.
const CONTENDED: u32 = 4;

unsafe fn key(l: *const u32, me: Slot) -> u64 {
    // SAFETY: an initialised spin lock, as for all functions here.
    if unsafe { *l } & SHARED != 0 {
        memory_key(l as usize, me)
    } else {
        private_key(l, me)
    }
}

pub(crate) unsafe fn init(l: *mut u32, shared: c_int) -> c_int {
    // SAFETY: the caller passes room for one.
    unsafe { *l = if shared != 0 { SHARED } else { 0 } };
    0
}

pub(crate) unsafe fn lock(l: *mut u32, wait: bool) -> c_int {
    let me = begin_on(Op::SpinLock, l);
    // SAFETY: as above.
    unsafe {
        while *l & LOCKED != 0 {
            if !wait {
                return libc::EBUSY;
            }
            *l |= CONTENDED;
            turn::wait(me, key(l, me), None);
        }
        *l |= LOCKED;
    }
    0
}

pub(crate) unsafe fn unlock(l: *mut u32) -> c_int {
    let me = begin_on(Op::SpinUnlock, l);
    // SAFETY: as above.
    unsafe {
        let was = *l;
        *l = was & SHARED;
        if was & CONTENDED != 0 {
            // All: who comes first says again whether others wait.
            turn::wake_all(key(l, me));
        }
    }
    0
}
