//! A network that loses, delays, repeats and reorders, with links cut one way
//! or both.

use std::collections::{BTreeMap, BTreeSet};

use crane_consensus::Message;
use crane_consensus::wire::{self, Frame, FrameReader};
use rand::Rng;
use rand::rngs::SmallRng;

/// What goes wrong, in chances out of a thousand.
#[derive(Debug, Clone)]
pub struct Weather {
    pub lose: u32,
    pub repeat: u32,
    /// A message that takes much longer than others.
    pub straggle: u32,
    /// Steps a message usually takes at most.
    pub delay: u64,
}

impl Weather {
    pub fn fine() -> Self {
        Self {
            lose: 0,
            repeat: 0,
            straggle: 0,
            delay: 2,
        }
    }

    pub fn draw(rng: &mut SmallRng) -> Self {
        Self {
            lose: *pick(rng, &[0, 0, 10, 100, 300]),
            repeat: *pick(rng, &[0, 20, 200]),
            straggle: *pick(rng, &[0, 10, 50]),
            delay: *pick(rng, &[1, 3, 10, 40]),
        }
    }
}

pub fn pick<'a, T>(rng: &mut SmallRng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

#[derive(Debug)]
pub struct Network {
    pub weather: Weather,
    /// Links (from, to) over which nothing goes.
    cut: BTreeSet<(u64, u64)>,
    /// Frames by the step at which they arrive and the order they were sent in.
    under_way: BTreeMap<(u64, u64), Vec<u8>>,
    sent: u64,
}

impl Network {
    pub fn new() -> Self {
        Self {
            weather: Weather::fine(),
            cut: BTreeSet::new(),
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    pub fn send(&mut self, rng: &mut SmallRng, now: u64, msg: &Message) {
        if self.cut.contains(&(msg.from, msg.to)) || rng.random_range(0..1000) < self.weather.lose {
            return;
        }
        let mut frame = Vec::new();
        wire::encode_raft(msg, &mut frame);
        let copies = 1 + u32::from(rng.random_range(0..1000) < self.weather.repeat);
        for _ in 0..copies {
            let mut delay = rng.random_range(1..=self.weather.delay);
            if rng.random_range(0..1000) < self.weather.straggle {
                delay += rng.random_range(0..2000);
            }
            self.sent += 1;
            self.under_way
                .insert((now + delay, self.sent), frame.clone());
        }
    }

    /// Keeps a message for a replica that reads again at step `until`.
    pub fn hold(&mut self, until: u64, msg: &Message) {
        let mut frame = Vec::new();
        wire::encode_raft(msg, &mut frame);
        self.sent += 1;
        self.under_way.insert((until, self.sent), frame);
    }

    /// What arrives at step `now`.
    pub fn arriving(&mut self, now: u64) -> Vec<Message> {
        let later = self.under_way.split_off(&(now + 1, 0));
        let arrived = std::mem::replace(&mut self.under_way, later);
        let mut messages = Vec::new();
        for frame in arrived.into_values() {
            let mut reader = FrameReader::new();
            reader.feed(&frame);
            let Ok(Some(Frame::Raft(payload))) = reader.next_frame() else {
                panic!("a frame did not come out as it went in");
            };
            let msg = wire::decode_raft(payload).expect("a message of this program");
            if !self.cut.contains(&(msg.from, msg.to)) {
                messages.push(msg);
            }
        }
        messages
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Cuts some links between replicas 1 to `n`.
    pub fn partition(&mut self, rng: &mut SmallRng, n: u64) {
        self.cut.clear();
        match rng.random_range(0..4) {
            // One replica alone.
            0 => {
                let alone = rng.random_range(1..=n);
                self.cut_where(n, |a, b| a == alone || b == alone);
            }
            // Two groups.
            1 => {
                let group: BTreeSet<u64> = (1..=n).filter(|_| rng.random_bool(0.5)).collect();
                self.cut_where(n, |a, b| group.contains(&a) != group.contains(&b));
            }
            // One direction of one replica's links.
            2 => {
                let odd = rng.random_range(1..=n);
                if rng.random_bool(0.5) {
                    self.cut_where(n, |a, _| a == odd);
                } else {
                    self.cut_where(n, |_, b| b == odd);
                }
            }
            // Any links.
            _ => {
                for a in 1..=n {
                    for b in 1..=n {
                        if a != b && rng.random_bool(0.3) {
                            self.cut.insert((a, b));
                        }
                    }
                }
            }
        }
    }

    fn cut_where(&mut self, n: u64, f: impl Fn(u64, u64) -> bool) {
        for a in 1..=n {
            for b in 1..=n {
                if a != b && f(a, b) {
                    self.cut.insert((a, b));
                }
            }
        }
    }
}
