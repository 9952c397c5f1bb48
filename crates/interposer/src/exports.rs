//! The one table of interposed symbols.
//!
//! Each row is an exported function: its family, its C signature, what answers
//! it, and a line of documentation. From here come the library's exports, the
//! answers of `dlsym`, `docs/compatibility.md` and the symbol test. Unversioned
//! definitions answer callers of every version of a symbol.
//!
//! Variadic functions take their arguments as fixed integers: on x86-64 they
//! are passed alike.

// The contract of every row is that of the C function of the same name.
#![allow(clippy::missing_safety_doc)]

use crate::barrier::{self, Barrier};
use crate::condvar::{self, Cond};
use crate::directories::{self, Compare, Directory, Entries, Filter};
use crate::mutex::{self, Mutex};
use crate::objects::Limit;
use crate::raw::fail;
use crate::rwlock::{self, RwLock};
use crate::semaphore::{self, Semaphore};
use crate::{
    actions, c11, cancel, clock, clone, control, dprintf, exec, fatal, fds, files, ids, inotify,
    interfaces, kill, locks, machine, masks, messages, once, options, outside, polling, priorities,
    process, random, signalfd, sigwait, sockets, spawn, spinlock, stdio, sysv, temporary, threads,
    timers, times, transfer, wait,
};
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::ptr::null;
use libc::{
    iovec, mode_t, msghdr, off_t, pid_t, pthread_t, size_t, sockaddr, socklen_t, ssize_t, timespec,
};
use syscalls::Sysno;

type Start = extern "C" fn(*mut c_void) -> *mut c_void;

macro_rules! interposed {
    ($(
        $family:ident {
            $($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block)*
        }
    )*) => {
        $($(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller keeps the contract of the C function.
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*)*

        /// Names and addresses, for dlsym. Families are for the documentation.
        static TABLE: &[(&str, Address)] = &[
            $($((stringify!($name), Address($name as *const ())),)*)*
        ];
    };
}

struct Address(*const ());

// SAFETY: addresses of functions are plain numbers.
unsafe impl Sync for Address {}

/// Our function of that name, or null.
pub(crate) fn address_of(name: &CStr) -> *mut c_void {
    let name = name.to_bytes();
    let row = TABLE.iter().find(|(n, _)| n.as_bytes() == name);
    row.map_or(core::ptr::null_mut(), |(_, address)| {
        address.0 as *mut c_void
    })
}

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
    time {
        /// The log's time.
        fn clock_gettime(id: c_int, at: *mut timespec) -> c_int { clock::clock_gettime(id, at) }
        /// The log's time.
        fn gettimeofday(at: *mut libc::timeval, zone: *mut libc::timezone) -> c_int { clock::gettimeofday(at, zone) }
        /// The log's time.
        fn time(at: *mut libc::time_t) -> libc::time_t { clock::time(at) }
        /// The log's time.
        fn timespec_get(at: *mut timespec, base: c_int) -> c_int { clock::timespec_get(at, base) }
        /// The logical clock.
        fn clock() -> c_long { clock::clock() }
        /// The logical clock.
        fn times(at: *mut libc::tms) -> libc::clock_t { clock::times(at) }
        /// The logical clock.
        fn getrusage(who: c_int, at: *mut libc::rusage) -> c_int { clock::getrusage(who, at) }
        /// In virtual time.
        fn nanosleep(length: *const timespec, rest: *mut timespec) -> c_int { clock::errno_result(clock::nanosleep(length, rest)) }
        /// In virtual time.
        fn clock_nanosleep(id: c_int, flags: c_int, at: *const timespec, rest: *mut timespec) -> c_int { clock::clock_nanosleep(id, flags, at, rest) }
        /// In virtual time.
        fn usleep(us: c_uint) -> c_int { clock::usleep(us) }
        /// In virtual time.
        fn sleep(seconds: c_uint) -> c_uint { clock::sleep(seconds) }
        /// No load is shown.
        fn getloadavg(loads: *mut f64, count: c_int) -> c_int {
            for i in 0..count.clamp(0, 3) { *loads.add(i as usize) = 0.0; }
            count.clamp(0, 3)
        }
        /// 16 GiB and no load on every machine.
        fn sysinfo(to: *mut libc::sysinfo) -> c_int { machine::sysinfo(to) }
        /// As sysinfo, in pages.
        fn get_phys_pages() -> c_long { machine::sysconf(libc::_SC_PHYS_PAGES) }
        /// As sysinfo, in pages.
        fn get_avphys_pages() -> c_long { machine::sysconf(libc::_SC_AVPHYS_PAGES) }
        /// Always CPU 0 of node 0.
        fn getcpu(cpu: *mut c_uint, node: *mut c_uint) -> c_int {
            if !cpu.is_null() { *cpu = 0; }
            if !node.is_null() { *node = 0; }
            0
        }
        /// Number of CPUs: 1 on every machine.
        fn get_nprocs() -> c_int { 1 }
        /// Number of CPUs: 1 on every machine.
        fn get_nprocs_conf() -> c_int { 1 }
        /// Number of CPUs 1, memory 16 GiB on every machine.
        fn sysconf(name: c_int) -> c_long { machine::sysconf(name) }
    }
    randomness {
        /// The agreed stream.
        fn getrandom(to: *mut u8, len: size_t, _flags: c_uint) -> ssize_t {
            random::fill(core::slice::from_raw_parts_mut(to, len));
            len as ssize_t
        }
        /// The agreed stream.
        fn getentropy(to: *mut u8, len: size_t) -> c_int {
            if len > 256 { return fail(libc::EIO); }
            random::fill(core::slice::from_raw_parts_mut(to, len));
            0
        }
        /// The agreed stream.
        fn arc4random() -> u32 { random::number(0) }
        /// The agreed stream.
        fn arc4random_uniform(bound: u32) -> u32 { if bound < 2 { 0 } else { random::number(bound) } }
        /// The agreed stream.
        fn arc4random_buf(to: *mut u8, len: size_t) { random::fill(core::slice::from_raw_parts_mut(to, len)) }
    }
    descriptors {
        /// Virtual or real.
        fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t { transfer::read(fd, to, len) }
        /// As read.
        fn __read_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t) -> ssize_t { transfer::read(fd, to, len) }
        /// Virtual or real.
        fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t { transfer::readv(fd, iov, count) }
        /// Virtual or real; a real file's time of change is virtual.
        fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t { transfer::write(fd, from, len) }
        /// Virtual or real.
        fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t { transfer::writev(fd, iov, count) }
        /// A real file's time of change is virtual.
        fn pwrite64(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t { transfer::pwrite(fd, from, len, at) }
        /// As pwrite64.
        fn pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t { transfer::pwrite(fd, from, len, at) }
        /// On a file that lasts, other threads go on meanwhile; where it goes on is agreed.
        fn fsync(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::fsync, fd) }
        /// As fsync.
        fn fdatasync(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::fdatasync, fd) }
        /// As fsync.
        fn syncfs(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::syncfs, fd) }
        /// As fsync.
        fn sync_file_range(fd: c_int, from: off_t, len: off_t, flags: c_uint) -> c_int { outside::sync_range(fd, from, len, flags) }
        /// Other threads go on meanwhile.
        fn sync() { outside::sync_all(); }
        /// Other threads go on meanwhile, if it waits.
        fn msync(start: *mut c_void, len: size_t, flags: c_int) -> c_int { outside::msync(start, len, flags) }
        /// A real file's time of change is virtual.
        fn ftruncate64(fd: c_int, len: off_t) -> c_int { transfer::ftruncate(fd, len) }
        /// As ftruncate64.
        fn ftruncate(fd: c_int, len: off_t) -> c_int { transfer::ftruncate(fd, len) }
        /// Closes the virtual object and its placeholder.
        fn close(fd: c_int) -> c_int { fds::close(fd) }
        /// Closes virtual objects and placeholders.
        fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int { fds::close_range(first, last, flags) }
        /// As close_range to the end.
        fn closefrom(first: c_int) { fds::close_range(first.max(0) as c_uint, c_uint::MAX, 0); }
        /// Also of virtual objects.
        fn dup(fd: c_int) -> c_int { fds::dup(fd) }
        /// Also of virtual objects.
        fn dup2(old: c_int, new: c_int) -> c_int { fds::dup3(old, new, 0, true) }
        /// Also of virtual objects.
        fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int { fds::dup3(old, new, flags, false) }
        /// Descriptor and status flags of virtual objects.
        fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int { control::fcntl(fd, command, argument) }
        /// As fcntl.
        fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int { control::fcntl(fd, command, argument) }
        /// FIONREAD and FIONBIO of virtual objects.
        fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int { control::ioctl(fd, request, argument) }
        /// In memory of the group.
        fn pipe(ends: *mut c_int) -> c_int { fds::pipe(ends, 0) }
        /// In memory of the group.
        fn pipe2(ends: *mut c_int, flags: c_int) -> c_int { fds::pipe(ends, flags) }
        /// In memory of the group.
        fn eventfd(value: c_uint, flags: c_int) -> c_int { fds::eventfd(value, flags) }
        /// Copies through memory.
        fn sendfile(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t { transfer::sendfile(out, input, offset, count) }
        /// Copies through memory.
        fn sendfile64(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t { transfer::sendfile(out, input, offset, count) }
        /// Of a real file; ESPIPE otherwise.
        fn preadv(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::preadv(fd, iov, count, at, 0) }
        /// Of a real file; ESPIPE otherwise.
        fn preadv64(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::preadv(fd, iov, count, at, 0) }
        /// Notes the virtual time of the write.
        fn pwritev(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::pwritev(fd, iov, count, at, 0) }
        /// Notes the virtual time of the write.
        fn pwritev64(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::pwritev(fd, iov, count, at, 0) }
        /// As readv at -1, else as preadv.
        fn preadv2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::preadv(fd, iov, count, at, flags) }
        /// As readv at -1, else as preadv.
        fn preadv64v2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::preadv(fd, iov, count, at, flags) }
        /// As writev at -1, else as pwritev.
        fn pwritev2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::pwritev(fd, iov, count, at, flags) }
        /// As writev at -1, else as pwritev.
        fn pwritev64v2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::pwritev(fd, iov, count, at, flags) }
        /// EINVAL for a virtual object, after which programs copy by themselves.
        fn splice(input: c_int, from: *mut off_t, out: c_int, to: *mut off_t, len: size_t, flags: c_uint) -> ssize_t {
            transfer::moved(Sysno::splice, [input, out], [input as c_ulong, from as c_ulong, out as c_ulong, to as c_ulong, len as c_ulong, flags.into()])
        }
        /// As splice.
        fn tee(input: c_int, out: c_int, len: size_t, flags: c_uint) -> ssize_t {
            transfer::moved(Sysno::tee, [input, out], [input as c_ulong, out as c_ulong, len as c_ulong, flags.into(), 0, 0])
        }
        /// As splice.
        fn vmsplice(fd: c_int, iov: *const iovec, count: size_t, flags: c_uint) -> ssize_t {
            transfer::moved(Sysno::vmsplice, [fd, fd], [fd as c_ulong, iov as c_ulong, count as c_ulong, flags.into(), 0, 0])
        }
        /// Between real files; notes the virtual time of the write.
        fn copy_file_range(input: c_int, from: *mut off_t, out: c_int, to: *mut off_t, len: size_t, flags: c_uint) -> ssize_t {
            transfer::moved(Sysno::copy_file_range, [input, out], [input as c_ulong, from as c_ulong, out as c_ulong, to as c_ulong, len as c_ulong, flags.into()])
        }
    }
    files {
        /// Special files of /proc and /dev are answered.
        fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn __open_2(path: *const c_char, flags: c_int) -> c_int { files::open(libc::AT_FDCWD, path, flags, 0) }
        /// As open.
        fn __open64_2(path: *const c_char, flags: c_int) -> c_int { files::open(libc::AT_FDCWD, path, flags, 0) }
        /// As open.
        fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(dir, path, flags, mode) }
        /// As open.
        fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(dir, path, flags, mode) }
        /// As open.
        fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { files::open(dir, path, flags, 0) }
        /// As open.
        fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { files::open(dir, path, flags, 0) }
        /// As open.
        fn creat(path: *const c_char, mode: mode_t) -> c_int {
            files::open(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
        }
        /// A name from the agreed randomness.
        fn mkstemp(template: *mut c_char) -> c_int { temporary::file(template, 0, 0) }
        /// As mkstemp.
        fn mkstemp64(template: *mut c_char) -> c_int { temporary::file(template, 0, 0) }
        /// As mkstemp.
        fn mkostemp(template: *mut c_char, flags: c_int) -> c_int { temporary::file(template, 0, flags) }
        /// As mkstemp.
        fn mkostemp64(template: *mut c_char, flags: c_int) -> c_int { temporary::file(template, 0, flags) }
        /// As mkstemp.
        fn mkstemps(template: *mut c_char, suffix: c_int) -> c_int { temporary::file(template, suffix, 0) }
        /// As mkstemp.
        fn mkstemps64(template: *mut c_char, suffix: c_int) -> c_int { temporary::file(template, suffix, 0) }
        /// As mkstemp.
        fn mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { temporary::file(template, suffix, flags) }
        /// As mkstemp.
        fn mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { temporary::file(template, suffix, flags) }
        /// As mkstemp.
        fn mkdtemp(template: *mut c_char) -> *mut c_char { temporary::directory(template) }
        /// As mkstemp.
        fn mktemp(template: *mut c_char) -> *mut c_char { temporary::name(template) }
        /// As creat.
        fn creat64(path: *const c_char, mode: mode_t) -> c_int {
            files::open(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
        }
        /// A disk of 256 GiB, half full, on every machine.
        fn statfs(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn statfs64(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn __statfs(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn fstatfs(fd: c_int, to: *mut libc::statfs64) -> c_int { machine::fstatfs(fd, to) }
        /// As statfs.
        fn fstatfs64(fd: c_int, to: *mut libc::statfs64) -> c_int { machine::fstatfs(fd, to) }
        /// As statfs.
        fn statvfs(path: *const c_char, to: *mut libc::statvfs64) -> c_int { machine::statvfs(path, to) }
        /// As statfs.
        fn statvfs64(path: *const c_char, to: *mut libc::statvfs64) -> c_int { machine::statvfs(path, to) }
        /// As statfs.
        fn fstatvfs(fd: c_int, to: *mut libc::statvfs64) -> c_int { machine::fstatvfs(fd, to) }
        /// As statfs.
        fn fstatvfs64(fd: c_int, to: *mut libc::statvfs64) -> c_int { machine::fstatvfs(fd, to) }
        /// Special files of /proc and /dev are answered.
        fn fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE { files::fopen(path, mode) }
        /// As fopen.
        fn fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE { files::fopen(path, mode) }
        /// Also on virtual objects.
        fn fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE { stdio::fdopen(fd, mode) }
        /// Also to virtual objects.
        fn vdprintf(fd: c_int, format: *const c_char, arguments: *const dprintf::Arguments) -> c_int { dprintf::vdprintf(fd, format, arguments) }
        /// As vdprintf.
        fn __vdprintf_chk(fd: c_int, _flag: c_int, format: *const c_char, arguments: *const dprintf::Arguments) -> c_int { dprintf::vdprintf(fd, format, arguments) }
        /// Also from virtual objects.
        fn freopen(path: *const c_char, mode: *const c_char, file: *mut libc::FILE) -> *mut libc::FILE { stdio::freopen(path, mode, file) }
        /// As freopen.
        fn freopen64(path: *const c_char, mode: *const c_char, file: *mut libc::FILE) -> *mut libc::FILE { stdio::freopen(path, mode, file) }
        /// Also of virtual objects.
        fn fclose(file: *mut libc::FILE) -> c_int { files::fclose(file) }
        /// Equal inode numbers and times on every replica.
        fn stat(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As stat.
        fn stat64(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As stat.
        fn lstat(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As stat.
        fn lstat64(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As stat.
        fn fstat(fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As stat.
        fn fstat64(fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As stat.
        fn fstatat(dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat.
        fn fstatat64(dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat; what programs built against glibc before 2.33 call.
        fn __xstat(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As __xstat.
        fn __xstat64(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As __xstat.
        fn __lxstat(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As __xstat.
        fn __lxstat64(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As __xstat.
        fn __fxstat(_version: c_int, fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As __xstat.
        fn __fxstat64(_version: c_int, fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As __xstat.
        fn __fxstatat(_version: c_int, dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As __xstat.
        fn __fxstatat64(_version: c_int, dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat.
        fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, stx: *mut libc::statx) -> c_int { files::statx(dir, path, flags, mask, stx) }
        /// What the program sets is what stat shows.
        fn utimensat(dir: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int { times::utimensat(dir, path, times, flags) }
        /// As utimensat.
        fn futimens(fd: c_int, times: *const timespec) -> c_int { times::futimens(fd, times) }
        /// As utimensat.
        fn utimes(path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(libc::AT_FDCWD, path, times, 0) }
        /// As utimensat.
        fn lutimes(path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(libc::AT_FDCWD, path, times, libc::AT_SYMLINK_NOFOLLOW) }
        /// As utimensat.
        fn futimes(fd: c_int, times: *const libc::timeval) -> c_int { times::utimes(fd, null(), times, 0) }
        /// As utimensat.
        fn futimesat(dir: c_int, path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(dir, path, times, 0) }
        /// As utimensat.
        fn utime(path: *const c_char, times: *const libc::utimbuf) -> c_int { times::utime(path, times) }
        /// Lists in the order of the names, with the inode numbers that stat shows.
        fn opendir(path: *const c_char) -> *mut Directory { directories::opendir(path) }
        /// As opendir.
        fn fdopendir(fd: c_int) -> *mut Directory { directories::fdopendir(fd) }
        /// As opendir.
        fn readdir(stream: *mut Directory) -> *mut libc::dirent64 { directories::readdir(stream) }
        /// As opendir.
        fn readdir64(stream: *mut Directory) -> *mut libc::dirent64 { directories::readdir(stream) }
        /// As opendir.
        fn readdir_r(stream: *mut Directory, to: *mut libc::dirent64, result: *mut *mut libc::dirent64) -> c_int { directories::readdir_r(stream, to, result) }
        /// As opendir.
        fn readdir64_r(stream: *mut Directory, to: *mut libc::dirent64, result: *mut *mut libc::dirent64) -> c_int { directories::readdir_r(stream, to, result) }
        /// As opendir.
        fn rewinddir(stream: *mut Directory) { directories::rewinddir(stream) }
        /// As opendir.
        fn telldir(stream: *mut Directory) -> c_long { directories::telldir(stream) }
        /// As opendir.
        fn seekdir(stream: *mut Directory, place: c_long) { directories::seekdir(stream, place) }
        /// As opendir.
        fn dirfd(stream: *mut Directory) -> c_int { directories::dirfd(stream) }
        /// As opendir.
        fn closedir(stream: *mut Directory) -> c_int { directories::closedir(stream) }
        /// As opendir.
        fn scandir(path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(libc::AT_FDCWD, path, to, filter, compare) }
        /// As opendir.
        fn scandir64(path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(libc::AT_FDCWD, path, to, filter, compare) }
        /// As opendir.
        fn scandirat(dir: c_int, path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(dir, path, to, filter, compare) }
        /// As opendir.
        fn scandirat64(dir: c_int, path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(dir, path, to, filter, compare) }
    }
    sockets {
        /// A loopback interface and `eth0`, the same on every replica.
        fn getifaddrs(to: *mut *mut libc::ifaddrs) -> c_int { interfaces::getifaddrs(to) }
        /// Of what getifaddrs gave.
        fn freeifaddrs(list: *mut libc::ifaddrs) { interfaces::release(list.cast()) }
        /// As getifaddrs.
        fn if_nametoindex(name: *const c_char) -> c_uint { interfaces::index_of(name) }
        /// As getifaddrs.
        fn if_indextoname(index: c_uint, to: *mut c_char) -> *mut c_char { interfaces::name_of(index, to) }
        /// As getifaddrs.
        fn if_nameindex() -> *mut libc::if_nameindex { interfaces::names() }
        /// Of what if_nameindex gave.
        fn if_freenameindex(list: *mut libc::if_nameindex) { interfaces::release(list.cast()) }
        /// Streams are virtual; the descriptor's number is a real, unbound socket's.
        fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int { sockets::socket(domain, kind, protocol) }
        /// Inside the group.
        fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int { sockets::bind(fd, address, len) }
        /// The node listens for clients.
        fn listen(fd: c_int, backlog: c_int) -> c_int { sockets::listen(fd, backlog) }
        /// Connections come from the log.
        fn accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::accept(fd, address, len, 0) }
        /// Connections come from the log.
        fn accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int { sockets::accept(fd, address, len, flags) }
        /// Inside the group; ENETUNREACH to the outside.
        fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int { sockets::connect(fd, address, len) }
        /// The bound address.
        fn getsockname(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::name(fd, address, len, false) }
        /// The client's address, as its gateway saw it.
        fn getpeername(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::name(fd, address, len, true) }
        /// To the output ring.
        fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t { messages::send(fd, from, len, flags) }
        /// To the output ring.
        fn sendto(fd: c_int, from: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, alen: socklen_t) -> ssize_t { messages::sendto(fd, from, len, flags, address, alen) }
        /// To the output ring.
        fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t { messages::sendmsg(fd, message, flags) }
        /// From the log.
        fn recv(fd: c_int, to: *mut c_void, len: size_t, flags: c_int) -> ssize_t { messages::recvfrom(fd, to, len, flags, core::ptr::null_mut(), core::ptr::null_mut()) }
        /// As recv.
        fn __recv_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t, flags: c_int) -> ssize_t { messages::recvfrom(fd, to, len, flags, core::ptr::null_mut(), core::ptr::null_mut()) }
        /// From the log.
        fn recvfrom(fd: c_int, to: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, alen: *mut socklen_t) -> ssize_t { messages::recvfrom(fd, to, len, flags, address, alen) }
        /// As recvfrom.
        fn __recvfrom_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t, flags: c_int, address: *mut sockaddr, alen: *mut socklen_t) -> ssize_t { messages::recvfrom(fd, to, len, flags, address, alen) }
        /// From the log.
        fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t { messages::recvmsg(fd, message, flags) }
        /// As recvmsg for each.
        fn recvmmsg(fd: c_int, messages: *mut libc::mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int { messages::recvmmsg(fd, messages, count, flags, timeout) }
        /// As sendmsg for each.
        fn sendmmsg(fd: c_int, messages: *mut libc::mmsghdr, count: c_uint, flags: c_int) -> c_int { messages::sendmmsg(fd, messages, count, flags) }
        /// Half close, both ways.
        fn shutdown(fd: c_int, how: c_int) -> c_int { sockets::shutdown(fd, how) }
        /// Time-outs and errors are virtual, other options are the placeholder's.
        fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int { options::getsockopt(fd, level, name, value, len) }
        /// Time-outs are virtual, other options are the placeholder's.
        fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int { options::setsockopt(fd, level, name, value, len) }
        /// In memory of the group.
        fn socketpair(domain: c_int, kind: c_int, protocol: c_int, ends: *mut c_int) -> c_int { sockets::socketpair(domain, kind, protocol, ends) }
    }
    polling {
        /// Tells what the program itself changes.
        fn inotify_init() -> c_int { inotify::init(0) }
        /// As inotify_init.
        fn inotify_init1(flags: c_int) -> c_int { inotify::init(flags) }
        /// Readiness of virtual objects; real files are always ready.
        fn poll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll.
        fn __poll_chk(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int, _room: size_t) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll, with a signal mask.
        fn ppoll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::ppoll(set, count, timeout, mask) }
        /// As poll.
        fn select(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int { polling::select(count, r, w, e, timeout) }
        /// As select, with a signal mask.
        fn pselect(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::pselect(count, r, w, e, timeout, mask) }
        /// As ppoll.
        fn __ppoll_chk(set: *mut libc::pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const libc::sigset_t, _room: size_t) -> c_int { polling::ppoll(set, count, timeout, mask) }
        /// As epoll_pwait.
        fn epoll_pwait2(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::epoll_pwait2(ep, events, max, timeout, mask) }
        /// In memory of the group.
        fn epoll_create(size: c_int) -> c_int { polling::epoll_create(size) }
        /// In memory of the group.
        fn epoll_create1(flags: c_int) -> c_int { polling::epoll_create1(flags) }
        /// Level and edge triggered, one-shot, exclusive.
        fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int { polling::epoll_ctl(ep, op, fd, event) }
        /// Readiness in the order in which it came.
        fn epoll_wait(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: c_int) -> c_int { polling::epoll_wait(ep, events, max, timeout, null()) }
        /// As epoll_wait, with a signal mask.
        fn epoll_pwait(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: c_int, mask: *const libc::sigset_t) -> c_int { polling::epoll_wait(ep, events, max, timeout, mask) }
        /// As read.
        fn eventfd_read(fd: c_int, value: *mut u64) -> c_int { if transfer::read(fd, value.cast(), 8) == 8 { 0 } else { -1 } }
        /// As write.
        fn eventfd_write(fd: c_int, value: u64) -> c_int { if transfer::write(fd, (&raw const value).cast(), 8) == 8 { 0 } else { -1 } }
        /// Signals of the process that are blocked, as bytes.
        fn signalfd(fd: c_int, mask: *const libc::sigset_t, flags: c_int) -> c_int { signalfd::signalfd(fd, mask, flags) }
        /// In virtual time, also those of CPU time.
        fn setitimer(which: c_int, new: *const libc::itimerval, old: *mut libc::itimerval) -> c_int { timers::setitimer(which, new, old) }
        /// In virtual time.
        fn getitimer(which: c_int, now: *mut libc::itimerval) -> c_int { timers::getitimer(which, now) }
        /// In virtual time.
        fn alarm(seconds: c_uint) -> c_uint { timers::alarm(seconds) }
        /// In virtual time.
        fn ualarm(value: c_uint, interval: c_uint) -> c_uint { timers::ualarm(value, interval) }
        /// In virtual time; a function is called in one thread for all expiries.
        fn timer_create(id: c_int, event: *mut libc::sigevent, timer: *mut libc::timer_t) -> c_int { timers::timer_create(id, event, timer) }
        /// In virtual time.
        fn timer_settime(timer: libc::timer_t, flags: c_int, new: *const libc::itimerspec, old: *mut libc::itimerspec) -> c_int { timers::timer_settime(timer, flags, new, old) }
        /// In virtual time.
        fn timer_gettime(timer: libc::timer_t, now: *mut libc::itimerspec) -> c_int { timers::timer_gettime(timer, now) }
        /// Of the last signal.
        fn timer_getoverrun(timer: libc::timer_t) -> c_int { timers::timer_getoverrun(timer) }
        /// Its thread, if it has one, ends.
        fn timer_delete(timer: libc::timer_t) -> c_int { timers::timer_delete(timer) }
        /// In virtual time.
        fn timerfd_create(id: c_int, flags: c_int) -> c_int { timers::timerfd_create(id, flags) }
        /// In virtual time.
        fn timerfd_settime(fd: c_int, flags: c_int, new: *const libc::itimerspec, old: *mut libc::itimerspec) -> c_int { timers::timerfd_settime(fd, flags, new, old) }
        /// In virtual time.
        fn timerfd_gettime(fd: c_int, now: *mut libc::itimerspec) -> c_int { timers::timerfd_gettime(fd, now) }
    }
    processes {
        /// The child waits for its first turn.
        fn fork() -> pid_t { process::fork() }
        /// As fork: the child gets memory of its own; the parent waits until it has called exec or ended.
        fn vfork() -> pid_t { process::vfork() }
        /// As fork; fork handlers run too.
        fn _Fork() -> pid_t { process::fork() }
        /// Others' fork handlers run in the schedule.
        fn __register_atfork(prepare: Option<unsafe extern "C" fn()>, parent: Option<unsafe extern "C" fn()>, child: Option<unsafe extern "C" fn()>, dso: *mut c_void) -> c_int {
            crate::world::ensure_attached();
            (crate::real::real().register_atfork)(prepare, parent, child, dso)
        }
        /// The new image goes on with the turn, and always has the interposer in it.
        fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::execve(path, argv, envp) }
        /// As execve.
        fn execv(path: *const c_char, argv: *const *const c_char) -> c_int { exec::execve(path, argv, process::environment()) }
        /// As execve, after looking the file up in PATH.
        fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int { exec::execvpe(file, argv, process::environment()) }
        /// As execvp.
        fn execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::execvpe(file, argv, envp) }
        /// As execve.
        fn execveat(dir: c_int, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char, flags: c_int) -> c_int { exec::execveat(dir, path, argv, envp, flags) }
        /// As execve.
        fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::fexecve(fd, argv, envp) }
        /// An ordered event.
        fn _exit(status: c_int) { process::exit_now(status) }
        /// An ordered event.
        fn _Exit(status: c_int) { process::exit_now(status) }
        /// An ordered event, after its own handlers.
        fn quick_exit(status: c_int) {
            crate::world::ensure_attached();
            process::note_quick_exit(status);
            (crate::real::real().quick_exit)(status)
        }
        /// An ordered end by SIGABRT.
        fn abort() { sigwait::abort() }
        /// Over fork and exec; file actions and attributes as in the C library.
        fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attr: *const libc::posix_spawnattr_t, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
            spawn::posix_spawn(pid, path, actions, attr, argv, envp, false)
        }
        /// As posix_spawn, after looking the file up in PATH.
        fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attr: *const libc::posix_spawnattr_t, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
            spawn::posix_spawn(pid, file, actions, attr, argv, envp, true)
        }
        /// A shell in the schedule.
        fn system(command: *const c_char) -> c_int { spawn::system(command) }
        /// A shell in the schedule, on a virtual pipe.
        fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE { spawn::popen(command, mode) }
        /// Waits in logical order.
        fn pclose(file: *mut libc::FILE) -> c_int { spawn::pclose(file) }
        /// Over fork, in the schedule.
        fn daemon(nochdir: c_int, noclose: c_int) -> c_int { ids::daemon(nochdir, noclose) }
        /// In logical order.
        fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t { wait::wait4(pid, status, options, core::ptr::null_mut()) }
        /// In logical order.
        fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> pid_t { wait::wait4(pid, status, options, usage) }
        /// In logical order.
        fn wait3(status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> pid_t { wait::wait4(-1, status, options, usage) }
        /// In logical order.
        fn wait(status: *mut c_int) -> pid_t { wait::wait4(-1, status, 0, core::ptr::null_mut()) }
        /// In logical order; children do not stop or continue.
        fn waitid(kind: c_uint, id: c_uint, info: *mut libc::siginfo_t, options: c_int) -> c_int { wait::waitid(kind, id, info, options) }
        /// The parent as the order has it; 1 for an orphan.
        fn getppid() -> pid_t { ids::getppid() }
        /// As the order has it.
        fn getpgid(pid: pid_t) -> pid_t { ids::getpgid(pid) }
        /// As getpgid.
        fn __getpgid(pid: pid_t) -> pid_t { ids::getpgid(pid) }
        /// As getpgid.
        fn getpgrp() -> pid_t { ids::getpgid(0) }
        /// As the order has it.
        fn getsid(pid: pid_t) -> pid_t { ids::getsid(pid) }
        /// As the order has it.
        fn setpgid(pid: pid_t, group: pid_t) -> c_int { ids::setpgid(pid, group) }
        /// As setpgid.
        fn __setpgid(pid: pid_t, group: pid_t) -> c_int { ids::setpgid(pid, group) }
        /// As setpgid.
        fn setpgrp() -> c_int { ids::setpgid(0, 0) }
        /// As the order has it.
        fn setsid() -> pid_t { ids::setsid() }
        /// PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER in the order; others are the kernel's.
        fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int { ids::prctl(option, [a, b, c, d]) }
    }
    signals {
        /// In logical order, also to groups; SIGKILL included.
        fn kill(pid: pid_t, signal: c_int) -> c_int { kill::kill(pid, signal) }
        /// As kill.
        fn killpg(group: pid_t, signal: c_int) -> c_int { kill::killpg(group, signal) }
        /// As kill, with a value.
        fn sigqueue(pid: pid_t, signal: c_int, value: u64) -> c_int { kill::sigqueue(pid, signal, value) }
        /// In logical order.
        fn tgkill(group: pid_t, tid: pid_t, signal: c_int) -> c_int { kill::tgkill(group as c_uint, tid, signal) }
        /// At once.
        fn raise(signal: c_int) -> c_int { sigwait::raise(signal) }
        /// As raise.
        fn gsignal(signal: c_int) -> c_int { sigwait::raise(signal) }
        /// As pthread_kill, with a value.
        fn pthread_sigqueue(thread: pthread_t, signal: c_int, value: u64) -> c_int { threads::sigqueue(thread, signal, value) }
        /// Handlers run when their thread has the turn.
        fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { actions::sigaction(signal, new, old) }
        /// As sigaction.
        fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { actions::sigaction(signal, new, old) }
        /// As sigaction.
        fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal.
        fn bsd_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal.
        fn ssignal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal; the handler serves once.
        fn sysv_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER) }
        /// As sysv_signal.
        fn __sysv_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER) }
        /// As signal, and holds or lets through.
        fn sigset(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { masks::sigset(signal, handler) }
        /// As signal with SIG_IGN.
        fn sigignore(signal: c_int) -> c_int { if actions::signal(signal, libc::SIG_IGN, 0) == libc::SIG_ERR { -1 } else { 0 } }
        /// Of the action that is set.
        fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int { actions::siginterrupt(signal, interrupt) }
        /// A stack of the interposer's does not show.
        fn sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t) -> c_int { fatal::sigaltstack(new, old) }
        /// What is let through is taken at once.
        fn pthread_sigmask(how: c_int, new: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int { masks::pthread_sigmask(how, new, old) }
        /// As pthread_sigmask.
        fn sigprocmask(how: c_int, new: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int { masks::sigprocmask(how, new, old) }
        /// As sigprocmask.
        fn sighold(signal: c_int) -> c_int { masks::hold(signal, true) }
        /// As sigprocmask.
        fn sigrelse(signal: c_int) -> c_int { masks::hold(signal, false) }
        /// As sigprocmask.
        fn sigblock(set: c_int) -> c_int { masks::old_style(set, true) }
        /// As sigprocmask.
        fn sigsetmask(set: c_int) -> c_int { masks::old_style(set, false) }
        /// As sigprocmask.
        fn siggetmask() -> c_int { masks::get_old_style() }
        /// In logical order.
        fn sigpending(set: *mut libc::sigset_t) -> c_int { masks::sigpending(set) }
        /// Blocks in the schedule until a handler has run.
        fn pause() -> c_int { sigwait::pause() }
        /// As pause.
        fn sigsuspend(mask: *const libc::sigset_t) -> c_int { sigwait::sigsuspend(mask) }
        /// As sigsuspend.
        fn __sigsuspend(mask: *const libc::sigset_t) -> c_int { sigwait::sigsuspend(mask) }
        /// As sigsuspend.
        fn __xpg_sigpause(signal: c_int) -> c_int { sigwait::sigpause(signal) }
        /// As sigsuspend, with the first 32 signals in an int.
        fn sigpause(mask: c_int) -> c_int { sigwait::sigpause_mask(mask) }
        /// As sigpause, or as __xpg_sigpause.
        fn __sigpause(what: c_int, is_signal: c_int) -> c_int {
            if is_signal != 0 { sigwait::sigpause(what) } else { sigwait::sigpause_mask(what) }
        }
        /// Blocks in the schedule.
        fn sigwait(set: *const libc::sigset_t, signal: *mut c_int) -> c_int { sigwait::sigwait(set, signal) }
        /// Blocks in the schedule.
        fn sigwaitinfo(set: *const libc::sigset_t, info: *mut libc::siginfo_t) -> c_int { sigwait::sigtimedwait(set, info, null()) }
        /// Until a virtual time.
        fn sigtimedwait(set: *const libc::sigset_t, info: *mut libc::siginfo_t, length: *const timespec) -> c_int { sigwait::sigtimedwait(set, info, length) }
    }
    file_locks {
        /// Waits in the schedule.
        fn flock(fd: c_int, operation: c_int) -> c_int { locks::flock(fd, operation) }
        /// As fcntl with F_SETLKW and F_SETLK.
        fn lockf(fd: c_int, command: c_int, length: off_t) -> c_int { locks::lockf(fd, command, length) }
        /// As lockf.
        fn lockf64(fd: c_int, command: c_int, length: off_t) -> c_int { locks::lockf(fd, command, length) }
    }
    system_v {
        /// Waits in the schedule.
        fn semop(id: c_int, operations: *mut libc::sembuf, count: size_t) -> c_int { sysv::semop(id, operations, count, null()) }
        /// Until a virtual time.
        fn semtimedop(id: c_int, operations: *mut libc::sembuf, count: size_t, length: *const timespec) -> c_int { sysv::semop(id, operations, count, length) }
        /// Times do not show.
        fn semctl(id: c_int, number: c_int, command: c_int, argument: c_ulong) -> c_int { sysv::semctl(id, number, command, argument) }
        /// Waits in the schedule.
        fn msgsnd(id: c_int, message: *const c_void, size: size_t, flags: c_int) -> c_int { sysv::msgsnd(id, message, size, flags) }
        /// Waits in the schedule.
        fn msgrcv(id: c_int, message: *mut c_void, size: size_t, kind: c_long, flags: c_int) -> ssize_t { sysv::msgrcv(id, message, size, kind, flags) }
        /// Times do not show.
        fn msgctl(id: c_int, command: c_int, argument: *mut libc::msqid_ds) -> c_int { sysv::msgctl(id, command, argument) }
        /// Times do not show.
        fn shmctl(id: c_int, command: c_int, argument: *mut libc::shmid_ds) -> c_int { sysv::shmctl(id, command, argument) }
    }
    linking {
        /// System calls by number, as the functions of the same name.
        fn syscall(number: c_long, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong, e: c_ulong, f: c_ulong) -> c_long {
            crate::numbers::syscall(number, [a, b, c, d, e, f])
        }
    }
}
