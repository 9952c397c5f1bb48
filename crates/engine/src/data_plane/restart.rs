//! A program that ended by its own fault, on every replica at the same place: the
//! log says where it begins anew.
//!
//! That is as if there were a checkpoint without processes: the owner ends this
//! engine, and begins another one with a fresh segment and the share told here.

use super::DataPlane;
use crate::host::Host;
use crate::share::Share;
use crane_channel::output::EpochDone;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a leader's program may live on after those of a majority.
const ODD_FOR: Duration = Duration::from_secs(2);

impl<H: Host> DataPlane<'_, H> {
    /// Whether the program that has ended is to begin anew.
    pub(super) fn begins_anew(&self) -> bool {
        self.config.restart && self.shared.crashed.load(Ordering::SeqCst)
    }

    /// The program has ended.
    pub(super) fn server_gone(&mut self) {
        if self.begins_anew() {
            self.comparing.crashed(self.life, &mut self.core.peers);
        } else {
            self.hand_over();
        }
    }

    /// Proposes that the program begins anew, when it is time and a majority of
    /// the programs have ended: what ended here alone is another matter.
    pub(super) fn propose_restart(&mut self) {
        let life = self.life;
        if self.restart_due
            && self.node.is_leader()
            && self.held.is_none()
            && !self.core.over
            && self.comparing.have_crashed(life)
        {
            let now = self.virtual_time();
            self.held = self.leading.restart(life, now);
        }
    }

    /// A leader whose own program lives while those of a majority have ended by
    /// their fault is slow to come there, or wrong: one of them says what follows.
    pub(super) fn watch_crashes(&mut self, now: Instant) {
        let life = self.life;
        let odd = self.config.restart
            && self.node.is_leader()
            && !self.core.over
            && !self.comparing.has_crashed(self.config.id, life)
            && self.comparing.have_crashed(life);
        if !odd {
            self.odd_since = None;
            return;
        }
        let since = *self.odd_since.get_or_insert(now);
        let recently = |at: Instant| now < at + ODD_FOR;
        if recently(since) || self.handed_over_at.is_some_and(recently) {
            return;
        }
        let ended = |id: u64| u8::try_from(id).is_ok_and(|id| self.comparing.has_crashed(id, life));
        let progress = self.node.progress();
        let there = progress
            .iter()
            .filter(|p| p.recent_active && !p.learner && ended(p.id));
        if let Some(best) = there.max_by_key(|p| p.matched) {
            self.hand_over_to(best.id);
        }
    }

    /// Tells the owner that the log has come to where the program begins anew.
    pub(super) fn tell_restart(&mut self) {
        if !self.core.over || self.over_told {
            return;
        }
        self.over_told = true;
        // The end of the program is in no epoch, so nothing is said of it; the
        // program begins with nothing done and nothing said.
        let done = EpochDone {
            epoch: self.core.publisher.last(),
            clock: 0,
            output_hash: 0,
            schedule_hash: 0,
        };
        let share = Share::new(self.core.applied, done, &self.core.filter);
        self.shared.notices.add(
            "restart",
            json!({ "index": share.index, "life": self.core.filter.life(), "share": share.encode() }),
        );
    }
}
