//! Mutexes: all kinds, robust ones, those shared between processes, and the
//! priority protocols, which are accepted and change nothing, because only one
//! thread runs at a time.

use crate::objects::{Limit, is_alive, owner_id, private_key, shared_key};
use crate::turn::{self, Op, begin_on};
use crate::world::world;
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};

/// glibc's pthread_mutex_t, as far as its static initialisers go: they set
/// nothing but the kind. The last 16 bytes are glibc's robust list.
#[repr(C)]
pub(crate) struct Mutex {
    locked: u32,
    /// Further locks of a recursive one.
    count: u32,
    owner: u32,
    /// Locks that have not been given back, by waiters of condition variables
    /// too: what destroying looks at.
    users: u32,
    /// PTHREAD_MUTEX_* in the low bits, flags as glibc sets them.
    kind: u32,
    ceiling: u32,
    id: u64,
    /// Of a robust one: [`SOUND`], [`INCONSISTENT`], [`LOST`].
    state: u32,
    _space: u32,
}

const _: () = assert!(size_of::<Mutex>() == size_of::<libc::pthread_mutex_t>());

const KIND_MASK: u32 = 3;
const RECURSIVE: u32 = 1;
const ERRORCHECK: u32 = 2;
const ROBUST: u32 = 16;
const INHERIT: u32 = 32;
const PROTECT: u32 = 64;
const SHARED: u32 = 128;
const DESTROYED: u32 = u32::MAX;

const SOUND: u32 = 0;
/// Its owner died, and its present one has not made it consistent yet.
const INCONSISTENT: u32 = 1;
/// Given back without having been made consistent.
const LOST: u32 = 2;

const PTHREAD_PRIO_INHERIT: c_int = 1;
const PTHREAD_PRIO_PROTECT: c_int = 2;
/// sched_get_priority_min and max of SCHED_FIFO.
const PRIORITIES: core::ops::RangeInclusive<c_int> = 1..=99;

impl Mutex {
    unsafe fn key(m: *mut Self, me: Slot) -> u64 {
        // SAFETY: an initialised mutex, as for all functions here.
        unsafe {
            if (*m).kind & SHARED != 0 {
                shared_key(&raw mut (*m).id)
            } else {
                private_key(m, me)
            }
        }
    }

    /// Takes the mutex within `limit`; does not begin an operation.
    pub(crate) unsafe fn take(m: *mut Self, me: Slot, limit: Limit) -> c_int {
        let tid = owner_id(me);
        // SAFETY: as above; times are valid.
        unsafe {
            let kind = (*m).kind;
            if kind == DESTROYED {
                return libc::EINVAL;
            }
            let robust = kind & ROBUST != 0;
            if (*m).locked != 0 && (*m).owner == tid {
                let tries = matches!(limit, Limit::Try);
                match kind & KIND_MASK {
                    RECURSIVE if (*m).count == u32::MAX - 1 => return libc::EAGAIN,
                    RECURSIVE => {
                        (*m).count += 1;
                        return 0;
                    }
                    ERRORCHECK if tries && kind & (ROBUST | INHERIT) == 0 => return libc::EBUSY,
                    ERRORCHECK => return libc::EDEADLK,
                    _ => {}
                }
            }
            let mut deadline = None;
            loop {
                if robust && (*m).state == LOST {
                    return libc::ENOTRECOVERABLE;
                }
                if (*m).locked == 0 {
                    break;
                }
                if robust && !is_alive((*m).owner) {
                    (*m).count = 0;
                    (*m).users = 0;
                    (*m).state = INCONSISTENT;
                    break;
                }
                if deadline.is_none() {
                    // These ask the kernel, which knows no times before 1970.
                    if let Limit::Until(_, at) = limit
                        && kind & INHERIT != 0
                        && (*at).tv_sec < 0
                    {
                        return libc::EINVAL;
                    }
                    match limit.deadline(libc::EBUSY) {
                        Ok(until) => deadline = until,
                        Err(code) => return code,
                    }
                }
                if robust {
                    world().threads[me as usize].awaits_robust = 1;
                }
                let why = turn::wait(me, Self::key(m, me), deadline);
                if robust {
                    world().threads[me as usize].awaits_robust = 0;
                }
                if why == Wake::TimedOut {
                    return libc::ETIMEDOUT;
                }
            }
            (*m).locked = 1;
            (*m).owner = tid;
            (*m).users += 1;
            if robust {
                world().robust_used = 1;
                if (*m).state == INCONSISTENT {
                    return libc::EOWNERDEAD;
                }
            }
        }
        0
    }

    /// Gives one lock back; does not begin an operation.
    pub(crate) unsafe fn give(m: *mut Self, me: Slot) -> c_int {
        // SAFETY: as above.
        unsafe {
            let kind = (*m).kind;
            if kind == DESTROYED {
                return libc::EINVAL;
            }
            let checked = matches!(kind & KIND_MASK, RECURSIVE | ERRORCHECK)
                || kind & (ROBUST | INHERIT) != 0;
            if checked && ((*m).locked == 0 || (*m).owner != owner_id(me)) {
                return libc::EPERM;
            }
            if (*m).count > 0 {
                (*m).count -= 1;
                return 0;
            }
            (*m).locked = 0;
            (*m).owner = 0;
            (*m).users = (*m).users.saturating_sub(1);
            if kind & ROBUST != 0 && (*m).state == INCONSISTENT {
                (*m).state = LOST;
                turn::wake_all(Self::key(m, me));
            } else if kind & SHARED == 0 || (*m).id != 0 {
                turn::wake_one(Self::key(m, me));
            }
        }
        0
    }

    /// As [`give`](Self::give) for the time of a wait on a condition variable:
    /// the mutex remains in use.
    pub(crate) unsafe fn lend(m: *mut Self, me: Slot) -> c_int {
        // SAFETY: as above.
        unsafe {
            let users = (*m).users;
            let code = Self::give(m, me);
            (*m).users = users;
            code
        }
    }

    /// Takes back what was lent.
    pub(crate) unsafe fn take_back(m: *mut Self, me: Slot) -> c_int {
        // SAFETY: as above.
        unsafe {
            let code = Self::take(m, me, Limit::Forever);
            if code == 0 || code == libc::EOWNERDEAD {
                (*m).users = (*m).users.saturating_sub(1);
            }
            code
        }
    }
}

/// Wakes those who wait for a robust mutex, when threads have died: they look
/// for themselves whether its owner is among them.
pub(crate) fn owners_died() {
    let w = world();
    if w.robust_used == 0 {
        return;
    }
    for slot in 1..w.scheduler.slots_end() {
        if w.threads[slot as usize].awaits_robust != 0 && w.scheduler.exists(slot) {
            w.scheduler.wake_thread(slot, Wake::Woken);
        }
    }
}

pub(crate) unsafe fn init(m: *mut Mutex, attributes: *const libc::pthread_mutexattr_t) -> c_int {
    let mut kind = 0;
    let mut ceiling = 0;
    if !attributes.is_null() {
        // SAFETY: the caller passes valid attributes.
        unsafe {
            let mut value = 0;
            pthread_mutexattr_gettype(attributes, &mut value);
            kind = value as u32 & KIND_MASK;
            pthread_mutexattr_getrobust(attributes, &mut value);
            let robust = value != 0;
            pthread_mutexattr_getprotocol(attributes, &mut value);
            if robust && value == PTHREAD_PRIO_PROTECT {
                return libc::ENOTSUP;
            }
            kind |= match value {
                PTHREAD_PRIO_INHERIT => INHERIT,
                PTHREAD_PRIO_PROTECT => PROTECT,
                _ => 0,
            };
            kind |= if robust { ROBUST } else { 0 };
            if value == PTHREAD_PRIO_PROTECT {
                pthread_mutexattr_getprioceiling(attributes, &mut value);
                ceiling = value.max(*PRIORITIES.start()) as u32;
            }
            libc::pthread_mutexattr_getpshared(attributes, &mut value);
            kind |= if value != 0 { SHARED } else { 0 };
        }
    }
    // SAFETY: the caller passes room for a mutex; all-zero is a valid one.
    unsafe {
        core::ptr::write_bytes(m, 0, 1);
        (*m).kind = kind;
        (*m).ceiling = ceiling;
    }
    0
}

unsafe extern "C" {
    fn pthread_mutexattr_gettype(a: *const libc::pthread_mutexattr_t, to: *mut c_int) -> c_int;
    fn pthread_mutexattr_getrobust(a: *const libc::pthread_mutexattr_t, to: *mut c_int) -> c_int;
    fn pthread_mutexattr_getprotocol(a: *const libc::pthread_mutexattr_t, to: *mut c_int) -> c_int;
    fn pthread_mutexattr_getprioceiling(
        a: *const libc::pthread_mutexattr_t,
        to: *mut c_int,
    ) -> c_int;
}

pub(crate) unsafe fn lock(m: *mut Mutex) -> c_int {
    let me = begin_on(Op::MutexLock, m);
    // SAFETY: the caller passes an initialised mutex (pthread_mutex_lock(3)).
    unsafe { Mutex::take(m, me, Limit::Forever) }
}

pub(crate) unsafe fn timedlock(m: *mut Mutex, id: c_int, at: *const libc::timespec) -> c_int {
    let me = begin_on(Op::MutexLock, m);
    let limit = Limit::Until(id, at);
    if !limit.has_lock_clock() {
        return libc::EINVAL;
    }
    // SAFETY: as above; `at` is a valid time.
    unsafe { Mutex::take(m, me, limit) }
}

pub(crate) unsafe fn trylock(m: *mut Mutex) -> c_int {
    let me = begin_on(Op::MutexTryLock, m);
    // SAFETY: as above.
    unsafe { Mutex::take(m, me, Limit::Try) }
}

pub(crate) unsafe fn unlock(m: *mut Mutex) -> c_int {
    let me = begin_on(Op::MutexUnlock, m);
    // SAFETY: as above.
    unsafe { Mutex::give(m, me) }
}

pub(crate) unsafe fn destroy(m: *mut Mutex) -> c_int {
    // SAFETY: as above.
    unsafe {
        if (*m).kind != DESTROYED && (*m).kind & ROBUST == 0 && (*m).users != 0 {
            return libc::EBUSY;
        }
        (*m).kind = DESTROYED;
    }
    0
}

pub(crate) unsafe fn consistent(m: *mut Mutex) -> c_int {
    begin_on(Op::MutexUnlock, m);
    // SAFETY: as above.
    unsafe {
        if (*m).kind & ROBUST == 0 || (*m).state != INCONSISTENT {
            return libc::EINVAL;
        }
        (*m).state = SOUND;
    }
    0
}

pub(crate) unsafe fn getprioceiling(m: *const Mutex, to: *mut c_int) -> c_int {
    // SAFETY: as above; `to` is a place for the result.
    unsafe {
        if (*m).kind & PROTECT == 0 {
            return libc::EINVAL;
        }
        *to = (*m).ceiling as c_int;
    }
    0
}

pub(crate) unsafe fn setprioceiling(m: *mut Mutex, ceiling: c_int, old: *mut c_int) -> c_int {
    let me = begin_on(Op::MutexLock, m);
    // SAFETY: as above; `old` is null or a place for the result.
    unsafe {
        if (*m).kind & PROTECT == 0 || !PRIORITIES.contains(&ceiling) {
            return libc::EINVAL;
        }
        let mine = (*m).locked != 0 && (*m).owner == owner_id(me);
        if !mine {
            let code = Mutex::take(m, me, Limit::Forever);
            if code != 0 {
                return code;
            }
        }
        if !old.is_null() {
            *old = (*m).ceiling as c_int;
        }
        (*m).ceiling = ceiling as u32;
        if !mine {
            return Mutex::give(m, me);
        }
    }
    0
}
