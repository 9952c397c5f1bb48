//! Datagram sockets: UDP over IPv4 and IPv6, and Unix datagrams.
//!
//! A message waits in its receiver's queue (`datagram_queue`). Inside the group
//! it goes from queue to queue; from outside it comes by an event of the log; to
//! the outside it is an output. As UDP is, this is lossy: what does not fit in a
//! receiver's queue is dropped and counted. Unix datagrams wait for room instead.

use crate::addr::{self, Endpoint, SockAddr};
use crate::bind::UDP_PORTS;
use crate::desc::Kind;
use crate::iov::Gather;
use crate::multicast::is_multicast;
use crate::readiness::{IN, OUT, RDNORM, WRBAND, WRNORM, Wake};
use crate::socket::{AF_INET, AF_UNIX, SOCK_DGRAM, SockOption, bound};
use crate::stream::{shut, state};
use crate::table::{Linked, Record, record};
use crate::{DescId, Errno, Host, Result, VKernel};

/// Most bytes of one UDP message.
const MAX_UDP: usize = 65_507;
/// Entries of the table of peers outside.
pub(crate) const PEERS: u32 = 8192;

record! {
    /// Through which gateway a peer outside was last heard by a socket.
    pub(crate) struct Outside {
        key: u64,
        /// Gateway and incarnation, as in the upper half of a connection's
        /// number; 0: a free entry.
        gateway: u32,
        pad: u32,
    }
}

pub(crate) fn is_broadcast(to: &Endpoint) -> bool {
    to.is_v4() && to.ip[12..] == [255; 4]
}

impl VKernel {
    /// The address that this machine has besides its loopback ones, IPv4 in
    /// its mapped form; datagrams to it stay in the group.
    pub fn set_interface(&mut self, ip: [u8; 16]) {
        self.header[0].interface = ip;
    }

    /// The address given with `set_interface`.
    #[must_use]
    pub fn interface(&self) -> [u8; 16] {
        self.header[0].interface
    }

    /// The number by which the log names a datagram socket; as `listener_id`.
    pub(crate) fn datagram_id(&self, id: u32) -> u32 {
        self.listener_id(DescId::from_raw(id))
    }

    fn is_here(&self, to: &Endpoint) -> bool {
        to.is_loopback() || to.is_wildcard() || to.ip == self.header[0].interface
    }

    /// The address that a message to `to` leaves from.
    fn source_ip(&self, id: u32, to: &Endpoint) -> [u8; 16] {
        let at = self.socks[id].bound_at;
        if self.socks[id].state & bound::LISTED != 0 && !at.is_wildcard() {
            at.ip
        } else if to.is_loopback() || to.is_wildcard() {
            Endpoint::loopback(to.is_v4(), 0).ip
        } else {
            self.header[0].interface
        }
    }

    /// Gives a socket a port if it has none.
    fn bind_datagram(&mut self, id: u32) -> Result<()> {
        if self.socks[id].state & bound::LISTED == 0 {
            let port = self.free_port(true).ok_or(Errno::ADDRNOTAVAIL)?;
            let v4 = self.descs[id].domain == AF_INET;
            self.enter_port(id, Endpoint::wildcard(v4, port));
        }
        Ok(())
    }

    /// Tells the gateways of a datagram socket that was bound to a port that
    /// clients know.
    pub fn datagram_bound<H: Host + ?Sized>(&mut self, host: &mut H, desc: DescId) {
        let id = desc.raw();
        if self.kind(desc) == Ok(Kind::Datagram)
            && !self.is_unix(id)
            && self.socks[id].state & bound::LISTED != 0
        {
            self.announce_datagram(host, id);
        }
    }

    pub(crate) fn announce_datagram<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        if self.streams[id].state & state::ANNOUNCED == 0 {
            self.streams[id].state |= state::ANNOUNCED;
            let domain = self.descs[id].domain;
            let address = self.socks[id].bound_at.to_raw(domain);
            host.datagram_open(self.datagram_id(id), address.as_bytes());
        }
    }

    /// `id` 0: for whichever socket heard the peer last.
    fn peer_key(&self, id: u32, peer: &Endpoint) -> u64 {
        let socket = if id == 0 { 0 } else { self.datagram_id(id) };
        let mut bytes = [0; 22];
        bytes[..4].copy_from_slice(&socket.to_ne_bytes());
        bytes[4..20].copy_from_slice(&peer.ip);
        bytes[20..].copy_from_slice(&peer.port.to_ne_bytes());
        addr::fnv(&bytes)
    }

    /// The gateway through which `peer` was last heard by this socket, if it
    /// is outside.
    fn outside_peer(&self, id: u32, peer: &Endpoint) -> Option<u32> {
        let key = self.peer_key(id, peer);
        let entry = &self.outside[key as u32 % PEERS];
        (entry.key == key && entry.gateway != 0).then_some(entry.gateway)
    }

    fn note_peer(&mut self, id: u32, peer: &Endpoint, gateway: u32) {
        let key = self.peer_key(id, peer);
        let entry = &mut self.outside[key as u32 % PEERS];
        if gateway != 0 || entry.key == key {
            *entry = Outside {
                key,
                gateway,
                pad: 0,
            };
        }
    }

    /// `connect` of a datagram socket: whom it hears and where `send` goes.
    pub(crate) fn connect_datagram(
        &mut self,
        id: u32,
        address: &[u8],
        key: Option<u64>,
    ) -> Result<()> {
        let family = addr::family(address).ok_or(Errno::INVAL)?;
        if family == libc::AF_UNSPEC as u16 {
            self.streams[id].state &= !state::CONNECTED;
            self.socks[id].peer = SockAddr::EMPTY;
            self.streams[id].peer = 0;
            if self.socks[id].state & bound::BY_CALLER == 0 && !self.is_unix(id) {
                self.unbind(id);
                self.socks[id].local = SockAddr::EMPTY;
            }
            return Ok(());
        }
        if self.is_unix(id) {
            let target = self.unix_datagram_target(address, key)?;
            self.streams[id].peer = target;
            self.streams[id].state |= state::CONNECTED;
            self.socks[id].peer = self.socks[target].local;
            return Ok(());
        }
        let domain = self.descs[id].domain;
        let mut to = Endpoint::parse(domain, address)?;
        if to.is_wildcard() {
            to = Endpoint::loopback(to.is_v4(), to.port);
        }
        self.bind_datagram(id)?;
        let local = Endpoint::new(self.source_ip(id, &to), self.socks[id].bound_at.port);
        self.socks[id].local = local.to_raw(domain);
        self.socks[id].peer = to.to_raw(domain);
        self.streams[id].state |= state::CONNECTED;
        Ok(())
    }

    fn unix_datagram_target(&self, address: &[u8], key: Option<u64>) -> Result<u32> {
        let target = self.unix_target(address, key)?;
        if self.kind_of(target) == Some(Kind::Datagram) {
            Ok(target)
        } else {
            Err(Errno::PROTOTYPE)
        }
    }

    pub(crate) fn connected_to(&self, id: u32) -> Option<Endpoint> {
        if self.streams[id].state & state::CONNECTED == 0 {
            return None;
        }
        Endpoint::parse(self.descs[id].domain, self.socks[id].peer.as_bytes()).ok()
    }

    /// Sends one message to `address`, or to the connected peer if it is empty.
    /// `key` is that of a Unix path, as in `bind_keyed`.
    ///
    /// # Errors
    ///
    /// `EDESTADDRREQ`, `EMSGSIZE`, `EACCES` (broadcast without the option),
    /// `ECONNREFUSED`, `EPIPE`, `EPROTOTYPE` as Linux; `EAGAIN` when a Unix
    /// receiver's queue is full.
    pub fn send_to<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        data: Gather<'_>,
        address: &[u8],
        key: Option<u64>,
    ) -> Result<usize> {
        if self.kind(desc)? != Kind::Datagram {
            return self.send_iov(host, desc, data);
        }
        let id = desc.raw();
        if let Some(error) = self.take_err(id) {
            return Err(error);
        }
        if self.streams[id].shut & shut::SEND != 0 {
            return Err(Errno::PIPE);
        }
        if self.is_unix(id) {
            return self.send_unix_datagram(host, id, data, address, key);
        }
        if data.len() > MAX_UDP {
            return Err(Errno::MSGSIZE);
        }
        let domain = self.descs[id].domain;
        let to = if address.is_empty() {
            self.connected_to(id).ok_or(Errno::DESTADDRREQ)?
        } else {
            Endpoint::parse(domain, address)?
        };
        if to.port == 0 {
            return Err(Errno::INVAL);
        }
        if is_broadcast(&to) && !self.has(id, SockOption::Broadcast) {
            return Err(Errno(libc::EACCES));
        }
        self.bind_datagram(id)?;
        self.send_udp(host, id, data, to)
    }

    fn send_udp<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        data: Gather<'_>,
        mut to: Endpoint,
    ) -> Result<usize> {
        if to.is_wildcard() {
            to = Endpoint::loopback(to.is_v4(), to.port);
        }
        let len = data.len();
        let from = Endpoint::new(self.source_ip(id, &to), self.socks[id].bound_at.port);
        let many = is_multicast(&to) || is_broadcast(&to);
        let mut route = if many {
            None
        } else {
            self.outside_peer(id, &to)
        };
        self.streams[id].bytes_out += len as u64;
        if !many && route.is_none() && self.is_here(&to) {
            // A program may answer from another socket than it was asked at.
            route = self.outside_peer(0, &to);
            match self.receiver(&from, &to) {
                Some(receiver) => {
                    self.note_peer(receiver, &from, 0);
                    self.deliver(host, receiver, &from, &to, data);
                    return Ok(len);
                }
                None if route.is_some() => {}
                None if self.streams[id].state & state::CONNECTED != 0 => {
                    // The answer of the address: nobody is there.
                    self.descs[id].err = Errno::CONNREFUSED.0;
                    self.state_changed(host, id);
                    return Ok(len);
                }
                None => return Ok(len),
            }
        } else if !many && route.is_none() {
            route = self.outside_peer(0, &to);
        }
        if many && (is_broadcast(&to) || !self.has(id, SockOption::NoMulticastLoop)) {
            let mut at = self.ports[UDP_PORTS + u32::from(to.port)].head();
            while at != 0 {
                let next = self.socks[at].next();
                if self.takes_group(at, &from, &to) {
                    self.deliver(host, at, &from, &to, data);
                }
                at = next;
            }
        }
        self.announce_datagram(host, id);
        let socket = self.datagram_id(id);
        let to = to.to_raw(if to.is_v4() {
            AF_INET
        } else {
            libc::AF_INET6 as u16
        });
        self.header[0].bytes_out += len as u64;
        host.datagram_send(route.unwrap_or(0), socket, to.as_bytes(), data);
        Ok(len)
    }

    /// The socket that a message goes to: the one connected to its sender,
    /// else one bound to exactly its address, else to any; of several alike
    /// (`SO_REUSEPORT`) the sender's address chooses, else the newest has it.
    fn receiver(&self, from: &Endpoint, to: &Endpoint) -> Option<u32> {
        let score = |id: u32| {
            let at = self.socks[id].bound_at;
            let exact = at.ip == to.ip;
            let any = at.is_wildcard() && self.wildcard_covers(id, at, *to);
            if !exact && !any {
                return 0;
            }
            match self.connected_to(id) {
                Some(peer) if peer.ip == from.ip && peer.port == from.port => 4 + u32::from(exact),
                Some(_) => 0,
                None => 1 + u32::from(exact),
            }
        };
        let first = self.ports[UDP_PORTS + u32::from(to.port)].head();
        let (mut best, mut count, mut chosen) = (0, 0, 0);
        let mut id = first;
        while id != 0 {
            match score(id) {
                fit if fit > best => (best, count, chosen) = (fit, 1, id),
                fit if fit == best && fit > 0 => (count, chosen) = (count + 1, id),
                _ => {}
            }
            id = self.socks[id].next();
        }
        if best == 0 {
            return None;
        }
        if count > 1 && self.has(chosen, SockOption::ReusePort) {
            let mut bytes = [0; 18];
            bytes[..16].copy_from_slice(&from.ip);
            bytes[16..].copy_from_slice(&from.port.to_ne_bytes());
            let mut skip = (addr::fnv(&bytes) >> 17) % count;
            id = first;
            while id != 0 {
                if score(id) == best {
                    if skip == 0 {
                        return Some(id);
                    }
                    skip -= 1;
                }
                id = self.socks[id].next();
            }
        }
        Some(chosen)
    }

    /// Puts a message into a queue; false if it was dropped.
    fn deliver<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        from: &Endpoint,
        to: &Endpoint,
        data: Gather<'_>,
    ) -> bool {
        let from = from.to_raw(self.descs[id].domain);
        let full = self.streams[id].rx.bytes >= u64::from(self.header[0].limits.local_capacity);
        if full || self.streams[id].shut & shut::RECV != 0 {
            self.header[0].datagrams_dropped += 1;
            return false;
        }
        if self.put(id, from.as_bytes(), to, data).is_err() {
            self.header[0].datagrams_dropped += 1;
            return false;
        }
        self.notify(host, id, IN | RDNORM, Wake::One);
        true
    }

    fn send_unix_datagram<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        data: Gather<'_>,
        address: &[u8],
        key: Option<u64>,
    ) -> Result<usize> {
        let most = u64::from(self.header[0].limits.local_capacity);
        let target = if !address.is_empty() {
            self.unix_datagram_target(address, key)?
        } else if self.streams[id].state & state::CONNECTED == 0 {
            return Err(Errno::NOTCONN);
        } else {
            self.streams[id].peer
        };
        // A peer that was closed, whose number may be another's by now.
        if target == 0 || self.kind_of(target) != Some(Kind::Datagram) || !self.is_unix(target) {
            self.streams[id].peer = 0;
            return Err(Errno::CONNREFUSED);
        }
        let len = data.len();
        if len as u64 > most - 32 {
            return Err(Errno::MSGSIZE);
        }
        if self.streams[target].shut & shut::RECV != 0 {
            return Err(Errno::PIPE);
        }
        if self.streams[target].state & state::CONNECTED != 0 && self.streams[target].peer != id {
            return Err(Errno::PERM);
        }
        if self.streams[target].rx.bytes >= most {
            self.streams[id].state |= state::NO_SPACE;
            self.streams[target].state |= state::NO_SPACE;
            return Err(Errno::AGAIN);
        }
        let from = self.socks[id].local;
        self.put(target, from.as_bytes(), &Endpoint::zeroed(), data)?;
        self.streams[id].bytes_out += len as u64;
        self.notify(host, target, IN | RDNORM, Wake::One);
        Ok(len)
    }

    /// Wakes the senders that had found this Unix socket's queue full.
    pub(crate) fn datagram_space<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        if self.streams[id].state & state::NO_SPACE == 0 || !self.is_unix(id) {
            return;
        }
        self.streams[id].state &= !state::NO_SPACE;
        for other in 1..=self.header[0].desc_fresh {
            let waits = self.kind_of(other) == Some(Kind::Datagram)
                && other != id
                && self.streams[other].state & state::NO_SPACE != 0
                && self.streams[other].rx.bytes < u64::from(self.header[0].limits.local_capacity);
            if waits {
                self.streams[other].state &= !state::NO_SPACE;
                self.notify(host, other, OUT | WRNORM | WRBAND, Wake::All);
            }
        }
    }

    pub(crate) fn datagram_mask(&self, id: u32) -> u32 {
        let stream = &self.streams[id];
        let mut mask = 0;
        if self.descs[id].err != 0 {
            mask |= crate::readiness::ERR;
        }
        if stream.shut & shut::RECV != 0 {
            mask |= IN | RDNORM | crate::readiness::RDHUP;
        }
        if stream.shut == shut::BOTH {
            mask |= crate::readiness::HUP;
        }
        if stream.rx.bytes > 0 {
            mask |= IN | RDNORM;
        }
        if stream.state & state::NO_SPACE == 0 || stream.rx.bytes > 0 {
            mask |= OUT | WRNORM | WRBAND;
        }
        mask
    }

    /// `shutdown` of a datagram socket: `ENOTCONN`, but done, without a peer.
    pub(crate) fn shutdown_datagram<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        how: u32,
    ) -> Result<()> {
        let connected = self.streams[id].state & state::CONNECTED != 0;
        if !connected && !self.is_unix(id) {
            return Err(Errno::NOTCONN);
        }
        self.streams[id].shut |= how;
        self.state_changed(host, id);
        Ok(())
    }

    pub(crate) fn close_datagram<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        if self.streams[id].state & state::ANNOUNCED != 0 {
            host.datagram_close(self.datagram_id(id));
        }
        self.leave_groups(id);
        self.datagram_space(host, id);
        self.unbind(id);
        let mut rx = self.streams[id].rx;
        self.pool.clear(&mut rx);
        self.streams[id].rx = rx;
    }

    /// A message from outside, for the datagram socket with this number (see
    /// `Host::datagram_open`), heard by `gateway` (with its incarnation, as
    /// the upper half of a connection's number). Whether it was delivered.
    pub fn apply_datagram<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        gateway: u32,
        socket: u32,
        local: &[u8],
        peer: &[u8],
        bytes: &[u8],
    ) -> bool {
        let id = socket & 0xffff;
        let open = self.kind(DescId::from_raw(id)) == Ok(Kind::Datagram)
            && self.datagram_id(id) == socket
            && !self.is_unix(id);
        if !open {
            return false;
        }
        let parse = |raw: &[u8]| {
            let family = addr::family(raw)?;
            Endpoint::parse(family, raw).ok()
        };
        let (Some(to), Some(from)) = (parse(local), parse(peer)) else {
            return false;
        };
        self.header[0].bytes_in += bytes.len() as u64;
        if is_multicast(&to) {
            let mut any = false;
            let mut at = self.ports[UDP_PORTS + u32::from(to.port)].head();
            while at != 0 {
                let next = self.socks[at].next();
                if self.takes_group(at, &from, &to) {
                    self.note_peer(0, &from, gateway);
                    self.note_peer(at, &from, gateway);
                    any |= self.deliver(host, at, &from, &to, Gather::new(bytes));
                }
                at = next;
            }
            return any;
        }
        let Some(id) = self.receiver(&from, &to) else {
            return false;
        };
        self.note_peer(0, &from, gateway);
        self.note_peer(id, &from, gateway);
        self.deliver(host, id, &from, &to, Gather::new(bytes))
    }

    /// Datagrams that were dropped because a queue was full.
    #[must_use]
    pub fn datagrams_dropped(&self) -> u64 {
        self.header[0].datagrams_dropped
    }

    pub(crate) fn is_datagram_socket(&self, id: u32) -> bool {
        self.descs[id].socket_type == SOCK_DGRAM && self.descs[id].domain != AF_UNIX
    }
}
