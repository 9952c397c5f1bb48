//! Batches of several gateways to one log entry.

use crate::filter::control_head;
use crane_channel::epoch::{EpochHead, Event, encode_batch, encode_head};

/// Payload bytes after which an entry takes no more batches.
pub const ENTRY_TARGET: usize = 1 << 20;

/// Offset of the count of batches in an encoded entry.
const BATCHES_AT: usize = 2;

/// Overwrites the count of batches of an encoded entry.
pub(crate) fn set_batches(entry: &mut [u8], batches: u16) {
    entry[BATCHES_AT..BATCHES_AT + 2].copy_from_slice(&batches.to_le_bytes());
}

/// An entry in the making. Its bytes begin with the head, which is known first.
#[derive(Debug)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
    batches: u16,
}

impl EntryBuilder {
    /// An entry with this head and no events, with room for `payload` bytes.
    pub fn new(head: &EpochHead, payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(64 + payload);
        encode_head(head, 0, |b| bytes.extend_from_slice(b));
        Self { bytes, batches: 0 }
    }

    /// Adds a batch as a gateway encoded it.
    pub fn add_encoded(&mut self, batch: &[u8]) {
        self.bytes.extend_from_slice(batch);
        self.batches += 1;
    }

    /// Adds an event of the leader's control stream.
    pub fn add_control(&mut self, event: &Event<'_>) {
        let mut encoded = Vec::with_capacity(event.encoded_len());
        event.encode(|b| encoded.extend_from_slice(b));
        encode_batch(&control_head(1), &encoded, |b| {
            self.bytes.extend_from_slice(b);
        });
        self.batches += 1;
    }

    /// Whether no further batch should be added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= ENTRY_TARGET || self.batches == u16::MAX
    }

    /// The encoded entry.
    pub fn finish(mut self) -> Vec<u8> {
        set_batches(&mut self.bytes, self.batches);
        self.bytes
    }
}
