//! Pipes as splice(2), tee(2) and vmsplice(2) use them: page by page.
//!
//! Linux passes references to pages; here pages between pipes change their
//! queue, and everything else is copied. Programs see the same.

use crate::desc::Kind;
use crate::iov::{Gather, Scatter};
use crate::readiness::{IN, OUT, RDNORM, WRNORM, Wake};
use crate::{CHUNK, DescId, Dir, Errno, Host, Result, VKernel, wait_key};

impl VKernel {
    /// Whether these are the two ends of one pipe, in any order.
    #[must_use]
    pub fn pipe_is_same(&self, a: DescId, b: DescId) -> bool {
        a == b || self.pipes[a.raw()].other == b.raw()
    }

    /// Pages that a write end takes without waiting, one at least.
    ///
    /// # Errors
    ///
    /// `EPIPE` when nobody can read, `EAGAIN` when it is full.
    pub fn pipe_room(&self, writer: DescId) -> Result<usize> {
        let reader = self.pipes[writer.raw()].other;
        if reader == 0 {
            return Err(Errno::PIPE);
        }
        let pipe = &self.pipes[reader];
        match pipe.slots.saturating_sub(pipe.queue.chunks) {
            0 => Err(Errno::AGAIN),
            free => Ok(free as usize),
        }
    }

    /// Puts up to a page of bytes into a pipe, as a page of their own.
    ///
    /// # Errors
    ///
    /// As `pipe_room`, and `ENOBUFS`.
    pub fn pipe_put<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        writer: DescId,
        bytes: &[u8],
    ) -> Result<usize> {
        self.pipe_room(writer)?;
        let reader = self.pipes[writer.raw()].other;
        let queue = &mut self.pipes[reader].queue;
        let len = self.pool.push_slot(queue, &mut Gather::new(bytes))?;
        self.pipe_filled(host, writer, reader);
        Ok(len)
    }

    fn pipe_filled<H: Host + ?Sized>(&mut self, host: &mut H, writer: DescId, reader: u32) {
        self.notify(host, reader, IN | RDNORM, Wake::One);
        if !self.is_full(reader) {
            host.wake_one(wait_key(writer, Dir::Write));
        }
    }

    /// Copies bytes from a read end and leaves them there.
    ///
    /// # Errors
    ///
    /// `EAGAIN` when there is none, but `Ok(0)` when none will come.
    pub fn pipe_peek(&self, reader: DescId, to: &mut [u8]) -> Result<usize> {
        let pipe = &self.pipes[reader.raw()];
        if pipe.queue.chunks == 0 && pipe.other != 0 {
            return Err(Errno::AGAIN);
        }
        let len = to.len();
        Ok(self.pool.peek(&pipe.queue, 0, &mut Scatter::new(to), len))
    }

    /// Takes bytes that were peeked at out of a read end.
    pub fn pipe_drop<H: Host + ?Sized>(&mut self, host: &mut H, reader: DescId, len: usize) {
        let id = reader.raw();
        let was_full = self.is_full(id);
        self.pool.discard(&mut self.pipes[id].queue, len);
        self.pipe_emptied(host, reader, was_full);
    }

    fn pipe_emptied<H: Host + ?Sized>(&mut self, host: &mut H, reader: DescId, was_full: bool) {
        let id = reader.raw();
        let other = self.pipes[id].other;
        if other != 0 && was_full && !self.is_full(id) {
            self.notify(host, other, OUT | WRNORM, Wake::One);
        }
        if self.pipes[id].queue.chunks > 0 {
            host.wake_one(wait_key(reader, Dir::Read));
        }
    }

    /// Moves up to `len` bytes from one pipe to another, or copies them (`keep`).
    ///
    /// # Errors
    ///
    /// As `pipe_peek` of the source, then as `pipe_room` of the target.
    pub fn pipe_to_pipe<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        reader: DescId,
        writer: DescId,
        len: usize,
        keep: bool,
    ) -> Result<usize> {
        if self.pipe_peek(reader, &mut [0])? == 0 {
            return Ok(0);
        }
        let free = self.pipe_room(writer)?;
        let from = reader.raw();
        let to = self.pipes[writer.raw()].other;
        let was_full = self.is_full(from);
        let mut source = self.pipes[from].queue;
        let mut target = self.pipes[to].queue;
        let result = if keep {
            self.pool.copy_pages(&source, &mut target, len, free)
        } else {
            self.pool.move_pages(&mut source, &mut target, len, free)
        };
        self.pipes[from].queue = source;
        self.pipes[to].queue = target;
        let done = result?;
        if !keep {
            self.pipe_emptied(host, reader, was_full);
        }
        self.pipe_filled(host, writer, to);
        Ok(done)
    }

    /// Whether a description is an end of a pipe, and which.
    #[must_use]
    pub fn pipe_end(&self, desc: DescId) -> Option<Dir> {
        match self.kind(desc) {
            Ok(Kind::PipeRead) => Some(Dir::Read),
            Ok(Kind::PipeWrite) => Some(Dir::Write),
            _ => None,
        }
    }
}

/// Most bytes of one page of a pipe.
pub const PIPE_PAGE: usize = CHUNK;
