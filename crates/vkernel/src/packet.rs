//! Unix sockets that keep message boundaries: SOCK_SEQPACKET, and the two ends
//! of a SOCK_DGRAM pair. A message is four bytes of length and its content.

use crate::io::Received;
use crate::iov::{Gather, Scatter};
use crate::readiness::{IN, RDNORM, Wake};
use crate::socket::SOCK_DGRAM;
use crate::stream::{shut, state};
use crate::{Errno, Host, Result, VKernel};

const HEADER: usize = 4;

impl VKernel {
    fn is_datagram(&self, id: u32) -> bool {
        self.descs[id].socket_type == SOCK_DGRAM
    }

    /// Sends one message whole, or nothing.
    pub(crate) fn send_packet<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mut data: Gather<'_>,
    ) -> Result<usize> {
        // A connection from outside has no message boundaries to keep.
        if self.streams[id].state & state::EXTERNAL != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let most = u64::from(self.header[0].limits.local_capacity);
        let datagram = self.is_datagram(id);
        if !datagram && let Some(error) = self.take_err(id) {
            return Err(error);
        }
        if data.len() as u64 > most - 32 {
            return Err(Errno::MSGSIZE);
        }
        if let Some(error) = self.take_err(id) {
            return Err(error);
        }
        if self.streams[id].shut & shut::SEND != 0 {
            return Err(Errno::PIPE);
        }
        let peer = self.streams[id].peer;
        if peer == 0 && self.streams[id].state & state::PEER_GONE == 0 {
            return Err(Errno::NOTCONN);
        }
        if peer == 0 {
            // Told once; from then on the socket is simply not connected.
            // What the peer had sent is lost with it.
            let stream = &mut self.streams[id];
            stream.state &= !state::PEER_GONE;
            self.pool.clear(&mut stream.rx);
            self.drop_attached(host, id);
            return Err(Errno::CONNREFUSED);
        }
        if self.streams[peer].shut & shut::RECV != 0 {
            return Err(Errno::PIPE);
        }
        let len = data.len();
        let used = self.streams[peer].rx.bytes;
        if used >= most {
            self.streams[id].state |= state::NO_SPACE;
            return Err(Errno::AGAIN);
        }
        let header = (len as u32).to_ne_bytes();
        let rx = &mut self.streams[peer].rx;
        if !self.pool.has_room(rx, len + HEADER) {
            return Err(Errno::NOBUFS);
        }
        self.pool.push(rx, &mut Gather::new(&header), HEADER)?;
        self.pool.push(rx, &mut data, len)?;
        self.streams[peer].bytes_in += len as u64;
        self.streams[peer].pushed += (len + HEADER) as u64;
        self.streams[id].bytes_out += len as u64;
        self.notify(host, peer, IN | RDNORM, Wake::All);
        Ok(len)
    }

    /// Length of the message that begins `at` bytes behind the front.
    fn packet_len(&self, id: u32, at: usize) -> Option<usize> {
        let rx = &self.streams[id].rx;
        let mut header = [0; HEADER];
        let mut to = Scatter::new(&mut header);
        if self.pool.peek(rx, at, &mut to, HEADER) < HEADER {
            return None;
        }
        Some(u32::from_ne_bytes(header) as usize)
    }

    /// Bytes of the next datagram, or of all messages of a SOCK_SEQPACKET.
    pub(crate) fn packets_available(&self, id: u32) -> usize {
        let (mut at, mut sum) = (0, 0);
        while let Some(len) = self.packet_len(id, at) {
            sum += len;
            at += HEADER + len;
            if self.is_datagram(id) {
                break;
            }
        }
        sum
    }

    /// Receives one message; what does not fit is dropped, as Linux does, and
    /// `Received::message` tells its real length.
    pub(crate) fn recv_packet<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mut to: Scatter<'_>,
        peek: bool,
    ) -> Result<Received> {
        // An error comes before queued messages here, unlike for streams.
        if let Some(error) = self.take_err(id) {
            return Err(error);
        }
        let Some(message) = self.packet_len(id, 0) else {
            return self.recv_empty(id).map(|()| Received::bytes(0));
        };
        let len = to.len().min(message);
        let (_, attached) = self.attached_window(id, HEADER + message);
        let rx = &mut self.streams[id].rx;
        if peek {
            self.pool.peek(rx, HEADER, &mut to, len);
        } else {
            self.pool.discard(rx, HEADER);
            self.pool.pop(rx, &mut to, len);
            self.pool.discard(rx, message - len);
            if attached != 0 {
                self.attached_taken(id);
            }
            self.consumed(host, id);
        }
        Ok(Received::with(len, message, attached))
    }
}
