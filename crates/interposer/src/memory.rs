//! What memory an address belongs to, for waits on words that processes share,
//! each perhaps at another address.

use crate::objects::private_key;
use crate::raw::sys;
use crate::world::{header, world};
use core::sync::atomic::Ordering;
use crane_scheduler::Slot;
use syscalls::Sysno;

const OBJECT_TAG: u64 = 2 << 56;
const PRIVATE_TAG: u64 = 3 << 56;

/// Wait key of a word in memory that is perhaps shared: of the mapped object
/// and the place in it, or of the process and the address.
///
/// The kernel is asked each time, because mappings come and go unseen.
pub(crate) fn memory_key(address: usize, me: Slot) -> u64 {
    world().shared_futexes = 1;
    match shared_object(address) {
        Some(place) => {
            header().shared_words.store(1, Ordering::Relaxed);
            place & !(0xff << 56) | OBJECT_TAG
        }
        None => private_key(address as *const u8, me) | PRIVATE_TAG,
    }
}

/// A number for the place of `address` in the shared object that is mapped
/// there; `None` where nothing shared is mapped, or /proc is missing.
fn shared_object(address: usize) -> Option<u64> {
    // SAFETY: plain open(2) of a constant path.
    let fd = unsafe {
        sys!(
            Sysno::openat,
            libc::AT_FDCWD,
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
            0
        )
    } as isize;
    if fd < 0 {
        return None;
    }
    let mut lines = Lines::new(address);
    let mut buffer = [0u8; 1024];
    let found = 'all: loop {
        // SAFETY: reads into our own buffer.
        let count = unsafe { sys!(Sysno::read, fd, buffer.as_mut_ptr(), buffer.len()) } as isize;
        if count <= 0 {
            break None;
        }
        for &byte in &buffer[..count as usize] {
            if let Some(answer) = lines.take(byte) {
                break 'all answer;
            }
        }
    };
    // SAFETY: closes what was opened here.
    unsafe { sys!(Sysno::close, fd) };
    found
}

/// Reads proc_pid_maps(5) byte by byte:
/// `start-end perms offset major:minor inode path`.
struct Lines {
    address: u64,
    field: u32,
    start: u64,
    end: u64,
    shared: bool,
    offset: u64,
    device: u64,
    inode: u64,
}

impl Lines {
    fn new(address: usize) -> Self {
        Self {
            address: address as u64,
            field: 0,
            start: 0,
            end: 0,
            shared: false,
            offset: 0,
            device: 0,
            inode: 0,
        }
    }

    /// The answer, once the line is known and read as far as it matters.
    fn take(&mut self, byte: u8) -> Option<Option<u64>> {
        let digit = (byte as char).to_digit(16).map(u64::from);
        match (self.field, byte) {
            (_, b'\n') => {
                let here = (self.start..self.end).contains(&self.address);
                let answer = here.then(|| self.shared.then(|| self.place()));
                *self = Self::new(self.address as usize);
                return answer;
            }
            (0, b'-') => self.field = 1,
            (1..=5, b' ') => self.field += 1,
            (2, b's') => self.shared = true,
            (0, _) => self.start = self.start << 4 | digit.unwrap_or(0),
            (1, _) => self.end = self.end << 4 | digit.unwrap_or(0),
            (3, _) => self.offset = self.offset << 4 | digit.unwrap_or(0),
            (4, b':') => {}
            (4, _) => self.device = self.device << 4 | digit.unwrap_or(0),
            (5, _) => self.inode = self.inode * 10 + digit.unwrap_or(0),
            _ => {}
        }
        None
    }

    fn place(&self) -> u64 {
        let at = self.address - self.start + self.offset;
        [self.device, self.inode, at].iter().fold(0, |hash, word| {
            (hash ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(31)
        })
    }
}
