//! Connections through the virtual address go with it, from one leader to the next.
//!
//! A new leader has the log say that the movable connections of others go on here,
//! waits until its own program has said all that the former holder can have sent,
//! makes their sockets, and only then asks for the address.

use super::DataPlane;
use crate::host::Host;
use crate::shared::lock;
use crane_channel::epoch::Event;
use crane_gateway::clients::Arrived;
use crane_gateway::moves::{Holder, News};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it is looked what movable clients have got.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often at least, when they get nothing.
const LOOK_AT_LEAST: Duration = Duration::from_millis(160);

/// The state of it.
#[derive(Default)]
pub struct Moving {
    /// Connections that come here, which wait for the program.
    arriving: Vec<crane_channel::epoch::ConnId>,
    /// The epoch that it must have done.
    epoch: u64,
    /// The entry behind which a proposal to move is.
    proposed: u64,
    /// The owner was told to take the address.
    holds: bool,
    looked: Option<Instant>,
    /// From that look to the next.
    pause: Duration,
}

impl<H: Host> DataPlane<'_, H> {
    fn own_holder(&self) -> Holder {
        (self.config.id, self.clients.stream_ref().incarnation())
    }

    /// Whether this replica could do what the leader's does.
    fn leads_virtual(&self) -> bool {
        self.config.virtual_host.is_some()
            && self.node.is_leader()
            && self.leading.is_ready()
            && self.catch_up.is_done()
            // Nobody may get what such a replica says, nor does it keep that.
            && !self.shared.distrusted.load(Ordering::SeqCst)
            && lock(&self.shared.agreement).suspended.is_none()
    }

    /// Has movable connections of others come here.
    pub(super) fn propose_moves(&mut self) {
        if !self.leads_virtual() || self.core.applied.0 < self.moving.proposed {
            return;
        }
        let own = self.own_holder();
        for holder in self.core.filter.moves.others(own) {
            self.leading.hand_over(holder, own);
            self.moving.proposed = self.node.last_index() + 1;
        }
    }

    /// Draws the consequences of what the log says of movable connections.
    pub(super) fn follow_moves(&mut self) {
        for news in std::mem::take(&mut self.core.moved) {
            match news {
                News::Over(conn) => self.clients.over(conn),
                News::Moved { conn, from, to } => {
                    if from.0 == self.config.id {
                        self.clients.release(conn);
                    }
                    if to == self.own_holder() {
                        self.moving.epoch = self.core.publisher.last();
                        self.moving.arriving.push(conn);
                    }
                }
                _ => {}
            }
        }
    }

    /// Goes on with the connections that come here, when the program is so far, and
    /// then asks for the address.
    pub(super) fn take_over(&mut self) {
        self.adopt();
        self.look_after_movable();
        let own = self.own_holder();
        if !self.moving.holds
            && self.moving.arriving.is_empty()
            && self.leads_virtual()
            && self.core.filter.moves.others(own).is_empty()
        {
            self.moving.holds = true;
            self.clients.hold_virtual(true);
            self.shared.notices.add("address", json!({ "held": true }));
        }
    }

    fn look_after_movable(&mut self) {
        let now = self.host.now();
        let due = |at: Instant| now >= at + self.moving.pause;
        if self.clients.has_untold() && self.moving.looked.is_none_or(due) {
            self.moving.looked = Some(now);
            let moved = self.clients.look_after_movable(now);
            self.moving.pause = if moved {
                LOOK_EVERY
            } else {
                LOOK_AT_LEAST.min(2 * self.moving.pause).max(LOOK_EVERY)
            };
        }
    }

    fn adopt(&mut self) {
        if self.moving.arriving.is_empty() {
            return;
        }
        let epoch = self.moving.epoch;
        // The wish first, then the look: see `Interest`.
        self.shared.interest.epoch.store(epoch, Ordering::SeqCst);
        self.shared.make_known();
        if self.shared.done_epoch.load(Ordering::SeqCst) < epoch {
            return;
        }
        self.shared.interest.epoch.store(u64::MAX, Ordering::SeqCst);
        let own = self.own_holder();
        let (mut came, mut given_up) = (0, 0);
        for conn in std::mem::take(&mut self.moving.arriving) {
            let movable = self.core.filter.moves.get(conn);
            let Some(movable) = movable.filter(|one| one.holder == own) else {
                continue;
            };
            let tails = self.shared.table.tails();
            let adopted = match (movable.tcp, tails.get(conn)) {
                (Some(tcp), Some(tail)) => {
                    let arrived = Arrived {
                        conn,
                        movable,
                        tcp,
                        tail,
                    };
                    self.host.adopt(&mut self.clients, &arrived)
                }
                _ => {
                    self.clients.stream().push(&Event::Reset { conn });
                    None
                }
            };
            drop(tails);
            match adopted {
                Some((token, effects)) => {
                    self.clients.carry_out(token, effects);
                    came += 1;
                }
                None => given_up += 1,
            }
        }
        self.shared
            .notices
            .add("moved", json!({ "came": came, "given_up": given_up }));
        lock(&self.shared.figures).connections = self.clients.len();
    }

    /// This replica leads no more: the address goes.
    pub(super) fn give_up_virtual(&mut self) {
        self.moving.holds = false;
        self.moving.proposed = 0;
        self.clients.hold_virtual(false);
    }

    /// When to look again what movable clients have got.
    pub(super) fn next_look_at_movable(&self) -> Option<Instant> {
        let waiting = self.clients.has_untold();
        let looked = self.moving.looked.unwrap_or_else(|| self.host.now());
        waiting.then(|| looked + self.moving.pause)
    }
}
