//! C11 threads: the POSIX objects with other results.

use crate::mutex::{self, Mutex};
use crate::threads;
use core::ffi::{c_int, c_void};
use core::ptr::null;

pub(crate) type Start = extern "C" fn(*mut c_void) -> c_int;

const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const ERROR: c_int = 2;
const NOMEM: c_int = 3;
const TIMEDOUT: c_int = 4;

const MTX_RECURSIVE: c_int = 1;
const PTHREAD_MUTEX_RECURSIVE: c_int = 1;

/// The C11 result for a POSIX one.
pub(crate) fn result(code: c_int) -> c_int {
    match code {
        0 => SUCCESS,
        libc::ENOMEM | libc::EAGAIN => NOMEM,
        libc::EBUSY => BUSY,
        libc::ETIMEDOUT => TIMEDOUT,
        _ => ERROR,
    }
}

/// thrd_create: the function's result is an int, which is what a register
/// holds of it; see [`join`].
pub(crate) unsafe fn create(to: *mut libc::pthread_t, start: Start, arg: *mut c_void) -> c_int {
    // SAFETY: both are functions of one pointer, whose result is in the same
    // register; who joins takes the lower half of it only.
    let start = unsafe { core::mem::transmute::<Start, threads::Start>(start) };
    // SAFETY: same contract.
    result(unsafe { threads::create(to, null(), start, arg) })
}

/// thrd_join.
pub(crate) unsafe fn join(thread: libc::pthread_t, to: *mut c_int) -> c_int {
    let mut ended_with = core::ptr::null_mut();
    // SAFETY: same contract; `to` is null or a place for the result.
    unsafe {
        let code = threads::join(thread, &mut ended_with, None);
        if code == 0 && !to.is_null() {
            *to = ended_with as usize as c_int;
        }
        result(code)
    }
}

/// mtx_init; every mutex can be timed.
pub(crate) unsafe fn mtx_init(m: *mut Mutex, kind: c_int) -> c_int {
    let mut attributes: libc::pthread_mutexattr_t;
    // SAFETY: the caller passes room for a mutex; the attributes are made here.
    unsafe {
        attributes = core::mem::zeroed();
        libc::pthread_mutexattr_init(&mut attributes);
        if kind & MTX_RECURSIVE != 0 {
            libc::pthread_mutexattr_settype(&mut attributes, PTHREAD_MUTEX_RECURSIVE);
        }
        result(mutex::init(m, &attributes))
    }
}

/// thrd_sleep: 0, -1 when a signal came, another negative number for an error.
pub(crate) fn slept(outcome: Result<(), c_int>) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(libc::EINTR) => -1,
        Err(_) => -2,
    }
}
