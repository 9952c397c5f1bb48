//! Reading the log back after a start.
//!
//! The end of the log may be torn: a cut of power leaves any subset of the
//! sectors of the writes that were not yet synced. That is ordinary, and the
//! torn part is cut off; nothing in it was acknowledged. A bad record anywhere
//! else is damage to something that was acknowledged, and cutting there would
//! silently forget votes and entries, so it is refused.
//!
//! The two are told apart by the synced position in every record: a whole
//! record behind the bad one which says that everything up to a point *behind*
//! the bad one was synced proves damage. Whole records of the same torn write
//! prove nothing and say so themselves. What cannot be told apart is damage to
//! the very last synced write, with nothing behind it: it is cut off as if it
//! were torn. Should the replica have lost something it acknowledged that way,
//! the leader's next heartbeat shows it and the replica stops with a message.

use raft::eraftpb::HardState;

use super::Recovery;
use super::index::Index;
use super::meta::{Base, VERSION};
use super::record::{self, Found, HEADER, Payload, Position};
use super::segment;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;

/// The end of the log as it was found.
pub(crate) struct Tail<F> {
    pub(crate) file: F,
    pub(crate) number: u32,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) prev: u32,
    /// Where the last good record ended, in this segment or the one before.
    pub(crate) end: Position,
    pub(crate) hard: HardState,
    /// What was known at the start of each segment.
    pub(crate) starts: Vec<Base>,
}

/// Replays all segments into `index`, from the one that `base` names.
pub(crate) fn recover<D: Disk>(
    disk: &mut D,
    seed: u32,
    base: &Base,
    last: u32,
    index: &mut Index,
    recovery: &mut Recovery,
) -> Result<Tail<D::File>, Error> {
    index.begin_after(base.index, base.index_term);
    let mut replay = Replay {
        seed,
        prev: base.prev,
        end: Position(base.end),
        hard: HardState {
            term: base.term,
            vote: base.vote,
            commit: base.commit,
        },
        index,
    };
    let mut starts = Vec::new();
    let mut number = base.segment;
    loop {
        starts.push(replay.start(number));
        let name = segment::name(number);
        let path = disk.path_of(&name);
        let file = disk.open(&name).map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                Error::Corrupt {
                    path: path.clone(),
                    offset: 0,
                    reason: "the file is missing".into(),
                }
            } else {
                Error::io("open", &path, e)
            }
        })?;
        let bytes = read_whole(&file).map_err(|e| Error::io("read", &path, e))?;
        let offset = replay.segment(&bytes, number, &path)?;
        let rest = &bytes[offset..];
        if number < last {
            // The next segment exists only because this one was synced whole.
            if rest.iter().any(|b| *b != 0) {
                return Err(damaged(&path, offset, "a record's checksum does not match"));
            }
            number += 1;
            continue;
        }
        if let Some(proof) = replay.synced_behind(&bytes, offset, number) {
            return Err(damaged(
                &path,
                offset,
                &format!("a bad record before a good one at byte {proof}"),
            ));
        }
        if let Some(end) = rest.iter().rposition(|b| *b != 0) {
            recovery.truncated_bytes = end as u64 + 1;
            recovery.truncated_at = Some((path.clone(), offset as u64));
            // Torn leftovers go, so that they can never be taken for anything.
            file.write_at(offset as u64, &vec![0; end + 1])
                .map_err(|e| Error::io("cut", &path, e))?;
        }
        // What was read may be in the page cache only: it counts as kept from
        // now on, so it has to be.
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        if replay.hard.commit > replay.index.last() {
            return Err(damaged(&path, offset, "it ends before its commit index"));
        }
        return Ok(Tail {
            file,
            number,
            size: bytes.len() as u64,
            offset: offset as u64,
            prev: replay.prev,
            end: replay.end,
            hard: replay.hard,
            starts,
        });
    }
}

fn read_whole<F: DiskFile>(file: &F) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(std::io::Error::other)?];
    let len = file.read_at(0, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn damaged(path: &str, offset: usize, reason: &str) -> Error {
    Error::Corrupt {
        path: path.to_owned(),
        offset: offset as u64,
        reason: reason.to_owned(),
    }
}

struct Replay<'a> {
    seed: u32,
    prev: u32,
    /// Where the last good record ended.
    end: Position,
    hard: HardState,
    index: &'a mut Index,
}

impl Replay<'_> {
    /// What is known where segment `number` begins.
    fn start(&self, number: u32) -> Base {
        Base {
            segment: number,
            index: self.index.last(),
            index_term: self.index.last_term(),
            prev: self.prev,
            end: self.end.0,
            term: self.hard.term,
            vote: self.hard.vote,
            commit: self.hard.commit,
        }
    }

    /// Replays one segment up to its first record that is not whole; returns
    /// the offset of that record.
    fn segment(&mut self, bytes: &[u8], number: u32, path: &str) -> Result<usize, Error> {
        let mut offset = 0;
        while let Some(found) = self.next(bytes, offset, number) {
            let Some(payload) = found.payload() else {
                return Err(Error::Refused(format!(
                    "{path} holds a record at byte {offset} that this version of crane does not know: start the version that wrote it"
                )));
            };
            self.apply(payload, Position::new(number, offset as u64))
                .map_err(|reason| damaged(path, offset, reason))?;
            self.prev = found.crc;
            offset += found.size;
            self.end = Position::new(number, offset as u64);
        }
        Ok(offset)
    }

    fn next<'b>(&self, bytes: &'b [u8], offset: usize, number: u32) -> Option<Found<'b>> {
        let at = Position::new(number, offset as u64);
        record::find(bytes.get(offset..)?, at, self.seed).filter(|found| found.prev == self.prev)
    }

    fn apply(&mut self, payload: Payload, at: Position) -> Result<(), &'static str> {
        match payload {
            Payload::Start {
                version,
                previous_end,
            } => {
                if at.offset() != 0 {
                    return Err("a segment begins in the middle of another");
                }
                if version != VERSION {
                    return Err("its format is not the one the meta file says");
                }
                if previous_end != self.end.0 {
                    return Err("the segment before it lost its end");
                }
            }
            _ if at.offset() == 0 => return Err("it does not begin like a segment"),
            Payload::Entry(entry) => {
                if entry.index <= self.index.base() || entry.index > self.index.last() + 1 {
                    return Err("an entry does not follow the one before");
                }
                if entry.index <= self.hard.commit {
                    return Err("a committed entry is replaced");
                }
                self.index.push(entry, at);
            }
            Payload::Hard(hard) => {
                if hard.commit > self.index.last() || hard.commit < self.hard.commit {
                    return Err("the commit index is not possible");
                }
                if hard.term < self.hard.term {
                    return Err("the term went backwards");
                }
                self.hard = hard;
            }
        }
        Ok(())
    }

    /// Looks behind a bad record for proof that it had been synced; returns the
    /// offset of the proof.
    fn synced_behind(&self, bytes: &[u8], bad: usize, number: u32) -> Option<usize> {
        let point = Position::new(number, bad as u64);
        let last = bytes.len().checked_sub(HEADER)?;
        (bad..=last).step_by(8).find(|&offset| {
            let at = Position::new(number, offset as u64);
            record::find(&bytes[offset..], at, self.seed).is_some_and(|found| found.synced > point)
        })
    }
}
