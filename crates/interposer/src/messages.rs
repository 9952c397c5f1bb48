//! Sending and receiving on sockets.

use crate::boundary::Effects;
use crate::fds::{blocking, nonblocking, size, virtual_of};
use crate::raw::{self, fail, sys};
use crate::refuse::{self, Unsupported};
use crate::sockets::{address, put_address, time_limit};
use crate::transfer::{parts, write_parts};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use crate::{ancillary, network, unix};
use core::ffi::{c_int, c_uint, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Errno, Gather, Kind, Received, Scatter, SockOption, Source};
use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};
use syscalls::Sysno;

unsafe fn send_parts(me: Slot, desc: DescId, iov: &[iovec], flags: c_int) -> ssize_t {
    if !vkernel().kind(desc).is_ok_and(|k| k.is_socket()) {
        return fail(libc::ENOTSOCK) as ssize_t;
    }
    if flags & libc::MSG_OOB != 0 {
        return fail(libc::EOPNOTSUPP) as ssize_t;
    }
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::SendTimeout);
    // Datagram sockets have no reader whose end a signal could tell.
    let quiet =
        flags & libc::MSG_NOSIGNAL != 0 || vkernel().socket_type(desc) != Ok(libc::SOCK_STREAM);
    // SAFETY: same contract as the caller's.
    unsafe { write_parts(me, desc, iov, nonblocking, limit, quiet) }
}

/// One message of a datagram socket to an address.
unsafe fn send_datagram(me: Slot, desc: DescId, iov: &[iovec], flags: c_int, to: &[u8]) -> ssize_t {
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::SendTimeout);
    let to_path = unix::is_datagram(desc) && !to.is_empty();
    vkernel().saw_time(crate::clock::now());
    size(blocking(me, desc, Dir::Write, nonblocking, limit, || {
        let key = if to_path {
            unix::key(to).map_err(Errno)?
        } else {
            None
        };
        // SAFETY: the caller passes readable parts.
        let data = unsafe { Gather::from_iovecs(iov) }?;
        vkernel().send_to(&mut Effects, desc, data, to, key)
    }))
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
    unsafe {
        if vkernel().kind(desc) == Ok(Kind::Datagram) {
            return send_datagram(me, desc, &[part], flags, address(to, to_len));
        }
        send_parts(me, desc, &[part], flags)
    }
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
    if unix::is_datagram(desc) {
        if ancillary::has_descriptors(message) {
            refuse::count(Unsupported::DescriptorPassing);
            return fail(libc::EINVAL) as ssize_t;
        }
    } else if ancillary::wanted(desc, message) {
        // SAFETY: same contract.
        return unsafe { ancillary::send(me, fd, desc, message, flags) };
    }
    // SAFETY: same contract.
    unsafe {
        match parts(message.msg_iov, message.msg_iovlen as c_int) {
            Ok(iov) if vkernel().kind(desc) == Ok(Kind::Datagram) => {
                let to = address(message.msg_name.cast(), message.msg_namelen);
                send_datagram(me, desc, iov, flags, to)
            }
            Ok(iov) => send_parts(me, desc, iov, flags),
            Err(code) => fail(code) as ssize_t,
        }
    }
}

/// sendmmsg(2).
pub(crate) unsafe fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let count = count.min(1024);
    for at in 0..count as usize {
        // SAFETY: the caller passes `count` messages.
        let sent = unsafe { sendmsg(fd, &raw const (*messages.add(at)).msg_hdr, flags) };
        if sent < 0 {
            return if at == 0 { -1 } else { at as c_int };
        }
        // SAFETY: as above.
        unsafe { (*messages.add(at)).msg_len = sent as c_uint };
    }
    count as c_int
}

/// What a receive got.
struct Got {
    received: Received,
    /// Of a datagram.
    source: Option<Source>,
}

unsafe fn receive(me: Slot, desc: DescId, iov: &[iovec], flags: c_int) -> Result<Got, c_int> {
    if !vkernel().kind(desc).map_err(|e| e.0)?.is_socket() {
        return Err(libc::ENOTSOCK);
    }
    if flags & libc::MSG_OOB != 0 {
        return Err(libc::EINVAL);
    }
    if flags & libc::MSG_ERRQUEUE != 0 {
        // Nothing is ever queued there.
        return Err(libc::EAGAIN);
    }
    let room: usize = iov.iter().map(|p| p.iov_len).sum();
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::RecvTimeout);
    let peek = flags & libc::MSG_PEEK != 0;
    let stream = vkernel().socket_type(desc) == Ok(libc::SOCK_STREAM);
    let whole = flags & libc::MSG_WAITALL != 0 && !peek && iov.len() == 1 && stream;
    let mut total = 0;
    let mut source = None;
    loop {
        let step = blocking(me, desc, Dir::Read, nonblocking, limit, || {
            source = vkernel().next_source(desc);
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
        let received = match step {
            Ok(got) => {
                total += got.len;
                if whole && got.len > 0 && total < room && got.attached.is_none() {
                    continue;
                }
                Received {
                    len: total,
                    message: total - got.len + got.message,
                    attached: got.attached,
                }
            }
            Err(_) if total > 0 => Received {
                len: total,
                message: total,
                attached: None,
            },
            Err(code) => return Err(code),
        };
        return Ok(Got { received, source });
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
    if let Ok(got) = &got
        && !from_len.is_null()
    {
        // SAFETY: same contract. A stream tells no source.
        unsafe {
            match &got.source {
                Some(source) if !from.is_null() => put_address(&source.from, from, from_len),
                _ if !from.is_null() => *from_len = 0,
                _ => {}
            }
        }
    }
    size(got.map(|got| {
        if flags & libc::MSG_PEEK == 0 {
            ancillary::discard(fd, got.received.attached);
        }
        told(got.received, flags)
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
    size(got.map(|Got { received, source }| {
        message.msg_flags = flags & libc::MSG_CMSG_CLOEXEC;
        if received.message > received.len {
            message.msg_flags |= libc::MSG_TRUNC;
        }
        // SAFETY: same contract.
        unsafe {
            match source {
                Some(source) => {
                    let name = message.msg_name.cast();
                    put_address(&source.from, name, &raw mut message.msg_namelen);
                    network::told_beside(desc, &source, message);
                }
                None => {
                    message.msg_namelen = 0;
                    ancillary::receive(me, fd, received.attached, message, flags);
                }
            }
        }
        told(received, flags)
    }))
}

/// recvmmsg(2); the time-out is looked at after each message, as on Linux.
pub(crate) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    mut flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let deadline = if timeout.is_null() {
        None
    } else {
        // SAFETY: the caller passes a valid time.
        match unsafe { crate::clock::duration(timeout) } {
            Ok(ns) => Some(crate::clock::after(ns)),
            Err(code) => return fail(code),
        }
    };
    let one = flags & libc::MSG_WAITFORONE != 0;
    flags &= !libc::MSG_WAITFORONE;
    for at in 0..count.min(1024) as usize {
        // SAFETY: the caller passes `count` messages.
        let got = unsafe { recvmsg(fd, &raw mut (*messages.add(at)).msg_hdr, flags) };
        if got < 0 {
            return if at == 0 { -1 } else { at as c_int };
        }
        // SAFETY: as above.
        unsafe { (*messages.add(at)).msg_len = got as c_uint };
        if one {
            flags |= libc::MSG_DONTWAIT;
        }
        if deadline.is_some_and(|deadline| deadline <= crate::clock::now()) {
            return at as c_int + 1;
        }
    }
    count.min(1024) as c_int
}
