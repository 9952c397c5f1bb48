//! One client's connection on its way from gateway to gateway, in many random runs.
//!
//! Streams, filters, tails and the log's encoding are the code itself; TCP is what
//! matters of it: what a side has acknowledged the other one forgets. Gateways die,
//! stand still and wake up, and several have a socket of the connection at once, of
//! which the client may hear any. It must get every answer once and in order, and
//! the program every byte.

use crane_channel::epoch::{ConnId, Entry, EpochHead, Event};
use crane_gateway::entry::EntryBuilder;
use crane_gateway::filter::Filter;
use crane_gateway::moves::News;
use crane_gateway::stream::EventStream;
use crane_gateway::tails::Tails;

const NODES: usize = 3;
const HEAD: EpochHead = EpochHead {
    time: 1,
    budget: 1,
    seed: None,
};
const CONN: ConnId = ConnId(1 << 56 | 1 << 32 | 1 << 31 | 1);

/// A run's chance: splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    fn node(&mut self) -> usize {
        self.below(NODES as u64) as usize
    }
}

/// The client's byte at a place; there is no end of them.
fn asked(at: u64) -> u8 {
    (at * 31 % 251) as u8
}

/// The program answers each byte with two.
fn answered(at: u64) -> u8 {
    asked(at / 2) ^ (at % 2) as u8
}

#[derive(Default)]
struct Client {
    sent: u64,
    /// Forgotten up to here.
    acknowledged: u64,
    got: u64,
}

/// A gateway's end of the connection.
#[derive(Default)]
struct Socket {
    arrived: u64,
    read: u64,
    agreed: u64,
    written: u64,
    acknowledged: u64,
    told: u64,
}

struct Node {
    incarnation: u32,
    stream: EventStream,
    filter: Filter,
    tails: Tails,
    applied: usize,
    /// What the program was given, entry by entry, and did not do yet.
    given: Vec<(usize, Vec<u8>)>,
    done: usize,
    consumed: u64,
    said: u64,
    socket: Option<Socket>,
    /// The connection comes here when so many entries are done.
    arriving: Option<usize>,
}

impl Node {
    fn new(id: usize, incarnation: u32) -> Self {
        Self {
            incarnation,
            stream: EventStream::new(id as u8 + 1, incarnation),
            filter: Filter::new(),
            tails: Tails::default(),
            applied: 0,
            given: Vec::new(),
            done: 0,
            consumed: 0,
            said: 0,
            socket: None,
            arriving: None,
        }
    }
}

struct Run {
    chance: Chance,
    client: Client,
    nodes: Vec<Node>,
    log: Vec<Vec<u8>>,
    /// Batches on their way to some leader; a gateway's stay after its death.
    offered: Vec<Vec<u8>>,
    moves: u64,
    /// Planted: sockets acknowledge what has arrived.
    hasty: bool,
}

impl Run {
    fn new(seed: u64, hasty: bool) -> Self {
        let mut run = Self {
            chance: Chance(seed),
            client: Client::default(),
            nodes: (0..NODES).map(|id| Node::new(id, 1)).collect(),
            log: Vec::new(),
            offered: Vec::new(),
            moves: 0,
            hasty,
        };
        // The client came in at the first.
        let first = &mut run.nodes[0];
        first.stream.push(&Event::Connect {
            conn: CONN,
            listener: 1,
            local: &[],
            peer: &[],
        });
        first.stream.push(&Event::Movable {
            conn: CONN,
            socket: &[0; 35],
        });
        first.socket = Some(Socket::default());
        run
    }

    fn step(&mut self) {
        let at = self.chance.node();
        match self.chance.below(40) {
            0..3 => self.client.sent += self.chance.below(5),
            3..8 => self.arrive(at),
            8..12 => self.read(at),
            12..16 => self.offer(at),
            16 => self.nodes[at].stream.rewind(),
            17..22 => self.commit(),
            22..28 => self.apply(at),
            28..32 => self.execute(at),
            32..34 => self.acknowledge(at),
            34..37 => self.answer(at),
            37 => self.tell(at),
            38 => self.adopt(at),
            _ => match self.chance.below(8) {
                0 => self.hand_over(at),
                1 => self.kill(at),
                _ => {}
            },
        }
    }

    /// A segment of the client's, new or sent again.
    fn arrive(&mut self, at: usize) {
        let Some(socket) = &mut self.nodes[at].socket else {
            return;
        };
        // What the client has forgotten it cannot send.
        if socket.arrived >= self.client.acknowledged {
            let more = self.client.sent.saturating_sub(socket.arrived);
            socket.arrived += self.chance.below(more + 1);
        }
    }

    fn read(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(socket) = &mut node.socket else {
            return;
        };
        let bytes: Vec<u8> = (socket.read..socket.arrived).map(asked).collect();
        socket.read = socket.arrived;
        if !bytes.is_empty() {
            let bytes = &bytes[..];
            node.stream.push(&Event::Data { conn: CONN, bytes });
        }
    }

    fn offer(&mut self, at: usize) {
        if let Some((_, bytes)) = self.nodes[at].stream.take_unsent() {
            self.offered.push(bytes.to_vec());
        }
    }

    fn commit(&mut self) {
        if self.offered.is_empty() {
            return;
        }
        let which = self.chance.below(self.offered.len() as u64) as usize;
        let batch = match self.chance.below(4) {
            0 => self.offered[which].clone(),
            _ => self.offered.remove(which),
        };
        let mut builder = EntryBuilder::new(&HEAD, 0);
        builder.add_encoded(&batch);
        self.log.push(builder.finish());
    }

    fn apply(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(entry) = self.log.get(node.applied) else {
            return;
        };
        node.applied += 1;
        let mut out = Vec::new();
        let changed = node.filter.admit(entry, &mut out).unwrap();
        let own = (at as u8 + 1, node.incarnation);
        for news in node.filter.moves.take_news() {
            match news {
                News::Opened(conn) => node.tails.open(conn),
                News::Received(conn) => {
                    if let Some(socket) = &mut node.socket
                        && let Some(one) = node.filter.moves.get(conn)
                    {
                        socket.agreed = socket.agreed.max(one.received);
                    }
                }
                News::Drained(conn, offset) => node.tails.drain(conn, offset),
                News::Over(_) => panic!("nobody ended it"),
                News::Moved { from, to, .. } => {
                    if from.0 == own.0 {
                        node.socket = None;
                    }
                    node.arriving = (to == own).then_some(node.applied);
                }
            }
        }
        let state = node.filter.gateway(own.0);
        if state.incarnation == own.1 {
            node.stream.acknowledge(state.next_seq);
        }
        let entry = if changed { out } else { entry.clone() };
        node.given.push((node.applied, entry));
    }

    /// The program does the next entry that it was given.
    fn execute(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.given.is_empty() {
            return;
        }
        let (index, entry) = node.given.remove(0);
        for batch in Entry::decode(&entry).unwrap().batches() {
            for event in batch.unwrap().events() {
                let Event::Data { bytes, .. } = event.unwrap() else {
                    continue;
                };
                for &byte in bytes {
                    assert_eq!(byte, asked(node.consumed), "input {}", node.consumed);
                    node.consumed += 1;
                    for _ in 0..2 {
                        node.tails.say(CONN, &[answered(node.said)]);
                        node.said += 1;
                    }
                }
            }
        }
        node.done = index;
        if let Some(socket) = &mut node.socket {
            socket.written = node.said;
        }
    }

    fn acknowledge(&mut self, at: usize) {
        if let Some(socket) = &self.nodes[at].socket {
            let may = if self.hasty {
                socket.arrived
            } else {
                socket.arrived.min(socket.agreed)
            };
            self.client.acknowledged = self.client.acknowledged.max(may);
        }
    }

    /// Output reaches the client, and its acknowledgement the gateway.
    fn answer(&mut self, at: usize) {
        let Some(socket) = &mut self.nodes[at].socket else {
            return;
        };
        let begin = socket.acknowledged;
        let end = begin + self.chance.below(socket.written - begin + 1);
        if begin <= self.client.got {
            self.client.got = self.client.got.max(end);
        }
        // Of what was not sent here nothing is taken.
        if self.client.got <= socket.written {
            socket.acknowledged = self.client.got;
        }
    }

    fn tell(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(socket) = &mut node.socket
            && socket.acknowledged > socket.told
        {
            socket.told = socket.acknowledged;
            let offset = socket.told;
            node.stream.push(&Event::Drained { conn: CONN, offset });
        }
    }

    /// A node, the leader now, has what others hold come to it. It proposes nothing
    /// before it has applied what was proposed before.
    fn hand_over(&mut self, at: usize) {
        while self.nodes[at].applied < self.log.len() {
            self.apply(at);
        }
        let node = &self.nodes[at];
        let heir = (at as u8 + 1, node.incarnation);
        for (gateway, incarnation) in node.filter.moves.others(heir) {
            let mut builder = EntryBuilder::new(&HEAD, 0);
            builder.add_control(&Event::Move {
                gateway,
                incarnation,
                heir: heir.0,
                heir_incarnation: heir.1,
            });
            self.log.push(builder.finish());
        }
    }

    fn adopt(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.arriving.is_none_or(|index| node.done < index) {
            return;
        }
        node.arriving = None;
        let own = (at as u8 + 1, node.incarnation);
        let Some(one) = node.filter.moves.get(CONN).filter(|one| one.holder == own) else {
            return;
        };
        let (base, bytes) = node.tails.get(CONN).unwrap().rest();
        let end = base + bytes.len() as u64;
        for (nth, &byte) in (base..).zip(bytes) {
            assert_eq!(byte, answered(nth), "output {nth}");
        }
        let client = &self.client;
        assert!(client.acknowledged <= one.received, "input was lost");
        assert!((base..=end).contains(&client.got), "output was lost");
        node.socket = Some(Socket {
            arrived: one.received,
            read: one.received,
            agreed: one.received,
            written: end,
            acknowledged: base,
            told: base,
        });
        let mut declaration = [0; 35];
        declaration[31..].copy_from_slice(&one.moves.to_le_bytes());
        node.stream.push(&Event::Movable {
            conn: CONN,
            socket: &declaration,
        });
        self.moves += 1;
    }

    /// A node dies and comes back with the log alone.
    fn kill(&mut self, at: usize) {
        let incarnation = self.nodes[at].incarnation;
        self.nodes[at] = Node::new(at, incarnation + 1);
    }

    /// Everything works from here on: it must all come to its end.
    fn finish(&mut self) {
        self.hand_over(0);
        for _ in 0..200 {
            for at in 0..NODES {
                while self.nodes[at].applied < self.log.len() || !self.nodes[at].given.is_empty() {
                    self.apply(at);
                    self.execute(at);
                }
                self.adopt(at);
                self.nodes[at].stream.rewind();
                self.offer(at);
            }
            self.arrive(0);
            self.read(0);
            while !self.offered.is_empty() {
                self.commit();
            }
            self.acknowledge(0);
            self.answer(0);
        }
    }
}

/// A run; how often the connection moved.
fn run(seed: u64, hasty: bool) -> u64 {
    let mut run = Run::new(seed, hasty);
    let steps = 200 + run.chance.below(2000);
    for _ in 0..steps {
        run.step();
    }
    run.moves
}

#[test]
fn a_connection_that_moves_loses_and_doubles_nothing() {
    let mut moves = 0;
    for seed in 0..3000 {
        let found = std::panic::catch_unwind(|| run(seed, false));
        moves += found.unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    assert!(moves > 3000, "only {moves} moves");
}

#[test]
fn a_moving_connection_comes_to_its_end() {
    for seed in 0..300 {
        let mut run = Run::new(seed, false);
        for _ in 0..800 {
            run.step();
        }
        run.finish();
        let client = &run.client;
        // A gateway that died before the log had the connection is its end.
        let alive = run.nodes[0].filter.moves.get(CONN).is_some();
        let all = client.acknowledged == client.sent && client.got == 2 * client.sent;
        assert!(
            !alive || all,
            "seed {seed}: {} of {} sent, {} got",
            client.acknowledged,
            client.sent,
            client.got
        );
    }
}

/// The packet program is what makes it sound.
#[test]
#[should_panic(expected = "input was lost")]
fn acknowledging_what_is_not_agreed_is_caught() {
    for seed in 0..1000 {
        run(seed, true);
    }
}
