//! Pipes, with page slots as in `fs/pipe.c`.

use crate::buffer::{ByteQueue, CHUNK};
use crate::desc::Kind;
use crate::iov::{Gather, Scatter};
use crate::readiness::{ERR, HUP, IN, OUT, RDNORM, WRNORM, Wake};
use crate::table::record;
use crate::{DescId, Dir, Errno, Host, Result, VKernel, wait_key};

/// 64 KiB, as Linux.
const DEFAULT_SLOTS: u32 = 16;
/// `/proc/sys/fs/pipe-max-size`: 1 MiB.
const MAX_SIZE: usize = 1 << 20;

record! {
    /// One end. The read end has the bytes.
    pub(crate) struct Pipe {
        pub(crate) queue: ByteQueue,
        /// Pages that the pipe may hold; kept equal at both ends.
        pub(crate) slots: u32,
        /// The other end, 0 when closed.
        pub(crate) other: u32,
        /// Write end only: pages and bytes that were in the pipe when the read
        /// end closed. Linux keeps them until the write end closes too.
        left_chunks: u32,
        left_bytes: u32,
    }
}

impl VKernel {
    /// A pipe: read end and write end, each with one reference.
    ///
    /// # Errors
    ///
    /// `EINVAL` for packet mode (`O_DIRECT`), which is not supported; `ENFILE`.
    pub fn pipe(&mut self, flags: u32) -> Result<(DescId, DescId)> {
        if flags & libc::O_DIRECT as u32 != 0 {
            return Err(Errno::INVAL);
        }
        if self.header[0].desc_used + 2 >= self.descs.len() {
            return Err(Errno::NFILE);
        }
        let reader = self.desc_alloc(Kind::PipeRead)?;
        let writer = self.desc_alloc(Kind::PipeWrite)?;
        for (id, other, access) in [
            (reader, writer, libc::O_RDONLY),
            (writer, reader, libc::O_WRONLY),
        ] {
            self.descs[id].flags = flags | access as u32;
            self.pipes[id].other = other;
            self.pipes[id].slots = DEFAULT_SLOTS;
        }
        Ok((DescId::from_raw(reader), DescId::from_raw(writer)))
    }

    pub(crate) fn is_full(&self, reader: u32) -> bool {
        let pipe = &self.pipes[reader];
        pipe.queue.chunks >= pipe.slots
    }

    pub(crate) fn pipe_bytes(&self, id: u32) -> usize {
        let pipe = &self.pipes[id];
        match self.kind_of(id) {
            Some(Kind::PipeWrite) if pipe.other == 0 => pipe.left_bytes as usize,
            Some(Kind::PipeWrite) => self.pipes[pipe.other].queue.bytes as usize,
            _ => pipe.queue.bytes as usize,
        }
    }

    pub(crate) fn pipe_mask(&self, id: u32) -> u32 {
        let pipe = &self.pipes[id];
        if self.kind_of(id) == Some(Kind::PipeRead) {
            let data = if pipe.queue.chunks > 0 {
                IN | RDNORM
            } else {
                0
            };
            return data | if pipe.other == 0 { HUP } else { 0 };
        }
        let full = if pipe.other == 0 {
            pipe.left_chunks >= pipe.slots
        } else {
            self.is_full(pipe.other)
        };
        let space = if full { 0 } else { OUT | WRNORM };
        space | if pipe.other == 0 { ERR } else { 0 }
    }

    pub(crate) fn pipe_read<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        mut to: Scatter<'_>,
    ) -> Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        let id = desc.raw();
        let was_full = self.is_full(id);
        let pipe = &mut self.pipes[id];
        let other = pipe.other;
        if pipe.queue.chunks == 0 {
            return if other == 0 { Ok(0) } else { Err(Errno::AGAIN) };
        }
        let want = to.len();
        let len = self.pool.pop(&mut pipe.queue, &mut to, want);
        let more = pipe.queue.chunks > 0;
        if other != 0 && was_full && !self.is_full(id) {
            self.notify(host, other, OUT | WRNORM, Wake::One);
        }
        if more {
            // One write wakes one reader, who leaves the rest to the next.
            host.wake_one(wait_key(desc, Dir::Read));
        }
        Ok(len)
    }

    /// Up to `PIPE_BUF` bytes go in whole or not at all.
    pub(crate) fn pipe_write<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        mut data: Gather<'_>,
    ) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let reader = self.pipes[desc.raw()].other;
        if reader == 0 {
            return Err(Errno::PIPE);
        }
        let total = data.len();
        let slots = self.pipes[reader].slots;
        let queue = &mut self.pipes[reader].queue;
        // Linux first tries to put the odd bytes into the last page, so that
        // the rest is whole pages.
        let odd = total % CHUNK;
        if odd > 0 && queue.chunks > 0 {
            self.pool.merge(queue, &mut data, odd);
        }
        let mut lack = None;
        while !data.is_empty() && queue.chunks < slots {
            if let Err(error) = self.pool.push_slot(queue, &mut data) {
                lack = Some(error);
                break;
            }
        }
        let full = queue.chunks >= slots;
        let done = total - data.len();
        if done == 0 {
            // Linux tells watchers of the read end even of a write that found
            // no room.
            self.run_watches(host, reader, IN | RDNORM, Wake::One);
            return Err(lack.unwrap_or(Errno::AGAIN));
        }
        self.notify(host, reader, IN | RDNORM, Wake::One);
        if !full {
            host.wake_one(wait_key(desc, Dir::Write));
        }
        Ok(done)
    }

    /// `F_GETPIPE_SZ`: capacity in bytes; `EBADF` if not a pipe.
    pub fn pipe_capacity(&self, desc: DescId) -> Result<usize> {
        match self.kind(desc)? {
            Kind::PipeRead | Kind::PipeWrite => Ok(self.pipes[desc.raw()].slots as usize * CHUNK),
            _ => Err(Errno::BADF),
        }
    }

    /// `F_SETPIPE_SZ`: rounds up to a power of two of pages and returns the
    /// new capacity. `EPERM` above 1 MiB, `EBUSY` if more is in the pipe.
    pub fn pipe_set_capacity<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        size: usize,
    ) -> Result<usize> {
        let kind = self.kind(desc)?;
        let id = desc.raw();
        let other = self.pipes[id].other;
        let (reader, writer) = match kind {
            Kind::PipeRead => (id, other),
            Kind::PipeWrite => (other, id),
            _ => return Err(Errno::BADF),
        };
        if size > 1 << 31 {
            return Err(Errno::INVAL);
        }
        let slots = size.div_ceil(CHUNK).max(1).next_power_of_two();
        if slots * CHUNK > MAX_SIZE && slots as u32 > self.pipes[id].slots {
            return Err(Errno::PERM);
        }
        let used = if reader == 0 {
            self.pipes[writer].left_chunks
        } else {
            self.pipes[reader].queue.chunks
        };
        if used as usize > slots {
            return Err(Errno::BUSY);
        }
        for end in [reader, writer] {
            if end != 0 {
                self.pipes[end].slots = slots as u32;
            }
        }
        if writer != 0 {
            // As Linux, without asking whether there is really more room.
            self.state_changed(host, writer);
        }
        Ok(slots * CHUNK)
    }

    pub(crate) fn close_pipe_read<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let pipe = &mut self.pipes[id];
        let (writer, left) = (pipe.other, pipe.queue);
        self.pool.clear(&mut pipe.queue);
        if writer != 0 {
            self.pipes[writer].other = 0;
            self.pipes[writer].left_chunks = left.chunks;
            self.pipes[writer].left_bytes = left.bytes as u32;
            self.state_changed(host, writer);
        }
    }

    pub(crate) fn close_pipe_write<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let reader = self.pipes[id].other;
        if reader != 0 {
            self.pipes[reader].other = 0;
            self.state_changed(host, reader);
        }
    }
}
