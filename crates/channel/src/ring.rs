//! A single-producer, single-consumer ring of records in shared memory.
//!
//! A record is an 8-byte header (`len: u32`, `kind: u32`, little endian) and
//! `len` bytes, padded to 8. A record never wraps: where it would, a record of
//! kind [`PAD`] fills the rest of the ring. The other side is another process
//! which may have died at any point or may misbehave, so positions and lengths
//! read from the segment are checked before use and damage is an error, never
//! a wild read.

use crate::futex;
use crate::layout::RingControl;
use core::sync::atomic::{Ordering, fence};

const HEADER: usize = 8;
/// Kind of a filler record; never returned to callers.
const PAD: u32 = u32::MAX;

fn padded(len: usize) -> usize {
    HEADER + len.div_ceil(8) * 8
}

/// The other side wrote something that cannot be a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Position (bytes since the ring was made) of the bad record.
    pub position: u64,
}

/// The ring has no room for the record now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The producer's end.
pub struct Producer<'a> {
    control: &'a RingControl,
    base: *mut u8,
    len: usize,
    /// The consumer's position when a push last found no room. Room that was
    /// made since then must not be waited for: nobody tells of it again.
    full_at: u64,
}

// SAFETY: the pointer is to shared memory that any thread may use; exclusive
// use of one end at a time is the contract of `new`.
unsafe impl Send for Producer<'_> {}

impl<'a> Producer<'a> {
    /// The producer's end of the ring of `len` bytes at `base`.
    ///
    /// # Safety
    /// `base` must be valid for reads and writes of `len` bytes for `'a`, `len`
    /// a power of two, and no other producer may be in use at the same time.
    pub unsafe fn new(control: &'a RingControl, base: *mut u8, len: usize) -> Self {
        Self {
            control,
            base,
            len,
            full_at: u64::MAX,
        }
    }

    /// The longest record that [`push`](Self::push) takes, in bytes.
    pub fn max_record(&self) -> usize {
        self.len / 4
    }

    /// Writes a record made of `parts` and publishes it. Does not wake the
    /// consumer, see [`notify`](Self::notify).
    ///
    /// # Panics
    /// When the record is longer than [`max_record`](Self::max_record).
    pub fn push(&mut self, kind: u32, parts: &[&[u8]]) -> Result<(), Full> {
        let payload: usize = parts.iter().map(|p| p.len()).sum();
        assert!(payload <= self.max_record(), "record too long for its ring");
        let need = padded(payload);
        let head = self.control.head.load(Ordering::Relaxed);
        let tail = self.control.tail.load(Ordering::Acquire);
        let used = head.wrapping_sub(tail) as usize;
        let at = (head as usize) & (self.len - 1);
        let to_end = self.len - at;
        let filler = if to_end < need { to_end } else { 0 };
        if used > self.len || self.len - used < need + filler {
            self.full_at = tail;
            return Err(Full);
        }
        let mut at = at;
        if filler > 0 {
            self.write_header(at, filler - HEADER, PAD);
            at = 0;
        }
        self.write_header(at, payload, kind);
        let mut offset = at + HEADER;
        for part in parts {
            // SAFETY: offset + part.len() <= at + need <= len by the checks
            // above, and the consumer does not read past `head`.
            unsafe {
                core::ptr::copy_nonoverlapping(part.as_ptr(), self.base.add(offset), part.len());
            }
            offset += part.len();
        }
        let next = head.wrapping_add((need + filler) as u64);
        self.control.head.store(next, Ordering::Release);
        Ok(())
    }

    fn write_header(&mut self, at: usize, payload: usize, kind: u32) {
        let header = (payload as u64) | (u64::from(kind) << 32);
        // SAFETY: `at` is a multiple of 8 below `len`, so 8 bytes fit; the ring
        // is at least 8-aligned because segments are page aligned.
        unsafe { self.base.add(at).cast::<u64>().write(header.to_le()) }
    }

    /// Wakes the consumer if it sleeps. Call after a batch of pushes.
    pub fn notify(&self) {
        // Pairs with the fence in `Consumer::wait`: either the consumer sees
        // the new head or we see that it waits.
        fence(Ordering::SeqCst);
        if self.control.waiting.load(Ordering::Relaxed) != 0 {
            self.control.wake.fetch_add(1, Ordering::SeqCst);
            futex::wake(&self.control.wake, 1);
        }
    }

    /// Sleeps until the consumer has made some room since the failed push. For
    /// producers that may block (the server); the node uses `space_wanted` and
    /// goes on.
    pub fn wait_for_space(&self) {
        let seen = self.control.space.load(Ordering::SeqCst);
        self.control.space_wanted.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.control.tail.load(Ordering::SeqCst) == self.full_at {
            futex::wait(&self.control.space, seen);
        }
    }

    /// Asks the consumer to report when it has made room: afterwards
    /// [`Consumer::release`] returns true once. Returns false when there is
    /// more room already than at the time of the failed push (just retry).
    pub fn want_space(&self) -> bool {
        self.control.space_wanted.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.control.tail.load(Ordering::SeqCst) == self.full_at
    }
}

/// The consumer's end.
pub struct Consumer<'a> {
    control: &'a RingControl,
    base: *const u8,
    len: usize,
    /// Bytes up to which records were handed out.
    read: u64,
}

// SAFETY: as for `Producer`.
unsafe impl Send for Consumer<'_> {}

impl<'a> Consumer<'a> {
    /// The consumer's end of the ring of `len` bytes at `base`.
    ///
    /// # Safety
    /// As [`Producer::new`], for consumers.
    pub unsafe fn new(control: &'a RingControl, base: *const u8, len: usize) -> Self {
        let read = control.tail.load(Ordering::Relaxed);
        Self {
            control,
            base,
            len,
            read,
        }
    }

    /// Whether a record (or filler) is waiting.
    pub fn is_empty(&self) -> bool {
        self.control.head.load(Ordering::Acquire) == self.read
    }

    /// The next record, if there is one. Its bytes stay valid until
    /// [`release`](Self::release).
    ///
    /// The bytes are shared with the other process, which must not change them
    /// once published; a misbehaving one can, so they are input to be checked,
    /// not trusted.
    pub fn pop(&mut self) -> Result<Option<(u32, &'a [u8])>, Damaged> {
        loop {
            let head = self.control.head.load(Ordering::Acquire);
            let ready = head.wrapping_sub(self.read);
            if ready == 0 {
                return Ok(None);
            }
            let damaged = Damaged {
                position: self.read,
            };
            if ready > self.len as u64 || !ready.is_multiple_of(8) {
                return Err(damaged);
            }
            let at = (self.read as usize) & (self.len - 1);
            // SAFETY: `at` is a multiple of 8 below `len` (positions move in
            // multiples of 8), so 8 bytes are in the ring.
            let header = u64::from_le(unsafe { self.base.add(at).cast::<u64>().read() });
            let payload = (header & 0xffff_ffff) as usize;
            let kind = (header >> 32) as u32;
            let whole = padded(payload);
            if whole as u64 > ready || at + whole > self.len {
                return Err(damaged);
            }
            self.read = self.read.wrapping_add(whole as u64);
            if kind != PAD {
                // SAFETY: at + HEADER + payload <= len, checked above; the
                // region is mapped for 'a by the contract of `new`.
                let bytes =
                    unsafe { core::slice::from_raw_parts(self.base.add(at + HEADER), payload) };
                return Ok(Some((kind, bytes)));
            }
        }
    }

    /// Gives the space of all records handed out back to the producer, and
    /// wakes it if it sleeps for room. Returns whether the producer had asked.
    pub fn release(&mut self) -> bool {
        self.control.tail.store(self.read, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.control.space_wanted.load(Ordering::Relaxed) != 0 {
            self.control.space_wanted.store(0, Ordering::SeqCst);
            self.control.space.fetch_add(1, Ordering::SeqCst);
            futex::wake(&self.control.space, u32::MAX >> 1);
            return true;
        }
        false
    }

    /// Sleeps until the producer notifies; returns at once when a record is
    /// there. May return spuriously.
    pub fn wait(&self) {
        self.sleep(futex::wait);
    }

    /// As [`wait`](Self::wait) for at most `nanoseconds` of real time.
    pub fn wait_for(&self, nanoseconds: u64) {
        self.sleep(|word, seen| {
            futex::wait_for(word, seen, nanoseconds);
        });
    }

    fn sleep(&self, block: impl FnOnce(&core::sync::atomic::AtomicU32, u32)) {
        let seen = self.control.wake.load(Ordering::SeqCst);
        self.control.waiting.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.is_empty() {
            block(&self.control.wake, seen);
        }
        self.control.waiting.store(0, Ordering::SeqCst);
    }

    /// Makes a sleeper in [`wait`](Self::wait) return, from another thread of
    /// the consumer's side.
    pub fn interrupt(control: &RingControl) {
        control.wake.fetch_add(1, Ordering::SeqCst);
        futex::wake(&control.wake, u32::MAX >> 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn memory(len: usize) -> Vec<u64> {
        vec![0u64; len / 8]
    }

    #[test]
    fn records_come_out_in_order_across_the_wrap() {
        let control = RingControl::default();
        let mut mem = memory(256);
        let base = mem.as_mut_ptr().cast::<u8>();
        // SAFETY: `mem` outlives both ends, which are the only ones.
        let (mut p, mut c) = unsafe {
            (
                Producer::new(&control, base, 256),
                Consumer::new(&control, base, 256),
            )
        };
        let mut sent = 0u32;
        let mut got = 0u32;
        for round in 0..1000usize {
            let body = vec![round as u8; round % 61];
            while p.push(sent, &[&body, b"x"]).is_err() {
                let (kind, bytes) = c.pop().unwrap().unwrap();
                assert_eq!(kind, got);
                assert_eq!(bytes.len(), (got as usize) % 61 + 1);
                got += 1;
                c.release();
            }
            sent += 1;
        }
        while let Some((kind, _)) = c.pop().unwrap() {
            assert_eq!(kind, got);
            got += 1;
        }
        assert_eq!(sent, got);
    }

    #[test]
    fn a_damaged_header_is_an_error_not_a_wild_read() {
        let control = RingControl::default();
        let mut mem = memory(256);
        let base = mem.as_mut_ptr().cast::<u8>();
        // SAFETY: as above.
        let (mut p, mut c) = unsafe {
            (
                Producer::new(&control, base, 256),
                Consumer::new(&control, base, 256),
            )
        };
        p.push(1, &[b"hello"]).unwrap();
        mem[0] = 0xffff_fff0;
        assert_eq!(c.pop(), Err(Damaged { position: 0 }));
        control.head.store(12345, Ordering::SeqCst);
        assert!(c.pop().is_err());
    }

    #[test]
    fn room_made_before_the_wait_is_not_waited_for() {
        let control = RingControl::default();
        let mut mem = memory(256);
        let base = mem.as_mut_ptr().cast::<u8>();
        // SAFETY: as above.
        let (mut p, mut c) = unsafe {
            (
                Producer::new(&control, base, 256),
                Consumer::new(&control, base, 256),
            )
        };
        while p.push(1, &[&[7; 40]]).is_ok() {}
        while c.pop().unwrap().is_some() {}
        c.release();
        assert!(!p.want_space());
        p.wait_for_space();
        p.push(1, &[&[7; 40]]).unwrap();
    }

    #[test]
    fn a_sleeping_consumer_is_woken() {
        let control = RingControl::default();
        let mut mem = memory(4096);
        let base = mem.as_mut_ptr().cast::<u8>() as usize;
        std::thread::scope(|s| {
            s.spawn(|| {
                // SAFETY: the only consumer; `mem` outlives the scope.
                let mut c = unsafe { Consumer::new(&control, base as *const u8, 4096) };
                for want in 0..10_000u32 {
                    loop {
                        if let Some((kind, _)) = c.pop().unwrap() {
                            assert_eq!(kind, want);
                            c.release();
                            break;
                        }
                        c.wait();
                    }
                }
            });
            // SAFETY: the only producer.
            let mut p = unsafe { Producer::new(&control, base as *mut u8, 4096) };
            for kind in 0..10_000u32 {
                while p.push(kind, &[&[7; 40]]).is_err() {
                    p.wait_for_space();
                }
                p.notify();
            }
        });
    }
}
