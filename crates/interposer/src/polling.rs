//! Waiting for readiness: poll, select, epoll, and timers as descriptors.

use crate::boundary::Effects;
use crate::fds::{done, install, virtual_of};
use crate::raw::{self, fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::vkernel;
use crate::{clock, inotify, signals, tls};
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};
use crane_vkernel::{DescId, Dir, EpollEvent, Errno, wait_key};
use libc::{POLLERR, POLLHUP, POLLNVAL, fd_set, nfds_t, pollfd, sigset_t, timespec, timeval};
use syscalls::Sysno;

/// Events that are reported whether asked for or not.
const ALWAYS: u32 = (POLLERR | POLLHUP) as u32;

/// What a descriptor is ready for among `wanted`. A real one is asked of the
/// kernel without waiting: files are always ready, and nothing else that is
/// real should be polled.
fn ready(me: Slot, fd: c_int, wanted: u32) -> u32 {
    if let Some(desc) = virtual_of(me, fd) {
        let now = vkernel().readiness(desc).unwrap_or(POLLERR as u32);
        return now & (wanted | ALWAYS);
    }
    let mut one = pollfd {
        fd,
        events: wanted as i16,
        revents: 0,
    };
    // SAFETY: polls one descriptor without waiting.
    let code = unsafe { sys!(Sysno::poll, &raw mut one, 1, 0) };
    if code == 1 {
        one.revents as u16 as u32
    } else {
        0
    }
}

/// Waits until something registered for this thread may have become ready.
/// Returns false when the wait is over (time or signal).
fn sleep(me: Slot, deadline: Option<u64>) -> Result<(), Wake> {
    let why = turn::wait(me, 0, deadline);
    vkernel().poll_unregister_all(tls::slot());
    if why == Wake::Woken { Ok(()) } else { Err(why) }
}

/// poll(2) until a virtual deadline.
pub(crate) unsafe fn poll(set: *mut pollfd, count: nfds_t, deadline: Option<u64>) -> c_int {
    let me = begin(Op::Poll);
    if me == 0 {
        // SAFETY: same contract; a thread out of the schedule must not wait.
        return raw::ret(unsafe { sys!(Sysno::poll, set, count, 0) }) as c_int;
    }
    let set: &mut [pollfd] = if count == 0 {
        &mut []
    } else {
        // SAFETY: the caller passes `count` entries.
        unsafe { core::slice::from_raw_parts_mut(set, count as usize) }
    };
    let mut over = false;
    loop {
        inotify::look(me);
        let mut found = 0;
        for entry in set.iter_mut() {
            entry.revents = 0;
            if entry.fd >= 0 {
                entry.revents = ready(me, entry.fd, u32::from(entry.events as u16)) as i16;
                found += c_int::from(entry.revents != 0);
            }
        }
        if found > 0 || over || deadline.is_some_and(|d| d <= clock::now()) {
            return found;
        }
        for entry in set.iter().filter(|e| e.fd >= 0) {
            if let Some(desc) = virtual_of(me, entry.fd) {
                let _ = vkernel().poll_register(me, desc, u32::from(entry.events as u16));
            }
        }
        match sleep(me, deadline) {
            Ok(()) => {}
            Err(Wake::Interrupted) => return fail(libc::EINTR),
            Err(_) => over = true,
        }
    }
}

unsafe fn deadline(timeout: *const timespec) -> Result<Option<u64>, c_int> {
    if timeout.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller passes a valid time.
    unsafe { clock::duration(timeout) }.map(|ns| Some(clock::after(ns)))
}

/// ppoll(2).
pub(crate) unsafe fn ppoll(
    set: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: same contract.
    unsafe {
        match deadline(timeout) {
            Ok(deadline) => signals::with_mask(mask, || poll(set, count, deadline)),
            Err(code) => fail(code),
        }
    }
}

/// One of select's sets as words of 64 descriptors.
unsafe fn word<'a>(set: *mut fd_set, fd: usize) -> Option<&'a mut u64> {
    if set.is_null() {
        return None;
    }
    // SAFETY: the caller's sets hold all descriptors below select's count.
    Some(unsafe { &mut *set.cast::<u64>().add(fd / 64) })
}

unsafe fn select_until(count: c_int, sets: [*mut fd_set; 3], deadline: Option<u64>) -> c_int {
    const READ: u32 = (libc::POLLIN | libc::POLLRDNORM | libc::POLLHUP | libc::POLLERR) as u32;
    const WRITE: u32 = (libc::POLLOUT | libc::POLLWRNORM | libc::POLLERR) as u32;
    const EXCEPT: u32 = libc::POLLPRI as u32;
    let wants = [READ, WRITE, EXCEPT];
    let me = begin(Op::Select);
    let mut over = me == 0;
    loop {
        inotify::look(me);
        let mut found = 0;
        // First look only, as the sets are input until something is found.
        for storing in [false, true] {
            if storing && found == 0 && !over && deadline.is_none_or(|d| d > clock::now()) {
                break;
            }
            found = 0;
            for fd in 0..count.max(0) as usize {
                let bit = 1u64 << (fd % 64);
                for (set, want) in sets.iter().zip(wants) {
                    // SAFETY: same contract.
                    let Some(word) = (unsafe { word(*set, fd) }) else {
                        continue;
                    };
                    if *word & bit == 0 {
                        continue;
                    }
                    let now = ready(me, fd as c_int, want);
                    if now & POLLNVAL as u32 != 0 {
                        return fail(libc::EBADF);
                    }
                    if now & want != 0 {
                        found += 1;
                    } else if storing {
                        *word &= !bit;
                    }
                }
            }
            if storing {
                return found;
            }
        }
        for fd in 0..count.max(0) as usize {
            for (set, want) in sets.iter().zip(wants) {
                // SAFETY: same contract.
                let asked = unsafe { word(*set, fd) }.is_some_and(|w| *w >> (fd % 64) & 1 != 0);
                if let Some(desc) = virtual_of(me, fd as c_int).filter(|_| asked) {
                    let _ = vkernel().poll_register(me, desc, want);
                }
            }
        }
        match sleep(me, deadline) {
            Ok(()) => {}
            Err(Wake::Interrupted) => return fail(libc::EINTR),
            Err(_) => over = true,
        }
    }
}

/// select(2); the rest of the time is stored, as on Linux.
pub(crate) unsafe fn select(
    count: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let mut deadline = None;
    if !timeout.is_null() {
        // SAFETY: same contract.
        let t = unsafe { *timeout };
        if t.tv_sec < 0 || t.tv_usec < 0 {
            return fail(libc::EINVAL);
        }
        let ns = (t.tv_sec as u64)
            .saturating_mul(1_000_000_000)
            .saturating_add(t.tv_usec as u64 * 1000);
        deadline = Some(clock::after(ns));
    }
    // SAFETY: same contract.
    let found = unsafe { select_until(count, [r, w, e], deadline) };
    if let Some(deadline) = deadline {
        let left = deadline.saturating_sub(clock::now());
        // SAFETY: same contract.
        unsafe {
            *timeout = timeval {
                tv_sec: (left / 1_000_000_000) as i64,
                tv_usec: (left % 1_000_000_000 / 1000) as i64,
            }
        };
    }
    found
}

/// pselect(2).
pub(crate) unsafe fn pselect(
    count: c_int,
    r: *mut fd_set,
    w: *mut fd_set,
    e: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: same contract.
    unsafe {
        match deadline(timeout) {
            Ok(deadline) => signals::with_mask(mask, || select_until(count, [r, w, e], deadline)),
            Err(code) => fail(code),
        }
    }
}

pub(crate) fn epoll_create(size: c_int) -> c_int {
    if size <= 0 {
        fail(libc::EINVAL)
    } else {
        epoll_create1(0)
    }
}

/// epoll_create1(2).
pub(crate) fn epoll_create1(flags: c_int) -> c_int {
    let me = begin(Op::EpollCreate);
    // SAFETY: plain epoll_create1(2).
    let fd = raw::ret(unsafe { sys!(Sysno::epoll_create1, flags) }) as c_int;
    if fd < 0 || me == 0 {
        return fd;
    }
    match vkernel().epoll_create() {
        Ok(desc) => install(me, fd, desc, flags & libc::EPOLL_CLOEXEC != 0),
        Err(e) => {
            crate::fds::close(fd);
            fail(e.0)
        }
    }
}

/// epoll_ctl(2).
pub(crate) unsafe fn epoll_ctl(
    ep: c_int,
    op: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    let me = begin(Op::EpollControl);
    let native = || {
        // SAFETY: same contract.
        raw::ret(unsafe { sys!(Sysno::epoll_ctl, ep, op, fd, event) }) as c_int
    };
    let Some(epoll) = virtual_of(me, ep) else {
        return native();
    };
    let Some(target) = virtual_of(me, fd) else {
        // The placeholder answers as Linux does: EBADF, or EPERM for a file.
        // What it accepts is real and has no readiness that could be agreed.
        let code = native();
        return if code < 0 { code } else { fail(libc::EPERM) };
    };
    let wanted = if op == libc::EPOLL_CTL_DEL {
        EpollEvent { events: 0, data: 0 }
    } else if event.is_null() {
        return fail(libc::EFAULT);
    } else {
        // SAFETY: the caller passes an event; the struct is packed.
        let event = unsafe { event.read_unaligned() };
        EpollEvent {
            events: event.events,
            data: event.u64,
        }
    };
    done(
        vkernel()
            .epoll_ctl(&mut Effects, epoll, op, fd, target, wanted)
            .map_err(|e| e.0),
    )
}

fn collect(epoll: DescId, out: &mut [EpollEvent]) -> Result<usize, Errno> {
    vkernel().epoll_collect(&mut Effects, epoll, out)
}

/// epoll_wait(2), epoll_pwait(2).
pub(crate) unsafe fn epoll_wait(
    ep: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    let me = begin(Op::EpollWait);
    let Some(epoll) = virtual_of(me, ep) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::epoll_pwait, ep, events, max, 0, mask, 8) }) as c_int;
    };
    if max <= 0 {
        return fail(libc::EINVAL);
    }
    let deadline = clock::deadline_ms(timeout);
    // SAFETY: same contract.
    unsafe {
        signals::with_mask(mask, || {
            epoll_until(me, epoll, events, max as usize, deadline)
        })
    }
}

/// epoll_pwait2(2).
pub(crate) unsafe fn epoll_pwait2(
    ep: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let me = begin(Op::EpollWait);
    let Some(epoll) = virtual_of(me, ep) else {
        // SAFETY: same contract; nobody may wait in the kernel.
        return raw::ret(unsafe { sys!(Sysno::epoll_pwait, ep, events, max, 0, mask, 8) }) as c_int;
    };
    if max <= 0 {
        return fail(libc::EINVAL);
    }
    // SAFETY: same contract.
    unsafe {
        match deadline(timeout) {
            Ok(deadline) => signals::with_mask(mask, || {
                epoll_until(me, epoll, events, max as usize, deadline)
            }),
            Err(code) => fail(code),
        }
    }
}

unsafe fn epoll_until(
    me: Slot,
    epoll: DescId,
    events: *mut libc::epoll_event,
    max: usize,
    deadline: Option<u64>,
) -> c_int {
    let mut buffer = [EpollEvent { events: 0, data: 0 }; 64];
    let mut over = false;
    loop {
        inotify::look(me);
        let mut stored = 0;
        while stored < max {
            let room = buffer.len().min(max - stored);
            let got = match collect(epoll, &mut buffer[..room]) {
                Ok(got) => got,
                Err(e) => return fail(e.0),
            };
            for (i, event) in buffer[..got].iter().enumerate() {
                let event = libc::epoll_event {
                    events: event.events,
                    u64: event.data,
                };
                // SAFETY: the caller passes room for `max` events.
                unsafe { events.add(stored + i).write_unaligned(event) };
            }
            stored += got;
            // A level-triggered source is found again at once: a caller with a
            // large array gets each only once.
            if got < room || stored >= buffer.len() {
                break;
            }
        }
        if stored > 0 || over || deadline.is_some_and(|d| d <= clock::now()) {
            return stored as c_int;
        }
        match turn::wait(me, wait_key(epoll, Dir::Read), deadline) {
            Wake::Woken => {}
            Wake::TimedOut => over = true,
            Wake::Interrupted => return fail(libc::EINTR),
        }
    }
}
