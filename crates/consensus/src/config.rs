//! The settings of one replica.

use crate::error::Error;
use crate::membership::Membership;

/// When an entry counts as kept by a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Written and synced to the disk before it is acknowledged (the default).
    /// Nothing acknowledged is lost while a majority of the disks survives.
    Disk,
    /// Written to the file but not synced before it is acknowledged. The death
    /// of a process loses nothing; a power cut of a *majority* of the machines
    /// at once can. A replica whose machine went down this way refuses to start
    /// from what is left (see [`Config::accept_memory_loss`]).
    Memory,
}

/// What a checkpoint covers: everything up to and including an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// Settings of a [`Node`](crate::Node). [`Config::new`] gives the defaults,
/// which are meant for a tick of 25 ms.
#[derive(Debug, Clone)]
pub struct Config {
    /// This replica, one of [`peers`](Self::peers); never 0, and never given to
    /// another replica later.
    pub id: u64,
    /// The voters with which the cluster begins, including this one. What was
    /// agreed later is in the log and holds instead.
    pub peers: Vec<u64>,
    /// The replica was added to a cluster that exists: [`peers`](Self::peers)
    /// are only those it asks first.
    pub join: bool,
    /// Identifies the cluster; a state directory of another cluster is refused.
    pub cluster_id: [u8; 16],
    /// Ticks without a leader before a replica stands for election. The real
    /// time-out is random in `election_ticks..2 * election_ticks`.
    pub election_ticks: usize,
    /// Ticks between the heartbeats of a leader.
    pub heartbeat_ticks: usize,
    /// When an entry counts as kept.
    pub durability: Durability,
    /// Seeds the random election time-outs, so that a simulation can be
    /// repeated. `None` (production) takes them from the system.
    pub seed: Option<u64>,
    /// The checkpoint from which the owner starts: entries up to its index are
    /// not handed to [`Output::committed`](crate::Output::committed) again. A
    /// log that does not have that entry is emptied and goes on behind it.
    /// `None` (the default) replays the log from its start; if that was cut, the
    /// replica says at once that it needs a checkpoint, hands nothing over and
    /// does not lead.
    pub checkpoint: Option<Checkpoint>,
    /// Who took part at the checkpoint's entry; `None`: whoever this replica
    /// knows of, or [`peers`](Self::peers).
    pub membership: Option<Membership>,
    /// The operator vouches that this cluster is new, so that an empty state
    /// directory votes at once instead of asking the others first. Never set it
    /// for a replica that may have lost its directory.
    pub new_cluster: bool,
    /// Start although the machine went down while [`Durability::Memory`] was in
    /// force. Only for the case that all machines went down together and the
    /// operator accepts that the last inputs may be lost.
    pub accept_memory_loss: bool,
    /// Bytes of one log segment file.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory; older ones are read back.
    pub cache_bytes: usize,
    /// Largest entry that [`Node::propose`](crate::Node::propose) takes.
    pub max_entry_bytes: usize,
    /// Bytes of entries in one append message.
    pub max_size_per_msg: u64,
    /// Append messages under way to one follower.
    pub max_inflight: usize,
    /// Bytes proposed but not yet committed, above which
    /// [`propose`](crate::Node::propose) answers `Busy`.
    pub max_uncommitted_bytes: u64,
    /// Bytes of committed entries handed over by one
    /// [`process`](crate::Node::process) call (at least one entry).
    pub max_committed_bytes: u64,
}

impl Config {
    /// The default settings for replica `id` of `peers`.
    #[must_use]
    pub fn new(id: u64, peers: Vec<u64>, cluster_id: [u8; 16]) -> Self {
        Self {
            id,
            peers,
            join: false,
            cluster_id,
            election_ticks: 12,
            heartbeat_ticks: 2,
            durability: Durability::Disk,
            seed: None,
            checkpoint: None,
            membership: None,
            new_cluster: false,
            accept_memory_loss: false,
            segment_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            max_entry_bytes: 32 << 20,
            max_size_per_msg: 1 << 20,
            max_inflight: 256,
            max_uncommitted_bytes: 64 << 20,
            max_committed_bytes: 4 << 20,
        }
    }

    /// Checks what the consensus core would otherwise panic about.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::Config(why));
        if self.peers.contains(&0) || self.id == 0 {
            return refuse("a replica's id cannot be 0: number the replicas from 1".into());
        }
        let mut sorted = self.peers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != self.peers.len() {
            return refuse(format!(
                "a replica is listed twice in {:?}: give every replica its own id",
                self.peers
            ));
        }
        if !self.peers.contains(&self.id) {
            return refuse(format!(
                "replica {} is not one of the replicas {:?}: add it or correct the id",
                self.id, self.peers
            ));
        }
        if self.heartbeat_ticks == 0 || self.election_ticks <= self.heartbeat_ticks {
            return refuse(format!(
                "election_ticks ({}) must be greater than heartbeat_ticks ({}), which must be at least 1",
                self.election_ticks, self.heartbeat_ticks
            ));
        }
        if !(4096..=1 << 31).contains(&self.segment_bytes) {
            return refuse(format!(
                "segment_bytes is {}: it must be between 4096 and 2147483648",
                self.segment_bytes
            ));
        }
        // One entry travels in one frame and sits in one segment file.
        if self.max_entry_bytes == 0 || self.max_entry_bytes > crate::wire::MAX_PAYLOAD / 2 {
            return refuse(format!(
                "max_entry_bytes is {}: it must be between 1 and {}",
                self.max_entry_bytes,
                crate::wire::MAX_PAYLOAD / 2
            ));
        }
        if self.max_size_per_msg as usize > crate::wire::MAX_PAYLOAD / 2 {
            return refuse(format!(
                "max_size_per_msg is {}: it must be at most {}",
                self.max_size_per_msg,
                crate::wire::MAX_PAYLOAD / 2
            ));
        }
        if self.max_inflight == 0 || self.max_uncommitted_bytes < self.max_size_per_msg {
            return refuse(
                "max_inflight must be at least 1 and max_uncommitted_bytes at least max_size_per_msg"
                    .into(),
            );
        }
        Ok(())
    }

    /// The settings of the consensus core. Its own defaults are traps: one
    /// entry a message, unlimited uncommitted bytes, neither `pre_vote` nor
    /// `check_quorum` (with only one of the two a cut link can stop a cluster).
    pub(crate) fn to_raft(&self, commit: u64) -> raft::Config {
        raft::Config {
            id: self.id,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            // The core's "applied" is only its own bookkeeping here: entries
            // are handed over by our cursor, read from the log page by page.
            applied: commit,
            max_size_per_msg: self.max_size_per_msg,
            max_inflight_msgs: self.max_inflight,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: self.max_uncommitted_bytes,
            max_committed_size_per_ready: self.max_committed_bytes,
            ..raft::Config::default()
        }
    }
}
