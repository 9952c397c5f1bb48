//! What befalls replicas, and how much of it in one run.

use rand::Rng;
use rand::rngs::SmallRng;

use crate::cluster::{Cluster, STEPS};
use crate::network::{Weather, pick};

/// Where the numbers of each kind of fault end, in [`Cluster::trouble`].
const KINDS: [u32; 11] = [10, 36, 42, 46, 52, 54, 57, 60, 63, 67, 69];
/// These numbers mend something.
const HEALS: std::ops::Range<u32> = 10..30;

/// Which faults a run has, and how often. Where everything fails all the time
/// nothing gets far: what takes several steps to go wrong needs runs in which
/// some faults are rare, and others do not happen.
pub struct Swarm {
    kinds: u32,
    /// One of so many faults happens.
    one_of: u32,
}

impl Swarm {
    pub fn draw(rng: &mut SmallRng) -> Self {
        let some: u32 = rng.random();
        Self {
            kinds: *pick(rng, &[u32::MAX, some, some]),
            one_of: *pick(rng, &[1, 1, 2, 4, 10]),
        }
    }

    /// Whether what was drawn does not happen in this run, or not this time.
    fn spares(&self, rng: &mut SmallRng, drawn: u32) -> bool {
        let kind = KINDS.iter().position(|end| drawn < *end);
        let kind = kind.filter(|_| !HEALS.contains(&drawn));
        kind.is_some_and(|kind| {
            let none = self.kinds & (1 << kind) == 0;
            none || rng.random_range(0..self.one_of) != 0
        })
    }
}

impl Cluster<'_> {
    /// A while in which everything goes wrong.
    pub fn trouble(&mut self) {
        for _ in 0..STEPS {
            self.step();
            let at = self.rng.random_range(0..self.replicas.len());
            let drawn = self.rng.random_range(0..2000);
            if self.swarm.spares(&mut self.rng, drawn) {
                continue;
            }
            match drawn {
                0..10 => self
                    .network
                    .partition(&mut self.rng, self.replicas.len() as u64),
                10..30 => self.network.heal(),
                30..36 => self.network.weather = Weather::draw(&mut self.rng),
                36..42 => self.crash(at, true),
                42..46 => self.crash(at, false),
                46..52 => {
                    // The power goes within one of the next changes to the disk.
                    let count = self.rng.random_range(0..12);
                    self.replicas[at].disk.stop_after(count);
                    self.replicas[at].may_fail = true;
                }
                52..54 => {
                    self.replicas[at].disk.set_sync_fails(true);
                    self.replicas[at].may_fail = true;
                }
                54..57 => self.replicas[at].paused_until = self.now + self.rng.random_range(0..500),
                57..60 => {
                    let to = self.rng.random_range(1..=self.replicas.len() as u64);
                    if let Some(node) = &mut self.replicas[at].node {
                        node.transfer_leader(to);
                    }
                }
                60..63 => {
                    if let Some(node) = &mut self.replicas[at].node {
                        node.campaign();
                    }
                }
                63..67 => self.wipe(at),
                // All at once, the worst for what is not synced.
                67..69 => (0..self.replicas.len()).for_each(|at| self.crash(at, true)),
                75..155 => self.start_if_down(at),
                155..215 => self.checkpoint_or_cut(at),
                300..310 => self.lose_checkpoint(at),
                215..275 => self.change_members(),
                _ => {}
            }
        }
    }
}
