//! Threads, and what they lock and wait for.

use crate::barrier::Barrier;
use crate::condvar::Cond;
use crate::mutex::Mutex;
use crate::objects::Limit;
use crate::rwlock::RwLock;
use crate::semaphore::Semaphore;
use crate::{
    barrier, c11, cancel, clock, clone, condvar, mutex, once, priorities, rwlock, semaphore,
    spinlock, threads,
};
use core::ffi::{c_int, c_uint, c_void};
use core::ptr::null;
use libc::{pid_t, pthread_t, size_t, timespec};

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

#[inline(always)]
fn leave() {}

interposed! {
    threads {
        /// Starts inside the order: nothing of the thread runs before its first turn.
        fn pthread_create(thread: *mut pthread_t, attr: *const libc::pthread_attr_t, start: Start, arg: *mut c_void) -> c_int {
            threads::create(thread, attr, start, arg)
        }
        /// Waits in logical order.
        fn pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int {
            threads::join(thread, result, None)
        }
        /// As pthread_join without waiting.
        fn pthread_tryjoin_np(thread: pthread_t, result: *mut *mut c_void) -> c_int {
            threads::join(thread, result, Some(0))
        }
        /// As pthread_join until a virtual time.
        fn pthread_timedjoin_np(thread: pthread_t, result: *mut *mut c_void, at: *const timespec) -> c_int {
            match clock::deadline_from(libc::CLOCK_REALTIME, at) {
                Ok(deadline) => threads::join(thread, result, Some(deadline)),
                Err(code) => code,
            }
        }
        /// As pthread_timedjoin_np on a given clock.
        fn pthread_clockjoin_np(thread: pthread_t, result: *mut *mut c_void, id: c_int, at: *const timespec) -> c_int {
            match clock::deadline_from(id, at) {
                Ok(deadline) => threads::join(thread, result, Some(deadline)),
                Err(code) => code,
            }
        }
        /// The thread's end is still awaited before the turn moves on.
        fn pthread_detach(thread: pthread_t) -> c_int { threads::detach(thread) }
        /// Ends inside the order.
        fn pthread_exit(result: *mut c_void) { threads::exit(result) }
        /// Gives the turn to the next thread.
        fn sched_yield() -> c_int { threads::sched_yield() }
        /// As sched_yield.
        fn __sched_yield() -> c_int { threads::sched_yield() }
        /// As sched_yield.
        fn pthread_yield() -> c_int { threads::sched_yield() }
        /// The signal is taken in the target's next turn.
        fn pthread_kill(thread: pthread_t, signal: c_int) -> c_int { threads::kill(thread, signal) }
        /// As fork where it asks for nothing else; ENOSYS for threads.
        fn clone(child: clone::Child, _stack: *mut c_void, flags: c_int, argument: *mut c_void) -> c_int { clone::by_name(child, flags, argument) }
        /// As clone.
        fn __clone(child: clone::Child, _stack: *mut c_void, flags: c_int, argument: *mut c_void) -> c_int { clone::by_name(child, flags, argument) }
        /// Acted upon in the target's turn, at a cancellation point.
        fn pthread_cancel(thread: pthread_t) -> c_int { cancel::cancel(thread) }
        /// Kept in the schedule's record of the thread.
        fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int { cancel::set_state(state, old) }
        /// Asynchronous: acted upon in whatever operation the thread is in.
        fn pthread_setcanceltype(kind: c_int, old: *mut c_int) -> c_int { cancel::set_type(kind, old) }
        /// A cancellation point.
        fn pthread_testcancel() { cancel::test() }
        /// The detached state is the one that the program gave.
        fn pthread_getattr_np(thread: pthread_t, to: *mut libc::pthread_attr_t) -> c_int { threads::getattr(thread, to) }
        /// Kept and without effect.
        fn pthread_setschedparam(thread: pthread_t, policy: c_int, to: *const libc::sched_param) -> c_int { priorities::set(thread, policy, to) }
        /// What was set.
        fn pthread_getschedparam(thread: pthread_t, policy: *mut c_int, to: *mut libc::sched_param) -> c_int { priorities::get(thread, policy, to) }
        /// Kept and without effect.
        fn pthread_setschedprio(thread: pthread_t, priority: c_int) -> c_int { priorities::set_priority(thread, priority) }
        /// Kept and without effect.
        fn sched_setscheduler(pid: pid_t, policy: c_int, to: *const libc::sched_param) -> c_int { priorities::set_of(pid, policy, to) }
        /// What was set.
        fn sched_getscheduler(pid: pid_t) -> c_int { priorities::policy_of(pid) }
        /// Kept and without effect.
        fn sched_setparam(pid: pid_t, to: *const libc::sched_param) -> c_int { priorities::set_priority_of(pid, to) }
        /// What was set.
        fn sched_getparam(pid: pid_t, to: *mut libc::sched_param) -> c_int { priorities::priority_of(pid, to) }
        /// One CPU is shown on every machine.
        fn sched_getaffinity(_pid: pid_t, size: size_t, mask: *mut u8) -> c_int { threads::getaffinity(size, mask) }
        /// Accepted and without effect.
        fn sched_setaffinity(_pid: pid_t, _size: size_t, _mask: *const u8) -> c_int { 0 }
        /// One CPU is shown on every machine.
        fn pthread_getaffinity_np(_thread: pthread_t, size: size_t, mask: *mut u8) -> c_int { threads::getaffinity(size, mask) }
        /// Accepted and without effect.
        fn pthread_setaffinity_np(_thread: pthread_t, _size: size_t, _mask: *const u8) -> c_int { 0 }
        /// Always CPU 0.
        fn sched_getcpu() -> c_int { 0 }
    }
    locks {
        /// Kind, sharing, robustness and protocol of its attributes.
        fn pthread_mutex_init(m: *mut Mutex, attr: *const libc::pthread_mutexattr_t) -> c_int { mutex::init(m, attr) }
        /// All kinds; the waiters are served first come, first served.
        fn pthread_mutex_lock(m: *mut Mutex) -> c_int { mutex::lock(m) }
        /// Deterministic result.
        fn pthread_mutex_trylock(m: *mut Mutex) -> c_int { mutex::trylock(m) }
        /// Until a virtual time.
        fn pthread_mutex_timedlock(m: *mut Mutex, at: *const timespec) -> c_int {
            mutex::timedlock(m, libc::CLOCK_REALTIME, at)
        }
        /// Until a virtual time on a given clock.
        fn pthread_mutex_clocklock(m: *mut Mutex, id: c_int, at: *const timespec) -> c_int {
            mutex::timedlock(m, id, at)
        }
        /// Wakes the longest waiter.
        fn pthread_mutex_unlock(m: *mut Mutex) -> c_int { mutex::unlock(m) }
        /// EBUSY while in use.
        fn pthread_mutex_destroy(m: *mut Mutex) -> c_int { mutex::destroy(m) }
        /// After the death of its owner.
        fn pthread_mutex_consistent(m: *mut Mutex) -> c_int { mutex::consistent(m) }
        /// As pthread_mutex_consistent.
        fn pthread_mutex_consistent_np(m: *mut Mutex) -> c_int { mutex::consistent(m) }
        /// Kept and without effect.
        fn pthread_mutex_getprioceiling(m: *const Mutex, to: *mut c_int) -> c_int { mutex::getprioceiling(m, to) }
        /// Kept and without effect.
        fn pthread_mutex_setprioceiling(m: *mut Mutex, ceiling: c_int, old: *mut c_int) -> c_int { mutex::setprioceiling(m, ceiling, old) }
        /// With the clock and sharing of its attributes.
        fn pthread_cond_init(c: *mut Cond, attr: *const libc::pthread_condattr_t) -> c_int { condvar::init(c, attr) }
        /// Nothing to give back.
        fn pthread_cond_destroy(_c: *mut Cond) -> c_int { 0 }
        /// First come, first served.
        fn pthread_cond_wait(c: *mut Cond, m: *mut Mutex) -> c_int { condvar::wait(c, m, -1, null()) }
        /// Until a virtual time.
        fn pthread_cond_timedwait(c: *mut Cond, m: *mut Mutex, at: *const timespec) -> c_int {
            condvar::wait(c, m, -1, at)
        }
        /// Until a virtual time on a given clock.
        fn pthread_cond_clockwait(c: *mut Cond, m: *mut Mutex, id: c_int, at: *const timespec) -> c_int {
            if id < 0 { return libc::EINVAL; }
            condvar::wait(c, m, id, at)
        }
        /// Wakes the longest waiter.
        fn pthread_cond_signal(c: *mut Cond) -> c_int { condvar::signal(c) }
        /// Wakes all in order.
        fn pthread_cond_broadcast(c: *mut Cond) -> c_int { condvar::broadcast(c) }
        /// With the kind and sharing of its attributes.
        fn pthread_rwlock_init(l: *mut RwLock, attr: *const libc::pthread_rwlockattr_t) -> c_int { rwlock::init(l, attr) }
        /// Nothing to give back.
        fn pthread_rwlock_destroy(_l: *mut RwLock) -> c_int { 0 }
        /// Shared.
        fn pthread_rwlock_rdlock(l: *mut RwLock) -> c_int { rwlock::take(l, false, Limit::Forever) }
        /// Shared, without waiting.
        fn pthread_rwlock_tryrdlock(l: *mut RwLock) -> c_int { rwlock::take(l, false, Limit::Try) }
        /// Shared, until a virtual time.
        fn pthread_rwlock_timedrdlock(l: *mut RwLock, at: *const timespec) -> c_int { rwlock::take(l, false, Limit::Until(libc::CLOCK_REALTIME, at)) }
        /// Shared, until a virtual time on a given clock.
        fn pthread_rwlock_clockrdlock(l: *mut RwLock, id: c_int, at: *const timespec) -> c_int { rwlock::take(l, false, Limit::Until(id, at)) }
        /// Exclusive.
        fn pthread_rwlock_wrlock(l: *mut RwLock) -> c_int { rwlock::take(l, true, Limit::Forever) }
        /// Exclusive, without waiting.
        fn pthread_rwlock_trywrlock(l: *mut RwLock) -> c_int { rwlock::take(l, true, Limit::Try) }
        /// Exclusive, until a virtual time.
        fn pthread_rwlock_timedwrlock(l: *mut RwLock, at: *const timespec) -> c_int { rwlock::take(l, true, Limit::Until(libc::CLOCK_REALTIME, at)) }
        /// Exclusive, until a virtual time on a given clock.
        fn pthread_rwlock_clockwrlock(l: *mut RwLock, id: c_int, at: *const timespec) -> c_int { rwlock::take(l, true, Limit::Until(id, at)) }
        /// Wakes all waiters when free.
        fn pthread_rwlock_unlock(l: *mut RwLock) -> c_int { rwlock::unlock(l) }
        /// Private or shared; named ones are the C library's, over these.
        fn sem_init(s: *mut Semaphore, shared: c_int, value: c_uint) -> c_int { semaphore::init(s, shared, value) }
        /// Nothing to give back.
        fn sem_destroy(_s: *mut Semaphore) -> c_int { 0 }
        /// First come, first served; EINTR by a signal.
        fn sem_wait(s: *mut Semaphore) -> c_int { semaphore::wait(s, Limit::Forever) }
        /// Until a virtual time.
        fn sem_timedwait(s: *mut Semaphore, at: *const timespec) -> c_int { semaphore::wait(s, Limit::Until(libc::CLOCK_REALTIME, at)) }
        /// Until a virtual time on a given clock.
        fn sem_clockwait(s: *mut Semaphore, id: c_int, at: *const timespec) -> c_int { semaphore::wait(s, Limit::Until(id, at)) }
        /// Deterministic result.
        fn sem_trywait(s: *mut Semaphore) -> c_int { semaphore::trywait(s) }
        /// Wakes the longest waiter.
        fn sem_post(s: *mut Semaphore) -> c_int { semaphore::post(s) }
        /// The value now.
        fn sem_getvalue(s: *mut Semaphore, value: *mut c_int) -> c_int { semaphore::getvalue(s, value) }
        /// Private or shared.
        fn pthread_barrier_init(b: *mut Barrier, attr: *const libc::pthread_barrierattr_t, count: c_uint) -> c_int { barrier::init(b, attr, count) }
        /// Nothing to give back.
        fn pthread_barrier_destroy(_b: *mut Barrier) -> c_int { 0 }
        /// The last to arrive is the serial thread.
        fn pthread_barrier_wait(b: *mut Barrier) -> c_int { barrier::wait(b) }
        /// Private or shared.
        fn pthread_spin_init(l: *mut u32, shared: c_int) -> c_int { spinlock::init(l, shared) }
        /// Nothing to give back.
        fn pthread_spin_destroy(_l: *mut u32) -> c_int { 0 }
        /// Waits in the queue instead of spinning.
        fn pthread_spin_lock(l: *mut u32) -> c_int { spinlock::lock(l, true) }
        /// Deterministic result.
        fn pthread_spin_trylock(l: *mut u32) -> c_int { spinlock::lock(l, false) }
        /// Lets the waiters try again.
        fn pthread_spin_unlock(l: *mut u32) -> c_int { spinlock::unlock(l) }
        /// Others wait in the queue; begun anew when it ended by an exception or cancellation.
        fn pthread_once(control: *mut i32, routine: extern "C" fn()) -> c_int { once::once(control, routine) }
        /// Initialisation of C++ statics.
        fn __cxa_guard_acquire(guard: *mut u8) -> c_int { once::guard_acquire(guard) }
        /// Initialisation of C++ statics.
        fn __cxa_guard_release(guard: *mut u8) { once::guard_release(guard, true) }
        /// Initialisation of C++ statics.
        fn __cxa_guard_abort(guard: *mut u8) { once::guard_release(guard, false) }
        /// An old name of pthread_mutex_init.
        fn __pthread_mutex_init(m: *mut Mutex, attr: *const libc::pthread_mutexattr_t) -> c_int { mutex::init(m, attr) }
        /// An old name of pthread_mutex_destroy.
        fn __pthread_mutex_destroy(m: *mut Mutex) -> c_int { mutex::destroy(m) }
        /// An old name of pthread_mutex_lock.
        fn __pthread_mutex_lock(m: *mut Mutex) -> c_int { mutex::lock(m) }
        /// An old name of pthread_mutex_trylock.
        fn __pthread_mutex_trylock(m: *mut Mutex) -> c_int { mutex::trylock(m) }
        /// An old name of pthread_mutex_unlock.
        fn __pthread_mutex_unlock(m: *mut Mutex) -> c_int { mutex::unlock(m) }
        /// An old name of pthread_rwlock_init.
        fn __pthread_rwlock_init(l: *mut RwLock, attr: *const libc::pthread_rwlockattr_t) -> c_int { rwlock::init(l, attr) }
        /// An old name of pthread_rwlock_destroy.
        fn __pthread_rwlock_destroy(_l: *mut RwLock) -> c_int { 0 }
        /// An old name of pthread_rwlock_rdlock.
        fn __pthread_rwlock_rdlock(l: *mut RwLock) -> c_int { rwlock::take(l, false, Limit::Forever) }
        /// An old name of pthread_rwlock_tryrdlock.
        fn __pthread_rwlock_tryrdlock(l: *mut RwLock) -> c_int { rwlock::take(l, false, Limit::Try) }
        /// An old name of pthread_rwlock_wrlock.
        fn __pthread_rwlock_wrlock(l: *mut RwLock) -> c_int { rwlock::take(l, true, Limit::Forever) }
        /// An old name of pthread_rwlock_trywrlock.
        fn __pthread_rwlock_trywrlock(l: *mut RwLock) -> c_int { rwlock::take(l, true, Limit::Try) }
        /// An old name of pthread_rwlock_unlock.
        fn __pthread_rwlock_unlock(l: *mut RwLock) -> c_int { rwlock::unlock(l) }
        /// An old name of pthread_once.
        fn __pthread_once(control: *mut i32, routine: extern "C" fn()) -> c_int { once::once(control, routine) }
    }
    c11 {
        /// As pthread_create.
        fn thrd_create(thread: *mut pthread_t, start: c11::Start, arg: *mut c_void) -> c_int { c11::create(thread, start, arg) }
        /// As pthread_join.
        fn thrd_join(thread: pthread_t, result: *mut c_int) -> c_int { c11::join(thread, result) }
        /// As pthread_detach.
        fn thrd_detach(thread: pthread_t) -> c_int { c11::result(threads::detach(thread)) }
        /// As pthread_exit.
        fn thrd_exit(result: c_int) { threads::exit(result as isize as *mut c_void) }
        /// As sched_yield.
        fn thrd_yield() { threads::sched_yield(); }
        /// In virtual time.
        fn thrd_sleep(length: *const timespec, rest: *mut timespec) -> c_int { c11::slept(clock::nanosleep(length, rest)) }
        /// Plain, timed or recursive.
        fn mtx_init(m: *mut Mutex, kind: c_int) -> c_int { c11::mtx_init(m, kind) }
        /// As pthread_mutex_lock.
        fn mtx_lock(m: *mut Mutex) -> c_int { c11::result(mutex::lock(m)) }
        /// As pthread_mutex_timedlock.
        fn mtx_timedlock(m: *mut Mutex, at: *const timespec) -> c_int { c11::result(mutex::timedlock(m, libc::CLOCK_REALTIME, at)) }
        /// As pthread_mutex_trylock.
        fn mtx_trylock(m: *mut Mutex) -> c_int { c11::result(mutex::trylock(m)) }
        /// As pthread_mutex_unlock.
        fn mtx_unlock(m: *mut Mutex) -> c_int { c11::result(mutex::unlock(m)) }
        /// As pthread_mutex_destroy.
        fn mtx_destroy(m: *mut Mutex) { mutex::destroy(m); }
        /// As pthread_cond_init.
        fn cnd_init(c: *mut Cond) -> c_int { c11::result(condvar::init(c, null())) }
        /// As pthread_cond_wait.
        fn cnd_wait(c: *mut Cond, m: *mut Mutex) -> c_int { c11::result(condvar::wait(c, m, -1, null())) }
        /// As pthread_cond_timedwait.
        fn cnd_timedwait(c: *mut Cond, m: *mut Mutex, at: *const timespec) -> c_int { c11::result(condvar::wait(c, m, -1, at)) }
        /// As pthread_cond_signal.
        fn cnd_signal(c: *mut Cond) -> c_int { c11::result(condvar::signal(c)) }
        /// As pthread_cond_broadcast.
        fn cnd_broadcast(c: *mut Cond) -> c_int { c11::result(condvar::broadcast(c)) }
        /// Nothing to give back.
        fn cnd_destroy(_c: *mut Cond) {}
        /// As pthread_once.
        fn call_once(control: *mut i32, routine: extern "C" fn()) { once::once(control, routine); }
    }
}
