//! The records of the log file.
//!
//! A segment is a sequence of records, each starting at a multiple of eight:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | CRC32C of the rest of the record, started with the log's own seed |
//! | 4 | the CRC of the record before it: the chain |
//! | 4 | bytes of payload |
//! | 1 | kind |
//! | 3 | zero |
//! | 8 | position of this record: segment number << 32, offset in the segment |
//! | 8 | position up to which everything was known to be synced when this record was written |
//! | n | payload, zeros up to a multiple of eight |
//!
//! The seed (made from the cluster and the state directory) and the position
//! make sure that old bytes of a recycled file, or bytes a client sent, do not
//! pass for a record. All numbers are little-endian.

use raft::eraftpb::{Entry, EntryType, HardState};

/// Bytes before the payload.
pub(crate) const HEADER: usize = 32;

/// A position in the whole log: segment number and offset in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    pub(crate) fn new(segment: u32, offset: u64) -> Self {
        debug_assert!(offset <= u64::from(u32::MAX));
        Self(u64::from(segment) << 32 | offset)
    }

    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn offset(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    /// The first record of a segment: format version, and where the segment
    /// before ended.
    Start { version: u32, previous_end: u64 },
    /// A log entry; it replaces everything at and after its index.
    Entry(Entry),
    /// Term, vote and commit index.
    Hard(HardState),
}

const START: u8 = 1;
const ENTRY: u8 = 2;
const HARD: u8 = 3;

/// Bytes of an entry's payload before its context and data.
const ENTRY_FIXED: usize = 24;

/// Bytes that a record with this payload takes.
pub(crate) fn padded(payload_len: usize) -> usize {
    HEADER + payload_len.next_multiple_of(8)
}

/// Bytes of the record of `entry`.
pub(crate) fn entry_size(entry: &Entry) -> usize {
    padded(ENTRY_FIXED + entry.context.len() + entry.data.len())
}

/// Bytes of a hard state's record.
pub(crate) const HARD_SIZE: usize = HEADER + 24;
/// Bytes of a segment's first record.
pub(crate) const START_SIZE: usize = HEADER + 16;

/// Writes records one after the other into a buffer.
pub(crate) struct Encoder<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) seed: u32,
    pub(crate) prev: u32,
    /// Position of the next record.
    pub(crate) at: Position,
    pub(crate) synced: Position,
}

impl Encoder<'_> {
    fn record(&mut self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.out.len();
        self.out.extend_from_slice(&[0; HEADER]);
        fill(self.out);
        let len = self.out.len() - start - HEADER;
        self.out.resize(start + padded(len), 0);
        let record = &mut self.out[start..];
        record[4..8].copy_from_slice(&self.prev.to_le_bytes());
        // The length is bounded by the configuration, far below 4 GiB.
        record[8..12].copy_from_slice(&(len as u32).to_le_bytes());
        record[12] = kind;
        record[16..24].copy_from_slice(&self.at.0.to_le_bytes());
        record[24..32].copy_from_slice(&self.synced.0.to_le_bytes());
        let crc = crc32c::crc32c_append(self.seed, &record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
        self.prev = crc;
        self.at = Position(self.at.0 + padded(len) as u64);
    }

    pub(crate) fn start(&mut self, version: u32, previous_end: u64) {
        self.record(START, |out| {
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&previous_end.to_le_bytes());
        });
    }

    pub(crate) fn entry(&mut self, entry: &Entry) {
        self.record(ENTRY, |out| {
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&entry.term.to_le_bytes());
            out.extend_from_slice(&(entry.context.len() as u32).to_le_bytes());
            out.extend_from_slice(&(entry.entry_type as u32).to_le_bytes());
            out.extend_from_slice(&entry.context);
            out.extend_from_slice(&entry.data);
        });
    }

    pub(crate) fn hard(&mut self, hard: &HardState) {
        self.record(HARD, |out| {
            out.extend_from_slice(&hard.term.to_le_bytes());
            out.extend_from_slice(&hard.vote.to_le_bytes());
            out.extend_from_slice(&hard.commit.to_le_bytes());
        });
    }
}

/// A record found whole in a buffer.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) crc: u32,
    pub(crate) prev: u32,
    pub(crate) synced: Position,
    /// Bytes of the record with its padding.
    pub(crate) size: usize,
    kind: u8,
    payload: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Looks for a whole record at the start of `bytes`, which is at `at` in the
/// log. Its place in the chain is for the caller to check.
pub(crate) fn find(bytes: &[u8], at: Position, seed: u32) -> Option<Found<'_>> {
    if u64_at(bytes, 16)? != at.0 {
        return None;
    }
    let len = u32_at(bytes, 8)? as usize;
    let size = padded(len);
    let record = bytes.get(..size)?;
    let crc = u32_at(record, 0)?;
    if crc32c::crc32c_append(seed, &record[4..]) != crc {
        return None;
    }
    Some(Found {
        crc,
        prev: u32_at(record, 4)?,
        synced: Position(u64_at(record, 24)?),
        size,
        kind: record[12],
        payload: &record[HEADER..HEADER + len],
    })
}

/// The size a record claims to have, without checking it.
pub(crate) fn claimed_size(header: &[u8]) -> Option<usize> {
    Some(padded(u32_at(header, 8)? as usize))
}

impl Found<'_> {
    /// What the record holds; `None` for a kind this version does not know.
    pub(crate) fn payload(&self) -> Option<Payload> {
        let bytes = self.payload;
        match self.kind {
            START => Some(Payload::Start {
                version: u32_at(bytes, 0)?,
                previous_end: u64_at(bytes, 8)?,
            }),
            ENTRY => {
                let context = u32_at(bytes, 16)? as usize;
                let mut entry = Entry {
                    index: u64_at(bytes, 0)?,
                    term: u64_at(bytes, 8)?,
                    ..Entry::default()
                };
                entry.set_entry_type(EntryType::from_i32(u32_at(bytes, 20)? as i32)?);
                entry.context = bytes
                    .get(ENTRY_FIXED..ENTRY_FIXED.checked_add(context)?)?
                    .to_vec();
                entry.data = bytes.get(ENTRY_FIXED + context..)?.to_vec();
                Some(Payload::Entry(entry))
            }
            HARD => Some(Payload::Hard(HardState {
                term: u64_at(bytes, 0)?,
                vote: u64_at(bytes, 8)?,
                commit: u64_at(bytes, 16)?,
            })),
            _ => None,
        }
    }
}
