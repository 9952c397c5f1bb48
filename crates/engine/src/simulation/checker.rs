//! What must hold at every moment. Panics with `safety:` when it does not.

use super::program::MESSAGE;
use crane_channel::epoch::ConnId;
use crane_channel::output::EpochDone;
use std::collections::{BTreeMap, BTreeSet};

/// What is agreed and what was done, over all replicas.
#[derive(Default)]
pub struct Checker {
    /// Those who decided, at one time or another.
    voters: BTreeSet<BTreeSet<u64>>,
    /// Checksums of epochs as programs were given them.
    epochs: BTreeMap<u64, u32>,
    /// Results of epochs.
    results: BTreeMap<u64, EpochDone>,
    /// Requests in the order in which they were executed, with the epoch.
    pub order: Vec<(ConnId, u32, u64)>,
    /// Number of the next request of each connection.
    next: BTreeMap<ConnId, u32>,
    /// The epoch that each replica's program is in.
    current: BTreeMap<u8, u64>,
    /// Which replicas had an entry of a term in their logs.
    holders: BTreeMap<(u64, u64), BTreeSet<u8>>,
    /// Incarnations that were declared down.
    pub downs: BTreeSet<(u8, u32)>,
    /// Incarnations whose end was news when it was first seen.
    pub new_downs: Vec<(u64, u8, u32)>,
    /// With votes: which replicas' programs came to the end of an epoch.
    ended: BTreeMap<u64, BTreeSet<u8>>,
    votes: bool,
    /// Answers that clients got.
    pub answered: u64,
}

impl Checker {
    pub fn new(replicas: u8, votes: bool) -> Self {
        Self {
            voters: BTreeSet::from([(1..=replicas.into()).collect()]),
            votes,
            ..Self::default()
        }
    }

    /// These decide now.
    pub fn decide(&mut self, voters: &BTreeSet<u64>) {
        if !self.voters.contains(voters) {
            self.voters.insert(voters.clone());
        }
    }

    /// Whether these are a majority of those who decided once.
    fn are_majority(&self, who: &BTreeSet<u8>) -> bool {
        let among = |voters: &BTreeSet<u64>| {
            who.iter()
                .filter(|id| voters.contains(&u64::from(**id)))
                .count()
                > voters.len() / 2
        };
        self.voters.iter().any(among)
    }

    /// A program takes an epoch.
    pub fn epoch(&mut self, replica: u8, index: u64, bytes: &[u8]) {
        let sum = bytes
            .iter()
            .fold(0u32, |sum, &b| sum.wrapping_mul(16_777_619) ^ u32::from(b));
        let agreed = *self.epochs.entry(index).or_insert(sum);
        assert!(
            agreed == sum,
            "safety: replica {replica} was given another epoch {index} than the others"
        );
        self.current.insert(replica, index);
    }

    /// A program came to the end of an epoch.
    pub fn ended(&mut self, replica: u8, epoch: u64) {
        if self.votes {
            self.ended.entry(epoch).or_default().insert(replica);
        }
    }

    /// Epochs so far.
    pub fn epochs(&self) -> u64 {
        self.epochs.len() as u64
    }

    pub fn time(&self, replica: u8, index: u64, before: u64, now: u64) {
        assert!(
            now > before,
            "safety: virtual time of replica {replica} goes from {before} to {now} in epoch {index}"
        );
    }

    /// An epoch's result.
    pub fn done(&mut self, replica: u8, done: EpochDone) {
        let agreed = *self.results.entry(done.epoch).or_insert(done);
        assert!(
            agreed == done,
            "safety: replica {replica} came to another result of epoch {}",
            done.epoch
        );
    }

    /// A program executed a request, the `place`th of all.
    pub fn executed(&mut self, replica: u8, place: u64, conn: ConnId, request: &[u8; MESSAGE]) {
        let number = u32::from_le_bytes(request[4..8].try_into().expect("four bytes"));
        let at = (place - 1) as usize;
        if let Some(&(known, n, _)) = self.order.get(at) {
            assert!(
                known == conn && n == number,
                "safety: replica {replica} executed {conn:?} {number} at {place}, others {known:?} {n}"
            );
            return;
        }
        assert!(
            at == self.order.len(),
            "safety: replica {replica} skipped a request"
        );
        let next = self.next.entry(conn).or_insert(0);
        assert!(
            *next == number,
            "safety: replica {replica} executed request {number} of {conn:?} when {next} was due"
        );
        *next += 1;
        self.order.push((conn, number, self.current[&replica]));
    }

    /// A replica's log holds an entry of a term.
    pub fn holds(&mut self, replica: u8, index: u64, term: u64) {
        self.holders
            .entry((index, term))
            .or_default()
            .insert(replica);
    }

    /// A client got an answer: the request was executed at that place, for an
    /// entry that a majority had.
    pub fn answer(&mut self, conn: ConnId, number: u32, answer: &[u8; MESSAGE]) {
        let n = u32::from_le_bytes(answer[4..8].try_into().expect("four bytes"));
        let place = u64::from_le_bytes(answer[8..].try_into().expect("eight bytes"));
        let done = self.order.get((place as usize).wrapping_sub(1)).copied();
        let Some((known, m, epoch)) = done else {
            panic!("safety: {conn:?} was answered what was never executed");
        };
        assert!(
            known == conn && m == number && n == number,
            "safety: {conn:?} was answered {n} at {place} when {number} was due; there was {known:?} {m}"
        );
        let mut held = self.holders.range((epoch, 0)..=(epoch, u64::MAX));
        assert!(
            held.any(|(_, who)| self.are_majority(who)),
            "safety: {conn:?} was answered for epoch {epoch}, which no majority had"
        );
        assert!(
            !self.votes
                || self
                    .ended
                    .get(&epoch)
                    .is_some_and(|who| self.are_majority(who)),
            "safety: {conn:?} was answered in epoch {epoch} before a majority had come to the same"
        );
        self.answered += 1;
    }

    /// An incarnation of a gateway is over, says epoch `index`.
    pub fn down(&mut self, index: u64, gateway: u8, incarnation: u32) {
        if self.downs.insert((gateway, incarnation)) {
            self.new_downs.push((index, gateway, incarnation));
        }
    }
}
