//! Whether a replica may vote, and how one that forgot comes back.
//!
//! Runs beside the consensus core, in messages of two types that the core uses
//! only inside itself: a question (`MsgHup`) and its answer (`MsgBeat`).

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{Message, MessageType};
use serde::{Deserialize, Serialize};

use crate::membership::{Membership, Voters};

/// Whether a replica takes part in decisions.
///
/// A replica whose state directory is empty may be new, or may have lost what
/// it promised: votes, and entries it acknowledged that are committed because
/// of that. Until it knows, it is [`Asking`](Self::Asking):
///
/// 1. It asks every other replica for its term and last index, and who takes
///    part, and ignores all other messages.
/// 2. Let *n* be the number of voters and *m* a majority. Any *n − m + 1* other
///    voters contain one of every majority there ever was. When so many have
///    answered, the highest term among them covers every leader that was ever
///    elected. The replica never votes in that term or an earlier one, and
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
/// # When the voters change
///
/// The voters of step 2 are those who could elect a leader, and the replica may
/// not know them: it forgot, or it slept through changes. So every answer says
/// who takes part as far as its sender knows it to be agreed, who decided
/// before that, and who would take part if all of its log were agreed
/// ([`Membership`], and what is pending). Enough answers are *n − m + 1* other
/// voters of **each** of these sets of voters, from the one before the newest
/// agreed one on, of both halves where one passes into the next.
///
/// * *No newer voters are missed.* Let N be the newest of the sets answered.
///   A change of N is agreed by a majority of N. The answers contain one of
///   every such majority, so one of them has that change in its log and would
///   have told of it: N would not be the newest.
/// * *No leader is missed*, whichever voters elected it. Who has the change to
///   the voters K + 1 in its log without knowing that it is agreed may be
///   elected by a majority of K. It cannot have a later change: that one was
///   proposed by a leader that knew K + 1 to be agreed, and said so with it (a
///   torn write can drop what it said, therefore a log with a later change is
///   taken to say it). So a leader that only K elected, in term t, lacks K + 2.
///   If K + 2 was agreed, then not before that election, because a majority of
///   K and one of K + 1 share a replica, which would have brought it along;
///   and so in a later term than t, which the answers know. If K + 2 was not
///   agreed, K is the set before the newest agreed one, and the answers contain
///   one of every majority of it.
/// * *It goes on.* The set before may hold replicas that are gone for good, and
///   with them not enough may be left to answer. Therefore a leader that has
///   changed the voters says once more who they are, by an entry that changes
///   nothing: then the newest set and the one before are the same. Until that
///   entry is agreed the next change has to wait.
///
/// A replica that was **added** has never promised anything under its id, but
/// cannot tell that from having lost its directory later, so it asks as well.
/// It knows no voters at first and takes them from the answers; as a learner
/// its confirmations count for nothing, and when it is made a voter its log is
/// as far as the leader's: a learner is made a voter only when it has told its
/// leader, in its present life, that it could be one. It begins with the voters
/// with which the cluster began and follows the changes in the log, or those of
/// its checkpoint.
///
/// A replica that was **removed** is not asked for any more and decides nothing:
/// no set from the one before the newest on contains it for long. An answer that
/// says that the asker itself was removed ends the asker. Ids are never used
/// again, so no promise of one replica can be taken for another's.
///
/// # Lives
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
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    term: u64,
    last_index: u64,
    voter: bool,
    /// Who takes part, as far as it is agreed.
    agreed: Membership,
    /// Who would, if all of its log were agreed.
    pending: Option<Membership>,
}

/// What enough answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What the asker becomes.
    pub(super) standing: Standing,
    /// The last term in which it must not vote.
    pub(super) floor: u64,
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

    /// The newest agreed membership that was answered.
    pub(super) fn newest(&self) -> Option<&Membership> {
        let agreed = self.answers.values().map(|a| &a.agreed);
        agreed.max_by_key(|one| one.index())
    }

    /// Everybody whom an answer told of.
    pub(super) fn told_of(&self) -> BTreeSet<u64> {
        let all = self.answers.values();
        all.flat_map(|a| [Some(&a.agreed), a.pending.as_ref()])
            .flatten()
            .flat_map(Membership::members)
            .collect()
    }

    /// Takes an answer meant for life `life` of replica `id`, which knows `own`
    /// to be agreed. When there are enough: what they come to.
    pub(super) fn take(
        &mut self,
        msg: &Message,
        life: u64,
        (id, own): (u64, &Membership),
    ) -> Option<Verdict> {
        if msg.log_term != life {
            // Meant for an earlier life: what it says may be too old.
            return None;
        }
        let told: Told = serde_json::from_slice(&msg.context).ok()?;
        let Told { agreed, pending } = told;
        // One that joins itself knows nothing yet.
        if agreed.is_empty() || agreed.check().is_err() {
            return None;
        }
        if pending.as_ref().is_some_and(|one| one.check().is_err()) {
            return None;
        }
        let answer = Answer {
            term: msg.term,
            last_index: msg.index,
            voter: msg.reject_hint == VOTER,
            agreed,
            pending,
        };
        self.answers.insert(msg.from, answer);
        self.verdict(id, own)
    }

    fn verdict(&self, id: u64, own: &Membership) -> Option<Verdict> {
        let all = || self.answers.values();
        let floor = all().map(|a| a.term).max().unwrap_or(0);
        let index = self.highest_index();
        let newest = self.newest().filter(|one| one.index() >= own.index());
        let newest = newest.unwrap_or(own);
        let mut others = own.members();
        others.remove(&id);
        let all_here = others.iter().all(|other| self.has_answer(*other));
        if all_here && index == 0 && newest.index() == 0 && own.contains(id) {
            return Some(Verdict {
                standing: Standing::Voter,
                floor,
            });
        }
        // It waits to be added, if it ever is.
        if !newest.contains(id) {
            return None;
        }
        let from = newest.before.index;
        let told = all().flat_map(|a| [Some(&a.agreed), a.pending.as_ref()]);
        let told = told.chain([Some(own)]).flatten().map(|one| &one.voters);
        let told = told.filter(|voters| voters.index >= from);
        let mut halves = told.chain([&newest.before]).flat_map(Voters::halves);
        let answered = |half: &BTreeSet<u64>| {
            let voters = self.answers.iter().filter(|(_, a)| a.voter);
            let voters = voters.filter(|(other, _)| half.contains(other)).count();
            let majority = half.len() / 2 + 1;
            voters > half.len() - majority
        };
        let enough = halves.all(answered);
        enough.then_some(Verdict {
            standing: Standing::CatchingUp { term: floor, index },
            floor,
        })
    }
}

/// What an answer says of the members, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    agreed: Membership,
    pending: Option<Membership>,
}

/// Whether the sender of an answer takes full part.
pub(super) fn says_voter(answer: &Message) -> bool {
    answer.reject_hint == VOTER
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
    (term, last_index): (u64, u64),
    standing: Standing,
    (agreed, pending): (&Membership, Option<Membership>),
) -> Message {
    let told = Told {
        agreed: agreed.clone(),
        pending,
    };
    let mut msg = Message {
        from: question.to,
        to: question.from,
        term,
        index: last_index,
        log_term: life,
        reject: life < known,
        commit: known,
        context: serde_json::to_vec(&told).unwrap_or_default(),
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

    fn reply_of(
        from: u64,
        at: (u64, u64),
        standing: Standing,
        agreed: &Membership,
        pending: Option<&Membership>,
    ) -> Message {
        let told = (agreed, pending.cloned());
        answer(&question(1, from), 7, 7, at, standing, told)
    }

    fn reply(from: u64, term: u64, last_index: u64, standing: Standing, n: u64) -> Message {
        reply_of(from, (term, last_index), standing, &first(n), None)
    }

    fn first(n: u64) -> Membership {
        Membership::initial(1..=n)
    }

    fn catching_up(term: u64, index: u64) -> Option<Verdict> {
        Some(Verdict {
            standing: Standing::CatchingUp { term, index },
            floor: term,
        })
    }

    #[test]
    fn a_new_cluster_needs_all() {
        let mut inquiry = Inquiry::default();
        let own = first(3);
        let one = reply(2, 0, 0, Standing::Asking, 3);
        assert_eq!(inquiry.take(&one, 7, (1, &own)), None);
        assert_eq!(inquiry.take(&one, 7, (1, &own)), None);
        let verdict = inquiry.take(&reply(3, 0, 0, Standing::Asking, 3), 7, (1, &own));
        let voter = Verdict {
            standing: Standing::Voter,
            floor: 0,
        };
        assert_eq!(verdict, Some(voter));
    }

    #[test]
    fn a_replica_that_forgot_catches_up_to_the_highest_answer() {
        let mut inquiry = Inquiry::default();
        let own = first(5);
        let mut take = |msg: &Message| inquiry.take(msg, 7, (1, &own));
        assert_eq!(take(&reply(2, 5, 90, Standing::Voter, 5)), None);
        // One that itself forgot does not count.
        let forgot = Standing::CatchingUp { term: 9, index: 99 };
        assert_eq!(take(&reply(3, 9, 1, forgot, 5)), None);
        assert_eq!(take(&reply(4, 6, 80, Standing::Voter, 5)), None);
        let last = reply(5, 4, 40, Standing::Voter, 5);
        assert_eq!(take(&last), catching_up(9, 90));
    }

    #[test]
    fn two_that_forgot_out_of_three_wait() {
        let mut inquiry = Inquiry::default();
        let own = first(3);
        let mut take = |msg: &Message| inquiry.take(msg, 7, (1, &own));
        assert_eq!(take(&reply(2, 0, 0, Standing::Asking, 3)), None);
        assert_eq!(take(&reply(3, 4, 10, Standing::Voter, 3)), None);
    }

    #[test]
    fn of_two_replicas_the_other_one_is_enough() {
        let mut inquiry = Inquiry::default();
        let verdict = inquiry.take(&reply(2, 3, 10, Standing::Voter, 2), 7, (1, &first(2)));
        assert_eq!(verdict, catching_up(3, 10));
    }

    #[test]
    fn answers_to_an_earlier_life_do_not_count() {
        let mut inquiry = Inquiry::default();
        let late = reply(2, 0, 0, Standing::Voter, 2);
        assert_eq!(inquiry.take(&late, 8, (1, &first(2))), None);
        let told = (&first(2), None);
        let told = answer(&question(1, 2), 8, 20, (1, 1), Standing::Voter, told);
        assert!(told.reject && told.commit == 20 && told.log_term == 8);
    }

    /// Voters 1, 4 and 5 after 2 and 3 were replaced; `before` as given.
    fn changed(index: u64, before: &[u64]) -> Membership {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let mut found = first(5);
        found.initial = set(&[1, 2, 3]);
        found.before = Voters {
            index: index - 1,
            incoming: set(before),
            outgoing: BTreeSet::new(),
        };
        found.voters = Voters {
            index,
            incoming: set(&[1, 4, 5]),
            outgoing: BTreeSet::new(),
        };
        found
    }

    #[test]
    fn replicas_that_were_removed_do_not_speak_for_the_cluster() {
        let mut inquiry = Inquiry::default();
        let own = first(3);
        let mut take = |msg: &Message| inquiry.take(msg, 7, (1, &own));
        let now = changed(80, &[1, 4, 5]);
        let reply = |from, at| reply_of(from, at, Standing::Voter, &now, None);
        // One that slept through everything, then those who decide.
        let old = reply_of(2, (3, 30), Standing::Voter, &first(3), None);
        assert_eq!(take(&old), None);
        assert_eq!(take(&reply(4, (8, 85))), None);
        assert_eq!(take(&reply(5, (8, 90))), catching_up(8, 90));
    }

    #[test]
    fn the_voters_before_are_asked_until_the_change_is_settled() {
        let mut inquiry = Inquiry::default();
        let own = first(3);
        let mut take = |msg: &Message| inquiry.take(msg, 7, (1, &own));
        let now = changed(80, &[1, 3, 4]);
        let reply = |from, at| reply_of(from, at, Standing::Voter, &now, None);
        assert_eq!(take(&reply(4, (8, 85))), None);
        assert_eq!(take(&reply(5, (8, 90))), None);
        let three = reply_of(3, (9, 70), Standing::Voter, &first(3), None);
        assert_eq!(take(&three), catching_up(9, 90));
    }

    #[test]
    fn a_change_that_is_not_agreed_yet_is_asked_about_too() {
        let mut inquiry = Inquiry::default();
        let own = first(3);
        let mut take = |msg: &Message| inquiry.take(msg, 7, (1, &own));
        let pending = changed(80, &[1, 2, 3]);
        let two = reply_of(2, (8, 80), Standing::Voter, &own, Some(&pending));
        assert_eq!(take(&two), None);
        let three = reply_of(3, (8, 79), Standing::Voter, &own, None);
        assert_eq!(take(&three), None);
        for (from, expected) in [(4, None), (5, catching_up(8, 80))] {
            let answer = reply_of(from, (8, 80), Standing::Voter, &own, Some(&pending));
            assert_eq!(take(&answer), expected);
        }
    }

    #[test]
    fn a_new_replica_waits_to_be_added() {
        let mut inquiry = Inquiry::default();
        let own = Membership::default();
        let reply =
            |from, agreed: &Membership| reply_of(from, (2, 9), Standing::Voter, agreed, None);
        for from in [2, 3, 4] {
            let four = Membership::initial([2, 3, 4]);
            assert_eq!(inquiry.take(&reply(from, &four), 7, (1, &own)), None);
        }
        let mut learns = Membership::initial([2, 3, 4]);
        learns.learners.insert(1);
        learns.used.insert(1);
        learns.voters.index = 9;
        let verdict = inquiry.take(&reply(3, &learns), 7, (1, &own));
        assert_eq!(verdict, catching_up(2, 9));
        let nobody = reply_of(2, (0, 0), Standing::Asking, &Membership::default(), None);
        assert_eq!(Inquiry::default().take(&nobody, 7, (1, &own)), None);
    }
}
