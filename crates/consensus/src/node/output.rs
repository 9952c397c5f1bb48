//! What a node tells its owner.

use raft::StateRole;
use raft::eraftpb::Message;

use crate::membership::Membership;

/// The part a replica plays at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether an election would succeed, without disturbing anybody.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Takes proposals.
    Leader,
}

impl From<StateRole> for Role {
    fn from(role: StateRole) -> Self {
        match role {
            StateRole::Follower => Self::Follower,
            StateRole::PreCandidate => Self::PreCandidate,
            StateRole::Candidate => Self::Candidate,
            StateRole::Leader => Self::Leader,
        }
    }
}

/// Receives what [`Node::process`](crate::Node::process) produces.
///
/// The methods are called in an order that matters and must not call back into
/// the node. `send` and `committed` should only queue: the node's thread does
/// its disk write between them.
pub trait Output {
    /// Send `msg` to replica `to`. It may be lost, repeated or late; messages
    /// to one replica should keep their order where that costs nothing.
    fn send(&mut self, to: u64, msg: Message);

    /// Entry `index` is committed. Called once for each index after each open,
    /// in order and without gaps, from [`Config::applied`](crate::Config::applied)
    /// plus one. `data` is empty for the entry by which a leader begins its
    /// term, and for those that change the members.
    fn committed(&mut self, index: u64, term: u64, data: &[u8]);

    /// The replica's role, its term or the leader it knows has changed.
    fn role_changed(&mut self, role: Role, term: u64, leader: Option<u64>);

    /// Who takes part has changed, by an entry that may be handed over later.
    fn membership_changed(&mut self, now: &Membership) {
        let _ = now;
    }

    /// The log of the leader begins behind the end of this replica's: it can only
    /// go on from a checkpoint of at least entry `index`, which other replicas
    /// have. Called again every half a second while that is so.
    fn needs_checkpoint(&mut self, index: u64);

    /// Asked before each committed entry: false leaves it and all later ones in
    /// the log for another [`process`](crate::Node::process) call, so that a
    /// slow server does not fill the memory of its node.
    fn accepts_committed(&mut self) -> bool {
        true
    }
}
