//! This gateway's events: numbered, batched, kept until they are in the log.
//!
//! Events gathered before the next [`EventStream::take_unsent`] form one batch.
//! Batches go to the leader in order and stay here until a committed entry
//! holds them; [`EventStream::rewind`] offers them again from the first.

use crane_channel::epoch::{BatchHead, ConnId, EVENT_HEADER, Event, batch_len, encode_batch};
use std::collections::VecDeque;

/// Bytes of a batch before its events, see the encoding in `crane_channel::epoch`.
const BATCH_HEADER: usize = 20;
/// Bytes of events after which a new batch is begun.
const BATCH_TARGET: usize = 256 << 10;
/// Events after which a new batch is begun.
const BATCH_EVENTS: u16 = 60_000;

/// A finished batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sealed {
    /// Number of the first event behind it.
    end: u64,
    bytes: Vec<u8>,
}

/// The numbered events of one incarnation of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventStream {
    gateway: u8,
    incarnation: u32,
    /// The batch being gathered: room for its head, then events.
    open: Vec<u8>,
    open_events: u16,
    /// Number of the next event.
    next_seq: u64,
    sealed: VecDeque<Sealed>,
    /// How many of `sealed`, from the front, were handed out.
    sent: usize,
    bytes: usize,
}

impl EventStream {
    /// An empty stream of `incarnation` of `gateway`, which starts at number 1.
    pub fn new(gateway: u8, incarnation: u32) -> Self {
        debug_assert_eq!(batch_len(0), BATCH_HEADER);
        let mut open = Vec::with_capacity(BATCH_HEADER + EVENT_HEADER + crate::READ_CHUNK);
        open.resize(BATCH_HEADER, 0);
        Self {
            gateway,
            incarnation,
            open,
            open_events: 0,
            next_seq: 1,
            sealed: VecDeque::new(),
            sent: 0,
            bytes: 0,
        }
    }

    /// The incarnation whose events these are.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// Bytes of events that are not yet in the log.
    pub fn unacknowledged(&self) -> usize {
        self.bytes + self.open.len() - BATCH_HEADER
    }

    /// Whether there are events that were not handed out.
    pub fn has_unsent(&self) -> bool {
        self.open_events > 0 || self.sent < self.sealed.len()
    }

    /// Whether there are events handed out and not yet in the log.
    pub fn has_sent(&self) -> bool {
        self.sent > 0
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event<'_>) {
        event.encode(|b| self.open.extend_from_slice(b));
        self.count();
    }

    /// Adds a `Data` event whose bytes `read` appends to the buffer that it is
    /// given; no event when it appended none.
    ///
    /// # Errors
    /// What `read` returned; then nothing was added.
    pub fn push_data<E>(
        &mut self,
        conn: ConnId,
        read: impl FnOnce(&mut Vec<u8>) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let start = self.open.len();
        // The length is not known yet: encode an event of one byte, then say more.
        Event::Data { conn, bytes: &[0] }.encode(|b| self.open.extend_from_slice(b));
        self.open.truncate(start + EVENT_HEADER);
        let result = read(&mut self.open);
        let len = self.open.len() - start - EVENT_HEADER;
        if len == 0 || result.is_err() {
            self.open.truncate(start);
            return result;
        }
        self.open[start + 4..start + 8].copy_from_slice(&(len as u32).to_le_bytes());
        self.count();
        result
    }

    fn count(&mut self) {
        self.open_events += 1;
        self.next_seq += 1;
        if self.open.len() >= BATCH_TARGET || self.open_events >= BATCH_EVENTS {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.open_events == 0 {
            return;
        }
        let head = BatchHead {
            gateway: self.gateway,
            incarnation: self.incarnation,
            first_seq: self.next_seq - u64::from(self.open_events),
            events: self.open_events,
        };
        let (header, events) = self.open.split_at_mut(BATCH_HEADER);
        let mut at = 0;
        encode_batch(&head, events, |part| {
            // The last part is the events, which are in their place already.
            if at < BATCH_HEADER {
                header[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        });
        // A small batch is copied out, so that a queue of many small ones does
        // not hold as many read buffers and the buffer stays in the cache.
        let bytes = if self.open.len() < self.open.capacity() / 4 {
            let copy = self.open.as_slice().to_vec();
            self.open.truncate(BATCH_HEADER);
            copy
        } else {
            let mut fresh = Vec::with_capacity(BATCH_HEADER + EVENT_HEADER + crate::READ_CHUNK);
            fresh.resize(BATCH_HEADER, 0);
            std::mem::replace(&mut self.open, fresh)
        };
        self.bytes += bytes.len();
        self.open_events = 0;
        self.sealed.push_back(Sealed {
            end: self.next_seq,
            bytes,
        });
    }

    /// The next batch to hand to the leader, encoded, with its head.
    pub fn take_unsent(&mut self) -> Option<(BatchHead, &[u8])> {
        if self.sent == self.sealed.len() {
            self.seal();
        }
        let batch = self.sealed.get(self.sent)?;
        self.sent += 1;
        let events = u16::from_le_bytes([batch.bytes[2], batch.bytes[3]]);
        let head = BatchHead {
            gateway: self.gateway,
            incarnation: self.incarnation,
            first_seq: batch.end - u64::from(events),
            events,
        };
        Some((head, &batch.bytes))
    }

    /// Offers everything again that is not in the log.
    pub fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The log holds all events with numbers below `next_seq`. Returns whether
    /// that let go of any batch.
    pub fn acknowledge(&mut self, next_seq: u64) -> bool {
        let before = self.sealed.len();
        while let Some(batch) = self.sealed.front()
            && batch.end <= next_seq
        {
            self.bytes -= batch.bytes.len();
            self.sealed.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        self.sealed.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crane_channel::epoch::Batch;

    fn conn(n: u32) -> ConnId {
        ConnId::new(3, 1, n)
    }

    #[test]
    fn events_between_two_takes_are_one_batch() {
        let mut stream = EventStream::new(3, 1);
        stream.push(&Event::Eof { conn: conn(1) });
        let read = stream.push_data(conn(2), |b| {
            b.extend_from_slice(b"hello");
            Ok::<_, ()>(5)
        });
        assert_eq!(read, Ok(5));
        let (head, bytes) = stream.take_unsent().unwrap();
        assert_eq!((head.first_seq, head.events), (1, 2));
        let batch = Batch::decode(bytes).unwrap();
        assert_eq!(batch.head, head);
        let events: Vec<_> = batch.events().map(Result::unwrap).collect();
        let data = Event::Data {
            conn: conn(2),
            bytes: b"hello",
        };
        assert_eq!(events, [Event::Eof { conn: conn(1) }, data]);
        assert!(stream.take_unsent().is_none());
        stream.push(&Event::Reset { conn: conn(1) });
        assert_eq!(stream.take_unsent().unwrap().0.first_seq, 3);
    }

    #[test]
    fn a_failed_or_empty_read_adds_nothing() {
        let mut stream = EventStream::new(3, 1);
        assert_eq!(
            stream.push_data(conn(2), |_| Err("refused")),
            Err("refused")
        );
        assert_eq!(stream.push_data(conn(2), |_| Ok::<_, ()>(0)), Ok(0));
        assert!(!stream.has_unsent());
        assert_eq!(stream.unacknowledged(), 0);
    }

    #[test]
    fn what_is_not_in_the_log_is_offered_again() {
        let mut stream = EventStream::new(3, 1);
        for n in 0..3 {
            stream.push(&Event::Eof { conn: conn(n) });
            assert_eq!(stream.take_unsent().unwrap().0.first_seq, u64::from(n) + 1);
        }
        assert!(stream.acknowledge(2));
        stream.rewind();
        assert_eq!(stream.take_unsent().unwrap().0.first_seq, 2);
        assert_eq!(stream.take_unsent().unwrap().0.first_seq, 3);
        assert!(stream.acknowledge(4));
        assert!(!stream.has_sent() && stream.unacknowledged() == 0);
    }

    #[test]
    fn long_gatherings_are_split() {
        let mut stream = EventStream::new(3, 1);
        let bytes = vec![7; 50_000];
        for _ in 0..20 {
            let data = Event::Data {
                conn: conn(1),
                bytes: &bytes,
            };
            stream.push(&data);
        }
        let mut next = 1;
        let mut batches = 0;
        while let Some((head, bytes)) = stream.take_unsent() {
            assert_eq!(head.first_seq, next);
            assert!(bytes.len() < BATCH_TARGET + crate::READ_CHUNK + 100);
            next += u64::from(head.events);
            batches += 1;
        }
        assert_eq!(next, 21);
        assert!(batches >= 4);
    }
}
