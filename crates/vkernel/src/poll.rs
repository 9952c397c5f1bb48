//! poll and select: threads registered with several descriptions at once.

use crate::epoll::ON_OWNER;
use crate::readiness::{ERR, HUP};
use crate::table::{List, record};
use crate::{DescId, Errno, Host, Result, VKernel};

record! {
    /// A thread's registrations.
    pub(crate) struct Poller {
        watches: List,
        /// 1 after `Host::wake_thread`, until the registrations end.
        woken: u32,
    }
}

impl VKernel {
    /// Registers `thread` (below [`crate::Limits::threads`]) to be woken with
    /// `Host::wake_thread` when one of `events` (or an error or hang-up) may
    /// have happened on `desc`. Does not look at what is ready already: ask
    /// `readiness` for every description before sleeping.
    ///
    /// # Errors
    ///
    /// `EBADF`; `EINVAL` for a thread out of range; `ENOMEM` when watches are
    /// used up.
    pub fn poll_register(&mut self, thread: u32, desc: DescId, events: u32) -> Result<()> {
        self.kind(desc)?;
        if thread >= self.pollers.len() {
            return Err(Errno::INVAL);
        }
        let id = self.watch_alloc(desc.raw(), false)?;
        let watch = &mut self.watches[id];
        watch.thread = thread + 1;
        watch.events = events | ERR | HUP;
        self.pollers[thread]
            .watches
            .push_back::<ON_OWNER, _>(&mut self.watches, id);
        Ok(())
    }

    /// Ends all registrations of `thread`, after it woke for any reason.
    pub fn poll_unregister_all(&mut self, thread: u32) {
        if thread >= self.pollers.len() {
            return;
        }
        while let Some(id) = self.pollers[thread]
            .watches
            .pop_front::<ON_OWNER, _>(&mut self.watches)
        {
            self.watch_free(id);
        }
        self.pollers[thread].woken = 0;
    }

    /// Wakes a poller, at most once per round of registrations.
    pub(crate) fn wake_poller<H: Host + ?Sized>(&mut self, host: &mut H, thread: u32) {
        let poller = &mut self.pollers[thread];
        if poller.woken == 0 {
            poller.woken = 1;
            host.wake_thread(thread);
        }
    }

    /// Takes a poll registration out of its thread's list.
    pub(crate) fn leave_poller(&mut self, thread: u32, id: u32) {
        self.pollers[thread]
            .watches
            .remove::<ON_OWNER, _>(&mut self.watches, id);
    }
}
