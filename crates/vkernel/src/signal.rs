//! Objects whose state the caller keeps but which epoll and poll must see:
//! signalfd, inotify, and whatever else becomes ready by an event of the log.

use crate::desc::Kind;
use crate::readiness::Wake;
use crate::table::record;
use crate::{DescId, Errno, Host, Result, VKernel};

record! {
    pub(crate) struct Pollable {
        /// What `readiness` returns.
        pub(crate) ready: u32,
        pad: u32,
        /// The caller's own word.
        tag: u64,
    }
}

impl VKernel {
    /// A description whose readiness the caller decides; `tag` is the
    /// caller's to find its own state.
    pub fn pollable(&mut self, tag: u64, flags: u32) -> Result<DescId> {
        let id = self.desc_alloc(Kind::Pollable)?;
        self.descs[id].flags = flags;
        self.pollables[id].tag = tag;
        Ok(DescId::from_raw(id))
    }

    fn pollable_id(&self, desc: DescId) -> Result<u32> {
        if self.kind(desc)? == Kind::Pollable {
            Ok(desc.raw())
        } else {
            Err(Errno::INVAL)
        }
    }

    /// The caller's word.
    pub fn pollable_tag(&self, desc: DescId) -> Result<u64> {
        Ok(self.pollables[self.pollable_id(desc)?].tag)
    }

    /// Sets what is ready and tells the waiters about all of it, so that an
    /// edge-triggered watch sees every new event.
    pub fn pollable_set<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        ready: u32,
    ) -> Result<()> {
        let id = self.pollable_id(desc)?;
        self.pollables[id].ready = ready;
        if ready != 0 {
            self.notify(host, id, ready, Wake::All);
        }
        Ok(())
    }

    /// As `pollable_set`, of all that have this tag.
    pub fn pollable_set_all<H: Host + ?Sized>(&mut self, host: &mut H, tag: u64, ready: u32) {
        for id in 1..=self.header[0].desc_fresh {
            let desc = DescId::from_raw(id);
            if self.pollable_tag(desc) == Ok(tag) {
                let _ = self.pollable_set(host, desc, ready);
            }
        }
    }
}
