//! Changing who takes part.

use raft::ProgressState;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, Message};

use super::{Node, Output, standing};
use crate::disk::Disk;
use crate::error::Error;
use crate::membership::{self, Change, ChangeError, Membership};

/// Entries that a learner may lack when it is made a voter.
const NEAR: u64 = 1000;

impl<D: Disk> Node<D> {
    /// Who takes part, as far as this replica knows it to be agreed.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.raw.store().membership()
    }

    /// Proposes a change of the members. It holds when
    /// [`Output::membership_changed`] tells of it, which may never happen if the
    /// leader changes. Returns the entry's index; `None` when it is so already.
    ///
    /// # Errors
    /// See [`ChangeError`]; nothing was proposed then.
    pub fn change(&mut self, change: &Change) -> Result<Option<u64>, ChangeError> {
        if !self.is_leader() || self.failure.is_some() {
            return Err(ChangeError::NotLeader {
                leader: self.leader().filter(|l| *l != self.id),
            });
        }
        // What this leader's log held before it is not all known yet, or the
        // change before has not been told to everybody who decides.
        if self.raw.raft.has_pending_conf() || !self.membership().is_settled() {
            return Err(ChangeError::UnderWay);
        }
        let Some(proposed) = self.membership().propose(change)? else {
            return Ok(None);
        };
        match *change {
            Change::Promote(id) | Change::Replace { new: id, .. } if !self.is_near(id) => {
                return Err(ChangeError::Behind(id));
            }
            Change::Remove(id) | Change::Replace { old: id, .. } if id == self.id => {
                return Err(ChangeError::Leads);
            }
            _ => {}
        }
        self.propose_change(proposed).map(Some)
    }

    fn propose_change(&mut self, change: ConfChangeV2) -> Result<u64, ChangeError> {
        let proposed = self.raw.propose_conf_change(Vec::new(), change);
        proposed.map_err(|_| ChangeError::Busy)?;
        Ok(self.last_index())
    }

    /// Whether the log of `id` is near the end of this leader's, and it would be
    /// of use as a voter.
    fn is_near(&self, id: u64) -> bool {
        let progress = self.raw.raft.prs().get(id);
        let near = progress.is_some_and(|p| {
            p.state == ProgressState::Replicate && p.matched + NEAR >= self.commit()
        });
        let life = self.lives.get(&id);
        near && life.is_some() && self.ready.get(&id) == life
    }

    /// A leader asks its learners whether they could be voters.
    fn ask_learners(&mut self) {
        if self.ticks.is_multiple_of(self.heartbeat_ticks as u64) {
            let learners = self.raw.store().membership().learners.iter();
            let questions = learners.map(|id| standing::question(self.id, *id));
            self.outbox.extend(questions);
        }
    }

    /// An answer to a replica that needs none for itself.
    pub(super) fn hear_of_learner(&mut self, answer: &Message) {
        if standing::says_voter(answer) {
            let life = self.lives.get(&answer.from).copied().unwrap_or(0);
            self.ready.insert(answer.from, life);
        }
    }

    /// A leader ends what a change began, also one of the leader before.
    pub(super) fn follow_up(&mut self) {
        if !self.is_leader() {
            return;
        }
        self.ask_learners();
        if self.raw.raft.has_pending_conf() {
            return;
        }
        if let Some(change) = self.membership().follow_up(self.id) {
            // If it is not taken now, it is tried at the next tick.
            let _ = self.propose_change(change);
        }
    }

    pub(super) fn change_committed(
        &mut self,
        out: &mut dyn Output,
        entry: &Entry,
    ) -> Result<(), Error> {
        let unreadable = |why: String| {
            Error::Fatal(format!(
                "entry {} changes the replicas and {why}: it was written by another version of crane; run the same version on all replicas",
                entry.index
            ))
        };
        // What was read at the start is known.
        if entry.index <= self.membership().index() {
            return Ok(());
        }
        let change = membership::read_change(entry).map_err(unreadable)?;
        self.raw.mut_store().note_change(entry)?;
        let applied = self.raw.apply_conf_change(&change);
        let state = applied.map_err(|e| unreadable(format!("cannot be carried out ({e})")))?;
        let now = self.raw.store().membership();
        if !now.is(&state) {
            return Err(unreadable("is understood in two ways".into()));
        }
        out.membership_changed(now);
        // A change that the leader before proposed: the core would go on as a
        // leader without a place in its own books.
        if self.is_leader() && !now.is_voter(self.id) {
            let term = self.term();
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
        Ok(())
    }

    /// A replica without a log begins with the voters with which its cluster
    /// began, whatever it was told, and follows the changes in the log from
    /// there.
    pub(super) fn begin_with_the_first(&mut self) -> Result<(), Error> {
        let Some(newest) = self.inquiry.newest() else {
            return Ok(());
        };
        let now = self.membership();
        if now.index() > 0 || self.last_index() > 0 || now.initial == newest.initial {
            return Ok(());
        }
        let first = Membership::initial(newest.initial.iter().copied());
        let come = first.initial.difference(&now.initial);
        let go = now.initial.difference(&first.initial);
        let come = come.map(|id| (ConfChangeType::AddNode, *id));
        let go = go.map(|id| (ConfChangeType::RemoveNode, *id));
        let changes: Vec<_> = come.chain(go).collect();
        for (kind, node_id) in changes {
            let mut change = ConfChangeV2::default();
            change.changes.push(ConfChangeSingle {
                change_type: kind.into(),
                node_id,
            });
            self.raw
                .apply_conf_change(&change)
                .map_err(|e| Error::Fatal(format!("the first replicas were refused: {e}")))?;
        }
        self.raw.mut_store().begin_with(first)
    }

    /// The reason to stop of a replica that is no member any more.
    pub(super) fn removed(&self, index: u64) -> Error {
        Error::Fatal(format!(
            "replica {} was removed from the cluster by entry {index}, and its id is not used again: its state directory can be removed",
            self.id
        ))
    }
}
