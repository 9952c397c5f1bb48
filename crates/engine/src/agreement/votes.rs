//! Up to which epoch a majority has come to the same output: with the setting
//! `vote`, clients get it not before.

use super::history::History;
use super::jury::Jury;
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

    /// The epoch up to which output may leave, if that is news.
    pub fn count(&mut self, own: &History, jury: &Jury) -> Option<u64> {
        let agrees = |done: &EpochDone, id: u8| {
            let known = self.heard.get(&id);
            id == jury.own()
                || known.and_then(|known| known.get(&done.epoch)) == Some(&done.output_hash)
        };
        let found = own
            .newest_first()
            .take_while(|done| done.epoch > self.confirmed)
            .find(|done| jury.is_majority(|id| agrees(done, id)))?;
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
    use super::super::jury::jury;
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
        let three = jury(1, &[1, 2, 3]);
        assert_eq!(votes.count(&own, &three), None);
        votes.hear(2, &[done(4, 4), done(5, 5), done(6, 99)]);
        assert_eq!(votes.count(&own, &three), Some(5));
        assert_eq!(votes.count(&own, &three), None);
        votes.hear(3, &[done(10, 10), done(11, 11)]);
        assert_eq!(votes.count(&own, &three), Some(10));
        // Of five, two others are needed.
        let five = jury(1, &[1, 2, 3, 4, 5]);
        let mut votes = Votes::default();
        votes.hear(2, &[done(9, 9)]);
        votes.hear(3, &[done(9, 98)]);
        assert_eq!(votes.count(&own, &five), None);
        votes.hear(4, &[done(9, 9)]);
        assert_eq!(votes.count(&own, &five), Some(9));
    }

    #[test]
    fn one_that_was_ahead_counts_when_this_replica_comes_there() {
        let mut votes = Votes::default();
        let three = jury(1, &[1, 2, 3]);
        votes.hear(2, &[done(10, 10)]);
        assert_eq!(votes.count(&own(9), &three), None);
        assert_eq!(votes.count(&own(10), &three), Some(10));
        let alone = jury(1, &[1]);
        assert_eq!(Votes::default().count(&own(3), &alone), Some(3));
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

    #[test]
    fn learners_have_no_vote() {
        let own = own(10);
        let mut votes = Votes::default();
        votes.hear(4, &[done(5, 5)]);
        votes.hear(5, &[done(5, 5)]);
        assert_eq!(votes.count(&own, &jury(1, &[1, 2, 3])), None);
        votes.hear(2, &[done(5, 5)]);
        assert_eq!(votes.count(&own, &jury(1, &[1, 2, 3])), Some(5));
        // Nor has this replica when it learns.
        let mut votes = Votes::default();
        votes.hear(1, &[done(5, 5)]);
        assert_eq!(votes.count(&own, &jury(4, &[1, 2, 3])), None);
        votes.hear(3, &[done(5, 5)]);
        assert_eq!(votes.count(&own, &jury(4, &[1, 2, 3])), Some(5));
    }
}
