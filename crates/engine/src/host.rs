//! What the data plane needs of the machine that it runs on: a clock, chance,
//! connections to the other replicas, and where clients come in.
//!
//! The data plane decides and the host does. With the real one
//! ([`crate::sockets`]) it is a replica; with a simulated one its very code is
//! stepped in a test, and every run can be repeated.

use crate::peers::{Arrival, Peers};
use crate::share::Share;
use crate::shared::Work;
use crane_consensus::{Disk, Membership, Message};
use crane_gateway::clients::{Arrived, Clients};
use crane_gateway::connection::Effects;
use mio::Token;
use std::time::Instant;

/// The machine of a replica.
pub trait Host {
    /// What the log is kept on.
    type Disk: Disk;
    /// The connections to the other replicas.
    type Links: Links;

    /// The steady clock.
    fn now(&self) -> Instant;

    /// The wall clock, nanoseconds since the Unix epoch.
    fn wall_clock(&self) -> u64;

    /// Fresh entropy.
    fn seed(&mut self) -> [u8; 32];

    /// Does what the server called for at its sockets: one of [`Work::Listen`],
    /// [`Work::ListenUnix`], [`Work::Unlisten`] and those of datagrams. `leads`:
    /// this replica is the leader.
    ///
    /// # Errors
    /// Why the replica cannot go on.
    fn carry_out(&mut self, work: Work, clients: &Clients, leads: bool) -> Result<(), String>;

    /// From now on clients come in.
    ///
    /// # Errors
    /// Why the replica cannot go on.
    fn open(&mut self) -> Result<(), String>;

    /// No clients come in any more: the server is gone.
    fn close(&mut self);

    /// Notes the sockets that the server had at a checkpoint.
    fn announce(&mut self, share: &Share);

    /// Notes in `share` the sockets that the server has.
    fn announced(&self, share: &mut Share);

    /// A client goes on here, see [`Clients::adopt`].
    fn adopt(&mut self, clients: &mut Clients, arrived: &Arrived<'_>) -> Option<(Token, Effects)>;

    /// What has to be looked after now and then; dials among other things.
    fn chores(&mut self, links: &mut Self::Links, clients: &mut Clients);

    /// Whether something waits that no event will tell of, so that every tick counts.
    fn is_pressed(&self) -> bool;
}

/// The connections to the other replicas.
pub trait Links {
    /// The other replicas.
    fn ids(&self) -> impl Iterator<Item = u8> + '_;

    /// From now on these take part: there are connections to them and no others.
    fn set_members(&mut self, members: &Membership);

    /// Where `peer` is reached, for people.
    fn address(&self, peer: u8) -> Option<String>;

    /// Since when there is no connection to `peer`; `None` when there is one.
    fn lost_since(&self, peer: u8) -> Option<Instant>;

    /// Takes what arrived, in order.
    fn take_arrivals(&mut self, into: &mut Vec<(u8, Arrival)>);

    /// Sends a message of the consensus core. False when it was dropped.
    fn send_raft(&mut self, to: u8, message: &Message) -> bool;

    /// Adds a frame for `to`, sent by the next [`flush`](Self::flush). False when
    /// it was dropped.
    fn add(&mut self, to: u8, kind: u8, payload: &[u8]) -> bool;

    /// Whether there is a connection to `to` that takes more batches now.
    fn has_room(&mut self, to: u8) -> bool;

    /// Sends everything that was added.
    fn flush(&mut self);

    /// Until it is called again, messages of the consensus core to these may wait
    /// for the next that is for them, for a while.
    fn be_patient_with(&mut self, peers: Vec<u8>);

    /// When something that is held back has to leave.
    fn next_release(&self) -> Option<Instant>;

    /// Sends what is held back.
    fn release(&mut self);

    /// When a connection has to be made or given up.
    fn next_dial(&self) -> Option<Instant>;
}

impl Links for Peers {
    fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        Self::ids(self)
    }

    fn set_members(&mut self, members: &Membership) {
        Self::set_members(self, members);
    }

    fn address(&self, peer: u8) -> Option<String> {
        Self::address(self, peer)
    }

    fn lost_since(&self, peer: u8) -> Option<Instant> {
        Self::lost_since(self, peer)
    }

    fn take_arrivals(&mut self, into: &mut Vec<(u8, Arrival)>) {
        Self::take_arrivals(self, into);
    }

    fn send_raft(&mut self, to: u8, message: &Message) -> bool {
        Self::send_raft(self, to, message)
    }

    fn add(&mut self, to: u8, kind: u8, payload: &[u8]) -> bool {
        Self::add(self, to, kind, payload)
    }

    fn has_room(&mut self, to: u8) -> bool {
        Self::has_room(self, to)
    }

    fn flush(&mut self) {
        Self::flush(self);
    }

    fn be_patient_with(&mut self, peers: Vec<u8>) {
        Self::be_patient_with(self, peers);
    }

    fn next_release(&self) -> Option<Instant> {
        Self::next_release(self)
    }

    fn release(&mut self) {
        Self::release(self);
    }

    fn next_dial(&self) -> Option<Instant> {
        Self::next_dial(self)
    }
}
