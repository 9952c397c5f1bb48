//! Clocks and timers, and randomness.

use crate::raw::fail;
use crate::{clock, machine, random};
use core::ffi::{c_int, c_long, c_uint};
use libc::{size_t, ssize_t, timespec};

#[inline(always)]
fn leave() {}

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
}
