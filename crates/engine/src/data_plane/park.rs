//! Checkpoints: the program stands still while the log goes on, and goes on from
//! where another stood still.

use super::DataPlane;
use crate::host::{Host, Links};
use crate::share::Share;
use crate::shared::lock;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it is looked whether the program stands still.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long it may take to: a busy program ends what it was given first.
const PATIENCE: Duration = Duration::from_secs(20);

impl<H: Host> DataPlane<'_, H> {
    /// Starts from a checkpoint instead of from an empty state.
    pub(super) fn go_on_from(&mut self, share: &Share) {
        self.core.hold = true;
        self.core.filter = share.filter();
        if self.core.keeps_tails {
            // What was said before is in nobody's memory here.
            for (conn, _) in self.core.filter.moves.all() {
                self.shared.table.tails().open_late(conn);
            }
        }
        self.core.applied = (share.index, share.term);
        self.core.publisher.go_on_after(share.epoch);
        lock(&self.shared.history).add(share.done());
        self.shared.done_epoch.store(share.epoch, Ordering::SeqCst);
        self.host.announce(share);
        let from = self.config.checkpoint.as_ref();
        if from.is_some_and(|from| from.segment.is_some()) {
            self.shared.attached.store(true, Ordering::SeqCst);
            self.shared.restored.store(true, Ordering::SeqCst);
            self.shared
                .notices
                .add("restored", json!({ "index": share.index }));
        }
    }

    /// No more epochs are given to the program.
    pub(super) fn begin_parking(&mut self) {
        let alone = self.core.peers.ids().next().is_none();
        let why = if self.node.is_leader() && !alone {
            "this replica leads; ask another one"
        } else if !self.catch_up.is_done() {
            "this replica has not caught up; try again later"
        } else if self.has_shared_words() {
            "its threads wait for words of memory that processes share (futex(2)), which a \
             checkpoint does not keep"
        } else if self.parking.is_some() {
            "a checkpoint is being taken already"
        } else {
            self.core.hold = true;
            self.parking = Some(self.host.now());
            return;
        };
        self.shared
            .notices
            .add("unparked", json!({ "message": why }));
    }

    fn has_shared_words(&self) -> bool {
        self.shared
            .segment
            .header()
            .shared_words
            .load(Ordering::Relaxed)
            != 0
    }

    /// The program goes on. The owner is told if it did not ask for it.
    pub(super) fn end_parking(&mut self) {
        if self.parking.take().is_none() {
            return;
        }
        if self.shared.parked.swap(false, Ordering::SeqCst) || self.core.hold {
            let why = "the replica leads now, and its program is needed";
            if self.node.is_leader() {
                self.shared
                    .notices
                    .add("unparked", json!({ "message": why }));
            }
        }
        self.core.hold = false;
        self.shared.interest.epoch.store(u64::MAX, Ordering::SeqCst);
        self.shared.make_known();
    }

    /// When to look again whether the program stands still.
    pub(super) fn next_look_at_parking(&self) -> Option<Instant> {
        let looking = self.parking.is_some() && !self.shared.parked.load(Ordering::SeqCst);
        looking.then(|| self.host.now() + LOOK_EVERY)
    }

    /// Tells the owner when the program stands still, or does not come to it.
    pub(super) fn park(&mut self) {
        let Some(since) = self.parking else {
            if self.core.hold && !self.shared.restoring.load(Ordering::SeqCst) {
                self.core.hold = false;
            }
            return;
        };
        if !self.core.hold || self.shared.parked.load(Ordering::SeqCst) {
            return;
        }
        if self.host.now() > since + PATIENCE {
            self.parking = None;
            self.core.hold = false;
            let why = "the program does not come to the end of an epoch; try again later";
            self.shared
                .notices
                .add("unparked", json!({ "message": why }));
            return;
        }
        // The wish first, then the look: see `Interest`.
        let epoch = self.core.publisher.last();
        self.shared.interest.epoch.store(epoch, Ordering::SeqCst);
        self.shared.make_known();
        let stands = self.core.publisher.is_drained()
            && self.shared.done_epoch.load(Ordering::SeqCst) == epoch
            && self.shared.segment.is_parked(epoch);
        let newest = lock(&self.shared.history).newest();
        let Some(done) = newest.filter(|done| stands && done.epoch == epoch) else {
            return;
        };
        let mut share = Share::new(self.core.applied, done, &self.core.filter);
        share.cluster = self.config.cluster();
        share.members = self.node.log().membership_at(share.index).clone();
        self.host.announced(&mut share);
        self.shared.parked.store(true, Ordering::SeqCst);
        self.shared
            .notices
            .add("parked", json!({ "share": share.encode() }));
    }

    /// Tells the owner that this replica can only go on from a checkpoint.
    pub(super) fn ask_for_checkpoint(&mut self, index: u64) {
        self.end_parking();
        self.shared
            .notices
            .add("needs_checkpoint", json!({ "index": index }));
    }
}
