//! Descriptors: which are virtual, and the calls that work on any.
//!
//! A virtual object's number belongs to a real descriptor of the same kind, its
//! placeholder, so that numbering, inheritance, `fstat` and options need no
//! work of ours. Nothing ever passes through a placeholder.

use crate::boundary::Effects;
use crate::raw::{self, fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::{vkernel, world};
use crate::{files, holds, locks, signals, stdio, tls};
use core::ffi::{c_int, c_uint};
use crane_scheduler::{Slot, Wake};
use crane_vkernel::{DescId, Dir, Errno, wait_key};
use libc::ssize_t;
use syscalls::Sysno;

/// The virtual object behind `fd` in the calling process.
#[inline]
pub(crate) fn virtual_of(me: Slot, fd: c_int) -> Option<DescId> {
    if me == 0 {
        return None;
    }
    vkernel().fd_get(world().threads[me as usize].process, fd)
}

/// Whether the description is in non-blocking mode.
pub(crate) fn nonblocking(desc: DescId) -> bool {
    vkernel()
        .flags(desc)
        .is_ok_and(|f| f & libc::O_NONBLOCK as u32 != 0)
}

/// Tries until it works: a blocking operation on `desc`. `deadline` is virtual.
pub(crate) fn blocking<T>(
    me: Slot,
    desc: DescId,
    dir: Dir,
    nonblocking: bool,
    deadline: Option<u64>,
    mut attempt: impl FnMut() -> Result<T, Errno>,
) -> Result<T, c_int> {
    match attempt() {
        Err(Errno::AGAIN) if !nonblocking => {}
        other => return other.map_err(|e| e.0),
    }
    // Another thread may close the descriptor meanwhile; the object stays.
    holds::keep(me, desc)?;
    let result = loop {
        let why = turn::wait(me, wait_key(desc, dir), deadline);
        // A wake-up by key is an event that was handed to us alone: try first.
        match (attempt(), why) {
            (Err(Errno::AGAIN), Wake::Woken) => {}
            (Err(Errno::AGAIN), Wake::TimedOut) => break Err(libc::EAGAIN),
            (Err(Errno::AGAIN), Wake::Interrupted) => {
                // Calls with a time limit are never restarted, see signal(7).
                if deadline.is_some() || !signals::restarts() {
                    break Err(libc::EINTR);
                }
            }
            (other, _) => break other.map_err(|e| e.0),
        }
    };
    holds::give_up(desc);
    result
}

/// The C convention for sizes.
pub(crate) fn size(result: Result<usize, c_int>) -> ssize_t {
    match result {
        Ok(n) => n as ssize_t,
        Err(code) => fail(code) as ssize_t,
    }
}

/// The C convention for plain success.
pub(crate) fn done(result: Result<(), c_int>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(code) => fail(code),
    }
}

/// Gives `desc` the number of a fresh placeholder.
pub(crate) fn install(me: Slot, fd: c_int, desc: DescId, cloexec: bool) -> c_int {
    let process = world().threads[me as usize].process;
    files::forget(fd);
    match vkernel().fd_install(&mut Effects, process, fd, desc, cloexec) {
        Ok(()) => {
            stdio::look_at(fd);
            fd
        }
        Err(e) => {
            let _ = vkernel().desc_release(&mut Effects, desc);
            close_real(fd);
            fail(e.0)
        }
    }
}

pub(crate) fn close_real(fd: c_int) -> c_int {
    files::forget(fd);
    // SAFETY: plain close(2).
    raw::ret(unsafe { sys!(Sysno::close, fd) }) as c_int
}

/// Forgets a virtual object whose placeholder is closed already.
pub(crate) fn drop_virtual(fd: c_int) {
    if virtual_of(tls::slot(), fd).is_some() {
        let _ = vkernel().fd_close(&mut Effects, crate::process::current(), fd);
    }
}

/// close(2).
pub(crate) fn close(fd: c_int) -> c_int {
    let me = begin(Op::Close);
    if virtual_of(me, fd).is_some() {
        let _ = vkernel().fd_close(&mut Effects, crate::process::current(), fd);
    }
    let code = close_real(fd);
    locks::others_go_on();
    code
}

/// close_range(2).
pub(crate) fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let me = begin(Op::Close);
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0 && me != 0 {
        let process = crate::process::current();
        let mut from = first.min(i32::MAX as u32) as c_int;
        while let Some(fd) = vkernel().fd_next(process, from) {
            if fd as c_uint > last {
                break;
            }
            let _ = vkernel().fd_close(&mut Effects, process, fd);
            files::forget(fd);
            from = fd + 1;
        }
    }
    // SAFETY: plain close_range(2).
    let code = raw::ret(unsafe { sys!(Sysno::close_range, first, last, flags) }) as c_int;
    locks::others_go_on();
    code
}

/// dup(2).
pub(crate) fn dup(fd: c_int) -> c_int {
    let me = begin(Op::Dup);
    // SAFETY: plain dup(2).
    let new = raw::ret(unsafe { sys!(Sysno::dup, fd) }) as c_int;
    duplicated(me, fd, new, false)
}

/// dup2(2) and dup3(2); `same_ok`: equal numbers are a no-op, as for dup2.
pub(crate) fn dup3(old: c_int, new: c_int, flags: c_int, same_ok: bool) -> c_int {
    let me = begin(Op::Dup);
    if old == new && same_ok {
        // SAFETY: plain fcntl(2), to find out whether the descriptor is open.
        let code = raw::ret(unsafe { sys!(Sysno::fcntl, old, libc::F_GETFD) });
        return if code < 0 { -1 } else { new };
    }
    let replaced = virtual_of(me, new).is_some();
    // SAFETY: plain dup3(2).
    let code = raw::ret(unsafe { sys!(Sysno::dup3, old, new, flags) }) as c_int;
    if code >= 0 && replaced && virtual_of(me, old).is_none() {
        let _ = vkernel().fd_close(&mut Effects, crate::process::current(), new);
    }
    duplicated(me, old, code, flags & libc::O_CLOEXEC != 0)
}

pub(crate) fn duplicated(me: Slot, old: c_int, new: c_int, cloexec: bool) -> c_int {
    if new >= 0 && me != 0 {
        files::duplicate(old, new);
        if virtual_of(me, old).is_some() {
            let process = crate::process::current();
            let _ = vkernel().fd_dup(&mut Effects, process, old, new, cloexec);
            stdio::look_at(new);
        }
    }
    new
}

/// Installs the two ends of a pair over two fresh placeholders.
pub(crate) unsafe fn install_pair(
    me: Slot,
    ends: *mut c_int,
    placeholders: [c_int; 2],
    descs: (DescId, DescId),
    cloexec: bool,
) -> c_int {
    for (fd, desc) in placeholders.into_iter().zip([descs.0, descs.1]) {
        if install(me, fd, desc, cloexec) < 0 {
            return -1;
        }
    }
    // SAFETY: the caller passes room for two descriptors.
    unsafe { ends.cast::<[c_int; 2]>().write_unaligned(placeholders) };
    0
}

/// pipe2(2).
pub(crate) unsafe fn pipe(ends: *mut c_int, flags: c_int) -> c_int {
    let me = begin(Op::Pipe);
    let mut real = [0; 2];
    // SAFETY: `real` has room for two descriptors.
    let code = raw::ret(unsafe { sys!(Sysno::pipe2, real.as_mut_ptr(), flags) }) as c_int;
    if code < 0 || me == 0 {
        // SAFETY: the caller passes room for two descriptors.
        unsafe { ends.cast::<[c_int; 2]>().write_unaligned(real) };
        return code;
    }
    match vkernel().pipe((flags & !libc::O_CLOEXEC) as u32) {
        // SAFETY: same contract.
        Ok(pair) => unsafe { install_pair(me, ends, real, pair, flags & libc::O_CLOEXEC != 0) },
        Err(e) => {
            real.into_iter().for_each(|fd| _ = close_real(fd));
            fail(e.0)
        }
    }
}

/// eventfd(2).
pub(crate) fn eventfd(value: c_uint, flags: c_int) -> c_int {
    let me = begin(Op::EventFd);
    // SAFETY: plain eventfd2(2).
    let fd = raw::ret(unsafe { sys!(Sysno::eventfd2, value, flags) }) as c_int;
    if fd < 0 || me == 0 {
        return fd;
    }
    let semaphore = flags & libc::EFD_SEMAPHORE != 0;
    match vkernel().eventfd(value, semaphore, (flags & libc::O_NONBLOCK) as u32) {
        Ok(desc) => install(me, fd, desc, flags & libc::O_CLOEXEC != 0),
        Err(e) => {
            close_real(fd);
            fail(e.0)
        }
    }
}
