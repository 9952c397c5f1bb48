//! Descriptors: which are virtual, and the calls that work on any.
//!
//! A virtual object's number belongs to a real descriptor of the same kind, its
//! placeholder, so that numbering, inheritance, `fstat` and options need no
//! work of ours. Nothing ever passes through a placeholder.

use crate::boundary::Effects;
use crate::raw::{self, fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::{vkernel, world};
use crate::{files, random, tls};
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use crane_scheduler::{Slot, Wake};
use crane_vkernel::{DescId, Dir, Errno, Gather, Kind, Scatter, wait_key};
use libc::{iovec, off_t, size_t, ssize_t};
use syscalls::Sysno;

/// Most parts of a vectored call, see readv(2).
const IOV_MAX: c_int = 1024;
/// Most bytes of one read or write, as Linux cuts them.
/// fcntl(2) command, Linux only.
const F_SETSIG: c_int = 10;
const MAX_RW: usize = 0x7fff_f000;

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
    vkernel().desc_hold(desc).map_err(|e| e.0)?;
    let result = loop {
        let why = turn::wait(me, wait_key(desc, dir), deadline);
        // A wake-up by key is an event that was handed to us alone: try first.
        match (attempt(), why) {
            (Err(Errno::AGAIN), Wake::Woken) => {}
            (Err(Errno::AGAIN), Wake::TimedOut) => break Err(libc::EAGAIN),
            (Err(Errno::AGAIN), Wake::Interrupted) => break Err(libc::EINTR),
            (other, _) => break other.map_err(|e| e.0),
        }
    };
    let _ = vkernel().desc_release(&mut Effects, desc);
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
        Ok(()) => fd,
        Err(e) => {
            let _ = vkernel().desc_release(&mut Effects, desc);
            close_real(fd);
            fail(e.0)
        }
    }
}

fn close_real(fd: c_int) -> c_int {
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

unsafe fn read_parts(me: Slot, desc: DescId, iov: &[iovec]) -> ssize_t {
    size(blocking(
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
    ))
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
fn locate(iov: &[iovec], mut at: usize) -> (&iovec, usize) {
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
        return unsafe { read_parts(me, desc, &[part]) };
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
        Ok(iov) => unsafe { read_parts(me, desc, iov) },
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
        files::touched(fd);
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
            files::touched(fd);
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
        files::touched(fd);
    }
    n
}

/// ftruncate(2).
pub(crate) fn ftruncate(fd: c_int, len: off_t) -> c_int {
    let me = begin(Op::FileWrite);
    // SAFETY: plain ftruncate(2).
    let code = raw::ret(unsafe { sys!(Sysno::ftruncate, fd, len) }) as c_int;
    if me != 0 && code == 0 {
        files::touched(fd);
    }
    code
}

/// close(2).
pub(crate) fn close(fd: c_int) -> c_int {
    let me = begin(Op::Close);
    if virtual_of(me, fd).is_some() {
        let _ = vkernel().fd_close(&mut Effects, crate::process::current(), fd);
    }
    close_real(fd)
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
    raw::ret(unsafe { sys!(Sysno::close_range, first, last, flags) }) as c_int
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

fn duplicated(me: Slot, old: c_int, new: c_int, cloexec: bool) -> c_int {
    if new >= 0 && me != 0 {
        files::duplicate(old, new);
        if virtual_of(me, old).is_some() {
            let process = crate::process::current();
            let _ = vkernel().fd_dup(&mut Effects, process, old, new, cloexec);
        }
    }
    new
}

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

/// sendfile(2), by way of memory.
pub(crate) unsafe fn sendfile(
    out: c_int,
    input: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    let me = begin(Op::Send);
    let Some(desc) = virtual_of(me, out).filter(|&d| vkernel().kind(d).is_ok()) else {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::sendfile, out, input, offset, count) });
    };
    if virtual_of(me, input).is_some() || vkernel().kind(desc) == Ok(Kind::Epoll) {
        return fail(libc::EINVAL) as ssize_t;
    }
    let mut buffer = [0u8; 8192];
    let mut sent = 0usize;
    while sent < count {
        let want = buffer.len().min(count - sent);
        // SAFETY: reads into our buffer; `offset` is valid or null.
        let got = unsafe {
            if offset.is_null() {
                raw::ret(sys!(Sysno::read, input, buffer.as_mut_ptr(), want))
            } else {
                raw::ret(sys!(
                    Sysno::pread64,
                    input,
                    buffer.as_mut_ptr(),
                    want,
                    *offset
                ))
            }
        };
        if got <= 0 {
            return if sent > 0 || got == 0 {
                sent as ssize_t
            } else {
                got
            };
        }
        let part = iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: got as usize,
        };
        // SAFETY: the part is our buffer.
        let n = unsafe { write_parts(me, desc, &[part], nonblocking(desc), None, false) };
        let taken = n.max(0);
        // SAFETY: as above. Without an offset the file's position goes back to
        // what was really sent.
        unsafe {
            if !offset.is_null() {
                *offset += taken as off_t;
            } else if taken < got {
                sys!(Sysno::lseek, input, taken - got, libc::SEEK_CUR);
            }
        }
        if n < 0 {
            return if sent > 0 { sent as ssize_t } else { n };
        }
        sent += n as usize;
        if n < got {
            break;
        }
    }
    sent as ssize_t
}
