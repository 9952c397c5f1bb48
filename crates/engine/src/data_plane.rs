//! The data-plane thread: one loop for clients, replicas, ticks and the log.
//!
//! Here is what it decides; the loop itself and its sockets are in
//! [`crate::sockets`], and [`crate::host`] is what lies between. A turn of the loop takes everything that is there, puts all inputs into as
//! few entries as possible, writes and syncs once, and publishes what is
//! committed. Network input comes before ticks, so that a replica that was
//! stopped for a moment sees its leader's messages before it stands for
//! election.

mod agree;
mod catch_up;
mod judged;
mod members;
mod moving;
mod park;
mod restart;
mod time;

use crate::agreement::Comparing;
use crate::agreement::jury::Jury;
use crate::budget::Budget;
use crate::commit::Core;
use crate::config::Config;
use crate::engine::removed;
use crate::gateways::Gateways;
use crate::host::{Host, Links};
use crate::lead::{Leading, Proposal};
use crate::message::ToGateway;
use crate::pace::{Calm, Pace, TICK};
use crate::peers::Arrival;
use crate::publish::Publisher;
use crate::returns::Returns;
use crate::share::Share;
use crate::shared::{Shared, Work, lock};
use crate::timekeeper::Timekeeper;
use crate::watch::{Finding, Watch};
use catch_up::CatchUp;
use crane_consensus::wire::kind;
use crane_consensus::{Node, Role, Standing};
use crane_gateway::clients::Clients;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Shortest time between two rounds of what is looked after now and then.
const CHORES_EVERY: Duration = Duration::from_millis(10);
/// Time between two attempts to hand the leadership over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);
/// Consensus takes no proposals for an election time-out while it hands over.
const HAND_OVER_TAKES: Duration = Duration::from_millis(600);

/// The state of the thread.
pub struct DataPlane<'a, H: Host> {
    pub(crate) shared: &'a Shared,
    config: &'a Config,
    pub(crate) host: H,
    pub(crate) node: Node<H::Disk>,
    pub(crate) core: Core<'a, H::Links>,
    pub(crate) clients: Clients,
    leading: Leading,
    gateways: Gateways,
    comparing: Comparing,
    catch_up: CatchUp,
    moving: moving::Moving,
    pace: Pace,
    watch: Watch,
    budget: Budget,
    returns: Returns,
    /// Which life of the program this is: one for each engine. What is applied of the
    /// log may say already that the next one begins.
    life: u32,
    /// The program, which has ended, may begin anew.
    restart_due: bool,
    /// The owner was told that the log says so.
    over_told: bool,
    /// On a leader: since when its own program lives and a majority's have crashed.
    odd_since: Option<Instant>,
    /// Since when the program is to stand still.
    parking: Option<Instant>,
    chores_at: Instant,
    /// An entry that consensus was too busy to take.
    held: Option<Proposal>,
    /// When the log last took events of this gateway, or they were first sent.
    acknowledged_at: Instant,
    /// Since when this replica leads without being able to propose.
    unready_since: Option<Instant>,
    handed_over_at: Option<Instant>,
    /// No proposals before this moment: the leadership is being handed over.
    paused_until: Option<Instant>,
    /// A proposal was refused: what is in the log up to here must be applied
    /// before the leader knows again what the log will say.
    begin_after: u64,
    /// On a leader: other replicas with clients.
    clients_at: BTreeSet<u8>,
    /// What the leader was told last of this replica's clients.
    told_clients: Option<bool>,
    /// Who was told this replica's clock last, and when.
    told_clock: Option<(u8, Instant)>,
    timekeeper: Timekeeper,
    /// This machine's clock is not believed, and that was said.
    clock_is_wrong: bool,
    epochs_proposed: u64,
    bubbles_proposed: u64,
    work: Vec<Work>,
    arrivals: Vec<(u8, Arrival)>,
}

impl<'a, H: Host> DataPlane<'a, H> {
    /// Takes a node over.
    pub fn new(
        shared: &'a Shared,
        config: &'a Config,
        host: H,
        node: Node<H::Disk>,
        peers: H::Links,
        share: Option<&Share>,
    ) -> Self {
        let now = host.now();
        // SAFETY: this thread is made once per segment, and takes the
        // producer's end only here.
        let publisher = unsafe { Publisher::new(&shared.segment, &shared.interest.space) };
        let jury = Jury::new(config.id, node.membership());
        let mut data_plane = Self {
            shared,
            config,
            host,
            node,
            core: Core::new(
                peers,
                publisher,
                shared.table.clone(),
                config.virtual_host.is_some(),
            ),
            moving: moving::Moving::default(),
            clients: Clients::new(config.id, 0, shared.table.clone()),
            leading: Leading::default(),
            gateways: Gateways::new(config.id),
            comparing: Comparing::new(now, config.vote, jury),
            catch_up: CatchUp::default(),
            pace: Pace::new(now),
            watch: Watch::new(now),
            budget: Budget::new(config.budget),
            returns: Returns::default(),
            life: 0,
            restart_due: false,
            over_told: false,
            odd_since: None,
            parking: None,
            chores_at: now,
            held: None,
            acknowledged_at: now,
            unready_since: None,
            handed_over_at: None,
            paused_until: None,
            begin_after: 0,
            clients_at: BTreeSet::new(),
            told_clients: None,
            told_clock: None,
            timekeeper: Timekeeper::default(),
            clock_is_wrong: false,
            epochs_proposed: 0,
            bubbles_proposed: 0,
            work: Vec::new(),
            arrivals: Vec::new(),
        };
        if let Some(share) = share {
            data_plane.go_on_from(share);
        }
        data_plane.life = data_plane.core.filter.life();
        data_plane
    }

    /// Counts the time that was slept on purpose; before anything that arrived
    /// is looked at.
    pub(crate) fn count_sleep(&mut self) {
        for _ in 0..self.pace.slept(self.host.now()) {
            self.node.tick();
        }
    }

    /// A turn, after what arrived was taken in.
    ///
    /// # Errors
    /// Why the replica cannot go on.
    pub(crate) fn turn(&mut self) -> Result<(), String> {
        let buffered = &self.shared.segment.header().buffered;
        self.clients.limit_input(buffered.load(Ordering::Relaxed));
        self.do_work()?;
        self.take_arrivals()?;
        // Before the answers that make a leader propose.
        self.tell_clock();
        self.tick()?;
        self.vote();
        self.watch_program();
        self.take_returns();
        self.agree()?;
        self.park();
        self.check_caught_up()?;
        self.take_over();
        self.tell_clients();
        self.core.peers.flush();
        self.publish_figures();
        Ok(())
    }

    /// What the output thread left to this one.
    fn do_work(&mut self) -> Result<(), String> {
        let mut work = std::mem::take(&mut self.work);
        self.shared.inbox.take(&mut work);
        for item in work.drain(..) {
            match item {
                Work::Effects(token, effects) => self.clients.carry_out(token, effects),
                Work::Resume(token) => self.clients.resume(token),
                Work::Signal(number) => {
                    let signal = crane_channel::epoch::Event::Signal { number };
                    self.clients.stream().push(&signal);
                }
                Work::Mail(peer, bytes) => {
                    // What finds no room is lost, as with a connection that breaks.
                    self.core.peers.add(peer, kind::MAIL, &bytes);
                }
                Work::AddressHeld => self.clients.probe_movable(),
                Work::Park => self.begin_parking(),
                Work::Unpark => self.end_parking(),
                Work::Restart => self.restart_due = true,
                Work::Checkpointed(index) => self.node.checkpointed(index),
                Work::Cut(index) => self.node.cut(index).map_err(|e| e.to_string())?,
                Work::Ask(number, question) => self.ask(number, question),
                Work::ServerGone => {
                    self.host.close();
                    // Killed, and not ended as its copies: these serve on.
                    let elsewhere = !self.shared.exited.load(Ordering::SeqCst);
                    self.clients.close_all(elsewhere);
                    self.server_gone();
                }
                Work::Listen { .. }
                | Work::ListenUnix { .. }
                | Work::Unlisten(_)
                | Work::DatagramOpen { .. }
                | Work::DatagramGroup { .. }
                | Work::DatagramSend { .. }
                | Work::DatagramClose(_) => {
                    let leads = self.node.is_leader();
                    self.host.carry_out(item, &self.clients, leads)?;
                }
            }
        }
        self.work = work;
        Ok(())
    }

    fn take_arrivals(&mut self) -> Result<(), String> {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.core.peers.take_arrivals(&mut arrivals);
        for (peer, arrival) in arrivals.drain(..) {
            match arrival {
                Arrival::Raft(message) => {
                    // The sender is who the connection says, not the message.
                    if message.from == u64::from(peer) {
                        if self.node.leader() == Some(message.from) {
                            self.pace.heard_leader();
                        }
                        self.node.step(message).map_err(|e| e.to_string())?;
                    }
                }
                Arrival::Gateway(message) => self.hear_gateway(peer, message),
                Arrival::Compare(message) => {
                    let peers = &mut self.core.peers;
                    let now = self.host.now();
                    self.comparing.hear(peer, message, self.shared, peers, now);
                }
                Arrival::Mail(bytes) => {
                    if self.shared.mail.put(peer, bytes) {
                        self.shared.notices.add("mail", json!({ "from": peer }));
                    }
                }
                Arrival::Connected { new_life } => self.peer_connected(peer, new_life),
                Arrival::Removed(index) => return Err(removed(self.config.id, index)),
                Arrival::Lost => {
                    self.leading.forget(peer);
                    self.gateways.connection_changed(peer);
                    self.clients_at.remove(&peer);
                    self.core.peers.release();
                    self.node.peer_unreachable(peer.into());
                }
            }
        }
        self.arrivals = arrivals;
        Ok(())
    }

    fn peer_connected(&mut self, peer: u8, new_life: bool) {
        let peers = &mut self.core.peers;
        self.comparing.connected(peer, new_life, self.shared, peers);
        self.gateways.connection_changed(peer);
        if self.leading.is_ready() {
            self.send_target(peer);
        }
        if self.node.leader() == Some(peer.into()) {
            self.greet_leader(peer);
        }
    }

    /// Tells a replica how far the log goes, so that it knows when it has
    /// caught up.
    fn send_target(&mut self, peer: u8) {
        let target = ToGateway::Target(self.node.last_index());
        let sent = self.core.peers.add(peer, kind::GATEWAY, &target.encode());
        if sent && let Some(view) = self.leading.view() {
            self.gateways.aimed(peer, view.gateway(peer).incarnation);
        }
    }

    /// A leader says how far the log goes. Until this replica has come so far its
    /// gateway has no incarnation, which ends those of the process before it.
    fn hear_target(&mut self, leader: u8, index: u64) {
        self.catch_up.aim(index);
        if !self.catch_up.is_done() {
            let none = ToGateway::Started(0).encode();
            self.core.peers.add(leader, kind::GATEWAY, &none);
        }
    }

    /// Tells a leader, or a new connection to it, where this gateway is, and
    /// offers everything again that is not in the log.
    fn greet_leader(&mut self, leader: u8) {
        if self.catch_up.is_done() {
            let incarnation = self.clients.stream_ref().incarnation();
            let started = ToGateway::Started(incarnation).encode();
            self.core.peers.add(leader, kind::GATEWAY, &started);
        }
        self.told_clients = None;
        self.clients.stream().rewind();
    }

    fn hear_gateway(&mut self, peer: u8, message: ToGateway) {
        match message {
            ToGateway::Batch(bytes) => {
                if self.node.is_leader()
                    && let Err(what) = self.leading.offer(peer, bytes)
                {
                    self.shared.notices.warn(format!(
                        "replica {peer} sent {what}; run the same version of crane on all replicas"
                    ));
                }
            }
            ToGateway::Started(0) => self.gateways.has_none_yet(peer),
            ToGateway::Started(incarnation) => self.gateways.started(peer, incarnation),
            ToGateway::Target(index) => self.hear_target(peer, index),
            ToGateway::Ask(number, question) => self.hear_question(peer, number, &question),
            ToGateway::Answer(number, answer) => self.tell_answer(number, &answer),
            ToGateway::Clients(true) => _ = self.clients_at.insert(peer),
            ToGateway::Clients(false) => _ = self.clients_at.remove(&peer),
            ToGateway::Clock(wall) => self.hear_clock(peer, wall),
        }
    }

    /// Until when nothing has to be done unless something arrives.
    pub(crate) fn sleep_until(&mut self) -> Instant {
        let settled = self.node.standing() == Standing::Voter
            && !self.clients.stream_ref().has_unsent()
            && !self.clients.stream_ref().has_sent()
            && self.held.is_none()
            && self.paused_until.is_none()
            && !self.host.is_pressed();
        let calm = match self.node.role() {
            Role::Leader if settled && self.leading.is_idle() => Calm::Leading,
            Role::Follower if settled && self.node.leader().is_some() => Calm::Following,
            _ => Calm::No,
        };
        let now = self.host.now();
        let chores = [
            self.core.peers.next_dial(),
            self.comparing.next(self.shared, now),
            self.core.peers.next_release(),
        ];
        let sleep = self.pace.sleep(calm);
        let chores = chores.into_iter().flatten().min();
        let sleep = chores.map_or(sleep, |at| at.max(self.chores_at).min(sleep));
        let look = self.watch.next(self.shared.segment.header(), now);
        let others = look.into_iter().chain(self.returns.next());
        let others = others.chain(self.next_look_at_parking());
        let others = others.chain(self.next_look_at_movable());
        others.fold(sleep, |sleep, at| sleep.min(at))
    }

    /// Puts calls that have returned into the log.
    fn take_returns(&mut self) {
        if !self.catch_up.is_done() {
            return;
        }
        let leads = self.node.is_leader();
        let segment = &self.shared.segment;
        for event in self.returns.look(segment, self.host.now(), leads) {
            self.clients.stream().push(&event);
        }
    }

    /// Looks whether the program makes progress.
    fn watch_program(&mut self) {
        let header = self.shared.segment.header();
        let now = self.host.now();
        let found = self.watch.look(header, &self.shared.program, now);
        match found {
            Some(Finding::Stuck(holder)) => {
                *lock(&self.shared.stuck_since) = self.watch.stuck_since();
                self.shared.notices.add("stuck", holder);
            }
            Some(Finding::Moving) => {
                *lock(&self.shared.stuck_since) = None;
                let clock = header.ticks.load(Ordering::Relaxed);
                self.shared.notices.add("moving", json!({ "clock": clock }));
            }
            None => {}
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        let now = self.host.now();
        for _ in 0..self.pace.due(now) {
            self.node.tick();
        }
        let waited =
            |at: Instant| now >= at || (self.leading.in_flight() > 0 && now + TICK * 5 >= at);
        if self.core.peers.next_release().is_some_and(waited) {
            self.core.peers.release();
        }
        if now < self.chores_at {
            return Ok(());
        }
        self.chores_at = now + CHORES_EVERY;
        self.host.chores(&mut self.core.peers, &mut self.clients);
        self.gateways
            .check(&mut self.leading, &self.core.peers, now);
        let peers = &mut self.core.peers;
        let consequence = self.comparing.tick(self.shared, peers, now);
        self.draw(consequence)?;
        self.offer_again(now);
        self.watch_leading(now);
        self.watch_crashes(now);
        Ok(())
    }

    /// A leader whose own server cannot take part does not propose what the
    /// others need: it hands over.
    fn watch_leading(&mut self, now: Instant) {
        let stuck = self.node.is_leader() && !self.leading.is_ready();
        if !stuck {
            self.unready_since = None;
        }
        let since = *self.unready_since.get_or_insert(now);
        let replaying =
            stuck && now > since + Duration::from_secs(1) && self.core.publisher.is_full();
        let gone = (self.shared.server_gone.load(Ordering::SeqCst) && !self.begins_anew())
            || self.shared.distrusted.load(Ordering::SeqCst);
        if replaying || (gone && self.node.is_leader()) {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let now = self.host.now();
        let recently = |at: Instant| now < at + HAND_OVER_EVERY;
        if !self.node.is_leader() || self.handed_over_at.is_some_and(recently) {
            return;
        }
        let progress = self.node.progress();
        let active = progress.iter().filter(|p| p.recent_active && !p.learner);
        if let Some(best) = active.max_by_key(|p| p.matched) {
            self.hand_over_to(best.id);
        }
    }

    fn hand_over_to(&mut self, id: u64) {
        let now = self.host.now();
        self.handed_over_at = Some(now);
        self.paused_until = Some(now + HAND_OVER_TAKES);
        self.node.transfer_leader(id);
    }

    fn publish_figures(&self) {
        let mut figures = lock(&self.shared.figures);
        figures.role = role_name(self.node.role());
        figures.term = self.node.term();
        figures.leader = self.node.leader().unwrap_or(0);
        figures.commit = self.node.commit();
        figures.applied = self.node.applied();
        figures.published = self.core.publisher.last();
        figures.last_index = self.node.last_index();
        figures.connections = self.clients.len();
        figures.epochs_proposed = self.epochs_proposed;
        figures.bubbles_proposed = self.bubbles_proposed;
        figures.caught_up = self.catch_up.is_done();
        figures.incarnation = self.clients.stream_ref().incarnation();
        let log = self.node.log();
        (figures.log_base, figures.log_bytes) = (log.base(), log.bytes());
        figures.log_behind = log.bytes_behind();
        figures.checkpoint = log.checkpoint().map_or(0, |from| from.index);
        if !figures.peers.iter().copied().eq(self.core.peers.ids()) {
            figures.peers = self.core.peers.ids().collect();
        }
        let members = log.membership();
        if figures.members_index != members.index() || figures.voters.is_empty() {
            figures.members_index = members.index();
            figures.voters = members.voters.incoming.iter().copied().collect();
            figures.learners = members.learners.iter().copied().collect();
        }
    }

    /// An orderly end: another replica leads at once, the log is closed.
    pub(crate) fn finish(mut self) {
        if !self.shared.abrupt.load(Ordering::SeqCst) {
            self.handed_over_at = None;
            self.hand_over();
            while self.node.has_urgent() && self.node.process(&mut self.core).is_ok() {}
            self.core.peers.flush();
            if let Err(e) = self.node.close() {
                self.shared.fail(e.to_string());
            }
        }
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::PreCandidate | Role::Candidate => "candidate",
    }
}
