//! Sockets: connections come from the log, output goes to the ring.

use crate::boundary::Effects;
use crate::fds::{self, blocking, done, install, nonblocking, virtual_of};
use crate::raw::{self, fail, sys};
use crate::refuse::{self, Unsupported};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use crate::{clock, files, unix};
use core::ffi::c_int;
use crane_vkernel::{DescId, Dir, Errno, Kind, Route, SockAddr, SockOption};
use libc::{sockaddr, socklen_t};
use syscalls::Sysno;

pub(crate) fn placeholder(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: plain socket(2).
    raw::ret(unsafe { sys!(Sysno::socket, domain, kind, protocol) }) as c_int
}

/// The deadline that a socket's time-out option sets from now.
pub(crate) fn time_limit(desc: DescId, option: SockOption) -> Option<u64> {
    match vkernel().option(desc, option) {
        Ok(ns) if ns > 0 => Some(clock::after(ns)),
        _ => None,
    }
}

/// socket(2).
pub(crate) fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    let me = begin(Op::Socket);
    let fd = placeholder(domain, kind, protocol);
    if fd < 0 || me == 0 {
        return fd;
    }
    files::forget(fd);
    match vkernel().socket(domain, kind, protocol, (kind & libc::SOCK_NONBLOCK) as u32) {
        Ok(desc) => install(me, fd, desc, kind & libc::SOCK_CLOEXEC != 0),
        // Others are the real kernel's, in the replica's own empty network.
        Err(Errno::SOCKTNOSUPPORT) => {
            refuse::count(Unsupported::RawSocket);
            fd
        }
        Err(_) => {
            refuse::count(Unsupported::SocketFamily);
            fd
        }
    }
}

pub(crate) unsafe fn address<'a>(address: *const sockaddr, len: socklen_t) -> &'a [u8] {
    if address.is_null() {
        return &[];
    }
    // SAFETY: the caller passes `len` bytes; no address is longer than 128.
    unsafe { core::slice::from_raw_parts(address.cast(), (len as usize).min(128)) }
}

pub(crate) unsafe fn put_address(name: &SockAddr, to: *mut sockaddr, len: *mut socklen_t) {
    if to.is_null() || len.is_null() {
        return;
    }
    let bytes = name.as_bytes();
    // SAFETY: the caller passes room for `*len` bytes; what does not fit is
    // cut and the full length told, as accept(2) says.
    unsafe {
        let room = (*len as usize).min(bytes.len());
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), room);
        *len = bytes.len() as socklen_t;
    }
}

/// bind(2).
pub(crate) unsafe fn bind(fd: c_int, at: *const sockaddr, len: socklen_t) -> c_int {
    let me = begin(Op::Bind);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::bind, fd, at, len) }) as c_int;
    };
    // SAFETY: same contract.
    let bytes = unsafe { address(at, len) };
    if vkernel().domain(desc) == Ok(libc::AF_UNIX) {
        return done(unix::bind(fd, desc, bytes));
    }
    let bound = vkernel().bind(desc, bytes);
    // A port that the program chose is one that clients know.
    if bound.is_ok() && bytes[2..4] != [0; 2] {
        vkernel().datagram_bound(&mut Effects, desc);
    }
    done(bound.map_err(|e| e.0))
}

/// listen(2).
pub(crate) fn listen(fd: c_int, backlog: c_int) -> c_int {
    let me = begin(Op::Listen);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: plain listen(2).
        return raw::ret(unsafe { sys!(Sysno::listen, fd, backlog) }) as c_int;
    };
    let result = done(
        vkernel()
            .listen(&mut Effects, desc, backlog)
            .map_err(|e| e.0),
    );
    if vkernel().domain(desc) == Ok(libc::AF_UNIX) {
        unix::listen(fd, backlog);
    }
    crate::boundary::flush();
    result
}

/// accept4(2).
pub(crate) unsafe fn accept(
    fd: c_int,
    at: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let me = begin(Op::Accept);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::accept4, fd, at, len, flags) }) as c_int;
    };
    let limit = time_limit(desc, SockOption::RecvTimeout);
    let status = (flags & libc::SOCK_NONBLOCK) as u32;
    let accepted = blocking(me, desc, Dir::Read, nonblocking(desc), limit, || {
        vkernel().accept(&mut Effects, desc, status)
    });
    let child = match accepted {
        Ok(child) => child,
        Err(code) => return fail(code),
    };
    let domain = vkernel().domain(child).unwrap_or(libc::AF_INET);
    let kind = vkernel().socket_type(child).unwrap_or(libc::SOCK_STREAM);
    let kind = kind | (flags & libc::SOCK_CLOEXEC);
    let new = if domain == libc::AF_UNIX {
        unix::accept(fd, child, kind)
    } else {
        placeholder(domain, kind, 0)
    };
    if new < 0 {
        // Out of descriptors: the connection is lost, as it would be in time.
        let _ = vkernel().desc_release(&mut Effects, child);
        return new;
    }
    if let Ok(peer) = vkernel().getpeername(child) {
        // SAFETY: same contract.
        unsafe { put_address(&peer, at, len) };
    }
    install(me, new, child, flags & libc::SOCK_CLOEXEC != 0)
}

/// connect(2).
pub(crate) unsafe fn connect(fd: c_int, at: *const sockaddr, len: socklen_t) -> c_int {
    let me = begin(Op::Connect);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::connect, fd, at, len) }) as c_int;
    };
    // SAFETY: same contract.
    let bytes = unsafe { address(at, len) };
    let datagram = vkernel().kind(desc) == Ok(Kind::Datagram);
    if vkernel().domain(desc) == Ok(libc::AF_UNIX) {
        // SAFETY: same contract.
        return done(unsafe { unix::connect(me, fd, desc, bytes) });
    }
    if !datagram && let Ok(Route::Outside) = vkernel().route(bytes) {
        refuse::count(Unsupported::OutboundConnect);
        return fail(libc::ENETUNREACH);
    }
    let limit = time_limit(desc, SockOption::SendTimeout);
    done(blocking(
        me,
        desc,
        Dir::Write,
        nonblocking(desc),
        limit,
        || vkernel().connect(&mut Effects, desc, bytes),
    ))
}

/// getsockname(2) and getpeername(2).
pub(crate) unsafe fn name(fd: c_int, at: *mut sockaddr, len: *mut socklen_t, peer: bool) -> c_int {
    let me = begin(Op::Option);
    let Some(desc) = virtual_of(me, fd) else {
        let number = if peer {
            Sysno::getpeername
        } else {
            Sysno::getsockname
        };
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(number, fd, at, len) }) as c_int;
    };
    let name = if peer {
        vkernel().getpeername(desc)
    } else {
        vkernel().getsockname(desc)
    };
    match name {
        Ok(name) => {
            // SAFETY: same contract.
            unsafe { put_address(&name, at, len) };
            0
        }
        Err(e) => fail(e.0),
    }
}

/// shutdown(2).
pub(crate) fn shutdown(fd: c_int, how: c_int) -> c_int {
    let me = begin(Op::Shutdown);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: plain shutdown(2).
        return raw::ret(unsafe { sys!(Sysno::shutdown, fd, how) }) as c_int;
    };
    done(vkernel().shutdown(&mut Effects, desc, how).map_err(|e| e.0))
}

/// socketpair(2).
pub(crate) unsafe fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    ends: *mut c_int,
) -> c_int {
    let me = begin(Op::SocketPair);
    let mut real = [0; 2];
    // SAFETY: `real` has room for two descriptors.
    let code =
        raw::ret(unsafe { sys!(Sysno::socketpair, domain, kind, protocol, real.as_mut_ptr()) })
            as c_int;
    if code < 0 {
        return code;
    }
    let status = (kind & libc::SOCK_NONBLOCK) as u32;
    let made = if me == 0 {
        Err(Errno::SOCKTNOSUPPORT)
    } else {
        vkernel().socketpair(domain, kind, protocol, status)
    };
    match made {
        // SAFETY: same contract.
        Ok(pair) => unsafe {
            fds::install_pair(me, ends, real, pair, kind & libc::SOCK_CLOEXEC != 0)
        },
        Err(_) => {
            refuse::count(Unsupported::SocketFamily);
            // SAFETY: the caller passes room for two descriptors.
            unsafe { ends.cast::<[c_int; 2]>().write_unaligned(real) };
            0
        }
    }
}

/// sockatmark(3).
pub(crate) fn at_mark(fd: c_int) -> c_int {
    const SIOCATMARK: c_int = 0x8905;
    let me = begin(Op::Control);
    if virtual_of(me, fd).is_some() {
        return 0;
    }
    let mut answer: c_int = 0;
    // SAFETY: plain ioctl(2) that fills an int.
    match raw::ret(unsafe { sys!(Sysno::ioctl, fd, SIOCATMARK, &raw mut answer) }) {
        0 => answer,
        _ => -1,
    }
}
