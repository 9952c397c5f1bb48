//! Where the log begins: cutting it behind a checkpoint, and beginning it anew
//! after one.
//!
//! Whole segments are dropped. The `meta` file, which is replaced whole, says
//! with which segment the log begins and what was known there; files before it
//! are leftovers of an interrupted cut and are removed when the log is opened.

use raft::eraftpb::HardState;

use super::members::Memberships;
use super::meta::{self, Base};
use super::record::{self, Encoder, Position};
use super::{LogStore, segment};
use crate::config::Checkpoint;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::membership::Membership;

impl<D: Disk> LogStore<D> {
    /// Drops segments that hold nothing behind entry `to`, which a checkpoint
    /// covers: what is left begins at or before the entry after it.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails.
    pub fn cut(&mut self, to: u64) -> Result<(), Error> {
        let to = to.min(self.hard.commit);
        // Where a later segment replaced the entry that was the last one then,
        // it cannot be read without those before.
        let follows = |start: &&Base| {
            let last = self.index.position(start.index);
            last.is_some_and(|at| at.segment() < start.segment)
        };
        let mut starts = self.starts.iter().rev();
        let Some(start) = starts.find(|start| start.index <= to && follows(start)) else {
            return Ok(());
        };
        self.begin_at(*start).map_err(|e| {
            self.failed = true;
            e.fatal()
        })
    }

    fn begin_at(&mut self, start: Base) -> Result<(), Error> {
        let old = self.meta.base.segment;
        self.meta.base = start;
        self.memberships.begin_at(start.index);
        self.meta.membership = self.memberships.first().clone();
        self.meta.save(&mut self.disk)?;
        self.starts.retain(|one| one.segment >= start.segment);
        self.reading.replace(None);
        self.index.drop_until(start.index);
        for number in old..start.segment {
            let name = segment::name(number);
            self.disk
                .remove(&name)
                .map_err(|e| Error::io("remove", self.disk.path_of(&name), e))?;
        }
        Ok(())
    }

    /// Makes the log one that goes with a checkpoint: as it is, if it has the
    /// checkpoint's entry, else empty and beginning after it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the log begins after the checkpoint, and when the
    /// disk fails.
    pub(super) fn begin_from(
        &mut self,
        checkpoint: Option<Checkpoint>,
        membership: Option<&Membership>,
    ) -> Result<(), Error> {
        if let Some(Checkpoint { index, term }) = checkpoint {
            self.must_reach(index)?;
            if self.index.term(index) != Some(term) {
                if let Some(known) = membership {
                    self.memberships = Memberships::new(known.clone());
                }
                self.begin_after(index, term)?;
            }
            self.hard.commit = self.hard.commit.max(index);
            self.checkpoint = checkpoint;
        }
        // The index on the disk may be an older one.
        self.hard.commit = self.hard.commit.max(self.index.base());
        Ok(())
    }

    /// Refuses a log that begins after entry `index`, that of a checkpoint.
    fn must_reach(&self, index: u64) -> Result<(), Error> {
        let begin = self.base();
        if index >= begin {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "{} begins after entry {begin}, later than the checkpoint of entry {index} with which it is to go: remove that checkpoint and restart this replica, it will get another one",
            self.disk.path_of("")
        )))
    }

    /// Forgets all entries; the next one is that after `index`.
    fn begin_after(&mut self, index: u64, term: u64) -> Result<(), Error> {
        if self.offset > 0 {
            self.roll(record::START_SIZE)?;
        }
        let kept = self.hard.term >= term;
        let start = Base {
            segment: self.number,
            index,
            index_term: term,
            prev: self.prev,
            end: self.end.0,
            term: self.hard.term.max(term),
            // A vote for oneself is a vote nobody else can be given.
            vote: if kept {
                self.hard.vote
            } else {
                self.meta.replica
            },
            commit: index,
        };
        let mut out = Vec::new();
        let mut encoder = Encoder {
            out: &mut out,
            seed: self.meta.seed,
            prev: self.prev,
            at: Position::new(self.number, 0),
            synced: self.synced,
        };
        encoder.start(meta::VERSION, self.end.0);
        let (prev, end) = (encoder.prev, encoder.at);
        self.file
            .write_at(0, &out)
            .and_then(|()| self.file.sync())
            .map_err(|e| Error::io("write", self.path(), e))?;
        (self.prev, self.end, self.offset) = (prev, end, end.offset());
        self.synced = end;
        self.starts = vec![start];
        self.index.begin_after(index, term);
        self.hard = HardState {
            term: start.term,
            vote: start.vote,
            commit: index,
        };
        self.begin_at(start)
    }

    /// The owner has a checkpoint of everything up to entry `index`, which is
    /// in the log: replicas that are further behind than the log goes are told
    /// of it.
    pub fn set_checkpoint(&mut self, index: u64) {
        if let Some(term) = self.index.term(index) {
            self.checkpoint = Some(Checkpoint { index, term });
        }
    }

    /// The newest checkpoint that the owner told of.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    /// The entry before the first one in the log; 0 if it was never cut.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.index.base()
    }

    /// Bytes of the log's segments on the disk, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let whole = u64::from(self.number - self.meta.base.segment);
        whole * self.segment_bytes + self.size
    }

    /// Bytes of the log behind the newest checkpoint, about; all without one.
    #[must_use]
    pub fn bytes_behind(&self) -> u64 {
        let at = self
            .checkpoint
            .and_then(|from| self.index.position(from.index));
        at.map_or_else(
            || self.bytes(),
            |at| {
                let segments = u64::from(self.end.segment().saturating_sub(at.segment()));
                (segments * self.segment_bytes + self.end.offset()).saturating_sub(at.offset())
            },
        )
    }
}

/// Removes what an interrupted cut left.
pub(super) fn remove_leftovers<D: Disk>(
    disk: &mut D,
    names: &[String],
    first: u32,
) -> Result<(), Error> {
    for name in names {
        if segment::number(name).is_some_and(|number| number < first) {
            disk.remove(name)
                .map_err(|e| Error::io("remove", disk.path_of(name), e))?;
        }
    }
    Ok(())
}
