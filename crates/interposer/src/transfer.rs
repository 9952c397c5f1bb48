//! Bytes in and out of any descriptor: read, write and their relatives.

use crate::boundary::Effects;
use crate::fds::{blocking, nonblocking, size, virtual_of};
use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use crate::{ancillary, files, inodes, inotify, random, signalfd};
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Gather, Scatter};
use libc::{iovec, off_t, size_t, ssize_t};
use syscalls::Sysno;

/// Most parts of a vectored call, see readv(2).
const IOV_MAX: c_int = 1024;
/// Most bytes of one read or write, as Linux cuts them.
const MAX_RW: usize = 0x7fff_f000;

/// Parts of a vectored call.
pub(crate) unsafe fn parts<'a>(iov: *const iovec, count: c_int) -> Result<&'a [iovec], c_int> {
    if !(0..=IOV_MAX).contains(&count) {
        return Err(libc::EINVAL);
    }
    if count == 0 {
        return Ok(&[]);
    }
    // SAFETY: the caller passes `count` parts.
    Ok(unsafe { core::slice::from_raw_parts(iov, count as usize) })
}

fn receive_deadline(desc: DescId) -> Option<u64> {
    crate::sockets::time_limit(desc, crane_vkernel::SockOption::RecvTimeout)
}

unsafe fn read_parts(me: Slot, fd: c_int, desc: DescId, iov: &[iovec]) -> ssize_t {
    if inotify::is_instance(desc)
        && let Some(part) = iov.iter().find(|part| part.iov_len > 0)
    {
        // SAFETY: same contract.
        return unsafe { inotify::read(me, fd, desc, part.iov_base, part.iov_len) };
    }
    if signalfd::is_instance(desc)
        && let Some(part) = iov.iter().find(|part| part.iov_len > 0)
    {
        // SAFETY: same contract.
        return unsafe { signalfd::read(me, desc, part.iov_base, part.iov_len) };
    }
    let got = blocking(
        me,
        desc,
        Dir::Read,
        nonblocking(desc),
        receive_deadline(desc),
        || {
            // SAFETY: the caller of read or readv passes writable parts.
            let to = unsafe { Scatter::from_iovecs(iov) }?;
            vkernel().read_iov(&mut Effects, desc, to)
        },
    );
    size(got.map(|got| {
        ancillary::discard(fd, got.attached);
        got.len
    }))
}

/// Writes all of `iov` to a blocking object, or what fits to one that is not.
pub(crate) unsafe fn write_parts(
    me: Slot,
    desc: DescId,
    iov: &[iovec],
    nonblocking: bool,
    deadline: Option<u64>,
    quiet: bool,
) -> ssize_t {
    let total: usize = iov.iter().map(|p| p.iov_len).sum();
    let mut sent = 0;
    loop {
        let step = blocking(me, desc, Dir::Write, nonblocking, deadline, || {
            if sent == 0 {
                // SAFETY: the caller passes readable parts.
                return vkernel()
                    .write_iov(&mut Effects, desc, unsafe { Gather::from_iovecs(iov) }?);
            }
            let (part, offset) = locate(iov, sent);
            // SAFETY: the part is readable for its length; offset is below it.
            let rest = unsafe {
                core::slice::from_raw_parts(
                    part.iov_base.cast::<u8>().add(offset),
                    part.iov_len - offset,
                )
            };
            vkernel().write(&mut Effects, desc, rest)
        });
        match step {
            Ok(n) => sent += n,
            Err(code) => {
                if code == libc::EPIPE && !quiet {
                    crate::signals::raise(libc::SIGPIPE as u32);
                }
                return if sent > 0 {
                    sent as ssize_t
                } else {
                    fail(code) as ssize_t
                };
            }
        }
        // A stream socket or pipe in blocking mode takes everything.
        if sent >= total || nonblocking {
            return sent as ssize_t;
        }
    }
}

/// The part that holds byte `at` of all parts, and the offset in it.
pub(crate) fn locate(iov: &[iovec], mut at: usize) -> (&iovec, usize) {
    for part in iov {
        if at < part.iov_len {
            return (part, at);
        }
        at -= part.iov_len;
    }
    (&iov[iov.len() - 1], iov[iov.len() - 1].iov_len)
}

/// read(2).
pub(crate) unsafe fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    let me = begin(Op::Read);
    if let Some(desc) = virtual_of(me, fd) {
        let part = iovec {
            iov_base: to,
            iov_len: len.min(MAX_RW),
        };
        // SAFETY: same contract.
        return unsafe { read_parts(me, fd, desc, &[part]) };
    }
    if me != 0 && files::is_random(fd) {
        // SAFETY: the caller passes room for `len` bytes.
        random::fill(unsafe { core::slice::from_raw_parts_mut(to.cast(), len) });
        return len as ssize_t;
    }
    // SAFETY: same contract.
    raw::ret(unsafe { sys!(Sysno::read, fd, to, len) })
}

/// readv(2).
pub(crate) unsafe fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    let me = begin(Op::Read);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::readv, fd, iov, count) });
    };
    // SAFETY: same contract.
    match unsafe { parts(iov, count) } {
        // SAFETY: same contract.
        Ok(iov) => unsafe { read_parts(me, fd, desc, iov) },
        Err(code) => fail(code) as ssize_t,
    }
}

/// write(2).
pub(crate) unsafe fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    let me = begin(Op::Write);
    if let Some(desc) = virtual_of(me, fd) {
        let part = iovec {
            iov_base: from.cast_mut(),
            iov_len: len.min(MAX_RW),
        };
        // SAFETY: same contract.
        return unsafe { write_parts(me, desc, &[part], nonblocking(desc), None, false) };
    }
    // SAFETY: same contract.
    let n = raw::ret(unsafe { sys!(Sysno::write, fd, from, len) });
    if me != 0 && n > 0 {
        inodes::touched(fd);
    }
    n
}

/// writev(2).
pub(crate) unsafe fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t {
    let me = begin(Op::Write);
    let Some(desc) = virtual_of(me, fd) else {
        // SAFETY: same contract.
        let n = raw::ret(unsafe { sys!(Sysno::writev, fd, iov, count) });
        if me != 0 && n > 0 {
            inodes::touched(fd);
        }
        return n;
    };
    // SAFETY: same contract.
    match unsafe { parts(iov, count) } {
        // SAFETY: same contract.
        Ok(iov) => unsafe { write_parts(me, desc, iov, nonblocking(desc), None, false) },
        Err(code) => fail(code) as ssize_t,
    }
}

/// pwrite(2).
pub(crate) unsafe fn pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t {
    let me = begin(Op::FileWrite);
    // SAFETY: same contract. (On a socket or pipe the placeholder says ESPIPE.)
    let n = raw::ret(unsafe { sys!(Sysno::pwrite64, fd, from, len, at) });
    if me != 0 && n > 0 {
        inodes::touched(fd);
    }
    n
}

/// ftruncate(2).
pub(crate) fn ftruncate(fd: c_int, len: off_t) -> c_int {
    let me = begin(Op::FileWrite);
    // SAFETY: plain ftruncate(2).
    let code = raw::ret(unsafe { sys!(Sysno::ftruncate, fd, len) }) as c_int;
    if me != 0 && code == 0 {
        inodes::touched(fd);
    }
    code
}

/// What a virtual object says to a position in it, and at its own (-1) to flags.
fn no_position(at: off_t) -> ssize_t {
    let code = if at == -1 {
        libc::EOPNOTSUPP
    } else {
        libc::ESPIPE
    };
    fail(code) as ssize_t
}

/// preadv2(2); `at` -1 is the file's own position, the only one that a virtual
/// object has.
pub(crate) unsafe fn preadv(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    at: off_t,
    flags: c_int,
) -> ssize_t {
    let me = begin(Op::Read);
    let ours = virtual_of(me, fd);
    if let (Some(desc), -1, 0) = (ours, at, flags) {
        // SAFETY: same contract.
        return match unsafe { parts(iov, count) } {
            // SAFETY: same contract.
            Ok(iov) => unsafe { read_parts(me, fd, desc, iov) },
            Err(code) => fail(code) as ssize_t,
        };
    }
    if ours.is_some() {
        return no_position(at);
    }
    // SAFETY: same contract. (The second half of the offset is for 32 bits.)
    raw::ret(unsafe { sys!(Sysno::preadv2, fd, iov, count, at, 0, flags) })
}

/// pwritev2(2).
pub(crate) unsafe fn pwritev(
    fd: c_int,
    iov: *const iovec,
    count: c_int,
    at: off_t,
    flags: c_int,
) -> ssize_t {
    let me = begin(Op::Write);
    let ours = virtual_of(me, fd);
    if let (Some(desc), -1, 0) = (ours, at, flags) {
        // SAFETY: same contract.
        return match unsafe { parts(iov, count) } {
            // SAFETY: same contract.
            Ok(iov) => unsafe { write_parts(me, desc, iov, nonblocking(desc), None, false) },
            Err(code) => fail(code) as ssize_t,
        };
    }
    if ours.is_some() {
        return no_position(at);
    }
    // SAFETY: same contract.
    let n = raw::ret(unsafe { sys!(Sysno::pwritev2, fd, iov, count, at, 0, flags) });
    if me != 0 && n > 0 {
        inodes::touched(fd);
    }
    n
}
