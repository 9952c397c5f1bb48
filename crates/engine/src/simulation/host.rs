//! The simulated machine of a replica: its clocks, its chance, its end of the
//! connections, and the sockets of its clients.

use crate::agreement::message::Compare;
use crate::host::{Host, Links};
use crate::message::ToGateway;
use crate::peers::Arrival;
use crate::share::Share;
use crate::shared::Work;
use crane_consensus::wire::{self, kind};
use crane_consensus::{Membership, Message, SimDisk};
use crane_gateway::clients::{Arrived, Clients};
use crane_gateway::connection::Effects;
use crane_gateway::socket::Socket;
use mio::Token;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fd::BorrowedFd;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The wall clock when a run begins, nanoseconds.
const EPOCH: u64 = 1_700_000_000_000_000_000;
/// As [`crate::peers`]: how long a message may be held back.
const HELD_BACK: Duration = Duration::from_millis(150);

/// The clock of a run, in microseconds since its begin.
#[derive(Clone)]
pub struct Clock {
    begin: Instant,
    now: Rc<Cell<u64>>,
}

impl Clock {
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            now: Rc::new(Cell::new(0)),
        }
    }

    pub fn micros(&self) -> u64 {
        self.now.get()
    }

    pub fn set(&self, micros: u64) {
        assert!(micros >= self.now.get(), "the simulation went back in time");
        self.now.set(micros);
    }

    pub fn instant(&self) -> Instant {
        self.begin + Duration::from_micros(self.now.get())
    }

    /// The microsecond of a moment, rounded up.
    pub fn micros_of(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begin);
        since.as_nanos().div_ceil(1000) as u64
    }

    /// The right wall clock, nanoseconds.
    pub fn wall(&self) -> u64 {
        EPOCH + self.now.get() * 1000
    }
}

/// See the module.
pub struct SimHost {
    pub clock: Clock,
    /// Nanoseconds by which the wall clock is wrong.
    pub skew: Rc<Cell<i64>>,
    pub chance: SmallRng,
    /// The server listens.
    pub listening: bool,
    /// Clients are let in.
    pub is_open: bool,
}

impl SimHost {
    /// The wall clock that its alarm goes by, nanoseconds.
    pub fn clock_of(&self) -> u64 {
        self.wall_clock()
    }

    pub fn new(clock: Clock, skew: Rc<Cell<i64>>, seed: u64) -> Self {
        Self {
            clock,
            skew,
            chance: SmallRng::seed_from_u64(seed),
            listening: false,
            is_open: false,
        }
    }
}

impl Host for SimHost {
    type Disk = SimDisk;
    type Links = SimLinks;

    fn now(&self) -> Instant {
        self.clock.instant()
    }

    fn wall_clock(&self) -> u64 {
        self.clock.wall().saturating_add_signed(self.skew.get())
    }

    fn seed(&mut self) -> [u8; 32] {
        self.chance.random()
    }

    fn carry_out(&mut self, work: Work, _clients: &Clients, _leads: bool) -> Result<(), String> {
        match work {
            Work::Listen { .. } => self.listening = true,
            other => panic!("the program of the simulation does not do {other:?}"),
        }
        Ok(())
    }

    fn adopt(&mut self, _: &mut Clients, _: &Arrived<'_>) -> Option<(Token, Effects)> {
        panic!("no client of the simulation is movable")
    }

    fn open(&mut self) -> Result<(), String> {
        self.is_open = true;
        Ok(())
    }

    fn close(&mut self) {
        self.is_open = false;
    }

    fn announce(&mut self, share: &Share) {
        self.listening = !share.listeners.is_empty();
    }

    fn announced(&self, share: &mut Share) {
        if self.listening {
            let address = "0.0.0.0:7000".parse().expect("an address");
            share.listeners.push((1, address));
        }
    }

    fn chores(&mut self, _links: &mut SimLinks, _clients: &mut Clients) {}

    fn is_pressed(&self) -> bool {
        false
    }
}

/// Something on its way between replicas.
#[derive(Clone, Debug)]
pub enum Packet {
    /// The greeting: how often the sender's directory was opened, and who takes
    /// part as far as it knows.
    Hello(u32, Membership),
    /// Who takes part; the last word before the end.
    Members(Membership),
    Raft(Vec<u8>),
    Frame(u8, Vec<u8>),
    /// The connection's end.
    End,
}

/// One replica's end of the connection to another.
#[derive(Default)]
pub struct End {
    /// The connection that it uses.
    pub conn: Option<u64>,
    pub incarnation: u32,
    lost: u64,
    pub dial_at: u64,
    pub back_off: u64,
    waiting: Vec<Packet>,
    held: Option<Instant>,
    /// It takes no more batches for now.
    pub choked: bool,
}

/// A replica's ends of its connections, as [`crate::peers::Peers`] keeps them.
pub struct SimLinks {
    clock: Clock,
    own: u8,
    /// Who is dialled while nobody says who takes part.
    seeds: Vec<u8>,
    members: Membership,
    /// What somebody said who knows more than the log here.
    hint: Option<Membership>,
    pub ends: BTreeMap<u8, End>,
    arrivals: Vec<(u8, Arrival)>,
    /// What leaves, with the connection over which.
    pub leaving: Vec<(u64, Packet)>,
    patient: Vec<u8>,
}

impl SimLinks {
    pub fn new(clock: Clock, own: u8, seeds: Vec<u8>, members: &Membership) -> Self {
        let mut links = Self {
            clock,
            own,
            seeds,
            members: members.clone(),
            hint: None,
            ends: BTreeMap::new(),
            arrivals: Vec::new(),
            leaving: Vec::new(),
            patient: Vec::new(),
        };
        links.rebuild();
        links
    }

    /// What it says in a greeting.
    pub fn members(&self) -> &Membership {
        &self.members
    }

    /// Decides by what `from` says of the members whether it belongs here, and
    /// learns from it: as [`crate::peers`] does.
    fn place(&mut self, from: u8, theirs: Membership) -> bool {
        let (own, other) = (u64::from(self.own), u64::from(from));
        let newer = theirs.index() > self.members.index();
        if newer && theirs.is_removed(own) {
            self.arrivals.push((from, Arrival::Removed(theirs.index())));
            return false;
        }
        if newer || self.members.is_empty() {
            if !theirs.contains(other) || !theirs.contains(own) {
                return false;
            }
            let known = self.hint.as_ref().map_or(0, Membership::index);
            if self.hint.is_none() || theirs.index() > known {
                self.hint = Some(theirs);
                self.rebuild();
            }
            return true;
        }
        let hinted = self.hint.as_ref().is_some_and(|hint| hint.contains(other));
        !self.members.is_removed(other) && (self.members.contains(other) || hinted)
    }

    /// Brings the ends in line with who takes part.
    fn rebuild(&mut self) {
        let now = self.clock.micros();
        let known = [Some(&self.members), self.hint.as_ref()];
        let known = known.into_iter().flatten().flat_map(Membership::members);
        let mut wanted: BTreeSet<u8> = known.map(|id| id as u8).collect();
        if !self.members.contains(self.own.into()) {
            wanted.extend(&self.seeds);
        }
        wanted.remove(&self.own);
        for (_, end) in self.ends.extract_if(.., |id, _| !wanted.contains(id)) {
            if let Some(conn) = end.conn {
                let last = Packet::Members(self.members.clone());
                self.leaving.extend([(conn, last), (conn, Packet::End)]);
            }
        }
        for id in wanted {
            self.ends.entry(id).or_insert(End {
                lost: now,
                dial_at: now,
                back_off: 20_000,
                ..End::default()
            });
        }
    }

    /// A packet arrived on `conn`. False when the connection is refused.
    pub fn arrive(&mut self, from: u8, conn: u64, packet: Packet) -> bool {
        let now = self.clock.micros();
        if let Packet::Hello(_, members) = &packet
            && !self.place(from, members.clone())
        {
            return false;
        }
        // Of one that takes part no more there is nothing to be heard.
        let Some(end) = self.ends.get_mut(&from) else {
            return true;
        };
        if let Packet::Hello(incarnation, _) = packet {
            if incarnation < end.incarnation && end.conn.is_some() {
                return false;
            }
            let new_life = end.incarnation != 0 && end.incarnation != incarnation;
            end.incarnation = incarnation;
            end.waiting.clear();
            end.held = None;
            end.back_off = 20_000;
            if end.conn.replace(conn).is_some() {
                self.arrivals.push((from, Arrival::Lost));
            }
            self.arrivals.push((from, Arrival::Connected { new_life }));
            return true;
        }
        if end.conn != Some(conn) {
            return true;
        }
        let arrival = match packet {
            Packet::Raft(bytes) => {
                Arrival::Raft(wire::decode_raft(&bytes).expect("a message of this program"))
            }
            Packet::Frame(kind::GATEWAY, bytes) => {
                Arrival::Gateway(ToGateway::decode(&bytes).expect("a message of this program"))
            }
            Packet::Frame(_, bytes) => {
                Arrival::Compare(Compare::decode(&bytes).expect("a report of this program"))
            }
            Packet::Members(members) => return self.place(from, members),
            Packet::End | Packet::Hello(..) => {
                end.conn = None;
                end.lost = now;
                end.dial_at = now + end.back_off;
                end.waiting.clear();
                end.held = None;
                Arrival::Lost
            }
        };
        self.arrivals.push((from, arrival));
        true
    }

    /// Replicas to which there is a connection.
    pub fn connected(&self) -> Vec<u8> {
        let ends = self.ends.iter().filter(|(_, end)| end.conn.is_some());
        ends.map(|(id, _)| *id).collect()
    }

    /// Since when there has been no connection to `peer`, microseconds.
    pub fn lost_at(&self, peer: u8) -> Option<u64> {
        let end = self.ends.get(&peer)?;
        end.conn.is_none().then_some(end.lost)
    }
}

fn leave(end: &mut End, leaving: &mut Vec<(u64, Packet)>) {
    end.held = None;
    if let Some(conn) = end.conn {
        leaving.extend(end.waiting.drain(..).map(|packet| (conn, packet)));
    }
}

impl Links for SimLinks {
    fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.ends.keys().copied()
    }

    fn set_members(&mut self, members: &Membership) {
        self.members = members.clone();
        let newer = |hint: &Membership| hint.index() > members.index();
        self.hint = self.hint.take().filter(newer);
        self.rebuild();
    }

    fn address(&self, _peer: u8) -> Option<String> {
        None
    }

    fn lost_since(&self, peer: u8) -> Option<Instant> {
        let lost = self.lost_at(peer)?;
        Some(self.clock.instant() - Duration::from_micros(self.clock.micros() - lost))
    }

    fn take_arrivals(&mut self, into: &mut Vec<(u8, Arrival)>) {
        into.append(&mut self.arrivals);
    }

    fn send_raft(&mut self, to: u8, message: &Message) -> bool {
        let patient = self.patient.contains(&to);
        let Some(end) = self.ends.get_mut(&to).filter(|end| end.conn.is_some()) else {
            return false;
        };
        let mut frame = Vec::new();
        wire::encode_raft(message, &mut frame);
        end.waiting
            .push(Packet::Raft(frame.split_off(wire::HEADER_LEN)));
        if patient && end.held.is_none() {
            end.held = Some(self.clock.instant());
        } else {
            leave(end, &mut self.leaving);
        }
        true
    }

    fn add(&mut self, to: u8, kind: u8, payload: &[u8]) -> bool {
        let end = self.ends.get_mut(&to).filter(|end| end.conn.is_some());
        end.map(|end| end.waiting.push(Packet::Frame(kind, payload.to_vec())))
            .is_some()
    }

    fn has_room(&mut self, to: u8) -> bool {
        let end = self.ends.get(&to);
        end.is_some_and(|end| end.conn.is_some() && !end.choked)
    }

    fn flush(&mut self) {
        for end in self.ends.values_mut().filter(|end| end.held.is_none()) {
            leave(end, &mut self.leaving);
        }
    }

    fn be_patient_with(&mut self, peers: Vec<u8>) {
        self.patient = peers;
    }

    fn next_release(&self) -> Option<Instant> {
        let held = self.ends.values().filter_map(|end| end.held).min();
        held.map(|since| since + HELD_BACK)
    }

    fn release(&mut self) {
        for end in self.ends.values_mut().filter(|end| end.held.is_some()) {
            leave(end, &mut self.leaving);
        }
    }

    fn next_dial(&self) -> Option<Instant> {
        None
    }
}

/// What lies between a client and its gateway.
#[derive(Default)]
pub struct Pipe {
    pub input: VecDeque<u8>,
    /// The client ended its side.
    pub eof: bool,
    /// The client broke off.
    pub broken: bool,
    pub output: VecDeque<u8>,
    /// Bytes of output that the client takes now.
    pub room: usize,
    /// The gateway was told that there is no room.
    pub blocked: bool,
    /// The gateway ended its side.
    pub ended: bool,
    /// The gateway has dropped the socket.
    pub dropped: bool,
}

/// A client's socket at the gateway's side.
pub struct SimSocket(pub Arc<Mutex<Pipe>>);

impl SimSocket {
    fn pipe(&self) -> std::sync::MutexGuard<'_, Pipe> {
        self.0.lock().expect("one thread")
    }
}

impl Socket for SimSocket {
    fn read(&self, buffer: &mut Vec<u8>, limit: usize) -> rustix::io::Result<usize> {
        let mut pipe = self.pipe();
        if pipe.broken {
            return Err(rustix::io::Errno::CONNRESET);
        }
        if pipe.input.is_empty() && !pipe.eof {
            return Err(rustix::io::Errno::AGAIN);
        }
        let n = limit.min(pipe.input.len());
        buffer.extend(pipe.input.drain(..n));
        Ok(n)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut pipe = self.pipe();
        if pipe.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut done = 0;
        for part in parts {
            let n = part.len().min(pipe.room);
            pipe.output.extend(&part[..n]);
            pipe.room -= n;
            done += n;
        }
        if done == 0 {
            pipe.blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(done)
    }

    fn end(&self) {
        self.pipe().ended = true;
    }

    fn abort_on_drop(&self) {}

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.pipe().dropped = true;
    }
}
