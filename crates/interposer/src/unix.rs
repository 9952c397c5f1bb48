//! Names of Unix sockets.
//!
//! A name in the file system is a real one, made by binding the placeholder:
//! what chmod, unlink and stat then do needs no work. Two ways to write a path
//! are the same name if they lead to the same file. Connected sockets have
//! connected placeholders, so that descriptors can be passed (see `ancillary`)
//! and the kernel knows who the peer is.

use crate::boundary::Effects;
use crate::fds::{blocking, nonblocking};
use crate::inodes::{self, Seen};
use crate::raw::sys;
use crate::sockets::{placeholder, time_limit};
use crate::world::vkernel;
use core::ffi::c_int;
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Kind, SockOption};
use syscalls::Sysno;

/// Longest path of a socket, with a NUL behind it.
const PATH: usize = 109;

fn checked(code: usize) -> Result<(), c_int> {
    match code as isize {
        code if code < 0 => Err(-code as c_int),
        _ => Ok(()),
    }
}

/// The path of an address as a C string, `None` if it has none.
fn path(address: &[u8]) -> Option<[u8; PATH]> {
    let name = address
        .get(2..)
        .filter(|name| name.first().is_some_and(|b| *b != 0))?;
    let mut path = [0; PATH];
    let name = &name[..name.len().min(PATH - 1)];
    path[..name.len()].copy_from_slice(name);
    Some(path)
}

/// What is equal for all ways to write the same file, and after a restore.
fn key_of(path: &[u8; PATH]) -> Result<u64, c_int> {
    let found = inodes::examine(libc::AT_FDCWD, path.as_ptr().cast(), 0).map_err(|e| -e)?;
    if u32::from(found.stx_mode) & libc::S_IFMT != libc::S_IFSOCK {
        return Err(libc::ECONNREFUSED);
    }
    let seen = Seen {
        dir: libc::AT_FDCWD,
        path: path.as_ptr().cast(),
    };
    inodes::lasting(&found, seen).ok_or(libc::ENOMEM)
}

/// The key of the name that `address` gives to a socket of the group; for what
/// is not a path, none.
pub(crate) fn key(address: &[u8]) -> Result<Option<u64>, c_int> {
    let Some(path) = path(address) else {
        return Ok(None);
    };
    // SAFETY: plain access(2) on a C string: a socket needs to be writable.
    checked(unsafe { sys!(Sysno::access, path.as_ptr(), libc::W_OK) })?;
    key_of(&path).map(Some)
}

fn bind_placeholder(fd: c_int, address: &[u8]) -> Result<(), c_int> {
    // SAFETY: plain bind(2) with a valid address.
    checked(unsafe { sys!(Sysno::bind, fd, address.as_ptr(), address.len()) })
}

/// bind(2) of a Unix socket.
pub(crate) fn bind(fd: c_int, desc: DescId, address: &[u8]) -> Result<(), c_int> {
    let Some(path) = path(address) else {
        vkernel().bind(desc, address).map_err(|e| e.0)?;
        if let Ok(name) = vkernel().getsockname(desc) {
            // Only for what descriptors pass through: the name is ours to give.
            let _ = bind_placeholder(fd, name.as_bytes());
        }
        return Ok(());
    };
    // A socket that has a name already says so before a file is made.
    if vkernel()
        .getsockname(desc)
        .is_ok_and(|name| name.as_bytes().len() > 2)
    {
        return Err(libc::EINVAL);
    }
    bind_placeholder(fd, address)?;
    let key = key_of(&path).ok();
    vkernel().bind_keyed(desc, address, key).map_err(|e| e.0)
}

/// After listen(2) of a Unix socket: its placeholder listens too.
pub(crate) fn listen(fd: c_int, backlog: c_int) {
    // SAFETY: plain listen(2).
    unsafe { sys!(Sysno::listen, fd, backlog) };
}

/// connect(2) of a Unix socket.
pub(crate) unsafe fn connect(
    me: Slot,
    fd: c_int,
    desc: DescId,
    address: &[u8],
) -> Result<(), c_int> {
    let limit = time_limit(desc, SockOption::SendTimeout);
    let wait = nonblocking(desc);
    blocking(me, desc, Dir::Write, wait, limit, || {
        // The file may have changed while this thread waited.
        let key = key(address).map_err(crane_vkernel::Errno)?;
        vkernel().connect_keyed(&mut Effects, desc, address, key)
    })?;
    // SAFETY: plain connect(2); the listener's placeholder has room when the
    // listener has, so this does not wait.
    unsafe { sys!(Sysno::connect, fd, address.as_ptr(), address.len()) };
    Ok(())
}

/// The placeholder of an accepted Unix socket: the other end of its client's,
/// if the client is in the group.
pub(crate) fn accept(listener: c_int, child: DescId, kind: c_int) -> c_int {
    if !vkernel().is_external(child) {
        let mut ready = libc::pollfd {
            fd: listener,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: polls one descriptor without waiting, then takes what is there.
        unsafe {
            if sys!(Sysno::poll, &raw mut ready, 1, 0) == 1 {
                let flags = kind & libc::SOCK_CLOEXEC;
                let new = sys!(Sysno::accept4, listener, 0, 0, flags) as isize;
                if new >= 0 {
                    return new as c_int;
                }
            }
        }
    }
    placeholder(libc::AF_UNIX, kind, 0)
}

/// Whether messages of this socket go to any address: a Unix datagram socket.
pub(crate) fn is_datagram(desc: DescId) -> bool {
    vkernel().kind(desc) == Ok(Kind::Datagram) && vkernel().domain(desc) == Ok(libc::AF_UNIX)
}
