//! The protocol between gateways, leader and log as a model, checked in every
//! order of its steps.
//!
//! Streams, leader and filters are the code itself. Consensus is what it
//! promises: one log, of which a new leader has everything that was committed
//! and any part of the rest. Connections are queues that may be lost.

use super::*;
use crate::share::Share;
use crane_channel::epoch::{ConnId, Entry};
use crane_channel::output::EpochDone;
use stateright::{Checker, Model, Property};

/// What may happen, and how often.
#[derive(Clone, Copy)]
struct Bounds {
    /// Events of each gateway.
    events: [u8; 2],
    leader_changes: u8,
    lost_connections: u8,
    /// Events offered again although nothing was lost.
    impatience: u8,
    restarts: u8,
    checkpoints: u8,
    /// Gateways taken for dead.
    downs: u8,
    /// Planted: a checkpoint forgets which events counted.
    forgetful: bool,
}

/// An executed event: gateway, incarnation, and which of its events.
type Done = (u8, u32, u8);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Replica {
    stream: EventStream,
    /// Events of this incarnation.
    pushed: u8,
    /// Lets its gateway begin when so much of the log is applied.
    target: Option<usize>,
    /// On its way to the leader.
    link: VecDeque<Vec<u8>>,
    applied: usize,
    filter: Filter,
    executed: Vec<Done>,
    /// Applied, executed, and the share.
    checkpoint: Option<(usize, Vec<Done>, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    log: Vec<Vec<u8>>,
    committed: usize,
    leader: usize,
    /// It may begin when so much of the log is applied.
    begin_after: usize,
    leading: Leading,
    replicas: Vec<Replica>,
    /// What may still happen, in the order of [`Bounds`].
    events: [u8; 2],
    left: [u8; 6],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Push(usize),
    Forward(usize),
    Deliver(usize),
    Begin,
    Propose,
    Commit,
    Apply(usize),
    Open(usize),
    /// The new leader, and whether it has what was not committed.
    LeaderChange(usize, bool),
    LoseConnection(usize),
    OfferAgain(usize),
    Checkpoint(usize),
    Restart(usize),
    DeclareDown(usize),
}

const ID: [u8; 2] = [1, 2];

impl State {
    fn leads(&self, at: usize) -> bool {
        self.leader == at
    }

    /// A batch of the leader's own, or what gateways sent, becomes an entry.
    fn propose(&mut self) -> bool {
        let leader = self.leader;
        let replica = &mut self.replicas[leader];
        let mut none = EventStream::new(ID[leader], 0);
        let own = if replica.target.is_none() {
            &mut replica.stream
        } else {
            &mut none
        };
        let made = self.leading.next(own, Bubble::None, 1, 1, 0, || [0; 32]);
        let Some(made) = made else {
            return false;
        };
        self.log.push(made.entry);
        let index = self.log.len() as u64;
        self.leading.proposed(index, made.foreign);
        true
    }

    fn apply(&mut self, at: usize) {
        let replica = &mut self.replicas[at];
        let mut out = Vec::new();
        let entry = &self.log[replica.applied];
        let changed = replica.filter.admit(entry, &mut out).expect("an entry");
        let admitted: &[u8] = if changed { &out } else { entry };
        for batch in Entry::decode(admitted).expect("an entry").batches() {
            for event in batch.expect("a batch").events() {
                match event.expect("an event") {
                    Event::Data { conn, bytes } => {
                        let done = (conn.gateway(), conn.incarnation(), bytes[0]);
                        replica.executed.push(done);
                    }
                    Event::GatewayDown {
                        gateway,
                        incarnation,
                    } => replica.executed.push((gateway, incarnation, u8::MAX)),
                    _ => {}
                }
            }
        }
        replica.applied += 1;
        if replica.target.is_none() {
            // As `take_acknowledgement` of the data plane.
            let state = replica.filter.gateway(ID[at]);
            let own = replica.stream.incarnation();
            if state.incarnation > own || (state.incarnation == own && state.down) {
                let next = state.incarnation.max(own) + 1;
                replica.stream = EventStream::new(ID[at], next);
                replica.pushed = 0;
            } else if state.incarnation == own {
                replica.stream.acknowledge(state.next_seq);
            }
        }
        if self.leader == at {
            self.leading.committed(self.replicas[at].applied as u64);
        }
    }

    /// The connection of a gateway to the leader is lost and made again.
    fn reconnect(&mut self, at: usize) {
        self.replicas[at].link.clear();
        self.replicas[at].stream.rewind();
        self.leading.forget(ID[at]);
    }
}

impl Model for Bounds {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let replica = |at: usize| Replica {
            stream: EventStream::new(ID[at], 1),
            pushed: 0,
            target: None,
            link: VecDeque::new(),
            applied: 0,
            filter: Filter::new(),
            executed: Vec::new(),
            checkpoint: None,
        };
        let mut leading = Leading::default();
        leading.begin(&Filter::new());
        vec![State {
            log: Vec::new(),
            committed: 0,
            leader: 0,
            begin_after: 0,
            leading,
            replicas: vec![replica(0), replica(1)],
            events: self.events,
            left: [
                self.leader_changes,
                self.lost_connections,
                self.impatience,
                self.restarts,
                self.checkpoints,
                self.downs,
            ],
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        progress(state, actions);
        let [changes, lost, impatience, restarts, checkpoints, downs] = state.left;
        for at in 0..2 {
            let replica = &state.replicas[at];
            if state.events[at] > 0 && replica.target.is_none() {
                actions.push(Action::Push(at));
            }
            if changes > 0 && replica.applied <= state.committed {
                actions.push(Action::LeaderChange(at, true));
                if state.log.len() > state.committed {
                    actions.push(Action::LeaderChange(at, false));
                }
            }
            let follows = !state.leads(at);
            if lost > 0 && follows {
                actions.push(Action::LoseConnection(at));
            }
            if impatience > 0 && follows && replica.stream.has_sent() {
                actions.push(Action::OfferAgain(at));
            }
            if restarts > 0 && follows {
                actions.push(Action::Restart(at));
            }
            if checkpoints > 0 && replica.applied > 0 {
                actions.push(Action::Checkpoint(at));
            }
            if downs > 0 && follows && state.leading.is_ready() {
                actions.push(Action::DeclareDown(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Push(at) => {
                let replica = &mut state.replicas[at];
                let conn = ConnId::new(ID[at], replica.stream.incarnation(), 1);
                replica.stream.push(&Event::Data {
                    conn,
                    bytes: &[replica.pushed],
                });
                replica.pushed += 1;
                state.events[at] -= 1;
            }
            Action::Forward(at) => {
                let replica = &mut state.replicas[at];
                let (_, bytes) = replica.stream.take_unsent()?;
                let bytes = bytes.to_vec();
                replica.link.push_back(bytes);
            }
            Action::Deliver(at) => {
                let bytes = state.replicas[at].link.pop_front()?;
                // A leader that has not begun keeps it for later.
                state.leading.offer(ID[at], bytes).expect("a batch");
            }
            Action::Begin => state.leading.begin(&state.replicas[state.leader].filter),
            Action::Propose => {
                // Without news it drops what it held, which is a step as well.
                state.propose();
            }
            Action::Commit => state.committed += 1,
            Action::Apply(at) => state.apply(at),
            Action::Open(at) => {
                let replica = &mut state.replicas[at];
                let known = replica.filter.gateway(ID[at]).incarnation;
                replica.stream = EventStream::new(ID[at], known + 1);
                replica.pushed = 0;
                replica.target = None;
            }
            Action::LeaderChange(to, whole) => {
                state.left[0] -= 1;
                state.leader = to;
                state.leading.reset();
                if !whole {
                    state.log.truncate(state.committed);
                }
                state.begin_after = state.log.len();
                for at in 0..2 {
                    state.reconnect(at);
                    // A new leader names another target only to who has none.
                }
            }
            Action::LoseConnection(at) => {
                state.left[1] -= 1;
                state.reconnect(at);
            }
            Action::OfferAgain(at) => {
                state.left[2] -= 1;
                state.replicas[at].stream.rewind();
            }
            Action::Restart(at) => {
                state.left[3] -= 1;
                state.reconnect(at);
                // All that the leader knows of when it connects.
                let target = state.log.len();
                let replica = &mut state.replicas[at];
                replica.stream = EventStream::new(ID[at], 0);
                replica.pushed = 0;
                replica.target = Some(target);
                let saved = replica.checkpoint.clone();
                let (applied, executed, share) = saved.unwrap_or_default();
                replica.applied = applied;
                replica.executed = executed;
                replica.filter = if applied == 0 {
                    Filter::new()
                } else {
                    self.read(&share)
                };
            }
            Action::Checkpoint(at) => {
                state.left[4] -= 1;
                let replica = &mut state.replicas[at];
                let done = EpochDone {
                    epoch: replica.applied as u64,
                    clock: 0,
                    output_hash: 0,
                    schedule_hash: 0,
                };
                let share = Share::new((replica.applied as u64, 1), done, &replica.filter);
                let text = share.encode().to_string();
                replica.checkpoint = Some((replica.applied, replica.executed.clone(), text));
            }
            Action::DeclareDown(at) => {
                state.left[5] -= 1;
                let known = state.leading.view()?.gateway(ID[at]).incarnation;
                state.leading.declare_down(ID[at], known);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each event counts once and in order", |_, state: &State| {
                state
                    .replicas
                    .iter()
                    .all(|r| once_and_in_order(&r.executed))
            }),
            Property::always("replicas execute the same", |_, state: &State| {
                let (a, b) = (&state.replicas[0].executed, &state.replicas[1].executed);
                let n = a.len().min(b.len());
                a[..n] == b[..n]
            }),
            Property::always("what is let go of is in the log", |_, state: &State| {
                state.replicas.iter().enumerate().all(|(at, r)| {
                    let mut stream = r.stream.clone();
                    stream.rewind();
                    let first = stream.take_unsent().map(|(head, _)| head.first_seq);
                    let let_go = first.map_or(u64::from(r.pushed), |first| first - 1);
                    let own = |d: &&Done| {
                        d.0 == ID[at] && d.1 == r.stream.incarnation() && d.2 != u8::MAX
                    };
                    r.target.is_some() || r.executed.iter().filter(own).count() as u64 >= let_go
                })
            }),
            Property::always("all comes to be executed", |_, state: &State| {
                let mut actions = Vec::new();
                progress(state, &mut actions);
                !actions.is_empty() || all_is_done(state)
            }),
            Property::sometimes("an incarnation ends in the log", |_, state: &State| {
                state.replicas[1].executed.iter().any(|d| d.2 == u8::MAX)
            }),
        ]
    }
}

impl Bounds {
    /// The filter of a checkpoint.
    fn read(&self, share: &str) -> Filter {
        if !self.forgetful {
            return Share::decode(share).expect("its own").filter();
        }
        let mut value: serde_json::Value = serde_json::from_str(share).expect("its own");
        for gateway in value["gateways"].as_array_mut().expect("a list") {
            gateway["next"] = 1.into();
        }
        Share::decode(&value.to_string()).expect("its own").filter()
    }
}

/// The steps that go on by themselves.
fn progress(state: &State, actions: &mut Vec<Action>) {
    let leader = &state.replicas[state.leader];
    if state.leading.is_ready() {
        let ready = leader.target.is_none();
        let none = EventStream::new(1, 0);
        let own = if ready { &leader.stream } else { &none };
        if state.leading.has_events(own) {
            actions.push(Action::Propose);
        }
    } else if leader.applied >= state.begin_after {
        actions.push(Action::Begin);
    }
    if state.committed < state.log.len() {
        actions.push(Action::Commit);
    }
    for (at, replica) in state.replicas.iter().enumerate() {
        if !state.leads(at) && replica.target.is_none() && replica.stream.has_unsent() {
            actions.push(Action::Forward(at));
        }
        if !replica.link.is_empty() {
            actions.push(Action::Deliver(at));
        }
        if replica.applied < state.committed {
            actions.push(Action::Apply(at));
        }
        if replica
            .target
            .is_some_and(|target| replica.applied >= target)
        {
            actions.push(Action::Open(at));
        }
    }
}

/// Whether each incarnation's events come as 0, 1, 2..., none after its end.
fn once_and_in_order(executed: &[Done]) -> bool {
    let mut next = std::collections::BTreeMap::new();
    executed.iter().all(|&(gateway, incarnation, event)| {
        let due = next.entry((gateway, incarnation)).or_insert(0u8);
        let right = *due == event || (event == u8::MAX && *due != u8::MAX);
        *due = if event == u8::MAX { u8::MAX } else { event + 1 };
        right
    })
}

/// Whether all events of living incarnations were executed on every replica.
fn all_is_done(state: &State) -> bool {
    let done = |at: usize, by: &Replica| {
        let r = &state.replicas[at];
        let own = |d: &&Done| d.0 == ID[at] && d.1 == r.stream.incarnation() && d.2 != u8::MAX;
        by.executed.iter().filter(own).count() == usize::from(r.pushed)
    };
    state.replicas.iter().all(|by| done(0, by) && done(1, by))
}

/// Checks everything; returns the number of states and what was found wrong.
fn check(bounds: Bounds) -> (usize, Vec<&'static str>) {
    let checker = bounds.checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries();
    let wrong = found
        .keys()
        .copied()
        .filter(|name| !name.starts_with("an incarnation"))
        .collect();
    for (name, path) in found.iter().filter(|(name, _)| !name.starts_with("an inc")) {
        println!("{name}: {:?}", path.clone().into_actions());
    }
    (checker.unique_state_count(), wrong)
}

const NOTHING: Bounds = Bounds {
    events: [1, 2],
    leader_changes: 0,
    lost_connections: 0,
    impatience: 0,
    restarts: 0,
    checkpoints: 0,
    downs: 0,
    forgetful: false,
};

fn expect_right(name: &str, bounds: Bounds) {
    let (states, wrong) = check(bounds);
    println!("{name}: {states} states");
    assert!(wrong.is_empty(), "{name}: {wrong:?}");
}

#[test]
fn events_count_once_in_every_order_of_lost_connections_and_leaders() {
    let bounds = Bounds {
        leader_changes: 1,
        lost_connections: 1,
        impatience: 1,
        ..NOTHING
    };
    expect_right("connections and leaders", bounds);
}

#[test]
fn events_count_once_in_every_order_of_restarts_and_checkpoints() {
    let bounds = Bounds {
        leader_changes: 1,
        restarts: 1,
        checkpoints: 1,
        ..NOTHING
    };
    expect_right("restarts and checkpoints", bounds);
}

#[test]
fn events_count_once_in_every_order_of_gateways_taken_for_dead() {
    let bounds = Bounds {
        leader_changes: 1,
        restarts: 1,
        downs: 1,
        ..NOTHING
    };
    expect_right("gateways taken for dead", bounds);
}

#[test]
fn the_model_finds_a_checkpoint_that_forgets() {
    let bounds = Bounds {
        restarts: 1,
        checkpoints: 1,
        impatience: 1,
        forgetful: true,
        ..NOTHING
    };
    let (_, wrong) = check(bounds);
    assert!(!wrong.is_empty(), "the model has become blind");
}
