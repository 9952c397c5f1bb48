//! Up to which epoch a majority has come to the same output: with the setting
//! `vote`, clients get it not before.

use super::history::History;
use crane_channel::output::EpochDone;
use std::collections::BTreeMap;

/// Epochs kept of each replica.
const KEPT: usize = 4096;

/// The votes.
#[derive(Default)]
pub struct Votes {
    /// Hashes of all output up to an epoch that this replica has not confirmed.
    heard: BTreeMap<u8, BTreeMap<u64, u64>>,
    confirmed: u64,
    /// Up to which epoch the others were told, and the hash there.
    told: (u64, u64),
}

impl Votes {
    /// A replica says what it came to.
    pub fn hear(&mut self, peer: u8, epochs: &[EpochDone]) {
        let known = self.heard.entry(peer).or_default();
        let later = epochs.iter().filter(|done| done.epoch > self.confirmed);
        known.extend(later.map(|done| (done.epoch, done.output_hash)));
        while known.len() > KEPT {
            known.pop_first();
        }
    }

    /// What a replica said does not hold any more: its program begins anew.
    pub fn forget(&mut self, peer: u8) {
        self.heard.remove(&peer);
    }

    /// The epoch up to which output may leave, if that is news. `peers` is the
    /// number of other replicas.
    pub fn count(&mut self, own: &History, peers: usize) -> Option<u64> {
        let majority = peers.div_ceil(2) + 1;
        let same = |done: &EpochDone| {
            let agrees =
                |known: &BTreeMap<u64, u64>| known.get(&done.epoch) == Some(&done.output_hash);
            1 + self.heard.values().filter(|known| agrees(known)).count()
        };
        let found = own
            .newest_first()
            .take_while(|done| done.epoch > self.confirmed)
            .find(|done| same(done) >= majority)?;
        self.confirmed = found.epoch;
        for known in self.heard.values_mut() {
            *known = known.split_off(&(found.epoch + 1));
        }
        Some(found.epoch)
    }

    /// The epoch after which the others have to be told now: there was output
    /// since they were. `None`: they need not be.
    pub fn news(&mut self, own: &History) -> Option<u64> {
        let newest = own.newest()?;
        let (epoch, hash) = self.told;
        if newest.output_hash == hash || newest.epoch == epoch {
            return None;
        }
        self.told = (newest.epoch, newest.output_hash);
        Some(epoch)
    }

    /// Another connection to a replica: what it was told may be lost.
    pub fn tell_again(&mut self) {
        self.told = (self.confirmed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(epoch: u64, output_hash: u64) -> EpochDone {
        EpochDone {
            epoch,
            clock: epoch,
            output_hash,
            schedule_hash: epoch,
        }
    }

    fn own(epochs: u64) -> History {
        let mut history = History::default();
        for epoch in 1..=epochs {
            history.add(done(epoch, epoch));
        }
        history
    }

    #[test]
    fn output_leaves_when_a_majority_has_it() {
        let (mut votes, own) = (Votes::default(), own(10));
        assert_eq!(votes.count(&own, 2), None);
        votes.hear(2, &[done(4, 4), done(5, 5), done(6, 99)]);
        assert_eq!(votes.count(&own, 2), Some(5));
        assert_eq!(votes.count(&own, 2), None);
        votes.hear(3, &[done(10, 10), done(11, 11)]);
        assert_eq!(votes.count(&own, 2), Some(10));
        // Of five, two others are needed.
        let mut votes = Votes::default();
        votes.hear(2, &[done(9, 9)]);
        votes.hear(3, &[done(9, 98)]);
        assert_eq!(votes.count(&own, 4), None);
        votes.hear(4, &[done(9, 9)]);
        assert_eq!(votes.count(&own, 4), Some(9));
    }

    #[test]
    fn one_that_was_ahead_counts_when_this_replica_comes_there() {
        let mut votes = Votes::default();
        votes.hear(2, &[done(10, 10)]);
        assert_eq!(votes.count(&own(9), 2), None);
        assert_eq!(votes.count(&own(10), 2), Some(10));
        assert_eq!(Votes::default().count(&own(3), 0), Some(3));
    }

    #[test]
    fn others_are_told_when_there_was_output() {
        let mut votes = Votes::default();
        let mut history = own(3);
        assert_eq!(votes.news(&history), Some(0));
        assert_eq!(votes.news(&history), None);
        history.add(done(4, 3));
        assert_eq!(votes.news(&history), None);
        history.add(done(5, 5));
        assert_eq!(votes.news(&history), Some(3));
    }
}
