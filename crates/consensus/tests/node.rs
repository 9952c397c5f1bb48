//! One node, or three on good disks with a network that only carries.

use std::collections::VecDeque;

use crane_consensus::{
    Config, Durability, Error, Message, MessageType, Node, Output, ProposeError, Role, SimDisk,
    Standing,
};

const CLUSTER: [u8; 16] = [4; 16];

/// Made-up messages carry it, so that they are not taken for old ones.
const LATER_LIFE: u64 = 1 << 60;

fn config(id: u64, n: u64) -> Config {
    let mut config = Config::new(id, (1..=n).collect(), CLUSTER);
    config.seed = Some(5);
    config.segment_bytes = 64 << 10;
    config
}

#[derive(Default)]
struct Seen {
    committed: Vec<(u64, u64, Vec<u8>)>,
    sent: Vec<Message>,
    roles: Vec<(Role, u64, Option<u64>)>,
    refuses: bool,
    needed: Vec<u64>,
}

impl Output for Seen {
    fn send(&mut self, to: u64, msg: Message) {
        assert_eq!(to, msg.to);
        self.sent.push(msg);
    }

    fn committed(&mut self, index: u64, term: u64, data: &[u8]) {
        self.committed.push((index, term, data.to_vec()));
    }

    fn role_changed(&mut self, role: Role, term: u64, leader: Option<u64>) {
        self.roles.push((role, term, leader));
    }

    fn needs_checkpoint(&mut self, index: u64) {
        self.needed.push(index);
    }

    fn accepts_committed(&mut self) -> bool {
        !self.refuses
    }
}

fn open(config: Config, disk: &SimDisk) -> Node<SimDisk> {
    Node::open(config, disk.reopen()).expect("a good disk").0
}

/// Processes everything; how many calls it took.
fn drain(node: &mut Node<SimDisk>, seen: &mut Seen) -> usize {
    let mut calls = 0;
    while node.has_ready() {
        node.process(seen).expect("a good disk");
        calls += 1;
        assert!(calls < 100_000);
    }
    calls
}

/// A leader alone in its cluster.
fn alone(disk: &SimDisk, config: Config) -> (Node<SimDisk>, Seen) {
    let mut node = open(config, disk);
    let mut seen = Seen::default();
    node.campaign();
    drain(&mut node, &mut seen);
    assert!(node.is_leader());
    (node, seen)
}

/// Several nodes whose messages arrive at once.
struct Group {
    disks: Vec<SimDisk>,
    nodes: Vec<Node<SimDisk>>,
    seen: Vec<Seen>,
}

impl Group {
    fn new(n: u64) -> Self {
        let disks: Vec<_> = (0..n).map(|_| SimDisk::new()).collect();
        let nodes = (1..=n)
            .zip(&disks)
            .map(|(id, disk)| open(config(id, n), disk))
            .collect();
        Self {
            disks,
            nodes,
            seen: (0..n).map(|_| Seen::default()).collect(),
        }
    }

    /// Carries messages until there are none; those of `silent` are lost.
    fn settle(&mut self, silent: &[u64]) {
        let mut carried = VecDeque::new();
        for round in 0.. {
            assert!(round < 10_000, "they never stop talking");
            for (node, seen) in self.nodes.iter_mut().zip(&mut self.seen) {
                drain(node, seen);
                carried.extend(seen.sent.drain(..));
            }
            if carried.is_empty() {
                return;
            }
            for msg in carried.drain(..) {
                if !silent.contains(&msg.from) && !silent.contains(&msg.to) {
                    let at = msg.to as usize - 1;
                    self.nodes[at].step(msg).expect("a good disk");
                }
            }
        }
    }

    fn tick(&mut self, times: usize, silent: &[u64]) {
        for _ in 0..times {
            self.nodes.iter_mut().for_each(Node::tick);
            self.settle(silent);
        }
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(Node::is_leader)
    }

    fn elect(&mut self, id: u64) {
        self.settle(&[]);
        self.nodes[id as usize - 1].campaign();
        self.settle(&[]);
        assert_eq!(self.leader(), Some(id as usize - 1));
    }
}

#[test]
fn a_replica_alone_commits_and_replays_from_the_start() {
    let disk = SimDisk::new();
    let (mut node, mut seen) = alone(&disk, config(1, 1));
    assert_eq!(seen.roles.last(), Some(&(Role::Leader, 1, Some(1))));
    assert_eq!(seen.committed, [(1, 1, vec![])]);
    for i in 0..10u8 {
        node.propose(vec![i; 3]).expect("leader");
    }
    drain(&mut node, &mut seen);
    assert_eq!(seen.committed.len(), 11);
    assert_eq!(seen.committed[10], (11, 1, vec![9; 3]));
    assert_eq!(
        (node.commit(), node.applied(), node.last_index()),
        (11, 11, 11)
    );
    node.close().expect("close");
    let (mut node, mut again) = alone(&disk, config(1, 1));
    drain(&mut node, &mut again);
    assert_eq!(again.committed[..11], seen.committed[..]);
    assert_eq!(node.incarnation(), 2);
    // From a checkpoint, only what comes after it.
    drop(node);
    let mut later = config(1, 1);
    later.checkpoint = Some(crane_consensus::Checkpoint { index: 8, term: 1 });
    let (_, third) = alone(&disk, later);
    assert_eq!(third.committed[0], seen.committed[8]);
}

#[test]
fn a_long_replay_comes_in_pages_and_waits_for_room() {
    let disk = SimDisk::new();
    let mut small = config(1, 1);
    small.max_committed_bytes = 10_000;
    small.cache_bytes = 5_000;
    let (mut node, mut seen) = alone(&disk, small.clone());
    for i in 0..500u32 {
        node.propose(i.to_le_bytes().repeat(100)).expect("leader");
        drain(&mut node, &mut seen);
    }
    drop(node);
    let (mut node, _) = Node::open(small, disk.reopen()).expect("open");
    let mut again = Seen::default();
    let mut calls = 0;
    while node.backlog() > 0 {
        let before = again.committed.len();
        node.process(&mut again).expect("process");
        let bytes: usize = again.committed[before..].iter().map(|c| c.2.len()).sum();
        assert!(bytes <= 10_400, "one page of {bytes} bytes");
        calls += 1;
        if calls == 5 {
            again.refuses = true;
            let before = again.committed.len();
            node.process(&mut again).expect("process");
            assert_eq!(again.committed.len(), before);
            assert!(node.has_ready() && !node.has_urgent());
            again.refuses = false;
        }
    }
    assert!(calls >= 20, "{calls} pages");
    // The last commit index may be known only after the next election.
    node.campaign();
    drain(&mut node, &mut again);
    assert_eq!(again.committed[..seen.committed.len()], seen.committed[..]);
}

#[test]
fn proposals_are_taken_by_leaders_only_and_within_limits() {
    let mut group = Group::new(3);
    assert_eq!(
        group.nodes[0].propose(vec![1]),
        Err(ProposeError::NotLeader { leader: None })
    );
    group.elect(2);
    group.tick(2, &[]);
    assert_eq!(
        group.nodes[0].propose(vec![1]),
        Err(ProposeError::NotLeader { leader: Some(2) })
    );
    // A proposal of another replica is not taken either.
    let mut forwarded = Message {
        from: 1,
        to: 2,
        entries: vec![crane_consensus::Entry::default()],
        ..Message::default()
    };
    forwarded.set_msg_type(MessageType::MsgPropose);
    let last = group.nodes[1].last_index();
    group.nodes[1].step(forwarded).expect("ignored");
    assert_eq!(group.nodes[1].last_index(), last);
    let max = config(1, 3).max_entry_bytes;
    assert_eq!(
        group.nodes[1].propose(vec![0; max + 1]),
        Err(ProposeError::TooLarge { len: max + 1, max })
    );
    // Nobody answers: the leader takes 64 MiB and then no more.
    let mut taken = 0;
    let busy = loop {
        match group.nodes[1].propose(vec![7; 4 << 20]) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((busy, taken), (ProposeError::Busy, 16));
    assert_eq!(group.nodes[1].uncommitted_bytes(), 64 << 20);
    group.settle(&[]);
    assert_eq!(group.nodes[1].uncommitted_bytes(), 0);
    group.nodes[1].propose(vec![8]).expect("room again");
    group.settle(&[]);
    group.tick(4, &[]);
    for seen in &group.seen {
        assert_eq!(seen.committed.len(), 18);
        assert_eq!(seen.committed, group.seen[0].committed);
    }
}

#[test]
fn the_defaults_fail_over_and_hand_over() {
    let mut group = Group::new(3);
    group.settle(&[]);
    assert!(group.nodes.iter().all(|n| n.standing() == Standing::Voter));
    // Without being told: one is elected within two time-outs.
    group.tick(48, &[]);
    let first = group.leader().expect("a leader");
    let progress = group.nodes[first].progress();
    assert_eq!(progress.len(), 2);
    assert!(progress.iter().all(|p| p.recent_active && p.matched == 1));
    // It falls silent, and notices by itself that it is cut off.
    let silent = [first as u64 + 1];
    group.tick(72, &silent);
    assert!(!group.nodes[first].is_leader());
    let second = group.leader().expect("another leader");
    group.tick(5, &[]);
    let target = group.nodes[first].id();
    group.nodes[second].transfer_leader(target);
    group.settle(&[]);
    assert_eq!(group.leader(), Some(first));
}

#[test]
fn followers_are_acknowledged_only_after_their_disks() {
    let mut group = Group::new(3);
    group.elect(1);
    group.nodes[0].propose(vec![1]).expect("leader");
    // The leader's message leaves although its own disk has not written.
    group.disks[0].set_sync_fails(true);
    let failed = group.nodes[0].process(&mut group.seen[0]);
    assert!(matches!(failed, Err(Error::Fatal(_))));
    let appends: Vec<_> = group.seen[0].sent.drain(..).collect();
    assert_eq!(appends.len(), 2);
    assert!(appends.iter().all(|m| m.entries.len() == 1));
    // A follower whose disk fails says nothing, and is over.
    group.disks[1].set_sync_fails(true);
    let append = appends.into_iter().find(|m| m.to == 2).expect("to 2");
    group.nodes[1].step(append).expect("taken");
    let error = group.nodes[1].process(&mut group.seen[1]);
    let error = error.expect_err("EIO").to_string();
    assert!(error.contains("cannot sync"), "{error}");
    assert!(group.seen[1].sent.is_empty());
    group.disks[1].set_sync_fails(false);
    assert!(group.nodes[1].process(&mut group.seen[1]).is_err());
    assert!(group.nodes[1].has_ready());
}

#[test]
fn memory_durability_does_not_wait_for_the_disk() {
    let disk = SimDisk::new();
    let mut memory = config(1, 1);
    memory.durability = Durability::Memory;
    let (mut node, mut seen) = alone(&disk, memory);
    disk.set_sync_fails(true);
    node.propose(vec![1]).expect("leader");
    drain(&mut node, &mut seen);
    assert_eq!(seen.committed.len(), 2);
}

#[test]
fn a_replica_that_lost_its_disk_comes_back_without_a_vote_too_many() {
    let mut group = Group::new(3);
    group.elect(1);
    for i in 0..20 {
        group.nodes[0].propose(vec![i]).expect("leader");
    }
    group.settle(&[]);
    group.tick(2, &[]);
    group.disks[2].wipe();
    group.nodes[2] = open(config(3, 3), &group.disks[2]);
    group.seen[2] = Seen::default();
    // Alone with one other it gets no further than asking.
    group.tick(3, &[1]);
    assert_eq!(group.nodes[2].standing(), Standing::Asking);
    assert_eq!(group.nodes[2].unanswered(), [1]);
    group.nodes[2].campaign();
    assert_eq!(group.nodes[2].role(), Role::Follower);
    // The other one cannot be elected by it.
    group.tick(60, &[1]);
    assert!(!group.nodes[1].is_leader());
    // With both it learns, catches up and votes again.
    group.tick(60, &[]);
    assert_eq!(group.nodes[2].standing(), Standing::Voter);
    assert_eq!(group.seen[2].committed, group.seen[0].committed);
    assert!(group.seen[2].committed.len() >= 21);
    let leader = group.leader().expect("a leader");
    let away = if leader == 2 { 0 } else { leader };
    group.tick(72, &[away as u64 + 1]);
    let next = group.leader().expect("a leader with its help");
    assert_ne!(next, away);
}

#[test]
fn a_new_cluster_starts_with_all_or_with_an_operators_word() {
    let mut group = Group::new(3);
    group.tick(60, &[3]);
    assert_eq!(group.leader(), None);
    assert_eq!(group.nodes[0].unanswered(), [3]);
    group.tick(60, &[]);
    assert!(group.leader().is_some());
    let disks = [SimDisk::new(), SimDisk::new()];
    let mut vouched = config(1, 3);
    vouched.new_cluster = true;
    let node = open(vouched, &disks[0]);
    assert_eq!(node.standing(), Standing::Voter);
}

#[test]
fn a_voter_that_lost_entries_notices_and_stops() {
    let mut group = Group::new(3);
    group.elect(1);
    let mut lies = Message {
        from: 1,
        to: 2,
        term: group.nodes[1].term(),
        commit: 99,
        deprecated_priority: LATER_LIFE,
        ..Message::default()
    };
    lies.set_msg_type(MessageType::MsgHeartbeat);
    let error = group.nodes[1].step(lies).expect_err("it has one entry");
    assert!(error.to_string().contains("its disk lost"), "{error}");
    assert!(group.nodes[1].process(&mut Seen::default()).is_err());
}

#[test]
fn a_voter_whose_log_lost_its_confirmed_end_catches_up_again() {
    let mut group = Group::new(3);
    group.elect(1);
    for i in 0..20 {
        group.nodes[0].propose(vec![i]).expect("leader");
    }
    group.settle(&[]);
    group.tick(2, &[]);
    group.disks[2].kill();
    let (name, mut bytes) = (0..)
        .map(|n| format!("log-{n:08x}.seg"))
        .find_map(|name| group.disks[2].content(&name).map(|bytes| (name, bytes)))
        .expect("a segment");
    let end = bytes.iter().rposition(|b| *b != 0).expect("records") + 1;
    // Deep enough to take an entry with it, not only the last commit index.
    bytes.truncate(end - 150);
    group.disks[2].set_content(&name, &bytes);
    let (node, recovery) = Node::open(config(3, 3), group.disks[2].reopen()).expect("a cut tail");
    assert!(recovery.truncated_bytes > 0);
    assert!(node.last_index() < group.nodes[0].last_index());
    group.nodes[2] = node;
    group.seen[2] = Seen::default();
    group.tick(60, &[]);
    assert_eq!(group.nodes[2].standing(), Standing::Voter);
    assert_eq!(group.seen[2].committed, group.seen[0].committed);
}

#[test]
fn strange_messages_are_dropped() {
    let mut group = Group::new(3);
    group.elect(1);
    let term = group.nodes[1].term();
    let before = group.nodes[1].last_index();
    let entry = |index, term| crane_consensus::Entry {
        index,
        term,
        ..crane_consensus::Entry::default()
    };
    let append = |from, to, entries| Message {
        msg_type: MessageType::MsgAppend as i32,
        from,
        to,
        term: term + 5,
        index: 1,
        log_term: term,
        entries,
        deprecated_priority: LATER_LIFE,
        ..Message::default()
    };
    let strange = [
        append(0, 2, vec![]),
        append(1, 3, vec![]),
        append(2, 2, vec![]),
        append(1, 2, vec![entry(3, term)]),
        append(1, 2, vec![entry(2, term), entry(2, term)]),
        append(1, 2, vec![entry(2, term + 6)]),
        append(1, 2, vec![entry(2, term), entry(3, term - 1)]),
        Message {
            snapshot: Some(raft::eraftpb::Snapshot::default()),
            ..append(1, 2, vec![])
        },
    ];
    for msg in strange {
        group.nodes[1].step(msg.clone()).expect("dropped");
        assert_eq!(group.nodes[1].term(), term, "{msg:?}");
    }
    for kind in 0..30 {
        let msg = Message {
            msg_type: kind,
            from: 3,
            to: 2,
            deprecated_priority: LATER_LIFE,
            ..Message::default()
        };
        group.nodes[1].step(msg).expect("dropped");
    }
    assert_eq!(group.nodes[1].last_index(), before);
    assert_eq!(group.nodes[1].role(), Role::Follower);
    // A good one is still taken.
    let good = append(1, 2, vec![entry(2, term)]);
    group.nodes[1].step(good).expect("taken");
    assert_eq!(group.nodes[1].last_index(), before + 1);
    assert_eq!(group.nodes[1].term(), term + 5);
}

#[test]
fn impossible_settings_are_refused_in_words() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config(1, 3);
        change(&mut config);
        match Node::open(config, SimDisk::new()) {
            Err(error @ Error::Config(_)) => error.to_string(),
            _ => panic!("impossible settings were taken"),
        }
    };
    assert!(refused(|c| c.id = 0).contains("cannot be 0"));
    assert!(refused(|c| c.id = 4).contains("not one of"));
    assert!(refused(|c| c.peers = vec![1, 2, 2]).contains("twice"));
    assert!(refused(|c| c.election_ticks = 2).contains("election_ticks"));
    assert!(refused(|c| c.segment_bytes = 1).contains("segment_bytes"));
    assert!(refused(|c| c.max_entry_bytes = 1 << 30).contains("max_entry_bytes"));
    assert!(refused(|c| c.max_size_per_msg = 1 << 40).contains("max_size_per_msg"));
    assert!(refused(|c| c.max_inflight = 0).contains("max_inflight"));
}

/// The engine's thread owns the node, and the supervisor makes it.
#[test]
fn a_node_can_move_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<Node<SimDisk>>();
    is_send::<Node<crane_consensus::RealDisk>>();
}
