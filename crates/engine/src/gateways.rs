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
    /// Incarnations that ended with their replica's process: these and lower.
    ended: Vec<u32>,
}

impl Gateways {
    /// Nothing known yet; this replica is `own`.
    pub fn new(own: u8) -> Self {
        Self {
            own,
            started: vec![0; 256],
            ended: vec![0; 256],
        }
    }

    /// A gateway is at this incarnation.
    pub fn started(&mut self, gateway: u8, incarnation: u32) {
        self.started[usize::from(gateway)] = incarnation;
    }

    /// A replica's process is another one than before: whatever incarnation the
    /// log knows by now is of the old one, because the new one begins with one
    /// that is higher than all in the log.
    pub fn replaced(&mut self, gateway: u8, known: u32) {
        self.ended[usize::from(gateway)] = known;
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
