//! Replicas, their clocks and disks, and what befalls them.

use crane_consensus::{
    Checkpoint, Config, Error, Membership, Message, Node, Output, ProposeError, Role, SimDisk,
    Standing,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::checker::Checker;
use crate::faults::Swarm;
use crate::members;
use crate::network::{Network, Weather, pick};

/// Steps of trouble in one seed.
pub const STEPS: u64 = 4000;
/// Steps within which everything must work again.
const RECOVERY: u64 = 20_000;

/// What a run is about.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub replicas: u64,
    /// Replicas may lose their disks, one at a time.
    pub wipes: bool,
    /// Replicas make checkpoints and cut their logs behind them.
    pub cuts: bool,
    /// Replicas are added, replaced and removed.
    pub changes: bool,
    /// Planted: disks confirm syncs without doing them.
    pub lying_disks: bool,
    /// Planted: a replica that lost its disk votes at once.
    pub forgetful_voters: bool,
    /// After the trouble everything must work again.
    pub must_recover: bool,
}

impl Scenario {
    /// Whether replicas may notice that something is badly wrong.
    fn is_planted(&self) -> bool {
        self.lying_disks || self.forgetful_voters
    }
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            replicas: 3,
            wipes: false,
            cuts: false,
            changes: false,
            lying_disks: false,
            forgetful_voters: false,
            must_recover: true,
        }
    }
}

/// What happened, to see that a run was not idle.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    pub steps: u64,
    pub committed: u64,
    pub elections: u64,
    pub crashes: u64,
    pub wipes: u64,
    pub torn_tails: u64,
    pub busy: u64,
    pub cuts: u64,
    pub fetched: u64,
    pub lost_checkpoints: u64,
    pub changes: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.committed += other.committed;
        self.elections += other.elections;
        self.crashes += other.crashes;
        self.wipes += other.wipes;
        self.torn_tails += other.torn_tails;
        self.busy += other.busy;
        self.cuts += other.cuts;
        self.fetched += other.fetched;
        self.lost_checkpoints += other.lost_checkpoints;
        self.changes += other.changes;
    }
}

pub struct Replica {
    pub disk: SimDisk,
    pub node: Option<Node<SimDisk>>,
    /// The index whose turn it is to be handed over.
    next: u64,
    /// Steps between ticks: clocks differ.
    period: u64,
    /// Does nothing until this step, as if stopped by a signal.
    pub paused_until: u64,
    /// An error it may report, because its disk was made to fail.
    pub may_fail: bool,
    led: bool,
    /// What it can start from; kept beside the log, and lost with the disk.
    checkpoint: Option<Checkpoint>,
    membership: Option<Membership>,
    /// It was removed and knows it.
    pub gone: bool,
    /// It cannot go on without a checkpoint of this entry or a later one.
    wants: Option<u64>,
}

pub struct Cluster<'s> {
    pub scenario: &'s Scenario,
    pub rng: SmallRng,
    pub network: Network,
    pub replicas: Vec<Replica>,
    checker: Checker,
    pub now: u64,
    pub swarm: Swarm,
    proposals: u64,
    pub figures: Figures,
}

/// Collects what one `process` call produces.
struct Collect<'a> {
    id: u64,
    term: u64,
    next: &'a mut u64,
    checker: &'a mut Checker,
    sent: Vec<Message>,
    wants: &'a mut Option<u64>,
    /// Entries that are still accepted.
    room: u32,
}

impl Output for Collect<'_> {
    fn send(&mut self, to: u64, msg: Message) {
        assert_eq!(to, msg.to);
        self.sent.push(msg);
    }

    fn committed(&mut self, index: u64, term: u64, data: &[u8]) {
        let at = (self.id, self.term, *self.next);
        self.checker.committed(at, index, term, data);
        *self.next += 1;
        self.room -= 1;
    }

    fn role_changed(&mut self, role: Role, term: u64, _leader: Option<u64>) {
        self.checker.role(self.id, role, term);
    }

    fn membership_changed(&mut self, now: &Membership) {
        self.checker.membership(self.id, now);
    }

    fn needs_checkpoint(&mut self, index: u64) {
        *self.wants = Some(index);
    }

    fn accepts_committed(&mut self) -> bool {
        self.room > 0
    }
}

impl<'s> Cluster<'s> {
    pub fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let swarm = Swarm::draw(&mut rng);
        let replicas = (0..members::count(scenario))
            .map(|_| Replica {
                disk: SimDisk::new(),
                node: None,
                next: 1,
                period: rng.random_range(8..13),
                paused_until: 0,
                may_fail: false,
                led: false,
                checkpoint: None,
                membership: None,
                gone: false,
                wants: None,
            })
            .collect();
        let mut cluster = Self {
            scenario,
            rng,
            network: Network::new(),
            replicas,
            checker: Checker::default(),
            now: 0,
            swarm,
            proposals: 0,
            figures: Figures::default(),
        };
        for at in 0..cluster.replicas.len() {
            cluster.start(at);
        }
        cluster
    }

    fn config(&mut self, at: usize) -> Config {
        let mut config = members::config(self.scenario, at as u64 + 1, [7; 16]);
        if let Some(peers) = self.told_of(at as u64 + 1) {
            config.peers = peers;
        }
        config.seed = Some(self.rng.random());
        config.checkpoint = self.replicas[at].checkpoint;
        config.membership.clone_from(&self.replicas[at].membership);
        config.new_cluster = self.scenario.forgetful_voters;
        // Small limits, so that every limit is met.
        config.segment_bytes = 4096;
        config.cache_bytes = *pick(&mut self.rng, &[0, 500, 100_000]);
        config.max_size_per_msg = *pick(&mut self.rng, &[0, 200, 10_000]);
        config.max_inflight = *pick(&mut self.rng, &[1, 4, 256]);
        config.max_uncommitted_bytes = *pick(&mut self.rng, &[10_000, 1 << 20]);
        config.max_committed_bytes = *pick(&mut self.rng, &[100, 1 << 20]);
        config
    }

    fn start(&mut self, at: usize) {
        let config = self.config(at);
        let lies = self.scenario.lying_disks && self.rng.random_bool(0.5);
        let replica = &mut self.replicas[at];
        // Not from the beginning: a replica that lost everything notices.
        replica.disk.set_lying(lies && self.now > 0);
        match Node::open(config, replica.disk.reopen()) {
            Ok((mut node, recovery)) => {
                if recovery.truncated_bytes > 0 {
                    self.figures.torn_tails += 1;
                }
                node.set_lazy_commit(self.rng.random());
                replica.node = Some(node);
                replica.next = 1 + replica.checkpoint.map_or(0, |from| from.index);
                replica.led = false;
                replica.wants = None;
            }
            // The cut of power met it while it opened its files.
            Err(_) if replica.may_fail => self.crash(at, true),
            // What a planted fault lost may be noticed; the replica stays away.
            Err(_) if self.scenario.is_planted() => {}
            Err(e) => panic!("stopped: replica {} could not start: {e}", at + 1),
        }
    }

    /// The power goes, or only the process.
    pub fn crash(&mut self, at: usize, power: bool) {
        let replica = &mut self.replicas[at];
        replica.node = None;
        replica.may_fail = false;
        replica.disk.set_sync_fails(false);
        if power {
            replica.disk.crash(self.rng.random());
        } else {
            replica.disk.kill();
        }
        self.figures.crashes += 1;
    }

    /// Deals with an error of a node: it is over, one way or another.
    fn ended(&mut self, at: usize, error: &Error) {
        if members::is_removed(error) {
            self.replicas[at].gone = true;
            return self.crash(at, false);
        }
        assert!(
            self.replicas[at].may_fail || self.scenario.is_planted(),
            "stopped: replica {} stopped: {error}",
            at + 1
        );
        self.crash(at, true);
    }

    fn process(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let Some(node) = &mut replica.node else {
            return;
        };
        let room = *pick(&mut self.rng, &[0, 1, 1000, 1000]);
        let mut calls = 0;
        while node.has_urgent() || (calls == 0 && node.has_ready()) {
            calls += 1;
            let mut out = Collect {
                id: node.id(),
                term: node.term(),
                next: &mut replica.next,
                checker: &mut self.checker,
                sent: Vec::new(),
                wants: &mut replica.wants,
                room,
            };
            let result = node.process(&mut out);
            for msg in out.sent {
                self.network.send(&mut self.rng, self.now, &msg);
            }
            if let Err(error) = result {
                self.ended(at, &error);
                return;
            }
        }
        assert_eq!(node.applied() + 1, replica.next);
        let leads = node.is_leader();
        self.checker.leader(node, leads && !replica.led);
        replica.led = leads;
    }

    fn deliver(&mut self, msg: Message) {
        let at = msg.to as usize - 1;
        let replica = &mut self.replicas[at];
        let Some(node) = &mut replica.node else {
            return;
        };
        if replica.paused_until > self.now {
            // It waits in the socket.
            self.network.hold(replica.paused_until, &msg);
            return;
        }
        if let Err(error) = node.step(msg) {
            self.ended(at, &error);
        } else if self.rng.random_bool(0.8) {
            self.process(at);
        }
    }

    fn propose(&mut self, at: usize) -> bool {
        let Some(node) = &mut self.replicas[at].node else {
            return false;
        };
        let mut data = self.proposals.to_le_bytes().to_vec();
        let padding = *pick(&mut self.rng, &[0, 10, 500]);
        data.resize(8 + padding, 0x55);
        match node.propose(data) {
            Ok(()) => {
                assert!(node.is_leader());
                self.proposals += 1;
                true
            }
            Err(ProposeError::NotLeader { leader }) => {
                assert!(!node.is_leader() && leader != Some(node.id()));
                false
            }
            Err(_) => {
                self.figures.busy += 1;
                false
            }
        }
    }

    /// A replica makes a checkpoint of all that it was handed, or cuts its log
    /// behind the one that it has.
    pub fn checkpoint_or_cut(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let Some(node) = &mut replica.node else {
            return;
        };
        if !self.scenario.cuts || node.applied() == 0 {
            return;
        }
        if self.rng.random_bool(0.5) {
            let index = node.applied();
            let term = node.log().term_at(index).expect("it was handed over");
            replica.checkpoint = Some(Checkpoint { index, term });
            replica.membership = Some(node.log().membership_at(index).clone());
            node.checkpointed(index);
        } else if let Some(from) = replica.checkpoint {
            self.figures.cuts += 1;
            if let Err(error) = node.cut(from.index) {
                self.ended(at, &error);
            }
        }
    }

    /// A replica that is behind its leader's log starts again from a checkpoint
    /// of another one, as soon as somebody has a new enough one.
    fn fetch(&mut self, at: usize) {
        let Some(wanted) = self.replicas[at].wants.take() else {
            return;
        };
        let others = self.replicas.iter();
        let others = others.filter_map(|other| Some((other.checkpoint?, &other.membership)));
        if let Some((found, membership)) = others
            .filter(|(found, _)| found.index >= wanted)
            .max_by_key(|(found, _)| found.index)
        {
            let membership = membership.clone();
            self.crash(at, false);
            self.replicas[at].checkpoint = Some(found);
            self.replicas[at].membership = membership;
            self.figures.fetched += 1;
            self.start(at);
        }
    }

    /// One step of time: what arrives, whose clock ticks, and some proposals.
    pub fn step(&mut self) {
        self.now += 1;
        self.figures.steps += 1;
        for msg in self.network.arriving(self.now) {
            self.deliver(msg);
        }
        for at in 0..self.replicas.len() {
            if self.replicas[at].paused_until > self.now {
                continue;
            }
            self.fetch(at);
            let replica = &mut self.replicas[at];
            if self.now.is_multiple_of(replica.period)
                && let Some(node) = &mut replica.node
            {
                node.tick();
                self.process(at);
            } else if self.rng.random_bool(0.2) {
                self.process(at);
            }
        }
        if self.rng.random_bool(0.1) {
            let at = self.rng.random_range(0..self.replicas.len());
            for _ in 0..self.rng.random_range(1..5) {
                self.propose(at);
            }
            self.process(at);
        }
    }

    pub fn start_if_down(&mut self, at: usize) {
        if self.replicas[at].node.is_none() && !self.replicas[at].gone {
            self.start(at);
        }
    }

    /// A disk is replaced, if all others are well: what a majority lost nobody
    /// can bring back.
    pub fn wipe(&mut self, at: usize) {
        let well = |r: &Replica| {
            let node = r.node.as_ref();
            // Who lost its checkpoint needs one of the others.
            let starts_at = r.checkpoint.map_or(0, |from| from.index);
            node.is_some_and(|n| n.standing() == Standing::Voter && n.log().base() <= starts_at)
        };
        let members = self.members();
        let member = |i: usize| members.contains(&(i as u64 + 1));
        let others = self.replicas.iter().enumerate();
        let mut others = others.filter(|(i, _)| *i != at && member(*i));
        if self.scenario.wipes && others.all(|(_, r)| well(r)) {
            self.crash(at, true);
            self.replicas[at].disk.wipe();
            self.replicas[at].checkpoint = None;
            self.replicas[at].membership = None;
            self.figures.wipes += 1;
        }
    }

    /// A checkpoint turns out to be damaged when a replica starts, behind which its log
    /// was cut; another replica has one.
    pub fn lose_checkpoint(&mut self, at: usize) {
        let base = |r: &Replica| r.node.as_ref().map_or(u64::MAX, |node| node.log().base());
        let own = base(&self.replicas[at]);
        let has = |r: &Replica| r.checkpoint.is_some_and(|from| from.index >= own);
        let others = || (0..).zip(&self.replicas).filter(|(i, _)| *i != at);
        if own > 0 && others().any(|(_, r)| has(r)) && others().all(|(_, r)| r.wants.is_none()) {
            self.crash(at, false);
            self.replicas[at].checkpoint = None;
            self.replicas[at].membership = None;
            self.figures.lost_checkpoints += 1;
            self.start(at);
        }
    }

    /// The trouble ends: a new proposal must reach every replica.
    pub fn recover(&mut self) {
        self.network.heal();
        self.network.weather = Weather::fine();
        for at in 0..self.replicas.len() {
            let replica = &mut self.replicas[at];
            replica.paused_until = 0;
            if replica.may_fail {
                self.crash(at, true);
            }
            self.start_if_down(at);
        }
        let deadline = self.now + RECOVERY;
        let mut target = None;
        loop {
            self.step();
            if self.now.is_multiple_of(50) && target.is_none() {
                for at in 0..self.replicas.len() {
                    let before = self.proposals;
                    if self.propose(at) {
                        target = Some((before, self.checker.committed_len()));
                    }
                    self.process(at);
                }
            }
            if let Some((_, from)) = target {
                let done = |r: &Replica| {
                    r.node
                        .as_ref()
                        .is_some_and(|n| n.standing() == Standing::Voter && n.backlog() == 0)
                        && r.next > self.checker.committed_len()
                };
                let members = self.members();
                let mut all = (1..)
                    .zip(&self.replicas)
                    .filter(|(id, _)| members.contains(id));
                if self.checker.committed_len() > from && all.all(|(_, r)| done(r)) {
                    break;
                }
                // A proposal may be lost with its leader: try another.
                if self.now.is_multiple_of(2000) {
                    target = None;
                }
            }
            assert!(
                self.now < deadline,
                "liveness: nothing new reached all replicas in {RECOVERY} steps: {:?}",
                self.states()
            );
        }
        let members = self.members();
        for replica in &self.replicas {
            if let Some(node) = &replica.node
                && members.contains(&node.id())
            {
                self.checker.holds_all(node);
            }
        }
    }

    fn states(&self) -> Vec<String> {
        let state = |r: &Replica| match &r.node {
            None => "down".to_owned(),
            Some(n) => format!(
                "{} {:?} term {} leader {:?} commit {}/{} applied {} {:?} {:?} {:?}",
                n.id(),
                n.role(),
                n.term(),
                n.leader(),
                n.commit(),
                n.last_index(),
                n.applied(),
                n.standing(),
                n.progress(),
                n.membership()
            ),
        };
        self.replicas.iter().map(state).collect()
    }

    pub fn figures(&self) -> Figures {
        Figures {
            committed: self.checker.committed_len(),
            elections: self.checker.elections(),
            ..self.figures.clone()
        }
    }
}
