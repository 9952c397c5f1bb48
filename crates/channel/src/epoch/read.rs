//! Reading an entry: nothing is read outside of the bytes, whatever they are.

use super::{
    BatchHead, COMPLETE, CONNECT, ConnId, DATA, DATAGRAM, DRAINED, ENTRY_VERSION, EOF, EpochHead,
    Event, FLAG_SEED, GATEWAY_DOWN, MOVABLE_EVENT, MOVE, RESET, RESTART, SIGNAL,
};

/// The bytes are not an entry; says where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Offset in the entry at which decoding failed.
    pub offset: usize,
}

/// A cursor over encoded bytes that never reads outside them.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let end = end.ok_or(Malformed { offset: self.at })?;
        let out = &self.bytes[self.at..end];
        self.at = end;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn check(&self, ok: bool) -> Result<(), Malformed> {
        if ok {
            Ok(())
        } else {
            Err(Malformed { offset: self.at })
        }
    }
}

/// A decoded entry: its head and an iterator over its batches.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The fixed part.
    pub head: EpochHead,
    /// Number of batches.
    pub batches: u16,
    cursor: Cursor<'a>,
}

impl<'a> Entry<'a> {
    /// Reads the head of an entry. Batches are checked as they are read.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor { bytes, at: 0 };
        let [version, flags] = cursor.array()?;
        cursor.check(version == ENTRY_VERSION && flags & !FLAG_SEED == 0)?;
        let batches = u16::from_le_bytes(cursor.array()?);
        let budget = cursor.u32()?;
        let time = cursor.u64()?;
        let seed = if flags & FLAG_SEED != 0 {
            Some(cursor.array()?)
        } else {
            None
        };
        Ok(Self {
            head: EpochHead { time, budget, seed },
            batches,
            cursor,
        })
    }

    /// The batches in order. Stops after the first error.
    pub fn batches(&self) -> Batches<'a> {
        Batches {
            left: self.batches,
            cursor: self.cursor,
        }
    }
}

/// Iterator over the batches of an entry.
pub struct Batches<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let batch = Batch::read(&mut self.cursor);
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }
}

/// One batch: its head and its still encoded events.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// The fixed part.
    pub head: BatchHead,
    /// The encoded events.
    pub bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// A batch from bytes that a gateway sent on their own (as [`encode_batch`]
    /// made them), all of which must belong to it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor { bytes, at: 0 };
        let batch = Self::read(&mut cursor)?;
        cursor.check(cursor.at == bytes.len())?;
        Ok(batch)
    }

    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let [gateway, zero] = cursor.array()?;
        cursor.check(zero == 0)?;
        let events = u16::from_le_bytes(cursor.array()?);
        let incarnation = cursor.u32()?;
        let first_seq = cursor.u64()?;
        let len = cursor.u32()? as usize;
        let bytes = cursor.take(len)?;
        Ok(Self {
            head: BatchHead {
                gateway,
                incarnation,
                first_seq,
                events,
            },
            bytes,
        })
    }

    /// The events in order. Stops after the first error.
    pub fn events(&self) -> Events<'a> {
        Events {
            left: self.head.events,
            cursor: Cursor {
                bytes: self.bytes,
                at: 0,
            },
        }
    }
}

/// Iterator over the events of a batch.
#[derive(Clone)]
pub struct Events<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Events<'a> {
    /// The encoded bytes of the events not yet returned.
    pub fn remaining_bytes(&self) -> &'a [u8] {
        &self.cursor.bytes[self.cursor.at..]
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Result<Event<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let event = read_event(&mut self.cursor);
        if event.is_err() {
            self.left = 0;
        }
        Some(event)
    }
}

fn read_event<'a>(cursor: &mut Cursor<'a>) -> Result<Event<'a>, Malformed> {
    let [kind, flags, zero0, zero1] = cursor.array()?;
    cursor.check(flags == 0 && zero0 == 0 && zero1 == 0)?;
    let len = cursor.u32()? as usize;
    let conn = ConnId(cursor.u64()?);
    let start = cursor.at;
    let payload = cursor.take(len)?;
    let mut body = Cursor {
        bytes: payload,
        at: 0,
    };
    let event = match kind {
        CONNECT => {
            let listener = body.u32()?;
            let [local_len, peer_len] = body.array()?;
            let local = body.take(local_len.into())?;
            let peer = body.take(peer_len.into())?;
            Event::Connect {
                conn,
                listener,
                local,
                peer,
            }
        }
        DATA => {
            body.check(len > 0)?;
            Event::Data {
                conn,
                bytes: body.take(len)?,
            }
        }
        DATAGRAM => {
            let socket = body.u32()?;
            let [local_len, peer_len] = body.array()?;
            Event::Datagram {
                conn,
                socket,
                local: body.take(local_len.into())?,
                peer: body.take(peer_len.into())?,
                bytes: body.take(len - body.at)?,
            }
        }
        EOF => Event::Eof { conn },
        RESET => Event::Reset { conn },
        DRAINED => Event::Drained {
            conn,
            offset: body.u64()?,
        },
        GATEWAY_DOWN => {
            let gateway = body.u32()?;
            body.check(gateway <= 0xff)?;
            Event::GatewayDown {
                gateway: gateway as u8,
                incarnation: body.u32()?,
            }
        }
        MOVABLE_EVENT => Event::Movable {
            conn,
            socket: body.take(len)?,
        },
        MOVE => {
            let gateway = body.u32()?;
            let incarnation = body.u32()?;
            let heir = body.u32()?;
            body.check(gateway <= 0xff && heir <= 0xff)?;
            Event::Move {
                gateway: gateway as u8,
                incarnation,
                heir: heir as u8,
                heir_incarnation: body.u32()?,
            }
        }
        SIGNAL => Event::Signal {
            number: body.u32()?,
        },
        COMPLETE => Event::Complete {
            operation: body.u32()?,
            result: body.u32()? as i32,
        },
        RESTART => Event::Restart { life: body.u32()? },
        _ => return Err(Malformed { offset: start }),
    };
    if body.at != len {
        return Err(Malformed {
            offset: start + body.at,
        });
    }
    Ok(event)
}
