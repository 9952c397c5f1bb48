//! From gathered events to agreed epochs: forward or propose, write, publish.

use super::{DataPlane, role_name};
use crate::bubble;
use crate::budget::Stand;
use crate::host::{Host, Links};
use crate::lead::{Bubble, Proposal};
use crate::message::ToGateway;
use crane_channel::layout::State;
use crane_consensus::wire::kind;
use crane_consensus::{ProposeError, Role};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Entries proposed before they are written, at most.
const PROPOSALS_AT_ONCE: usize = 8;
/// Pause after consensus refused a proposal.
const AFTER_REFUSAL: Duration = Duration::from_millis(50);
/// Bytes proposed and not committed above which the leader waits.
const UNCOMMITTED_COMFORT: usize = 32 << 20;
/// Events that the log has not taken for so long are offered again.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

impl<H: Host> DataPlane<'_, H> {
    /// Goes on until nothing is left that could go on now.
    pub(super) fn agree(&mut self) -> Result<(), String> {
        loop {
            self.forward();
            self.propose_restart();
            self.propose_moves();
            let proposed = self.propose()?;
            self.process()?;
            self.core.peers.be_patient_with(Vec::new());
            let changed = self.after_process()?;
            if !proposed && !changed {
                return Ok(());
            }
        }
    }

    /// Sends this gateway's events to the leader, if that is another replica.
    fn forward(&mut self) {
        let Some(leader) = self.node.leader().and_then(|l| u8::try_from(l).ok()) else {
            return;
        };
        if leader == self.config.id {
            return;
        }
        let stream = self.clients.stream();
        let mut any = false;
        while stream.has_unsent() && self.core.peers.has_room(leader) {
            let first = !stream.has_sent();
            let Some((_, bytes)) = stream.take_unsent() else {
                break;
            };
            self.core.peers.add(leader, kind::GATEWAY, bytes);
            any = true;
            if first {
                self.acknowledged_at = self.host.now();
            }
        }
        if any {
            // Before this replica's own disk.
            self.core.peers.flush();
        }
    }

    /// Proposes what waits. Returns whether there was anything.
    fn propose(&mut self) -> Result<bool, String> {
        if self
            .paused_until
            .is_some_and(|until| self.host.now() < until)
        {
            return Ok(false);
        }
        self.paused_until = None;
        let idle = self.leading.is_idle();
        let mut any = false;
        let mut events = false;
        for _ in 0..PROPOSALS_AT_ONCE {
            let Some(proposal) = self.held.take().or_else(|| self.next_proposal()) else {
                break;
            };
            let Proposal {
                entry,
                foreign,
                bubble,
            } = proposal;
            // The core keeps the bytes even when it refuses them, so look first.
            if self.node.uncommitted_bytes() > UNCOMMITTED_COMFORT {
                self.held = Some(Proposal {
                    entry,
                    foreign,
                    bubble,
                });
                break;
            }
            match self.node.propose(entry) {
                Ok(()) => {
                    self.leading.proposed(self.node.last_index(), foreign);
                    if bubble {
                        self.bubbles_proposed += 1;
                    } else {
                        self.epochs_proposed += 1;
                        events = true;
                    }
                    any = true;
                }
                Err(ProposeError::TooLarge { len, max }) => {
                    return Err(format!(
                        "an entry of {len} bytes was made but the log takes {max}; run the same \
                         version of crane on all replicas"
                    ));
                }
                // What the view counts as proposed is not: the leader begins
                // anew when it has applied its log, and the gateways offer
                // their events again.
                Err(ProposeError::Busy | ProposeError::NotLeader { .. }) => {
                    self.leading.reset();
                    self.clients.stream().rewind();
                    self.begin_after = self.node.last_index();
                    self.paused_until = Some(self.host.now() + AFTER_REFUSAL);
                    break;
                }
            }
        }
        if any {
            self.pace.spoke();
            if idle && !events {
                let patient = self.spare_followers();
                self.core.peers.be_patient_with(patient);
            }
        }
        // Clients of other gateways wait for the commit; without them, their
        // replicas hear of it soon enough with the next message.
        // With votes, clients of this one wait for the others as well.
        let waiting = self.config.vote && !self.clients.is_empty();
        let lazy = self.clients_at.is_empty() && !self.leading.foreign_in_flight() && !waiting;
        self.node.set_lazy_commit(lazy);
        Ok(any)
    }

    /// Followers without clients whose confirmation a majority does not need
    /// while all replicas are there: they may get every second bubble of an idle
    /// server together with the one before.
    fn spare_followers(&self) -> Vec<u8> {
        let peers = &self.core.peers;
        let members = self.node.membership();
        let others = || peers.ids().filter(|id| members.is_voter((*id).into()));
        if members.is_joint() || peers.ids().any(|id| peers.lost_since(id).is_some()) {
            return Vec::new();
        }
        let needed = others().count().div_ceil(2);
        let without_clients = others().filter(|id| !self.clients_at.contains(id));
        without_clients.take(others().count() - needed).collect()
    }

    /// Tells the leader when the first client of this gateway comes or the last
    /// one goes.
    pub(super) fn tell_clients(&mut self) {
        let leader = self.node.leader().and_then(|l| u8::try_from(l).ok());
        let Some(leader) = leader.filter(|&l| l != self.config.id) else {
            return;
        };
        let any = !self.clients.is_empty();
        if self.told_clients != Some(any) {
            let message = ToGateway::Clients(any).encode();
            if self.core.peers.add(leader, kind::GATEWAY, &message) {
                self.told_clients = Some(any);
            }
        }
    }

    fn next_proposal(&mut self) -> Option<Proposal> {
        let now = self.virtual_time();
        self.measure();
        let slow = self.budget.is_slow();
        let own = self.clients.stream();
        let bubble = if self.leading.has_events(own) && !slow {
            Bubble::None
        } else {
            let published = self.core.publisher.last();
            bubble::look(self.shared, &self.leading, published, now)
        };
        let header = self.shared.segment.header();
        let drawn = header.random_drawn.load(Ordering::Relaxed);
        if slow && bubble == Bubble::None && !self.is_program_ready() {
            return None;
        }
        let own = self.clients.stream();
        let budget = self.budget.next();
        self.leading
            .next(own, bubble, budget, now, drawn, || self.host.seed())
    }

    /// Notes how far the program is, for the budget.
    fn measure(&mut self) {
        let header = self.shared.segment.header();
        let used_up = header.state.load(Ordering::SeqCst) == State::NeedsBudget as u32;
        let stand = Stand {
            given: self.core.publisher.last(),
            done: header.epoch.load(Ordering::SeqCst),
            clock: header.ticks.load(Ordering::Relaxed),
            used_up,
        };
        self.budget.note(self.host.now(), stand);
    }

    /// Whether the program has done all that was agreed and waits for more.
    fn is_program_ready(&self) -> bool {
        let header = self.shared.segment.header();
        self.leading.in_flight() == 0
            && header.epoch.load(Ordering::SeqCst) == self.core.publisher.last()
    }

    /// Writes, sends and applies.
    fn process(&mut self) -> Result<(), String> {
        while self.node.has_urgent() || (self.node.backlog() > 0 && self.core.takes_entries()) {
            self.node
                .process(&mut self.core)
                .map_err(|e| e.to_string())?;
            self.core.publisher.announce();
            if let Some(why) = self.core.failure.take() {
                return Err(why);
            }
        }
        self.core.publisher.announce();
        self.measure();
        Ok(())
    }

    /// Draws the consequences. Returns whether there may be more to do now.
    fn after_process(&mut self) -> Result<bool, String> {
        for peer in std::mem::take(&mut self.core.unsent) {
            self.node.peer_unreachable(peer);
        }
        let mut more = false;
        self.follow_moves();
        self.tell_restart();
        if let Some(index) = self.core.needs_checkpoint.take() {
            self.ask_for_checkpoint(index);
        }
        if let Some(members) = self.core.members.take() {
            self.members_changed(&members)?;
            more = true;
        }
        if let Some((role, term, leader)) = self.core.change.take() {
            self.role_changed(role, term, leader);
            more = true;
        }
        let (applied, term) = self.core.applied;
        let begins =
            term == self.node.term() && applied >= self.begin_after && self.paused_until.is_none();
        if self.node.is_leader() && !self.leading.is_ready() && begins {
            self.leading.begin(&self.core.filter);
            self.catch_up.aim(applied);
            let now = self.host.now();
            self.gateways
                .check(&mut self.leading, &self.core.peers, now);
            let peers: Vec<u8> = self.core.peers.ids().collect();
            for peer in peers {
                self.send_target(peer);
            }
            more = true;
        }
        self.leading.committed(applied);
        more |= self.take_acknowledgement()?;
        Ok(more)
    }

    fn role_changed(&mut self, role: Role, term: u64, leader: Option<u64>) {
        self.pace.role_changed();
        self.give_up_virtual();
        if role == Role::Leader {
            // The clients of all replicas wait for this program now.
            self.end_parking();
        }
        self.leading.reset();
        self.held = None;
        self.clients_at.clear();
        self.begin_after = 0;
        self.paused_until = None;
        self.shared.notices.add(
            "role",
            json!({ "role": role_name(role), "term": term, "leader": leader }),
        );
        match leader.and_then(|l| u8::try_from(l).ok()) {
            Some(leader) if leader != self.config.id => self.greet_leader(leader),
            _ => self.clients.stream().rewind(),
        }
    }

    /// Looks what the log says of this gateway's own events.
    fn take_acknowledgement(&mut self) -> Result<bool, String> {
        if !self.catch_up.is_done() {
            return Ok(false);
        }
        let state = self.core.filter.gateway(self.config.id);
        let own = self.clients.stream_ref().incarnation();
        if state.incarnation > own || (state.incarnation == own && state.down) {
            self.shared.notices.warn(
                "the other replicas took this one for dead; its clients' connections were closed",
            );
            self.begin_incarnation(state.incarnation.max(own) + 1)?;
            return Ok(true);
        }
        if state.incarnation == own && self.clients.stream().acknowledge(state.next_seq) {
            self.acknowledged_at = self.host.now();
        }
        Ok(false)
    }

    /// Offers events again that were sent long ago and are not in the log.
    pub(super) fn offer_again(&mut self, now: Instant) {
        if self.clients.stream().has_sent() && now > self.acknowledged_at + OFFER_AGAIN {
            self.acknowledged_at = now;
            self.clients.stream().rewind();
        }
    }
}
