//! Connections of clients outside the group, driven by the replicated log.
//!
//! Each `apply_*` is one event of a committed log entry. An event for a
//! connection that is gone does nothing and returns `false`: the server closed
//! it before the event was ordered, on every replica alike.

use crate::addr::SockAddr;
use crate::desc::Kind;
use crate::iov::Gather;
use crate::readiness::{IN, OUT, RDNORM, WRNORM, Wake};
use crate::stream::{ORDER, shut, state};
use crate::{DescId, Errno, Host, VKernel};

/// Gateway (high 8 bits) and its incarnation (low 24 bits) of a connection:
/// the upper half of its number.
#[must_use]
pub const fn conn_gateway(conn: u64) -> u32 {
    (conn >> 32) as u32
}

/// Whether another gateway may go on with a connection: then it does not end with
/// its gateway (as `crane_channel::epoch::ConnId::is_movable`).
const fn is_movable(conn: u64) -> bool {
    conn & (1 << 31) != 0
}

impl VKernel {
    /// A client connected to `listener` (as in `Host::listen`). `local` and
    /// `peer` are raw socket addresses in the listener's family. Puts the
    /// connection in the accept queue; the gateway has already accepted it, so
    /// the backlog does not apply.
    ///
    /// Refuses with `Host::conn_close(conn, true)` if the listener is gone,
    /// the number is in use, or descriptions are used up.
    pub fn apply_connect<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        conn: u64,
        listener: u32,
        local: &[u8],
        peer: &[u8],
    ) -> bool {
        if self.conns.get(conn).is_some() {
            return false;
        }
        let child = self.listener_desc(listener).and_then(|listener| {
            let desc = self.descs[listener.raw()];
            let local = SockAddr::from_bytes(local).ok()?;
            let peer = SockAddr::from_bytes(peer).ok()?;
            let limits = &self.header[0].limits;
            let made = if self.header[0].desc_used < limits.descs - limits.reserve {
                self.socket_alloc(Kind::Stream, desc.domain, desc.socket_type, 0)
            } else {
                Err(Errno::NFILE)
            };
            if made == Err(Errno::NFILE) {
                self.hdr().conns_overrun += 1;
            }
            let child = made.ok()?;
            self.socks[child].local = local;
            self.socks[child].peer = peer;
            Some((listener.raw(), child))
        });
        let Some((listener, child)) = child else {
            host.conn_close(conn, true);
            return false;
        };
        self.streams[child].conn = conn;
        self.streams[child].state |= state::EXTERNAL;
        self.conns.insert(conn, child);
        let mut order = self.header[0].conns;
        order.push_back::<ORDER, _>(&mut self.streams, child);
        self.header[0].conns = order;
        self.header[0].conns_total += 1;
        self.enqueue(host, listener, child);
        true
    }

    /// Bytes arrived. If the region's chunks are used up the connection is
    /// reset, since bytes of the log can neither wait nor be lost.
    pub fn apply_data<H: Host + ?Sized>(&mut self, host: &mut H, conn: u64, bytes: &[u8]) -> bool {
        let Some(id) = self.conns.get(conn) else {
            return false;
        };
        if bytes.is_empty() {
            return true;
        }
        let stream = &mut self.streams[id];
        if stream.shut == shut::BOTH && stream.state & state::DONE == 0 {
            // TCP answers data after a shutdown of both directions so.
            host.conn_close(conn, true);
            return self.apply_reset(host, conn);
        }
        let mut data = Gather::new(bytes);
        if self
            .pool
            .push(&mut stream.rx, &mut data, bytes.len())
            .is_err()
        {
            self.header[0].conns_overrun += 1;
            host.conn_close(conn, true);
            return self.apply_reset(host, conn);
        }
        stream.bytes_in += bytes.len() as u64;
        self.header[0].bytes_in += bytes.len() as u64;
        self.notify(host, id, IN | RDNORM, Wake::All);
        true
    }

    /// The client will send no more.
    pub fn apply_eof<H: Host + ?Sized>(&mut self, host: &mut H, conn: u64) -> bool {
        let Some(id) = self.conns.get(conn) else {
            return false;
        };
        self.fin_received(host, id);
        true
    }

    /// The client's connection broke. The gateway is not told when the server
    /// closes its end later.
    pub fn apply_reset<H: Host + ?Sized>(&mut self, host: &mut H, conn: u64) -> bool {
        let Some(id) = self.conns.get(conn) else {
            return false;
        };
        self.forget_conn(id);
        self.reset_stream(host, id);
        true
    }

    /// The gateway has passed on the first `offset` bytes that the server sent
    /// on this connection. Offsets that go back or too far are ignored.
    pub fn apply_drained<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        conn: u64,
        offset: u64,
    ) -> bool {
        let Some(id) = self.conns.get(conn) else {
            return false;
        };
        let stream = &self.streams[id];
        if offset <= stream.drained || offset > stream.bytes_out {
            return false;
        }
        self.passed(id, 0, offset);
        if self.streams[id].state & state::NO_SPACE != 0 && self.is_writable(id) {
            self.streams[id].state &= !state::NO_SPACE;
            self.notify(host, id, OUT | WRNORM, Wake::All);
        }
        true
    }

    /// A gateway's incarnation is gone: resets its connections, oldest first, but for
    /// the movable ones.
    /// Returns how many there were.
    pub fn apply_gateway_down<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        gateway: u8,
        incarnation: u32,
    ) -> u32 {
        let prefix = (u32::from(gateway) << 24) | (incarnation & 0xff_ffff);
        let mut count = 0;
        let mut id = self.header[0].conns.head;
        while id != 0 {
            let Stream { conn, next } = Stream::of(self, id);
            if conn_gateway(conn) == prefix && !is_movable(conn) {
                self.forget_conn(id);
                self.reset_stream(host, id);
                count += 1;
            }
            id = next;
        }
        count
    }

    /// Whether a socket's peer is (or was) a client outside.
    #[must_use]
    pub fn is_external(&self, desc: DescId) -> bool {
        self.kind(desc) == Ok(Kind::Stream) && self.streams[desc.raw()].state & state::EXTERNAL != 0
    }

    /// The open description of a connection.
    #[must_use]
    pub fn conn_desc(&self, conn: u64) -> Option<DescId> {
        self.conns.get(conn).map(DescId::from_raw)
    }

    /// Calls `visit` for every open connection, oldest first.
    pub fn for_each_conn(&self, mut visit: impl FnMut(u64, DescId)) {
        let mut id = self.header[0].conns.head;
        while id != 0 {
            let Stream { conn, next } = Stream::of(self, id);
            visit(conn, DescId::from_raw(id));
            id = next;
        }
    }

    /// Takes a stream out of the connections; whether it was one.
    pub(crate) fn forget_conn(&mut self, id: u32) -> bool {
        let conn = self.streams[id].conn;
        if self.conns.get(conn) != Some(id) {
            return false;
        }
        self.conns.remove(conn);
        // What it has sent is the gateway's to drop or to deliver.
        let sent = self.streams[id].bytes_out;
        self.passed(id, 0, sent);
        let mut order = self.header[0].conns;
        order.remove::<ORDER, _>(&mut self.streams, id);
        self.header[0].conns = order;
        true
    }
}

/// A step along the connections, read before the callback can change it.
struct Stream {
    conn: u64,
    next: u32,
}

impl Stream {
    fn of(kernel: &VKernel, id: u32) -> Stream {
        let stream = &kernel.streams[id];
        Stream {
            conn: stream.conn,
            next: stream.order.next,
        }
    }
}
