//! What befalls replicas.

use super::*;

/// Where the numbers of each kind of fault end, in [`Cluster::fault`].
const KINDS: [u32; 14] = [12, 44, 50, 56, 62, 64, 72, 82, 92, 100, 104, 108, 114, 117];
/// These numbers mend something.
const HEALS: std::ops::Range<u32> = 12..36;

/// Which faults a run has, and how often. Where everything fails all the time
/// nothing gets far: what takes several steps to go wrong needs runs in which
/// some faults are rare, and others do not happen.
pub(super) struct Swarm {
    kinds: u32,
    /// One of so many faults happens.
    one_of: u32,
}

impl Swarm {
    pub fn draw(rng: &mut SmallRng) -> Self {
        let some: u32 = rng.random();
        Self {
            kinds: [u32::MAX, some, some][rng.random_range(0..3)],
            one_of: [1, 2, 4, 10, 30][rng.random_range(0..5)],
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
    /// The power goes, or only the process.
    pub(super) fn crash(&mut self, at: usize, power: bool) {
        let now = self.now();
        let replica = &mut self.replicas[at];
        let was_up = replica.running.take().is_some();
        replica.may_fail = false;
        replica.paused_until = 0;
        replica.disk.set_sync_fails(false);
        if power {
            replica.disk.crash(self.rng.random());
        } else {
            replica.disk.kill();
        }
        for end in replica.incarnations.values_mut() {
            end.get_or_insert(now);
        }
        if was_up {
            self.figures.crashes += 1;
            self.network.ends(&mut self.rng, now, at as u8 + 1, power);
        }
        for client in &mut self.clients {
            client.over |= client.replica == at as u8 + 1;
        }
    }

    /// A replica that is behind its leader's log starts again from a checkpoint
    /// of another one, as soon as somebody has a new enough one.
    pub(super) fn fetch(&mut self, at: usize) {
        let Some(wanted) = self.replicas[at].wants else {
            return;
        };
        let up = |r: &&Replica| r.running.is_some();
        let others = self.replicas.iter().filter(up);
        let newest = others
            .filter_map(|r| r.checkpoint.clone())
            .max_by_key(|(share, _)| share.index);
        if let Some(found) = newest.filter(|(share, _)| share.index >= wanted) {
            self.crash(at, false);
            self.replicas[at].checkpoint = Some(found);
            self.start(at);
        }
    }

    pub(super) fn fault(&mut self) {
        let at = self.rng.random_range(0..self.replicas.len());
        let now = self.now();
        let drawn = self.rng.random_range(0..1800);
        if self.swarm.spares(&mut self.rng, drawn) {
            return;
        }
        match drawn {
            0..12 => self
                .network
                .partition(&mut self.rng, self.replicas.len() as u8),
            12..36 => self.network.heal(),
            36..44 => {
                self.network.delay = [100, 1000, 20_000, 100_000][self.rng.random_range(0..4)];
                self.network.stragglers = [0, 10, 100][self.rng.random_range(0..3)];
            }
            44..50 => self.crash(at, true),
            50..56 => self.crash(at, false),
            56..62 => {
                // The power goes within one of the next changes to the disk.
                let count = self.rng.random_range(0..12);
                self.replicas[at].disk.stop_after(count);
                self.replicas[at].may_fail = true;
            }
            62..64 => {
                self.replicas[at].disk.set_sync_fails(true);
                self.replicas[at].may_fail = true;
            }
            64..72 => {
                let longest = [100_000, 1_000_000, 3_000_000][self.rng.random_range(0..3)];
                self.replicas[at].paused_until = now + self.rng.random_range(0..longest);
            }
            72..82 => {
                let hours = self.rng.random_range(-3..=3);
                self.replicas[at].skew.set(hours * 3_600_000_000_000);
                if let Some(running) = &mut self.replicas[at].running {
                    running.wake_at = 0;
                }
            }
            82..92 => {
                self.replicas[at].pace = [1, 20, 200, 3000][self.rng.random_range(0..4)];
                let pace = self.replicas[at].pace;
                if let Some(running) = &mut self.replicas[at].running {
                    running.program.pace = pace;
                }
            }
            92..100 => {
                for (side, other, conn) in self.network.break_one(&mut self.rng, now) {
                    self.lose(side, other, conn);
                }
            }
            100..104 => {
                let to = self.rng.random_range(1..=self.replicas.len() as u64);
                if let Some(running) = &mut self.replicas[at].running {
                    running.data_plane.node.transfer_leader(to);
                }
            }
            104..108 => {
                let choked = self.rng.random_bool(0.5);
                if let Some(running) = &mut self.replicas[at].running {
                    for end in running.links().ends.values_mut() {
                        end.choked = choked;
                    }
                }
            }
            108..114 => self.wipe(at),
            // All at once, the worst for what is not synced.
            114..117 => (0..self.replicas.len()).for_each(|at| self.crash(at, true)),
            117..157 => self.begin_checkpoint(at),
            200..260 => self.start_if_down(at),
            260..400 => self.change_members(),
            _ => {}
        }
    }

    pub(super) fn begin_checkpoint(&mut self, at: usize) {
        if let Some(running) = &mut self.replicas[at].running
            && self.scenario.checkpoints
            && !running.parking
        {
            running.parking = true;
            running.shared.inbox.add(Work::Park);
        }
    }

    pub(super) fn start_if_down(&mut self, at: usize) {
        let replica = &self.replicas[at];
        if replica.running.is_none() && replica.begun && !replica.gone {
            self.start(at);
        }
    }

    /// A disk is replaced, if all others are well: what a majority lost nobody
    /// can bring back.
    pub(super) fn wipe(&mut self, at: usize) {
        let well = |r: &Replica| {
            let node = r.running.as_ref().map(|running| &running.data_plane.node);
            node.is_some_and(|n| n.standing() == Standing::Voter) && r.wants.is_none()
        };
        let members = self.members();
        let member = |i: usize| members.contains(&(i as u8 + 1));
        let others = self.replicas.iter().enumerate();
        let mut others = others.filter(|(i, _)| *i != at && member(*i));
        let planted = self.scenario.forgetful_voters;
        if self.scenario.wipes && member(at) && (planted || others.all(|(_, r)| well(r))) {
            self.crash(at, true);
            self.replicas[at].disk.wipe();
            self.replicas[at].checkpoint = None;
            self.figures.wipes += 1;
        }
    }

    /// A while in which everything goes wrong.
    pub fn trouble(&mut self) {
        // A change takes several agreements and a replica that catches up.
        let longer = if self.scenario.changes { 3 } else { 1 };
        let end = self.now() + longer * TROUBLE;
        while self.now() < end {
            self.advance();
        }
    }
}
