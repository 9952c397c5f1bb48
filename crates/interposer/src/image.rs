//! What a program file is, asked before an exec.
//!
//! The kernel would run it and the interposer would not be in it: a static
//! program, one for another machine, one that runs with privileges that its
//! user has not. Such an exec fails with EPERM and one line that says why,
//! because afterwards nobody would be left to say anything.

use crate::raw::{Line, line, sys};
use core::ffi::{CStr, c_char, c_int};
use syscalls::Sysno;

/// Most interpreters behind each other, as in Linux.
const MAX_INTERPRETERS: usize = 5;
/// Bytes of a script's first line that Linux reads.
const HEAD: usize = 256;
const PT_INTERP: u32 = 3;
const EM_X86_64: u16 = 62;

/// Where this library lies in every replica, and in every LD_PRELOAD.
pub(crate) const LIBRARY: &CStr = c"/.crane/libcrane_interposer.so";

/// What an exec of a file would do. Lives on the stack for one call.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Image {
    /// It can be started with the interposer in it.
    Good,
    /// It is neither a program nor a script that names its interpreter.
    Text,
    /// It would run without the interposer, for this reason.
    Refused(Line),
}

/// A file that is open for reading, closed at the end.
struct File(usize);

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: plain close(2) of our own descriptor.
        unsafe { sys!(Sysno::close, self.0) };
    }
}

impl File {
    fn open(directory: c_int, path: *const c_char) -> Option<Self> {
        // SAFETY: plain openat(2) on a C string.
        let fd = unsafe {
            sys!(
                Sysno::openat,
                directory,
                path,
                libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK,
                0
            )
        };
        ((fd as isize) >= 0).then_some(Self(fd))
    }

    fn read(&self, to: &mut [u8], at: u64) -> usize {
        // SAFETY: plain pread(2) into a valid buffer.
        let n = unsafe { sys!(Sysno::pread64, self.0, to.as_mut_ptr(), to.len(), at) } as isize;
        n.max(0) as usize
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn shown(path: &[u8]) -> &str {
    core::str::from_utf8(path).unwrap_or("a program")
}

/// Asks what the file is. An error is what exec would say: there is no such
/// file, it may not be executed.
pub(crate) fn examine(directory: c_int, path: *const c_char, flags: c_int) -> Result<Image, c_int> {
    // SAFETY: plain system calls on the caller's path; the kernel fills `st`.
    let (found, permitted, st) = unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        let found = sys!(Sysno::newfstatat, directory, path, &raw mut st, flags) as isize;
        let permitted = sys!(Sysno::faccessat2, directory, path, libc::X_OK, flags) as isize;
        (found, permitted, st)
    };
    if found < 0 {
        return Err(-found as c_int);
    }
    match st.st_mode & libc::S_IFMT {
        libc::S_IFREG => {}
        // With AT_SYMLINK_NOFOLLOW.
        libc::S_IFLNK => return Err(libc::ELOOP),
        _ => return Err(libc::EACCES),
    }
    if permitted < 0 {
        return Err(-permitted as c_int);
    }
    // SAFETY: the caller passes a C string.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    if let Some(why) = surroundings(name) {
        return Ok(Image::Refused(why));
    }
    let file = if name.is_empty() {
        File::again(directory)
    } else {
        File::open(directory, path)
    };
    // What may be executed and not read is left to the kernel.
    let Some(mut file) = file else {
        return Ok(Image::Good);
    };
    let mut place = [0u8; HEAD];
    let mut length = name.len().min(HEAD);
    place[..length].copy_from_slice(&name[..length]);
    for _ in 0..MAX_INTERPRETERS {
        let mut head = [0u8; HEAD];
        let count = file.read(&mut head, 0);
        let head = &head[..count];
        if head.starts_with(b"\x7fELF") {
            let name = shown(&place[..length]);
            return Ok(program(&file, head, name).map_or(Image::Good, Image::Refused));
        }
        let Some(interpreter) = head.strip_prefix(b"#!").and_then(first_word) else {
            return Ok(Image::Text);
        };
        place = [0; HEAD];
        length = interpreter.len();
        place[..length].copy_from_slice(interpreter);
        match File::open(libc::AT_FDCWD, place.as_ptr().cast()) {
            Some(next) => file = next,
            None => return Err(libc::ENOENT),
        }
    }
    Err(libc::ELOOP)
}

impl File {
    /// The file behind a descriptor, for fexecve(3), which may be open for
    /// nothing but its path.
    fn again(fd: c_int) -> Option<Self> {
        let mut place = line!("/proc/self/fd/{fd}");
        place.end();
        Self::open(libc::AT_FDCWD, place.as_bytes().as_ptr().cast())
    }
}

/// The interpreter that a script names.
fn first_word(rest: &[u8]) -> Option<&[u8]> {
    let line = rest.split(|&b| b == b'\n').next()?;
    let mut words = line.split(|&b| b == b' ' || b == b'\t' || b == 0);
    words.find(|word| !word.is_empty())
}

/// What in this process would keep the interposer out of any program.
fn surroundings(name: &[u8]) -> Option<Line> {
    // SAFETY: plain system calls.
    let (secure, missing) = unsafe {
        let secure = sys!(Sysno::getuid) != sys!(Sysno::geteuid)
            || sys!(Sysno::getgid) != sys!(Sysno::getegid);
        let missing = sys!(
            Sysno::faccessat,
            libc::AT_FDCWD,
            LIBRARY.as_ptr(),
            libc::R_OK
        ) != 0;
        (secure, missing)
    };
    let name = shown(name);
    if secure {
        return Some(line!(
            "`{name}` was not started: the real and the effective user or group of its process differ, and the loader ignores the interposer then"
        ));
    }
    missing.then(|| {
        line!(
            "`{name}` was not started: the interposer is not in this root directory (chroot), so it could not be kept in step"
        )
    })
}

/// Why an ELF file cannot be started with the interposer.
fn program(file: &File, head: &[u8], name: &str) -> Option<Line> {
    if head.len() < 64 || head[4] != 2 || head[5] != 1 || half(head, 18) != EM_X86_64 {
        return Some(line!(
            "`{name}` was not started: it is made for another machine than this one, so it could not be kept in step"
        ));
    }
    let (start, size, count) = (long(head, 32), half(head, 54), half(head, 56));
    for number in 0..count {
        let mut segment = [0u8; 56];
        let at = start.wrapping_add(u64::from(number) * u64::from(size));
        if file.read(&mut segment, at) < segment.len() {
            break;
        }
        if u32::from(half(&segment, 0)) == PT_INTERP && half(&segment, 2) == 0 {
            let mut loader = [0u8; HEAD];
            let length = file.read(&mut loader, long(&segment, 8));
            let length = length.min(long(&segment, 32) as usize);
            let known = loader[..length].windows(8).any(|w| w == b"ld-linux");
            return (!known).then(|| {
                line!(
                    "`{name}` was not started: it is made for another C library than glibc, so it could not be kept in step"
                )
            });
        }
    }
    // The loader itself, started as a program, takes the interposer in.
    let last = name.rsplit('/').next().unwrap_or(name);
    (!last.starts_with("ld-linux")).then(|| {
        line!(
            "`{name}` was not started: it is statically linked, so it could not be kept in step; use a dynamically linked build"
        )
    })
}
