//! Replicas that are added, replaced and removed, and the leadership that is
//! handed over, at the wish of an owner.

use super::*;
use std::collections::BTreeSet;

/// Voters in a run with changes, at most.
const MOST: usize = 5;

impl Cluster<'_> {
    /// The newest membership that a running replica knows to be agreed.
    fn membership(&self) -> Option<&Membership> {
        let running = self.replicas.iter().filter_map(|r| r.running.as_ref());
        let all = running.map(|running| running.data_plane.node.membership());
        all.max_by_key(|one| one.index())
    }

    /// Who takes part; those who began, while no replica runs that could say.
    pub(super) fn members(&self) -> BTreeSet<u8> {
        match self.membership() {
            Some(known) if !known.is_empty() => {
                known.members().into_iter().map(|id| id as u8).collect()
            }
            _ => (1..=self.scenario.replicas).collect(),
        }
    }

    /// The owner of some replica asks the leader for a change.
    pub(super) fn change_members(&mut self) {
        let Some(now) = self.membership().filter(|_| self.scenario.changes) else {
            return;
        };
        let voters: Vec<u64> = now.voters.incoming.iter().copied().collect();
        let learner = now.learners.first().copied();
        let unused = (1..).find(|id| !now.used.contains(id)).unwrap_or(0);
        if voters.is_empty() {
            return;
        }
        let may_add = unused <= self.replicas.len() as u64 && voters.len() < MOST;
        let voter = voters[self.rng.random_range(0..voters.len())];
        let question = match (self.rng.random_range(0..10), learner) {
            (0..5, None) if may_add => {
                // Its node is started first.
                let at = unused as usize - 1;
                if !self.replicas[at].begun {
                    self.start(at);
                }
                let address = format!("127.0.0.1:{}", 7000 + unused);
                json!({ "ask": "add", "id": unused, "address": address })
            }
            (0..4, Some(id)) if voters.len() < MOST => json!({ "ask": "promote", "id": id }),
            (4..6, Some(new)) => json!({ "ask": "replace", "old": voter, "new": new }),
            (6, Some(id)) => json!({ "ask": "remove", "id": id }),
            (7, _) if voters.len() > 3 => json!({ "ask": "remove", "id": voter }),
            (8, _) => json!({ "ask": "transfer", "to": voter }),
            (9, _) => json!({ "ask": "members" }),
            _ => return,
        };
        let at = self.rng.random_range(0..self.replicas.len());
        if let Some(running) = &self.replicas[at].running {
            let number = self.clock.micros();
            let asked = Work::Ask(number, question.to_string());
            running.shared.inbox.add(asked);
        }
    }
}
