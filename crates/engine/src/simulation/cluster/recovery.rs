//! The trouble ends.

use super::*;

impl Cluster<'_> {
    /// The trouble ends: every replica must come to do everything, and every
    /// client that was not cut off get all its answers.
    pub fn recover(&mut self) {
        self.calm = true;
        self.network.heal();
        self.network.delay = 300;
        self.network.stragglers = 0;
        for at in 0..self.replicas.len() {
            let replica = &mut self.replicas[at];
            replica.paused_until = 0;
            replica.pace = 20;
            if replica.may_fail {
                self.crash(at, true);
            }
            self.start_if_down(at);
            if let Some(running) = &mut self.replicas[at].running {
                running.program.pace = 20;
                running.wake_at = 0;
                for end in running.links().ends.values_mut() {
                    end.choked = false;
                }
            }
        }
        let begin = self.now();
        let mut quiet_from = None;
        loop {
            self.advance();
            let now = self.now();
            for at in 0..self.replicas.len() {
                self.start_if_down(at);
            }
            // Every replica serves clients of its own again.
            let served = |id: u8| {
                self.clients
                    .iter()
                    .any(|c| c.replica == id && !c.over && c.answered > 0)
            };
            if quiet_from.is_none() && self.members().into_iter().all(served) {
                quiet_from = Some(now);
            }
            if quiet_from.is_some() {
                // No new requests: what was sent must be answered.
                for client in &mut self.clients {
                    let at = usize::from(client.replica) - 1;
                    let report = client.send(&mut self.rng, 0, true);
                    if let Some(running) = &mut self.replicas[at].running {
                        running.ready.extend(report);
                    }
                }
                self.next_client = u64::MAX;
                if self.is_settled() {
                    break;
                }
            }
            assert!(
                now < begin + RECOVERY,
                "liveness: not all works again after {} ms: {:?}",
                RECOVERY / 1000,
                self.states()
            );
        }
        self.figures.recovered_in_ms = (self.now() - begin) / 1000;
        self.figures.survived = self.clients.iter().filter(|c| !c.over).count() as u64;
        let all = self.checker.order.len() as u64;
        let members = self.members();
        for (at, replica) in self.replicas.iter().enumerate() {
            if let Some(running) = &replica.running
                && members.contains(&(at as u8 + 1))
            {
                let executed = running.program.memory.executed;
                assert!(
                    executed == all,
                    "safety: replica {} executed {executed} of {all} requests",
                    at + 1
                );
            }
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        let members = self.members();
        let satisfied =
            |c: &Client| c.over || c.broken || c.is_satisfied() || !members.contains(&c.replica);
        let done = |r: &Replica| {
            r.running.as_ref().is_some_and(|running| {
                running.program.memory.executed == self.checker.order.len() as u64
                    && running.data_plane.node.standing() == Standing::Voter
            })
        };
        let mut all = members
            .iter()
            .map(|id| &self.replicas[usize::from(*id) - 1]);
        self.clients.iter().all(satisfied) && all.all(done)
    }

    pub(super) fn states(&self) -> Vec<String> {
        let state = |r: &Replica| match &r.running {
            None => "down".to_owned(),
            Some(running) => {
                let node = &running.data_plane.node;
                format!(
                    "{:?} term {} leader {:?} commit {}/{} applied {} {:?} open {} epoch {} wants {:?} executed {} of {} connected to {:?} progress {:?}",
                    node.role(),
                    node.term(),
                    node.leader(),
                    node.commit(),
                    node.last_index(),
                    node.applied(),
                    node.standing(),
                    running.data_plane.host.is_open,
                    running.program.memory.epoch,
                    r.wants,
                    running.program.memory.executed,
                    self.checker.order.len(),
                    running.data_plane.core.peers.connected(),
                    node.progress(),
                )
            }
        };
        let clients = self
            .clients
            .iter()
            .filter(|c| !c.over)
            .map(|c| format!("{:?}: {} of {} answered", c.conn, c.answered, c.sent));
        self.replicas.iter().map(state).chain(clients).collect()
    }

    pub fn figures(&self) -> Figures {
        Figures {
            executed: self.checker.order.len() as u64,
            answered: self.checker.answered,
            epochs: self.checker.epochs(),
            ..self.figures.clone()
        }
    }
}
