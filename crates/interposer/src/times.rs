//! Times that a program sets on files: what it set is what stat shows.

use crate::clock;
use crate::inodes;
use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use core::ffi::{c_char, c_int};
use libc::{timespec, timeval, utimbuf};
use syscalls::Sysno;

/// A time for the kernel and the one that is shown.
fn moment(time: &timespec) -> u64 {
    if time.tv_nsec == libc::UTIME_NOW {
        return clock::now();
    }
    let seconds = (time.tv_sec as u64).saturating_mul(1_000_000_000);
    seconds.saturating_add(time.tv_nsec as u64)
}

/// utimensat(2); without a path, of the descriptor.
pub(crate) unsafe fn utimensat(
    dir: c_int,
    path: *const c_char,
    times: *const timespec,
    flags: c_int,
) -> c_int {
    begin(Op::Control);
    // SAFETY: the caller keeps the contract of utimensat(2): two times or null.
    let (code, changed) = unsafe {
        let code = raw::ret(sys!(Sysno::utimensat, dir, path, times, flags)) as c_int;
        (code, (!times.is_null()).then(|| *times.add(1)))
    };
    let time = match &changed {
        Some(time) if time.tv_nsec == libc::UTIME_OMIT => return code,
        Some(time) => moment(time),
        None => clock::now(),
    };
    if code == 0 {
        if path.is_null() {
            inodes::set_time(dir, c"".as_ptr(), libc::AT_EMPTY_PATH, time);
        } else {
            inodes::set_time(dir, path, flags & libc::AT_SYMLINK_NOFOLLOW, time);
        }
    }
    code
}

/// futimens(3).
pub(crate) unsafe fn futimens(fd: c_int, times: *const timespec) -> c_int {
    if fd < 0 {
        begin(Op::Control);
        return fail(libc::EBADF);
    }
    // SAFETY: same contract.
    unsafe { utimensat(fd, core::ptr::null(), times, 0) }
}

/// utimes(2) and its relatives, with microseconds.
pub(crate) unsafe fn utimes(
    dir: c_int,
    path: *const c_char,
    times: *const timeval,
    flags: c_int,
) -> c_int {
    let micros = 0..1_000_000;
    // SAFETY: the caller passes two times or null.
    unsafe {
        if times.is_null() {
            return utimensat(dir, path, core::ptr::null(), flags);
        }
        let both = [*times, *times.add(1)];
        if both.iter().any(|one| !micros.contains(&one.tv_usec)) {
            begin(Op::Control);
            return fail(libc::EINVAL);
        }
        let both = both.map(|one| timespec {
            tv_sec: one.tv_sec,
            tv_nsec: one.tv_usec * 1000,
        });
        utimensat(dir, path, both.as_ptr(), flags)
    }
}

/// utime(2), with seconds.
pub(crate) unsafe fn utime(path: *const c_char, times: *const utimbuf) -> c_int {
    // SAFETY: the caller passes a structure or null.
    unsafe {
        if times.is_null() {
            return utimensat(libc::AT_FDCWD, path, core::ptr::null(), 0);
        }
        let second = |tv_sec| timespec { tv_sec, tv_nsec: 0 };
        let both = [second((*times).actime), second((*times).modtime)];
        utimensat(libc::AT_FDCWD, path, both.as_ptr(), 0)
    }
}
