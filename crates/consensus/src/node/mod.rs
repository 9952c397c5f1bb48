//! One replica's part in the agreement.

mod members;
mod output;
mod process;
mod receive;
mod standing;

use std::collections::{BTreeSet, HashMap, VecDeque};

use raft::eraftpb::{Entry, Message};
use raft::{RawNode, SnapshotStatus, StateRole};

pub use self::output::{Output, Role};
pub use self::standing::Standing;

use self::standing::Inquiry;
use crate::config::Config;
use crate::disk::Disk;
use crate::error::{Error, ProposeError};
use crate::log::{LogStore, Recovery, StoreConfig};
use crate::prng::Prng;

/// Ticks after which a replica that needs a checkpoint is told so again.
const CHECKPOINT_WAITS: u64 = 20;

/// How far another replica is, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerProgress {
    /// The replica.
    pub id: u64,
    /// The last index it is known to have.
    pub matched: u64,
    /// It was heard from within the last election time-out.
    pub recent_active: bool,
    /// It gets the log and does not decide.
    pub learner: bool,
}

/// A replica of the log: the consensus core, its disk, and the cursor of what
/// was handed over.
///
/// Its owner calls, on one thread: [`step`](Self::step) for every message that
/// arrives, [`propose`](Self::propose) for inputs, [`tick`](Self::tick) every
/// 25 ms, and then [`process`](Self::process) while
/// [`has_ready`](Self::has_ready). After a stall, step what waits in the
/// sockets before ticking, and tick once or twice at most: else a replica that
/// was stopped for a moment stands for election although its leader is alive.
///
/// After [`Error::Fatal`] (or [`Error::Corrupt`]) from any call the node must
/// not be used again: end the process and let its supervisor start it anew.
pub struct Node<D: Disk> {
    raw: RawNode<LogStore<D>>,
    id: u64,
    /// Whom to ask besides those who take part: the other replicas of the
    /// configuration, and whoever spoke to this one.
    seeds: Vec<u64>,
    heartbeat_ticks: usize,
    election_ticks: usize,
    max_entry_bytes: usize,
    page_bytes: u64,
    standing: Standing,
    inquiry: Inquiry,
    /// The end of the log was damaged and cut off when it was opened, so this
    /// replica may have confirmed entries that it no longer has.
    cut: bool,
    /// The latest life heard of, by replica.
    lives: HashMap<u64, u64>,
    /// The life in which each replica last said that it takes full part.
    ready: HashMap<u64, u64>,
    /// Questions and answers that wait to be sent.
    outbox: VecDeque<Message>,
    /// What `role_changed` last said.
    told: (Role, u64, Option<u64>),
    /// The last index handed over.
    cursor: u64,
    /// Entries read from the disk for handing over, from `cursor + 1`.
    page: VecDeque<Entry>,
    /// Committed in the core, so safe to hand over.
    deliverable: u64,
    /// The commit index that the log on the disk has.
    commit_written: u64,
    /// Ticks since the node was opened.
    ticks: u64,
    /// The tick at which a newer commit index was first left unwritten.
    commit_unwritten: Option<u64>,
    /// The tick at which each replica was last sent an append.
    appended: HashMap<u64, u64>,
    /// The tick at which each replica was told that it needs a checkpoint.
    told_checkpoint: HashMap<u64, u64>,
    /// The leader's log begins after this replica's ends: the checkpoint that
    /// the leader knows of.
    needs_checkpoint: Option<u64>,
    /// The log begins after what the owner starts from, so nothing is handed
    /// over. The replica follows, acknowledges and votes, but does not lead.
    lacks: bool,
    timeouts: Option<Timeouts>,
    /// The reason why this node had to stop.
    failure: Option<String>,
}

/// Election time-outs that a seed decides, instead of the system's entropy.
struct Timeouts {
    rng: Prng,
    current: usize,
    drawn_for: (u64, StateRole),
}

impl<D: Disk> Node<D> {
    /// Opens the log on `disk` and makes a follower of it.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible settings, and what
    /// [`LogStore::open`] refuses.
    pub fn open(config: Config, disk: D) -> Result<(Self, Recovery), Error> {
        config.validate()?;
        let (store, recovery) = LogStore::open(disk, &StoreConfig::from(&config))?;
        // Without a checkpoint that goes with the log, it waits for one.
        let begin = store.base();
        let lacks = config.checkpoint.is_none() && begin > 0;
        let commit = store.hard_state().commit;
        let standing = store.meta().standing;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&config.to_raft(commit), store, &logger)
            .map_err(|e| Error::Config(format!("the settings were refused: {e}")))?;
        let others = config
            .peers
            .iter()
            .copied()
            .filter(|p| *p != config.id)
            .collect();
        let mut node = Self {
            told: (Role::Follower, raw.raft.term, None),
            id: config.id,
            seeds: others,
            heartbeat_ticks: config.heartbeat_ticks,
            election_ticks: config.election_ticks,
            max_entry_bytes: config.max_entry_bytes,
            page_bytes: config.max_committed_bytes,
            standing,
            inquiry: Inquiry::default(),
            cut: recovery.truncated_bytes > 0,
            lives: HashMap::new(),
            ready: HashMap::new(),
            outbox: VecDeque::new(),
            cursor: config.checkpoint.map_or(0, |from| from.index),
            page: VecDeque::new(),
            deliverable: commit,
            commit_written: commit,
            ticks: 0,
            commit_unwritten: None,
            appended: HashMap::new(),
            told_checkpoint: HashMap::new(),
            needs_checkpoint: lacks.then_some(begin),
            lacks,
            timeouts: config.seed.map(|seed| Timeouts {
                // Replicas with one seed must not all time out together.
                rng: Prng::new(seed ^ config.id.wrapping_mul(0xa076_1d64_78bd_642f)),
                current: 0,
                drawn_for: (u64::MAX, StateRole::Follower),
            }),
            failure: None,
            raw,
        };
        node.fix_timeout();
        if node.standing != Standing::Voter {
            node.ask();
        }
        Ok((node, recovery))
    }

    /// One tick of time passed.
    pub fn tick(&mut self) {
        if let Err(e) = self.raw.mut_store().housekeep() {
            self.fail(e);
        }
        if self.failure.is_some() {
            return;
        }
        self.ticks += 1;
        self.tell_of_checkpoints_again();
        if self.standing == Standing::Voter {
            if self.lacks {
                // It notices that a leader is silent, so that it may vote for
                // another, but the core is not given the tick by which it
                // would stand for election itself.
                self.raw.raft.election_elapsed += 1;
                if self.ticks.is_multiple_of(CHECKPOINT_WAITS) {
                    self.needs_checkpoint = Some(self.log().base());
                }
            } else {
                self.raw.tick();
            }
            self.follow_up();
        } else {
            // Ticks drive only elections in a follower, so the core gets none.
            self.inquiry.ticks += 1;
            if self.inquiry.ticks >= self.heartbeat_ticks {
                self.ask();
            }
        }
        self.fix_timeout();
    }

    /// Puts an entry in the log. It is agreed when it is handed to
    /// [`Output::committed`], which may never happen if the leader changes.
    /// Never forwarded to another replica.
    ///
    /// # Errors
    /// See [`ProposeError`]; the entry is then in no log.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), ProposeError> {
        if data.len() > self.max_entry_bytes {
            return Err(ProposeError::TooLarge {
                len: data.len(),
                max: self.max_entry_bytes,
            });
        }
        if !self.is_leader() || self.failure.is_some() {
            return Err(ProposeError::NotLeader {
                leader: self.leader().filter(|l| *l != self.id),
            });
        }
        match self.raw.propose(Vec::new(), data) {
            Ok(()) => Ok(()),
            Err(_) => Err(ProposeError::Busy),
        }
    }

    /// Stands for election now, without waiting for a time-out. Ignored by the
    /// leader, by a replica that may not vote, and by one that needs a checkpoint.
    pub fn campaign(&mut self) {
        if self.standing == Standing::Voter && !self.lacks && self.failure.is_none() {
            // The core has no way to refuse this.
            let _ = self.raw.campaign();
            self.fix_timeout();
        }
    }

    /// Hands the leadership to replica `id`; ignored unless this replica is the
    /// leader. Proposals are `Busy` meanwhile, for one election time-out at
    /// most.
    pub fn transfer_leader(&mut self, id: u64) {
        if self.is_leader() && self.membership().voters.incoming.contains(&id) {
            self.raw.transfer_leader(id);
        }
    }

    /// The owner has a checkpoint of everything up to entry `index`, which was
    /// handed over.
    pub fn checkpointed(&mut self, index: u64) {
        if index <= self.cursor {
            self.raw.mut_store().set_checkpoint(index);
        }
    }

    /// Drops entries up to `index` from the log, as far as the newest checkpoint
    /// that was told of goes, in whole files.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails.
    pub fn cut(&mut self, index: u64) -> Result<(), Error> {
        let covered = self.log().checkpoint().map_or(0, |from| from.index);
        self.raw.mut_store().cut(index.min(covered))
    }

    /// A replica that was told to get a checkpoint is asked how far it is, now
    /// and then: what it was told may be lost, or it may have got one.
    fn tell_of_checkpoints_again(&mut self) {
        let now = self.ticks;
        let due = |at: u64| now >= at + CHECKPOINT_WAITS;
        let ids: Vec<u64> = self
            .told_checkpoint
            .iter()
            .filter_map(|(id, at)| due(*at).then_some(*id))
            .collect();
        for id in ids {
            self.told_checkpoint.remove(&id);
            if self.is_leader() {
                self.raw.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// Tells the leader that the connection to `id` broke, so that it does not
    /// go on sending ahead.
    pub fn peer_unreachable(&mut self, id: u64) {
        if self.is_leader() {
            self.raw.report_unreachable(id);
        }
    }

    /// Chooses between telling followers of a commit at once (`false`, less
    /// delay on followers) and with the next message (`true`, fewer messages,
    /// right under load).
    pub fn set_lazy_commit(&mut self, lazy: bool) {
        self.raw.skip_bcast_commit(lazy);
    }

    /// Whether [`process`](Self::process) has something to do, including
    /// committed entries that the output did not accept yet.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.has_urgent() || self.backlog() > 0
    }

    /// Whether [`process`](Self::process) has something to do besides handing
    /// over committed entries. An owner whose output does not accept entries at
    /// the moment loops on this instead.
    #[must_use]
    pub fn has_urgent(&self) -> bool {
        self.failure.is_some()
            || !self.outbox.is_empty()
            || self.needs_checkpoint.is_some()
            || self.raw.has_ready()
            || self.commit_is_overdue()
    }

    /// Committed entries that were not handed over yet.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        if self.lacks {
            return 0;
        }
        self.deliverable.saturating_sub(self.cursor)
    }

    /// Ends the node in order; its log needs no doubt at the next start.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails.
    pub fn close(mut self) -> Result<(), Error> {
        if self.failure.is_none() {
            self.write_commit()?;
        }
        self.raw.raft.r.raft_log.store.close()
    }

    /// This replica.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The part this replica plays.
    #[must_use]
    pub fn role(&self) -> Role {
        self.raw.raft.state.into()
    }

    /// Whether this replica believes to be the leader. Another one may have
    /// been elected already: only a commit proves it.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The leader of the current term, if known.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// The commit index.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The last index handed to [`Output::committed`].
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.cursor
    }

    /// The last index in the log, committed or not.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// Bytes proposed here and not yet committed; 0 unless leader.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        if self.is_leader() {
            self.raw.raft.uncommitted_size()
        } else {
            0
        }
    }

    /// How far the other replicas are; empty unless this one is the leader.
    #[must_use]
    pub fn progress(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let prs = self.raw.raft.prs();
        let progress = |id: u64| {
            prs.get(id).map(|p| PeerProgress {
                id,
                matched: p.matched,
                recent_active: p.recent_active,
                learner: !self.membership().is_voter(id),
            })
        };
        self.others().into_iter().filter_map(progress).collect()
    }

    /// How often this replica's state directory has been opened.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.raw.store().incarnation()
    }

    /// The log, for reading.
    #[must_use]
    pub fn log(&self) -> &LogStore<D> {
        self.raw.store()
    }

    /// Whether this replica takes part in decisions.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The replicas that have not answered a replica which is not a voter.
    #[must_use]
    pub fn unanswered(&self) -> Vec<u64> {
        let mut missing: Vec<u64> = self.others().into_iter().collect();
        missing.retain(|p| self.standing != Standing::Voter && !self.inquiry.has_answer(*p));
        missing
    }

    /// The other replicas that this one has to do with.
    fn others(&self) -> BTreeSet<u64> {
        let mut all = self.membership().members();
        if self.standing != Standing::Voter {
            all.extend(&self.seeds);
            all.extend(self.inquiry.told_of());
        }
        all.remove(&self.id);
        all
    }

    fn fail(&mut self, error: Error) {
        if self.failure.is_none() {
            self.failure = Some(error.fatal().to_string());
        }
    }

    /// Replaces the time-out that the core drew from the system's entropy.
    fn fix_timeout(&mut self) {
        let Some(timeouts) = &mut self.timeouts else {
            return;
        };
        let raft = &mut self.raw.raft;
        let now = (raft.term, raft.state);
        if timeouts.drawn_for != now {
            timeouts.drawn_for = now;
            let draw = timeouts.rng.below(self.election_ticks as u64);
            timeouts.current = self.election_ticks + draw as usize;
        }
        if raft.randomized_election_timeout() != timeouts.current {
            raft.set_randomized_election_timeout(timeouts.current);
        }
    }
}
