//! Who took part at each place of the log.

use raft::eraftpb::Entry;

use super::LogStore;
use crate::disk::Disk;
use crate::error::Error;
use crate::membership::Membership;

/// The memberships from where the log begins to its last committed change.
#[derive(Debug)]
pub(super) struct Memberships {
    first: Membership,
    later: Vec<Membership>,
}

impl Memberships {
    pub(super) fn new(first: Membership) -> Self {
        Self {
            first,
            later: Vec::new(),
        }
    }

    /// That where the log begins.
    pub(super) fn first(&self) -> &Membership {
        &self.first
    }

    fn last(&self) -> &Membership {
        self.later.last().unwrap_or(&self.first)
    }

    /// That at entry `index`, which is not before the beginning.
    fn at(&self, index: u64) -> &Membership {
        let later = self.later.partition_point(|one| one.index() <= index);
        later
            .checked_sub(1)
            .map_or(&self.first, |at| &self.later[at])
    }

    /// The log begins behind entry `index` now.
    pub(super) fn begin_at(&mut self, index: u64) {
        self.first = self.at(index).clone();
        self.later.retain(|one| one.index() > index);
    }
}

impl<D: Disk> LogStore<D> {
    /// Reads the changes of the log that is being opened, as far as it is
    /// committed.
    pub(super) fn find_memberships(&mut self) -> Result<(), Error> {
        // A change is proposed only when its leader knew that all those before
        // it in the log are committed. A torn write can leave it without the
        // commit index that was to be written with it.
        let known = self.index.changes_after(0).rev().nth(1);
        let known = known.map_or(0, |entry| entry.index);
        self.hard.commit = self.hard.commit.max(known);
        let known = self.membership().index().max(self.index.base());
        let committed: Vec<Entry> = self
            .index
            .changes_after(known)
            .take_while(|entry| entry.index <= self.hard.commit)
            .cloned()
            .collect();
        for entry in &committed {
            self.note_change(entry)?;
        }
        Ok(())
    }

    /// An entry that changes the members has been committed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it cannot follow what was there before.
    pub(crate) fn note_change(&mut self, entry: &Entry) -> Result<(), Error> {
        let next = self
            .membership()
            .after(entry)
            .map_err(|why| Error::Corrupt {
                path: self.disk.path_of(""),
                offset: 0,
                reason: format!("entry {} changes the replicas and {why}", entry.index),
            })?;
        self.memberships.later.push(next);
        Ok(())
    }

    /// A replica that joins has heard with whom its cluster began.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails.
    pub(crate) fn begin_with(&mut self, membership: Membership) -> Result<(), Error> {
        self.meta.membership = membership.clone();
        self.memberships = Memberships::new(membership);
        self.save_meta()
    }

    /// Who takes part now, as far as this replica knows it to be agreed.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.memberships.last()
    }

    /// Who took part at entry `index`, which is not before the log's beginning
    /// and not behind what is known to be committed.
    #[must_use]
    pub fn membership_at(&self, index: u64) -> &Membership {
        self.memberships.at(index)
    }

    /// Who would take part if all that is in the log were committed, when that
    /// is somebody else.
    pub(crate) fn pending_membership(&self) -> Option<Membership> {
        let now = self.membership();
        if now.is_empty() {
            return None;
        }
        let behind = now.index().max(self.index.base());
        let mut changes = self.index.changes_after(behind);
        let mut next = now.after(changes.next()?).ok()?;
        for entry in changes {
            next = next.after(entry).ok()?;
        }
        Some(next)
    }
}
