//! Synchronisation objects over the scheduler: mutexes, condition variables,
//! reader-writer locks, semaphores, barriers, spin locks and once.
//!
//! The objects are the C library's in size and in what their static
//! initialisers mean, but every call on them is ours: glibc's own condition
//! variables, for one, lock their mutex by internal calls that nobody could
//! order. As only the holder of the turn runs, their words need no atomics.
//! A wait is always "try; if it cannot be, wait for the key and try again".

// The condition of a waiting loop is changed by others, in their turns.
#![allow(clippy::while_immutable_condition)]

use crate::turn::{self, Op, begin};
use crate::world::world;
use crate::{clock, raw};
use core::ffi::{c_int, c_uint};
use crane_scheduler::{Slot, Wake};

/// Wait key of an object at an address: the address, and for objects that are
/// not shared between processes the process, because a forked sibling has
/// another object at the same address.
pub(crate) fn key(address: usize, shared: bool, me: Slot) -> u64 {
    let process = if shared {
        0
    } else {
        u64::from(world().threads[me as usize].process)
    };
    (address as u64 & 0x7fff_ffff_ffff) | process << 47
}

/// glibc's pthread_mutex_t, as far as its static initialisers go.
#[repr(C)]
pub(crate) struct Mutex {
    locked: u32,
    count: u32,
    owner: u32,
    users: u32,
    /// PTHREAD_MUTEX_* in the low bits, flags as glibc sets them.
    kind: u32,
}

const KIND_MASK: u32 = 3;
const RECURSIVE: u32 = 1;
const ERRORCHECK: u32 = 2;
const SHARED: u32 = 128;

/// The words of a mutex change while we wait, by other threads in their turns:
/// so these work through a pointer and never hold a reference.
impl Mutex {
    unsafe fn key(m: *const Mutex, me: Slot) -> u64 {
        // SAFETY: an initialised mutex, as for all functions here.
        key(m as usize, unsafe { (*m).kind } & SHARED != 0, me)
    }

    /// Takes the mutex, waiting until virtual time `deadline` at the longest.
    unsafe fn take(m: *mut Mutex, me: Slot, deadline: Option<u64>) -> c_int {
        let tid = owner_id(me);
        // SAFETY: as above.
        unsafe {
            if (*m).locked != 0 && (*m).owner == tid {
                match (*m).kind & KIND_MASK {
                    RECURSIVE => {
                        if (*m).count == u32::MAX {
                            return libc::EAGAIN;
                        }
                        (*m).count += 1;
                        return 0;
                    }
                    ERRORCHECK => return libc::EDEADLK,
                    _ => {}
                }
            }
            while (*m).locked != 0 {
                if turn::wait(me, Self::key(m, me), deadline) == Wake::TimedOut {
                    return libc::ETIMEDOUT;
                }
            }
            (*m).locked = 1;
            (*m).owner = tid;
        }
        0
    }

    unsafe fn try_take(m: *mut Mutex, me: Slot) -> c_int {
        let tid = owner_id(me);
        // SAFETY: as above.
        let m = unsafe { &mut *m };
        if m.locked == 0 {
            m.locked = 1;
            m.owner = tid;
            return 0;
        }
        if m.kind & KIND_MASK == RECURSIVE && m.owner == tid {
            m.count += 1;
            return 0;
        }
        libc::EBUSY
    }

    unsafe fn give(m: *mut Mutex, me: Slot) -> c_int {
        // SAFETY: as above; the reference ends before anybody is woken.
        unsafe {
            let checked = matches!((*m).kind & KIND_MASK, RECURSIVE | ERRORCHECK);
            if checked && ((*m).locked == 0 || (*m).owner != owner_id(me)) {
                return libc::EPERM;
            }
            if (*m).count > 0 {
                (*m).count -= 1;
                return 0;
            }
            (*m).locked = 0;
            (*m).owner = 0;
            turn::wake_one(Self::key(m, me));
        }
        0
    }
}

/// What is written as the owner: the thread's kernel id.
fn owner_id(me: Slot) -> u32 {
    if me == 0 {
        raw::gettid()
    } else {
        world().threads[me as usize].tid
    }
}

pub(crate) unsafe fn mutex_lock(m: *mut Mutex) -> c_int {
    let me = begin(Op::MutexLock);
    // SAFETY: the caller passes an initialised mutex (pthread_mutex_lock(3)).
    unsafe { Mutex::take(m, me, None) }
}

pub(crate) unsafe fn mutex_timedlock(
    m: *mut Mutex,
    clock_id: c_int,
    at: *const libc::timespec,
) -> c_int {
    let me = begin(Op::MutexLock);
    // SAFETY: as above; `at` is a valid time.
    unsafe {
        if (*m).locked == 0 || (*m).owner == owner_id(me) {
            return Mutex::take(m, me, None);
        }
        match clock::deadline_from(clock_id, at) {
            Ok(deadline) => Mutex::take(m, me, Some(deadline)),
            Err(code) => code,
        }
    }
}

pub(crate) unsafe fn mutex_trylock(m: *mut Mutex) -> c_int {
    let me = begin(Op::MutexTryLock);
    // SAFETY: as above.
    unsafe { Mutex::try_take(m, me) }
}

pub(crate) unsafe fn mutex_unlock(m: *mut Mutex) -> c_int {
    let me = begin(Op::MutexUnlock);
    // SAFETY: as above.
    unsafe { Mutex::give(m, me) }
}

pub(crate) unsafe fn mutex_destroy(m: *mut Mutex) -> c_int {
    // SAFETY: as above.
    if unsafe { (*m).locked } != 0 {
        libc::EBUSY
    } else {
        0
    }
}

/// A condition variable in the space of glibc's; static initialisers are zero.
#[repr(C)]
pub(crate) struct Cond {
    clock: c_int,
    shared: u32,
}

impl Cond {
    fn key(&self, me: Slot) -> u64 {
        key(core::ptr::from_ref(self) as usize, self.shared != 0, me)
    }
}

pub(crate) unsafe fn cond_init(c: *mut Cond, attributes: *const libc::pthread_condattr_t) -> c_int {
    // SAFETY: the caller passes room for a condition variable, and valid
    // attributes or null.
    unsafe {
        (*c) = Cond {
            clock: libc::CLOCK_REALTIME,
            shared: 0,
        };
        if !attributes.is_null() {
            let mut shared = 0;
            libc::pthread_condattr_getclock(attributes, &mut (*c).clock);
            libc::pthread_condattr_getpshared(attributes, &mut shared);
            (*c).shared = shared as u32;
        }
    }
    0
}

/// Waits on a condition variable; `at` null: without end. `clock_id` -1: the
/// variable's own clock.
pub(crate) unsafe fn cond_wait(
    c: *mut Cond,
    m: *mut Mutex,
    clock_id: c_int,
    at: *const libc::timespec,
) -> c_int {
    let me = begin(Op::CondWait);
    // SAFETY: the caller passes initialised objects, the mutex locked by it.
    unsafe {
        let mut deadline = None;
        if !at.is_null() {
            let id = if clock_id < 0 { (*c).clock } else { clock_id };
            match clock::deadline_from(id, at) {
                Ok(d) => deadline = Some(d),
                Err(code) => return code,
            }
        }
        let depth = (*m).count;
        (*m).count = 0;
        let code = Mutex::give(m, me);
        if code != 0 {
            (*m).count = depth;
            return code;
        }
        let why = turn::wait(me, (*c).key(me), deadline);
        // The caller's deadline bounds the wait for the signal, not for the mutex.
        Mutex::take(m, me, None);
        (*m).count = depth;
        if why == Wake::TimedOut {
            libc::ETIMEDOUT
        } else {
            0
        }
    }
}

pub(crate) unsafe fn cond_signal(c: *mut Cond) -> c_int {
    let me = begin(Op::CondSignal);
    // SAFETY: as above.
    turn::wake_one(unsafe { (*c).key(me) });
    0
}

pub(crate) unsafe fn cond_broadcast(c: *mut Cond) -> c_int {
    let me = begin(Op::CondBroadcast);
    // SAFETY: as above.
    turn::wake_all(unsafe { (*c).key(me) });
    0
}

/// A reader-writer lock in the space of glibc's (56 bytes, zero when static;
/// the kind that glibc's static initialisers set lies behind our words).
#[repr(C)]
pub(crate) struct RwLock {
    readers: u32,
    writer: u32,
    writers_waiting: u32,
    shared: u32,
    _space: [u32; 8],
    /// glibc: 0 prefer readers, 2 prefer writers (non-recursive).
    flags: u32,
}

impl RwLock {
    fn key(&self, me: Slot) -> u64 {
        key(core::ptr::from_ref(self) as usize, self.shared != 0, me)
    }
}

pub(crate) unsafe fn rwlock_init(
    l: *mut RwLock,
    attributes: *const libc::pthread_rwlockattr_t,
) -> c_int {
    // SAFETY: room for a lock; glibc's attribute holds kind and pshared as two ints.
    unsafe {
        core::ptr::write_bytes(l, 0, 1);
        if !attributes.is_null() {
            let words = attributes.cast::<c_int>();
            (*l).flags = *words as u32;
            (*l).shared = *words.add(1) as u32;
        }
    }
    0
}

/// Takes a reader-writer lock: `write` or not, `wait` or not, until `at`.
pub(crate) unsafe fn rwlock_take(
    l: *mut RwLock,
    write: bool,
    wait: bool,
    clock_id: c_int,
    at: *const libc::timespec,
) -> c_int {
    let me = begin(if write { Op::WriteLock } else { Op::ReadLock });
    let tid = owner_id(me);
    // SAFETY: the caller passes an initialised lock and a valid time or null.
    unsafe {
        let busy = |l: *mut RwLock| {
            (*l).writer != 0
                || if write {
                    (*l).readers != 0
                } else {
                    (*l).flags == 2 && (*l).writers_waiting > 0
                }
        };
        let mut deadline = None;
        while busy(l) {
            if !wait {
                return libc::EBUSY;
            }
            if (*l).writer == tid {
                return libc::EDEADLK;
            }
            if deadline.is_none() && !at.is_null() {
                match clock::deadline_from(clock_id, at) {
                    Ok(d) => deadline = Some(d),
                    Err(code) => return code,
                }
            }
            (*l).writers_waiting += u32::from(write);
            let why = turn::wait(me, (*l).key(me), deadline);
            (*l).writers_waiting -= u32::from(write);
            if why == Wake::TimedOut {
                return libc::ETIMEDOUT;
            }
        }
        if write {
            (*l).writer = tid;
        } else {
            (*l).readers += 1;
        }
    }
    0
}

pub(crate) unsafe fn rwlock_unlock(l: *mut RwLock) -> c_int {
    let me = begin(Op::RwUnlock);
    // SAFETY: as above.
    unsafe {
        if (*l).writer != 0 {
            (*l).writer = 0;
        } else if (*l).readers > 0 {
            (*l).readers -= 1;
        }
        if (*l).readers == 0 {
            turn::wake_all((*l).key(me));
        }
    }
    0
}

/// A semaphore in the space of glibc's sem_t; the value is where a file of
/// sem_open(3) has it.
#[repr(C)]
pub(crate) struct Semaphore {
    value: u32,
    _waiters: u32,
    /// glibc: 0 private, 128 shared between processes.
    shared: u32,
}

impl Semaphore {
    fn key(&self, me: Slot) -> u64 {
        key(core::ptr::from_ref(self) as usize, self.shared != 0, me)
    }
}

const SEM_VALUE_MAX: u32 = i32::MAX as u32;

pub(crate) unsafe fn sem_init(s: *mut Semaphore, shared: c_int, value: c_uint) -> c_int {
    if value > SEM_VALUE_MAX {
        return raw::fail(libc::EINVAL);
    }
    // SAFETY: the caller passes room for a semaphore.
    unsafe {
        *s = Semaphore {
            value,
            _waiters: 0,
            shared: if shared != 0 { 128 } else { 0 },
        }
    };
    0
}

/// Takes a semaphore, waiting until `at` on `clock_id` (null: without end).
pub(crate) unsafe fn sem_wait(
    s: *mut Semaphore,
    clock_id: c_int,
    at: *const libc::timespec,
) -> c_int {
    let me = begin(Op::SemWait);
    // SAFETY: the caller passes an initialised semaphore and a valid time or null.
    unsafe {
        let mut deadline = None;
        while (*s).value == 0 {
            if deadline.is_none() && !at.is_null() {
                match clock::deadline_from(clock_id, at) {
                    Ok(d) => deadline = Some(d),
                    Err(code) => return raw::fail(code),
                }
            }
            match turn::wait(me, (*s).key(me), deadline) {
                Wake::TimedOut => return raw::fail(libc::ETIMEDOUT),
                Wake::Interrupted => return raw::fail(libc::EINTR),
                Wake::Woken => {}
            }
        }
        (*s).value -= 1;
    }
    0
}

pub(crate) unsafe fn sem_trywait(s: *mut Semaphore) -> c_int {
    begin(Op::SemTryWait);
    // SAFETY: as above.
    unsafe {
        if (*s).value == 0 {
            return raw::fail(libc::EAGAIN);
        }
        (*s).value -= 1;
    }
    0
}

pub(crate) unsafe fn sem_post(s: *mut Semaphore) -> c_int {
    let me = begin(Op::SemPost);
    // SAFETY: as above.
    unsafe {
        if (*s).value == SEM_VALUE_MAX {
            return raw::fail(libc::EOVERFLOW);
        }
        (*s).value += 1;
        turn::wake_one((*s).key(me));
    }
    0
}

pub(crate) unsafe fn sem_getvalue(s: *mut Semaphore, value: *mut c_int) -> c_int {
    // SAFETY: as above; `value` is a place for the result.
    unsafe { *value = (*s).value as c_int };
    0
}

/// A barrier in the space of glibc's (32 bytes).
#[repr(C)]
pub(crate) struct Barrier {
    count: u32,
    arrived: u32,
    round: u32,
    shared: u32,
}

pub(crate) unsafe fn barrier_init(
    b: *mut Barrier,
    attributes: *const libc::pthread_barrierattr_t,
    count: c_uint,
) -> c_int {
    if count == 0 {
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
        };
    }
    0
}

pub(crate) unsafe fn barrier_wait(b: *mut Barrier) -> c_int {
    let me = begin(Op::Barrier);
    // SAFETY: an initialised barrier.
    unsafe {
        let key = key(b as usize, (*b).shared != 0, me);
        (*b).arrived += 1;
        if (*b).arrived == (*b).count {
            (*b).arrived = 0;
            (*b).round = (*b).round.wrapping_add(1);
            turn::wake_all(key);
            return libc::PTHREAD_BARRIER_SERIAL_THREAD;
        }
        let round = (*b).round;
        while (*b).round == round {
            turn::wait(me, key, None);
        }
    }
    0
}

pub(crate) unsafe fn spin_lock(l: *mut u32, wait: bool) -> c_int {
    let me = begin(Op::SpinLock);
    // SAFETY: an initialised spin lock. One may be shared between processes
    // without saying so, hence a key by address alone.
    unsafe {
        while *l != 0 {
            if !wait {
                return libc::EBUSY;
            }
            turn::wait(me, key(l as usize, true, me), None);
        }
        *l = 1;
    }
    0
}

pub(crate) unsafe fn spin_unlock(l: *mut u32) -> c_int {
    let me = begin(Op::SpinUnlock);
    // SAFETY: as above.
    unsafe { *l = 0 };
    turn::wake_one(key(l as usize, true, me));
    0
}

const ONCE_RUNNING: i32 = 1;
const ONCE_DONE: i32 = 2;

/// pthread_once(3), call_once. An initialiser that does not return (it throws
/// or its thread is cancelled) leaves the control word running.
pub(crate) unsafe fn once(control: *mut i32, routine: extern "C" fn()) -> c_int {
    // SAFETY: the control word is valid; see above for the rest.
    unsafe {
        if *control == ONCE_DONE {
            return 0;
        }
        let me = begin(Op::Once);
        let key = key(control as usize, false, me);
        while *control == ONCE_RUNNING {
            turn::wait(me, key, None);
        }
        if *control != ONCE_DONE {
            *control = ONCE_RUNNING;
            routine();
            *control = ONCE_DONE;
            turn::wake_all(key);
        }
    }
    0
}

/// __cxa_guard_acquire of the C++ ABI: 1 when the caller is to initialise.
/// Byte 0 of the guard: done; byte 1: being initialised.
pub(crate) unsafe fn guard_acquire(guard: *mut u8) -> c_int {
    // SAFETY: the compiler passes a valid 8-byte guard.
    unsafe {
        if *guard != 0 {
            return 0;
        }
        let me = begin(Op::Once);
        while *guard.add(1) != 0 {
            turn::wait(me, key(guard as usize, false, me), None);
        }
        if *guard != 0 {
            return 0;
        }
        *guard.add(1) = 1;
    }
    1
}

/// __cxa_guard_release (`done`) and __cxa_guard_abort.
pub(crate) unsafe fn guard_release(guard: *mut u8, done: bool) {
    let me = begin(Op::Once);
    // SAFETY: as above.
    unsafe {
        *guard.add(1) = 0;
        *guard = done.into();
    }
    turn::wake_all(key(guard as usize, false, me));
}
