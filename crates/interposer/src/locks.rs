//! Locks on files: fcntl(2), flock(2), lockf(3).
//!
//! The locks are the kernel's, on the replica's own files. As they are only
//! asked for by the holder of the turn and never waited for in the kernel, who
//! has which lock is the same on every replica; who waits does so in the
//! schedule and tries again when somebody gives something up.

use crate::raw::{self, fail, sys};
use crate::signals;
use crate::turn::{self, Op, begin};
use crate::world::world;
use core::ffi::{c_int, c_ulong};
use crane_scheduler::{Slot, Wake};
use syscalls::Sysno;

const KEY: u64 = 0x52 << 56;

/// A lock may have become free.
#[inline]
pub(crate) fn others_go_on() {
    if world().lock_waiters > 0 {
        turn::wake_all(KEY);
    }
}

/// Tries until the lock is there: `attempt` must not wait.
fn waiting(me: Slot, wait: bool, mut attempt: impl FnMut() -> isize) -> c_int {
    loop {
        let code = -attempt();
        if code <= 0 {
            // A lock may have become weaker, or have been given up.
            others_go_on();
            return 0;
        }
        let code = code as c_int;
        if !wait || code != libc::EAGAIN && code != libc::EACCES || me == 0 {
            return fail(code);
        }
        world().lock_waiters += 1;
        let why = turn::wait(me, KEY, None);
        world().lock_waiters -= 1;
        if why == Wake::Interrupted && !signals::restarts() {
            return fail(libc::EINTR);
        }
    }
}

/// The commands of fcntl(2) that are about locks; `None` for all others.
pub(crate) fn control(me: Slot, fd: c_int, command: c_int, argument: c_ulong) -> Option<c_int> {
    let (command, wait) = match command {
        libc::F_SETLK | libc::F_OFD_SETLK => (command, false),
        libc::F_SETLKW => (libc::F_SETLK, true),
        libc::F_OFD_SETLKW => (libc::F_OFD_SETLK, true),
        _ => return None,
    };
    Some(waiting(me, wait, || {
        // SAFETY: the caller passes a lock; this never waits.
        unsafe { sys!(Sysno::fcntl, fd, command, argument) as isize }
    }))
}

/// flock(2).
pub(crate) fn flock(fd: c_int, operation: c_int) -> c_int {
    let me = begin(Op::FileLock);
    waiting(me, operation & libc::LOCK_NB == 0, || {
        // SAFETY: plain flock(2); this never waits.
        unsafe { sys!(Sysno::flock, fd, operation | libc::LOCK_NB) as isize }
    })
}

/// lockf(3).
pub(crate) fn lockf(fd: c_int, command: c_int, length: i64) -> c_int {
    let me = begin(Op::FileLock);
    // SAFETY: all-zero is a valid flock.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_whence = libc::SEEK_CUR as i16;
    lock.l_len = length;
    lock.l_type = libc::F_WRLCK as i16;
    match command {
        libc::F_ULOCK => lock.l_type = libc::F_UNLCK as i16,
        libc::F_LOCK | libc::F_TLOCK => {}
        libc::F_TEST => {
            lock.l_type = libc::F_RDLCK as i16;
            // SAFETY: plain fcntl(2) with a valid lock.
            let code =
                raw::ret(unsafe { sys!(Sysno::fcntl, fd, libc::F_GETLK, &raw mut lock) }) as c_int;
            let free = lock.l_type == libc::F_UNLCK as i16 || lock.l_pid == raw::getpid() as i32;
            return match code {
                0 if free => 0,
                0 => fail(libc::EACCES),
                _ => code,
            };
        }
        _ => return fail(libc::EINVAL),
    }
    let at = (&raw mut lock) as c_ulong;
    control(
        me,
        fd,
        if command == libc::F_LOCK {
            libc::F_SETLKW
        } else {
            libc::F_SETLK
        },
        at,
    )
    .unwrap_or(0)
}

/// A process is about to end: what the kernel would undo at its real end is
/// undone now. (Its files are closed by the caller.)
pub(crate) fn process_ends(index: u32) {
    if world().processes[index as usize].undo != 0 {
        // SAFETY: gives up the list of operations to be undone, which undoes
        // them; it needs no privilege.
        unsafe { sys!(Sysno::unshare, libc::CLONE_SYSVSEM) };
        crate::sysv::all_go_on();
    }
}
