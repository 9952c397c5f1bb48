//! What follows for clients when replicas differ, see [`crate::agreement`].

use super::DataPlane;
use crate::agreement::Consequence;
use crate::host::Host;
use crate::shared::lock;
use crane_channel::ring::Consumer;
use std::sync::atomic::Ordering;

impl<H: Host> DataPlane<'_, H> {
    /// Acts on what the comparison came to.
    pub(super) fn draw(&mut self, consequence: Option<Consequence>) -> Result<(), String> {
        match consequence {
            None => {}
            Some(Consequence::Distrust) => {
                // The thread that writes to clients must not begin another one.
                self.shared.distrusted.store(true, Ordering::SeqCst);
                self.cut_off()?;
                self.hand_over();
            }
            Some(Consequence::Suspend(why)) => {
                lock(&self.shared.agreement).suspended = Some(why);
                self.cut_off()?;
            }
            Some(Consequence::Resume) => {
                lock(&self.shared.agreement).suspended = None;
                if self.catch_up.is_done() {
                    self.host.open()?;
                }
            }
        }
        Ok(())
    }

    /// Ends all clients' connections at once and lets nobody in.
    fn cut_off(&mut self) -> Result<(), String> {
        self.host.close();
        if self.catch_up.is_done() {
            let next = self.clients.stream_ref().incarnation() + 1;
            self.begin_incarnation(next)?;
        }
        Ok(())
    }

    /// Lets output leave that other replicas have come to as well.
    pub(super) fn vote(&mut self) {
        let peers = &mut self.core.peers;
        if let Some(epoch) = self.comparing.vote(self.shared, peers) {
            self.shared.confirmed.store(epoch, Ordering::SeqCst);
            Consumer::interrupt(&self.shared.segment.header().output);
        }
    }
}
