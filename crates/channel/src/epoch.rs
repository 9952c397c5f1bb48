//! The log entry: one epoch.
//!
//! An entry is agreed by consensus and applied by every replica at the same
//! instant of its server's logical time. All integers are little endian:
//!
//! ```text
//! entry  := version u8 | flags u8 | batches u16 | budget u32 | time u64 | [seed 32] | batch*
//! batch  := gateway u8 | 0 u8 | events u16 | incarnation u32 | first_seq u64 | bytes u32 | event*
//! event  := kind u8 | flags u8 | 0 u16 | len u32 | conn u64 | payload[len]
//! ```
//!
//! A batch holds consecutive events of one gateway's stream: event *k* of the
//! batch has sequence number `first_seq + k`. The node applies each number of
//! a (gateway, incarnation) once and in order, so events that a gateway sends
//! again after a change of leader count once. `gateway` 0 is the leader's own
//! control stream, which is not numbered; its events are idempotent.

mod read;

pub use read::{Batch, Batches, Entry, Events, Malformed};

/// Version of the encoding.
pub const ENTRY_VERSION: u8 = 2;

/// The epoch carries a [`EpochHead::seed`].
pub const FLAG_SEED: u8 = 1;

/// A client connection, unique in the life of a cluster.
///
/// Gateway (the replica that holds the socket, 8 bits), the gateway's
/// incarnation (24 bits) and a counter (32 bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ConnId(pub u64);

/// The highest bit of a connection's counter.
const MOVABLE: u64 = 1 << 31;

impl ConnId {
    /// Builds an id; `incarnation` uses its low 24 bits.
    pub fn new(gateway: u8, incarnation: u32, counter: u32) -> Self {
        Self(
            u64::from(gateway) << 56
                | u64::from(incarnation & 0xff_ffff) << 32
                | u64::from(counter),
        )
    }

    /// The replica whose gateway holds the client's socket.
    pub fn gateway(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The gateway's incarnation when it accepted the connection.
    pub fn incarnation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// The same connection as one that another gateway may go on with: every
    /// replica keeps what it says, and it ends by a [`Event::Reset`] of its own.
    pub fn movable(self) -> Self {
        Self(self.0 | MOVABLE)
    }

    /// Whether another gateway may go on with it.
    pub fn is_movable(self) -> bool {
        self.0 & MOVABLE != 0
    }
}

/// One input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A client connected to `listener` (an id that the server's listen call
    /// announced, see [`crate::output::Output::Listen`]).
    Connect {
        /// The new connection.
        conn: ConnId,
        /// Which listening socket.
        listener: u32,
        /// Local address as raw sockaddr bytes of the listener's family.
        local: &'a [u8],
        /// The client's address, likewise.
        peer: &'a [u8],
    },
    /// Bytes from the client.
    Data {
        /// The connection.
        conn: ConnId,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// The client will send no more (end of file).
    Eof {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is gone: reset by the client or lost with its gateway.
    Reset {
        /// The connection.
        conn: ConnId,
    },
    /// The client's socket has taken all output up to `offset` (bytes since
    /// the connection began), which opens the send window.
    Drained {
        /// The connection.
        conn: ConnId,
        /// Bytes of output that left the gateway.
        offset: u64,
    },
    /// A datagram from outside for a socket of the server.
    Datagram {
        /// The gateway that heard it and its incarnation; the counter is 0.
        conn: ConnId,
        /// Which socket, an id that [`crate::output::Output::DatagramOpen`]
        /// announced.
        socket: u32,
        /// Where it was sent to, as raw sockaddr bytes of the socket's family.
        local: &'a [u8],
        /// Where it came from, likewise.
        peer: &'a [u8],
        /// The message, which may be empty.
        bytes: &'a [u8],
    },
    /// All that its gateway knows of a movable connection is in the log up to here,
    /// with what another gateway needs to go on with it. Nothing for the program.
    Movable {
        /// The connection.
        conn: ConnId,
        /// The state of its socket, encoded by the gateway.
        socket: &'a [u8],
    },
    /// The movable connections of an incarnation of a gateway go on at another
    /// one. Never given to a program.
    Move {
        /// The gateway that has them.
        gateway: u8,
        /// Its incarnation.
        incarnation: u32,
        /// The gateway that gets them.
        heir: u8,
        /// Its incarnation.
        heir_incarnation: u32,
    },
    /// All connections of this incarnation of a gateway are lost, but for the
    /// movable ones.
    GatewayDown {
        /// The replica.
        gateway: u8,
        /// The incarnation that ended.
        incarnation: u32,
    },
    /// A signal for the server's first process.
    Signal {
        /// Number as in signal(7).
        number: u32,
    },
    /// A call that left the schedule has returned. Any gateway may say so, and
    /// several: the first counts.
    Complete {
        /// The operation's number.
        operation: u32,
        /// 0, or a negative error number.
        result: i32,
    },
    /// The program has ended by its own fault on every replica and begins anew
    /// here. Never given to a program.
    Restart {
        /// How often it has begun anew, this time included.
        life: u32,
    },
}

const CONNECT: u8 = 1;
const DATA: u8 = 2;
const EOF: u8 = 3;
const RESET: u8 = 4;
const DRAINED: u8 = 5;
const GATEWAY_DOWN: u8 = 6;
const SIGNAL: u8 = 7;
const MOVABLE_EVENT: u8 = 8;
const MOVE: u8 = 9;
const DATAGRAM: u8 = 16;
const COMPLETE: u8 = 24;
const RESTART: u8 = 25;

/// Bytes of an event before its payload.
pub const EVENT_HEADER: usize = 16;
const ENTRY_HEADER: usize = 16;
const BATCH_HEADER: usize = 20;

impl Event<'_> {
    /// Bytes that [`encode`](Self::encode) writes.
    pub fn encoded_len(&self) -> usize {
        EVENT_HEADER
            + match self {
                Event::Connect { local, peer, .. } => 6 + local.len() + peer.len(),
                Event::Data { bytes, .. } => bytes.len(),
                Event::Datagram {
                    local, peer, bytes, ..
                } => 6 + local.len() + peer.len() + bytes.len(),
                Event::Drained { .. } => 8,
                Event::GatewayDown { .. } => 8,
                Event::Movable { socket, .. } => socket.len(),
                Event::Move { .. } => 16,
                Event::Signal { .. } | Event::Restart { .. } => 4,
                Event::Complete { .. } => 8,
                Event::Eof { .. } | Event::Reset { .. } => 0,
            }
    }

    /// Writes the event through `put`.
    pub fn encode(&self, mut put: impl FnMut(&[u8])) {
        let (kind, conn) = match *self {
            Event::Connect { conn, .. } => (CONNECT, conn),
            Event::Data { conn, .. } => (DATA, conn),
            Event::Eof { conn } => (EOF, conn),
            Event::Reset { conn } => (RESET, conn),
            Event::Drained { conn, .. } => (DRAINED, conn),
            Event::Datagram { conn, .. } => (DATAGRAM, conn),
            Event::GatewayDown { .. } => (GATEWAY_DOWN, ConnId(0)),
            Event::Movable { conn, .. } => (MOVABLE_EVENT, conn),
            Event::Move { .. } => (MOVE, ConnId(0)),
            Event::Signal { .. } => (SIGNAL, ConnId(0)),
            Event::Complete { .. } => (COMPLETE, ConnId(0)),
            Event::Restart { .. } => (RESTART, ConnId(0)),
        };
        let len = (self.encoded_len() - EVENT_HEADER) as u32;
        put(&[kind, 0, 0, 0]);
        put(&len.to_le_bytes());
        put(&conn.0.to_le_bytes());
        match *self {
            Event::Connect {
                listener,
                local,
                peer,
                ..
            } => {
                put(&listener.to_le_bytes());
                put(&[local.len() as u8, peer.len() as u8]);
                put(local);
                put(peer);
            }
            Event::Data { bytes, .. } => put(bytes),
            Event::Datagram {
                socket,
                local,
                peer,
                bytes,
                ..
            } => {
                put(&socket.to_le_bytes());
                put(&[local.len() as u8, peer.len() as u8]);
                put(local);
                put(peer);
                put(bytes);
            }
            Event::Drained { offset, .. } => put(&offset.to_le_bytes()),
            Event::GatewayDown {
                gateway,
                incarnation,
            } => {
                put(&u32::from(gateway).to_le_bytes());
                put(&incarnation.to_le_bytes());
            }
            Event::Movable { socket, .. } => put(socket),
            Event::Move {
                gateway,
                incarnation,
                heir,
                heir_incarnation,
            } => {
                put(&u32::from(gateway).to_le_bytes());
                put(&incarnation.to_le_bytes());
                put(&u32::from(heir).to_le_bytes());
                put(&heir_incarnation.to_le_bytes());
            }
            Event::Signal { number } => put(&number.to_le_bytes()),
            Event::Restart { life } => put(&life.to_le_bytes()),
            Event::Complete { operation, result } => {
                put(&operation.to_le_bytes());
                put(&result.to_le_bytes());
            }
            Event::Eof { .. } | Event::Reset { .. } => {}
        }
    }
}

/// The fixed part of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochHead {
    /// The proposing leader's wall clock, nanoseconds since the Unix epoch.
    pub time: u64,
    /// The time bubble: logical clocks that replicas may run in this epoch.
    pub budget: u32,
    /// Fresh entropy to mix into the server's random stream.
    pub seed: Option<[u8; 32]>,
}

/// A batch's fixed part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHead {
    /// The replica whose gateway numbered the events; 0 is the leader's control stream.
    pub gateway: u8,
    /// The gateway's incarnation.
    pub incarnation: u32,
    /// Sequence number of the first event.
    pub first_seq: u64,
    /// Number of events.
    pub events: u16,
}

/// Writes the head of an entry with `batches` batches to follow.
pub fn encode_head(head: &EpochHead, batches: u16, mut put: impl FnMut(&[u8])) {
    let flags = if head.seed.is_some() { FLAG_SEED } else { 0 };
    put(&[ENTRY_VERSION, flags]);
    put(&batches.to_le_bytes());
    put(&head.budget.to_le_bytes());
    put(&head.time.to_le_bytes());
    if let Some(seed) = &head.seed {
        put(seed);
    }
}

/// Writes a batch whose encoded events are `events`.
pub fn encode_batch(head: &BatchHead, events: &[u8], mut put: impl FnMut(&[u8])) {
    put(&[head.gateway, 0]);
    put(&head.events.to_le_bytes());
    put(&head.incarnation.to_le_bytes());
    put(&head.first_seq.to_le_bytes());
    put(&(events.len() as u32).to_le_bytes());
    put(events);
}

/// Bytes of an entry's head.
pub fn head_len(head: &EpochHead) -> usize {
    ENTRY_HEADER + if head.seed.is_some() { 32 } else { 0 }
}

/// Bytes of a batch whose encoded events take `events` bytes.
pub fn batch_len(events: usize) -> usize {
    BATCH_HEADER + events
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn sample<'a>() -> Vec<Event<'a>> {
        let conn = ConnId::new(2, 7, 99);
        vec![
            Event::Connect {
                conn,
                listener: 3,
                local: &[1, 2, 3],
                peer: &[4; 28],
            },
            Event::Data {
                conn,
                bytes: b"GET / HTTP/1.0\r\n\r\n",
            },
            Event::Eof { conn },
            Event::Reset { conn },
            Event::Drained {
                conn,
                offset: 1 << 40,
            },
            Event::Movable {
                conn: conn.movable(),
                socket: &[1, 2, 3, 4],
            },
            Event::Move {
                gateway: 1,
                incarnation: 2,
                heir: 255,
                heir_incarnation: u32::MAX,
            },
            Event::GatewayDown {
                gateway: 3,
                incarnation: 12,
            },
            Event::Signal { number: 15 },
            Event::Complete {
                operation: 7,
                result: -5,
            },
            Event::Datagram {
                conn: ConnId::new(2, 7, 0),
                socket: 65_543,
                local: &[2; 16],
                peer: &[3; 16],
                bytes: b"",
            },
        ]
    }

    fn encode(events: &[Event<'_>], seed: Option<[u8; 32]>) -> Vec<u8> {
        let mut body = Vec::new();
        for e in events {
            let before = body.len();
            e.encode(|b| body.extend_from_slice(b));
            assert_eq!(body.len() - before, e.encoded_len());
        }
        let head = EpochHead {
            time: 123,
            budget: 77,
            seed,
        };
        let batch = BatchHead {
            gateway: 2,
            incarnation: 7,
            first_seq: 5,
            events: events.len() as u16,
        };
        let mut out = Vec::new();
        encode_head(&head, 1, |b| out.extend_from_slice(b));
        assert_eq!(out.len(), head_len(&head));
        encode_batch(&batch, &body, |b| out.extend_from_slice(b));
        assert_eq!(out.len(), head_len(&head) + batch_len(body.len()));
        out
    }

    #[test]
    fn entries_survive_the_round_trip() {
        for seed in [None, Some([9; 32])] {
            let bytes = encode(&sample(), seed);
            let entry = Entry::decode(&bytes).unwrap();
            assert_eq!(
                entry.head,
                EpochHead {
                    time: 123,
                    budget: 77,
                    seed
                }
            );
            let batch = entry.batches().next().unwrap().unwrap();
            assert_eq!(batch.head.first_seq, 5);
            let events: Result<Vec<_>, _> = batch.events().collect();
            assert_eq!(events.unwrap(), sample());
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode(&sample(), Some([1; 32]));
        for cut in 0..bytes.len() {
            let Ok(entry) = Entry::decode(&bytes[..cut]) else {
                continue;
            };
            assert!(entry.batches().any(|b| b.is_err()), "cut at {cut}");
        }
    }

    #[test]
    fn connection_ids_keep_their_parts() {
        let movable = ConnId::new(255, 1, 7).movable();
        assert!(movable.is_movable() && !ConnId::new(255, 1, 7).is_movable());
        assert_eq!((movable.gateway(), movable.incarnation()), (255, 1));
        let id = ConnId::new(255, 0xff_fffe, u32::MAX);
        assert_eq!((id.gateway(), id.incarnation()), (255, 0xff_fffe));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200),
                                     start in prop::option::of(0usize..100)) {
            if let Some(at) = start {
                let mut good = encode(&sample(), None);
                let n = good.len();
                for (i, b) in bytes.iter().take(4).enumerate() {
                    good[(at + i * 31) % n] ^= b;
                }
                bytes = good;
            }
            if let Ok(entry) = Entry::decode(&bytes) {
                for batch in entry.batches().flatten() {
                    for _ in batch.events() {}
                }
            }
        }
    }
}
