//! After a restore: the same files have other inode numbers.
//!
//! The node leaves a file that says which ones, see `crane.checkpoint.identities`:
//! entries of the table as they are now. What it could not find is forgotten: those
//! files are gone, so the program cannot see them again.

use super::{FILE_OF, INODES, Identity, Inodes};
use crate::raw::sys;
use crate::world::{header, world};
use core::mem::size_of;
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::layout::SeenFile;
use syscalls::Sysno;

const PLACE: &core::ffi::CStr = c"/.crane/files";
const PAGE: usize = 4096;
/// Entries read at once.
const BATCH: usize = 16;

/// For which restore this process knows which file is behind a descriptor.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Puts the table right, if nobody has since the restore. With the turn.
pub(crate) fn find_again() {
    let generation = header().generation.load(Ordering::Relaxed);
    if GENERATION.swap(generation, Ordering::Relaxed) != generation {
        for known in &FILE_OF {
            if known.load(Ordering::Relaxed) != 0 {
                known.store(0, Ordering::Relaxed);
            }
        }
    }
    let inodes = &mut world().inodes;
    if inodes.generation != generation {
        inodes.generation = generation;
        inodes.load();
    }
}

impl Inodes {
    fn load(&mut self) {
        // SAFETY: plain system calls; what is read goes to a buffer of that size.
        unsafe {
            let fd = sys!(
                Sysno::openat,
                libc::AT_FDCWD,
                PLACE.as_ptr(),
                libc::O_RDONLY | libc::O_CLOEXEC,
                0
            ) as isize;
            if fd < 0 {
                // A checkpoint of a version that did not know of this.
                return;
            }
            self.clear();
            let mut batch = [SeenFile::default(); BATCH];
            loop {
                let room = size_of::<[SeenFile; BATCH]>();
                let got = sys!(Sysno::read, fd, batch.as_mut_ptr(), room) as isize;
                let count = usize::try_from(got).unwrap_or(0) / size_of::<SeenFile>();
                if count == 0 {
                    break;
                }
                for file in &batch[..count] {
                    self.put(*file);
                }
            }
            sys!(Sysno::close, fd);
        }
    }

    /// Empties the table without touching its pages, of which few are in use.
    fn clear(&mut self) {
        self.used = 0;
        let begin = self.table.as_mut_ptr().cast::<u8>();
        let length = size_of::<[SeenFile; INODES]>();
        let skip = begin.align_offset(PAGE);
        let pages = (length - skip) / PAGE * PAGE;
        // SAFETY: all of it lies in the table, for which zeros are valid; the pages
        // are a shared mapping of a file on a tmpfs, in which holes read as zeros.
        unsafe {
            begin.write_bytes(0, skip);
            let code = sys!(Sysno::madvise, begin.add(skip), pages, libc::MADV_REMOVE);
            if code != 0 {
                begin.add(skip).write_bytes(0, pages);
            }
            begin
                .add(skip + pages)
                .write_bytes(0, length - skip - pages);
        }
    }

    fn put(&mut self, file: SeenFile) {
        if file.number == 0 || self.used >= INODES as u64 / 2 {
            return;
        }
        let identity = Identity {
            device: file.device,
            number: file.number,
            born: file.born,
        };
        let mut at = identity.place();
        while self.table[at].number != 0 {
            at = (at + 1) % INODES;
        }
        self.table[at] = file;
        self.used += 1;
    }
}
