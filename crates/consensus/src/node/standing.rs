//! Whether a replica may vote, and how one that forgot comes back.
//!
//! Runs beside the consensus core, in messages of two types that the core uses
//! only inside itself: a question (`MsgHup`) and its answer (`MsgBeat`).

use std::collections::BTreeMap;

use raft::eraftpb::{Message, MessageType};

/// Whether a replica takes part in decisions.
///
/// A replica whose state directory is empty may be new, or may have lost what
/// it promised: votes, and entries it acknowledged that are committed because
/// of that. Until it knows, it is [`Asking`](Self::Asking):
///
/// 1. It asks every other replica for its term and last index, and ignores all
///    other messages.
/// 2. Let *n* be the number of replicas and *m* a majority. Any *n − m + 1*
///    other voters contain one of every majority there ever was. When so many
///    have answered, the highest term among them covers every leader that was
///    ever elected. The replica never votes in that term or an earlier one, and
///    follows no leader of an earlier one. It is [`CatchingUp`](Self::CatchingUp):
///    it follows and acknowledges leaders, but neither votes nor stands for
///    election.
/// 3. It is a [`Voter`](Self::Voter) again when its log must contain every
///    committed entry that it may once have acknowledged. That is so when it
///    has an entry of a *later* term, because that term's leader was elected
///    without it and so has everything committed. It is also so in that very
///    term when it has the highest last index of all answers and the leader is
///    among those that answered: the leader then knows that it forgot, and
///    counts no acknowledgement from before. (A leader that does not know might
///    still commit something with the help of one.)
/// 4. If *all* others answer that their logs are empty, there is nothing to
///    lose and the replica is a voter. This is how a new cluster starts: with
///    all its replicas there, once.
///
/// If a majority lost their directories, those that did wait for ever: nobody
/// can tell any more what was committed, and the service stops rather than
/// guesses.
///
/// Messages carry the *life* of their sender, a number that grows when a
/// replica begins again from nothing. Messages of an earlier life are dropped,
/// and a leader that sees a new life forgets what the old one acknowledged. If
/// the clock ran backwards and a new life has a smaller number, the others say
/// so and it takes a larger one.
///
/// One case is left open, for five replicas and more: a vote given by the old
/// life that is still on its way while the new life asks, to a candidate that
/// does not answer. Connections end with the process that sent on them, so a
/// transport that drops what a replaced connection still held closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Knows nothing and takes no part.
    Asking,
    /// Follows, but neither votes nor stands for election.
    CatchingUp {
        /// No leader of a later term can have counted on it.
        term: u64,
        /// The highest last index among the answers.
        index: u64,
    },
    /// Takes full part.
    Voter,
}

/// What another replica answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    term: u64,
    last_index: u64,
    voter: bool,
}

/// The answers so far.
#[derive(Debug, Default)]
pub(super) struct Inquiry {
    answers: BTreeMap<u64, Answer>,
    /// Ticks since the last question.
    pub(super) ticks: usize,
}

impl Inquiry {
    /// Whether `id` has answered.
    pub(super) fn has_answer(&self, id: u64) -> bool {
        self.answers.contains_key(&id)
    }

    /// The highest last index among the answers.
    pub(super) fn highest_index(&self) -> u64 {
        let indexes = self.answers.values().map(|a| a.last_index);
        indexes.max().unwrap_or(0)
    }

    /// Drops all answers.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
    }

    /// Takes an answer meant for life `life` of a replica with `others` peers.
    /// When there are enough: what the asker becomes, and the last term in
    /// which it must not vote.
    pub(super) fn take(
        &mut self,
        msg: &Message,
        life: u64,
        others: usize,
    ) -> Option<(Standing, u64)> {
        if msg.log_term != life {
            // Meant for an earlier life: what it says may be too old.
            return None;
        }
        let answer = Answer {
            term: msg.term,
            last_index: msg.index,
            voter: msg.reject_hint == VOTER,
        };
        self.answers.insert(msg.from, answer);
        self.verdict(others)
    }

    fn verdict(&self, others: usize) -> Option<(Standing, u64)> {
        let replicas = others + 1;
        let majority = replicas / 2 + 1;
        let all = || self.answers.values();
        let floor = all().map(|a| a.term).max().unwrap_or(0);
        let index = self.highest_index();
        if self.answers.len() == others && index == 0 {
            return Some((Standing::Voter, floor));
        }
        let voters = all().filter(|a| a.voter).count();
        let enough = voters > replicas - majority;
        enough.then_some((Standing::CatchingUp { term: floor, index }, floor))
    }
}

const VOTER: u64 = 1;

/// Asks replica `to`; the life is put on by whoever sends.
pub(super) fn question(from: u64, to: u64) -> Message {
    let mut msg = Message {
        from,
        to,
        ..Message::default()
    };
    msg.set_msg_type(MessageType::MsgHup);
    msg
}

/// Answers a question of life `life`, knowing `known` as the asker's life.
pub(super) fn answer(
    question: &Message,
    life: u64,
    known: u64,
    term: u64,
    last_index: u64,
    standing: Standing,
) -> Message {
    let mut msg = Message {
        from: question.to,
        to: question.from,
        term,
        index: last_index,
        log_term: life,
        reject: life < known,
        commit: known,
        reject_hint: if standing == Standing::Voter {
            VOTER
        } else {
            0
        },
        ..Message::default()
    };
    msg.set_msg_type(MessageType::MsgBeat);
    msg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(from: u64, term: u64, last_index: u64, standing: Standing) -> Message {
        answer(&question(1, from), 7, 7, term, last_index, standing)
    }

    #[test]
    fn a_new_cluster_needs_all() {
        let mut inquiry = Inquiry::default();
        let first = reply(2, 0, 0, Standing::Asking);
        assert_eq!(inquiry.take(&first, 7, 2), None);
        assert_eq!(inquiry.take(&first, 7, 2), None);
        assert_eq!(
            inquiry.take(&reply(3, 0, 0, Standing::Asking), 7, 2),
            Some((Standing::Voter, 0))
        );
    }

    #[test]
    fn a_replica_that_forgot_catches_up_to_the_highest_answer() {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.take(&reply(2, 5, 90, Standing::Voter), 7, 4), None);
        // One that itself forgot does not count.
        let forgot = reply(3, 9, 1, Standing::CatchingUp { term: 9, index: 99 });
        assert_eq!(inquiry.take(&forgot, 7, 4), None);
        assert_eq!(inquiry.take(&reply(4, 6, 80, Standing::Voter), 7, 4), None);
        assert_eq!(
            inquiry.take(&reply(5, 4, 40, Standing::Voter), 7, 4),
            Some((Standing::CatchingUp { term: 9, index: 90 }, 9))
        );
    }

    #[test]
    fn two_that_forgot_out_of_three_wait() {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.take(&reply(2, 0, 0, Standing::Asking), 7, 2), None);
        assert_eq!(inquiry.take(&reply(3, 4, 10, Standing::Voter), 7, 2), None);
    }

    #[test]
    fn of_two_replicas_the_other_one_is_enough() {
        let mut inquiry = Inquiry::default();
        assert_eq!(
            inquiry.take(&reply(2, 3, 10, Standing::Voter), 7, 1),
            Some((Standing::CatchingUp { term: 3, index: 10 }, 3))
        );
    }

    #[test]
    fn answers_to_an_earlier_life_do_not_count() {
        let mut inquiry = Inquiry::default();
        let late = reply(2, 0, 0, Standing::Voter);
        assert_eq!(inquiry.take(&late, 8, 1), None);
        let told = answer(&question(1, 2), 8, 20, 1, 1, Standing::Voter);
        assert!(told.reject && told.commit == 20 && told.log_term == 8);
    }
}
