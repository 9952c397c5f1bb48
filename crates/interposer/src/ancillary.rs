//! Descriptors and credentials sent beside the bytes of a Unix socket.
//!
//! The placeholders of two connected Unix sockets are connected to each other
//! in the kernel. No data goes that way, but a message with control data sends
//! one byte with the same control data from placeholder to placeholder: the
//! kernel checks it, carries the descriptors (of real files, and the
//! placeholders of virtual ones) into the other process and gives them their
//! numbers there. The virtual kernel keeps which bytes the message belongs to
//! and what the virtual ones are. Both queues are in the order of the schedule,
//! so they always agree.

use crate::boundary::Effects;
use crate::fds::{self, blocking, nonblocking, virtual_of};
use crate::raw::{fail, sys};
use crate::refuse::{self, Unsupported};
use crate::sockets::time_limit;
use crate::transfer::parts;
use crate::world::vkernel;
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{AttachmentId, DescId, Dir, Errno, Gather, MAX_PASSED, SockOption, StreamPeer};
use libc::{cmsghdr, iovec, msghdr, ssize_t};
use syscalls::Sysno;

/// The socket at the other end, if it is in the group.
fn peer(desc: DescId) -> Option<DescId> {
    match vkernel().stream_info(desc).ok()?.peer {
        StreamPeer::Local(peer) => Some(peer),
        _ => None,
    }
}

/// Whether a message has to go beside the bytes too: it brings control data,
/// or the receiver wants to know who sent it.
pub(crate) fn wanted(desc: DescId, message: &msghdr) -> bool {
    if vkernel().domain(desc) != Ok(libc::AF_UNIX) {
        return false;
    }
    let asks = |desc| vkernel().option(desc, SockOption::PassCred) == Ok(1);
    (message.msg_controllen > 0 && !message.msg_control.is_null()) || (peer(desc).is_some_and(asks))
}

/// Calls `visit` with each descriptor of a message's SCM_RIGHTS.
unsafe fn each_descriptor(message: &msghdr, mut visit: impl FnMut(c_int)) {
    let mut at = message.msg_control as usize;
    let end = at + message.msg_controllen;
    let head = size_of::<cmsghdr>();
    while at != 0 && at + head <= end {
        // SAFETY: a whole header lies in the caller's control data.
        let control = unsafe { (at as *const cmsghdr).read_unaligned() };
        let len = control.cmsg_len;
        if len < head || at + len > end {
            return;
        }
        if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
            for place in (at + head..at + len - (len - head) % 4).step_by(4) {
                // SAFETY: an int inside the control message.
                visit(unsafe { (place as *const c_int).read_unaligned() });
            }
        }
        at += len.next_multiple_of(size_of::<usize>());
    }
}

/// Whether a message brings descriptors.
pub(crate) fn has_descriptors(message: &msghdr) -> bool {
    let mut any = false;
    // SAFETY: the caller of sendmsg passes a valid message.
    unsafe { each_descriptor(message, |_| any = true) };
    any
}

/// One byte with a message's control data, from placeholder to placeholder.
unsafe fn send_beside(fd: c_int, message: &msghdr) -> Result<(), Errno> {
    let mut byte = 0u8;
    let mut part = iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut beside: msghdr = unsafe { core::mem::zeroed() };
    beside.msg_iov = &raw mut part;
    beside.msg_iovlen = 1;
    beside.msg_control = message.msg_control;
    beside.msg_controllen = message.msg_controllen;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: a valid message with the caller's control data.
    let code = unsafe { sys!(Sysno::sendmsg, fd, &raw const beside, flags) } as isize;
    if code < 0 {
        return Err(Errno(-code as c_int));
    }
    Ok(())
}

/// sendmsg(2) with something beside the bytes.
pub(crate) unsafe fn send(
    me: Slot,
    fd: c_int,
    desc: DescId,
    message: &msghdr,
    flags: c_int,
) -> ssize_t {
    let mut descs = [0u32; MAX_PASSED];
    let mut count = 0;
    // SAFETY: the caller passes a valid message.
    unsafe {
        each_descriptor(message, |fd| {
            if count < MAX_PASSED {
                descs[count] = virtual_of(me, fd).map_or(0, DescId::raw);
            }
            count += 1;
        });
    }
    if count > MAX_PASSED {
        return fail(libc::EINVAL) as ssize_t;
    }
    if count > 0
        && matches!(vkernel().stream_info(desc), Ok(info) if matches!(info.peer, StreamPeer::External(_)))
    {
        // A client outside of the group is in no process that could get it.
        refuse::count(Unsupported::DescriptorPassing);
        return fail(libc::EINVAL) as ssize_t;
    }
    // SAFETY: same contract.
    let iov = match unsafe { parts(message.msg_iov, message.msg_iovlen as c_int) } {
        Ok(iov) => iov,
        Err(code) => return fail(code) as ssize_t,
    };
    let quiet = flags & libc::MSG_NOSIGNAL != 0;
    let nonblocking = nonblocking(desc) || flags & libc::MSG_DONTWAIT != 0;
    let limit = time_limit(desc, SockOption::SendTimeout);
    let sent = blocking(me, desc, Dir::Write, nonblocking, limit, || {
        // SAFETY: the caller passes readable parts.
        let data = unsafe { Gather::from_iovecs(iov) }?;
        if !vkernel().can_attach(desc, data.len()) {
            // Says why not; if it can be sent after all, without descriptors,
            // because it is empty, that is what Linux does too.
            return vkernel().send_iov(&mut Effects, desc, data);
        }
        // SAFETY: same contract.
        unsafe { send_beside(fd, message) }?;
        vkernel().send_attached(&mut Effects, desc, data, &descs[..count])
    });
    let mut done = match sent {
        Ok(done) => done,
        Err(code) => {
            if code == libc::EPIPE && !quiet {
                crate::signals::raise(libc::SIGPIPE as u32);
            }
            return fail(code) as ssize_t;
        }
    };
    // What did not fit goes without control data.
    let total: usize = iov.iter().map(|p| p.iov_len).sum();
    while done < total && !nonblocking {
        let (part, offset) = crate::transfer::locate(iov, done);
        let rest = iovec {
            // SAFETY: `offset` lies inside the part.
            iov_base: unsafe { part.iov_base.byte_add(offset) },
            iov_len: part.iov_len - offset,
        };
        // SAFETY: the rest of a part is readable.
        let n =
            unsafe { crate::transfer::write_parts(me, desc, &[rest], nonblocking, limit, quiet) };
        if n <= 0 {
            break;
        }
        done += n as usize;
    }
    done as ssize_t
}

/// Takes the message that came beside received bytes. `control` gets what it
/// brought; null: it is thrown away, as Linux does for a read(2).
unsafe fn receive_beside(
    me: Slot,
    fd: c_int,
    attachment: AttachmentId,
    control: (*mut c_void, usize),
    flags: c_int,
) -> (usize, c_int) {
    let mut byte = 0u8;
    let mut part = iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: all-zero is a valid msghdr.
    let mut beside: msghdr = unsafe { core::mem::zeroed() };
    beside.msg_iov = &raw mut part;
    beside.msg_iovlen = 1;
    (beside.msg_control, beside.msg_controllen) = (control.0, control.1);
    let kept = libc::MSG_CMSG_CLOEXEC | libc::MSG_PEEK;
    let flags = (flags & kept) | libc::MSG_DONTWAIT;
    // SAFETY: a valid message; the control buffer is the caller's.
    let code = unsafe { sys!(Sysno::recvmsg, fd, &raw mut beside, flags) } as isize;
    if code < 0 {
        return (0, libc::MSG_CTRUNC);
    }
    let cloexec = flags & libc::MSG_CMSG_CLOEXEC != 0;
    let mut index = 0;
    // SAFETY: the kernel has filled the control data.
    unsafe {
        each_descriptor(&beside, |new| {
            crate::files::forget(new);
            if let Some(desc) = vkernel().attachment_desc(attachment, index)
                && vkernel().desc_hold(desc).is_ok()
            {
                fds::install(me, new, desc, cloexec);
            }
            index += 1;
        });
    }
    (beside.msg_controllen, beside.msg_flags & libc::MSG_CTRUNC)
}

/// Fills a message's control data after its bytes were received.
pub(crate) unsafe fn receive(
    me: Slot,
    fd: c_int,
    attached: Option<AttachmentId>,
    message: &mut msghdr,
    flags: c_int,
) {
    let room = if message.msg_control.is_null() {
        0
    } else {
        message.msg_controllen
    };
    message.msg_controllen = 0;
    let Some(attachment) = attached else {
        return;
    };
    // SAFETY: the caller's control buffer.
    let (len, cut) =
        unsafe { receive_beside(me, fd, attachment, (message.msg_control, room), flags) };
    message.msg_controllen = len;
    message.msg_flags |= cut;
    if flags & libc::MSG_PEEK == 0 {
        vkernel().attachment_free(&mut Effects, attachment);
    }
}

/// Throws away what came beside bytes that were received by a call without
/// control data.
pub(crate) fn discard(fd: c_int, attached: Option<AttachmentId>) {
    if let Some(attachment) = attached {
        let none = (core::ptr::null_mut(), 0);
        // SAFETY: no control buffer is given.
        unsafe { receive_beside(0, fd, attachment, none, 0) };
        vkernel().attachment_free(&mut Effects, attachment);
    }
}
