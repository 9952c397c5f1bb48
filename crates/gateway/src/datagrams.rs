//! Datagrams: the real UDP sockets behind the server's.
//!
//! A port that the server has bound is bound on this gateway's address; what
//! arrives is an event of its stream. A group that the server has joined is
//! joined too, and only the leader's gateway passes on what is sent to it, so
//! that a question to all has one answer. What the server sends goes out
//! through the gateway that heard the other side last, else through the
//! leader's. All of it may be lost, as datagrams may.

use crate::address::{RawAddress, parse, to_v6};
use crate::listeners::{ListenError, Places};
use crate::stream::EventStream;
use crane_channel::epoch::{ConnId, Event};
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The token of port `p` of the server is `DATAGRAM_TOKENS + p`; those of
/// groups follow.
pub const DATAGRAM_TOKENS: usize = 1 << 22;
const GROUP_TOKENS: usize = DATAGRAM_TOKENS + (1 << 16);
/// Behind the last group's token.
const END_TOKENS: usize = GROUP_TOKENS + (1 << 16);
/// First port that a server is given rather than chooses: the real one need
/// not be the same.
const FIRST_GIVEN: u16 = 32768;
/// Datagrams read from one socket before other work gets its turn.
const READS_AT_ONCE: usize = 64;
/// Longest datagram.
const LONGEST: usize = 65_536;

/// One multicast group on one port.
struct Group {
    ip: IpAddr,
    port: u16,
    /// The server's sockets that joined.
    sockets: Vec<u32>,
    real: Option<UdpSocket>,
}

/// The server's datagram sockets and the gateway's own behind them.
pub struct Datagrams {
    places: Places,
    announced: BTreeMap<u32, SocketAddr>,
    open: BTreeMap<u16, UdpSocket>,
    groups: Vec<Group>,
    enabled: bool,
    /// Sockets with more to read.
    again: Vec<Token>,
    buffer: Vec<u8>,
}

/// Who sends: what a datagram to the outside is checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// This gateway and its incarnation, as in the upper half of a connection's id.
    pub gateway: u32,
    /// Whether this replica leads.
    pub leads: bool,
}

/// A gateway and its incarnation in one number.
pub fn gateway_word(gateway: u8, incarnation: u32) -> u32 {
    (ConnId::new(gateway, incarnation, 0).0 >> 32) as u32
}

/// Whether `token` is that of a datagram socket.
pub fn is_datagram(token: Token) -> bool {
    (DATAGRAM_TOKENS..END_TOKENS).contains(&token.0)
}

impl Datagrams {
    /// None yet. Real sockets will be on `host`, for port `p` of the server at
    /// `port_map[p]`, or `p` itself.
    pub fn new(host: IpAddr, port_map: BTreeMap<u16, u16>) -> Self {
        Self {
            places: Places {
                host,
                port_map,
                virtual_host: None,
            },
            announced: BTreeMap::new(),
            open: BTreeMap::new(),
            groups: Vec::new(),
            enabled: false,
            again: Vec::new(),
            buffer: vec![0; LONGEST],
        }
    }

    /// The server has bound a socket that the outside may send to. Returns the
    /// real address if one was opened for it.
    ///
    /// # Errors
    /// When the real address cannot be bound.
    pub fn announce(
        &mut self,
        socket: u32,
        address: SocketAddr,
        registry: &Registry,
    ) -> Result<Option<SocketAddr>, ListenError> {
        self.announced.insert(socket, address);
        self.open_port(address.port(), registry)
    }

    /// The server's socket joins or leaves a group.
    ///
    /// # Errors
    /// When the group cannot be joined on this gateway's address.
    pub fn group(
        &mut self,
        socket: u32,
        ip: [u8; 16],
        join: bool,
        registry: &Registry,
    ) -> Result<(), ListenError> {
        let Some(address) = self.announced.get(&socket) else {
            return Ok(());
        };
        let (ip, port) = (Ipv6Addr::from(ip).to_canonical(), address.port());
        let found = self
            .groups
            .iter()
            .position(|g| g.ip == ip && g.port == port);
        let at = found.unwrap_or_else(|| {
            self.groups.push(Group {
                ip,
                port,
                sockets: Vec::new(),
                real: None,
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        if join {
            group.sockets.push(socket);
            return self.open_group(at, registry);
        }
        group.sockets.retain(|&s| s != socket);
        if group.sockets.is_empty() {
            group.real = None;
        }
        Ok(())
    }

    /// The server's sockets and their addresses.
    pub fn announced(&self) -> impl Iterator<Item = (u32, SocketAddr)> + '_ {
        self.announced.iter().map(|(&id, &address)| (id, address))
    }

    /// The groups that they joined, once for each time.
    pub fn joined(&self) -> impl Iterator<Item = (u32, [u8; 16])> + '_ {
        self.groups.iter().flat_map(|group| {
            let ip = match group.ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            group.sockets.iter().map(move |&socket| (socket, ip))
        })
    }

    /// From now on real sockets are opened: the replica has caught up. Returns
    /// the addresses opened now, and what could not be.
    pub fn enable(&mut self, registry: &Registry) -> (Vec<(u16, SocketAddr)>, Vec<ListenError>) {
        self.enabled = true;
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        let ports: Vec<u16> = self.announced.values().map(SocketAddr::port).collect();
        for port in ports {
            match self.open_port(port, registry) {
                Ok(real) => opened.extend(real.map(|real| (port, real))),
                Err(error) => failed.push(error),
            }
        }
        for at in 0..self.groups.len() {
            if let Err(error) = self.open_group(at, registry) {
                failed.push(error);
            }
        }
        (opened, failed)
    }

    fn open_port(
        &mut self,
        port: u16,
        registry: &Registry,
    ) -> Result<Option<SocketAddr>, ListenError> {
        if !self.enabled || self.open.contains_key(&port) {
            return Ok(None);
        }
        let address = self.places.of(port);
        let fail = |error| ListenError {
            address,
            port,
            error,
        };
        let mut socket = match UdpSocket::bind(address) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && port >= FIRST_GIVEN => {
                UdpSocket::bind(SocketAddr::new(self.places.host, 0))
            }
            other => other,
        }
        .map_err(fail)?;
        // Those fail where there is nothing to be set: sending then does too.
        let _ = socket.set_broadcast(true);
        if let IpAddr::V4(host) = self.places.host {
            let _ = sockopt::set_ip_multicast_if(&socket, &host);
        }
        let token = Token(DATAGRAM_TOKENS + usize::from(port));
        registry
            .register(&mut socket, token, Interest::READABLE)
            .map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        self.open.insert(port, socket);
        Ok(Some(address))
    }

    fn open_group(&mut self, at: usize, registry: &Registry) -> Result<(), ListenError> {
        let group = &mut self.groups[at];
        if !self.enabled || group.real.is_some() || group.sockets.is_empty() {
            return Ok(());
        }
        let address = SocketAddr::new(group.ip, self.places.of(group.port).port());
        let fail = |error| ListenError {
            address,
            port: group.port,
            error,
        };
        let mut socket = join(address, self.places.host).map_err(fail)?;
        let token = Token(GROUP_TOKENS + at);
        registry
            .register(&mut socket, token, Interest::READABLE)
            .map_err(fail)?;
        group.real = Some(socket);
        Ok(())
    }

    /// The server closed a datagram socket.
    pub fn withdraw(&mut self, socket: u32) {
        let Some(address) = self.announced.remove(&socket) else {
            return;
        };
        for group in &mut self.groups {
            group.sockets.retain(|&s| s != socket);
            if group.sockets.is_empty() {
                group.real = None;
            }
        }
        let port = address.port();
        if !self.announced.values().any(|a| a.port() == port) {
            self.open.remove(&port);
        }
    }

    /// Closes all real sockets; the server's stay announced.
    pub fn close(&mut self) {
        self.enabled = false;
        self.open.clear();
        for group in &mut self.groups {
            group.real = None;
        }
    }

    /// Pairs of the server's port and the real address.
    pub fn addresses(&self) -> impl Iterator<Item = (u16, SocketAddr)> + '_ {
        let real = |(&p, s): (&u16, &UdpSocket)| Some((p, s.local_addr().ok()?));
        self.open.iter().filter_map(real)
    }

    /// Whether there is more to read without any new event.
    pub fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Reads what was left over.
    pub fn go_on(&mut self, stream: &mut EventStream, gateway: u8, leads: bool) {
        for token in std::mem::take(&mut self.again) {
            self.receive(token, stream, gateway, leads);
        }
    }

    /// Reads what arrived at the socket of `token` into events.
    pub fn receive(&mut self, token: Token, stream: &mut EventStream, gateway: u8, leads: bool) {
        let conn = ConnId::new(gateway, stream.incarnation(), 0);
        let group = token.0.checked_sub(GROUP_TOKENS);
        for _ in 0..READS_AT_ONCE {
            let (socket, port, ip) = match group {
                Some(at) => match self.groups.get(at) {
                    Some(Group {
                        real: Some(real),
                        port,
                        ip,
                        ..
                    }) => (real, *port, *ip),
                    _ => return,
                },
                None => {
                    let port = (token.0 - DATAGRAM_TOKENS) as u16;
                    match self.open.get(&port) {
                        Some(real) => (real, port, self.places.host),
                        None => return,
                    }
                }
            };
            let (len, peer) = match socket.recv_from(&mut self.buffer) {
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The answer to something sent before: nobody is there.
                Err(_) => continue,
            };
            if stream.unacknowledged() > crate::UNACKNOWLEDGED_LIMIT || (group.is_some() && !leads)
            {
                continue;
            }
            let Some((target, local, peer)) = self.pick(port, ip, peer) else {
                continue;
            };
            stream.push(&Event::Datagram {
                conn,
                socket: target,
                local: local.as_bytes(),
                peer: peer.as_bytes(),
                bytes: &self.buffer[..len],
            });
        }
        self.again.push(token);
    }

    /// The server's socket for a datagram that reached `ip`, and the addresses
    /// as that socket shows them. Which of several on a port it is decides the
    /// server's side.
    fn pick(
        &self,
        port: u16,
        ip: IpAddr,
        peer: SocketAddr,
    ) -> Option<(u32, RawAddress, RawAddress)> {
        let peer_ip = peer.ip().to_canonical();
        let fits = |bound: &&SocketAddr| match (bound.ip(), peer_ip) {
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            _ => bound.port() == port,
        };
        let mut alike = self.announced.iter().filter(|(_, bound)| fits(bound));
        let (&socket, bound) = alike.next()?;
        let own = if bound.ip().is_unspecified() || ip.is_multicast() {
            ip
        } else {
            bound.ip()
        };
        let (own, peer_ip) = if bound.is_ipv6() {
            (to_v6(own), to_v6(peer_ip))
        } else {
            (own, peer_ip)
        };
        Some((
            socket,
            SocketAddr::new(own, port).into(),
            SocketAddr::new(peer_ip, peer.port()).into(),
        ))
    }

    /// Sends what the server sent, if it is this gateway's to send: `route` is
    /// the gateway that heard the other side last, 0 for none.
    pub fn send(&self, route: u32, socket: u32, to: &[u8], bytes: &[u8], sender: Sender) {
        let ours = if route == 0 {
            sender.leads
        } else {
            route == sender.gateway
        };
        let real = self
            .announced
            .get(&socket)
            .and_then(|address| self.open.get(&address.port()));
        if let (true, Some(real), Some(to)) = (ours, real, parse(to)) {
            let to = SocketAddr::new(to.ip().to_canonical(), to.port());
            // What cannot be sent is lost, as it may be.
            let _ = real.send_to(bytes, to);
        }
    }
}

/// A socket that hears a group on the interface of `host`.
fn join(address: SocketAddr, host: IpAddr) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    // Other replicas on this machine, and other programs, hear it too.
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd));
    match (address.ip(), host) {
        (IpAddr::V4(group), IpAddr::V4(host)) => socket.join_multicast_v4(&group, &host)?,
        (IpAddr::V4(group), IpAddr::V6(_)) => {
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        }
        (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crane_channel::epoch::Batch;
    use std::time::{Duration, Instant};

    fn events(stream: &mut EventStream) -> Vec<(u32, Vec<u8>, SocketAddr)> {
        let Some((_, bytes)) = stream.take_unsent() else {
            return Vec::new();
        };
        let batch = Batch::decode(bytes).unwrap();
        let each = batch.events().map(|event| match event.unwrap() {
            Event::Datagram {
                socket,
                peer,
                bytes,
                ..
            } => (socket, bytes.to_vec(), parse(peer).unwrap()),
            other => panic!("{other:?}"),
        });
        each.collect()
    }

    #[test]
    fn a_datagram_comes_in_and_its_answer_goes_out_by_the_same_gateway() {
        let mut poll = mio::Poll::new().unwrap();
        let host: IpAddr = "127.0.0.1".parse().unwrap();
        // Port 0 of the system stands for the server's port 53.
        let mut datagrams = Datagrams::new(host, BTreeMap::from([(53, 0)]));
        let wildcard = "0.0.0.0:53".parse().unwrap();
        assert!(
            datagrams
                .announce(7, wildcard, poll.registry())
                .unwrap()
                .is_none()
        );
        let (opened, failed) = datagrams.enable(poll.registry());
        assert!(failed.is_empty());
        let (port, real) = opened[0];
        assert_eq!(port, 53);
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        client.send_to(b"who?", real).unwrap();
        let mut stream = EventStream::new(2, 9);
        let mut got = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        let mut ready = mio::Events::with_capacity(4);
        while got.is_empty() && Instant::now() < until {
            poll.poll(&mut ready, Some(Duration::from_millis(100)))
                .unwrap();
            for event in &ready {
                assert!(is_datagram(event.token()));
                datagrams.receive(event.token(), &mut stream, 2, false);
            }
            got = events(&mut stream);
        }
        let peer = client.local_addr().unwrap();
        assert_eq!(got, [(7, b"who?".to_vec(), peer)]);
        let to = RawAddress::from(peer);
        let sender = Sender {
            gateway: gateway_word(2, 9),
            leads: false,
        };
        let other = gateway_word(3, 9);
        datagrams.send(other, 7, to.as_bytes(), b"not mine", sender);
        datagrams.send(0, 7, to.as_bytes(), b"the leader's", sender);
        datagrams.send(sender.gateway, 7, to.as_bytes(), b"me", sender);
        let mut bytes = [0; 64];
        let (len, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], from), (&b"me"[..], real));
        datagrams.withdraw(7);
        assert_eq!(datagrams.addresses().count(), 0);
    }
}
