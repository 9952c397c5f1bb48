//! Streams of the C library on virtual descriptors.
//!
//! A stream reads and writes inside the C library, on the placeholder, where
//! nothing ever is. So a stream on a virtual descriptor is made with functions
//! of ours behind it (fopencookie(3)), and when one of the descriptors 0, 1 and
//! 2 becomes virtual, the program's `stdin`, `stdout` or `stderr` becomes such
//! a stream. It goes on to work when the descriptor becomes real again.

use crate::boundary::Effects;
use crate::fds::{self, virtual_of};
use crate::raw::{fail, sys};
use crate::real::real;
use crate::turn::{Op, begin};
use crate::world::{vkernel, world};
use crate::{files, inodes, tls};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crane_scheduler::Slot;
use libc::FILE;
use syscalls::Sysno;

unsafe extern "C" {
    static mut stdin: *mut FILE;
    static mut stdout: *mut FILE;
    static mut stderr: *mut FILE;
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, f: CookieFunctions) -> *mut FILE;
    fn __fpending(file: *mut FILE) -> usize;
    fn __fpurge(file: *mut FILE);
    fn __flbf(file: *mut FILE) -> c_int;
}

/// cookie_io_functions_t of fopencookie(3).
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

const FUNCTIONS: CookieFunctions = CookieFunctions {
    read: Some(read),
    write: Some(write),
    seek: Some(seek),
    close: Some(close),
};

/// Place of the descriptor in the C library's FILE on x86-64, which fileno(3)
/// shows; nothing else looks at it in a stream with functions.
const FILENO: usize = 112;
/// Place of the beginning of what is buffered for writing.
const WRITE_BASE: usize = 32;

fn descriptor(cookie: *mut c_void) -> c_int {
    cookie as usize as c_int
}

/// Runs `f` without giving the turn away where it can: the stream is locked,
/// inside the C library, where another thread could wait for it unseen.
fn holding<R>(me: Slot, hold: bool, f: impl FnOnce() -> R) -> R {
    if !hold || me == 0 {
        return f();
    }
    world().threads[me as usize].pinned += 1;
    let result = f();
    world().threads[me as usize].pinned -= 1;
    result
}

/// Whether a read of `fd` need not wait.
fn has_something(me: Slot, fd: c_int) -> bool {
    let ready = |desc| vkernel().readiness(desc).unwrap_or(0);
    virtual_of(me, fd).is_none_or(|desc| ready(desc) & libc::POLLIN as u32 != 0)
}

/// Whether a write of a page to `fd` need not wait. A pipe that other threads of
/// the process might print into, too, is made longer rather than waited for.
fn has_room(me: Slot, fd: c_int) -> bool {
    let Some(desc) = virtual_of(me, fd) else {
        return true;
    };
    if vkernel().readiness(desc).unwrap_or(0) & libc::POLLOUT as u32 != 0 {
        return true;
    }
    let w = world();
    let process = w.threads[me as usize].process;
    let alone = (1..w.scheduler.slots_end()).all(|slot| {
        slot == me || !w.scheduler.exists(slot) || w.threads[slot as usize].process != process
    });
    let Ok(capacity) = vkernel().pipe_capacity(desc) else {
        return false;
    };
    !alone
        && vkernel()
            .pipe_set_capacity(&mut Effects, desc, capacity * 2)
            .is_ok()
}

unsafe extern "C" fn read(cookie: *mut c_void, to: *mut c_char, length: usize) -> isize {
    let (me, fd) = (tls::slot(), descriptor(cookie));
    // SAFETY: stdio passes its own buffer of that length.
    holding(me, has_something(me, fd), || unsafe {
        crate::transfer::read(fd, to.cast(), length)
    })
}

unsafe extern "C" fn write(cookie: *mut c_void, from: *const c_char, length: usize) -> isize {
    let (me, fd) = (tls::slot(), descriptor(cookie));
    let mut done = 0;
    while done < length {
        let part = (length - done).min(BUFFER);
        // SAFETY: stdio passes its own buffer of that length.
        let n = holding(me, has_room(me, fd), || unsafe {
            crate::transfer::write(fd, from.add(done).cast(), part)
        });
        if n < 0 {
            // 0 is how such a function says that it failed.
            return done as isize;
        }
        done += n as usize;
    }
    done as isize
}

unsafe extern "C" fn seek(cookie: *mut c_void, offset: *mut i64, whence: c_int) -> c_int {
    // SAFETY: plain lseek(2); stdio passes a place.
    unsafe {
        let at = sys!(Sysno::lseek, descriptor(cookie), *offset, whence) as i64;
        if at < 0 {
            return fail(-at as c_int);
        }
        *offset = at;
    }
    0
}

unsafe extern "C" fn close(cookie: *mut c_void) -> c_int {
    fds::close(descriptor(cookie))
}

/// Makes a stream of ours.
unsafe fn make(fd: c_int, mode: *const c_char) -> *mut FILE {
    // SAFETY: the functions take a descriptor as their cookie.
    unsafe {
        let file = fopencookie(fd as usize as *mut c_void, mode, FUNCTIONS);
        if !file.is_null() {
            file.cast::<u8>().add(FILENO).cast::<c_int>().write(fd);
        }
        file
    }
}

/// fdopen(3).
pub(crate) unsafe fn fdopen(fd: c_int, mode: *const c_char) -> *mut FILE {
    let me = begin(Op::Open);
    // SAFETY: same contract.
    unsafe {
        if virtual_of(me, fd).is_some() {
            let text = CStr::from_ptr(mode).to_bytes();
            if text.contains(&b'e') {
                crate::control::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC as u64);
            }
            make(fd, mode)
        } else {
            (real().fdopen)(fd, mode)
        }
    }
}

/// freopen(3): the C library puts a real file behind the stream's number.
pub(crate) unsafe fn freopen(
    path: *const c_char,
    mode: *const c_char,
    file: *mut FILE,
) -> *mut FILE {
    begin(Op::Open);
    // SAFETY: same contract.
    unsafe {
        let fd = libc::fileno(file);
        let new = (real().freopen)(path, mode, file);
        if fd >= 0 {
            files::forget(fd);
            fds::drop_virtual(fd);
        }
        if !new.is_null() && *mode != b'r' as c_char {
            inodes::touched(libc::fileno(new));
        }
        new
    }
}

/// Whether each of the three has been replaced in this image.
static REPLACED: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// Buffer of a replaced standard output, as long as that of a pipe's.
const BUFFER: usize = 4096;
static mut OUTPUT: [u8; BUFFER] = [0; BUFFER];

/// Set once the C library is ready for streams: our constructor has run.
static READY: AtomicUsize = AtomicUsize::new(0);

/// The C library is set up: looks at what this image was started with.
pub(crate) fn ready() {
    READY.store(1, Ordering::Relaxed);
    for fd in 0..3 {
        look_at(fd);
    }
}

/// A descriptor may have become virtual.
#[inline]
pub(crate) fn look_at(fd: c_int) {
    if (0..3).contains(&fd) && virtual_of(tls::slot(), fd).is_some() {
        replace(fd);
    }
}

#[cold]
fn replace(fd: c_int) {
    if READY.load(Ordering::Relaxed) == 0 || REPLACED[fd as usize].swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the C library's three variables; the caller holds the turn. What
    // is buffered and not written yet goes to the new stream, as it would have
    // gone to what is behind the number now.
    unsafe {
        let variable = match fd {
            0 => &raw mut stdin,
            1 => &raw mut stdout,
            _ => &raw mut stderr,
        };
        let old = *variable;
        if old.is_null() {
            return;
        }
        let mode = if fd == 0 { c"r" } else { c"w" };
        let new = make(fd, mode.as_ptr());
        if new.is_null() {
            return;
        }
        if fd == 1 {
            let how = if __flbf(old) != 0 {
                libc::_IOLBF
            } else {
                libc::_IOFBF
            };
            libc::setvbuf(new, (&raw mut OUTPUT).cast(), how, BUFFER);
        } else if fd == 2 {
            libc::setvbuf(new, core::ptr::null_mut(), libc::_IONBF, 0);
        }
        let waiting = if fd == 0 { 0 } else { __fpending(old) };
        if waiting > 0 {
            let base = old
                .cast::<u8>()
                .add(WRITE_BASE)
                .cast::<*const c_void>()
                .read();
            libc::fwrite(base, 1, waiting, new);
            __fpurge(old);
        }
        *variable = new;
    }
}
