//! fcntl(2) and ioctl(2) on virtual descriptors.

use crate::boundary::Effects;
use crate::fds::{done, duplicated, virtual_of};
use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use crate::{inotify, interfaces};
use core::ffi::{c_int, c_ulong};
use crane_vkernel::DescId;
use syscalls::Sysno;

/// fcntl(2) command, Linux only.
const F_SETSIG: c_int = 10;

/// fcntl(2).
pub(crate) fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int {
    let me = begin(Op::Control);
    let native = || {
        // SAFETY: the caller's contract for this command.
        raw::ret(unsafe { sys!(Sysno::fcntl, fd, command, argument) }) as c_int
    };
    if command == libc::F_DUPFD || command == libc::F_DUPFD_CLOEXEC {
        return duplicated(me, fd, native(), command == libc::F_DUPFD_CLOEXEC);
    }
    if let Some(done) = crate::locks::control(me, fd, command, argument) {
        return done;
    }
    let Some(desc) = virtual_of(me, fd) else {
        return native();
    };
    match command {
        libc::F_SETFD => {
            let process = crate::process::current();
            let cloexec = argument as c_int & libc::FD_CLOEXEC != 0;
            let _ = vkernel().fd_set_cloexec(process, fd, cloexec);
            native()
        }
        libc::F_GETFL => {
            let real = native();
            let kept = libc::O_NONBLOCK | libc::O_ASYNC;
            let flags = vkernel().flags(desc).unwrap_or(0) as c_int;
            if real < 0 {
                real
            } else {
                (real & !kept) | (flags & kept)
            }
        }
        libc::F_SETFL => done(vkernel().set_flags(desc, argument as u32).map_err(|e| e.0)),
        libc::F_GETPIPE_SZ => match vkernel().pipe_capacity(desc) {
            Ok(n) => n as c_int,
            Err(e) => fail(e.0),
        },
        libc::F_SETPIPE_SZ => {
            match vkernel().pipe_set_capacity(&mut Effects, desc, argument as c_int as usize) {
                Ok(n) => n as c_int,
                Err(e) => fail(e.0),
            }
        }
        // Real signals for readiness would come in real time; nobody is told.
        libc::F_SETOWN | F_SETSIG => 0,
        _ => native(),
    }
}

fn kind_is_socket(desc: DescId) -> bool {
    vkernel().kind(desc).is_ok_and(|kind| kind.is_socket())
}

/// ioctl(2).
pub(crate) fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int {
    let me = begin(Op::Control);
    let native = || {
        // SAFETY: the caller's contract for this request.
        raw::ret(unsafe { sys!(Sysno::ioctl, fd, request, argument) }) as c_int
    };
    let Some(desc) = virtual_of(me, fd) else {
        return native();
    };
    if kind_is_socket(desc)
        // SAFETY: the caller's contract for the request.
        && let Some(code) = unsafe { interfaces::ioctl(request, argument) }
    {
        return code;
    }
    let word = argument as *mut c_int;
    match request {
        libc::FIONBIO => {
            // SAFETY: the caller passes an int.
            let on = unsafe { *word } != 0;
            let bit = libc::O_NONBLOCK as u32;
            let flags = vkernel().flags(desc).unwrap_or(0);
            let flags = if on { flags | bit } else { flags & !bit };
            done(vkernel().set_flags(desc, flags).map_err(|e| e.0))
        }
        libc::FIONREAD if inotify::is_instance(desc) => native(),
        libc::FIONREAD => match vkernel().available(desc) {
            Ok(n) => {
                // SAFETY: the caller passes a place for an int.
                unsafe { *word = n.min(i32::MAX as usize) as c_int };
                0
            }
            Err(e) => fail(e.0),
        },
        libc::TIOCOUTQ => match vkernel().unsent(desc) {
            Ok(n) => {
                // SAFETY: as above.
                unsafe { *word = n.min(i32::MAX as usize) as c_int };
                0
            }
            Err(e) => fail(e.0),
        },
        libc::FIOCLEX | libc::FIONCLEX => {
            let process = crate::process::current();
            let _ = vkernel().fd_set_cloexec(process, fd, request == libc::FIOCLEX);
            native()
        }
        libc::FIOASYNC => 0,
        _ => native(),
    }
}
