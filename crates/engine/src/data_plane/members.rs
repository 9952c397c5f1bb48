//! Changing who takes part, and telling of it.

use super::DataPlane;
use crate::agreement::jury::Jury;
use crate::engine::removed;
use crate::host::{Host, Links};
use crate::message::ToGateway;
use crate::roster::Question;
use crane_consensus::wire::kind;
use crane_consensus::{Change, Membership};
use serde_json::{Value, json};

impl<H: Host> DataPlane<'_, H> {
    /// The owner asks the leader something.
    pub(super) fn ask(&mut self, number: u64, question: String) {
        if self.node.is_leader() {
            let answer = self.answer(&question);
            self.tell_answer(number, &answer);
            return;
        }
        let leader = self.node.leader().and_then(|l| u8::try_from(l).ok());
        let message = ToGateway::Ask(number, question).encode();
        let sent =
            leader.is_some_and(|leader| self.core.peers.add(leader, kind::GATEWAY, &message));
        if !sent {
            let why = "no replica leads at the moment, so nobody can say; try again when a \
                       majority runs";
            let answer = json!({ "error": why, "again": true });
            self.tell_answer(number, &answer.to_string());
        }
    }

    /// The owner of another replica asks.
    pub(super) fn hear_question(&mut self, peer: u8, number: u64, question: &str) {
        let answer = if self.node.is_leader() {
            self.answer(question)
        } else {
            json!({ "error": "the leadership has just changed; try again", "again": true })
                .to_string()
        };
        let message = ToGateway::Answer(number, answer).encode();
        self.core.peers.add(peer, kind::GATEWAY, &message);
    }

    pub(super) fn tell_answer(&self, number: u64, answer: &str) {
        let fields = json!({ "number": number, "answer": answer });
        self.shared.notices.add("answer", fields);
    }

    /// Does what is asked of the leader, or begins to.
    fn answer(&mut self, question: &str) -> String {
        let question = Question::decode(question);
        let answer = question.and_then(|question| self.carry_out_question(&question));
        answer
            .unwrap_or_else(|why| json!({ "error": why }))
            .to_string()
    }

    fn carry_out_question(&mut self, question: &Question) -> Result<Value, String> {
        let change = match *question {
            Question::Members {} => return Ok(self.tell_members()),
            Question::Transfer { to } => return self.transfer(to),
            Question::Add { id, address } => Change::Add {
                id: id.into(),
                address: address.to_string(),
            },
            Question::Promote { id } => Change::Promote(id.into()),
            Question::Remove { id } => Change::Remove(id.into()),
            Question::Replace { old, new } => Change::Replace {
                old: old.into(),
                new: new.into(),
            },
        };
        self.keeps_majority(&change)?;
        let gone = match change {
            Change::Remove(id) | Change::Replace { old: id, .. } => Some(id),
            _ => None,
        };
        if gone == Some(self.node.id()) && self.node.membership().voters.incoming.len() > 1 {
            // It is asked again, and the next leader does it.
            self.transfer(None)?;
            return Ok(json!({ "again": true }));
        }
        match self.node.change(&change) {
            Ok(index) => Ok(json!({ "index": index })),
            Err(error) => {
                use crane_consensus::ChangeError::{Behind, Busy, Leads, NotLeader, UnderWay};
                let again = matches!(
                    error,
                    Behind(_) | Busy | Leads | NotLeader { .. } | UnderWay
                );
                Ok(json!({ "error": error.to_string(), "again": again }))
            }
        }
    }

    /// Refuses a change after which the replicas that are there could decide
    /// nothing.
    fn keeps_majority(&self, change: &Change) -> Result<(), String> {
        let mut voters = self.node.membership().voters.incoming.clone();
        match change {
            Change::Add { .. } => return Ok(()),
            Change::Promote(id) => _ = voters.insert(*id),
            Change::Remove(id) => _ = voters.remove(id),
            Change::Replace { old, new } => {
                voters.remove(old);
                voters.insert(*new);
            }
        }
        let there = voters.iter().filter(|id| self.is_there(**id)).count();
        let majority = voters.len() / 2 + 1;
        if there < majority {
            return Err(format!(
                "it would leave {there} running of {} replicas, fewer than the {majority} that \
                 are needed; start those that are down first",
                voters.len()
            ));
        }
        Ok(())
    }

    fn is_there(&self, id: u64) -> bool {
        let peers = &self.core.peers;
        id == self.node.id()
            || u8::try_from(id)
                .is_ok_and(|id| peers.ids().any(|p| p == id) && peers.lost_since(id).is_none())
    }

    fn transfer(&mut self, to: Option<u8>) -> Result<Value, String> {
        let voters = &self.node.membership().voters.incoming;
        if let Some(to) = to {
            if self.node.id() == u64::from(to) {
                return Ok(json!({ "leader": to }));
            }
            if !voters.contains(&to.into()) {
                let what = if self.node.membership().contains(to.into()) {
                    "only learns, so it cannot lead"
                } else {
                    "is not a member"
                };
                return Err(format!("replica {to} {what}"));
            }
            if !self.is_there(to.into()) {
                return Err(format!("replica {to} does not run; start it first"));
            }
            self.hand_over_to(to.into());
        } else {
            let progress = self.node.progress();
            let there = progress
                .iter()
                .filter(|p| !p.learner && self.is_there(p.id));
            let Some(best) = there.max_by_key(|p| p.matched) else {
                return Err("no other replica runs that could lead; start one first".into());
            };
            let best = best.id;
            self.hand_over_to(best);
        }
        Ok(json!({}))
    }

    /// Who takes part and how far everybody is.
    fn tell_members(&self) -> Value {
        let members = self.node.membership();
        let progress = self.node.progress();
        let row = |id: u64| {
            let own = id == self.node.id();
            let found = progress.iter().find(|p| p.id == id);
            let matched = found.map_or(0, |p| p.matched);
            let role = if members.learners.contains(&id) {
                "learner"
            } else if members.voters.incoming.contains(&id) {
                "voter"
            } else {
                "leaving"
            };
            let address = u8::try_from(id)
                .ok()
                .and_then(|id| self.core.peers.address(id));
            json!({
                "id": id,
                "role": role,
                "address": address,
                "matched": if own { self.node.last_index() } else { matched },
                "there": self.is_there(id),
                "leads": own,
            })
        };
        json!({
            "index": members.index(),
            "settled": members.is_settled(),
            "last_index": self.node.last_index(),
            "term": self.node.term(),
            "leader": self.node.id(),
            "used": members.used,
            "members": members.members().into_iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// Others take part now than before.
    pub(super) fn members_changed(&mut self, members: &Membership) -> Result<(), String> {
        let before: Vec<u8> = self.core.peers.ids().collect();
        self.core.peers.set_members(members);
        self.comparing.judged_by(Jury::new(self.config.id, members));
        for peer in before {
            if self.core.peers.ids().all(|id| id != peer) {
                self.comparing.left(peer);
            }
        }
        for peer in self.clients_at.clone() {
            if !members.contains(peer.into()) {
                self.clients_at.remove(&peer);
            }
        }
        self.shared.notices.add(
            "members",
            json!({
                "index": members.index(),
                "voters": members.voters.incoming,
                "learners": members.learners,
            }),
        );
        if self.node.is_leader() {
            let now = self.host.now();
            self.gateways
                .check(&mut self.leading, &self.core.peers, now);
        }
        if members.is_removed(self.node.id()) {
            return Err(removed(self.config.id, members.index()));
        }
        Ok(())
    }
}
