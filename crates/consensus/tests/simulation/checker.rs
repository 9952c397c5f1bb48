//! What must hold at every moment. Panics with `safety:` when it does not.

use std::collections::BTreeMap;

use crane_consensus::{EntryType, Membership, Node, Role, SimDisk};

#[derive(Debug, PartialEq, Eq)]
struct Committed {
    term: u64,
    data: Vec<u8>,
    /// The term in which the first replica handed it over.
    known_in: u64,
}

/// The one log that all replicas must agree on.
#[derive(Debug, Default)]
pub struct Checker {
    log: Vec<Committed>,
    leaders: BTreeMap<u64, u64>,
    memberships: BTreeMap<u64, Membership>,
}

impl Checker {
    pub fn committed_len(&self) -> u64 {
        self.log.len() as u64
    }

    pub fn elections(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Replica `id` in term `now` was handed entry `index`; `next` is the index
    /// that is its turn.
    pub fn committed(
        &mut self,
        (id, now, next): (u64, u64, u64),
        index: u64,
        term: u64,
        data: &[u8],
    ) {
        assert!(
            index == next,
            "safety: replica {id} was handed entry {index} when {next} was due"
        );
        let at = (index - 1) as usize;
        assert!(
            term <= now,
            "safety: replica {id} in term {now} was handed an entry of term {term}"
        );
        match self.log.get(at) {
            Some(agreed) => assert!(
                agreed.term == term && agreed.data == data,
                "safety: replica {id} was handed entry {index} of term {term}, agreed was another of term {}",
                agreed.term
            ),
            None => {
                assert!(
                    at == self.log.len(),
                    "safety: entry {index} was committed before the one before it"
                );
                self.log.push(Committed {
                    term,
                    data: data.to_vec(),
                    known_in: now,
                });
            }
        }
    }

    /// Replica `id` says who takes part from an entry on.
    pub fn membership(&mut self, id: u64, now: &Membership) {
        let known = self.memberships.entry(now.index());
        let agreed = known.or_insert_with(|| now.clone());
        assert!(
            agreed == now,
            "safety: replica {id} has {now:?}, agreed was {agreed:?}"
        );
    }

    /// Replica `id` said it plays `role` in `term`.
    pub fn role(&mut self, id: u64, role: Role, term: u64) {
        if role == Role::Leader {
            let leader = *self.leaders.entry(term).or_insert(id);
            assert!(
                leader == id,
                "safety: term {term} has two leaders, {leader} and {id}"
            );
        }
    }

    /// A leader has everything that was committed in earlier terms; `new` when
    /// it was just elected.
    pub fn leader(&mut self, node: &Node<SimDisk>, new: bool) {
        let (id, term) = (node.id(), node.term());
        self.role(id, node.role(), term);
        if !new || !node.is_leader() {
            return;
        }
        for (at, agreed) in self.log.iter().enumerate() {
            // An entry that a later leader committed is not this one's business.
            let index = at as u64 + 1;
            if agreed.known_in < term && index >= node.log().base() {
                let has = node.log().term_at(index);
                assert!(
                    has == Some(agreed.term),
                    "safety: leader {id} of term {term} has {has:?} at entry {index}, committed in term {}",
                    agreed.term
                );
            }
        }
    }

    /// At the end, replica `node` holds the agreed log itself, from where its own
    /// begins.
    pub fn holds_all(&self, node: &Node<SimDisk>) {
        let base = node.log().base();
        let all = node
            .log()
            .read(base + 1, self.log.len() as u64 + 1, u64::MAX);
        let all = all.expect("the log is readable");
        let agreed = &self.log[base as usize..];
        assert_eq!(all.len(), agreed.len(), "safety: entries are missing");
        for (entry, agreed) in all.iter().zip(agreed) {
            let changes = entry.entry_type() != EntryType::EntryNormal;
            assert!(
                entry.term == agreed.term && (changes || entry.data == agreed.data),
                "safety: replica {} holds another entry {}",
                node.id(),
                entry.index
            );
        }
    }
}
