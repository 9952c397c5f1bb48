//! execvp(3) and execvpe(3): the file is looked up here, because the C
//! library's own look-up ends in its own execve, which nobody would see.

use crate::process;
use crate::raw::{fail, sys};
use core::ffi::{CStr, c_char, c_int};
use syscalls::Sysno;

/// execvpe(3).
pub(crate) unsafe fn execvpe(
    file: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    // SAFETY: the caller passes a C string.
    let name = unsafe { CStr::from_ptr(file) }.to_bytes();
    if name.contains(&b'/') {
        // SAFETY: same contract.
        return unsafe { exec_or_shell(file, arguments, environment) };
    }
    // SAFETY: the caller holds the turn, so nobody changes the environment.
    let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
    let path = if path.is_null() {
        &b"/bin:/usr/bin"[..]
    } else {
        // SAFETY: a variable's value is a C string.
        unsafe { CStr::from_ptr(path) }.to_bytes()
    };
    let mut failure = libc::ENOENT;
    for directory in path.split(|&byte| byte == b':') {
        let mut place = [0u8; libc::PATH_MAX as usize];
        let length = directory.len() + 1 + name.len();
        if name.is_empty() || length >= place.len() {
            continue;
        }
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        place[..directory.len()].copy_from_slice(directory);
        place[directory.len()] = b'/';
        place[directory.len() + 1..][..name.len()].copy_from_slice(name);
        // SAFETY: a C string, because the array was zeroed; same contract.
        unsafe { exec_or_shell(place.as_ptr().cast(), arguments, environment) };
        // SAFETY: errno is the thread's own.
        match unsafe { *libc::__errno_location() } {
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            libc::EACCES => failure = libc::EACCES,
            _ => return -1,
        }
    }
    fail(failure)
}

/// Most arguments of a script without an interpreter's name.
const SHELL_ARGUMENTS: usize = 1024;

/// execve(2), and for a text without `#!` the shell, as execvp(3) does.
unsafe fn exec_or_shell(
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> c_int {
    match kind_of(path) {
        Ok(Kind::Program) => {
            // SAFETY: same contract.
            return unsafe { process::execve(path, arguments, environment) };
        }
        Ok(Kind::Text) => {}
        Err(code) => return fail(code),
    }
    let mut list = [core::ptr::null(); SHELL_ARGUMENTS];
    (list[0], list[1]) = (c"sh".as_ptr(), path);
    // SAFETY: a list of arguments that ends with null.
    unsafe {
        let mut count = 1;
        while !(*arguments).is_null() && !(*arguments.add(count)).is_null() {
            if count + 2 >= SHELL_ARGUMENTS {
                return fail(libc::E2BIG);
            }
            list[count + 1] = *arguments.add(count);
            count += 1;
        }
        process::execve(c"/bin/sh".as_ptr(), list.as_ptr(), environment)
    }
}

enum Kind {
    Program,
    Text,
}

/// What the kernel would do with a file, asked beforehand, because an execve
/// that failed has ended this process's other threads.
fn kind_of(path: *const c_char) -> Result<Kind, c_int> {
    let mut head = [0u8; 4];
    // SAFETY: plain system calls on the caller's path with valid buffers.
    let (found, count) = unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        let found = sys!(Sysno::stat, path, &raw mut st);
        let regular = st.st_mode & libc::S_IFMT == libc::S_IFREG;
        if found == 0 && !regular {
            return Err(libc::EACCES);
        }
        let fd = sys!(
            Sysno::openat,
            libc::AT_FDCWD,
            path,
            libc::O_RDONLY | libc::O_CLOEXEC,
            0
        );
        let count = sys!(Sysno::read, fd, head.as_mut_ptr(), head.len());
        sys!(Sysno::close, fd);
        (found as isize, count as isize)
    };
    if found < 0 {
        return Err(-found as c_int);
    }
    // What may be executed and not read is a program.
    let known = count < 0 || head == *b"\x7fELF" || head.starts_with(b"#!");
    Ok(if known { Kind::Program } else { Kind::Text })
}
