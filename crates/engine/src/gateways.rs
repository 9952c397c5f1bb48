//! Which gateways are over: the leader tells the log, so that servers learn
//! that their connections are lost.

use crate::host::Links;
use crate::lead::Leading;
use std::time::{Duration, Instant};

/// A replica without a connection for so long is taken as down.
const DOWN_AFTER: Duration = Duration::from_secs(2);

/// What a replica knows of the gateways besides the log.
pub struct Gateways {
    own: u8,
    /// The incarnation that each gateway said it is at; lower ones are over.
    started: Vec<u32>,
    /// What the log knew of a gateway when its replica was first told, on the
    /// connection that there is now, how far it has to catch up.
    known: Vec<Option<u32>>,
    /// Incarnations that ended with their replica's process: these and lower.
    ended: Vec<u32>,
}

impl Gateways {
    /// Nothing known yet; this replica is `own`.
    pub fn new(own: u8) -> Self {
        Self {
            own,
            started: vec![0; 256],
            known: vec![None; 256],
            ended: vec![0; 256],
        }
    }

    /// A gateway is at this incarnation.
    pub fn started(&mut self, gateway: u8, incarnation: u32) {
        self.started[usize::from(gateway)] = incarnation;
    }

    /// There is another connection to a replica, or none.
    pub fn connection_changed(&mut self, gateway: u8) {
        self.known[usize::from(gateway)] = None;
    }

    /// A replica is told how far it has to catch up; the log knows of this
    /// incarnation of its gateway.
    pub fn aimed(&mut self, gateway: u8, incarnation: u32) {
        self.known[usize::from(gateway)].get_or_insert(incarnation);
    }

    /// A replica that was told so has not begun an incarnation since its process
    /// started: what the log knew when it was told is of a process before.
    ///
    /// That the process is another one than before does not say so: what the log
    /// knows by now may be of the new one, which other replicas met earlier.
    pub fn has_none_yet(&mut self, gateway: u8) {
        let at = usize::from(gateway);
        if let Some(known) = self.known[at] {
            self.ended[at] = self.ended[at].max(known);
        }
    }

    /// Declares gateways down that are; on a leader, every tick.
    pub fn check(&self, leading: &mut Leading, peers: &impl Links, now: Instant) {
        let Some(view) = leading.view() else {
            return;
        };
        let over: Vec<(u8, u32)> = view
            .gateways()
            .filter(|&(gateway, state)| {
                let at = usize::from(gateway);
                // One that was removed is over at once.
                let removed = || peers.ids().all(|id| id != gateway);
                let lost = || {
                    peers
                        .lost_since(gateway)
                        .is_some_and(|since| now >= since + DOWN_AFTER)
                };
                state.used
                    && !state.down
                    && (state.incarnation < self.started[at]
                        || state.incarnation <= self.ended[at]
                        || (gateway != self.own && (removed() || lost())))
            })
            .map(|(gateway, state)| (gateway, state.incarnation))
            .collect();
        for (gateway, incarnation) in over {
            leading.declare_down(gateway, incarnation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_process_has_begun_itself_is_not_ended_with_the_old_one() {
        let mut gateways = Gateways::new(1);
        // Nobody was told anything, so the answer is an old one.
        gateways.has_none_yet(2);
        assert_eq!(gateways.ended[2], 0);
        gateways.aimed(2, 3);
        // By now the replica has caught up and begun another one.
        gateways.aimed(2, 4);
        gateways.has_none_yet(2);
        assert_eq!(gateways.ended[2], 3);
        gateways.connection_changed(2);
        gateways.aimed(2, 5);
        gateways.has_none_yet(2);
        assert_eq!(gateways.ended[2], 5);
    }
}
