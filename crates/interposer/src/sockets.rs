//! Sockets: connections come from the log, output goes to the ring.

use crate::boundary::Effects;
use crate::fds::{self, blocking, done, install, nonblocking, size, virtual_of};
use crate::raw::{self, fail, sys};
use crate::refuse::{self, Unsupported};
use crate::transfer::{parts, write_parts};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use crate::{ancillary, clock, files};
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Errno, Received, Route, Scatter, SockAddr, SockOption};
use libc::{iovec, msghdr, size_t, sockaddr, socklen_t, ssize_t};
use syscalls::Sysno;

fn placeholder(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
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
            refuse::count(Unsupported::Datagram);
            fd
        }
        Err(_) => {
            refuse::count(Unsupported::SocketFamily);
            fd
        }
    }
}

unsafe fn address<'a>(address: *const sockaddr, len: socklen_t) -> &'a [u8] {
    if address.is_null() {
        return &[];
    }
    // SAFETY: the caller passes `len` bytes; no address is longer than 128.
    unsafe { core::slice::from_raw_parts(address.cast(), (len as usize).min(128)) }
}

unsafe fn put_address(name: &SockAddr, to: *mut sockaddr, len: *mut socklen_t) {
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
    if vkernel().domain(desc) == Ok(libc::AF_UNIX) && bytes.len() > 2 && bytes[2] != 0 {
        // The name must appear in the file system: chmod and unlink follow.
        // SAFETY: same contract.
        let code = raw::ret(unsafe { sys!(Sysno::bind, fd, at, len) }) as c_int;
        if code < 0 {
            return code;
        }
    }
    done(vkernel().bind(desc, bytes).map_err(|e| e.0))
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
    let new = placeholder(domain, kind | (flags & libc::SOCK_CLOEXEC), 0);
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
    if let Ok(Route::Outside) = vkernel().route(bytes) {
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

unsafe fn send_parts(me: Slot, desc: DescId, iov: &[iovec], flags: c_int) -> ssize_t {
    if !vkernel().kind(desc).is_ok_and(|k| k.is_socket()) {
        return fail(libc::ENOTSOCK) as ssize_t;
    }
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::SendTimeout);
    // SAFETY: same contract as the caller's.
    unsafe {
        write_parts(
            me,
            desc,
            iov,
            nonblocking,
            limit,
            flags & libc::MSG_NOSIGNAL != 0,
        )
    }
}

/// send(2).
pub(crate) unsafe fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: same contract.
    unsafe { sendto(fd, from, len, flags, core::ptr::null(), 0) }
}

/// sendto(2); a connected stream ignores the address.
pub(crate) unsafe fn sendto(
    fd: c_int,
    from: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    let me = begin(Op::Send);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::sendto, fd, from, len, flags, to, to_len) });
    };
    let part = iovec {
        iov_base: from.cast_mut(),
        iov_len: len,
    };
    // SAFETY: same contract.
    unsafe { send_parts(me, desc, &[part], flags) }
}

/// sendmsg(2).
pub(crate) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    let me = begin(Op::Send);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::sendmsg, fd, message, flags) });
    };
    // SAFETY: the caller passes a valid message.
    let message = unsafe { &*message };
    if ancillary::wanted(desc, message) {
        // SAFETY: same contract.
        return unsafe { ancillary::send(me, fd, desc, message, flags) };
    }
    // SAFETY: same contract.
    match unsafe { parts(message.msg_iov, message.msg_iovlen as c_int) } {
        // SAFETY: same contract.
        Ok(iov) => unsafe { send_parts(me, desc, iov, flags) },
        Err(code) => fail(code) as ssize_t,
    }
}

unsafe fn receive(me: Slot, desc: DescId, iov: &[iovec], flags: c_int) -> Result<Received, c_int> {
    if !vkernel().kind(desc).map_err(|e| e.0)?.is_socket() {
        return Err(libc::ENOTSOCK);
    }
    if flags & libc::MSG_OOB != 0 {
        return Err(libc::EINVAL);
    }
    let room: usize = iov.iter().map(|p| p.iov_len).sum();
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::RecvTimeout);
    let peek = flags & libc::MSG_PEEK != 0;
    let whole = flags & libc::MSG_WAITALL != 0 && !peek && iov.len() == 1;
    let mut total = 0;
    loop {
        let step = blocking(me, desc, Dir::Read, nonblocking, limit, || {
            // SAFETY: the caller passes writable parts; behind `total` bytes the
            // rest of a single part is writable too.
            unsafe {
                let rest = iovec {
                    iov_base: iov
                        .first()
                        .map_or(core::ptr::null_mut(), |p| p.iov_base.byte_add(total)),
                    iov_len: room - total,
                };
                let parts = if total > 0 {
                    core::slice::from_ref(&rest)
                } else {
                    iov
                };
                vkernel().recv_iov(&mut Effects, desc, Scatter::from_iovecs(parts)?, peek)
            }
        });
        match step {
            Ok(got) => {
                total += got.len;
                if whole && got.len > 0 && total < room && got.attached.is_none() {
                    continue;
                }
                return Ok(Received {
                    len: total,
                    message: total - got.len + got.message,
                    attached: got.attached,
                });
            }
            Err(_) if total > 0 => {
                return Ok(Received {
                    len: total,
                    message: total,
                    attached: None,
                });
            }
            Err(code) => return Err(code),
        }
    }
}

/// What a receive returns: with `MSG_TRUNC` the real length of a message.
fn told(got: Received, flags: c_int) -> usize {
    if flags & libc::MSG_TRUNC != 0 {
        got.message
    } else {
        got.len
    }
}

/// recv(2), recvfrom(2).
pub(crate) unsafe fn recvfrom(
    fd: c_int,
    to: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    let me = begin(Op::Receive);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::recvfrom, fd, to, len, flags, from, from_len) });
    };
    let part = iovec {
        iov_base: to,
        iov_len: len,
    };
    // SAFETY: same contract.
    let got = unsafe { receive(me, desc, &[part], flags) };
    if got.is_ok() && !from_len.is_null() {
        // A stream tells no source.
        // SAFETY: same contract.
        unsafe { *from_len = 0 };
    }
    size(got.map(|got| {
        if flags & libc::MSG_PEEK == 0 {
            ancillary::discard(fd, got.attached);
        }
        told(got, flags)
    }))
}

/// recvmsg(2).
pub(crate) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let me = begin(Op::Receive);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::recvmsg, fd, message, flags) });
    };
    // SAFETY: the caller passes a valid message.
    let message = unsafe { &mut *message };
    // SAFETY: same contract.
    let got = unsafe { parts(message.msg_iov, message.msg_iovlen as c_int) }
        // SAFETY: same contract.
        .and_then(|iov| unsafe { receive(me, desc, iov, flags) });
    size(got.map(|got| {
        message.msg_namelen = 0;
        message.msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
        if got.message > got.len {
            message.msg_flags |= libc::MSG_TRUNC;
        }
        // SAFETY: same contract.
        unsafe { ancillary::receive(me, fd, got.attached, message, flags) };
        told(got, flags)
    }))
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

/// The virtual option behind a (level, name), if it is one.
fn virtual_option(level: c_int, name: c_int) -> Option<SockOption> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => SockOption::ReuseAddr,
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => SockOption::ReusePort,
        (libc::SOL_SOCKET, libc::SO_PASSCRED) => SockOption::PassCred,
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => SockOption::RecvTimeout,
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => SockOption::SendTimeout,
        (libc::SOL_SOCKET, libc::SO_LINGER) => SockOption::ResetOnClose,
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => SockOption::V6Only,
        _ => return None,
    })
}

/// setsockopt(2): the placeholder checks and keeps the option, ours acts.
pub(crate) unsafe fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    let me = begin(Op::Option);
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::setsockopt, fd, level, name, value, len) }) as c_int;
    if code < 0 {
        return code;
    }
    if let (Some(desc), Some(option)) = (virtual_of(me, fd), virtual_option(level, name)) {
        // SAFETY: the kernel has checked that the value is long enough for the
        // option: a timeval, a linger, or an int.
        let value = unsafe {
            match option {
                SockOption::RecvTimeout | SockOption::SendTimeout => {
                    let t = *value.cast::<libc::timeval>();
                    (t.tv_sec as u64).saturating_mul(1_000_000_000) + t.tv_usec as u64 * 1000
                }
                SockOption::ResetOnClose => {
                    let linger = *value.cast::<libc::linger>();
                    (linger.l_onoff != 0 && linger.l_linger == 0).into()
                }
                _ => (*value.cast::<c_int>() != 0).into(),
            }
        };
        let _ = vkernel().set_option(desc, option, value);
    }
    code
}

/// getsockopt(2).
pub(crate) unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let me = begin(Op::Option);
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::getsockopt, fd, level, name, value, len) }) as c_int;
    let Some(desc) = virtual_of(me, fd) else {
        return code;
    };
    if code == 0 && level == libc::SOL_SOCKET {
        let own = match name {
            libc::SO_ERROR => vkernel().take_error(desc).ok(),
            libc::SO_ACCEPTCONN => vkernel().is_listening(desc).ok().map(c_int::from),
            _ => None,
        };
        if let Some(own) = own {
            // SAFETY: the kernel has just stored an int there.
            unsafe { value.cast::<c_int>().write_unaligned(own) };
        }
    }
    code
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
