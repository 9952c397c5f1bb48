//! Descriptor tables of the processes.
//!
//! Numbers are chosen by the real kernel (the caller keeps a placeholder
//! there); a table only says which of them are virtual, and what they are.

use crate::table::record;
use crate::{DescId, Errno, Host, ProcId, Result, VKernel};

/// Marks close-on-exec in a table entry.
const CLOEXEC: u32 = 1 << 31;

record! {
    pub(crate) struct Proc {
        /// One more than the highest descriptor in use.
        high: u32,
        open: u32,
    }
}

impl VKernel {
    fn fd_index(&self, proc: ProcId, fd: i32) -> Result<u32> {
        let per_proc = self.header[0].limits.fds_per_proc;
        let fd = u32::try_from(fd).map_err(|_| Errno::BADF)?;
        if proc >= self.procs.len() || fd >= per_proc {
            return Err(Errno::BADF);
        }
        Ok(proc * per_proc + fd)
    }

    /// Puts `desc` at `fd`, which takes over the caller's reference. Whatever
    /// was at `fd` is closed first. On an error the reference stays the
    /// caller's.
    ///
    /// # Errors
    ///
    /// `EMFILE` if `fd` is beyond the table, `EBADF` for a bad `desc`.
    pub fn fd_install<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        proc: ProcId,
        fd: i32,
        desc: DescId,
        cloexec: bool,
    ) -> Result<()> {
        self.kind(desc)?;
        let at = self.fd_index(proc, fd).map_err(|_| Errno::MFILE)?;
        if self.fds[at] != 0 {
            self.fd_close(host, proc, fd)?;
        }
        self.fds[at] = desc.raw() | if cloexec { CLOEXEC } else { 0 };
        let proc = &mut self.procs[proc];
        proc.high = proc.high.max(fd as u32 + 1);
        proc.open += 1;
        Ok(())
    }

    /// What is at `fd`, if it is virtual.
    #[must_use]
    pub fn fd_get(&self, proc: ProcId, fd: i32) -> Option<DescId> {
        let at = self.fd_index(proc, fd).ok()?;
        match self.fds[at] & !CLOEXEC {
            0 => None,
            raw => Some(DescId::from_raw(raw)),
        }
    }

    /// Whether `fd` closes at exec; `EBADF` if it is not virtual.
    pub fn fd_cloexec(&self, proc: ProcId, fd: i32) -> Result<bool> {
        let at = self.fd_index(proc, fd)?;
        match self.fds[at] {
            0 => Err(Errno::BADF),
            entry => Ok(entry & CLOEXEC != 0),
        }
    }

    /// Sets close-on-exec.
    pub fn fd_set_cloexec(&mut self, proc: ProcId, fd: i32, cloexec: bool) -> Result<()> {
        let at = self.fd_index(proc, fd)?;
        match self.fds[at] & !CLOEXEC {
            0 => Err(Errno::BADF),
            raw => {
                self.fds[at] = raw | if cloexec { CLOEXEC } else { 0 };
                Ok(())
            }
        }
    }

    /// Makes `new` refer to what is at `old`, closing what was at `new`. Does
    /// nothing if they are equal, as `dup2`.
    pub fn fd_dup<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        proc: ProcId,
        old: i32,
        new: i32,
        cloexec: bool,
    ) -> Result<()> {
        let desc = self.fd_get(proc, old).ok_or(Errno::BADF)?;
        if old == new {
            return Ok(());
        }
        self.fd_index(proc, new)?;
        self.desc_hold(desc)?;
        self.fd_install(host, proc, new, desc, cloexec)
    }

    /// Closes `fd`; the last reference closes the object.
    pub fn fd_close<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        proc: ProcId,
        fd: i32,
    ) -> Result<()> {
        let at = self.fd_index(proc, fd)?;
        let desc = self.fd_get(proc, fd).ok_or(Errno::BADF)?;
        self.fds[at] = 0;
        let base = at - fd as u32;
        let entry = &mut self.procs[proc];
        entry.open -= 1;
        if entry.open == 0 {
            entry.high = 0;
        }
        while entry.high > 0 && self.fds[base + entry.high - 1] == 0 {
            entry.high -= 1;
        }
        self.desc_release(host, desc)
    }

    /// Number of virtual descriptors of a process.
    #[must_use]
    pub fn fd_count(&self, proc: ProcId) -> u32 {
        if proc < self.procs.len() {
            self.procs[proc].open
        } else {
            0
        }
    }

    /// The first virtual descriptor at or above `from`.
    #[must_use]
    pub fn fd_next(&self, proc: ProcId, from: i32) -> Option<i32> {
        if proc >= self.procs.len() {
            return None;
        }
        let high = self.procs[proc].high as i32;
        (from.max(0)..high).find(|fd| self.fd_get(proc, *fd).is_some())
    }

    /// Copies the parent's table to a child that has none.
    ///
    /// # Errors
    ///
    /// `EBADF` for a process out of range, `EEXIST` if the child has
    /// descriptors already.
    pub fn fork(&mut self, parent: ProcId, child: ProcId) -> Result<()> {
        let from = self.fd_index(parent, 0)?;
        let to = self.fd_index(child, 0)?;
        if self.procs[child].open != 0 || parent == child {
            return Err(Errno::EXIST);
        }
        for offset in 0..self.procs[parent].high {
            let entry = self.fds[from + offset];
            if entry != 0 {
                self.fds[to + offset] = entry;
                self.descs[entry & !CLOEXEC].refs += 1;
            }
        }
        self.procs[child] = self.procs[parent];
        Ok(())
    }

    /// Closes the descriptors marked close-on-exec, lowest first, and tells
    /// `closed` which they were.
    pub fn exec<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        proc: ProcId,
        mut closed: impl FnMut(i32),
    ) -> Result<()> {
        let base = self.fd_index(proc, 0)?;
        for fd in 0..self.procs[proc].high {
            if self.fds[base + fd] & CLOEXEC != 0 {
                self.fd_close(host, proc, fd as i32)?;
                closed(fd as i32);
            }
        }
        Ok(())
    }

    /// Closes all descriptors of a process that ended, lowest first, as Linux.
    pub fn exit<H: Host + ?Sized>(&mut self, host: &mut H, proc: ProcId) -> Result<()> {
        self.fd_index(proc, 0)?;
        let mut from = 0;
        while let Some(fd) = self.fd_next(proc, from) {
            self.fd_close(host, proc, fd)?;
            from = fd + 1;
        }
        Ok(())
    }
}
