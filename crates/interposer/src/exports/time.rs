//! Clocks and timers, randomness, and waiting for readiness.

use crate::raw::fail;
use crate::{clock, inotify, machine, polling, random, signalfd, timers, transfer};
use core::ffi::{c_int, c_long, c_uint};
use core::ptr::null;
use libc::{size_t, ssize_t, timespec};

interposed! {
    time {
        /// The log's time.
        fn clock_gettime(id: c_int, at: *mut timespec) -> c_int { clock::clock_gettime(id, at) }
        /// The log's time.
        fn gettimeofday(at: *mut libc::timeval, zone: *mut libc::timezone) -> c_int { clock::gettimeofday(at, zone) }
        /// As gettimeofday.
        fn __gettimeofday(at: *mut libc::timeval, zone: *mut libc::timezone) -> c_int { clock::gettimeofday(at, zone) }
        /// Virtual, and never synchronised.
        fn ntp_gettime(at: *mut clock::NtpTime) -> c_int { clock::ntp_gettime(at) }
        /// As ntp_gettime.
        fn ntp_gettimex(at: *mut clock::NtpTime) -> c_int { clock::ntp_gettime(at) }
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
        /// As nanosleep.
        fn __nanosleep(length: *const timespec, rest: *mut timespec) -> c_int { clock::errno_result(clock::nanosleep(length, rest)) }
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
    polling {
        /// Tells what the program itself changes.
        fn inotify_init() -> c_int { inotify::init(0) }
        /// As inotify_init.
        fn inotify_init1(flags: c_int) -> c_int { inotify::init(flags) }
        /// Readiness of virtual objects; real files are always ready.
        fn poll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll.
        fn __poll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll.
        fn __poll_chk(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int, _room: size_t) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll, with a signal mask.
        fn ppoll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::ppoll(set, count, timeout, mask) }
        /// As poll.
        fn select(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int { polling::select(count, r, w, e, timeout) }
        /// As select.
        fn __select(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int { polling::select(count, r, w, e, timeout) }
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
}
