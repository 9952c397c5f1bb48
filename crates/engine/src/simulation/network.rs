//! The connections between replicas: what TCP does, and what is done to it.
//!
//! Bytes of one connection arrive once and in order, or the connection breaks
//! and what was under way is lost. That is all that a transport promises; when
//! and between whom, the weather says.

use super::host::Packet;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An unanswered connection is given up after so long, microseconds: about
/// what the socket options of [`crate::link`] come to.
const GIVEN_UP: std::ops::Range<u64> = 2_000_000..4_000_000;
/// A greeting that does not come.
const UNGREETED: u64 = 5_000_000;

struct Conn {
    /// The two replicas; the first dialled.
    ends: [u8; 2],
    /// Whether each side still has its socket.
    open: [bool; 2],
    /// By direction: from the first to the second, and back.
    under_way: [VecDeque<(u64, Packet)>; 2],
    last: [u64; 2],
    /// Since when something is cut.
    dark: Option<u64>,
    patience: [u64; 2],
    born: u64,
    greeted: [bool; 2],
}

/// All connections.
pub struct Network {
    cut: BTreeSet<(u8, u8)>,
    conns: BTreeMap<u64, Conn>,
    next: u64,
    /// Longest delay, microseconds.
    pub delay: u64,
    /// Of a thousand packets so many take much longer.
    pub stragglers: u32,
}

impl Network {
    pub fn new() -> Self {
        Self {
            cut: BTreeSet::new(),
            conns: BTreeMap::new(),
            next: 1,
            delay: 1000,
            stragglers: 0,
        }
    }

    fn is_cut(&self, a: u8, b: u8) -> bool {
        self.cut.contains(&(a, b))
    }

    /// Whether somebody dials or has dialled from `a` to `b` and both hold it.
    pub fn is_between(&self, a: u8, b: u8) -> bool {
        self.conns.values().any(|c| c.ends == [a, b] && c.open[0])
    }

    /// `a` dials `b`, whose machine answers. Nothing comes of it when a
    /// direction is cut.
    pub fn dial(&mut self, rng: &mut SmallRng, now: u64, (a, b): (u8, u8), hellos: [Packet; 2]) {
        if self.is_cut(a, b) || self.is_cut(b, a) {
            return;
        }
        let conn = Conn {
            ends: [a, b],
            open: [true; 2],
            under_way: [VecDeque::new(), VecDeque::new()],
            last: [now; 2],
            dark: None,
            patience: [rng.random_range(GIVEN_UP), rng.random_range(GIVEN_UP)],
            born: now,
            greeted: [false; 2],
        };
        let id = self.next;
        self.next += 1;
        self.conns.insert(id, conn);
        for (side, hello) in [a, b].into_iter().zip(hellos) {
            self.send(rng, now, side, id, hello);
        }
    }

    pub fn send(&mut self, rng: &mut SmallRng, now: u64, from: u8, id: u64, packet: Packet) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let direction = usize::from(conn.ends[0] != from);
        if !conn.open[direction] {
            return;
        }
        if matches!(packet, Packet::End) {
            conn.open[direction] = false;
        }
        let mut at = now + rng.random_range(20..=self.delay.max(21));
        if rng.random_range(0..1000) < self.stragglers {
            at += rng.random_range(0..400_000);
        }
        // In order, whatever is late.
        conn.last[direction] = conn.last[direction].max(at);
        let at = conn.last[direction];
        conn.under_way[direction].push_back((at, packet));
    }

    /// The next packet that arrives until `now` at a replica that reads.
    pub fn arriving(
        &mut self,
        now: u64,
        reads: impl Fn(u8) -> bool,
    ) -> Option<(u8, u8, u64, Packet)> {
        let cut = &self.cut;
        for (&id, conn) in &mut self.conns {
            for direction in 0..2 {
                let (from, to) = (conn.ends[direction], conn.ends[1 - direction]);
                let due = conn.under_way[direction]
                    .front()
                    .is_some_and(|(at, _)| *at <= now);
                if due && !cut.contains(&(from, to)) && reads(to) {
                    let (_, packet) = conn.under_way[direction].pop_front()?;
                    if !conn.open[1 - direction] {
                        continue;
                    }
                    match packet {
                        Packet::End => {
                            conn.open[1 - direction] = false;
                            conn.under_way[1 - direction].clear();
                        }
                        Packet::Hello(..) => conn.greeted[1 - direction] = true,
                        _ => {}
                    }
                    return Some((from, to, id, packet));
                }
            }
        }
        None
    }

    /// When the next packet arrives at a replica that reads.
    pub fn next(&self, reads: impl Fn(u8) -> bool) -> Option<u64> {
        let mut next: Option<u64> = None;
        for conn in self.conns.values() {
            for direction in 0..2 {
                let (from, to) = (conn.ends[direction], conn.ends[1 - direction]);
                if let Some(&(at, _)) = conn.under_way[direction].front()
                    && !self.is_cut(from, to)
                    && reads(to)
                {
                    next = Some(next.map_or(at, |n| n.min(at)));
                }
            }
        }
        next
    }

    /// Connections that a side gives up now: the side, the other, and the id.
    pub fn give_up(&mut self, rng: &mut SmallRng, now: u64) -> Vec<(u8, u8, u64)> {
        let mut over = Vec::new();
        for (&id, conn) in &mut self.conns {
            let [a, b] = conn.ends;
            let half = conn.open[0] != conn.open[1];
            let dark = half || self.cut.contains(&(a, b)) || self.cut.contains(&(b, a));
            if !dark {
                conn.dark = None;
            }
            let since = *conn.dark.get_or_insert(now);
            for side in 0..2 {
                let ungreeted = !conn.greeted[side] && now > conn.born + UNGREETED;
                let late = dark && now > since + conn.patience[side];
                if conn.open[side] && (late || ungreeted) {
                    over.push((conn.ends[side], conn.ends[1 - side], id));
                }
            }
            if !dark {
                conn.dark = None;
            }
        }
        for &(side, _, id) in &over {
            self.send(rng, now, side, id, Packet::End);
        }
        self.conns.retain(|_, conn| {
            conn.open != [false; 2] || conn.under_way.iter().any(|way| !way.is_empty())
        });
        over
    }

    /// A connection breaks: both sides hear of it.
    pub fn break_one(&mut self, rng: &mut SmallRng, now: u64) -> Vec<(u8, u8, u64)> {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let id = ids[rng.random_range(0..ids.len())];
        let conn = self.conns.get_mut(&id).expect("chosen among them");
        let [a, b] = conn.ends;
        let over = (0..2)
            .filter(|&side| conn.open[side])
            .map(|side| ([a, b][side], [b, a][side], id))
            .collect();
        self.conns.remove(&id);
        let _ = now;
        over
    }

    /// The process of a replica ends: its sockets are closed. With the machine
    /// they vanish without a word.
    pub fn ends(&mut self, rng: &mut SmallRng, now: u64, replica: u8, silently: bool) {
        let of = |conn: &Conn| (0..2).find(|&side| conn.ends[side] == replica);
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            let conn = self.conns.get_mut(&id).expect("among the keys");
            let Some(side) = of(conn) else {
                continue;
            };
            if silently {
                conn.open[side] = false;
                conn.under_way[side].clear();
            } else {
                self.send(rng, now, replica, id, Packet::End);
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Cuts some directions between replicas 1 to `n`.
    pub fn partition(&mut self, rng: &mut SmallRng, n: u8) {
        self.cut.clear();
        let one = rng.random_range(1..=n);
        let group: BTreeSet<u8> = (1..=n).filter(|_| rng.random_bool(0.5)).collect();
        let how = rng.random_range(0..5);
        for a in 1..=n {
            for b in 1..=n {
                let cut = match how {
                    0 => a == one || b == one,
                    1 => group.contains(&a) != group.contains(&b),
                    2 => a == one,
                    3 => b == one,
                    _ => rng.random_bool(0.3),
                };
                if a != b && cut {
                    self.cut.insert((a, b));
                }
            }
        }
    }
}
