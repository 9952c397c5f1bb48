//! Barriers.

use crate::objects::{private_key, shared_key};
use crate::turn::{self, Op, begin_on};
use core::ffi::{c_int, c_uint};

/// A barrier in the space of glibc's (32 bytes).
#[repr(C)]
pub(crate) struct Barrier {
    count: u32,
    arrived: u32,
    round: u32,
    shared: u32,
    id: u64,
}

const _: () = assert!(size_of::<Barrier>() <= size_of::<libc::pthread_barrier_t>());

/// glibc's BARRIER_IN_THRESHOLD.
const MOST: c_uint = u32::MAX / 2;

pub(crate) unsafe fn init(
    b: *mut Barrier,
    attributes: *const libc::pthread_barrierattr_t,
    count: c_uint,
) -> c_int {
    if count == 0 || count > MOST {
        return libc::EINVAL;
    }
    // SAFETY: room for a barrier; glibc's attribute is one int, pshared.
    unsafe {
        let shared = if attributes.is_null() {
            0
        } else {
            *attributes.cast::<u32>()
        };
        *b = Barrier {
            count,
            arrived: 0,
            round: 0,
            shared,
            id: 0,
        };
    }
    0
}

pub(crate) unsafe fn wait(b: *mut Barrier) -> c_int {
    let me = begin_on(Op::Barrier, b);
    // SAFETY: an initialised barrier; who was woken reads it no more, because
    // the serial thread may give its memory back.
    unsafe {
        let key = if (*b).shared != 0 {
            shared_key(&raw mut (*b).id)
        } else {
            private_key(b, me)
        };
        (*b).arrived += 1;
        if (*b).arrived == (*b).count {
            (*b).arrived = 0;
            (*b).round = (*b).round.wrapping_add(1);
            turn::wake_all(key);
            return libc::PTHREAD_BARRIER_SERIAL_THREAD;
        }
        let round = (*b).round;
        // A signal's handler ran meanwhile: go on waiting, unless all came.
        while turn::wait(me, key, None) != crane_scheduler::Wake::Woken {
            if (*b).round != round {
                break;
            }
        }
    }
    0
}
