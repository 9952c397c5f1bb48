//! Timers in virtual time: as descriptors, and those that send signals.
//!
//! A timer that sends a signal is one of the virtual kernel's without a
//! descriptor. It expires with the others at the beginning of an epoch.

use crate::boundary::Effects;
use crate::fds::{install, virtual_of};
use crate::raw::{self, fail, sys};
use crate::signals::{self, Info};
use crate::turn::{self, Op, begin};
use crate::world::{vkernel, world};
use crate::{clock, process, threads};
use core::ffi::{c_int, c_uint, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, TimerSetting, wait_key};
use libc::{itimerspec, itimerval, sigevent, timespec, timeval};
use syscalls::Sysno;

/// timerfd_create(2).
pub(crate) fn timerfd_create(id: c_int, flags: c_int) -> c_int {
    let me = begin(Op::TimerFd);
    // SAFETY: plain timerfd_create(2).
    let fd = raw::ret(unsafe { sys!(Sysno::timerfd_create, id, flags) }) as c_int;
    if fd < 0 || me == 0 {
        return fd;
    }
    match vkernel().timerfd(id, (flags & libc::TFD_NONBLOCK) as u32) {
        Ok(desc) => install(me, fd, desc, flags & libc::TFD_CLOEXEC != 0),
        Err(e) => {
            crate::fds::close(fd);
            fail(e.0)
        }
    }
}

pub(crate) fn spec(setting: TimerSetting) -> libc::itimerspec {
    let time = |ns: u64| timespec {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_nsec: (ns % 1_000_000_000) as i64,
    };
    libc::itimerspec {
        it_interval: time(setting.interval),
        it_value: time(setting.value),
    }
}

/// Arms or disarms a timer; returns what it was set to. Flag 1 is
/// `TIMER_ABSTIME` and `TFD_TIMER_ABSTIME` alike.
pub(crate) unsafe fn set(
    desc: DescId,
    clock_id: c_int,
    flags: c_int,
    new: *const libc::itimerspec,
) -> Result<TimerSetting, c_int> {
    let absolute = flags & libc::TIMER_ABSTIME != 0;
    // SAFETY: the caller passes valid times.
    let setting = unsafe {
        let interval = clock::duration(&(*new).it_interval)?;
        let value = match clock::duration(&(*new).it_value)? {
            ns if ns > 0 && absolute => clock::deadline_from(clock_id, &(*new).it_value)?,
            ns => ns,
        };
        TimerSetting { value, interval }
    };
    let now = clock::now();
    vkernel()
        .timerfd_settime(&mut Effects, desc, now, absolute, setting)
        .map_err(|e| e.0)
}

/// timerfd_settime(2).
pub(crate) unsafe fn timerfd_settime(
    fd: c_int,
    flags: c_int,
    new: *const libc::itimerspec,
    old: *mut libc::itimerspec,
) -> c_int {
    let me = begin(Op::TimerFd);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::timerfd_settime, fd, flags, new, old) }) as c_int;
    };
    let clock_id = vkernel()
        .timerfd_clock(desc)
        .unwrap_or(libc::CLOCK_MONOTONIC);
    // SAFETY: same contract.
    let set = unsafe { set(desc, clock_id, flags, new) };
    match set {
        Ok(previous) => {
            if !old.is_null() {
                // SAFETY: same contract.
                unsafe { *old = spec(previous) };
            }
            0
        }
        Err(code) => fail(code),
    }
}

/// timerfd_gettime(2).
pub(crate) unsafe fn timerfd_gettime(fd: c_int, now: *mut libc::itimerspec) -> c_int {
    let me = begin(Op::TimerFd);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::timerfd_gettime, fd, now) }) as c_int;
    };
    match vkernel().timerfd_gettime(desc, clock::now()) {
        Ok(setting) => {
            // SAFETY: same contract.
            unsafe { *now = spec(setting) };
            0
        }
        Err(e) => fail(e.0),
    }
}

/// Most timers of the group that send signals.
const TIMERS: usize = 1024;
/// Kind of one that timer_create made; others are setitimer's `which`.
const POSIX: u32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
struct Timer {
    /// 0: a free entry.
    desc: u32,
    process: u32,
    kind: u32,
    clock: c_int,
    notify: c_int,
    signal: u32,
    /// The thread that takes the signal; 0: the process.
    target: Slot,
    overrun: u32,
    value: u64,
    /// What to call in a thread of its own.
    function: usize,
}

/// All of them. All-zero is empty.
#[repr(C)]
pub(crate) struct Table {
    used: u32,
    _pad: u32,
    timers: [Timer; TIMERS],
}

/// Sends the signals of timers that have expired.
pub(crate) fn fire() {
    if world().timers.used == 0 {
        return;
    }
    let now = clock::now();
    for at in 0..TIMERS {
        let timer = world().timers.timers[at];
        if timer.desc == 0 || timer.notify == libc::SIGEV_THREAD {
            continue;
        }
        let Ok(times) = vkernel().timerfd_read(DescId::from_raw(timer.desc), now) else {
            continue;
        };
        world().timers.timers[at].overrun = (times - 1).min(i32::MAX as u64) as u32;
        if timer.notify == libc::SIGEV_NONE {
            continue;
        }
        let info = if timer.kind == POSIX {
            Info {
                signal: timer.signal,
                code: libc::SI_TIMER,
                pid: at as u32,
                uid: world().timers.timers[at].overrun,
                value: timer.value,
            }
        } else {
            Info::of_kernel(timer.signal)
        };
        if timer.target == 0 {
            signals::post(timer.process, info);
        } else {
            signals::post_to_thread(timer.target, info);
        }
    }
}

fn make(new: Timer) -> Option<usize> {
    let desc = vkernel().timerfd(libc::CLOCK_MONOTONIC, 0).ok()?;
    let free = world().timers.timers.iter().position(|t| t.desc == 0);
    let Some(at) = free else {
        let _ = vkernel().desc_release(&mut Effects, desc);
        return None;
    };
    world().timers.timers[at] = Timer {
        desc: desc.raw(),
        ..new
    };
    world().timers.used += 1;
    Some(at)
}

fn remove(at: usize) {
    let desc = core::mem::take(&mut world().timers.timers[at].desc);
    world().timers.used -= 1;
    let _ = vkernel().desc_release(&mut Effects, DescId::from_raw(desc));
}

/// A process has ended, or (`exec`) has another image: interval timers outlive
/// that.
pub(crate) fn forget(process: u32, exec: bool) {
    if world().timers.used == 0 {
        return;
    }
    for at in 0..TIMERS {
        let timer = world().timers.timers[at];
        if timer.desc != 0 && timer.process == process && (!exec || timer.kind == POSIX) {
            remove(at);
        }
    }
}

/// The calling process's timer of a kind.
fn interval_timer(which: c_int) -> Option<usize> {
    let mine = process::current();
    world()
        .timers
        .timers
        .iter()
        .position(|t| t.desc != 0 && t.process == mine && t.kind == which as u32)
}

fn setting_now(at: usize) -> TimerSetting {
    let desc = DescId::from_raw(world().timers.timers[at].desc);
    let none = TimerSetting {
        value: 0,
        interval: 0,
    };
    vkernel()
        .timerfd_gettime(desc, clock::now())
        .unwrap_or(none)
}

fn signal_of(which: c_int) -> Result<u32, c_int> {
    match which {
        libc::ITIMER_REAL => Ok(libc::SIGALRM as u32),
        libc::ITIMER_VIRTUAL => Ok(libc::SIGVTALRM as u32),
        libc::ITIMER_PROF => Ok(libc::SIGPROF as u32),
        _ => Err(libc::EINVAL),
    }
}

/// Sets an interval timer of the calling process; returns what it was.
fn set_interval(which: c_int, setting: TimerSetting) -> Result<TimerSetting, c_int> {
    let signal = signal_of(which)?;
    let at = match interval_timer(which) {
        Some(at) => at,
        None if setting.value == 0 => {
            return Ok(TimerSetting {
                value: 0,
                interval: 0,
            });
        }
        None => make(Timer {
            desc: 0,
            process: process::current(),
            kind: which as u32,
            clock: libc::CLOCK_MONOTONIC,
            notify: libc::SIGEV_SIGNAL,
            signal,
            target: 0,
            overrun: 0,
            value: 0,
            function: 0,
        })
        .ok_or(libc::ENOMEM)?,
    };
    let desc = DescId::from_raw(world().timers.timers[at].desc);
    let now = clock::now();
    let old = vkernel()
        .timerfd_settime(&mut Effects, desc, now, false, setting)
        .map_err(|e| e.0)?;
    if setting.value == 0 {
        remove(at);
    }
    Ok(old)
}

unsafe fn put_itimerval(setting: TimerSetting, to: *mut itimerval) {
    let time = |ns: u64| timeval {
        tv_sec: (ns / 1_000_000_000) as i64,
        tv_usec: (ns % 1_000_000_000 / 1000) as i64,
    };
    if !to.is_null() {
        // SAFETY: the caller passes a valid place.
        unsafe {
            *to = itimerval {
                it_interval: time(setting.interval),
                it_value: time(setting.value),
            }
        };
    }
}

/// setitimer(2). CPU-time timers run in virtual time too: the CPU's is the
/// logical clock's.
pub(crate) unsafe fn setitimer(which: c_int, new: *const itimerval, old: *mut itimerval) -> c_int {
    begin(Op::TimerFd);
    let nanoseconds = |t: timeval| {
        let valid = t.tv_sec >= 0 && (0..1_000_000).contains(&t.tv_usec);
        let ns = (t.tv_sec as u64).saturating_mul(1_000_000_000);
        valid.then(|| ns.saturating_add(t.tv_usec as u64 * 1000))
    };
    let setting = if new.is_null() {
        // As Linux still takes it.
        Some((0, 0))
    } else {
        // SAFETY: the caller passes valid times.
        unsafe { nanoseconds((*new).it_value).zip(nanoseconds((*new).it_interval)) }
    };
    let Some((value, interval)) = setting else {
        return fail(libc::EINVAL);
    };
    match set_interval(which, TimerSetting { value, interval }) {
        Ok(was) => {
            // SAFETY: same contract.
            unsafe { put_itimerval(was, old) };
            0
        }
        Err(code) => fail(code),
    }
}

/// getitimer(2).
pub(crate) unsafe fn getitimer(which: c_int, now: *mut itimerval) -> c_int {
    begin(Op::TimerFd);
    if let Err(code) = signal_of(which) {
        return fail(code);
    }
    let setting = interval_timer(which).map_or(
        TimerSetting {
            value: 0,
            interval: 0,
        },
        setting_now,
    );
    // SAFETY: same contract.
    unsafe { put_itimerval(setting, now) };
    0
}

/// alarm(2): the seconds that were left, rounded as Linux does.
pub(crate) fn alarm(seconds: c_uint) -> c_uint {
    begin(Op::TimerFd);
    let setting = TimerSetting {
        value: u64::from(seconds) * 1_000_000_000,
        interval: 0,
    };
    let left = set_interval(libc::ITIMER_REAL, setting).map_or(0, |was| was.value);
    let (whole, part) = (left / 1_000_000_000, left % 1_000_000_000);
    let up = (whole == 0 && part > 0) || part >= 500_000_000;
    (whole + u64::from(up)) as c_uint
}

/// ualarm(3): the microseconds that were left.
pub(crate) fn ualarm(value: c_uint, interval: c_uint) -> c_uint {
    begin(Op::TimerFd);
    let setting = TimerSetting {
        value: u64::from(value) * 1000,
        interval: u64::from(interval) * 1000,
    };
    set_interval(libc::ITIMER_REAL, setting).map_or(0, |was| (was.value / 1000) as c_uint)
}

/// The timer of an id that the calling process was given.
fn owned(id: usize) -> Result<usize, c_int> {
    let timer = world().timers.timers.get(id);
    let owned =
        timer.is_some_and(|t| t.desc != 0 && t.kind == POSIX && t.process == process::current());
    if owned { Ok(id) } else { Err(libc::EINVAL) }
}

/// timer_create(2).
pub(crate) unsafe fn timer_create(
    clock_id: c_int,
    event: *const sigevent,
    timer: *mut libc::timer_t,
) -> c_int {
    begin(Op::TimerFd);
    if !(0..=libc::CLOCK_TAI).contains(&clock_id) && clock_id >= 0 {
        return fail(libc::EINVAL);
    }
    let mut new = Timer {
        desc: 0,
        process: process::current(),
        kind: POSIX,
        clock: clock_id,
        notify: libc::SIGEV_SIGNAL,
        signal: libc::SIGALRM as u32,
        target: 0,
        overrun: 0,
        value: 0,
        function: 0,
    };
    if !event.is_null() {
        // SAFETY: the caller passes an event; behind its three words lie the
        // thread's id, or the function and its thread's attributes.
        unsafe {
            let given = &*event;
            new.notify = given.sigev_notify;
            new.signal = given.sigev_signo as u32;
            new.value = given.sigev_value.sival_ptr as u64;
            match new.notify {
                libc::SIGEV_NONE => {}
                libc::SIGEV_SIGNAL if signals::valid(given.sigev_signo) => {}
                libc::SIGEV_THREAD_ID if signals::valid(given.sigev_signo) => {
                    match crate::priorities::by_tid(given.sigev_notify_thread_id) {
                        Some(slot) => new.target = slot,
                        None => return fail(libc::EINVAL),
                    }
                }
                libc::SIGEV_THREAD => {
                    new.function = event.cast::<usize>().add(2).read();
                }
                _ => return fail(libc::EINVAL),
            }
        }
    }
    let Some(at) = make(new) else {
        return fail(libc::EAGAIN);
    };
    if event.is_null() {
        world().timers.timers[at].value = at as u64;
    }
    if new.notify == libc::SIGEV_THREAD {
        let mut thread: libc::pthread_t = 0;
        // SAFETY: a start function that takes the timer's number.
        let code =
            unsafe { threads::create(&raw mut thread, core::ptr::null(), call, at as *mut c_void) };
        if code != 0 {
            remove(at);
            return fail(libc::EAGAIN);
        }
        threads::detach(thread);
    }
    // SAFETY: the caller passes a place for the id.
    unsafe { *timer = at as libc::timer_t };
    0
}

/// The thread of a timer that calls a function: once for each expiry that it
/// finds, one after another.
extern "C" fn call(argument: *mut c_void) -> *mut c_void {
    let at = argument as usize;
    let me = begin(Op::TimerFd);
    let Timer { desc, function, .. } = world().timers.timers[at];
    let id = DescId::from_raw(desc);
    if me == 0 || vkernel().desc_hold(id).is_err() {
        return core::ptr::null_mut();
    }
    loop {
        let timer = world().timers.timers[at];
        if timer.desc != desc {
            break;
        }
        match vkernel().timerfd_read(id, clock::now()) {
            Ok(times) => {
                world().timers.timers[at].overrun = (times - 1).min(i32::MAX as u64) as u32;
                // SAFETY: the program gave this function for this value.
                unsafe {
                    let function: extern "C" fn(u64) = core::mem::transmute(function);
                    function(timer.value);
                }
                begin(Op::TimerFd);
            }
            Err(_) => {
                turn::wait(me, wait_key(id, Dir::Read), None);
            }
        }
    }
    let _ = vkernel().desc_release(&mut Effects, id);
    core::ptr::null_mut()
}

/// timer_settime(2).
pub(crate) unsafe fn timer_settime(
    id: libc::timer_t,
    flags: c_int,
    new: *const itimerspec,
    old: *mut itimerspec,
) -> c_int {
    begin(Op::TimerFd);
    let done = owned(id as usize).and_then(|at| {
        let Timer { desc, clock, .. } = world().timers.timers[at];
        world().timers.timers[at].overrun = 0;
        // SAFETY: same contract.
        unsafe { set(DescId::from_raw(desc), clock, flags, new) }
    });
    match done {
        Ok(was) => {
            if !old.is_null() {
                // SAFETY: same contract.
                unsafe { *old = spec(was) };
            }
            0
        }
        Err(code) => fail(code),
    }
}

/// timer_gettime(2).
pub(crate) unsafe fn timer_gettime(id: libc::timer_t, now: *mut itimerspec) -> c_int {
    begin(Op::TimerFd);
    match owned(id as usize) {
        Ok(at) => {
            // SAFETY: the caller passes a place.
            unsafe { *now = spec(setting_now(at)) };
            0
        }
        Err(code) => fail(code),
    }
}

/// timer_getoverrun(2).
pub(crate) fn timer_getoverrun(id: libc::timer_t) -> c_int {
    begin(Op::TimerFd);
    match owned(id as usize) {
        Ok(at) => world().timers.timers[at].overrun as c_int,
        Err(code) => fail(code),
    }
}

/// timer_delete(2).
pub(crate) fn timer_delete(id: libc::timer_t) -> c_int {
    begin(Op::TimerFd);
    match owned(id as usize) {
        Ok(at) => {
            let desc = DescId::from_raw(world().timers.timers[at].desc);
            turn::wake_all(wait_key(desc, Dir::Read));
            remove(at);
            0
        }
        Err(code) => fail(code),
    }
}
