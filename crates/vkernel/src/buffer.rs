//! The pool of 4 KiB chunks and the byte queues made of them.
//!
//! A chunk has the size of a page on purpose: a pipe's slot in Linux is a page
//! with an offset and a length, and a queue here is a list of exactly those.

use crate::iov::{Gather, Scatter};
use crate::table::{Record, Table, record};
use crate::{Errno, Result};

/// Bytes in one chunk.
pub const CHUNK: usize = 4096;

record! {
    /// Content of a chunk and its place in a queue or in the free list.
    pub(crate) struct Chunk {
        next: u32,
        start: u16,
        len: u16,
    }
}

record! {
    /// Allocation state of the pool.
    pub(crate) struct PoolState {
        free: u32,
        fresh: u32,
        pub(crate) used: u32,
        pub(crate) peak: u32,
    }
}

record! {
    /// Bytes in order; all zero when empty.
    pub(crate) struct ByteQueue {
        head: u32,
        tail: u32,
        pub(crate) bytes: u64,
        /// Chunks in the queue: a pipe's used slots.
        pub(crate) chunks: u32,
        pad: u32,
    }
}

/// The chunks; index 0 is never given out.
pub(crate) struct Pool {
    pub(crate) state: Table<PoolState>,
    pub(crate) chunks: Table<Chunk>,
    pub(crate) data: Table<[u8; CHUNK]>,
}

impl Pool {
    fn available(&self) -> u32 {
        self.chunks.len() - 1 - self.state[0].used
    }

    fn take(&mut self) -> Result<u32> {
        let state = &mut self.state[0];
        let id = if state.free != 0 {
            let id = state.free;
            state.free = self.chunks[id].next;
            id
        } else if state.fresh + 1 < self.chunks.len() {
            state.fresh += 1;
            state.fresh
        } else {
            return Err(Errno::NOBUFS);
        };
        let state = &mut self.state[0];
        state.used += 1;
        state.peak = state.peak.max(state.used);
        self.chunks[id] = Chunk::zeroed();
        Ok(id)
    }

    fn give_back(&mut self, id: u32) {
        let state = &mut self.state[0];
        self.chunks[id].next = state.free;
        state.free = id;
        state.used -= 1;
    }

    fn tail_room(&self, queue: &ByteQueue) -> usize {
        if queue.tail == 0 {
            return 0;
        }
        let chunk = &self.chunks[queue.tail];
        CHUNK - usize::from(chunk.start) - usize::from(chunk.len)
    }

    fn add_chunk(&mut self, queue: &mut ByteQueue) -> Result<()> {
        let id = self.take()?;
        if queue.tail == 0 {
            queue.head = id;
        } else {
            self.chunks[queue.tail].next = id;
        }
        queue.tail = id;
        queue.chunks += 1;
        Ok(())
    }

    fn fill_tail(&mut self, queue: &mut ByteQueue, from: &mut Gather<'_>, len: usize) {
        let chunk = &mut self.chunks[queue.tail];
        let at = usize::from(chunk.start) + usize::from(chunk.len);
        from.copy_to(&mut self.data[queue.tail][at..at + len]);
        chunk.len += len as u16;
        queue.bytes += len as u64;
    }

    /// Whether `len` more bytes fit in the queue.
    pub(crate) fn has_room(&self, queue: &ByteQueue, len: usize) -> bool {
        let beyond = len.saturating_sub(self.tail_room(queue));
        beyond.div_ceil(CHUNK) <= self.available() as usize
    }

    /// Appends `len` bytes, or nothing and `ENOBUFS`.
    pub(crate) fn push(
        &mut self,
        queue: &mut ByteQueue,
        from: &mut Gather<'_>,
        len: usize,
    ) -> Result<()> {
        let mut left = len;
        if !self.has_room(queue, len) {
            return Err(Errno::NOBUFS);
        }
        while left > 0 {
            let mut room = self.tail_room(queue);
            if room == 0 {
                self.add_chunk(queue)?;
                room = CHUNK;
            }
            let part = room.min(left);
            self.fill_tail(queue, from, part);
            left -= part;
        }
        Ok(())
    }

    /// Appends `len` bytes to the last chunk if they fit there whole.
    pub(crate) fn merge(
        &mut self,
        queue: &mut ByteQueue,
        from: &mut Gather<'_>,
        len: usize,
    ) -> bool {
        if len > self.tail_room(queue) {
            return false;
        }
        self.fill_tail(queue, from, len);
        true
    }

    /// Appends at most one chunk of bytes in a chunk of its own.
    pub(crate) fn push_slot(
        &mut self,
        queue: &mut ByteQueue,
        from: &mut Gather<'_>,
    ) -> Result<usize> {
        self.add_chunk(queue)?;
        let len = from.len().min(CHUNK);
        self.fill_tail(queue, from, len);
        Ok(len)
    }

    /// Moves up to `len` bytes out of the queue.
    pub(crate) fn pop(&mut self, queue: &mut ByteQueue, to: &mut Scatter<'_>, len: usize) -> usize {
        self.consume(queue, Some(to), len)
    }

    /// Drops up to `len` bytes from the front.
    pub(crate) fn discard(&mut self, queue: &mut ByteQueue, len: usize) -> usize {
        self.consume(queue, None, len)
    }

    fn consume(
        &mut self,
        queue: &mut ByteQueue,
        mut to: Option<&mut Scatter<'_>>,
        len: usize,
    ) -> usize {
        let mut done = 0;
        while done < len && queue.head != 0 {
            let id = queue.head;
            let chunk = &mut self.chunks[id];
            let start = usize::from(chunk.start);
            let part = usize::from(chunk.len).min(len - done);
            if let Some(to) = to.as_deref_mut() {
                to.copy_from(&self.data[id][start..start + part]);
            }
            chunk.start += part as u16;
            chunk.len -= part as u16;
            done += part;
            if chunk.len == 0 {
                queue.head = chunk.next;
                queue.chunks -= 1;
                if queue.head == 0 {
                    queue.tail = 0;
                }
                self.give_back(id);
            }
        }
        queue.bytes -= done as u64;
        done
    }

    /// Appends the first `len` bytes of a queue to another as chunks of their
    /// own, `most` at the most.
    pub(crate) fn copy_pages(
        &mut self,
        from: &ByteQueue,
        to: &mut ByteQueue,
        len: usize,
        most: usize,
    ) -> Result<usize> {
        let (mut done, mut id) = (0, from.head);
        for _ in 0..most {
            if id == 0 || done == len {
                break;
            }
            match self.append_copy(id, to, len - done) {
                Ok(part) => done += part,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            id = self.chunks[id].next;
        }
        Ok(done)
    }

    /// Moves the first `len` bytes of a queue to the end of another, whole
    /// chunks as they are, `most` at the most.
    pub(crate) fn move_pages(
        &mut self,
        from: &mut ByteQueue,
        to: &mut ByteQueue,
        len: usize,
        most: usize,
    ) -> Result<usize> {
        let mut done = 0;
        for _ in 0..most {
            let id = from.head;
            if id == 0 || done == len {
                break;
            }
            let held = usize::from(self.chunks[id].len);
            if held > len - done {
                match self.append_copy(id, to, len - done) {
                    Ok(part) => done += self.discard(from, part),
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => {}
                }
                break;
            }
            from.head = self.chunks[id].next;
            if from.head == 0 {
                from.tail = 0;
            }
            self.chunks[id].next = 0;
            if to.tail == 0 {
                to.head = id;
            } else {
                self.chunks[to.tail].next = id;
            }
            to.tail = id;
            from.chunks -= 1;
            to.chunks += 1;
            from.bytes -= held as u64;
            to.bytes += held as u64;
            done += held;
        }
        Ok(done)
    }

    /// Appends up to `len` bytes of a chunk to a queue, as a chunk of their own.
    fn append_copy(&mut self, id: u32, to: &mut ByteQueue, len: usize) -> Result<usize> {
        self.add_chunk(to)?;
        let start = usize::from(self.chunks[id].start);
        let part = usize::from(self.chunks[id].len).min(len);
        let bytes = self.data[id];
        self.fill_tail(to, &mut Gather::new(&bytes[start..start + part]), part);
        Ok(part)
    }

    /// Copies up to `len` bytes that begin `skip` bytes behind the front.
    pub(crate) fn peek(
        &self,
        queue: &ByteQueue,
        mut skip: usize,
        to: &mut Scatter<'_>,
        len: usize,
    ) -> usize {
        let mut done = 0;
        let mut id = queue.head;
        while done < len && id != 0 {
            let chunk = &self.chunks[id];
            let held = usize::from(chunk.len);
            if skip >= held {
                skip -= held;
            } else {
                let start = usize::from(chunk.start) + skip;
                let part = (held - skip).min(len - done);
                to.copy_from(&self.data[id][start..start + part]);
                done += part;
                skip = 0;
            }
            id = chunk.next;
        }
        done
    }

    /// Frees everything in the queue.
    pub(crate) fn clear(&mut self, queue: &mut ByteQueue) {
        while queue.head != 0 {
            let id = queue.head;
            queue.head = self.chunks[id].next;
            self.give_back(id);
        }
        *queue = ByteQueue::zeroed();
    }
}
