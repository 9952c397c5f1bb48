//! Replicas that are added, replaced and removed while everything goes wrong.

use std::collections::BTreeSet;

use crane_consensus::{Change, Config, Error, Membership};
use rand::Rng;

use crate::cluster::{Cluster, Replica, Scenario};
use crate::network::pick;

/// Replicas that may be added in a run.
const SPARES: u64 = 5;
/// Voters in a run with changes, at most.
const MOST: usize = 5;

/// How many replicas there ever are.
pub fn count(scenario: &Scenario) -> u64 {
    scenario.replicas + if scenario.changes { SPARES } else { 0 }
}

pub fn config(scenario: &Scenario, id: u64, cluster: [u8; 16]) -> Config {
    let mut peers: Vec<u64> = (1..=scenario.replicas).collect();
    let joins = id > scenario.replicas;
    if joins {
        peers.push(id);
    }
    let mut config = Config::new(id, peers, cluster);
    config.join = joins;
    config
}

/// Whether a replica ended because it is no member any more.
pub fn is_removed(error: &Error) -> bool {
    error.to_string().contains("was removed from the cluster")
}

impl Cluster<'_> {
    /// The newest membership that any replica knows to be agreed.
    fn membership(&self) -> Option<&Membership> {
        let nodes = self.replicas.iter().filter_map(|r| r.node.as_ref());
        let all = nodes.map(|node| node.membership());
        all.max_by_key(|one| one.index())
    }

    /// The members; everybody, while no replica runs that could say.
    pub fn members(&self) -> BTreeSet<u64> {
        match self.membership() {
            Some(known) if !known.is_empty() => known.members(),
            _ => (1..=self.scenario.replicas).collect(),
        }
    }

    /// A replica whose disk is new may be told of later members.
    pub fn told_of(&mut self, id: u64) -> Option<Vec<u64>> {
        let changed = self.membership().is_some_and(|one| one.index() > 0);
        if !changed || id > self.scenario.replicas || self.rng.random_bool(0.5) {
            return None;
        }
        let mut members = self.members();
        members.insert(id);
        (members.len() > 1).then(|| members.into_iter().collect())
    }

    /// An operator changes something, through a replica that believes to lead.
    pub fn change_members(&mut self) {
        let leads = |r: &&mut Replica| r.node.as_ref().is_some_and(|n| n.is_leader());
        let leader = self.replicas.iter_mut().find(leads);
        let Some(node) = leader.and_then(|r| r.node.as_mut()) else {
            return;
        };
        if !self.scenario.changes {
            return;
        }
        let now = node.membership().clone();
        let voters: Vec<u64> = now.voters.incoming.iter().copied().collect();
        let learners: Vec<u64> = now.learners.iter().copied().collect();
        let unused = (1..).find(|id| !now.used.contains(id)).unwrap_or(0);
        let last = count(self.scenario);
        let rng = &mut self.rng;
        if voters.is_empty() {
            return;
        }
        let voter = *pick(rng, &voters);
        let change = match (rng.random_range(0..10), learners.first()) {
            (0..5, None) if unused <= last && voters.len() < MOST => Change::Add {
                id: unused,
                address: format!("replica {unused}"),
            },
            (0..4, Some(id)) if voters.len() < MOST => Change::Promote(*id),
            (4..7, Some(new)) => Change::Replace {
                old: voter,
                new: *new,
            },
            (7, Some(id)) => Change::Remove(*id),
            (8, _) if voters.len() > 3 => Change::Remove(voter),
            _ => return,
        };
        if matches!(node.change(&change), Ok(Some(_))) {
            self.figures.changes += 1;
        }
    }
}
