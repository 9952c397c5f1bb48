//! Which real port stands for which listening socket of the server.
//!
//! The server may listen on the same port with several sockets (one a family,
//! one an address, several with `SO_REUSEPORT`); clients reach all of them
//! through one real socket of the gateway.

use crate::address::{RawAddress, to_v6};
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// The token of a listener is its [`Door`] above this.
pub const LISTENER_TOKENS: usize = 1 << 20;

/// A real listener: the server's port, and whether it is at the virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Door {
    /// The server's port.
    pub port: u16,
    /// At the address that follows the leader.
    pub at_virtual: bool,
}

impl Door {
    /// The token of its socket.
    pub fn token(self) -> Token {
        Token(LISTENER_TOKENS + usize::from(self.port) + (usize::from(self.at_virtual) << 16))
    }

    /// The door that has this token.
    pub fn of(token: Token) -> Option<Self> {
        let number = token.0.checked_sub(LISTENER_TOKENS)?;
        (number < 2 << 16).then_some(Self {
            port: number as u16,
            at_virtual: number >> 16 != 0,
        })
    }
}

/// A port could not be listened on.
#[derive(Debug)]
pub struct ListenError {
    /// The real address.
    pub address: SocketAddr,
    /// The server's own port.
    pub port: u16,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            port,
            error,
        } = self;
        write!(
            f,
            "cannot listen on {address} for the server's port {port}: {error}; "
        )?;
        match error.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "end the program that uses it, or map port {port} to another in port_map"
            ),
            io::ErrorKind::PermissionDenied => {
                write!(f, "map port {port} to one above 1023 in port_map")
            }
            _ => write!(f, "check listen_host and port_map"),
        }
    }
}

impl std::error::Error for ListenError {}

/// The listening socket of the server that a client reached, and the addresses
/// that the server is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Listener id, as in the `Listen` output.
    pub listener: u32,
    /// The server's side.
    pub local: RawAddress,
    /// The client's side.
    pub peer: RawAddress,
}

/// Where the gateway's sockets are for the server's ports.
pub(crate) struct Places {
    /// The gateway's own address.
    pub(crate) host: IpAddr,
    /// Ports that are elsewhere than the server's.
    pub(crate) port_map: BTreeMap<u16, u16>,
    /// An address that this machine has while its replica leads.
    pub(crate) virtual_host: Option<IpAddr>,
}

impl Places {
    /// The real address for a port of the server.
    pub(crate) fn of(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host, self.real_port(port))
    }

    fn real_port(&self, port: u16) -> u16 {
        self.port_map.get(&port).copied().unwrap_or(port)
    }

    /// The virtual address for a port of the server, if it needs a socket of its own.
    fn at_virtual(&self, port: u16) -> Option<SocketAddr> {
        let host = self.virtual_host.filter(|_| !self.host.is_unspecified())?;
        Some(SocketAddr::new(host, self.real_port(port)))
    }
}

/// The server's listening sockets and the gateway's own behind them.
pub struct Listeners {
    places: Places,
    announced: BTreeMap<u32, SocketAddr>,
    open: BTreeMap<Door, TcpListener>,
    enabled: bool,
    turn: usize,
}

impl Listeners {
    /// No listeners yet. Real ones will be on `host`, for port `p` of the server
    /// at `port_map[p]`, or `p` itself.
    pub fn new(host: IpAddr, port_map: BTreeMap<u16, u16>) -> Self {
        Self {
            places: Places {
                host,
                port_map,
                virtual_host: None,
            },
            announced: BTreeMap::new(),
            open: BTreeMap::new(),
            enabled: false,
            turn: 0,
        }
    }

    /// Clients come in at `host`, too, while this machine has it.
    pub fn at_virtual(mut self, host: Option<IpAddr>) -> Self {
        self.places.virtual_host = host;
        self
    }

    /// Whether a client that reached `local` did so at the virtual address.
    pub fn is_virtual(&self, local: SocketAddr) -> bool {
        self.places.virtual_host == Some(local.ip().to_canonical())
    }

    /// The server listens. Returns the real address if one was opened for it.
    ///
    /// # Errors
    /// When the real address cannot be listened on.
    pub fn announce(
        &mut self,
        listener: u32,
        address: SocketAddr,
        registry: &Registry,
    ) -> Result<Option<SocketAddr>, ListenError> {
        self.announced.insert(listener, address);
        self.open_port(address.port(), registry)
    }

    /// From now on real listeners are opened: the replica has caught up.
    /// Returns the addresses opened now.
    ///
    /// # Errors
    /// The first that cannot be listened on.
    pub fn enable(&mut self, registry: &Registry) -> Result<Vec<SocketAddr>, ListenError> {
        self.enabled = true;
        let ports: Vec<u16> = self.announced.values().map(SocketAddr::port).collect();
        let mut opened = Vec::new();
        for port in ports {
            opened.extend(self.open_port(port, registry)?);
        }
        Ok(opened)
    }

    fn open_port(
        &mut self,
        port: u16,
        registry: &Registry,
    ) -> Result<Option<SocketAddr>, ListenError> {
        let at_virtual = false;
        let door = Door { port, at_virtual };
        if !self.enabled || self.open.contains_key(&door) {
            return Ok(None);
        }
        let address = self.places.of(port);
        self.open_door(door, address, registry)?;
        if let Some(address) = self.places.at_virtual(port) {
            let at_virtual = true;
            self.open_door(Door { port, at_virtual }, address, registry)?;
        }
        Ok(Some(address))
    }

    fn open_door(
        &mut self,
        door: Door,
        address: SocketAddr,
        registry: &Registry,
    ) -> Result<(), ListenError> {
        let fail = |error| ListenError {
            address,
            port: door.port,
            error,
        };
        let socket = if door.at_virtual {
            bind_anyway(address)
        } else {
            TcpListener::bind(address)
        };
        let mut socket = socket.map_err(fail)?;
        // As many as the system allows may wait while the replica is busy; what it
        // was bound with does as well.
        let _ = rustix::net::listen(&socket, i32::MAX);
        registry
            .register(&mut socket, door.token(), Interest::READABLE)
            .map_err(fail)?;
        self.open.insert(door, socket);
        Ok(())
    }

    /// The server closed a listening socket. Returns whether a real one closed.
    pub fn withdraw(&mut self, listener: u32) -> bool {
        let Some(address) = self.announced.remove(&listener) else {
            return false;
        };
        let port = address.port();
        let used = self.announced.values().any(|a| a.port() == port);
        let both = [false, true].map(|at_virtual| Door { port, at_virtual });
        !used && both.map(|door| self.open.remove(&door).is_some())[0]
    }

    /// Closes all real listeners; the server's stay announced.
    pub fn close(&mut self) {
        self.enabled = false;
        self.open.clear();
    }

    /// The server's listening sockets and their addresses.
    pub fn announced(&self) -> impl Iterator<Item = (u32, SocketAddr)> + '_ {
        self.announced.iter().map(|(&id, &address)| (id, address))
    }

    /// The real listener behind a door.
    pub fn socket(&self, door: Door) -> Option<&TcpListener> {
        self.open.get(&door)
    }

    /// Pairs of the server's port and the real address, this replica's own.
    pub fn addresses(&self) -> impl Iterator<Item = (u16, SocketAddr)> + '_ {
        let own = self.open.iter().filter(|(door, _)| !door.at_virtual);
        own.filter_map(|(door, socket)| Some((door.port, socket.local_addr().ok()?)))
    }

    /// Chooses the server's listening socket for a client that reached the
    /// gateway at `local`: of the client's family if there is one, bound to the
    /// address that was reached rather than to another, and in turn where the
    /// server has several alike. `None` when no socket of the server takes
    /// clients of this family.
    pub fn pick(&mut self, port: u16, local: SocketAddr, peer: SocketAddr) -> Option<Target> {
        let local_ip = local.ip().to_canonical();
        let peer_ip = peer.ip().to_canonical();
        let rank = |bound: &SocketAddr| match (bound.ip(), peer_ip) {
            (IpAddr::V6(_), IpAddr::V4(_)) => Some(0),
            (IpAddr::V4(_), IpAddr::V6(_)) => None,
            (ip, _) if ip == local_ip => Some(3),
            (ip, _) if ip.is_unspecified() => Some(2),
            _ => Some(1),
        };
        let candidates = || {
            self.announced
                .iter()
                .filter(|(_, bound)| bound.port() == port)
                .filter_map(|(&id, bound)| Some((rank(bound)?, id, *bound)))
        };
        let best = candidates().map(|c| c.0).max()?;
        let alike: Vec<_> = candidates().filter(|c| c.0 == best).collect();
        let (_, listener, bound) = alike[self.turn % alike.len()];
        self.turn = self.turn.wrapping_add(1);
        let own = if bound.ip().is_unspecified() {
            local_ip
        } else {
            bound.ip()
        };
        let (own, peer_ip) = if bound.is_ipv6() {
            (to_v6(own), to_v6(peer_ip))
        } else {
            (own, peer_ip)
        };
        Some(Target {
            listener,
            local: SocketAddr::new(own, port).into(),
            peer: SocketAddr::new(peer_ip, peer.port()).into(),
        })
    }
}

/// Listens on an address that this machine need not have yet.
fn bind_anyway(address: SocketAddr) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_ip_freebind(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, i32::MAX)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(socket)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::parse;

    fn listeners(bound: &[(u32, &str)]) -> Listeners {
        let mut listeners = Listeners::new("127.0.0.1".parse().unwrap(), BTreeMap::new());
        for (id, address) in bound {
            listeners.announced.insert(*id, address.parse().unwrap());
        }
        listeners
    }

    fn pick(listeners: &mut Listeners, local: &str, peer: &str) -> Option<(u32, String, String)> {
        let target = listeners.pick(80, local.parse().unwrap(), peer.parse().unwrap())?;
        let text = |raw: RawAddress| parse(raw.as_bytes()).unwrap().to_string();
        Some((target.listener, text(target.local), text(target.peer)))
    }

    #[test]
    fn the_clients_own_family_comes_first() {
        let mut both = listeners(&[(1, "[::]:80"), (2, "0.0.0.0:80")]);
        let got = pick(&mut both, "127.0.0.1:8080", "10.0.0.9:5000");
        let want = (2, "127.0.0.1:80".into(), "10.0.0.9:5000".into());
        assert_eq!(got, Some(want));
        let mut six = listeners(&[(1, "[::]:80")]);
        let got = pick(&mut six, "127.0.0.1:8080", "10.0.0.9:5000");
        let want = (
            1,
            "[::ffff:127.0.0.1]:80".into(),
            "[::ffff:10.0.0.9]:5000".into(),
        );
        assert_eq!(got, Some(want));
        let mut four = listeners(&[(2, "0.0.0.0:80")]);
        assert_eq!(pick(&mut four, "[::1]:8080", "[::1]:5000"), None);
    }

    #[test]
    fn the_server_sees_an_address_that_it_bound() {
        let mut own = listeners(&[(1, "192.0.2.7:80"), (2, "192.0.2.8:80")]);
        let got = pick(&mut own, "192.0.2.8:8080", "10.0.0.9:5000").unwrap();
        assert_eq!((got.0, got.1.as_str()), (2, "192.0.2.8:80"));
        let got = pick(&mut own, "127.0.0.1:8080", "10.0.0.9:5000").unwrap();
        assert!(got.1.starts_with("192.0.2."));
    }

    #[test]
    fn doors_and_tokens_are_one_to_one() {
        for port in [0, 1, 65_535] {
            for at_virtual in [false, true] {
                let door = Door { port, at_virtual };
                assert_eq!(Door::of(door.token()), Some(door));
            }
        }
        assert_eq!(Door::of(Token(LISTENER_TOKENS - 1)), None);
        assert_eq!(Door::of(Token(LISTENER_TOKENS + (2 << 16))), None);
    }

    #[test]
    fn sockets_alike_take_turns() {
        let mut alike = listeners(&[(1, "0.0.0.0:80"), (2, "0.0.0.0:80")]);
        let ids: Vec<_> = (0..4)
            .map(|_| pick(&mut alike, "127.0.0.1:80", "10.0.0.9:5000").unwrap().0)
            .collect();
        assert_eq!(ids, [1, 2, 1, 2]);
    }
}
