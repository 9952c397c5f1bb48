//! What time it is for the program, and what the replicas tell each other of it.

use super::DataPlane;
use crate::host::{Host, Links};
use crate::message::ToGateway;
use crane_consensus::wire::kind;
use std::time::Duration;

/// How often a follower tells its clock. It is told with what is said anyway.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl<H: Host> DataPlane<'_, H> {
    /// Tells the leader what this replica's wall clock shows.
    pub(super) fn tell_clock(&mut self) {
        let leader = self.node.leader().and_then(|l| u8::try_from(l).ok());
        let Some(leader) = leader.filter(|&l| l != self.config.id) else {
            return;
        };
        let now = self.host.now();
        let told = self.told_clock;
        if told.is_some_and(|(whom, when)| whom == leader && now < when + TELL_EVERY) {
            return;
        }
        let message = ToGateway::Clock(self.host.wall_clock()).encode();
        if self.core.peers.add(leader, kind::GATEWAY, &message) {
            self.told_clock = Some((leader, now));
        }
    }

    /// Another replica's wall clock shows `wall`.
    pub(super) fn hear_clock(&mut self, peer: u8, wall: u64) {
        let now = self.host.now();
        self.timekeeper.heard(peer, wall, now);
    }

    /// What time it is for the program now, on a leader; the alarm goes by it.
    pub(super) fn virtual_time(&mut self) -> u64 {
        let (wall, instant) = (self.host.wall_clock(), self.host.now());
        let Some(view) = self.leading.view() else {
            self.timekeeper.reset();
            return wall;
        };
        let least = view.last_time();
        let now = self.timekeeper.now(wall, instant, least);
        self.shared.alarm.adjust(now);
        let error = self.timekeeper.error(wall, instant);
        if (error != 0) != self.clock_is_wrong {
            self.clock_is_wrong = error != 0;
            if error != 0 {
                let way = if error > 0 { "ahead of" } else { "behind" };
                let seconds = Duration::from_nanos(error.unsigned_abs()).as_secs_f64();
                self.shared.notices.warn(format!(
                    "this machine's clock is {seconds:.0} s {way} the other replicas'; the program's \
                     time goes by theirs; set the clock"
                ));
            }
        }
        now
    }
}
