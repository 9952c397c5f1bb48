//! What the server tells its node: records of the output ring.
//!
//! The kind of the ring record selects the variant; integers in the payload
//! are little endian.

use crate::epoch::ConnId;

/// Log ring: kind of a record that holds `index u64` and an encoded entry.
pub const LOG_EPOCH: u32 = 1;

const HELLO: u32 = 1;
const LISTEN: u32 = 2;
const UNLISTEN: u32 = 3;
const SEND: u32 = 4;
const SHUTDOWN: u32 = 5;
const CLOSE: u32 = 6;
const CONSUMED: u32 = 7;
const EPOCH: u32 = 8;
const MESSAGE: u32 = 9;
const EXIT: u32 = 10;
const DATAGRAM_OPEN: u32 = 32;
const DATAGRAM_GROUP: u32 = 33;
const DATAGRAM_SEND: u32 = 34;
const DATAGRAM_CLOSE: u32 = 35;

/// What one epoch did, published at its end (the next boundary).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochDone {
    /// Index of the epoch that ended.
    pub epoch: u64,
    /// Logical clock at its end.
    pub clock: u64,
    /// Running hash of all output so far.
    pub output_hash: u64,
    /// Running hash of the schedule so far.
    pub schedule_hash: u64,
}

/// One record of the output ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output<'a> {
    /// The interposer of the first process reported in, before the program's
    /// own code ran.
    Hello {
        /// Pid in the replica's namespace.
        pid: u32,
    },
    /// The server listens; ids are given in the order of listen calls.
    Listen {
        /// Listener id, to be named in [`crate::epoch::Event::Connect`].
        listener: u32,
        /// The bound address as raw sockaddr bytes.
        address: &'a [u8],
        /// The backlog argument of listen(2).
        backlog: u32,
    },
    /// The listening socket was closed.
    Unlisten {
        /// Listener id.
        listener: u32,
    },
    /// Bytes for a client. Only connections of this replica's own gateway.
    Send {
        /// The connection.
        conn: ConnId,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// The server will send no more on this connection (half close).
    Shutdown {
        /// The connection.
        conn: ConnId,
    },
    /// The server closed the connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// True: abort (RST); false: after all output has been sent.
        reset: bool,
    },
    /// The server has read `total` bytes of the connection's input so far.
    Consumed {
        /// The connection.
        conn: ConnId,
        /// Bytes since the connection began.
        total: u64,
    },
    /// The server bound a datagram socket that the outside may send to.
    DatagramOpen {
        /// Its id, to be named in [`crate::epoch::Event::Datagram`].
        socket: u32,
        /// The bound address as raw sockaddr bytes.
        address: &'a [u8],
    },
    /// A datagram socket joined or left a multicast group.
    DatagramGroup {
        /// Its id.
        socket: u32,
        /// The group's address, IPv4 in its mapped form.
        group: [u8; 16],
        /// Joined, or left.
        join: bool,
    },
    /// A datagram to the outside.
    DatagramSend {
        /// The gateway and incarnation that is to send it, as in the upper half
        /// of a [`ConnId`]; 0: the leader's.
        route: u32,
        /// The socket that sends.
        socket: u32,
        /// Where to, as raw sockaddr bytes, at most 255 of them.
        to: &'a [u8],
        /// The message, which may be empty.
        bytes: &'a [u8],
    },
    /// The server closed a datagram socket that was announced.
    DatagramClose {
        /// Its id.
        socket: u32,
    },
    /// An epoch ended.
    Epoch(EpochDone),
    /// A line for the node's log from the interposer (UTF-8 as far as the
    /// program's own names are).
    Message {
        /// True: the server cannot go on and the line says why.
        fatal: bool,
        /// The line, without a newline.
        text: &'a [u8],
    },
    /// A process of the server ended.
    Exit {
        /// Pid in the replica's namespace.
        pid: u32,
        /// Status as in wait(2).
        status: u32,
        /// Whether it was the last one.
        last: bool,
    },
}

/// The record cannot be one that the interposer wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadRecord {
    /// The record's kind.
    pub kind: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

impl<'a> Output<'a> {
    /// Decodes a ring record.
    pub fn decode(kind: u32, bytes: &'a [u8]) -> Result<Self, BadRecord> {
        Self::parse(kind, bytes).ok_or(BadRecord { kind })
    }

    fn parse(kind: u32, b: &'a [u8]) -> Option<Self> {
        Some(match kind {
            HELLO => Self::Hello { pid: u32_at(b, 0)? },
            LISTEN => Self::Listen {
                listener: u32_at(b, 0)?,
                backlog: u32_at(b, 4)?,
                address: b.get(8..)?,
            },
            UNLISTEN => Self::Unlisten {
                listener: u32_at(b, 0)?,
            },
            SEND => Self::Send {
                conn: ConnId(u64_at(b, 0)?),
                bytes: b.get(8..)?,
            },
            SHUTDOWN => Self::Shutdown {
                conn: ConnId(u64_at(b, 0)?),
            },
            CLOSE => Self::Close {
                conn: ConnId(u64_at(b, 0)?),
                reset: u32_at(b, 8)? != 0,
            },
            CONSUMED => Self::Consumed {
                conn: ConnId(u64_at(b, 0)?),
                total: u64_at(b, 8)?,
            },
            DATAGRAM_OPEN => Self::DatagramOpen {
                socket: u32_at(b, 0)?,
                address: b.get(4..)?,
            },
            DATAGRAM_GROUP => Self::DatagramGroup {
                socket: u32_at(b, 0)?,
                join: u32_at(b, 4)? != 0,
                group: b.get(8..24)?.try_into().ok()?,
            },
            DATAGRAM_SEND => {
                let len = u32_at(b, 8)? as usize;
                let rest = b.get(12..)?;
                Self::DatagramSend {
                    route: u32_at(b, 0)?,
                    socket: u32_at(b, 4)?,
                    to: rest.get(..len)?,
                    bytes: rest.get(len..)?,
                }
            }
            DATAGRAM_CLOSE => Self::DatagramClose {
                socket: u32_at(b, 0)?,
            },
            EPOCH => Self::Epoch(EpochDone {
                epoch: u64_at(b, 0)?,
                clock: u64_at(b, 8)?,
                output_hash: u64_at(b, 16)?,
                schedule_hash: u64_at(b, 24)?,
            }),
            MESSAGE => Self::Message {
                fatal: u32_at(b, 0)? != 0,
                text: b.get(4..)?,
            },
            EXIT => Self::Exit {
                pid: u32_at(b, 0)?,
                status: u32_at(b, 4)?,
                last: u32_at(b, 8)? != 0,
            },
            _ => return None,
        })
    }

    /// Hands the record's kind and payload parts to `push`, which is usually
    /// [`crate::ring::Producer::push`].
    pub fn encode<R>(&self, push: impl FnOnce(u32, &[&[u8]]) -> R) -> R {
        match *self {
            Self::Hello { pid } => push(HELLO, &[&pid.to_le_bytes()]),
            Self::Listen {
                listener,
                address,
                backlog,
            } => push(
                LISTEN,
                &[&listener.to_le_bytes(), &backlog.to_le_bytes(), address],
            ),
            Self::Unlisten { listener } => push(UNLISTEN, &[&listener.to_le_bytes()]),
            Self::Send { conn, bytes } => push(SEND, &[&conn.0.to_le_bytes(), bytes]),
            Self::Shutdown { conn } => push(SHUTDOWN, &[&conn.0.to_le_bytes()]),
            Self::Close { conn, reset } => push(
                CLOSE,
                &[&conn.0.to_le_bytes(), &u32::from(reset).to_le_bytes()],
            ),
            Self::Consumed { conn, total } => {
                push(CONSUMED, &[&conn.0.to_le_bytes(), &total.to_le_bytes()])
            }
            Self::DatagramOpen { socket, address } => {
                push(DATAGRAM_OPEN, &[&socket.to_le_bytes(), address])
            }
            Self::DatagramGroup {
                socket,
                group,
                join,
            } => push(
                DATAGRAM_GROUP,
                &[
                    &socket.to_le_bytes(),
                    &u32::from(join).to_le_bytes(),
                    &group,
                ],
            ),
            Self::DatagramSend {
                route,
                socket,
                to,
                bytes,
            } => push(
                DATAGRAM_SEND,
                &[
                    &route.to_le_bytes(),
                    &socket.to_le_bytes(),
                    &(to.len() as u32).to_le_bytes(),
                    to,
                    bytes,
                ],
            ),
            Self::DatagramClose { socket } => push(DATAGRAM_CLOSE, &[&socket.to_le_bytes()]),
            Self::Epoch(done) => push(
                EPOCH,
                &[
                    &done.epoch.to_le_bytes(),
                    &done.clock.to_le_bytes(),
                    &done.output_hash.to_le_bytes(),
                    &done.schedule_hash.to_le_bytes(),
                ],
            ),
            Self::Message { fatal, text } => {
                push(MESSAGE, &[&u32::from(fatal).to_le_bytes(), text])
            }
            Self::Exit { pid, status, last } => push(
                EXIT,
                &[
                    &pid.to_le_bytes(),
                    &status.to_le_bytes(),
                    &u32::from(last).to_le_bytes(),
                ],
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_round_trip() {
        let conn = ConnId::new(1, 2, 3);
        let done = EpochDone {
            epoch: 1,
            clock: 2,
            output_hash: 3,
            schedule_hash: 4,
        };
        for record in [
            Output::Hello { pid: 2 },
            Output::Listen {
                listener: 1,
                address: &[1, 2, 3],
                backlog: 128,
            },
            Output::Unlisten { listener: 1 },
            Output::DatagramOpen {
                socket: 9,
                address: &[2; 16],
            },
            Output::DatagramGroup {
                socket: 9,
                group: [7; 16],
                join: true,
            },
            Output::DatagramSend {
                route: 1 << 24,
                socket: 9,
                to: &[2; 16],
                bytes: b"",
            },
            Output::DatagramClose { socket: 9 },
            Output::Send {
                conn,
                bytes: b"+OK\r\n",
            },
            Output::Shutdown { conn },
            Output::Close { conn, reset: true },
            Output::Consumed {
                conn,
                total: 1 << 50,
            },
            Output::Epoch(done),
            Output::Message {
                fatal: false,
                text: b"hello",
            },
            Output::Exit {
                pid: 7,
                status: 9,
                last: true,
            },
        ] {
            record.encode(|kind, parts| {
                let bytes = parts.concat();
                assert_eq!(Output::decode(kind, &bytes), Ok(record));
            });
        }
    }

    #[test]
    fn short_and_unknown_records_are_errors() {
        for kind in 0..20 {
            for len in 0..8 {
                let _ = Output::decode(kind, &[0u8; 8][..len]);
            }
        }
        assert_eq!(Output::decode(77, b""), Err(BadRecord { kind: 77 }));
    }
}
