//! Connected stream sockets: sending, receiving, errors.
//!
//! TCP and Unix sockets differ in what an error, a shutdown and a close mean
//! to the other side; the functions here follow `net/ipv4/tcp.c` and
//! `net/unix/af_unix.c` in those differences.

use crate::buffer::ByteQueue;
use crate::desc::Kind;
use crate::io::Received;
use crate::iov::{Gather, Scatter};
use crate::readiness::{IN, OUT, RDNORM, WRBAND, WRNORM, Wake};
use crate::socket::SOCK_DGRAM;
use crate::table::{Link, Linked, List, record};
use crate::{DescId, Errno, Host, Result, VKernel};

record! {
    /// The hot half of a socket.
    pub(crate) struct Stream {
        /// The log's number of an external connection.
        pub(crate) conn: u64,
        /// Received and not read yet.
        pub(crate) rx: ByteQueue,
        pub(crate) bytes_in: u64,
        pub(crate) bytes_out: u64,
        /// How much of `bytes_out` the gateway has passed on.
        pub(crate) drained: u64,
        /// Consumption last reported to the gateway.
        pub(crate) reported: u64,
        /// Bytes put into `rx` from inside the group, with their framing.
        pub(crate) pushed: u64,
        /// Descriptors that came with bytes in `rx`.
        pub(crate) attached: List,
        pad: u32,
        /// Place among the external connections.
        pub(crate) order: Link,
        /// Place in a listener's queue.
        pub(crate) accept: Link,
        /// The listener whose queue holds this socket.
        pub(crate) listener: u32,
        /// The other end, if it is in the group and open.
        pub(crate) peer: u32,
        /// `shut` bits.
        pub(crate) shut: u32,
        /// `state` bits.
        pub(crate) state: u32,
    }
}

/// List of external connections.
pub(crate) const ORDER: usize = 0;
/// Accept queue, or queue of waiting connects.
pub(crate) const ACCEPT: usize = 1;

impl Linked<ORDER> for Stream {
    fn link(&mut self) -> &mut Link {
        &mut self.order
    }
    fn next(&self) -> u32 {
        self.order.next
    }
}

impl Linked<ACCEPT> for Stream {
    fn link(&mut self) -> &mut Link {
        &mut self.accept
    }
    fn next(&self) -> u32 {
        self.accept.next
    }
}

/// Bits of `Stream::shut`, as in Linux's `sk_shutdown`.
pub(crate) mod shut {
    pub(crate) const RECV: u32 = 1;
    pub(crate) const SEND: u32 = 2;
    pub(crate) const BOTH: u32 = 3;
}

/// Bits of `Stream::state`.
pub(crate) mod state {
    /// The peer is a client outside; the log drives this end.
    pub(crate) const EXTERNAL: u32 = 1;
    /// The peer's end of stream has arrived (TCP).
    pub(crate) const DONE: u32 = 1 << 1;
    /// Somebody found no space to write and wants to hear of it.
    pub(crate) const NO_SPACE: u32 = 1 << 2;
    /// A non-blocking connect has not been asked about yet.
    pub(crate) const CONNECTING: u32 = 1 << 3;
    /// Messages keep their boundaries.
    pub(crate) const FRAMED: u32 = 1 << 4;
    /// The connection is over (reset, or both ends finished).
    pub(crate) const CLOSED: u32 = 1 << 5;
    /// The peer inside the group has closed its end.
    pub(crate) const PEER_GONE: u32 = 1 << 6;
    /// Queued at a listener that has no room.
    pub(crate) const WAITS_CONNECT: u32 = 1 << 7;
    /// A datagram socket has a peer.
    pub(crate) const CONNECTED: u32 = 1 << 8;
    /// A datagram socket is known to the gateways.
    pub(crate) const ANNOUNCED: u32 = 1 << 9;
}

/// Who is at the other end of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamPeer {
    /// A client outside the group, with its number in the log.
    External(u64),
    /// A socket of the group.
    Local(DescId),
    /// Nobody any more.
    Gone,
}

/// What is known about a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// The other end.
    pub peer: StreamPeer,
    /// Bytes received since the start.
    pub bytes_in: u64,
    /// Bytes sent since the start.
    pub bytes_out: u64,
    /// Bytes received and not read yet.
    pub unread: u64,
    /// Bytes sent that the gateway has not drained; 0 for local streams.
    pub in_flight: u64,
}

impl VKernel {
    /// Figures of a connected socket; `ENOTCONN` for others.
    pub fn stream_info(&self, desc: DescId) -> Result<StreamInfo> {
        if self.socket_kind(desc)? != Kind::Stream {
            return Err(Errno::NOTCONN);
        }
        let stream = &self.streams[desc.raw()];
        let external = stream.state & state::EXTERNAL != 0;
        let peer = if external && stream.state & state::CLOSED == 0 {
            StreamPeer::External(stream.conn)
        } else if stream.peer != 0 {
            StreamPeer::Local(DescId::from_raw(stream.peer))
        } else {
            StreamPeer::Gone
        };
        Ok(StreamInfo {
            peer,
            bytes_in: stream.bytes_in,
            bytes_out: stream.bytes_out,
            unread: stream.rx.bytes,
            in_flight: if external {
                stream.bytes_out - stream.drained
            } else {
                0
            },
        })
    }

    /// Bytes in flight and the most that may be, in this stream's direction.
    fn send_room(&self, id: u32) -> (u64, u64) {
        let stream = &self.streams[id];
        let limits = &self.header[0].limits;
        if stream.state & state::EXTERNAL != 0 {
            // An eighth of what is left: one client that does not read gets all
            // of its window, a thousand of them share.
            let left = limits
                .output_limit
                .saturating_sub(self.header[0].output_held);
            let floor = u64::from(limits.window_floor);
            let most = limits.send_window.min((left / 8).max(floor));
            (stream.bytes_out - stream.drained, most)
        } else if stream.peer != 0 {
            let used = self.streams[stream.peer].rx.bytes;
            (used, u64::from(limits.local_capacity))
        } else {
            (0, u64::from(limits.local_capacity))
        }
    }

    /// Of the bytes that an external connection has sent beyond what was drained,
    /// those that count against [`crate::Limits::output_limit`].
    fn held(&self, stream: &Stream) -> u64 {
        let untold = u64::from(self.header[0].limits.window_floor / 2);
        (stream.bytes_out - stream.drained).saturating_sub(untold)
    }

    /// Changes how much of an external connection was sent and drained.
    pub(crate) fn passed(&mut self, id: u32, sent: u64, drained: u64) {
        let before = self.held(&self.streams[id]);
        let stream = &mut self.streams[id];
        stream.bytes_out += sent;
        stream.drained = stream.drained.max(drained);
        let after = self.held(&self.streams[id]);
        let header = &mut self.header[0];
        header.output_held = header.output_held - before + after;
    }

    /// Linux reports a socket writable only when a good part of its buffer is
    /// free (TCP a third, Unix three quarters), so that a writer is not woken
    /// for every few bytes.
    pub(crate) fn is_writable(&self, id: u32) -> bool {
        let (used, most) = self.send_room(id);
        if self.is_unix(id) {
            used * 4 <= most
        } else {
            most.saturating_sub(used) >= used / 2 && used < most
        }
    }

    /// Sends bytes on a connected socket. Returns how many were taken; less
    /// than asked if space runs out.
    ///
    /// # Errors
    ///
    /// `EAGAIN` without space; `EPIPE` (the caller raises `SIGPIPE` for stream
    /// sockets unless `MSG_NOSIGNAL`), `ECONNRESET`, `ENOTCONN`, `EMSGSIZE` as
    /// Linux; `ENOBUFS` if the region's chunks are used up.
    pub fn send_iov<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        data: Gather<'_>,
    ) -> Result<usize> {
        let kind = self.socket_kind(desc)?;
        let id = desc.raw();
        if kind == Kind::Datagram {
            return self.send_to(host, desc, data, &[], None);
        }
        let unix = self.is_unix(id);
        if kind != Kind::Stream {
            if unix {
                let shut = self.streams[id].shut & shut::SEND != 0;
                return Err(if shut && self.streams[id].state & state::FRAMED == 0 {
                    Errno::PIPE
                } else {
                    Errno::NOTCONN
                });
            }
            return Err(self.take_err(id).unwrap_or(Errno::PIPE));
        }
        if self.streams[id].state & state::FRAMED != 0 {
            return self.send_packet(host, id, data);
        }
        if unix {
            if self.streams[id].shut & shut::SEND != 0 {
                return Err(Errno::PIPE);
            }
        } else if self.descs[id].err != 0 || self.streams[id].shut & shut::SEND != 0 {
            return Err(self.take_err(id).unwrap_or(Errno::PIPE));
        }
        if data.is_empty() {
            return Ok(0);
        }
        if self.streams[id].state & state::EXTERNAL != 0 {
            self.send_external(host, id, data)
        } else {
            self.send_local(host, id, data)
        }
    }

    fn send_external<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mut data: Gather<'_>,
    ) -> Result<usize> {
        let (used, most) = self.send_room(id);
        let stream = &mut self.streams[id];
        let len = (most.saturating_sub(used)).min(data.len() as u64) as usize;
        if len < data.len() {
            stream.state |= state::NO_SPACE;
        }
        if len == 0 {
            return Err(Errno::AGAIN);
        }
        let mut done = 0;
        while done < len {
            let bytes = data.segment(len - done);
            host.output(stream.conn, bytes);
            done += bytes.len();
        }
        self.passed(id, len as u64, 0);
        self.header[0].bytes_out += len as u64;
        Ok(len)
    }

    fn send_local<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mut data: Gather<'_>,
    ) -> Result<usize> {
        let peer = self.streams[id].peer;
        if peer == 0 {
            if self.is_unix(id) {
                return Err(Errno::PIPE);
            }
            // TCP learns only from the answer to this segment that nobody is
            // there any more: this send succeeds, the next one does not.
            self.streams[id].bytes_out += data.len() as u64;
            self.reset_stream(host, id);
            return Ok(data.len());
        }
        if self.is_unix(id) {
            if self.streams[peer].shut & shut::RECV != 0 {
                return Err(Errno::PIPE);
            }
        } else if self.streams[peer].shut == shut::BOTH {
            // TCP answers data that arrives after both directions were shut
            // down with a reset, which the sender notices afterwards.
            self.streams[id].bytes_out += data.len() as u64;
            self.reset_stream(host, peer);
            self.reset_stream(host, id);
            return Ok(data.len());
        }
        let (used, most) = self.send_room(id);
        let len = (most.saturating_sub(used)).min(data.len() as u64) as usize;
        if len < data.len() {
            self.streams[id].state |= state::NO_SPACE;
        }
        if len == 0 {
            return Err(Errno::AGAIN);
        }
        self.pool.push(&mut self.streams[peer].rx, &mut data, len)?;
        self.streams[peer].bytes_in += len as u64;
        self.streams[peer].pushed += len as u64;
        self.streams[id].bytes_out += len as u64;
        self.notify(host, peer, IN | RDNORM, Wake::All);
        Ok(len)
    }

    /// Receives from a socket. `Received::len` 0 for a stream means end of
    /// stream (or an empty buffer).
    ///
    /// # Errors
    ///
    /// `EAGAIN` when nothing is there; `ECONNRESET`, `ENOTCONN`, `EINVAL` as
    /// Linux.
    pub fn recv_iov<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        mut to: Scatter<'_>,
        peek: bool,
    ) -> Result<Received> {
        let kind = self.socket_kind(desc)?;
        let id = desc.raw();
        if kind == Kind::Datagram {
            return self.recv_datagram(host, id, to, peek);
        }
        if kind != Kind::Stream {
            return self.recv_unconnected(id, kind);
        }
        if self.streams[id].state & state::FRAMED != 0 {
            return self.recv_packet(host, id, to, peek);
        }
        if self.streams[id].rx.bytes == 0 {
            return self.recv_empty(id).map(|()| Received::bytes(0));
        }
        let (len, attached) = self.attached_window(id, to.len());
        let rx = &mut self.streams[id].rx;
        let len = if peek {
            self.pool.peek(rx, 0, &mut to, len)
        } else {
            self.pool.pop(rx, &mut to, len)
        };
        if len > 0 && !peek {
            if attached != 0 {
                self.attached_taken(id);
            }
            self.consumed(host, id);
        }
        Ok(Received::with(len, len, attached))
    }

    fn recv_unconnected(&mut self, id: u32, kind: Kind) -> Result<Received> {
        if self.is_unix(id) {
            let framed = self.streams[id].state & state::FRAMED != 0;
            return Err(if framed { Errno::NOTCONN } else { Errno::INVAL });
        }
        if kind == Kind::Socket {
            if let Some(error) = self.take_err(id) {
                return Err(error);
            }
            if self.streams[id].shut & shut::RECV != 0 {
                return Ok(Received::bytes(0));
            }
        }
        Err(Errno::NOTCONN)
    }

    /// End of stream (`Ok`), an error, or `EAGAIN`, when no byte is there.
    pub(crate) fn recv_empty(&mut self, id: u32) -> Result<()> {
        if !self.is_unix(id) && self.streams[id].state & state::DONE != 0 {
            return Ok(());
        }
        if let Some(error) = self.take_err(id) {
            return Err(error);
        }
        // Linux lets only a blocking read of a datagram socket see this end.
        let hidden = self.descs[id].socket_type == SOCK_DGRAM
            && self.descs[id].flags & libc::O_NONBLOCK as u32 != 0;
        if self.streams[id].shut & shut::RECV != 0 && !hidden {
            return Ok(());
        }
        Err(Errno::AGAIN)
    }

    /// Tells whoever fills this stream's queue that there is more room.
    pub(crate) fn consumed<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let step = u64::from(self.header[0].limits.consumed_step);
        let stream = &mut self.streams[id];
        if stream.state & state::EXTERNAL != 0 {
            let total = stream.bytes_in - stream.rx.bytes;
            if total - stream.reported >= step && stream.state & state::CLOSED == 0 {
                stream.reported = total;
                host.conn_consumed(stream.conn, total);
            }
            return;
        }
        let peer = stream.peer;
        if peer != 0 {
            self.space_freed(host, peer);
        }
    }

    /// TCP reports space only to those who had missed it; Unix sockets report
    /// every time.
    pub(crate) fn space_freed<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let unix = self.is_unix(id);
        if (unix || self.streams[id].state & state::NO_SPACE != 0) && self.is_writable(id) {
            self.streams[id].state &= !state::NO_SPACE;
            let band = if unix { WRBAND } else { 0 };
            self.notify(host, id, OUT | WRNORM | band, Wake::All);
        }
    }

    pub(crate) fn take_err(&mut self, id: u32) -> Option<Errno> {
        match core::mem::take(&mut self.descs[id].err) {
            0 => None,
            error => Some(Errno(error)),
        }
    }
}
