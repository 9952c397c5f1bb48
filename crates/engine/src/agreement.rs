//! Comparing hashes with the other replicas.

use crate::history::{Comparison, Disagreement, Report};
use crate::host::Links;
use crate::shared::{Shared, lock};
use crane_consensus::wire::kind;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between reports while many epochs go on, and while few do.
const REPORT_EVERY: Duration = Duration::from_millis(250);
const REPORT_NOW_AND_THEN: Duration = Duration::from_millis(500);
/// Epochs since the last report that are few.
const FEW: u64 = 16;
/// A report waits for so long for something else to wake this thread, and the
/// other replica with it.
const PATIENCE: Duration = Duration::from_millis(250);

/// This replica's part in the comparison.
pub struct Comparing {
    reported_at: Instant,
    reported: u64,
    /// Reports of epochs that this replica has not done yet, the latest of each.
    later: BTreeMap<u8, Report>,
    looked_at: u64,
    /// Replicas that were sent everything because of a difference.
    told_all: Vec<u8>,
}

impl Comparing {
    /// Nothing compared yet.
    pub fn new(now: Instant) -> Self {
        Self {
            reported_at: now,
            reported: 0,
            later: BTreeMap::new(),
            looked_at: 0,
            told_all: Vec::new(),
        }
    }

    /// When [`tick`](Self::tick) has something to do; `None` while there is no
    /// news.
    pub fn next(&self, shared: &Shared, now: Instant) -> Option<Instant> {
        let newest = shared.segment.header().epoch.load(Ordering::Relaxed);
        if newest != self.looked_at && !self.later.is_empty() {
            return Some(now);
        }
        (newest != self.reported).then(|| self.reported_at + self.pause(newest) + PATIENCE)
    }

    /// Time between the last report and the next.
    fn pause(&self, newest: u64) -> Duration {
        if newest < self.reported + FEW {
            REPORT_NOW_AND_THEN
        } else {
            REPORT_EVERY
        }
    }

    /// Reports if it is time and there is news; also looks again at what was too
    /// new. An idle replica has no news, so reports end with activity.
    pub fn tick(&mut self, shared: &Shared, peers: &mut impl Links, now: Instant) {
        let Some(newest) = lock(&shared.history).newest().map(|d| d.epoch) else {
            return;
        };
        if newest != self.looked_at && !self.later.is_empty() {
            self.looked_at = newest;
            for (peer, report) in std::mem::take(&mut self.later) {
                self.compare(peer, report, shared, peers);
            }
        }
        // The last of a row of epochs are not told of by themselves.
        if newest == self.reported || !self.later.is_empty() {
            shared.has_heard_all();
        }
        if newest != self.reported && now >= self.reported_at + self.pause(newest) {
            self.reported = newest;
            self.reported_at = now;
            let report = lock(&shared.history).report(false);
            let ids: Vec<u8> = peers.ids().collect();
            for peer in ids {
                peers.add(peer, kind::HASHES, &report);
            }
        }
    }

    /// A replica connected: what was told to its last connection may be lost.
    pub fn connected(&mut self, peer: u8) {
        self.reported = 0;
        self.told_all.retain(|&p| p != peer);
    }

    /// Compares a report of `peer`.
    pub fn compare(&mut self, peer: u8, report: Report, shared: &Shared, peers: &mut impl Links) {
        let comparison = lock(&shared.history).compare(peer, &report);
        match comparison {
            Comparison::Nothing => {}
            Comparison::Later => {
                self.later.insert(peer, report);
            }
            Comparison::Same => {
                lock(&shared.agreement).agrees.get_or_insert(true);
            }
            Comparison::Differs(found) => {
                note(shared, found, report.all);
                if !self.told_all.contains(&peer) {
                    self.told_all.push(peer);
                    let all = lock(&shared.history).report(true);
                    peers.add(peer, kind::HASHES, &all);
                }
            }
        }
    }
}

/// Notes a difference; told to the owner when it is the first, and again when a
/// full comparison shows that it began earlier.
fn note(shared: &Shared, found: Disagreement, full: bool) {
    let mut agreement = lock(&shared.agreement);
    agreement.agrees = Some(false);
    let earlier = |known: &Disagreement| found.epoch < known.epoch;
    if agreement.disagreement.as_ref().is_none_or(earlier) {
        agreement.disagreement = Some(found);
        let Disagreement {
            epoch,
            peer,
            output,
        } = found;
        let message = format!(
            "this replica and replica {peer} came to different results in epoch {epoch}{}",
            if output {
                ": clients may get different answers"
            } else {
                ""
            }
        );
        shared.notices.add(
            "disagreement",
            json!({ "epoch": epoch, "peer": peer, "output": output, "first": full, "message": message }),
        );
    }
}
