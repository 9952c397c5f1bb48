//! Committed entries into the log ring.
//!
//! The ring may be full, above all while a restarted server is given the whole
//! log. Entries then wait in a bounded queue; when that is full too, no more
//! are fetched from the log until there is room.

use crane_channel::output::LOG_EPOCH;
use crane_channel::ring::Producer;
use crane_channel::segment::Segment;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes that may wait for room in the ring.
const WAITING_LIMIT: usize = 8 << 20;

/// The node's end of the log ring.
pub struct Publisher<'a> {
    /// Set while this end waits for room.
    wants_space: &'a AtomicBool,
    /// Makes the server wake the node at its next boundary.
    eager: &'a AtomicU32,
    producer: Producer<'a>,
    waiting: VecDeque<(u64, Vec<u8>)>,
    waiting_bytes: usize,
    last: u64,
    unannounced: bool,
}

impl<'a> Publisher<'a> {
    /// The publisher for a segment, which sets `wants_space` while it waits for
    /// room in the ring.
    ///
    /// # Safety
    /// At most one may be in use at a time.
    pub unsafe fn new(segment: &'a Segment, wants_space: &'a AtomicBool) -> Self {
        // SAFETY: the caller's.
        let producer = unsafe { segment.log_producer() };
        Self {
            wants_space,
            eager: &segment.header().eager,
            producer,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            last: 0,
            unannounced: false,
        }
    }

    /// Says that the server has everything up to this log index, as after a restore.
    pub fn begin_after(&mut self, index: u64) {
        self.last = index;
    }

    /// Goes on after epoch `last`, which the server has done.
    pub fn go_on_after(&mut self, last: u64) {
        self.last = last;
    }

    /// Longest entry that the ring takes.
    pub fn max_entry(&self) -> usize {
        self.producer.max_record() - 8
    }

    /// Publishes the epoch with this log index, or queues it.
    pub fn publish(&mut self, index: u64, entry: &[u8]) {
        self.last = index;
        if !self.waiting.is_empty() || !self.push(index, entry) {
            self.waiting_bytes += entry.len();
            self.waiting.push_back((index, entry.to_vec()));
        }
    }

    fn push(&mut self, index: u64, entry: &[u8]) -> bool {
        let record = [&index.to_le_bytes()[..], entry];
        let done = self.producer.push(LOG_EPOCH, &record).is_ok();
        self.unannounced |= done;
        done
    }

    /// Moves what waits into the ring as far as there is room, and wakes the
    /// server if there is news for it.
    pub fn announce(&mut self) {
        let mut asked = false;
        while let Some((index, entry)) = self.waiting.pop_front() {
            if self.push(index, &entry) {
                self.waiting_bytes -= entry.len();
                continue;
            }
            self.waiting.push_front((index, entry));
            if asked {
                break;
            }
            // Ask first and try again, or room made in between would be missed.
            self.wants_space.store(true, Ordering::SeqCst);
            self.eager.store(1, Ordering::SeqCst);
            asked = true;
        }
        if std::mem::take(&mut self.unannounced) {
            self.producer.notify();
        }
    }

    /// Whether no more entries should be fetched for now.
    pub fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_LIMIT
    }

    /// Whether everything published is in the ring.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Log index of the last epoch published, 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }
}
