//! Messages from the other replicas.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::Node;
use super::standing::{self, Standing};
use crate::disk::Disk;
use crate::error::Error;

/// Terms, indexes and lives (nanoseconds since 1970) are below. The core counts
/// on from what it is told, and a number that one broken replica sent must not
/// bring the others to where counting ends.
const LIMIT: u64 = 1 << 62;

impl<D: Disk> Node<D> {
    /// Takes a message from another replica. Messages that are not for this
    /// replica, that are of an earlier life of their sender or of a kind no
    /// replica sends are dropped.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the message shows that this replica lost what it had
    /// acknowledged, or if the disk fails.
    pub fn step(&mut self, mut msg: Message) -> Result<(), Error> {
        if let Some(reason) = &self.failure {
            return Err(Error::Fatal(reason.clone()));
        }
        if msg.to != self.id || msg.from == self.id || msg.from == 0 {
            return Ok(());
        }
        if !plausible(&msg) {
            return Ok(());
        }
        // No replica asks for it.
        msg.request_snapshot = 0;
        // Who lost its directory may know nobody any more who takes part.
        if self.standing != Standing::Voter && !self.seeds.contains(&msg.from) {
            self.seeds.push(msg.from);
        }
        // The field is one the core would read as a priority.
        let life = std::mem::take(&mut msg.deprecated_priority);
        msg.priority = 0;
        // What is said of this replica's own life holds whoever says it: two
        // replicas that take each other for outdated must not wait for ever.
        let outdated = msg.msg_type() == MessageType::MsgBeat && msg.reject;
        if !outdated && !self.know_life(&msg, life) {
            return Ok(());
        }
        let result = match msg.msg_type() {
            MessageType::MsgBeat if outdated => self.renew_life(&msg),
            MessageType::MsgHup => {
                self.answer(&msg, life);
                Ok(())
            }
            MessageType::MsgBeat => self.take_answer(&msg),
            _ if self.standing == Standing::Asking => Ok(()),
            _ => self.step_core(msg),
        };
        if let Err(e) = result {
            self.fail(e);
            return self
                .failure
                .clone()
                .map_or(Ok(()), |r| Err(Error::Fatal(r)));
        }
        self.fix_timeout();
        Ok(())
    }

    /// Keeps track of the sender's life; false if the message is of an earlier
    /// one. The sender is told, in case it is alive: this replica may have
    /// started anew, forgotten the lives it knew, and then met a late message
    /// of an earlier one with a higher number.
    fn know_life(&mut self, msg: &Message, life: u64) -> bool {
        let known = self.lives.entry(msg.from).or_insert(life);
        if life < *known {
            if msg.msg_type() != MessageType::MsgBeat {
                self.answer(msg, life);
            }
            return false;
        }
        if life > *known {
            *known = life;
            self.forget_progress(msg.from);
        }
        true
    }

    /// What an earlier life of `id` acknowledged is not on its disk any more.
    fn forget_progress(&mut self, id: u64) {
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(id) {
            progress.matched = 0;
            progress.committed_index = 0;
            progress.become_probe();
            self.raw.raft.send_append(id);
        }
    }

    fn answer(&mut self, question: &Message, life: u64) {
        let known = self.lives.get(&question.from).copied().unwrap_or(life);
        let answer = standing::answer(
            question,
            life,
            known,
            (self.raw.raft.term, self.last_index()),
            self.standing,
            (self.membership(), self.log().pending_membership()),
        );
        self.outbox.push_back(answer);
    }

    /// Asks everybody who has not answered, or while nothing is known yet,
    /// everybody: the answers of an empty cluster change.
    pub(super) fn ask(&mut self) {
        self.inquiry.ticks = 0;
        for peer in self.others() {
            if self.standing == Standing::Asking || !self.inquiry.has_answer(peer) {
                self.outbox.push_back(standing::question(self.id, peer));
            }
        }
    }

    /// Another replica knows a life of this one with a higher number.
    fn renew_life(&mut self, msg: &Message) -> Result<(), Error> {
        let life = self.raw.store().meta().life;
        // Else it is meant for an earlier life.
        if msg.log_term == life && msg.commit >= life {
            self.raw
                .mut_store()
                .set_life(msg.commit.saturating_add(1))?;
            self.inquiry.forget();
            if self.standing != Standing::Voter {
                self.ask();
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, msg: &Message) -> Result<(), Error> {
        if self.standing == Standing::Voter {
            self.hear_of_learner(msg);
            return Ok(());
        }
        let life = self.raw.store().meta().life;
        let own = (self.id, self.raw.store().membership());
        let verdict = self.inquiry.take(msg, life, own);
        if let Some(newest) = self.inquiry.newest()
            && newest.is_removed(self.id)
            && newest.index() > self.membership().index()
        {
            return Err(self.removed(newest.index()));
        }
        if self.standing != Standing::Asking {
            return self.rejoin();
        }
        let Some(standing::Verdict { standing, floor }) = verdict else {
            return Ok(());
        };
        self.begin_with_the_first()?;
        // Durable before the first message of the core is taken.
        self.set_standing(standing, floor)?;
        if self.raw.raft.term < floor {
            let mut hard = self.raw.raft.hard_state();
            hard.term = floor;
            hard.vote = self.id;
            self.raw.raft.load_state(&hard);
        }
        Ok(())
    }

    /// The cut-off end of the log held what this replica had confirmed: it goes
    /// on as one that lost its log, which asks before it votes, with what is
    /// left of the log.
    fn begin_again(&mut self) -> Result<(), Error> {
        let life = self.raw.store().meta().life.saturating_add(1);
        self.raw.mut_store().set_life(life)?;
        let term = self.term();
        self.set_standing(Standing::Asking, term)?;
        self.cut = false;
        self.inquiry.forget();
        self.ask();
        Ok(())
    }

    /// Hands a message to the core, except those that would make it panic or
    /// do what this replica may not do.
    fn step_core(&mut self, msg: Message) -> Result<(), Error> {
        // The core takes a message without a term for one of its own.
        if msg.term == 0 {
            return Ok(());
        }
        let catching_up = self.standing != Standing::Voter;
        match msg.msg_type() {
            MessageType::MsgAppend => {
                if !plausible_append(&msg) {
                    return Ok(());
                }
            }
            MessageType::MsgHeartbeat if msg.commit > self.last_index() => {
                if msg.term < self.term() {
                    // The core answers with the newer term and reads no more.
                } else if catching_up {
                    // The leader has not heard of the new life.
                    let ask = standing::question(self.id, msg.from);
                    self.outbox.push_back(ask);
                    return Ok(());
                } else if self.cut {
                    return self.begin_again();
                } else {
                    return Err(Error::Fatal(format!(
                        "the leader has acknowledgements of this replica up to entry {} but its log ends at {}: its disk lost what it had confirmed; remove this replica's `log` directory and restart it, it will catch up from the leader",
                        msg.commit,
                        self.last_index()
                    )));
                }
            }
            MessageType::MsgAppendResponse if !msg.reject && msg.index > self.last_index() => {
                if msg.term <= self.term() {
                    // It confirms what this leader never sent.
                    return Ok(());
                }
            }
            MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgAppendResponse => {}
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow => {
                let stands = msg.get_msg_type() == MessageType::MsgTimeoutNow;
                if catching_up || (stands && self.lacks) {
                    return Ok(());
                }
            }
            MessageType::MsgSnapshot => return self.take_checkpoint_notice(msg),
            // A follower does not forward proposals, and the rest never leaves a
            // replica.
            _ => return Ok(()),
        }
        // The core refuses only messages of replicas it does not know.
        let _ = self.raw.step(msg);
        match self.raw.store().take_read_error() {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

impl<D: Disk> Node<D> {
    /// The leader's log does not reach back to the end of this one. The core is
    /// not given the notice, because there is nothing to be installed in a
    /// running replica, but hears of its leader; the owner is told.
    fn take_checkpoint_notice(&mut self, msg: Message) -> Result<(), Error> {
        let index = msg.get_snapshot().get_metadata().index;
        if index <= self.commit() {
            // It has one by now: the core answers how far it is.
            let _ = self.raw.step(msg);
            return Ok(());
        }
        if msg.term >= self.term() {
            self.needs_checkpoint = Some(index);
        }
        let mut beat = Message {
            from: msg.from,
            to: msg.to,
            term: msg.term,
            ..Message::default()
        };
        beat.set_msg_type(MessageType::MsgHeartbeat);
        let _ = self.raw.step(beat);
        Ok(())
    }
}

/// Whether the numbers of a message could be those of a replica.
fn plausible(msg: &Message) -> bool {
    let terms = [msg.term, msg.log_term, msg.commit_term];
    let indexes = [msg.index, msg.commit, msg.reject_hint];
    let metadata = msg.get_snapshot().get_metadata();
    let others = [metadata.index, metadata.term, msg.deprecated_priority];
    let all = [terms, indexes, others];
    all.as_flattened().iter().all(|number| *number < LIMIT)
}

/// Whether the entries follow each other; the core takes that for granted. It
/// also takes term 0, which only the beginning of the log has, for that of every
/// entry that is not there.
fn plausible_append(msg: &Message) -> bool {
    let mut index = msg.index;
    let mut term = msg.log_term;
    if (index == 0) != (term == 0) {
        return false;
    }
    for entry in &msg.entries {
        let follows = index.checked_add(1) == Some(entry.index) && entry.term >= term.max(1);
        if !follows || entry.term > msg.term {
            return false;
        }
        index = entry.index;
        term = entry.term;
    }
    msg.snapshot.is_none() && msg.term > 0
}
