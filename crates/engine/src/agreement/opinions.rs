//! Who is right when replicas differ: the value that a majority of those who
//! decide came to. Those who only learn are judged, and have no say.

use super::history::History;
use super::jury::Jury;
use crane_channel::output::EpochDone;
use std::collections::BTreeMap;

/// Epochs kept of each replica.
const KEPT: usize = 4096;

/// What the other replicas came to.
#[derive(Default)]
pub struct Opinions {
    heard: BTreeMap<u8, BTreeMap<u64, EpochDone>>,
}

/// Who is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few replicas have said what they came to.
    Open,
    /// A majority came to what this replica did; these did not.
    Right(Vec<u8>),
    /// These came to the same, are a majority, and this replica came to another.
    Wrong(Vec<u8>),
    /// All have said it, and there is no majority.
    Nobody,
}

impl Opinions {
    /// A replica says what it came to.
    pub fn hear(&mut self, peer: u8, epochs: impl IntoIterator<Item = EpochDone>) {
        let known = self.heard.entry(peer).or_default();
        known.extend(epochs.into_iter().map(|done| (done.epoch, done)));
        while known.len() > KEPT {
            known.pop_first();
        }
    }

    /// What a replica said does not hold any more: its program begins anew.
    pub fn forget(&mut self, peer: u8) {
        self.heard.remove(&peer);
    }

    /// What a replica came to in an epoch.
    pub fn of(&self, peer: u8, epoch: u64) -> Option<EpochDone> {
        self.heard.get(&peer)?.get(&epoch).copied()
    }

    /// Judges what was done in `epoch` and later by this replica, whose results are
    /// `own`, and by the others. All results are of everything so far, so any later
    /// epoch tells the same; the first that tells something counts.
    pub fn judge(&self, own: &History, jury: &Jury, epoch: u64) -> Verdict {
        let mut result = Verdict::Open;
        for ours in own.since(epoch) {
            let mut camps: Vec<(EpochDone, Vec<u8>)> = vec![(ours, vec![jury.own()])];
            for (&peer, theirs) in &self.heard {
                let Some(&theirs) = theirs.get(&ours.epoch) else {
                    continue;
                };
                match camps.iter_mut().find(|camp| camp.0 == theirs) {
                    Some(camp) => camp.1.push(peer),
                    None => camps.push((theirs, vec![peer])),
                }
            }
            let is_right =
                |camp: &(EpochDone, Vec<u8>)| jury.is_majority(|id| camp.1.contains(&id));
            if is_right(&camps[0]) {
                let wrong = camps.drain(1..).flat_map(|camp| camp.1).collect();
                return Verdict::Right(wrong);
            }
            if jury.are_all(|id| camps.iter().any(|camp| camp.1.contains(&id))) {
                result = Verdict::Nobody;
            }
            if let Some(right) = camps.drain(1..).find(is_right) {
                return Verdict::Wrong(right.1);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::super::jury::jury;
    use super::*;

    fn done(epoch: u64, value: u64) -> EpochDone {
        EpochDone {
            epoch,
            clock: epoch * 10,
            output_hash: value,
            schedule_hash: 0,
        }
    }

    fn own(value: u64) -> History {
        let mut history = History::default();
        for epoch in 1..100 {
            history.add(done(epoch, if epoch < 50 { 0 } else { value }));
        }
        history
    }

    fn opinions(values: &[(u8, u64)]) -> Opinions {
        let mut opinions = Opinions::default();
        for &(peer, value) in values {
            opinions.hear(peer, (50..60).map(|epoch| done(epoch, value)));
        }
        opinions
    }

    #[test]
    fn the_majority_is_right() {
        let two = jury(1, &[1, 2, 3]);
        let judge = |ours, others: &[_]| opinions(others).judge(&own(ours), &two, 50);
        assert_eq!(judge(1, &[(2, 1), (3, 9)]), Verdict::Right(vec![3]));
        assert_eq!(judge(9, &[(2, 1), (3, 1)]), Verdict::Wrong(vec![2, 3]));
        assert_eq!(judge(1, &[(2, 2), (3, 3)]), Verdict::Nobody);
        assert_eq!(judge(1, &[(2, 2)]), Verdict::Open);
        assert_eq!(judge(1, &[]), Verdict::Open);
        assert_eq!(judge(1, &[(2, 1)]), Verdict::Right(vec![]));
    }

    #[test]
    fn two_replicas_that_differ_have_no_majority() {
        assert_eq!(
            opinions(&[(2, 2)]).judge(&own(1), &jury(1, &[1, 2]), 50),
            Verdict::Nobody
        );
    }

    #[test]
    fn of_five_three_are_needed() {
        let four = jury(1, &[1, 2, 3, 4, 5]);
        let judge = |others: &[_]| opinions(others).judge(&own(1), &four, 50);
        assert_eq!(judge(&[(2, 1), (3, 9), (4, 8)]), Verdict::Open);
        assert_eq!(
            judge(&[(2, 1), (3, 9), (4, 8), (5, 1)]),
            Verdict::Right(vec![3, 4])
        );
        assert_eq!(
            judge(&[(3, 9), (4, 9), (5, 9)]),
            Verdict::Wrong(vec![3, 4, 5])
        );
        assert_eq!(judge(&[(2, 1), (3, 9), (4, 9), (5, 8)]), Verdict::Nobody);
    }

    #[test]
    fn a_replica_that_came_later_counts_with_its_later_epochs() {
        let mut all = opinions(&[(2, 2)]);
        all.hear(2, (60..80).map(|epoch| done(epoch, 2)));
        all.hear(3, (70..75).map(|epoch| done(epoch, 1)));
        let three = jury(1, &[1, 2, 3]);
        assert_eq!(all.judge(&own(1), &three, 50), Verdict::Right(vec![2]));
        all.forget(3);
        assert_eq!(all.judge(&own(1), &three, 50), Verdict::Open);
    }

    #[test]
    fn learners_are_judged_and_have_no_say() {
        // Of three voters and two that learn, two are a majority and not three.
        let three = jury(1, &[1, 2, 3]);
        let judge = |others: &[_]| opinions(others).judge(&own(1), &three, 50);
        assert_eq!(judge(&[(2, 1), (4, 9), (5, 9)]), Verdict::Right(vec![4, 5]));
        assert_eq!(judge(&[(4, 1), (5, 1)]), Verdict::Open);
        assert_eq!(judge(&[(4, 9), (5, 9)]), Verdict::Open);
        assert_eq!(judge(&[(2, 2), (3, 3), (4, 1), (5, 1)]), Verdict::Nobody);
        assert_eq!(
            judge(&[(2, 9), (3, 9), (4, 1), (5, 1)]),
            Verdict::Wrong(vec![2, 3])
        );
        // One that learns is wrong when the voters say so, and only then.
        let learns = jury(4, &[1, 2, 3]);
        let judge = |others: &[_]| opinions(others).judge(&own(1), &learns, 50);
        assert_eq!(judge(&[(1, 9), (2, 9)]), Verdict::Wrong(vec![1, 2]));
        assert_eq!(judge(&[(1, 1), (5, 1)]), Verdict::Open);
        assert_eq!(judge(&[(1, 1), (2, 1), (3, 9)]), Verdict::Right(vec![3]));
    }
}
