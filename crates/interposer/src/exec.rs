//! The exec family.
//!
//! The calling thread keeps the turn until the new image attaches, and the
//! image is looked at before: an exec that would start something in which the
//! interposer is not, fails. The environment of the new image always has the
//! interposer in it, whatever the program gave.
//!
//! The C library's own look-ups end in its own execve, which nobody would see,
//! so all of them are done here.

use crate::image::{self, Image, LIBRARY};
use crate::process;
use crate::raw::{self, Pages, fail, sys};
use crate::refuse::{self, Unsupported};
use crate::transfer;
use crate::tsc;
use crate::turn::{self, Op, begin};
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int};
use core::ptr::null;
use syscalls::Sysno;

/// A list of strings that ends with null, as argv and envp are.
type Strings = *const *const c_char;

/// execve(2).
pub(crate) unsafe fn execve(
    path: *const c_char,
    arguments: Strings,
    environment: Strings,
) -> c_int {
    // SAFETY: same contract.
    unsafe { execveat(libc::AT_FDCWD, path, arguments, environment, 0) }
}

/// fexecve(3).
pub(crate) unsafe fn fexecve(fd: c_int, arguments: Strings, environment: Strings) -> c_int {
    if fd < 0 || arguments.is_null() || environment.is_null() {
        return fail(libc::EINVAL);
    }
    // SAFETY: same contract.
    unsafe {
        execveat(
            fd,
            c"".as_ptr(),
            arguments,
            environment,
            libc::AT_EMPTY_PATH,
        )
    }
}

/// execveat(2): the calling thread keeps the turn until the new image attaches.
pub(crate) unsafe fn execveat(
    directory: c_int,
    path: *const c_char,
    arguments: Strings,
    environment: Strings,
    flags: c_int,
) -> c_int {
    let me = begin(Op::Exec);
    match image::examine(directory, path, flags) {
        Err(code) => return fail(code),
        Ok(Image::Text) => return fail(libc::ENOEXEC),
        Ok(Image::Refused(why)) => {
            refuse::count(Unsupported::Image);
            turn::report(false, &why);
            let text = raw::line!(
                "crane: {}\n",
                core::str::from_utf8(why.as_bytes()).unwrap_or("?")
            );
            let text = text.as_bytes();
            // SAFETY: our own text; its standard error may be virtual.
            unsafe { transfer::write(2, text.as_ptr().cast(), text.len()) };
            return fail(libc::EPERM);
        }
        Ok(Image::Good) => {}
    }
    // SAFETY: the caller passes a list of C strings or null.
    let Some(environment) = (unsafe { with_interposer(environment) }) else {
        return fail(libc::ENOMEM);
    };
    if me != 0 {
        process::exec_begins(me);
    }
    tsc::lift();
    crate::spin::hear(false);
    // SAFETY: same contract; the list of variables is whole.
    let code = unsafe {
        sys!(
            Sysno::execveat,
            directory,
            path,
            arguments,
            environment.list,
            flags
        )
    };
    // Back here: it failed, and nothing was given up yet.
    tsc::guard_again();
    crate::spin::hear(true);
    if me != 0 {
        process::exec_failed();
    }
    raw::ret(code) as c_int
}

/// An environment with the interposer in it.
struct Environment {
    list: Strings,
    /// What holds it, when the program's own could not be used.
    _room: Option<Pages>,
}

/// The program's variables, with the interposer put back where it was taken out.
unsafe fn with_interposer(given: Strings) -> Option<Environment> {
    const NAME: &[u8] = b"LD_PRELOAD=";
    let mut count = 0;
    let mut place = None;
    let mut others = &b""[..];
    // SAFETY: the caller passes a list of C strings that ends with null, or null.
    unsafe {
        while !given.is_null() && !(*given.add(count)).is_null() {
            let text = CStr::from_ptr(*given.add(count)).to_bytes();
            if let Some(value) = text.strip_prefix(NAME) {
                let mut names = value.split(|&b| b == b':' || b == b' ');
                if names.next() == Some(LIBRARY.to_bytes()) {
                    return Some(Environment {
                        list: given,
                        _room: None,
                    });
                }
                (place, others) = (Some(count), value);
            }
            count += 1;
        }
        let library = LIBRARY.to_bytes();
        let list = (count + 2) * size_of::<*const c_char>();
        let text = NAME.len() + library.len() + 1 + others.len() + 1;
        let room = Pages::new(list + text)?;
        // SAFETY: the mapping is that long, and zeroed: the list and the text end.
        let to = room.start().cast::<*const c_char>();
        let mut text = room.start().add(list);
        let start = text;
        for part in [
            NAME,
            library,
            if others.is_empty() { b"" } else { b":" },
            others,
        ] {
            core::ptr::copy_nonoverlapping(part.as_ptr(), text, part.len());
            text = text.add(part.len());
        }
        for i in 0..count {
            *to.add(i) = *given.add(i);
        }
        *to.add(place.unwrap_or(count)) = start.cast();
        Some(Environment {
            list: to.cast_const(),
            _room: Some(room),
        })
    }
}

/// execvpe(3).
pub(crate) unsafe fn execvpe(
    file: *const c_char,
    arguments: Strings,
    environment: Strings,
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

/// execve(2), and for a text without `#!` the shell, as execvp(3) does.
unsafe fn exec_or_shell(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
    // SAFETY: same contract; a list of arguments that ends with null.
    unsafe {
        let code = execve(path, arguments, environment);
        if *libc::__errno_location() != libc::ENOEXEC {
            return code;
        }
        let mut count = 0;
        while !arguments.is_null() && !(*arguments.add(count)).is_null() {
            count += 1;
        }
        let Some(room) = Pages::new((count + 3) * size_of::<*const c_char>()) else {
            return fail(libc::ENOMEM);
        };
        let list = room.start().cast::<*const c_char>();
        *list = c"sh".as_ptr();
        *list.add(1) = path;
        for i in 1..count {
            *list.add(i + 1) = *arguments.add(i);
        }
        execve(c"/bin/sh".as_ptr(), list, environment)
    }
}

/// How the arguments that follow a variadic function's second are found: three
/// of them lie where the entry code below saved the registers, the others on
/// the caller's stack.
struct Listed {
    saved: *const *const c_char,
    stack: *const *const c_char,
}

impl Listed {
    /// Argument `i` of the list, the first being that in the second register.
    unsafe fn get(&self, i: usize) -> *const c_char {
        // SAFETY: the caller of execl passes a list that ends with null.
        unsafe {
            if i < 5 {
                *self.saved.add(i)
            } else {
                *self.stack.add(i - 5)
            }
        }
    }

    /// The list as an array, with what comes behind its end.
    unsafe fn collect(&self) -> Option<(Pages, *const c_char)> {
        let mut count = 0;
        // SAFETY: as above; the room is for all of them and the end.
        unsafe {
            while !self.get(count).is_null() {
                count += 1;
            }
            let room = Pages::new((count + 1) * size_of::<*const c_char>())?;
            for i in 0..count {
                *room.start().cast::<*const c_char>().add(i) = self.get(i);
            }
            Some((room, self.get(count + 1)))
        }
    }
}

/// Puts the five registers behind the first argument into memory and calls
/// `$with(first, saved, stack)`.
macro_rules! with_list {
    ($with:ident) => {
        naked_asm!(
            "lea rax, [rsp + 8]",
            "sub rsp, 56",
            "mov [rsp], rsi",
            "mov [rsp + 8], rdx",
            "mov [rsp + 16], rcx",
            "mov [rsp + 24], r8",
            "mov [rsp + 32], r9",
            "mov rsi, rsp",
            "mov rdx, rax",
            "call {with}",
            "add rsp, 56",
            "ret",
            with = sym $with,
        )
    };
}

/// execl(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execl(path: *const c_char, first: *const c_char) -> c_int {
    with_list!(exec_list)
}

/// execlp(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execlp(file: *const c_char, first: *const c_char) -> c_int {
    with_list!(exec_list_in_path)
}

/// execle(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execle(path: *const c_char, first: *const c_char) -> c_int {
    with_list!(exec_list_and_environment)
}

unsafe extern "C" fn exec_list(path: *const c_char, saved: Strings, stack: Strings) -> c_int {
    // SAFETY: the entry code above passes what the caller gave.
    match unsafe { Listed { saved, stack }.collect() } {
        // SAFETY: same contract; the list is whole.
        Some((list, _)) => unsafe { execve(path, list.start().cast(), process::environment()) },
        None => fail(libc::ENOMEM),
    }
}

unsafe extern "C" fn exec_list_in_path(
    file: *const c_char,
    saved: Strings,
    stack: Strings,
) -> c_int {
    // SAFETY: as above.
    match unsafe { Listed { saved, stack }.collect() } {
        // SAFETY: as above.
        Some((list, _)) => unsafe { execvpe(file, list.start().cast(), process::environment()) },
        None => fail(libc::ENOMEM),
    }
}

unsafe extern "C" fn exec_list_and_environment(
    path: *const c_char,
    saved: Strings,
    stack: Strings,
) -> c_int {
    // SAFETY: as above.
    match unsafe { Listed { saved, stack }.collect() } {
        // SAFETY: as above; execle(3) has the environment behind the list's end.
        Some((list, environment)) => unsafe {
            let environment = if environment.is_null() {
                null()
            } else {
                environment.cast()
            };
            execve(path, list.start().cast(), environment)
        },
        None => fail(libc::ENOMEM),
    }
}
