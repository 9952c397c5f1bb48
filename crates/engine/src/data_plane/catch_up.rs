//! Until when a replica that starts lets no clients in.

use super::DataPlane;
use crate::host::Host;
use crate::shared::lock;
use serde_json::json;
use std::sync::atomic::Ordering;

/// Largest incarnation that a connection id has room for.
const LAST_INCARNATION: u32 = 0xff_ffff;

/// How far the replica must come before it takes clients: to where the log was
/// when it first heard of a leader.
#[derive(Default)]
pub struct CatchUp {
    /// Log index to apply.
    target: Option<u64>,
    /// Epoch that the server must then do.
    epoch: Option<u64>,
    done: bool,
}

impl CatchUp {
    /// A leader says how far the log goes; only the first counts.
    pub fn aim(&mut self, index: u64) {
        self.target.get_or_insert(index);
    }

    /// Whether the replica has caught up.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

impl<H: Host> DataPlane<'_, H> {
    /// Lets clients in once the server has done everything that was in the log
    /// when the replica started.
    pub(super) fn check_caught_up(&mut self) -> Result<(), String> {
        let applied = self.core.applied.0;
        if self.catch_up.done || self.catch_up.target.is_none_or(|t| applied < t) {
            return Ok(());
        }
        let last = self.core.publisher.last();
        let epoch = *self.catch_up.epoch.get_or_insert(last);
        // The wish first, then the look: see `Interest`.
        self.shared.interest.epoch.store(epoch, Ordering::SeqCst);
        self.shared.make_known();
        if self.shared.done_epoch.load(Ordering::SeqCst) < epoch {
            return Ok(());
        }
        self.shared.interest.epoch.store(u64::MAX, Ordering::SeqCst);
        self.catch_up.done = true;
        // What the server said before that epoch was handled, or is in the inbox.
        self.do_work()?;
        // Nothing of an earlier start can come into the log any more with a
        // number above those it has: the leader that named the target had
        // dropped what it held of this replica's old connections.
        let known = self.core.filter.gateway(self.config.id).incarnation;
        self.begin_incarnation((known + 1).max(self.node.incarnation()))?;
        self.shared
            .notices
            .add("caught_up", json!({ "applied": applied, "epoch": epoch }));
        let suspended = lock(&self.shared.agreement).suspended.is_some();
        if !suspended && !self.shared.distrusted.load(Ordering::SeqCst) {
            self.host.open()?;
        }
        Ok(())
    }

    /// Starts the gateway as `incarnation`, without clients.
    pub(super) fn begin_incarnation(&mut self, incarnation: u32) -> Result<(), String> {
        if incarnation > LAST_INCARNATION {
            return Err(format!(
                "this replica's gateway has started {LAST_INCARNATION} times, which is the limit; \
                 replace the replica by one with a new id"
            ));
        }
        self.clients.start_afresh(incarnation);
        self.gateways.started(self.config.id, incarnation);
        if let Some(leader) = self.node.leader().and_then(|l| u8::try_from(l).ok()) {
            self.greet_leader(leader);
        }
        lock(&self.shared.figures).connections = 0;
        Ok(())
    }
}
