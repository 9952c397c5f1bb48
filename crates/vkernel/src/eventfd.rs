//! Event counters.

use crate::desc::Kind;
use crate::readiness::{ERR, IN, OUT, Wake};
use crate::table::record;
use crate::{DescId, Errno, Host, Result, VKernel};

record! {
    pub(crate) struct EventFd {
        count: u64,
        /// 1 for `EFD_SEMAPHORE`.
        semaphore: u64,
    }
}

impl VKernel {
    /// An event counter with one reference. `flags` become its status flags.
    pub fn eventfd(&mut self, initial: u32, semaphore: bool, flags: u32) -> Result<DescId> {
        let id = self.desc_alloc(Kind::EventFd)?;
        self.descs[id].flags = flags | libc::O_RDWR as u32;
        self.eventfds[id].count = u64::from(initial);
        self.eventfds[id].semaphore = u64::from(semaphore);
        Ok(DescId::from_raw(id))
    }

    fn eventfd_id(&self, desc: DescId) -> Result<u32> {
        if self.kind(desc)? == Kind::EventFd {
            Ok(desc.raw())
        } else {
            Err(Errno::INVAL)
        }
    }

    /// Takes the count, or 1 of it in semaphore mode; `EAGAIN` at 0.
    pub fn eventfd_read<H: Host + ?Sized>(&mut self, host: &mut H, desc: DescId) -> Result<u64> {
        let id = self.eventfd_id(desc)?;
        let event = &mut self.eventfds[id];
        let value = match event.count {
            0 => return Err(Errno::AGAIN),
            _ if event.semaphore != 0 => 1,
            count => count,
        };
        event.count -= value;
        self.notify(host, id, OUT, Wake::All);
        Ok(value)
    }

    /// Adds `value`; `EINVAL` for `u64::MAX`, `EAGAIN` if the sum would reach
    /// that.
    pub fn eventfd_write<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        value: u64,
    ) -> Result<()> {
        let id = self.eventfd_id(desc)?;
        let event = &mut self.eventfds[id];
        if value == u64::MAX {
            return Err(Errno::INVAL);
        }
        if u64::MAX - event.count <= value {
            return Err(Errno::AGAIN);
        }
        event.count += value;
        self.notify(host, id, IN, Wake::All);
        Ok(())
    }

    pub(crate) fn eventfd_mask(&self, id: u32) -> u32 {
        let count = self.eventfds[id].count;
        let mut mask = 0;
        if count > 0 {
            mask |= IN;
        }
        if count == u64::MAX {
            mask |= ERR;
        }
        if count < u64::MAX - 1 {
            mask |= OUT;
        }
        mask
    }
}
