//! Messages of a replica that is known and broken, or hostile: the node that gets
//! them may refuse to go on, in words, and must not panic.

use crate::Choices;
use crane_consensus::{
    Change, Checkpoint, Config, Entry, Membership, Message, MessageType, Node, Output, Role,
    SimDisk, wire,
};

/// What of a node's last messages could be answered.
#[derive(Default)]
struct Sent(Vec<Message>);

impl Output for Sent {
    fn send(&mut self, _to: u64, msg: Message) {
        // What is sent is a message that others can read.
        let mut frame = Vec::new();
        wire::encode_raft(&msg, &mut frame);
        let payload = &frame[wire::HEADER_LEN..];
        assert!(wire::decode_raft(payload).is_ok(), "what was sent");
        if self.0.len() < 64 {
            self.0.push(msg);
        }
    }

    fn committed(&mut self, _index: u64, _term: u64, _data: &[u8]) {}

    fn role_changed(&mut self, _: Role, _: u64, _: Option<u64>) {}

    fn membership_changed(&mut self, _now: &Membership) {}

    fn needs_checkpoint(&mut self, _index: u64) {}

    fn accepts_committed(&mut self) -> bool {
        true
    }
}

/// A number near those that mean something here, or anywhere.
fn number(choices: &mut Choices<'_>, near: &[u64]) -> u64 {
    let (how, off) = (choices.byte(), u64::from(choices.byte()));
    match how % 8 {
        0 => off,
        1 => u64::MAX - off,
        2 => (1 << 32) + off,
        3 => u64::from_le_bytes(std::array::from_fn(|_| choices.byte())),
        _ => {
            let base = near[usize::from(how >> 3) % near.len()];
            base.wrapping_add(off % 5).wrapping_sub(2)
        }
    }
}

fn forged(choices: &mut Choices<'_>, node: &Node<SimDisk>, lives: u64) -> Message {
    let log = node.log();
    let terms = [node.term(), log.last_term(), 0];
    let indexes = [node.last_index(), node.commit(), log.base(), 0];
    let mut msg = Message {
        msg_type: i32::from(choices.byte() % 20),
        to: 1,
        from: 1 + u64::from(choices.byte() % 5),
        term: number(choices, &terms),
        log_term: number(choices, &terms),
        index: number(choices, &indexes),
        commit: number(choices, &indexes),
        commit_term: number(choices, &terms),
        reject_hint: number(choices, &indexes),
        ..Message::default()
    };
    let flags = choices.byte();
    msg.reject = flags & 1 != 0;
    msg.request_snapshot = if flags & 2 != 0 {
        number(choices, &indexes)
    } else {
        0
    };
    msg.deprecated_priority = if flags & 4 != 0 {
        number(choices, &[lives])
    } else {
        lives
    };
    if flags & 8 != 0 {
        let mut index = msg.index;
        for _ in 0..choices.byte() % 5 {
            index = index.wrapping_add(1);
            let odd = choices.byte();
            let len = usize::from(choices.byte() % 40);
            let mut entry = Entry {
                entry_type: i32::from(odd % 4),
                term: msg.term,
                index,
                data: choices.bytes(len).to_vec(),
                ..Entry::default()
            };
            if odd & 16 != 0 {
                entry.term = number(choices, &terms);
            }
            if odd & 32 != 0 {
                entry.index = number(choices, &indexes);
            }
            msg.entries.push(entry);
        }
    }
    if flags & 16 != 0 {
        let len = usize::from(choices.byte());
        msg.context = choices.bytes(len).to_vec();
    }
    if flags & 32 != 0 {
        let metadata = msg.mut_snapshot().mut_metadata();
        metadata.index = number(choices, &indexes);
        metadata.term = number(choices, &terms);
    }
    msg
}

/// The answer of a replica that is well to what was asked of it.
fn honest(asked: &Message, life: u64) -> Option<Message> {
    let kind = match asked.msg_type() {
        MessageType::MsgAppend => MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeat => MessageType::MsgHeartbeatResponse,
        MessageType::MsgRequestVote => MessageType::MsgRequestVoteResponse,
        MessageType::MsgRequestPreVote => MessageType::MsgRequestPreVoteResponse,
        _ => return None,
    };
    Some(Message {
        msg_type: kind as i32,
        to: asked.from,
        from: asked.to,
        term: asked.term,
        index: asked.index + asked.entries.len() as u64,
        commit: asked.commit,
        deprecated_priority: life,
        ..Message::default()
    })
}

fn open(choices: &mut Choices<'_>, disk: &SimDisk, from: Option<Checkpoint>) -> Node<SimDisk> {
    let how = choices.byte();
    let mut config = Config::new(1, vec![1, 2, 3], [7; 16]);
    config.segment_bytes = 4096;
    config.seed = Some(how.into());
    config.election_ticks = 4;
    config.heartbeat_ticks = 1;
    config.cache_bytes = usize::from(how & 2) * 500;
    config.max_inflight = 4;
    // Or it asks first.
    config.new_cluster = how & 1 == 0;
    config.checkpoint = from;
    Node::open(config, disk.reopen()).expect("a good disk").0
}

/// Has a node live through what its peers and its owner do.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let disk = SimDisk::new();
    let mut node = open(&mut choices, &disk, None);
    let mut sent = Sent::default();
    let life = 7;
    while !choices.is_empty() {
        let what = choices.byte();
        let result = match what % 12 {
            0 => {
                (0..what / 12).for_each(|_| node.tick());
                Ok(())
            }
            1 => {
                node.campaign();
                Ok(())
            }
            2 => {
                let len = usize::from(choices.byte());
                let _ = node.propose(vec![what; len]);
                Ok(())
            }
            3 | 4 => {
                let asked = std::mem::take(&mut sent.0);
                let mut answers = asked.iter().filter_map(|asked| honest(asked, life));
                answers.try_for_each(|answer| node.step(answer))
            }
            5 => match wire::decode_raft(choices.bytes(usize::from(what) * 2)) {
                Ok(mut msg) => {
                    msg.to = 1;
                    node.step(msg)
                }
                Err(_) => Ok(()),
            },
            6 => {
                let index = node.applied();
                node.checkpointed(index);
                if what & 128 != 0 && index > 0 {
                    node.cut(index)
                } else {
                    Ok(())
                }
            }
            7 => {
                let id = 1 + u64::from(choices.byte() % 5);
                let change = match what / 12 % 4 {
                    0 => Change::Add {
                        id,
                        address: "somewhere".into(),
                    },
                    1 => Change::Promote(id),
                    2 => Change::Remove(id),
                    _ => Change::Replace { old: 2, new: id },
                };
                let _ = node.change(&change);
                node.transfer_leader(id);
                Ok(())
            }
            _ => {
                let msg = forged(&mut choices, &node, life);
                node.step(msg)
            }
        };
        let mut rounds = 0;
        let result = result.and_then(|()| {
            while node.has_urgent() || (what & 64 != 0 && rounds == 0 && node.has_ready()) {
                rounds += 1;
                assert!(rounds < 1000, "it does not come to rest");
                node.process(&mut sent)?;
            }
            Ok(())
        });
        assert!(node.commit() <= node.last_index() && node.applied() <= node.commit());
        if let Err(why) = result {
            assert!(!why.to_string().is_empty());
            return;
        }
    }
}
