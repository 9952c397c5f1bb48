//! Who takes part: the replicas that decide, those that learn, and every id
//! that was ever given.
//!
//! It is a function of the log: where the log begins it is written down (the
//! `meta` file, a checkpoint), and entries of their own kind change it when
//! they commit. The consensus core keeps the same for itself; [`Membership`]
//! is what survives, and what replicas tell each other.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};
use serde::{Deserialize, Serialize};

/// Longest text of an address.
const LONGEST_ADDRESS: usize = 256;

/// The replicas whose majority decides; of both sets while one configuration
/// passes into the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voters {
    /// The entry with which they began to decide; 0 for those of the start.
    pub index: u64,
    /// The voters.
    pub incoming: BTreeSet<u64>,
    /// Those of the configuration that is being left; empty otherwise.
    pub outgoing: BTreeSet<u64>,
}

impl Voters {
    /// Whether a majority of one is a majority of the other, whoever it is.
    fn same(&self, other: &Self) -> bool {
        self.incoming == other.incoming && self.outgoing == other.outgoing
    }

    /// The sets of which a majority each is needed.
    pub(crate) fn halves(&self) -> impl Iterator<Item = &BTreeSet<u64>> {
        [&self.incoming, &self.outgoing]
            .into_iter()
            .filter(|half| !half.is_empty())
    }

    fn contains(&self, id: u64) -> bool {
        self.incoming.contains(&id) || self.outgoing.contains(&id)
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The voters; `voters.index` is also the entry with which all this began
    /// to hold.
    pub voters: Voters,
    /// Replicas that get the log and do not decide.
    pub learners: BTreeSet<u64>,
    /// Voters of the configuration that is being left which become learners.
    pub learners_next: BTreeSet<u64>,
    /// The voters before these: one who decided among them may not know these.
    pub before: Voters,
    /// The voters with which the cluster began.
    pub initial: BTreeSet<u64>,
    /// Every id that a replica ever had. None is given again.
    pub used: BTreeSet<u64>,
    /// Where members that were added later are reached.
    pub addresses: BTreeMap<u64, String>,
}

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new replica gets the log.
    Add {
        /// Its id, which none ever had.
        id: u64,
        /// Where the others reach it.
        address: String,
    },
    /// A learner becomes a voter.
    Promote(u64),
    /// A member is none any more.
    Remove(u64),
    /// A learner becomes a voter and a voter is removed, at once.
    Replace {
        /// Who goes.
        old: u64,
        /// Who comes.
        new: u64,
    },
}

/// Why a change was not proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// Only the leader changes the members.
    NotLeader {
        /// The leader, if one is known.
        leader: Option<u64>,
    },
    /// The change before is not finished.
    UnderWay,
    /// There is no such member.
    Unknown(u64),
    /// A replica had this id, so no other gets it.
    Used(u64),
    /// The learner's log is not near the end of the leader's yet.
    Behind(u64),
    /// The leader is to be removed; another one has to lead first.
    Leads,
    /// Nobody would be left to decide.
    Last,
    /// The change makes no sense.
    Wrong(String),
    /// The leader takes nothing at the moment.
    Busy,
}

impl std::fmt::Display for ChangeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotLeader { leader: Some(id) } => {
                write!(f, "this replica is not the leader, replica {id} is")
            }
            Self::NotLeader { leader: None } => f.write_str(
                "no replica leads at the moment, so nothing can be changed; try again when a \
                 majority runs",
            ),
            Self::UnderWay => f.write_str(
                "another change of the replicas is under way; try again when it is done",
            ),
            Self::Unknown(id) => write!(f, "replica {id} is not a member"),
            Self::Used(id) => write!(
                f,
                "a replica had the id {id} before, and an id is never given again; take a new one"
            ),
            Self::Behind(id) => write!(f, "replica {id} has not caught up yet"),
            Self::Leads => {
                f.write_str("the leader cannot be removed; another one has to lead first")
            }
            Self::Last => f.write_str("the last replica that decides cannot be removed"),
            Self::Wrong(why) => f.write_str(why),
            Self::Busy => f.write_str("the leader takes nothing at the moment; try again"),
        }
    }
}

impl std::error::Error for ChangeError {}

impl Membership {
    /// That of a cluster which begins with these voters.
    #[must_use]
    pub fn initial(voters: impl IntoIterator<Item = u64>) -> Self {
        let initial: BTreeSet<u64> = voters.into_iter().collect();
        let voters = Voters {
            index: 0,
            incoming: initial.clone(),
            outgoing: BTreeSet::new(),
        };
        Self {
            before: voters.clone(),
            voters,
            used: initial.clone(),
            initial,
            ..Self::default()
        }
    }

    /// The entry with which it began to hold; 0 for that of the start.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.voters.index
    }

    /// Whether nothing is known: a new replica that has not heard of its
    /// cluster.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.incoming.is_empty()
    }

    /// Everybody who gets the log.
    #[must_use]
    pub fn members(&self) -> BTreeSet<u64> {
        let all = [&self.voters.incoming, &self.voters.outgoing, &self.learners];
        all.into_iter().flatten().copied().collect()
    }

    /// Whether `id` gets the log.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        self.voters.contains(id) || self.learners.contains(&id)
    }

    /// Whether `id` decides.
    #[must_use]
    pub fn is_voter(&self, id: u64) -> bool {
        self.voters.contains(id)
    }

    /// Whether `id` was a member and is none any more.
    #[must_use]
    pub fn is_removed(&self, id: u64) -> bool {
        self.used.contains(&id) && !self.contains(id)
    }

    /// Whether one configuration passes into the next.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.voters.outgoing.is_empty()
    }

    /// Whether everybody who may have decided without knowing these voters
    /// decided among the same; see [`Standing`](crate::Standing).
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.is_joint() && self.voters.same(&self.before)
    }

    /// The bytes that [`decode`](Self::decode) reads.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Maps and sets of numbers: nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, as part of a line.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let found: Self = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        found.check()?;
        Ok(found)
    }

    /// Checks what the types alone cannot say.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let wrong = if self.members().contains(&0) || self.used.contains(&0) {
            "a replica has the id 0"
        } else if !self.members().is_subset(&self.used) || !self.initial.is_subset(&self.used) {
            "a member's id was never given"
        } else if self.learners.iter().any(|id| self.voters.contains(*id)) {
            "a replica decides and only learns"
        } else if !self.learners_next.is_subset(&self.voters.outgoing) {
            "a replica that is to learn does not leave"
        } else if self.before.index > self.voters.index {
            "its configurations are out of order"
        } else {
            return Ok(());
        };
        Err(wrong.into())
    }

    /// As the core takes it.
    pub(crate) fn conf_state(&self) -> ConfState {
        let list = |set: &BTreeSet<u64>| set.iter().copied().collect();
        ConfState {
            voters: list(&self.voters.incoming),
            voters_outgoing: list(&self.voters.outgoing),
            learners: list(&self.learners),
            learners_next: list(&self.learners_next),
            auto_leave: false,
        }
    }

    /// Whether the core has come to the same.
    pub(crate) fn is(&self, core: &ConfState) -> bool {
        let set = |list: &[u64]| list.iter().copied().collect::<BTreeSet<u64>>();
        self.voters.incoming == set(&core.voters)
            && self.voters.outgoing == set(&core.voters_outgoing)
            && self.learners == set(&core.learners)
            && self.learners_next == set(&core.learners_next)
    }

    /// What it is after `entry`, which changes it.
    ///
    /// # Errors
    /// When the entry cannot follow, as part of a line.
    pub(crate) fn after(&self, entry: &Entry) -> Result<Self, String> {
        let change = read_change(entry)?;
        let mut next = self.clone();
        next.before = self.voters.clone();
        next.voters.index = entry.index;
        if change.leave_joint() {
            if !self.is_joint() {
                return Err("it leaves a passage that is not under way".into());
            }
            next.voters.outgoing.clear();
            next.learners.append(&mut next.learners_next);
        } else {
            if self.is_joint() {
                return Err("it begins while another change is under way".into());
            }
            if change.enter_joint().is_some() {
                next.voters.outgoing.clone_from(&self.voters.incoming);
            }
            for one in &change.changes {
                next.apply(one)?;
            }
        }
        let (addresses, used) = (read_addresses(&change.context)?, next.members());
        next.addresses.extend(addresses);
        next.addresses.retain(|id, _| used.contains(id));
        next.used.extend(used);
        if next.voters.incoming.is_empty() {
            return Err("it leaves nobody to decide".into());
        }
        next.check()?;
        Ok(next)
    }

    fn apply(&mut self, one: &ConfChangeSingle) -> Result<(), String> {
        let id = one.node_id;
        self.voters.incoming.remove(&id);
        let learnt = self.learners.remove(&id);
        self.learners_next.remove(&id);
        match ConfChangeType::from_i32(one.change_type) {
            Some(ConfChangeType::AddNode) => _ = self.voters.incoming.insert(id),
            Some(ConfChangeType::RemoveNode) => {}
            Some(ConfChangeType::AddLearnerNode) => {
                if !learnt && self.voters.outgoing.contains(&id) {
                    self.learners_next.insert(id);
                } else {
                    self.learners.insert(id);
                }
            }
            None => return Err("it changes a replica in a way that is not known".into()),
        }
        Ok(())
    }

    /// What is to be proposed for `change`; `None` when it is so already.
    ///
    /// # Errors
    /// Why it cannot be.
    pub(crate) fn propose(&self, change: &Change) -> Result<Option<ConfChangeV2>, ChangeError> {
        use ConfChangeType::{AddLearnerNode, AddNode, RemoveNode};
        let single = |kind: ConfChangeType, id| ConfChangeSingle {
            change_type: kind.into(),
            node_id: id,
        };
        let is_learner = |id: &u64| self.learners.contains(id);
        if self.is_joint() {
            return Err(ChangeError::UnderWay);
        }
        let mut proposed = ConfChangeV2::default();
        match change {
            Change::Add { id, address } => {
                if address.is_empty() || address.len() > LONGEST_ADDRESS {
                    return Err(ChangeError::Wrong("a new replica needs an address".into()));
                }
                if self.contains(*id) && self.addresses.get(id) == Some(address) {
                    return Ok(None);
                }
                if self.used.contains(id) || *id == 0 {
                    return Err(ChangeError::Used(*id));
                }
                proposed.changes.push(single(AddLearnerNode, *id));
                let addresses = BTreeMap::from([(*id, address)]);
                proposed.context = serde_json::to_vec(&addresses).unwrap_or_default();
            }
            Change::Promote(id) => {
                if self.is_voter(*id) {
                    return Ok(None);
                }
                if !is_learner(id) {
                    return Err(ChangeError::Unknown(*id));
                }
                proposed.changes.push(single(AddNode, *id));
            }
            Change::Remove(id) => {
                if self.is_removed(*id) {
                    return Ok(None);
                }
                if !self.contains(*id) {
                    return Err(ChangeError::Unknown(*id));
                }
                if self.voters.incoming.len() == 1 && self.is_voter(*id) {
                    return Err(ChangeError::Last);
                }
                proposed.changes.push(single(RemoveNode, *id));
            }
            Change::Replace { old, new } => {
                if self.is_removed(*old) && self.is_voter(*new) {
                    return Ok(None);
                }
                if !self.is_voter(*old) {
                    return Err(ChangeError::Unknown(*old));
                }
                if !is_learner(new) {
                    return Err(ChangeError::Unknown(*new));
                }
                // Two at once: by way of a configuration in which both the old
                // and the new voters have to agree. It is left by an entry of
                // its own.
                proposed.set_transition(raft::eraftpb::ConfChangeTransition::Explicit);
                proposed.changes.push(single(AddNode, *new));
                proposed.changes.push(single(RemoveNode, *old));
            }
        }
        Ok(Some(proposed))
    }

    /// What a leader proposes by itself: to leave the passage between two
    /// configurations, or to say once more who decides, so that nobody can be
    /// elected any more who does not know.
    pub(crate) fn follow_up(&self, leader: u64) -> Option<ConfChangeV2> {
        if self.is_joint() {
            return Some(ConfChangeV2::default());
        }
        if self.is_settled() || !self.voters.incoming.contains(&leader) {
            return None;
        }
        let mut again = ConfChangeV2::default();
        again.changes.push(ConfChangeSingle {
            change_type: ConfChangeType::AddNode.into(),
            node_id: leader,
        });
        Some(again)
    }
}

/// Whether an entry changes the members; it is not for the program then.
pub(crate) fn is_change(entry: &Entry) -> bool {
    entry.entry_type() != EntryType::EntryNormal
}

/// The change that an entry holds.
pub(crate) fn read_change(entry: &Entry) -> Result<ConfChangeV2, String> {
    if entry.entry_type() != EntryType::EntryConfChangeV2 {
        return Err("it is of a kind that is not known".into());
    }
    ConfChangeV2::decode(entry.data.as_slice()).map_err(|_| "it cannot be read".into())
}

fn read_addresses(context: &[u8]) -> Result<BTreeMap<u64, String>, String> {
    if context.is_empty() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_slice(context).map_err(|_| "its addresses cannot be read".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, change: &ConfChangeV2) -> Entry {
        let mut entry = Entry {
            index,
            term: 1,
            data: change.encode_to_vec(),
            ..Entry::default()
        };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry
    }

    /// Carries a change out, with what a leader adds by itself.
    fn carry(mut now: Membership, index: &mut u64, change: &Change) -> Membership {
        let proposed = now.propose(change).unwrap().unwrap();
        *index += 1;
        now = now.after(&entry(*index, &proposed)).unwrap();
        while let Some(next) = now.follow_up(1) {
            *index += 1;
            now = now.after(&entry(*index, &next)).unwrap();
        }
        now
    }

    fn add(id: u64) -> Change {
        Change::Add {
            id,
            address: format!("192.0.2.{id}:7000"),
        }
    }

    #[test]
    fn a_replica_comes_and_goes_and_its_id_is_used_for_good() {
        let mut index = 10;
        let start = Membership::initial([1, 2, 3]);
        assert!(start.is_settled());
        let learns = carry(start, &mut index, &add(4));
        assert!(learns.learners.contains(&4) && !learns.is_voter(4) && learns.is_settled());
        assert_eq!((learns.index(), index), (11, 11));
        assert_eq!(learns.propose(&add(4)), Ok(None));
        let four = carry(learns, &mut index, &Change::Promote(4));
        assert!(four.is_voter(4) && four.is_settled() && four.index() == 13);
        assert_eq!(four.addresses[&4], "192.0.2.4:7000");
        let three = carry(four, &mut index, &Change::Remove(4));
        assert!(three.is_removed(4) && three.addresses.is_empty());
        assert_eq!(three.propose(&add(4)), Err(ChangeError::Used(4)));
        assert_eq!(three.propose(&Change::Remove(4)), Ok(None));
        assert_eq!(
            three.propose(&Change::Remove(7)),
            Err(ChangeError::Unknown(7))
        );
        assert_eq!(
            three.propose(&Change::Promote(7)),
            Err(ChangeError::Unknown(7))
        );
        assert_eq!(Membership::decode(&three.encode()), Ok(three));
    }

    #[test]
    fn a_replacement_goes_through_a_configuration_of_both() {
        let mut index = 0;
        let learns = carry(Membership::initial([1, 2, 3]), &mut index, &add(4));
        let proposed = learns.propose(&Change::Replace { old: 3, new: 4 });
        let joint = learns
            .after(&entry(5, &proposed.unwrap().unwrap()))
            .unwrap();
        assert!(joint.is_joint() && !joint.is_settled());
        assert_eq!(joint.voters.halves().count(), 2);
        assert_eq!(joint.members(), BTreeSet::from([1, 2, 3, 4]));
        assert_eq!(
            joint.propose(&Change::Remove(2)),
            Err(ChangeError::UnderWay)
        );
        let left = joint
            .after(&entry(6, &joint.follow_up(1).unwrap()))
            .unwrap();
        assert!(!left.is_joint() && !left.is_settled() && left.is_removed(3));
        let again = left.after(&entry(7, &left.follow_up(1).unwrap())).unwrap();
        assert!(again.is_settled());
        assert_eq!(again.follow_up(1), None);
        assert_eq!(again.propose(&Change::Replace { old: 3, new: 4 }), Ok(None));
    }

    #[test]
    fn the_last_voter_stays() {
        let one = Membership::initial([5]);
        assert_eq!(one.propose(&Change::Remove(5)), Err(ChangeError::Last));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = serde_json::to_value(Membership::initial([1, 2])).unwrap();
        let wrong = |change: fn(&mut serde_json::Value)| {
            let mut value = good.clone();
            change(&mut value);
            Membership::decode(&serde_json::to_vec(&value).unwrap()).unwrap_err()
        };
        assert!(wrong(|v| v["learners"] = [2].into()).contains("only learns"));
        assert!(wrong(|v| v["learners"] = [9].into()).contains("never given"));
        assert!(wrong(|v| v["used"] = [0, 1, 2].into()).contains("id 0"));
        assert!(wrong(|v| v["before"]["index"] = 4.into()).contains("out of order"));
        assert!(wrong(|v| v["more"] = 1.into()).contains("unknown field"));
    }
}
