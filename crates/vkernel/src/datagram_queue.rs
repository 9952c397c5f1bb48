//! The queue of a datagram socket: whole messages, each behind a head.

use crate::addr::{Endpoint, SockAddr};
use crate::desc::Kind;
use crate::io::Received;
use crate::iov::{Gather, Scatter};
use crate::stream::shut;
use crate::table::record;
use crate::{DescId, Dir, Errno, Host, Result, VKernel, wait_key};

record! {
    /// Before each message in a queue; the sender's address follows, then the
    /// message.
    struct Head {
        len: u32,
        from_len: u32,
        /// Virtual time of its arrival.
        arrived: u64,
        /// Where it was sent to.
        to: Endpoint,
    }
}

const HEAD: usize = size_of::<Head>();

impl Head {
    fn to_bytes(self) -> [u8; HEAD] {
        // SAFETY: a record has no padding and every bit pattern is valid.
        unsafe { core::mem::transmute(self) }
    }

    fn from_bytes(bytes: [u8; HEAD]) -> Head {
        // SAFETY: as above.
        unsafe { core::mem::transmute(bytes) }
    }
}

/// What a message came with.
#[derive(Clone, Copy)]
pub struct Source {
    /// The sender's address, empty for an unnamed one.
    pub from: SockAddr,
    /// The address it was sent to, IPv4 in its mapped form.
    pub to: [u8; 16],
    /// Virtual time of its arrival, nanoseconds.
    pub arrived: u64,
}

impl VKernel {
    pub(crate) fn put(
        &mut self,
        id: u32,
        from: &[u8],
        to: &Endpoint,
        mut data: Gather<'_>,
    ) -> Result<()> {
        let len = data.len();
        let head = Head {
            len: len as u32,
            from_len: from.len() as u32,
            arrived: self.header[0].now,
            to: *to,
        };
        let rx = &mut self.streams[id].rx;
        if !self.pool.has_room(rx, HEAD + from.len() + len) {
            return Err(Errno::NOBUFS);
        }
        self.pool
            .push(rx, &mut Gather::new(&head.to_bytes()), HEAD)?;
        self.pool.push(rx, &mut Gather::new(from), from.len())?;
        self.pool.push(rx, &mut data, len)?;
        self.streams[id].bytes_in += len as u64;
        self.streams[id].pushed += (HEAD + from.len() + len) as u64;
        Ok(())
    }

    fn first_head(&self, id: u32) -> Option<Head> {
        let mut bytes = [0; HEAD];
        let mut to = Scatter::new(&mut bytes);
        if self.pool.peek(&self.streams[id].rx, 0, &mut to, HEAD) < HEAD {
            return None;
        }
        Some(Head::from_bytes(bytes))
    }

    /// Where the next message came from, if there is one.
    #[must_use]
    pub fn next_source(&self, desc: DescId) -> Option<Source> {
        if self.kind(desc) != Ok(Kind::Datagram) {
            return None;
        }
        let head = self.first_head(desc.raw())?;
        let mut raw = [0; 128];
        let len = head.from_len as usize;
        let rx = &self.streams[desc.raw()].rx;
        self.pool.peek(rx, HEAD, &mut Scatter::new(&mut raw), len);
        Some(Source {
            from: SockAddr::from_bytes(&raw[..len.min(raw.len())]).ok()?,
            to: head.to.ip,
            arrived: head.arrived,
        })
    }

    /// Length of the next message.
    pub(crate) fn datagram_available(&self, id: u32) -> usize {
        self.first_head(id).map_or(0, |head| head.len as usize)
    }

    pub(crate) fn recv_datagram<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mut to: Scatter<'_>,
        peek: bool,
    ) -> Result<Received> {
        if let Some(error) = self.take_err(id) {
            return Err(error);
        }
        let Some(head) = self.first_head(id) else {
            if self.streams[id].shut & shut::RECV != 0 {
                return Ok(Received::bytes(0));
            }
            return Err(Errno::AGAIN);
        };
        let message = head.len as usize;
        let before = HEAD + head.from_len as usize;
        let len = to.len().min(message);
        let rx = &mut self.streams[id].rx;
        if peek {
            self.pool.peek(rx, before, &mut to, len);
        } else {
            self.pool.discard(rx, before);
            self.pool.pop(rx, &mut to, len);
            self.pool.discard(rx, message - len);
            self.datagram_space(host, id);
        }
        if self.streams[id].rx.bytes > 0 {
            // One message wakes one reader, who leaves the rest to the next.
            host.wake_one(wait_key(DescId::from_raw(id), Dir::Read));
        }
        Ok(Received::with(len, message, 0))
    }
}
