//! A simulated program: it plays the interposer's part on the real segment.
//!
//! It executes requests of 16 bytes in the order in which they are whole, each
//! for some logical clocks, within the budget of its epochs; answers with the
//! request and its place in the order of all; and does something by itself when
//! a deadline is due. All of it is a function of the epochs alone.

use super::checker::Checker;
use crane_channel::epoch::{ConnId, Entry, Event};
use crane_channel::layout::{NO_DEADLINE, State};
use crane_channel::output::{EpochDone, LOG_EPOCH, Output};
use crane_channel::ring::{Consumer, Producer};
use crane_channel::segment::Segment;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::SeqCst;

/// Bytes of a request, and of an answer.
pub const MESSAGE: usize = 16;

#[derive(Clone, Default)]
struct Client {
    input: Vec<u8>,
    received: u64,
    eof: bool,
}

/// What a program knows, which a checkpoint keeps.
#[derive(Clone)]
pub struct Memory {
    clients: BTreeMap<ConnId, Client>,
    /// Whole requests, in order.
    work: VecDeque<(ConnId, [u8; MESSAGE])>,
    /// Clocks that the first of them still takes.
    left: u32,
    /// Requests executed.
    pub executed: u64,
    time: u64,
    deadline: u64,
    hash: u64,
    clock: u64,
    drawn: u64,
    pub epoch: u64,
    listens: bool,
}

impl Memory {
    fn new() -> Self {
        Self {
            clients: BTreeMap::new(),
            work: VecDeque::new(),
            left: 0,
            executed: 0,
            time: 0,
            deadline: NO_DEADLINE,
            hash: 1,
            clock: 0,
            drawn: 0,
            epoch: 0,
            listens: false,
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }
}

/// A running program.
pub struct Program {
    segment: &'static Segment,
    log: Consumer<'static>,
    output: Producer<'static>,
    replica: u8,
    pub memory: Memory,
    /// The epoch under way and when it ends, microseconds.
    busy: Option<(u64, u64)>,
    /// Microseconds for a hundred clocks.
    pub pace: u64,
    /// Planted: it does something else than the others.
    pub wrong: bool,
    /// Said in this epoch, published at its end.
    said: Vec<(ConnId, [u8; MESSAGE])>,
    closed: Vec<ConnId>,
}

impl Program {
    /// The program of `replica`, from its beginning or from a checkpoint.
    pub fn new(segment: &'static Segment, replica: u8, from: Option<Memory>) -> Self {
        // SAFETY: one program at a time for a segment, made with it.
        let (log, output) = unsafe { (segment.log_consumer(), segment.output_producer()) };
        let mut program = Self {
            segment,
            log,
            output,
            replica,
            memory: from.clone().unwrap_or_else(Memory::new),
            busy: None,
            pace: 20,
            wrong: false,
            said: Vec::new(),
            closed: Vec::new(),
        };
        if from.is_some() {
            program.publish();
        } else {
            program.tell(Output::Hello { pid: 2 });
        }
        program.segment.header().log.waiting.store(1, SeqCst);
        program
    }

    fn tell(&mut self, output: Output<'_>) {
        let told = output.encode(|kind, parts| self.output.push(kind, parts));
        assert!(told.is_ok(), "the output ring is large enough");
    }

    /// Until when it is at work.
    pub fn busy_until(&self) -> Option<u64> {
        self.busy.map(|(_, until)| until)
    }

    /// Goes on at `now`. Returns whether anything happened.
    pub fn step(&mut self, now: u64, checker: &mut Checker) -> bool {
        let mut any = false;
        loop {
            if let Some((index, until)) = self.busy {
                if now < until {
                    return any;
                }
                self.busy = None;
                self.end(index, checker);
                any = true;
            }
            let next = self.log.pop().expect("the node writes whole records");
            let Some((kind, record)) = next else {
                self.segment.header().log.waiting.store(1, SeqCst);
                return any;
            };
            assert_eq!(kind, LOG_EPOCH);
            any = true;
            let (index, entry) = record.split_at(8);
            let index = u64::from_le_bytes(index.try_into().expect("eight bytes"));
            if index > self.memory.epoch {
                let clocks = self.begin(index, entry, checker);
                self.busy = Some((index, now + clocks * self.pace / 100));
            }
            self.log.release();
        }
    }

    /// Takes an epoch and does what its budget allows; returns the clocks used.
    fn begin(&mut self, index: u64, bytes: &[u8], checker: &mut Checker) -> u64 {
        let header = self.segment.header();
        header.log.waiting.store(0, SeqCst);
        header.state.store(State::Running as u32, SeqCst);
        let entry = Entry::decode(bytes).expect("the filter lets whole entries through");
        checker.epoch(self.replica, index, bytes);
        checker.time(self.replica, index, self.memory.time, entry.head.time);
        assert!(
            self.memory.epoch > 0 || entry.head.seed.is_some(),
            "safety: the first epoch of replica {} has no seed",
            self.replica
        );
        let memory = &mut self.memory;
        memory.epoch = index;
        memory.time = entry.head.time;
        if let Some(seed) = entry.head.seed {
            memory.mix(u64::from_le_bytes(seed[..8].try_into().expect("eight")));
        }
        if !memory.listens {
            memory.listens = true;
            let mut address = [0u8; 16];
            address[0] = 2;
            address[2..4].copy_from_slice(&7000u16.to_be_bytes());
            self.tell(Output::Listen {
                listener: 1,
                address: &address,
                backlog: 128,
            });
        }
        let memory = &mut self.memory;
        if memory.time >= memory.deadline {
            memory.deadline = NO_DEADLINE;
            memory.mix(memory.time);
        }
        for batch in entry.batches() {
            for event in batch.expect("whole").events() {
                self.event(index, event.expect("whole"), checker);
            }
        }
        self.execute(entry.head.budget, checker)
    }

    fn event(&mut self, index: u64, event: Event<'_>, checker: &mut Checker) {
        let memory = &mut self.memory;
        match event {
            Event::Connect { conn, .. } => {
                let known = memory.clients.insert(conn, Client::default());
                assert!(
                    known.is_none(),
                    "safety: {conn:?} connected twice on replica {}",
                    self.replica
                );
            }
            Event::Data { conn, bytes } => {
                let Some(client) = memory.clients.get_mut(&conn) else {
                    return;
                };
                client.received += bytes.len() as u64;
                client.input.extend_from_slice(bytes);
                while client.input.len() >= MESSAGE {
                    let rest = client.input.split_off(MESSAGE);
                    let whole = std::mem::replace(&mut client.input, rest);
                    let whole = whole.try_into().expect("so many were split off");
                    memory.work.push_back((conn, whole));
                }
            }
            Event::Eof { conn } => {
                if let Some(client) = memory.clients.get_mut(&conn) {
                    client.eof = true;
                }
                self.close_if_over(conn);
            }
            Event::Reset { conn } => {
                if memory.clients.remove(&conn).is_some() {
                    memory.work.retain(|(c, _)| *c != conn);
                    memory.left = 0;
                    self.closed.push(conn);
                }
            }
            Event::GatewayDown {
                gateway,
                incarnation,
            } => {
                checker.down(index, gateway, incarnation);
                let lost = |c: &ConnId| c.gateway() == gateway && c.incarnation() == incarnation;
                memory.clients.retain(|c, _| !lost(c));
                memory.work.retain(|(c, _)| !lost(c));
                memory.left = 0;
            }
            other => memory.mix(format!("{other:?}").len() as u64),
        }
    }

    fn close_if_over(&mut self, conn: ConnId) {
        let memory = &mut self.memory;
        let over = memory.clients.get(&conn).is_some_and(|c| c.eof);
        if over && !memory.work.iter().any(|(c, _)| *c == conn) {
            memory.clients.remove(&conn);
            self.closed.push(conn);
        }
    }

    fn execute(&mut self, budget: u32, checker: &mut Checker) -> u64 {
        let mut room = budget;
        while let Some(&(conn, request)) = self.memory.work.front() {
            let memory = &mut self.memory;
            if memory.left == 0 {
                memory.left = 1 + u32::from(request[8]) * u32::from(request[9] % 8);
            }
            let step = memory.left.min(room);
            memory.left -= step;
            room -= step;
            if memory.left > 0 {
                break;
            }
            memory.work.pop_front();
            memory.executed += 1;
            let place = memory.executed;
            let mut answer = request;
            answer[8..].copy_from_slice(&place.to_le_bytes());
            memory.mix(u64::from_le_bytes(request[..8].try_into().expect("eight")));
            memory.mix(place ^ conn.0);
            if request[10] == 0 {
                memory.deadline = memory
                    .deadline
                    .min(memory.time + u64::from(request[11]) * 2_000_000);
            }
            memory.drawn += u64::from(request[12] & 1);
            if self.wrong {
                memory.mix(7);
            }
            checker.executed(self.replica, place, conn, &request);
            self.said.push((conn, answer));
            self.close_if_over(conn);
        }
        let used = u64::from(budget - room);
        self.memory.clock += used + 1;
        used + 1
    }

    /// The epoch's end: what was said is published, as the interposer does it.
    fn end(&mut self, index: u64, checker: &mut Checker) {
        checker.ended(self.replica, index);
        for (conn, answer) in std::mem::take(&mut self.said) {
            if conn.gateway() == self.replica {
                self.tell(Output::Send {
                    conn,
                    bytes: &answer,
                });
                let total = self.memory.clients.get(&conn).map_or(0, |c| c.received);
                self.tell(Output::Consumed { conn, total });
            }
        }
        for conn in std::mem::take(&mut self.closed) {
            if conn.gateway() == self.replica {
                self.tell(Output::Close { conn, reset: false });
            }
        }
        self.tell(Output::Epoch(self.done(index)));
        self.publish();
    }

    fn done(&self, epoch: u64) -> EpochDone {
        EpochDone {
            epoch,
            clock: self.memory.clock,
            output_hash: self.memory.hash,
            schedule_hash: self.memory.clock.wrapping_mul(3) ^ self.memory.executed,
        }
    }

    fn publish(&self) {
        let (header, memory) = (self.segment.header(), &self.memory);
        header.epoch.store(memory.epoch, SeqCst);
        header.clock.store(memory.clock, SeqCst);
        header.ticks.store(memory.clock, SeqCst);
        header.deadline.store(memory.deadline, SeqCst);
        header.random_drawn.store(memory.drawn, SeqCst);
        header.output_hash.store(memory.hash, SeqCst);
        let state = if memory.work.is_empty() {
            State::Quiescent
        } else {
            State::NeedsBudget
        };
        header.state.store(state as u32, SeqCst);
    }
}
