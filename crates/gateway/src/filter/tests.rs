//! The filter alone, and against gateways whose messages are lost, repeated and
//! reordered by changes of leader.

use super::*;
use crate::entry::EntryBuilder;
use crate::stream::EventStream;
use crane_channel::epoch::{ConnId, EpochHead};
use proptest::prelude::*;

const HEAD: EpochHead = EpochHead {
    time: 5,
    budget: 1,
    seed: None,
};

fn batch(gateway: u8, incarnation: u32, first_seq: u64, events: u16) -> Vec<u8> {
    let mut stream = EventStream::new(gateway, incarnation);
    for n in 0..u64::from(events) {
        let offset = first_seq + n;
        let conn = ConnId::new(gateway, incarnation, 1);
        stream.push(&Event::Drained { conn, offset });
    }
    let mut bytes = stream.take_unsent().unwrap().1.to_vec();
    bytes[8..16].copy_from_slice(&first_seq.to_le_bytes());
    bytes
}

fn entry(batches: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = EntryBuilder::new(&HEAD, 0);
    for batch in batches {
        builder.add_encoded(batch);
    }
    builder.finish()
}

/// What a server would see: (gateway, incarnation, number) of events that
/// count, and (gateway, incarnation, 0) for one that is down.
fn admit(filter: &mut Filter, bytes: &[u8]) -> (bool, Vec<(u8, u32, u64)>) {
    let mut out = Vec::new();
    let changed = filter.admit(bytes, &mut out).unwrap();
    let entry = Entry::decode(if changed { &out } else { bytes }).unwrap();
    let mut seen = Vec::new();
    for batch in entry.batches() {
        let batch = batch.unwrap();
        for event in batch.events() {
            seen.push(match event.unwrap() {
                Event::GatewayDown {
                    gateway,
                    incarnation,
                } => (gateway, incarnation, 0),
                Event::Drained { conn, offset } => (conn.gateway(), conn.incarnation(), offset),
                other => panic!("not in these tests: {other:?}"),
            });
        }
    }
    (changed, seen)
}

#[test]
fn repetitions_and_gaps_do_not_count() {
    let mut filter = Filter::new();
    let first = entry(&[batch(1, 4, 1, 2), batch(2, 9, 1, 1)]);
    assert_eq!(
        admit(&mut filter, &first),
        (false, vec![(1, 4, 1), (1, 4, 2), (2, 9, 1)])
    );
    assert_eq!(admit(&mut filter, &first), (true, vec![]));
    let gap = entry(&[batch(2, 9, 2, 1), batch(1, 4, 4, 1)]);
    assert_eq!(admit(&mut filter, &gap), (true, vec![(2, 9, 2)]));
    let overlap = entry(&[batch(1, 4, 2, 3)]);
    assert_eq!(
        admit(&mut filter, &overlap),
        (true, vec![(1, 4, 3), (1, 4, 4)])
    );
    assert_eq!(filter.gateway(1).next_seq, 5);
}

#[test]
fn a_higher_incarnation_ends_the_lower_one() {
    let mut filter = Filter::new();
    admit(&mut filter, &entry(&[batch(1, 4, 1, 1)]));
    let next = entry(&[batch(2, 1, 1, 1), batch(1, 5, 1, 1), batch(1, 4, 2, 1)]);
    assert_eq!(
        admit(&mut filter, &next),
        (true, vec![(2, 1, 1), (1, 4, 0), (1, 5, 1)])
    );
}

#[test]
fn a_gateway_that_is_down_stays_down_until_its_next_incarnation() {
    let mut filter = Filter::new();
    admit(&mut filter, &entry(&[batch(1, 4, 1, 1)]));
    let mut builder = EntryBuilder::new(&HEAD, 0);
    let down = Event::GatewayDown {
        gateway: 1,
        incarnation: 4,
    };
    builder.add_control(&down);
    let down = builder.finish();
    assert_eq!(admit(&mut filter, &down), (false, vec![(1, 4, 0)]));
    assert_eq!(admit(&mut filter, &down), (true, vec![]));
    assert_eq!(
        admit(&mut filter, &entry(&[batch(1, 4, 2, 1)])),
        (true, vec![])
    );
    assert_eq!(
        admit(&mut filter, &entry(&[batch(1, 5, 1, 1)])),
        (false, vec![(1, 5, 1)])
    );
}

#[test]
fn damaged_entries_are_errors() {
    let good = entry(&[batch(1, 4, 1, 2)]);
    for cut in 0..good.len() {
        let mut filter = Filter::new();
        assert!(filter.admit(&good[..cut], &mut Vec::new()).is_err());
    }
}

/// One step of a gateway's life.
#[derive(Clone, Debug)]
enum Step {
    /// Gateway gathers some events.
    Gather(u8, u8),
    /// Gateway hands a batch to the leader; it may be lost.
    Hand(u8, bool),
    /// The leader commits some of what it has, or another leader commits an old copy.
    Commit,
    /// Gateway learns what is in the log.
    Learn(u8),
    /// Gateway offers again: new leader, new connection or time-out.
    Rewind(u8),
    /// An old leader's proposal turns up again.
    Replay(u16),
    /// The leader declares the gateway down.
    Down(u8),
    /// The gateway starts again.
    Restart(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = 1u8..=3;
    prop_oneof![
        4 => (gateway.clone(), 1u8..5).prop_map(|(g, n)| Step::Gather(g, n)),
        6 => (gateway.clone(), any::<bool>()).prop_map(|(g, lost)| Step::Hand(g, lost)),
        5 => Just(Step::Commit),
        2 => gateway.clone().prop_map(Step::Learn),
        3 => gateway.clone().prop_map(Step::Rewind),
        2 => any::<u16>().prop_map(Step::Replay),
        1 => gateway.clone().prop_map(Step::Down),
        1 => gateway.prop_map(Step::Restart),
    ]
}

struct Sim {
    streams: Vec<EventStream>,
    counters: Vec<u64>,
    filter: Filter,
    proposed: Vec<Vec<u8>>,
    old: Vec<Vec<u8>>,
    seen: Vec<(u8, u32, u64)>,
}

impl Sim {
    fn new() -> Self {
        Self {
            streams: (0..4).map(|g| EventStream::new(g, 1)).collect(),
            counters: vec![0; 4],
            filter: Filter::new(),
            proposed: Vec::new(),
            old: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn restart(&mut self, g: u8) {
        let i = usize::from(g);
        let incarnation = self.streams[i].incarnation() + 1;
        self.streams[i] = EventStream::new(g, incarnation);
        self.counters[i] = 0;
    }

    fn commit(&mut self, bytes: &[u8]) {
        self.seen.extend(admit(&mut self.filter, bytes).1);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Gather(g, n) => {
                for _ in 0..n {
                    let i = usize::from(g);
                    self.counters[i] += 1;
                    let stream = &mut self.streams[i];
                    let conn = ConnId::new(g, stream.incarnation(), 1);
                    let offset = self.counters[i];
                    stream.push(&Event::Drained { conn, offset });
                }
            }
            Step::Hand(g, lost) => {
                if let Some((_, bytes)) = self.streams[usize::from(g)].take_unsent() {
                    let bytes = bytes.to_vec();
                    self.old.push(bytes.clone());
                    if !lost {
                        self.proposed.push(bytes);
                    }
                }
            }
            Step::Commit => {
                let bytes = entry(&std::mem::take(&mut self.proposed));
                self.commit(&bytes);
            }
            Step::Learn(g) => self.learn(g),
            Step::Rewind(g) => self.streams[usize::from(g)].rewind(),
            Step::Replay(n) => {
                if !self.old.is_empty() {
                    let old = self.old[usize::from(n) % self.old.len()].clone();
                    self.commit(&entry(&[old]));
                }
            }
            Step::Down(g) => {
                let incarnation = self.streams[usize::from(g)].incarnation();
                let mut builder = EntryBuilder::new(&HEAD, 0);
                builder.add_control(&Event::GatewayDown {
                    gateway: g,
                    incarnation,
                });
                let bytes = builder.finish();
                self.commit(&bytes);
            }
            Step::Restart(g) => self.restart(g),
        }
    }

    fn learn(&mut self, g: u8) {
        let state = self.filter.gateway(g);
        let stream = &mut self.streams[usize::from(g)];
        if state.incarnation == stream.incarnation() {
            stream.acknowledge(state.next_seq);
            if state.down {
                self.restart(g);
            }
        }
    }

    /// Everything is delivered once nothing is lost any more.
    fn settle(&mut self) {
        for g in 1..=3u8 {
            self.learn(g);
            self.streams[usize::from(g)].rewind();
            let mut batches = Vec::new();
            while let Some((_, bytes)) = self.streams[usize::from(g)].take_unsent() {
                batches.push(bytes.to_vec());
            }
            self.commit(&entry(&batches));
            self.learn(g);
            assert_eq!(self.streams[usize::from(g)].unacknowledged(), 0);
        }
    }
}

proptest! {
    #[test]
    fn each_event_counts_once_and_in_order(steps in prop::collection::vec(step(), 0..120)) {
        let mut sim = Sim::new();
        for step in &steps {
            sim.step(step);
        }
        sim.settle();
        // Per gateway: incarnations only grow, numbers are 1, 2, 3... in each,
        // and nothing of an incarnation comes after its end.
        for g in 1..=3u8 {
            let mut at = (0u32, 0u64);
            let mut down = 0u32;
            for &(_, incarnation, number) in sim.seen.iter().filter(|s| s.0 == g) {
                if number == 0 {
                    prop_assert!(incarnation > down);
                    prop_assert!(incarnation >= at.0);
                    down = incarnation;
                    continue;
                }
                prop_assert!(incarnation > down);
                if incarnation > at.0 {
                    // The lower one, if it was used, was ended before.
                    prop_assert!(at.0 == 0 || down >= at.0);
                    at = (incarnation, 0);
                }
                prop_assert_eq!((incarnation, number), (at.0, at.1 + 1));
                at.1 = number;
            }
            let live = sim.streams[usize::from(g)].incarnation();
            let last = sim.counters[usize::from(g)];
            if last > 0 {
                prop_assert_eq!(at, (live, last));
            }
        }
    }
}

#[test]
fn only_the_next_life_begins() {
    let restart = |life| {
        let mut builder = EntryBuilder::new(&HEAD, 0);
        builder.add_control(&Event::Restart { life });
        builder.finish()
    };
    let mut filter = Filter::new();
    let mut out = Vec::new();
    let seeded = EpochHead {
        seed: Some([1; 32]),
        ..HEAD
    };
    let first = EntryBuilder::new(&seeded, 0).finish();
    assert!(!filter.admit(&first, &mut out).unwrap());
    assert!(filter.seeded() && filter.epochs() == 1);
    assert!(!filter.admit(&restart(1), &mut out).unwrap());
    assert_eq!(
        (filter.life(), filter.epochs(), filter.seeded()),
        (1, 0, false)
    );
    // Of another leader, or a life that is not the next: an epoch like any other.
    for life in [1, 3, 0] {
        assert!(filter.admit(&restart(life), &mut out).unwrap());
        let batches = Entry::decode(&out).unwrap().batches();
        assert_eq!(batches.map(|b| b.unwrap().head.events).sum::<u16>(), 0);
    }
    assert_eq!((filter.life(), filter.epochs()), (1, 3));
}

/// What a holder says of a connection that has moved so often.
fn tcp(moves: u8) -> [u8; 35] {
    let mut bytes = [0; 35];
    bytes[31] = moves;
    bytes
}

/// The events of one batch, numbered from `first_seq`.
fn events(holder: (u8, u32), first_seq: u64, events: &[Event<'_>]) -> Vec<u8> {
    let mut stream = EventStream::new(holder.0, holder.1);
    for event in events {
        stream.push(event);
    }
    let mut bytes = stream.take_unsent().unwrap().1.to_vec();
    bytes[8..16].copy_from_slice(&first_seq.to_le_bytes());
    bytes
}

fn control(event: &Event<'_>) -> Vec<u8> {
    let mut builder = EntryBuilder::new(&HEAD, 0);
    builder.add_control(event);
    builder.finish()
}

/// What the program would see, in words.
fn seen(filter: &mut Filter, bytes: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    let changed = filter.admit(bytes, &mut out).unwrap();
    let entry = Entry::decode(if changed { &out } else { bytes }).unwrap();
    let batches = entry.batches().map(Result::unwrap);
    let events = batches.flat_map(|batch| batch.events().map(Result::unwrap).collect::<Vec<_>>());
    events
        .map(|event| match event {
            Event::Connect { .. } => "connect".into(),
            Event::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            Event::Reset { conn } => format!("reset {}", conn.0 & 0xff),
            Event::GatewayDown { gateway, .. } => format!("down {gateway}"),
            Event::Movable { .. } => "movable".into(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn what_is_moved_counts_from_its_new_holder_alone() {
    let conn = ConnId::new(1, 1, 1).movable();
    let late = ConnId::new(1, 1, 2).movable();
    let connect = |conn| Event::Connect {
        conn,
        listener: 1,
        local: &[],
        peer: &[],
    };
    let data = |bytes| Event::Data { conn, bytes };
    let socket = tcp(0);
    let movable = Event::Movable {
        conn,
        socket: &socket,
    };
    let socket = tcp(1);
    let goes_on = Event::Movable {
        conn,
        socket: &socket,
    };
    let mut filter = Filter::new();
    let first = [connect(conn), data(b"a"), movable, connect(late)];
    let said = seen(&mut filter, &entry(&[events((1, 1), 1, &first)]));
    assert_eq!(said, ["connect", "a", "movable", "connect"]);
    assert_eq!(filter.moves.others((2, 5)), [(1, 1)]);
    // What was not yet movable ends; the rest goes on, and the former holder's
    // events of it do not count any more, whenever they come.
    let moved = Event::Move {
        gateway: 1,
        incarnation: 1,
        heir: 2,
        heir_incarnation: 5,
    };
    assert_eq!(seen(&mut filter, &control(&moved)), ["reset 2"]);
    assert!(filter.moves.others((2, 5)).is_empty());
    assert!(seen(&mut filter, &control(&moved)).is_empty());
    let plain = Event::Data {
        conn: ConnId::new(1, 1, 3),
        bytes: b"plain",
    };
    let stale = events((1, 1), 5, &[data(b"stale"), plain, data(b"stale")]);
    assert_eq!(seen(&mut filter, &entry(&[stale])), ["plain"]);
    assert_eq!(filter.gateway(1).next_seq, 8);
    // Nor what the heir says of an earlier time.
    let early = [data(b"early"), movable, data(b"early"), goes_on, data(b"b")];
    let fresh = events((2, 5), 1, &early);
    let fresh = entry(&[fresh.clone(), fresh]);
    assert_eq!(seen(&mut filter, &fresh), ["movable", "b"]);
    assert_eq!(filter.moves.get(conn).unwrap().received, 2);
    // The end of the gateway that it came by is not its own.
    let down = |gateway, incarnation| {
        control(&Event::GatewayDown {
            gateway,
            incarnation,
        })
    };
    assert_eq!(seen(&mut filter, &down(1, 1)), ["down 1"]);
    assert_eq!(seen(&mut filter, &down(2, 5)), ["down 2", "reset 1"]);
    assert!(filter.moves.get(conn).is_none());
}

#[test]
fn nothing_moves_to_a_gateway_that_is_over() {
    let conn = ConnId::new(1, 1, 1).movable();
    let socket = tcp(0);
    let first = [
        Event::Connect {
            conn,
            listener: 1,
            local: &[],
            peer: &[],
        },
        Event::Movable {
            conn,
            socket: &socket,
        },
    ];
    let mut filter = Filter::new();
    seen(&mut filter, &entry(&[events((1, 1), 1, &first)]));
    admit(&mut filter, &entry(&[batch(2, 5, 1, 1)]));
    let to = |heir_incarnation| {
        control(&Event::Move {
            gateway: 1,
            incarnation: 1,
            heir: 2,
            heir_incarnation,
        })
    };
    assert!(seen(&mut filter, &to(4)).is_empty());
    assert_eq!(filter.moves.get(conn).unwrap().holder, (1, 1));
    // A newer incarnation ends the older one.
    assert_eq!(seen(&mut filter, &to(6)), ["down 2"]);
    assert_eq!(filter.moves.get(conn).unwrap().holder, (2, 6));
    assert_eq!(filter.gateway(2).incarnation, 6);
    // A second incarnation of the holder that has said nothing ends it, too.
    let again = seen(&mut filter, &entry(&[batch(2, 7, 1, 1)]));
    assert_eq!(again[..2], ["down 2", "reset 1"]);
}
