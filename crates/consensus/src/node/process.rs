//! The loop that keeps messages, disk and committed entries in order.

use raft::ProgressState;
use raft::eraftpb::{Entry, HardState, Message, MessageType};

use super::{Node, Output, Standing};
use crate::disk::Disk;
use crate::error::Error;
use crate::membership::is_change;

/// Ticks after which a commit index is written that no entry took along.
const COMMIT_WAITS: u64 = 40;

impl<D: Disk> Node<D> {
    /// Does what has become due: sends a leader's messages, writes entries and
    /// then the hard state and syncs them once, sends what may be sent only
    /// after that, and hands over committed entries (about
    /// [`Config::max_committed_bytes`](crate::Config::max_committed_bytes) of
    /// them). Call it while [`has_ready`](Node::has_ready).
    ///
    /// # Errors
    /// [`Error::Fatal`] or [`Error::Corrupt`]: the node must not be used any
    /// more.
    pub fn process(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        if let Some(reason) = &self.failure {
            return Err(Error::Fatal(reason.clone()));
        }
        let result = self.try_process(out);
        if let Err(e) = &result {
            self.failure = Some(e.to_string());
        }
        result
    }

    fn try_process(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        while let Some(msg) = self.outbox.pop_front() {
            self.send(out, msg);
        }
        if let Some(index) = self.needs_checkpoint.take() {
            out.needs_checkpoint(index);
        }
        if self.raw.has_ready() {
            self.process_ready(out)?;
        }
        if self.commit_is_overdue() {
            self.write_commit()?;
        }
        self.deliver(out)
    }

    /// Whether the disk's commit index is so old that it is written for its own
    /// sake: whoever reads the log later should find all of it.
    pub(super) fn commit_is_overdue(&self) -> bool {
        self.commit_unwritten
            .is_some_and(|since| self.ticks >= since + COMMIT_WAITS)
    }

    /// Writes the commit index, without a sync: it is only a hint.
    pub(super) fn write_commit(&mut self) -> Result<(), Error> {
        self.commit_unwritten = None;
        let hard = self.raw.raft.hard_state();
        if hard.commit > self.commit_written {
            self.commit_written = hard.commit;
            self.raw.mut_store().write(Vec::new(), Some(&hard), false)?;
        }
        Ok(())
    }

    fn process_ready(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        let mut ready = self.raw.ready();
        self.tell_role(out);
        // A leader's followers may write while it writes itself: it counts
        // itself only when its own write is done (Raft thesis, 10.2.1).
        for msg in ready.take_messages() {
            self.send(out, msg);
        }
        if !ready.snapshot().is_empty() {
            // `step` lets none through.
            return Err(Error::Fatal(
                "a snapshot came through that is not a checkpoint's name: restart this replica"
                    .into(),
            ));
        }
        let entries = ready.take_entries();
        let hard = self.hard_to_write(ready.hs(), !entries.is_empty());
        if let Some(hard) = &hard {
            self.commit_written = hard.commit;
            self.commit_unwritten = None;
        } else if self.commit() > self.commit_written {
            self.commit_unwritten.get_or_insert(self.ticks);
        }
        let sync = ready.must_sync();
        self.raw.mut_store().write(entries, hard.as_ref(), sync)?;
        for msg in ready.take_persisted_messages() {
            self.send(out, msg);
        }
        self.note_committed(out, &ready.take_committed_entries())?;
        let mut light = self.raw.advance_append(ready);
        for msg in light.take_messages() {
            self.send(out, msg);
        }
        self.note_committed(out, &light.take_committed_entries())?;
        self.raw.advance_apply();
        if let Some(e) = self.raw.store().take_read_error() {
            return Err(e.fatal());
        }
        self.rejoin()
    }

    /// The hard state to write: one with another term or vote, and together with
    /// entries also one that has only a newer commit index. That index alone is
    /// no reason to touch the disk: a replica learns it again from its leader.
    fn hard_to_write(&self, changed: Option<&HardState>, writing: bool) -> Option<HardState> {
        let now = match changed {
            Some(hard) => hard.clone(),
            None => self.raw.raft.hard_state(),
        };
        let known = self.raw.store().hard_state();
        let promised = now.term != known.term || now.vote != known.vote;
        (promised || (writing && now.commit > self.commit_written)).then_some(now)
    }

    fn note_committed(
        &mut self,
        out: &mut dyn Output,
        entries: &[raft::eraftpb::Entry],
    ) -> Result<(), Error> {
        for entry in entries {
            if is_change(entry) {
                self.change_committed(out, entry)?;
            }
            self.deliverable = entry.index;
        }
        Ok(())
    }

    /// A replica that forgot may vote again once its log has all it may ever
    /// have acknowledged; the argument is at [`Standing`].
    pub(super) fn rejoin(&mut self) -> Result<(), Error> {
        let Standing::CatchingUp { term, index } = self.standing else {
            return Ok(());
        };
        // What the store has is on the disk; what the core has may not be.
        let store = self.raw.store();
        let later = store.last_term() > term;
        let same = self.term() == term
            && self.leader().is_some_and(|l| self.inquiry.has_answer(l))
            && store.last_index() >= index.max(self.inquiry.highest_index());
        if later || same {
            self.set_standing(Standing::Voter, 0)?;
        }
        Ok(())
    }

    pub(super) fn set_standing(&mut self, standing: Standing, floor: u64) -> Result<(), Error> {
        self.raw.mut_store().set_standing(standing, floor)?;
        self.standing = standing;
        Ok(())
    }

    fn deliver(&mut self, out: &mut dyn Output) -> Result<(), Error> {
        let mut bytes = 0;
        if self.lacks {
            return Ok(());
        }
        while self.cursor < self.deliverable && bytes < self.page_bytes && out.accepts_committed() {
            let index = self.cursor + 1;
            if let Some(entry) = self.raw.store().recent(index) {
                self.page.clear();
                out.committed(index, entry.term, for_program(entry));
                bytes += entry.data.len() as u64 + 1;
            } else {
                if self.page.front().is_none_or(|e| e.index != index) {
                    let end = self.deliverable + 1;
                    let page = self.raw.store().read(index, end, self.page_bytes);
                    self.page = page.map_err(Error::fatal)?.into();
                }
                let Some(entry) = self.page.pop_front() else {
                    return Err(Error::Fatal(format!(
                        "committed entry {index} is not in the log: remove this replica's `log` directory and restart it, it will catch up from the leader"
                    )));
                };
                out.committed(index, entry.term, for_program(&entry));
                bytes += entry.data.len() as u64 + 1;
            }
            self.cursor = index;
        }
        Ok(())
    }

    fn send(&mut self, out: &mut dyn Output, mut msg: Message) {
        match msg.msg_type() {
            MessageType::MsgAppend => _ = self.appended.insert(msg.to, self.ticks),
            MessageType::MsgHeartbeat if self.is_needless(&msg) => return,
            MessageType::MsgSnapshot => _ = self.told_checkpoint.insert(msg.to, self.ticks),
            _ => {}
        }
        msg.deprecated_priority = self.raw.store().meta().life;
        out.send(msg.to, msg);
    }

    /// Whether a heartbeat says nothing to a replica that was sent an append
    /// within the last interval: that resets its time-out just as well, and its
    /// answer shows that it lives. A replica that does not keep up gets both.
    fn is_needless(&self, heartbeat: &Message) -> bool {
        // One more, because a server's timers are often as long as the interval.
        let interval = self.heartbeat_ticks as u64 + 1;
        let lately = |at: &u64| self.ticks < at + interval;
        let follows = |id| {
            let progress = self.raw.raft.prs().get(id);
            progress.is_some_and(|p| p.state == ProgressState::Replicate && !p.is_paused())
        };
        heartbeat.context.is_empty()
            && self.appended.get(&heartbeat.to).is_some_and(lately)
            && follows(heartbeat.to)
    }

    fn tell_role(&mut self, out: &mut dyn Output) {
        let now = (self.role(), self.term(), self.leader());
        if now != self.told {
            self.told = now;
            out.role_changed(now.0, now.1, now.2);
        }
    }
}

/// What of an entry the owner is handed: nothing of one that changes the members.
fn for_program(entry: &Entry) -> &[u8] {
    if is_change(entry) { &[] } else { &entry.data }
}
