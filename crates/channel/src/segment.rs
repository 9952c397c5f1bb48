//! The node's mapping of the segment.

use crate::layout::{
    CARDS_OFFSET, HEADER_LEN, Header, LOG_RING_LEN, LOG_RING_OFFSET, MAGIC, NO_DEADLINE,
    OPERATIONS, OPERATIONS_OFFSET, OUTPUT_RING_LEN, OUTPUT_RING_OFFSET, OUTPUTS, OUTPUTS_OFFSET,
    SEEN_FILES, SEEN_NAMES, SEGMENT_LEN, SeenFile, THREAD_CARDS, ThreadCard, VERSION,
    WATCH_OBJECTS, WATCH_RECORDS, WATCH_VOTES, WORLD_OFFSET,
};
use crate::recent::Recent;
use crate::ring::{Consumer, Producer};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Settings that the node gives to the interposer through the header.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// This replica's id, 1 to 254, or [`EVERY_REPLICA`](crate::layout::EVERY_REPLICA).
    pub replica: u8,
    /// Operations a thread may do before the turn rotates; at least 1. Part of
    /// the agreed configuration: another value is another execution.
    pub quantum: u32,
    /// Record every operation for `crane verify`.
    pub trace: bool,
    /// Have the addresses of locks and the like in the schedule's hash.
    pub objects: bool,
    /// A thread that spins on memory passes the turn on.
    pub preempt: bool,
    /// Output is held back until other replicas have come to the same.
    pub vote: bool,
}

/// A mapped segment. Unmapped on drop; the file stays.
///
/// The world behind the rings is not mapped: the node has no business there.
pub struct Segment {
    base: *mut u8,
    file: File,
}

// SAFETY: the mapping is shared memory whose words are atomics or belong to
// one end of a ring; the ends themselves are handed out unsafely.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Creates (or replaces) the segment at `path`, readable by the owner alone.
    ///
    /// # Errors
    /// Any error of open(2), ftruncate(2) or mmap(2).
    pub fn create(path: &Path, settings: Settings) -> io::Result<Self> {
        let segment = Self::map(Self::new_file(path)?)?;
        let header = segment.header();
        header.version.store(VERSION, Ordering::Relaxed);
        header
            .quantum
            .store(settings.quantum.max(1), Ordering::Relaxed);
        header.deadline.store(NO_DEADLINE, Ordering::Relaxed);
        segment.set(settings);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(segment)
    }

    /// An empty file of the segment's length, in the place of any other.
    pub(crate) fn new_file(path: &Path) -> io::Result<File> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::ftruncate(&file, SEGMENT_LEN as u64)?;
        Ok(file.into())
    }

    pub(crate) fn map(file: File) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                WORLD_OFFSET,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        Ok(Self {
            base: base.cast(),
            file,
        })
    }

    /// Writes what differs between replicas and between lives of one.
    pub(crate) fn set(&self, settings: Settings) {
        let header = self.header();
        let bit = |wanted: bool, bit| if wanted { bit } else { 0 };
        let watch = bit(settings.trace, WATCH_RECORDS)
            | bit(settings.objects, WATCH_OBJECTS)
            | bit(settings.vote, WATCH_VOTES);
        header
            .replica
            .store(settings.replica.into(), Ordering::Relaxed);
        header.watch.store(watch, Ordering::Relaxed);
        header
            .preempt
            .store(settings.preempt.into(), Ordering::Relaxed);
        header.eager.store(1, Ordering::Relaxed);
    }

    /// The file that is mapped.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The header.
    pub fn header(&self) -> &Header {
        const { assert!(std::mem::size_of::<Header>() <= HEADER_LEN) };
        // SAFETY: the mapping is page aligned, longer than the header, lives as
        // long as self, and every bit pattern is a valid Header (atomics).
        unsafe { &*self.base.cast::<Header>() }
    }

    /// What is known of each thread, by slot.
    pub fn cards(&self) -> &[ThreadCard] {
        // SAFETY: the cards lie in the mapping, aligned as the page they begin
        // at, and every bit pattern is a valid card (atomics).
        unsafe { std::slice::from_raw_parts(self.base.add(CARDS_OFFSET).cast(), THREAD_CARDS) }
    }

    /// What the server did lately.
    pub fn recent(&self) -> Recent<'_> {
        let header = self.header();
        // SAFETY: both lie in the mapping, aligned as the pages they begin at, and
        // every bit pattern is valid (atomics).
        let (operations, outputs) = unsafe {
            (
                std::slice::from_raw_parts(self.base.add(OPERATIONS_OFFSET).cast(), OPERATIONS),
                std::slice::from_raw_parts(self.base.add(OUTPUTS_OFFSET).cast(), OUTPUTS),
            )
        };
        Recent {
            operations,
            outputs,
            ticks: &header.ticks,
            sent: &header.sent,
        }
    }

    /// Copies bytes of the segment from `offset` on, also of what is not mapped.
    /// The server may be writing them meanwhile.
    ///
    /// # Errors
    /// Any error of pread(2), or when the segment ends before.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    /// The files that the server has seen, each with the name under which it was
    /// first. Of a program that stands still.
    ///
    /// # Errors
    /// Any error of reading the segment.
    pub fn seen_files(&self) -> io::Result<Vec<(SeenFile, Vec<u8>)>> {
        const ENTRY: usize = size_of::<SeenFile>();
        let table = self.header().seen_files.load(Ordering::Relaxed);
        let names = self.header().seen_names.load(Ordering::Relaxed);
        // The server wrote these, and may have scribbled on them.
        let lies_within = |at: u64, len: usize| {
            at >= WORLD_OFFSET as u64 && at <= (SEGMENT_LEN - len) as u64 && at.is_multiple_of(8)
        };
        let mut found = Vec::new();
        if !lies_within(table, SEEN_FILES * ENTRY) || !lies_within(names, SEEN_NAMES) {
            return Ok(found);
        }
        let mut piece = vec![0; 4096 * ENTRY];
        for start in (0..SEEN_FILES * ENTRY).step_by(piece.len()) {
            self.read(table + start as u64, &mut piece)?;
            for bytes in piece.chunks_exact(ENTRY) {
                let word = |at: usize| {
                    let mut word = [0; 8];
                    word.copy_from_slice(&bytes[at * 8..at * 8 + 8]);
                    u64::from_ne_bytes(word)
                };
                let file = SeenFile {
                    device: word(0),
                    number: word(1),
                    born: word(2) as i64,
                    shown: word(3),
                    written: word(4),
                    name: word(5),
                };
                if file.number != 0 {
                    found.push((file, self.seen_name(names, file.name)?));
                }
            }
        }
        Ok(found)
    }

    fn seen_name(&self, names: u64, at: u64) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        let room = (SEEN_NAMES - length.len()) as u64;
        if at == 0 || at > room {
            return Ok(Vec::new());
        }
        self.read(names + at - 1, &mut length)?;
        let length = u64::from(u16::from_ne_bytes(length)).min(room + 1 - at);
        let mut name = vec![0; length as usize];
        self.read(names + at + 1, &mut name)?;
        Ok(name)
    }

    /// The producer's end of the log ring.
    ///
    /// # Safety
    /// At most one may be in use at a time.
    pub unsafe fn log_producer(&self) -> Producer<'_> {
        // SAFETY: the ring lies in the mapping; uniqueness is the caller's.
        unsafe {
            Producer::new(
                &self.header().log,
                self.base.add(LOG_RING_OFFSET),
                LOG_RING_LEN,
            )
        }
    }

    /// The consumer's end of the output ring.
    ///
    /// # Safety
    /// At most one may be in use at a time.
    pub unsafe fn output_consumer(&self) -> Consumer<'_> {
        // SAFETY: as above.
        unsafe {
            Consumer::new(
                &self.header().output,
                self.base.add(OUTPUT_RING_OFFSET),
                OUTPUT_RING_LEN,
            )
        }
    }

    /// The server's end of the log ring, for who plays the server.
    ///
    /// # Safety
    /// At most one may be in use at a time, in any process.
    pub unsafe fn log_consumer(&self) -> Consumer<'_> {
        // SAFETY: as above.
        unsafe {
            Consumer::new(
                &self.header().log,
                self.base.add(LOG_RING_OFFSET),
                LOG_RING_LEN,
            )
        }
    }

    /// The server's end of the output ring, likewise.
    ///
    /// # Safety
    /// As [`log_consumer`](Self::log_consumer).
    pub unsafe fn output_producer(&self) -> Producer<'_> {
        // SAFETY: as above.
        unsafe {
            Producer::new(
                &self.header().output,
                self.base.add(OUTPUT_RING_OFFSET),
                OUTPUT_RING_LEN,
            )
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by `create` with this length and not used afterwards:
        // all borrows end before the drop.
        let _ = unsafe { rustix::mm::munmap(self.base.cast(), WORLD_OFFSET) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_segment_is_sparse_private_and_ready() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = std::env::temp_dir().join(format!("crane-channel-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("seg");
        let settings = Settings {
            replica: 2,
            quantum: 100,
            trace: false,
            objects: false,
            preempt: true,
            vote: false,
        };
        let segment = Segment::create(&path, settings).unwrap();
        let again = Segment::create(&path, settings).unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), SEGMENT_LEN as u64);
        assert!(meta.blocks() * 512 < 1 << 20);
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        assert_eq!(again.header().magic.load(Ordering::Relaxed), MAGIC);
        drop(segment);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
