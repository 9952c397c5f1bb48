//! What a file is shown as: an inode number and times that are equal on every
//! replica.
//!
//! Inode numbers are given in the order in which files are first seen. A file
//! that was there before the server started shows its own modification time,
//! one that the server has written shows the virtual time of its last write.

mod again;
mod names;

pub(crate) use again::find_again;
pub(crate) use names::Seen;

use crate::clock;
use crate::raw::sys;
use crate::world::world;
use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::layout::{SEEN_FILES, SEGMENT_ADDRESS, SeenFile};
use names::Names;
use syscalls::Sysno;

const INODES: usize = SEEN_FILES;
/// Entries used before a listing makes no more: files that are only listed
/// must not take the places of those that are opened.
const LISTED: u64 = INODES as u64 / 4;

/// All files seen, an open-addressed table. All-zero is empty.
#[repr(C)]
pub(crate) struct Inodes {
    used: u64,
    /// Numbers given so far.
    given: u64,
    /// Real time at which this replica was made, nanoseconds: files changed since
    /// then were changed by the server. Never shown.
    started: i64,
    /// The node's count of restores for which the table holds the kernel's numbers.
    generation: u32,
    names: Names,
    pub(crate) table: [SeenFile; INODES],
}

/// Which file it is, in the kernel's terms.
#[derive(Clone, Copy)]
struct Identity {
    device: u64,
    number: u64,
    born: i64,
}

impl Identity {
    fn of(found: &libc::statx) -> Self {
        let born = &found.stx_btime;
        let known = found.stx_mask & libc::STATX_BTIME != 0;
        Self {
            device: libc::makedev(found.stx_dev_major, found.stx_dev_minor),
            number: found.stx_ino,
            born: if known {
                nanoseconds(born.tv_sec, born.tv_nsec.into())
            } else {
                0
            },
        }
    }

    fn place(self) -> usize {
        (self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.device) as usize % INODES
    }
}

/// Offsets in the segment of the table and of the names.
pub(crate) fn places() -> (u64, u64) {
    let inodes = &world().inodes;
    let offset = |at: usize| (at - SEGMENT_ADDRESS) as u64;
    (
        offset(inodes.table.as_ptr().addr()),
        offset(inodes.names.bytes.as_ptr().addr()),
    )
}

impl Inodes {
    /// The entry of a file, made if there is none and at most `room` are used.
    fn entry(&mut self, file: Identity, room: u64, seen: Seen) -> Option<u32> {
        let mut at = file.place();
        loop {
            let inode = &mut self.table[at];
            if inode.number == 0 {
                if self.used >= room {
                    return None;
                }
                self.used += 1;
                self.given += 1;
                *inode = SeenFile {
                    device: file.device,
                    number: file.number,
                    born: file.born,
                    shown: 100_000 + self.given,
                    written: 0,
                    name: self.names.note(seen),
                };
                return Some(at as u32);
            }
            if inode.number == file.number && inode.device == file.device {
                // An old file that gets another time of birth was copied up to
                // the replica's own layer, at its first write.
                if inode.born != file.born && inode.born >= self.started {
                    self.given += 1;
                    inode.shown = 100_000 + self.given;
                    inode.written = 0;
                }
                inode.born = file.born;
                return Some(at as u32);
            }
            at = (at + 1) % INODES;
        }
    }
}

/// statx(2) with all that is needed here; a negative error number if it fails.
pub(crate) fn examine(dir: c_int, path: *const c_char, flags: c_int) -> Result<libc::statx, c_int> {
    // SAFETY: all-zero is a valid statx; the kernel fills it, and checks `path`.
    unsafe {
        let mut found: libc::statx = core::mem::zeroed();
        let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
        let code = sys!(Sysno::statx, dir, path, flags, mask, &raw mut found) as isize;
        if code < 0 {
            Err(code as c_int)
        } else {
            Ok(found)
        }
    }
}

fn examine_open(fd: c_int) -> Option<libc::statx> {
    examine(fd, c"".as_ptr(), libc::AT_EMPTY_PATH).ok()
}

/// Notes the real time at which the replica was made, for telling old files
/// from new: that of the copy of this library that its node made for it.
///
/// Not the time now: a file that the user wrote just before would be old in a
/// replica that starts a second later, and the directories that were made for
/// this replica alone would show when.
pub(crate) fn note_start() {
    if let Ok(found) = examine(libc::AT_FDCWD, crate::image::LIBRARY.as_ptr(), 0) {
        let made = &found.stx_mtime;
        world().inodes.started = nanoseconds(made.tv_sec, made.tv_nsec.into());
    }
}

fn nanoseconds(sec: i64, nsec: i64) -> i64 {
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// Entry of the file behind a descriptor plus one, cached so that a write
/// costs no stat; 0: not known. Private to the process, copied by fork.
static FILE_OF: [AtomicU32; FDS] = [const { AtomicU32::new(0) }; FDS];
const FDS: usize = 65536;

/// Forgets which file is behind a descriptor.
pub(crate) fn forget(fd: c_int) {
    if let Some(file) = FILE_OF.get(fd as usize) {
        file.store(0, Ordering::Relaxed);
    }
}

/// A write to a real file by its descriptor: its virtual time of change.
pub(crate) fn touched(fd: c_int) {
    let Some(cached) = FILE_OF.get(fd as usize) else {
        return;
    };
    let mut entry = cached.load(Ordering::Relaxed);
    if entry == 0 {
        let Some(found) = examine_open(fd) else {
            return;
        };
        let identity = Identity::of(&found);
        let Some(at) = world()
            .inodes
            .entry(identity, INODES as u64 / 2, Seen::open(fd))
        else {
            return;
        };
        entry = at + 1;
        cached.store(entry, Ordering::Relaxed);
    }
    world().inodes.table[entry as usize - 1].written = clock::now();
}

/// The program set the time of a file's last change, in nanoseconds.
pub(crate) fn set_time(dir: c_int, path: *const c_char, flags: c_int, time: u64) {
    let Ok(found) = examine(dir, path, flags) else {
        return;
    };
    let inodes = &mut world().inodes;
    if let Some(at) = inodes.entry(Identity::of(&found), INODES as u64 / 2, Seen { dir, path }) {
        // 0 would be that nothing is known.
        inodes.table[at as usize].written = time.max(1);
    }
}

/// The inode number that a directory's listing shows for one of its files.
pub(crate) fn listed(dir: c_int, name: *const c_char) -> u64 {
    let found = examine(dir, name, libc::AT_SYMLINK_NOFOLLOW);
    let inodes = &mut world().inodes;
    found
        .ok()
        .and_then(|found| {
            let seen = Seen { dir, path: name };
            inodes.entry(Identity::of(&found), LISTED, seen)
        })
        .map_or(1, |at| inodes.table[at as usize].shown)
}

/// Device number that every file is shown to be on: 8:1.
const DEVICE: (u32, u32) = (8, 1);

/// Puts what is equal everywhere in place of what is the machine's.
pub(crate) fn equalise(found: &mut libc::statx, seen: Seen) {
    let changed = nanoseconds(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into());
    let start = world().start;
    let inodes = &mut world().inodes;
    let entry = inodes.entry(Identity::of(found), INODES as u64 / 2, seen);
    let (number, time) = match entry.map(|at| &inodes.table[at as usize]) {
        None => (1, changed),
        Some(inode) => match inode.written {
            0 if changed < inodes.started => (inode.shown, changed),
            0 => (inode.shown, start as i64),
            written => (inode.shown, written as i64),
        },
    };
    found.stx_ino = number;
    (found.stx_dev_major, found.stx_dev_minor) = DEVICE;
    for shown in [
        &mut found.stx_atime,
        &mut found.stx_mtime,
        &mut found.stx_ctime,
        &mut found.stx_btime,
    ] {
        shown.tv_sec = time.div_euclid(1_000_000_000);
        shown.tv_nsec = time.rem_euclid(1_000_000_000) as u32;
    }
    found.stx_mnt_id = 1;
    found.stx_blksize = 4096;
    // The file system allocates late, in real time.
    found.stx_blocks = match u32::from(found.stx_mode) & libc::S_IFMT {
        libc::S_IFREG => found.stx_size / 512 + 1,
        _ => 0,
    };
    if u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR {
        found.stx_size = 4096;
        found.stx_nlink = 2;
    }
}

/// The number by which a file is known on every replica, also after a restore;
/// `None` if too many were seen.
pub(crate) fn lasting(found: &libc::statx, seen: Seen) -> Option<u64> {
    let inodes = &mut world().inodes;
    let at = inodes.entry(Identity::of(found), INODES as u64 / 2, seen)?;
    Some(inodes.table[at as usize].shown)
}

/// What stat(2) tells of what statx(2) told.
pub(crate) fn as_stat(found: &libc::statx) -> libc::stat {
    // SAFETY: all-zero is a valid stat.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    st.st_dev = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
    st.st_rdev = libc::makedev(found.stx_rdev_major, found.stx_rdev_minor);
    st.st_ino = found.stx_ino;
    st.st_mode = found.stx_mode.into();
    st.st_nlink = found.stx_nlink.into();
    (st.st_uid, st.st_gid) = (found.stx_uid, found.stx_gid);
    st.st_size = found.stx_size as i64;
    st.st_blksize = found.stx_blksize.into();
    st.st_blocks = found.stx_blocks as i64;
    let (sec, nsec) = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into());
    (st.st_atime, st.st_mtime, st.st_ctime) = (sec, sec, sec);
    (st.st_atime_nsec, st.st_mtime_nsec, st.st_ctime_nsec) = (nsec, nsec, nsec);
    st
}
