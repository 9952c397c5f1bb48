//! Files: identity and times that are equal on every replica, and the special
//! files of /proc and /dev that would show the machine.
//!
//! Regular files are the real ones of the replica's own overlay. What stat(2)
//! shows of them is made equal: inode numbers are given in the order in which
//! they are first seen; a file that was there before the server started shows
//! its own modification time, one that the server has written shows the
//! virtual time of its last write.

use crate::clock;
use crate::machine::{self, Special};
use crate::raw::sys;
use crate::real::real;
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{random, raw};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use syscalls::Sysno;

const INODES: usize = 1 << 20;

/// One file that was seen.
#[repr(C)]
struct Inode {
    device: u64,
    /// Real inode number; 0: a free entry.
    number: u64,
    /// What the server is shown.
    shown: u64,
    /// Virtual time of the last write, nanoseconds; 0: none.
    written: u64,
}

/// All files seen, an open-addressed table. All-zero is empty.
#[repr(C)]
pub(crate) struct Inodes {
    used: u64,
    /// Real time at which this replica was made, nanoseconds: files changed since
    /// then were changed by the server. Never shown.
    started: i64,
    table: [Inode; INODES],
}

impl Inodes {
    fn entry(&mut self, device: u64, number: u64) -> Option<u32> {
        let mut at = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ device) as usize % INODES;
        loop {
            let inode = &mut self.table[at];
            if inode.number == 0 {
                if self.used as usize >= INODES / 2 {
                    return None;
                }
                self.used += 1;
                *inode = Inode {
                    device,
                    number,
                    shown: 100_000 + self.used,
                    written: 0,
                };
                return Some(at as u32);
            }
            if inode.number == number && inode.device == device {
                return Some(at as u32);
            }
            at = (at + 1) % INODES;
        }
    }
}

/// Notes the real time at which the replica was made, for telling old files
/// from new: that of the copy of this library that its node made for it.
///
/// Not the time now: a file that the user wrote just before would be old in a
/// replica that starts a second later, and the directories that were made for
/// this replica alone would show when.
pub(crate) fn note_start() {
    // SAFETY: all-zero is a valid stat; the kernel fills it.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: plain stat(2) with valid arguments.
    let code = unsafe {
        sys!(
            Sysno::stat,
            c"/.crane/libcrane_interposer.so".as_ptr(),
            &raw mut st
        )
    };
    if code == 0 {
        world().inodes.started = nanoseconds(st.st_mtime, st.st_mtime_nsec);
    }
}

fn nanoseconds(sec: i64, nsec: i64) -> i64 {
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// Entry of the file behind a descriptor plus one, cached so that a write
/// costs no stat; 0: not known. Private to the process, copied by fork.
static FILE_OF: [AtomicU32; FDS] = [const { AtomicU32::new(0) }; FDS];
const FDS: usize = 65536;

/// Descriptors that read from the random stream, one bit each.
static RANDOM: [AtomicU64; FDS / 64] = [const { AtomicU64::new(0) }; FDS / 64];

/// Forgets what is known of a descriptor: it was closed or replaced.
pub(crate) fn forget(fd: c_int) {
    if let Some(file) = FILE_OF.get(fd as usize) {
        file.store(0, Ordering::Relaxed);
        RANDOM[fd as usize / 64].fetch_and(!(1 << (fd as usize % 64)), Ordering::Relaxed);
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

/// A write to a real file by its descriptor: its virtual time of change.
pub(crate) fn touched(fd: c_int) {
    let Some(cached) = FILE_OF.get(fd as usize) else {
        return;
    };
    let mut entry = cached.load(Ordering::Relaxed);
    if entry == 0 {
        // SAFETY: all-zero is a valid stat; the kernel fills it.
        let mut st: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: plain fstat(2).
        if unsafe { sys!(Sysno::fstat, fd, &raw mut st) } != 0 {
            return;
        }
        let Some(at) = world().inodes.entry(st.st_dev, st.st_ino) else {
            return;
        };
        entry = at + 1;
        cached.store(entry, Ordering::Relaxed);
    }
    world().inodes.table[entry as usize - 1].written = clock::now();
}

/// What the server is shown of a file: its inode number and its time.
fn shown(device: u64, number: u64, changed: i64, nsec: i64) -> (u64, i64, i64) {
    let (started, start) = (world().inodes.started, world().start);
    let Some(at) = world().inodes.entry(device, number) else {
        return (1, changed, nsec);
    };
    let inode = &world().inodes.table[at as usize];
    let virtual_time = match inode.written {
        0 if nanoseconds(changed, nsec) < started => return (inode.shown, changed, nsec),
        0 => start,
        written => written,
    };
    (
        inode.shown,
        (virtual_time / 1_000_000_000) as i64,
        (virtual_time % 1_000_000_000) as i64,
    )
}

/// Device number that every file is shown to be on.
const DEVICE: u64 = 0x801;

fn equalise(st: &mut libc::stat) {
    let kind = st.st_mode & libc::S_IFMT;
    let (inode, sec, nsec) = shown(st.st_dev, st.st_ino, st.st_mtime, st.st_mtime_nsec);
    st.st_ino = inode;
    st.st_dev = DEVICE;
    (st.st_atime, st.st_mtime, st.st_ctime) = (sec, sec, sec);
    (st.st_atime_nsec, st.st_mtime_nsec, st.st_ctime_nsec) = (nsec, nsec, nsec);
    // The file system allocates late, in real time.
    st.st_blocks = if kind == libc::S_IFREG {
        st.st_size.div_euclid(512) + 1
    } else {
        0
    };
    if kind == libc::S_IFDIR {
        st.st_size = 4096;
        st.st_nlink = 2;
    }
}

/// fstatat(2) and its relatives.
pub(crate) unsafe fn stat(
    dir: c_int,
    path: *const c_char,
    st: *mut libc::stat,
    flags: c_int,
) -> c_int {
    begin(Op::Stat);
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::newfstatat, dir, path, st, flags) }) as c_int;
    if code == 0 {
        // SAFETY: filled by the kernel.
        equalise(unsafe { &mut *st });
    }
    code
}

/// fstat(2).
pub(crate) unsafe fn fstat(fd: c_int, st: *mut libc::stat) -> c_int {
    begin(Op::Stat);
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::fstat, fd, st) }) as c_int;
    if code == 0 {
        // SAFETY: filled by the kernel.
        equalise(unsafe { &mut *st });
    }
    code
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
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::statx, dir, path, flags, mask, stx) }) as c_int;
    if code != 0 {
        return code;
    }
    // SAFETY: filled by the kernel.
    let stx = unsafe { &mut *stx };
    let device = libc::makedev(stx.stx_dev_major, stx.stx_dev_minor);
    let changed = &stx.stx_mtime;
    let (inode, sec, nsec) = shown(device, stx.stx_ino, changed.tv_sec, changed.tv_nsec.into());
    stx.stx_ino = inode;
    (stx.stx_dev_major, stx.stx_dev_minor) = (8, 1);
    for time in [
        &mut stx.stx_atime,
        &mut stx.stx_mtime,
        &mut stx.stx_ctime,
        &mut stx.stx_btime,
    ] {
        time.tv_sec = sec;
        time.tv_nsec = nsec as u32;
    }
    stx.stx_blocks = stx.stx_size / 512 + 1;
    if u32::from(stx.stx_mode) & libc::S_IFMT == libc::S_IFDIR {
        stx.stx_size = 4096;
        stx.stx_nlink = 2;
    }
    0
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
