//! Files: opening and asking about them, and the special files of /proc and /dev
//! that would show the machine.
//!
//! Regular files are the real ones of the replica's own overlay. What stat(2)
//! shows of them is made equal, see `inodes`.

use crate::inodes::{self, Seen, touched};
use crate::machine::{self, Special};
use crate::raw::{fail, sys};
use crate::real::real;
use crate::refuse::{self, Unsupported};
use crate::turn::{Op, begin};
use crate::{random, raw};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use syscalls::Sysno;

const FDS: usize = 65536;

/// Descriptors that read from the random stream, one bit each.
static RANDOM: [AtomicU64; FDS / 64] = [const { AtomicU64::new(0) }; FDS / 64];

/// Forgets what is known of a descriptor: it was closed or replaced.
pub(crate) fn forget(fd: c_int) {
    inodes::forget(fd);
    if let Some(word) = RANDOM.get(fd as usize / 64) {
        word.fetch_and(!(1 << (fd as usize % 64)), Ordering::Relaxed);
    }
}

/// Copies what is known of a descriptor to its duplicate.
pub(crate) fn duplicate(old: c_int, new: c_int) {
    forget(new);
    if is_random(old) {
        mark_random(new);
    }
}

/// Whether reads of `fd` come from the random stream.
pub(crate) fn is_random(fd: c_int) -> bool {
    let word = RANDOM.get((fd as usize) / 64);
    word.is_some_and(|w| w.load(Ordering::Relaxed) >> (fd as usize % 64) & 1 != 0)
}

fn mark_random(fd: c_int) {
    if let Some(word) = RANDOM.get((fd as usize) / 64) {
        word.fetch_or(1 << (fd as usize % 64), Ordering::Relaxed);
    }
}

/// Flags that fstatat(2) knows.
const STAT_FLAGS: c_int = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;

/// fstatat(2) and its relatives.
pub(crate) unsafe fn stat(
    dir: c_int,
    path: *const c_char,
    st: *mut libc::stat,
    flags: c_int,
) -> c_int {
    begin(Op::Stat);
    if flags & !STAT_FLAGS != 0 {
        return raw::fail(libc::EINVAL);
    }
    match inodes::examine(dir, path, flags) {
        Ok(mut found) => {
            inodes::equalise(&mut found, Seen { dir, path });
            // SAFETY: the caller passes room for one.
            unsafe { st.write(inodes::as_stat(&found)) };
            0
        }
        Err(code) => raw::fail(-code),
    }
}

/// Whether there is a directory of that name, for other calls to ask.
pub(crate) fn is_directory(path: *const c_char) -> bool {
    inodes::examine(libc::AT_FDCWD, path, 0)
        .is_ok_and(|found| u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR)
}

/// fstat(2).
pub(crate) unsafe fn fstat(fd: c_int, st: *mut libc::stat) -> c_int {
    // A negative number is AT_FDCWD to fstatat(2) and no descriptor to fstat(2).
    if fd < 0 {
        begin(Op::Stat);
        return raw::fail(libc::EBADF);
    }
    // SAFETY: same contract.
    unsafe { stat(fd, c"".as_ptr(), st, libc::AT_EMPTY_PATH) }
}

/// statx(2).
pub(crate) unsafe fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: u32,
    stx: *mut libc::statx,
) -> c_int {
    begin(Op::Stat);
    // What identifies a file is asked for besides what the program asks for.
    let mask = mask | libc::STATX_INO | libc::STATX_MTIME | libc::STATX_BTIME;
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::statx, dir, path, flags, mask, stx) }) as c_int;
    if code == 0 {
        // SAFETY: filled by the kernel.
        inodes::equalise(unsafe { &mut *stx }, Seen { dir, path });
    }
    code
}

/// The virtual descriptor that a path names, as /dev/stdout and /dev/fd/7 do:
/// opened by that name again, it is a duplicate.
fn again(path: &[u8]) -> Option<c_int> {
    let number = match path {
        b"/dev/stdin" => 0,
        b"/dev/stdout" => 1,
        b"/dev/stderr" => 2,
        _ => {
            let digits = path
                .strip_prefix(b"/dev/fd/")
                .or_else(|| path.strip_prefix(b"/proc/self/fd/"))?;
            core::str::from_utf8(digits).ok()?.parse().ok()?
        }
    };
    crate::fds::virtual_of(crate::tls::slot(), number).map(|_| number)
}

/// Opens a special file, if `path` is one.
pub(crate) unsafe fn open_special(path: *const c_char, flags: c_int) -> Option<c_int> {
    // SAFETY: the caller passes a C string to open(2).
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    let places = [&b"/proc/"[..], b"/dev/", b"/sys/devices/system/cpu/"];
    if !places.iter().any(|place| bytes.starts_with(place)) {
        return None;
    }
    let cloexec = flags & libc::O_CLOEXEC;
    if let Some(fd) = again(bytes) {
        let command = if cloexec != 0 {
            libc::F_DUPFD_CLOEXEC
        } else {
            libc::F_DUPFD
        };
        return Some(crate::control::fcntl(fd, command, 0));
    }
    match machine::special(bytes)? {
        Special::Random => {
            // SAFETY: plain open of /dev/null as the placeholder of the number.
            let fd = raw::ret(unsafe {
                sys!(
                    Sysno::openat,
                    libc::AT_FDCWD,
                    c"/dev/null".as_ptr(),
                    libc::O_RDWR | cloexec,
                    0
                )
            }) as c_int;
            if fd >= 0 {
                mark_random(fd);
            }
            Some(fd)
        }
        Special::Text(text) => {
            let memfd_flags = if cloexec != 0 { libc::MFD_CLOEXEC } else { 0 };
            let bytes = text.as_bytes();
            // SAFETY: plain calls on a new descriptor with valid buffers.
            unsafe {
                let fd = sys!(Sysno::memfd_create, c"proc".as_ptr(), memfd_flags);
                sys!(Sysno::pwrite64, fd, bytes.as_ptr(), bytes.len(), 0);
                Some(raw::ret(fd) as c_int)
            }
        }
        Special::Status => Some(machine::open_status(path, cloexec)),
    }
}

/// Whether a path is a named pipe, which is refused: opening one waits in the
/// kernel, with the turn, and its bytes would pass there.
///
/// # Safety
/// `path` is a C string.
unsafe fn is_fifo(dir: c_int, path: *const c_char, flags: c_int) -> bool {
    if flags & (libc::O_PATH | libc::O_DIRECTORY | libc::O_EXCL) != 0 || crate::tls::slot() == 0 {
        return false;
    }
    // SAFETY: all-zero is a valid stat, which the kernel fills.
    let found = unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        sys!(Sysno::newfstatat, dir, path, &raw mut st, 0) == 0
            && st.st_mode & libc::S_IFMT == libc::S_IFIFO
    };
    if found {
        refuse::count(Unsupported::NamedPipe);
    }
    found
}

/// open(2), openat(2).
pub(crate) unsafe fn open(dir: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    begin(Op::Open);
    // SAFETY: same contract.
    if let Some(fd) = unsafe { open_special(path, flags) } {
        return fd;
    }
    // The mode is only passed when it is read: a register's garbage is not input.
    let mode = if flags & (libc::O_CREAT | libc::O_TMPFILE) != 0 {
        mode
    } else {
        0
    };
    // SAFETY: same contract.
    if unsafe { is_fifo(dir, path, flags) } {
        return fail(libc::EOPNOTSUPP);
    }
    // SAFETY: same contract.
    let fd = raw::ret(unsafe { sys!(Sysno::openat, dir, path, flags, mode) }) as c_int;
    if fd >= 0 && flags & (libc::O_CREAT | libc::O_TRUNC) != 0 && flags & libc::O_ACCMODE != 0 {
        touched(fd);
    }
    fd
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, f: CookieFunctions)
    -> *mut libc::FILE;
}

/// cookie_io_functions_t of fopencookie(3).
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" fn read_random(_: *mut c_void, to: *mut c_char, len: usize) -> isize {
    // SAFETY: stdio passes its own buffer of `len` bytes.
    random::fill(unsafe { core::slice::from_raw_parts_mut(to.cast(), len) });
    len as isize
}

/// fopen(3): the C library opens inside itself, so special files are met here.
pub(crate) unsafe fn fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    begin(Op::Open);
    // SAFETY: the caller passes C strings.
    unsafe {
        let name = CStr::from_ptr(path).to_bytes();
        if name == b"/dev/urandom" || name == b"/dev/random" {
            let functions = CookieFunctions {
                read: Some(read_random),
                write: None,
                seek: None,
                close: None,
            };
            return fopencookie(core::ptr::null_mut(), c"r".as_ptr(), functions);
        }
        if again(name).is_some() {
            return match open_special(path, 0) {
                Some(fd) if fd >= 0 => crate::stdio::fdopen(fd, mode),
                _ => core::ptr::null_mut(),
            };
        }
        if let Some(fd) = open_special(path, 0) {
            return libc::fdopen(fd, c"r".as_ptr());
        }
        if is_fifo(libc::AT_FDCWD, path, 0) {
            raw::set_errno(libc::EOPNOTSUPP);
            return core::ptr::null_mut();
        }
        let file = (real().fopen)(path, mode);
        if !file.is_null() && *mode != b'r' as c_char {
            touched(libc::fileno(file));
        }
        file
    }
}

/// fclose(3): closes its descriptor inside the C library.
pub(crate) unsafe fn fclose(file: *mut libc::FILE) -> c_int {
    let me = begin(Op::Close);
    // SAFETY: the caller passes an open stream.
    unsafe {
        let fd = libc::fileno(file);
        if fd >= 0 {
            let flags = sys!(Sysno::fcntl, fd, libc::F_GETFL);
            if crate::fds::virtual_of(me, fd).is_none()
                && (flags as c_int) & libc::O_ACCMODE != 0
                && flags < 0x8000_0000
            {
                touched(fd);
            }
            forget(fd);
        }
        let code = (real().fclose)(file);
        if fd >= 0 && me != 0 {
            crate::fds::drop_virtual(fd);
        }
        code
    }
}
