//! Who has a say in what is right: those who decide in the cluster, and not those
//! who only learn.

use crane_consensus::Membership;
use std::collections::BTreeSet;

/// The voters, as the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jury {
    /// This replica.
    own: u8,
    /// The voters, and while they change also those before.
    incoming: BTreeSet<u8>,
    outgoing: BTreeSet<u8>,
}

impl Jury {
    /// The jury of these members, as replica `own` sees it.
    pub fn new(own: u8, members: &Membership) -> Self {
        let small = |ids: &BTreeSet<u64>| {
            let ids = ids.iter().filter_map(|&id| u8::try_from(id).ok());
            ids.collect()
        };
        Self {
            own,
            incoming: small(&members.voters.incoming),
            outgoing: small(&members.voters.outgoing),
        }
    }

    /// This replica.
    pub fn own(&self) -> u8 {
        self.own
    }

    /// Whether those of whom `is_one` says so are a majority; while the voters
    /// change, of the former as well.
    pub fn is_majority(&self, is_one: impl Fn(u8) -> bool) -> bool {
        let most = |voters: &BTreeSet<u8>| {
            voters.iter().filter(|&&id| is_one(id)).count() > voters.len() / 2
        };
        most(&self.incoming) && (self.outgoing.is_empty() || most(&self.outgoing))
    }

    /// Whether there is anybody, and `is_one` says yes to all of them.
    pub fn are_all(&self, is_one: impl Fn(u8) -> bool) -> bool {
        let mut all = self.incoming.iter().chain(&self.outgoing);
        !self.incoming.is_empty() && all.all(|&id| is_one(id))
    }
}

#[cfg(test)]
pub(super) fn jury(own: u8, voters: &[u8]) -> Jury {
    Jury {
        own,
        incoming: voters.iter().copied().collect(),
        outgoing: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learners_have_no_say() {
        let mut members = Membership::initial([1, 2, 3]);
        members.learners.insert(4);
        let jury = Jury::new(4, &members);
        assert!(!jury.is_majority(|id| [1, 4].contains(&id)));
        assert!(jury.is_majority(|id| [1, 2].contains(&id)));
        assert!(jury.are_all(|id| id < 4));
        assert!(!jury.are_all(|id| id > 1));
    }

    #[test]
    fn while_voters_change_both_majorities_are_needed() {
        let mut members = Membership::initial([1, 2, 3]);
        members.voters.outgoing = [3, 4, 5].into();
        let jury = Jury::new(1, &members);
        assert!(!jury.is_majority(|id| id < 4));
        assert!(jury.is_majority(|id| [1, 3, 4].contains(&id)));
        assert!(!jury.are_all(|id| id < 5));
    }

    #[test]
    fn without_voters_nobody_is_right() {
        let jury = Jury::new(1, &Membership::default());
        assert!(!jury.is_majority(|_| true));
        assert!(!jury.are_all(|_| true));
    }
}
