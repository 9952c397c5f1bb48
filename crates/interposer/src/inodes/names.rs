//! Under which names files were first seen: for finding them again where the
//! program is restored from a checkpoint, which gives them other inode numbers.
//!
//! A file of the layers below is only found by its name; one that the program
//! wrote is found by looking through its layer, whatever it was renamed to.

use crate::raw::sys;
use core::ffi::{c_char, c_int};
use crane_channel::layout::SEEN_NAMES;
use syscalls::Sysno;

/// Longest path.
const PATH: usize = 4096;

/// How a file was reached: the first arguments of statx(2).
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) dir: c_int,
    pub(crate) path: *const c_char,
}

impl Seen {
    /// By a descriptor.
    pub(crate) fn open(fd: c_int) -> Self {
        Self {
            dir: fd,
            path: c"".as_ptr(),
        }
    }
}

/// The names, one behind the other. All-zero is empty.
#[repr(C)]
pub(crate) struct Names {
    used: u64,
    pub(super) bytes: [u8; SEEN_NAMES],
}

impl Names {
    /// Notes the absolute name of a file that exists; where it is, plus one, or 0
    /// if there is no room or no name.
    pub(super) fn note(&mut self, seen: Seen) -> u64 {
        let begin = self.used as usize;
        // Room for a directory, a slash and a path.
        let Some(room) = self.bytes.get_mut(begin..begin + 2 + 2 * PATH + 8) else {
            return 0;
        };
        let (length, name) = room.split_at_mut(2);
        let Some(count) = write(name, seen) else {
            return 0;
        };
        length.copy_from_slice(&(count as u16).to_ne_bytes());
        self.used += (2 + count) as u64;
        begin as u64 + 1
    }
}

/// Writes the absolute name; its length.
fn write(name: &mut [u8], seen: Seen) -> Option<usize> {
    let Seen { dir, path, .. } = seen;
    // SAFETY: the kernel has just read a path here, so it is a C string; a null
    // path is that of the descriptor itself.
    let first = unsafe { if path.is_null() { 0 } else { *path } };
    let mut length = 0;
    if first != b'/' as c_char {
        length = directory(name.get_mut(..PATH)?, dir)?;
        if first == 0 {
            return Some(length);
        }
        name[length] = b'/';
        length += 1;
    }
    for at in 0..PATH {
        // SAFETY: as above; the loop ends with the string.
        let byte = unsafe { *path.add(at) } as u8;
        if byte == 0 {
            return Some(length);
        }
        *name.get_mut(length)? = byte;
        length += 1;
    }
    None
}

/// The name of a directory, or of whatever is open as `fd`.
fn directory(into: &mut [u8], fd: c_int) -> Option<usize> {
    let mut link = [0u8; 32];
    let text = b"/proc/self/";
    link[..text.len()].copy_from_slice(text);
    if fd == libc::AT_FDCWD {
        link[text.len()..text.len() + 3].copy_from_slice(b"cwd");
    } else {
        link[text.len()..text.len() + 3].copy_from_slice(b"fd/");
        let mut digits = [0u8; 10];
        let mut value = u32::try_from(fd).ok()?;
        let mut count = 0;
        while count == 0 || value > 0 {
            digits[count] = b'0' + (value % 10) as u8;
            value /= 10;
            count += 1;
        }
        for at in 0..count {
            link[text.len() + 3 + at] = digits[count - 1 - at];
        }
    }
    // SAFETY: a C string, and room of that length.
    let code = unsafe {
        sys!(
            Sysno::readlink,
            link.as_ptr(),
            into.as_mut_ptr(),
            into.len()
        )
    } as isize;
    let length = usize::try_from(code).ok()?;
    // Pipes and the like have names without a place; a deleted file has none.
    let is_place = into.first() == Some(&b'/') && !into[..length].ends_with(b" (deleted)");
    (is_place && length < into.len()).then_some(length)
}
