//! Replicas, their disks, programs and clients, and what befalls them.

mod faults;
mod members;
mod moments;
mod recovery;

use super::Scenario;
use super::checker::Checker;
use super::clients::Client;
use super::host::{Clock, Packet, SimHost, SimLinks};
use super::network::Network;
use super::program::{Memory, Program};
use crate::clock::Alarm;
use crate::config::Config;
use crate::data_plane::DataPlane;
use crate::notice::Notices;
use crate::pace::{ELECTION_TICKS, HEARTBEAT_TICKS};
use crate::server_output::OutputThread;
use crate::share::Share;
use crate::shared::{Shared, Work, lock};
use crate::sockets::{ALARM, WAKER};
use crane_channel::segment::{Segment, Settings};
use crane_consensus::{Checkpoint, Membership, Node, SimDisk, Standing};
use crane_gateway::clients::Readiness;
use mio::{Poll, Token, Waker};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Microseconds of trouble in one seed.
const TROUBLE: u64 = 3_000_000;
/// Microseconds within which everything must work again.
const RECOVERY: u64 = 30_000_000;
/// How long without a connection a replica is taken as down, microseconds.
const DOWN_AFTER: u64 = 2_000_000;
const MILLISECOND: u64 = 1000;
/// Replicas that may be added in a run with changes.
const SPARES: u8 = 3;

/// What happened, to see that a run was not idle.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    pub turns: u64,
    pub epochs: u64,
    pub executed: u64,
    pub answered: u64,
    pub clients: u64,
    pub survived: u64,
    pub downs: u64,
    pub crashes: u64,
    pub wipes: u64,
    pub checkpoints: u64,
    pub restored: u64,
    pub changes: u64,
    pub leaders: u64,
    pub recovered_in_ms: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.turns += other.turns;
        self.epochs += other.epochs;
        self.executed += other.executed;
        self.answered += other.answered;
        self.clients += other.clients;
        self.survived += other.survived;
        self.downs += other.downs;
        self.crashes += other.crashes;
        self.wipes += other.wipes;
        self.checkpoints += other.checkpoints;
        self.restored += other.restored;
        self.changes += other.changes;
        self.leaders += other.leaders;
        self.recovered_in_ms = self.recovered_in_ms.max(other.recovered_in_ms);
    }
}

/// A running replica. Everything in it borrows from `owned`.
struct Running {
    data_plane: ManuallyDrop<DataPlane<'static, SimHost>>,
    output: ManuallyDrop<OutputThread<'static>>,
    program: ManuallyDrop<Program>,
    shared: &'static Shared,
    config: &'static Config,
    wake_at: u64,
    /// What the system reports of clients' sockets.
    ready: Vec<(Token, Readiness)>,
    /// Terms of the log's entries when it was last looked at.
    terms: Vec<u64>,
    /// A checkpoint is being taken.
    parking: bool,
    incarnation: u32,
    /// What woke the output thread last.
    woken: u32,
    /// What the alarm was told last that virtual time is, and when.
    told: (u64, u64),
}

impl Running {
    /// The program goes on, and the output thread if somebody wakes it.
    fn step_program(&mut self, now: u64, checker: &mut Checker) {
        let did = self.program.step(now, checker);
        let woken = self.shared.segment.header().output.wake.load(SeqCst);
        if did || woken != self.woken {
            self.woken = woken;
            let heard = self.output.drain();
            heard.expect("the program tells whole records");
            self.output.release_held();
            self.output.report_state();
        }
    }

    /// Microseconds from `now` until its alarm goes off.
    fn alarm_in(&self, now: u64) -> Option<u64> {
        let (told, at) = self.told;
        let virtual_now = if told == 0 {
            self.data_plane.host.clock_of()
        } else {
            told + (now - at) * 1000
        };
        self.shared.alarm.micros_until(virtual_now)
    }

    /// Who takes part, as it says in greetings.
    fn members(&self) -> &Membership {
        self.data_plane.core.peers.members()
    }

    fn links(&mut self) -> &mut SimLinks {
        &mut self.data_plane.core.peers
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: each is dropped once, here, and before what it borrows from;
        // that was made by `Box::leak`.
        unsafe {
            ManuallyDrop::drop(&mut self.program);
            ManuallyDrop::drop(&mut self.output);
            ManuallyDrop::drop(&mut self.data_plane);
            drop(Box::from_raw(std::ptr::from_ref(self.shared).cast_mut()));
            drop(Box::from_raw(std::ptr::from_ref(self.config).cast_mut()));
        }
    }
}

struct Replica {
    disk: SimDisk,
    running: Option<Running>,
    paused_until: u64,
    /// An error it may report, because its disk was made to fail.
    may_fail: bool,
    skew: Rc<Cell<i64>>,
    /// Microseconds that its program takes for a hundred clocks.
    pace: u64,
    checkpoint: Option<(Share, Memory)>,
    /// It has been started once.
    begun: bool,
    /// It was removed and knows it.
    gone: bool,
    /// It cannot go on without a checkpoint of this entry or a later one.
    wants: Option<u64>,
    life: u64,
    /// Incarnations of the gateway that this replica's processes had, with the
    /// moment of their end.
    incarnations: BTreeMap<u32, Option<u64>>,
    /// When somebody had been without a connection to it for long.
    isolated_at: Option<u64>,
}

pub struct Cluster<'s> {
    scenario: &'s Scenario,
    rng: SmallRng,
    clock: Clock,
    network: Network,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    pub checker: Checker,
    figures: Figures,
    swarm: faults::Swarm,
    next_fault: u64,
    next_client: u64,
    calm: bool,
    folder: PathBuf,
}

impl<'s> Cluster<'s> {
    pub fn new(scenario: &'s Scenario, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let swarm = faults::Swarm::draw(&mut rng);
        let replica = |rng: &mut SmallRng| {
            let disk = SimDisk::new();
            Replica {
                disk,
                running: None,
                paused_until: 0,
                may_fail: false,
                skew: Rc::new(Cell::new(rng.random_range(-1_000_000..1_000_000))),
                pace: [1, 20, 200][rng.random_range(0..3)],
                checkpoint: None,
                begun: false,
                gone: false,
                wants: None,
                life: 0,
                incarnations: BTreeMap::new(),
                isolated_at: None,
            }
        };
        let count = scenario.replicas + if scenario.changes { SPARES } else { 0 };
        let replicas = (0..count).map(|_| replica(&mut rng)).collect();
        let shm = PathBuf::from("/dev/shm");
        let mut cluster = Self {
            scenario,
            rng,
            clock: Clock::new(),
            network: Network::new(),
            replicas,
            clients: Vec::new(),
            checker: Checker::new(scenario.replicas, scenario.votes),
            figures: Figures::default(),
            swarm,
            next_fault: 0,
            next_client: 0,
            calm: false,
            folder: if shm.is_dir() {
                shm
            } else {
                std::env::temp_dir()
            },
        };
        for at in 0..scenario.replicas.into() {
            cluster.start(at);
        }
        cluster
    }

    fn now(&self) -> u64 {
        self.clock.micros()
    }

    fn ids(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.replicas.len() as u8
    }

    /// Those with which the cluster began, and `id`.
    fn first_and(&self, id: u8) -> impl Iterator<Item = u8> + use<> {
        let first = self.scenario.replicas;
        (1..=first).chain((id > first).then_some(id))
    }

    fn engine_config(&self, id: u8, segment: &str) -> Config {
        let peers: BTreeMap<String, String> = self
            .first_and(id)
            .map(|id| {
                (
                    id.to_string(),
                    format!("127.0.0.1:{}", 7000 + u32::from(id)),
                )
            })
            .collect();
        let config = json!({
            "cluster_id": "07070707070707070707070707070707", "name": "simulated", "id": id,
            "peers": peers, "listen_host": "127.0.0.1", "log_dir": "/nowhere/log",
            "segment": segment, "vote": self.scenario.votes,
            "join": id > self.scenario.replicas,
        });
        Config::from_json(&config.to_string()).expect("right settings")
    }

    fn open_node(&mut self, at: usize) -> Result<Node<SimDisk>, crane_consensus::Error> {
        let peers = self.first_and(at as u8 + 1).map(u64::from).collect();
        let mut config = crane_consensus::Config::new(at as u64 + 1, peers, [7; 16]);
        config.heartbeat_ticks = HEARTBEAT_TICKS as usize;
        config.election_ticks = ELECTION_TICKS as usize;
        config.seed = Some(self.rng.random());
        config.new_cluster = self.scenario.forgetful_voters;
        // Small limits, so that every limit is met.
        config.segment_bytes = [4096, 1 << 16][self.rng.random_range(0..2)];
        config.cache_bytes = [0, 500, 100_000][self.rng.random_range(0..3)];
        config.max_size_per_msg = [0, 200, 10_000][self.rng.random_range(0..3)];
        config.max_inflight = [1, 4, 256][self.rng.random_range(0..3)];
        let replica = &self.replicas[at];
        config.join = at >= self.scenario.replicas.into();
        let share = replica.checkpoint.as_ref().map(|(share, _)| share);
        config.membership = share.map(|share| share.members.clone());
        config.checkpoint = replica.checkpoint.as_ref().map(|(share, _)| Checkpoint {
            index: share.index,
            term: share.term,
        });
        Node::open(config, replica.disk.reopen()).map(|(node, _)| node)
    }

    fn start(&mut self, at: usize) {
        let id = at as u8 + 1;
        self.replicas[at].begun = true;
        let node = match self.open_node(at) {
            Ok(node) => node,
            // The cut of power met it while it opened its files.
            Err(_) if self.replicas[at].may_fail => return self.crash(at, true),
            Err(_) if self.scenario.is_planted() => return,
            Err(e) => panic!("stopped: replica {id} could not start: {e}"),
        };
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let path = self
            .folder
            .join(format!("crane-sim-{}-{number}", std::process::id()));
        let config = Box::leak(Box::new(
            self.engine_config(id, &path.display().to_string()),
        ));
        let settings = Settings {
            replica: id,
            quantum: 100,
            trace: false,
            objects: false,
            preempt: true,
            vote: self.scenario.votes,
        };
        let segment = Segment::create(&path, settings).expect("room for a segment");
        std::fs::remove_file(&path).expect("it was made just now");
        let poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), WAKER).expect("a descriptor");
        let alarm = Alarm::new(poll.registry(), ALARM).expect("a descriptor");
        let notices = Notices::new().expect("a descriptor");
        let shared: &'static Shared =
            Box::leak(Box::new(Shared::new(segment, waker, alarm, notices)));
        let others = self.first_and(id).filter(|&other| other != id);
        let others = others.collect();
        let incarnation = node.incarnation();
        let host = SimHost::new(
            self.clock.clone(),
            self.replicas[at].skew.clone(),
            self.rng.random(),
        );
        let links = SimLinks::new(self.clock.clone(), id, others, node.membership());
        let from = self.replicas[at].checkpoint.clone();
        let share = from.as_ref().map(|(share, _)| self.scenario.spoil(share));
        let memory = from.map(|(_, memory)| memory);
        if memory.is_some() {
            self.figures.restored += 1;
        }
        let mut program = Program::new(&shared.segment, id, memory);
        let replica = &mut self.replicas[at];
        program.pace = replica.pace;
        program.wrong = self.scenario.wrong_program && id == 2;
        let data_plane = DataPlane::new(shared, config, host, node, links, share.as_ref());
        replica.life += 1;
        replica.wants = None;
        replica.running = Some(Running {
            data_plane: ManuallyDrop::new(data_plane),
            output: ManuallyDrop::new(OutputThread::new(shared)),
            program: ManuallyDrop::new(program),
            shared,
            config,
            wake_at: 0,
            ready: Vec::new(),
            terms: Vec::new(),
            parking: false,
            incarnation,
            woken: u32::MAX,
            told: (0, 0),
        });
    }

    /// What the node has to do until it sleeps.
    fn turn(&mut self, at: usize) {
        let now = self.now();
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(
                rounds < 1000,
                "liveness: replica {} does not come to rest",
                at + 1
            );
            self.figures.turns += 1;
            let replica = &mut self.replicas[at];
            let Some(running) = &mut replica.running else {
                return;
            };
            if running.alarm_in(now) == Some(0) {
                running.shared.alarm.set(None);
            }
            let data_plane = &mut *running.data_plane;
            data_plane.count_sleep();
            for (token, readiness) in running.ready.drain(..) {
                data_plane.clients.ready(token, readiness);
            }
            data_plane.clients.read_on();
            let result = data_plane.turn();
            let told = running.shared.alarm.told();
            if told != running.told.0 {
                running.told = (told, now);
            }
            let mut again = data_plane.clients.has_more();
            running.wake_at = self.clock.micros_of(data_plane.sleep_until());
            if self.scenario.hasty_programs {
                publish_early(data_plane);
            }
            let failed = result.err().or_else(|| lock(&running.shared.fatal).clone());
            self.send_what_leaves(at);
            if let Some(why) = failed {
                if why.contains("was removed from the cluster") {
                    self.replicas[at].gone = true;
                    return self.crash(at, false);
                }
                let planted = self.scenario.is_planted();
                assert!(
                    self.replicas[at].may_fail || planted,
                    "stopped: replica {} stopped: {why}",
                    at + 1
                );
                return self.crash(at, true);
            }
            self.note(at);
            let replica = &mut self.replicas[at];
            let Some(running) = &mut replica.running else {
                return;
            };
            running.step_program(now, &mut self.checker);
            again |= running.shared.inbox.is_woken();
            self.take_notices(at);
            if !again {
                return;
            }
        }
    }

    fn send_what_leaves(&mut self, at: usize) {
        let now = self.now();
        let id = at as u8 + 1;
        if let Some(running) = &mut self.replicas[at].running {
            for (conn, packet) in std::mem::take(&mut running.links().leaving) {
                self.network.send(&mut self.rng, now, id, conn, packet);
            }
        }
    }

    /// Looks at the log, the gateway and the results for the checker.
    fn note(&mut self, at: usize) {
        let id = at as u8 + 1;
        let replica = &mut self.replicas[at];
        let Some(running) = &mut replica.running else {
            return;
        };
        let log = running.data_plane.node.log();
        let last = log.last_index() as usize;
        running.terms.resize(last + 1, 0);
        for index in (log.base() as usize..=last).rev() {
            let term = log.term_at(index as u64).unwrap_or(0);
            if running.terms[index] == term {
                break;
            }
            running.terms[index] = term;
            self.checker.holds(id, index as u64, term);
        }
        self.checker.decide(&log.membership().voters.incoming);
        let own = running.data_plane.clients.stream_ref().incarnation();
        if running.data_plane.host.is_open && !replica.incarnations.contains_key(&own) {
            for end in replica.incarnations.values_mut() {
                end.get_or_insert(self.clock.micros());
            }
            replica.incarnations.insert(own, None);
        }
        if let Some(done) = lock(&running.shared.history).newest() {
            self.checker.done(id, done);
        }
        let differs = lock(&running.shared.agreement).disagreement.is_some();
        assert!(
            !differs || self.scenario.is_planted(),
            "safety: replica {id} found a difference"
        );
        self.figures.leaders = self.figures.leaders.max(running.data_plane.node.term());
        for (index, gateway, incarnation) in std::mem::take(&mut self.checker.new_downs) {
            self.judge_down(index, gateway, incarnation);
        }
    }

    /// Whether there was a reason to declare a gateway down.
    fn judge_down(&mut self, index: u64, gateway: u8, incarnation: u32) {
        self.figures.downs += 1;
        let removed = !self.members().contains(&gateway);
        let replica = &self.replicas[usize::from(gateway) - 1];
        let ended = replica
            .incarnations
            .get(&incarnation)
            .is_none_or(Option::is_some);
        assert!(
            ended || removed || replica.isolated_at.is_some() || self.scenario.is_planted(),
            "safety: epoch {index} ends incarnation {incarnation} of gateway {gateway}, which lives"
        );
    }

    fn take_notices(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let Some(running) = &mut replica.running else {
            return;
        };
        while let Some(text) = running.shared.notices.next() {
            let notice: Value = serde_json::from_str(&text).expect("an object");
            match notice["kind"].as_str() {
                Some("parked") => {
                    let share = Share::decode(&notice["share"].to_string()).expect("its own");
                    let memory = running.program.memory.clone();
                    assert_eq!(share.epoch, memory.epoch);
                    let index = share.index;
                    replica.checkpoint = Some((share, memory));
                    self.figures.checkpoints += 1;
                    running.parking = false;
                    running.shared.parked.store(false, SeqCst);
                    running.shared.inbox.add(Work::Unpark);
                    running.shared.inbox.add(Work::Checkpointed(index));
                    if self.rng.random_bool(0.7) {
                        running.shared.inbox.add(Work::Cut(index));
                    }
                }
                Some("unparked") => running.parking = false,
                Some("members") => self.figures.changes += 1,
                Some("needs_checkpoint") => replica.wants = notice["index"].as_u64(),
                _ => {}
            }
        }
    }
}

/// Planted: the program is given what is in the log and not committed.
fn publish_early(data_plane: &mut DataPlane<'static, SimHost>) {
    let from = data_plane
        .core
        .publisher
        .last()
        .max(data_plane.node.applied())
        + 1;
    let end = data_plane.node.last_index() + 1;
    if from < end && data_plane.node.is_leader() {
        let entries = data_plane.node.log().read(from, end, 1 << 20);
        for entry in entries.unwrap_or_default() {
            if !entry.data.is_empty() {
                data_plane.core.publisher.publish(entry.index, &entry.data);
            }
        }
        data_plane.core.publisher.announce();
    }
}
