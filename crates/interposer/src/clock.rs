//! Virtual time: clocks, sleeps and deadlines.
//!
//! Time is the epoch's, agreed in the log, plus a fixed step for each
//! operation. Reading a clock is an operation too, so that a loop that waits
//! for the clock to move ends.

use crate::raw::{self, fail};
use crate::turn::{self, Op, begin};
use crate::world::world;
use core::ffi::{c_int, c_long, c_uint};
use crane_scheduler::{STEP_NS, Wake};

const SECOND: u64 = 1_000_000_000;

/// What monotonic clocks show when the first epoch begins: an uptime that is
/// neither zero nor anybody's.
const MONOTONIC_START: u64 = 1000 * SECOND;

/// CPU-time clocks, as clock_getcpuclockid(3) and pthread_getcpuclockid(3)
/// encode them: negative.
fn reading(clock_id: c_int) -> Option<u64> {
    let w = world();
    let now = w.scheduler.now();
    Some(match clock_id {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI => now,
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME
        | libc::CLOCK_BOOTTIME_ALARM
        | libc::CLOCK_REALTIME_ALARM => now - w.start + MONOTONIC_START,
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => cpu_time(),
        id if id < 0 => cpu_time(),
        _ => return None,
    })
}

/// CPU time is the logical clock's: the same on every replica.
fn cpu_time() -> u64 {
    world().scheduler.clock() * STEP_NS
}

fn split(ns: u64) -> (i64, i64) {
    ((ns / SECOND) as i64, (ns % SECOND) as i64)
}

unsafe fn put_timespec(at: *mut libc::timespec, ns: u64) {
    let (tv_sec, tv_nsec) = split(ns);
    // SAFETY: the caller passes a valid place.
    unsafe { *at = libc::timespec { tv_sec, tv_nsec } };
}

unsafe fn put_timeval(at: *mut libc::timeval, ns: u64) {
    let (tv_sec, nsec) = split(ns);
    // SAFETY: the caller passes a valid place.
    unsafe {
        *at = libc::timeval {
            tv_sec,
            tv_usec: nsec / 1000,
        }
    };
}

/// Nanoseconds of a timespec, or EINVAL.
pub(crate) unsafe fn duration(t: *const libc::timespec) -> Result<u64, c_int> {
    // SAFETY: the caller passes a valid time.
    let t = unsafe { *t };
    if t.tv_sec < 0 || !(0..SECOND as i64).contains(&t.tv_nsec) {
        return Err(libc::EINVAL);
    }
    Ok((t.tv_sec as u64)
        .saturating_mul(SECOND)
        .saturating_add(t.tv_nsec as u64))
}

/// The virtual time of an absolute time on a clock; EINVAL for a bad one.
pub(crate) unsafe fn deadline_from(
    clock_id: c_int,
    at: *const libc::timespec,
) -> Result<u64, c_int> {
    // SAFETY: same contract.
    let nsec = unsafe { (*at).tv_nsec };
    if !(0..SECOND as i64).contains(&nsec) {
        return Err(libc::EINVAL);
    }
    // SAFETY: as above. A time before 1970 has passed.
    let ns = unsafe { duration(at) }.unwrap_or(0);
    Ok(match clock_id {
        libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => ns
            .saturating_add(world().start)
            .saturating_sub(MONOTONIC_START),
        libc::CLOCK_REALTIME | libc::CLOCK_TAI => ns,
        _ => return Err(libc::EINVAL),
    })
}

/// The virtual time `ns` from now.
pub(crate) fn after(ns: u64) -> u64 {
    world().scheduler.now().saturating_add(ns)
}

/// The deadline of a time-out in milliseconds as poll(2) takes it; `None`
/// when negative: no limit.
pub(crate) fn deadline_ms(ms: c_int) -> Option<u64> {
    (ms >= 0).then(|| after(ms as u64 * 1_000_000))
}

/// What monotonic clocks show, without an operation.
pub(crate) fn uptime() -> u64 {
    now() - world().start + MONOTONIC_START
}

/// Virtual time now, nanoseconds since the Unix epoch, without an operation.
pub(crate) fn now() -> u64 {
    world().scheduler.now()
}

pub(crate) unsafe fn clock_gettime(clock_id: c_int, at: *mut libc::timespec) -> c_int {
    begin(Op::Clock);
    match reading(clock_id) {
        Some(ns) => {
            // SAFETY: same contract.
            unsafe { put_timespec(at, ns) };
            0
        }
        None => fail(libc::EINVAL),
    }
}

pub(crate) unsafe fn gettimeofday(at: *mut libc::timeval, zone: *mut libc::timezone) -> c_int {
    begin(Op::Clock);
    // SAFETY: same contract; either may be null.
    unsafe {
        if !at.is_null() {
            put_timeval(at, now());
        }
        if !zone.is_null() {
            core::ptr::write_bytes(zone.cast::<u8>(), 0, 8);
        }
    }
    0
}

pub(crate) unsafe fn time(at: *mut libc::time_t) -> libc::time_t {
    begin(Op::Clock);
    let seconds = (now() / SECOND) as libc::time_t;
    if !at.is_null() {
        // SAFETY: same contract.
        unsafe { *at = seconds };
    }
    seconds
}

pub(crate) unsafe fn timespec_get(at: *mut libc::timespec, base: c_int) -> c_int {
    if base != 1 {
        return 0;
    }
    begin(Op::Clock);
    // SAFETY: same contract.
    unsafe { put_timespec(at, now()) };
    base
}

pub(crate) fn clock() -> c_long {
    begin(Op::Clock);
    (cpu_time() / 1000) as c_long
}

pub(crate) unsafe fn times(at: *mut libc::tms) -> libc::clock_t {
    begin(Op::Clock);
    let ticks = (cpu_time() / 10_000_000) as libc::clock_t;
    if !at.is_null() {
        // SAFETY: same contract.
        unsafe {
            *at = libc::tms {
                tms_utime: ticks,
                tms_stime: 0,
                tms_cutime: 0,
                tms_cstime: 0,
            }
        };
    }
    ((now() - world().start + MONOTONIC_START) / 10_000_000) as libc::clock_t
}

pub(crate) unsafe fn getrusage(_who: c_int, at: *mut libc::rusage) -> c_int {
    begin(Op::Clock);
    // SAFETY: same contract; all-zero is a valid rusage.
    unsafe {
        core::ptr::write_bytes(at, 0, 1);
        put_timeval(&mut (*at).ru_utime, cpu_time());
    }
    0
}

/// Sleeps until virtual time `deadline`; returns the rest when a signal came.
fn sleep_until(deadline: u64) -> Result<(), u64> {
    let me = begin(Op::Sleep);
    loop {
        match turn::wait(me, 0, Some(deadline)) {
            Wake::Interrupted => return Err(deadline.saturating_sub(now())),
            Wake::TimedOut => return Ok(()),
            // For a signal that somebody else has taken.
            Wake::Woken => {}
        }
    }
}

pub(crate) unsafe fn nanosleep(
    length: *const libc::timespec,
    rest: *mut libc::timespec,
) -> Result<(), c_int> {
    // SAFETY: same contract.
    let ns = unsafe { duration(length) }?;
    sleep_until(after(ns)).map_err(|left| {
        if !rest.is_null() {
            // SAFETY: same contract.
            unsafe { put_timespec(rest, left) };
        }
        libc::EINTR
    })
}

pub(crate) unsafe fn clock_nanosleep(
    clock_id: c_int,
    flags: c_int,
    at: *const libc::timespec,
    rest: *mut libc::timespec,
) -> c_int {
    let result = if flags & libc::TIMER_ABSTIME != 0 {
        // SAFETY: same contract.
        unsafe { deadline_from(clock_id, at) }
            .and_then(|deadline| sleep_until(deadline).map_err(|_| libc::EINTR))
    } else {
        // SAFETY: same contract.
        unsafe { nanosleep(at, rest) }
    };
    result.err().unwrap_or(0)
}

pub(crate) fn usleep(us: c_uint) -> c_int {
    match sleep_until(after(u64::from(us) * 1000)) {
        Ok(()) => 0,
        Err(_) => fail(libc::EINTR),
    }
}

pub(crate) fn sleep(seconds: c_uint) -> c_uint {
    match sleep_until(after(u64::from(seconds) * SECOND)) {
        Ok(()) => 0,
        Err(left) => (left / SECOND) as c_uint,
    }
}

/// nanosleep(2) in the C convention.
pub(crate) fn errno_result(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => raw::fail(code),
    }
}

/// struct ntptimeval of ntp_gettime(3).
#[repr(C)]
pub struct NtpTime {
    time: libc::timeval,
    max_error: i64,
    estimated_error: i64,
    tai: i64,
    reserved: [i64; 4],
}

/// ntp_gettime(3): the answer of a kernel whose clock nobody disciplines.
pub(crate) unsafe fn ntp_gettime(at: *mut NtpTime) -> c_int {
    const UNKNOWN: i64 = 16_000_000;
    begin(Op::Clock);
    // SAFETY: the caller passes room for one.
    unsafe {
        put_timeval(&raw mut (*at).time, now());
        ((*at).max_error, (*at).estimated_error, (*at).tai) = (UNKNOWN, UNKNOWN, 0);
    }
    libc::TIME_ERROR
}
