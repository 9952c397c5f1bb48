//! The log as the consensus core reads it.

use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::LogStore;
use super::record::{self, HEADER, Payload, Position};
use super::segment;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;

/// Bytes read at once when entries are read back in order, at last: most calls
/// ask for a few entries, and the first of them knows nothing of more.
const READ_AHEAD: usize = 256 << 10;
/// Bytes read at first.
const READ_FIRST: usize = 4 << 10;

impl<D: Disk> LogStore<D> {
    /// The entry, if it is still in memory.
    #[must_use]
    pub fn recent(&self, index: u64) -> Option<&Entry> {
        self.index.recent(index)
    }

    /// Entries `low..high`, up to about `max_bytes` but at least one if there
    /// is one. Recent ones come from memory, older ones from the disk.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a record does not read back as it was written,
    /// [`Error::Io`].
    pub fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Entry>, Error> {
        let high = high.min(self.last_index() + 1);
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut window = Window::default();
        for index in low..high {
            let entry = match self.recent(index) {
                Some(entry) => entry.clone(),
                None => self.read_record(index, &mut window)?,
            };
            bytes += record::entry_size(&entry) as u64;
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read_record(&self, index: u64, window: &mut Window) -> Result<Entry, Error> {
        let Some(at) = self.index.position(index) else {
            return Err(Error::Fatal(format!("entry {index} is not in the log")));
        };
        let name = || self.disk.path_of(&segment::name(at.segment()));
        let failed = |e| Error::io("read", name(), e);
        let header = self.look(at, HEADER, window).map_err(failed)?;
        let size = record::claimed_size(header).filter(|size| *size as u64 <= u64::from(u32::MAX));
        let found = match size {
            Some(size) => {
                let bytes = self.look(at, size, window).map_err(failed)?;
                record::find(bytes, at, self.meta.seed).and_then(|found| found.payload())
            }
            None => None,
        };
        match found {
            Some(Payload::Entry(entry)) if entry.index == index => Ok(entry),
            _ => Err(Error::Corrupt {
                path: name(),
                offset: at.offset(),
                reason: format!("entry {index} does not read back as it was written"),
            }),
        }
    }

    /// `len` bytes at `at`, fewer at the end of the file.
    fn look<'w>(
        &self,
        at: Position,
        len: usize,
        window: &'w mut Window,
    ) -> std::io::Result<&'w [u8]> {
        let start = (at.offset().wrapping_sub(window.offset)) as usize;
        let held = window.segment == at.segment()
            && at.offset() >= window.offset
            && start + len <= window.bytes.len();
        if !held {
            window.segment = at.segment();
            window.offset = at.offset();
            // A damaged length must not become an allocation of that size.
            let rest = if at.segment() == self.number {
                self.size.saturating_sub(at.offset())
            } else {
                self.segment_file(at.segment(), |file| file.size())?
                    .saturating_sub(at.offset())
            };
            window.ahead = (2 * window.ahead).clamp(READ_FIRST, READ_AHEAD);
            let want = (len.max(window.ahead) as u64).min(rest) as usize;
            window.bytes.resize(want, 0);
            let got = if at.segment() == self.number {
                self.file.read_at(at.offset(), &mut window.bytes)?
            } else {
                self.segment_file(at.segment(), |file| {
                    file.read_at(at.offset(), &mut window.bytes)
                })?
            };
            window.bytes.truncate(got);
        }
        let start = (at.offset() - window.offset) as usize;
        let end = (start + len).min(window.bytes.len());
        Ok(&window.bytes[start..end])
    }

    /// Uses an older segment's file; the one used last stays open.
    fn segment_file<T>(
        &self,
        number: u32,
        f: impl FnOnce(&D::File) -> std::io::Result<T>,
    ) -> std::io::Result<T> {
        let mut reading = self.reading.borrow_mut();
        let open = match reading.take() {
            Some(open) if open.0 == number => open,
            _ => (number, self.disk.open(&segment::name(number))?),
        };
        f(&reading.insert(open).1)
    }

    /// An error met while the core was reading, which it could not pass on.
    pub(crate) fn take_read_error(&self) -> Option<Error> {
        self.read_error.borrow_mut().take()
    }
}

/// A piece of a segment held for reading in order.
#[derive(Default)]
struct Window {
    segment: u32,
    offset: u64,
    bytes: Vec<u8>,
    /// Bytes that were asked for last; twice as many the next time.
    ahead: usize,
}

impl<D: Disk> Storage for LogStore<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = self.hard.clone();
        if hard.term < self.meta.floor_term {
            // A vote for oneself is a vote nobody else can be given.
            hard = HardState {
                term: self.meta.floor_term,
                vote: self.meta.replica,
                commit: hard.commit,
            };
        }
        Ok(RaftState::new(hard, self.membership().conf_state()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base() {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        self.read(low, high, max).map_err(|e| {
            let shown = e.to_string();
            *self.read_error.borrow_mut() = Some(e);
            raft::Error::Store(StorageError::Other(shown.into()))
        })
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.index.term(index).ok_or({
            raft::Error::Store(if index < self.base() {
                StorageError::Compacted
            } else {
                StorageError::Unavailable
            })
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.index.last())
    }

    /// Only says which checkpoint there is: replicas fetch it by another way.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let found = self.checkpoint();
        let Some(checkpoint) = found.filter(|found| found.index >= request_index) else {
            // After a reading error, which is kept and stops the node; "not yet"
            // keeps the core from panicking.
            return Err(raft::Error::Store(
                StorageError::SnapshotTemporarilyUnavailable,
            ));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = checkpoint.index;
        metadata.term = checkpoint.term;
        let membership = self.membership_at(checkpoint.index);
        *metadata.mut_conf_state() = membership.conf_state();
        Ok(snapshot)
    }
}
