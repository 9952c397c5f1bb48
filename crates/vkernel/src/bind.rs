//! Who is bound where: ports, Unix names, conflicts, and the way to a
//! listener.

use crate::addr::{self, Endpoint, SockAddr, UnixName};
use crate::desc::Kind;
use crate::socket::{AF_INET, AF_UNIX, SockOption, bound};
use crate::table::{Linked, List, record};
use crate::{DescId, Errno, Result, VKernel};

/// Linux's default range for ports chosen by the kernel.
pub(crate) const FIRST_EPHEMERAL: u32 = 32768;
const LAST_EPHEMERAL: u32 = 60999;
/// Where the UDP ports begin in the table of ports.
pub(crate) const UDP_PORTS: u32 = 65536;

record! {
    /// Sockets bound to one port, oldest first.
    pub(crate) struct PortState {
        sockets: List,
    }
}

impl PortState {
    /// The oldest of its sockets.
    pub(crate) fn head(&self) -> u32 {
        self.sockets.head
    }
}

/// Where a connect to an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// To this listener of the group.
    Listener(DescId),
    /// To this machine, but nobody in the group listens there.
    Refused,
    /// Out of the group: not for the virtual kernel.
    Outside,
}

impl VKernel {
    /// Binds a socket to a raw socket address. Port 0 and an empty Unix name
    /// are replaced by names chosen in a deterministic order.
    ///
    /// Whether an Internet address belongs to this machine, and everything
    /// about a Unix path in the file system, is for the caller to check. Two
    /// sockets bound to one path do not conflict here (the path may have been
    /// unlinked in between): the newer one gets the connections.
    pub fn bind(&mut self, desc: DescId, address: &[u8]) -> Result<()> {
        self.bind_keyed(desc, address, None)
    }

    /// As `bind`, with a key for a Unix path that is equal for all ways to
    /// write the same file (for example a hash of the absolute path).
    pub fn bind_keyed(&mut self, desc: DescId, address: &[u8], key: Option<u64>) -> Result<()> {
        let kind = self.socket_kind(desc)?;
        let id = desc.raw();
        if self.descs[id].domain == AF_UNIX {
            return self.bind_unix(id, kind, address, key);
        }
        let mut at = Endpoint::parse(self.descs[id].domain, address)?;
        if !matches!(kind, Kind::Socket | Kind::Datagram)
            || self.socks[id].state & bound::LISTED != 0
        {
            return Err(Errno::INVAL);
        }
        if at.port == 0 {
            let datagram = kind == Kind::Datagram;
            at.port = self.free_port(datagram).ok_or(Errno::ADDRINUSE)?;
        } else if self.port_conflict(id, at, false) {
            return Err(Errno::ADDRINUSE);
        }
        self.enter_port(id, at);
        self.socks[id].state |= bound::BY_CALLER;
        Ok(())
    }

    fn bind_unix(&mut self, id: u32, kind: Kind, address: &[u8], key: Option<u64>) -> Result<()> {
        let name = if address.len() == 2 && addr::family(address) == Some(AF_UNIX) {
            None
        } else {
            Some(UnixName::parse(address)?)
        };
        let listed = self.socks[id].state & bound::LISTED != 0;
        if kind == Kind::Listener || listed {
            // Asking for any name when there is one already is not an error.
            return if name.is_none() {
                Ok(())
            } else {
                Err(Errno::INVAL)
            };
        }
        let name = match name {
            Some(name) => name,
            None => self.free_unix_name()?,
        };
        let key = match key {
            Some(key) if !name.is_abstract => key,
            _ => name.key,
        };
        if name.is_abstract && self.unix_owner(key, true).is_some() {
            return Err(Errno::ADDRINUSE);
        }
        let sock = &mut self.socks[id];
        sock.local = name.addr;
        sock.unix_key = key;
        sock.state |= bound::LISTED | bound::BY_CALLER;
        let mut list = self.header[0].unix_bound;
        list.push_back(&mut self.socks, id);
        self.header[0].unix_bound = list;
        Ok(())
    }

    fn free_unix_name(&mut self) -> Result<UnixName> {
        for _ in 0..1 << 20 {
            let number = self.header[0].next_unix_name;
            self.header[0].next_unix_name = (number + 1) & 0xf_ffff;
            let name = UnixName::parse(SockAddr::unix_auto(number).as_bytes())?;
            if self.unix_owner(name.key, true).is_none() {
                return Ok(name);
            }
        }
        Err(Errno::ADDRINUSE)
    }

    /// The newest socket bound to a Unix name.
    fn unix_owner(&self, key: u64, is_abstract: bool) -> Option<u32> {
        let mut id = self.header[0].unix_bound.tail;
        while id != 0 {
            let sock = &self.socks[id];
            if sock.unix_key == key && (sock.local.as_bytes().get(2) == Some(&0)) == is_abstract {
                return Some(id);
            }
            id = sock.bound.prev;
        }
        None
    }

    /// The socket bound to a raw Unix address, or `ECONNREFUSED`.
    pub(crate) fn unix_target(&self, address: &[u8], key: Option<u64>) -> Result<u32> {
        let name = UnixName::parse(address)?;
        let key = match key {
            Some(key) if !name.is_abstract => key,
            _ => name.key,
        };
        self.unix_owner(key, name.is_abstract)
            .ok_or(Errno::CONNREFUSED)
    }

    /// A port that no socket is bound to, in rotation.
    pub(crate) fn free_port(&mut self, datagram: bool) -> Option<u16> {
        let base = if datagram { UDP_PORTS } else { 0 };
        for _ in FIRST_EPHEMERAL..=LAST_EPHEMERAL {
            let port = self.header[0].next_port;
            self.header[0].next_port = if port == LAST_EPHEMERAL {
                FIRST_EPHEMERAL
            } else {
                port + 1
            };
            if self.ports[base + port].sockets.is_empty() {
                return Some(port as u16);
            }
        }
        None
    }

    /// Where a socket's port is in the table of ports.
    fn port_entry(&self, id: u32, port: u16) -> u32 {
        let base = if self.is_datagram_socket(id) {
            UDP_PORTS
        } else {
            0
        };
        base + u32::from(port)
    }

    /// Notes that `id` is bound at `at`, which was checked.
    pub(crate) fn enter_port(&mut self, id: u32, at: Endpoint) {
        let domain = self.descs[id].domain;
        let sock = &mut self.socks[id];
        sock.bound_at = at;
        sock.local = at.to_raw(domain);
        sock.state |= bound::LISTED;
        let entry = self.port_entry(id, at.port);
        self.ports[entry].sockets.push_back(&mut self.socks, id);
    }

    /// Takes `id` out of the port's or the Unix names' list.
    pub(crate) fn unbind(&mut self, id: u32) {
        if self.socks[id].state & bound::LISTED == 0 {
            return;
        }
        self.socks[id].state &= !(bound::LISTED | bound::BY_CALLER);
        if self.is_unix(id) {
            let mut list = self.header[0].unix_bound;
            list.remove(&mut self.socks, id);
            self.header[0].unix_bound = list;
        } else {
            let entry = self.port_entry(id, self.socks[id].bound_at.port);
            self.ports[entry].sockets.remove(&mut self.socks, id);
        }
    }

    pub(crate) fn has(&self, id: u32, option: SockOption) -> bool {
        self.socks[id].options & option.bit() != 0
    }

    /// Whether a socket bound at `at` takes in addresses of the family of
    /// `other` if it is a wildcard.
    pub(crate) fn wildcard_covers(&self, id: u32, at: Endpoint, other: Endpoint) -> bool {
        if at.is_v4() || self.descs[id].domain == AF_INET {
            return other.is_v4();
        }
        !(other.is_v4() && self.has(id, SockOption::V6Only))
    }

    fn overlap(&self, id: u32, at: Endpoint, other: u32) -> bool {
        let theirs = self.socks[other].bound_at;
        at.ip == theirs.ip
            || (at.is_wildcard() && self.wildcard_covers(id, at, theirs))
            || (theirs.is_wildcard() && self.wildcard_covers(other, theirs, at))
    }

    /// Linux's rule: overlapping addresses on one port conflict, unless both
    /// set SO_REUSEPORT, or both set SO_REUSEADDR and the other one does not
    /// listen (`listening`: and this one does not either).
    pub(crate) fn port_conflict(&self, id: u32, at: Endpoint, listening: bool) -> bool {
        let mut other = self.ports[self.port_entry(id, at.port)].sockets.head;
        while other != 0 {
            if other != id && self.overlap(id, at, other) {
                let both = |option| self.has(id, option) && self.has(other, option);
                let other_listens = self.kind_of(other) == Some(Kind::Listener);
                let shared = both(SockOption::ReusePort)
                    || (!other_listens && (listening || both(SockOption::ReuseAddr)));
                if !shared {
                    return true;
                }
            }
            other = self.socks[other].next();
        }
        false
    }

    /// Where a connect to the raw address `address` leads. For a Unix name
    /// never `Outside`.
    pub fn route(&mut self, address: &[u8]) -> Result<Route> {
        self.route_keyed(address, None)
    }

    /// As `route`, with the key of a Unix path as in `bind_keyed`.
    pub fn route_keyed(&mut self, address: &[u8], key: Option<u64>) -> Result<Route> {
        let family = addr::family(address).ok_or(Errno::INVAL)?;
        if family == AF_UNIX {
            return Ok(match self.unix_target(address, key) {
                Ok(id) if self.kind_of(id) == Some(Kind::Listener) => {
                    Route::Listener(DescId::from_raw(id))
                }
                Ok(_) | Err(Errno::CONNREFUSED) => Route::Refused,
                Err(error) => return Err(error),
            });
        }
        let to = Endpoint::parse(family, address)?;
        Ok(self.route_to(to))
    }

    /// How well listener `id` fits a destination: an exact address is better
    /// than a wildcard; 0 for not at all.
    fn fit(&self, id: u32, to: Endpoint) -> u32 {
        if self.kind_of(id) != Some(Kind::Listener) {
            return 0;
        }
        let at = self.socks[id].bound_at;
        if at.ip == to.ip {
            return 2;
        }
        u32::from(at.is_wildcard() && self.wildcard_covers(id, at, to))
    }

    /// Among listeners that fit equally well (possible with SO_REUSEPORT) the
    /// connections go round.
    pub(crate) fn route_to(&mut self, to: Endpoint) -> Route {
        let to = if to.is_wildcard() {
            Endpoint::loopback(to.is_v4(), to.port)
        } else {
            to
        };
        let (mut best, mut count) = (0, 0);
        let mut id = self.ports[u32::from(to.port)].sockets.head;
        while id != 0 {
            match self.fit(id, to) {
                fit if fit > best => (best, count) = (fit, 1),
                fit if fit == best => count += 1,
                _ => {}
            }
            id = self.socks[id].next();
        }
        let own = to.is_loopback() || to.ip == self.header[0].interface;
        if best < 2 && !own && !self.is_group_address(to) {
            return Route::Outside;
        }
        if best == 0 {
            return Route::Refused;
        }
        let mut skip = 0;
        if count > 1 {
            let turn = self.header[0].next_reuseport;
            self.header[0].next_reuseport = turn.wrapping_add(1);
            skip = turn % count;
        }
        id = self.ports[u32::from(to.port)].sockets.head;
        while id != 0 {
            if self.fit(id, to) == best {
                if skip == 0 {
                    return Route::Listener(DescId::from_raw(id));
                }
                skip -= 1;
            }
            id = self.socks[id].next();
        }
        Route::Refused
    }

    /// Whether a listener of the group is bound to exactly this address, on
    /// whatever port.
    fn is_group_address(&self, to: Endpoint) -> bool {
        let fresh = self.header[0].desc_fresh;
        (1..=fresh).any(|id| {
            self.kind_of(id) == Some(Kind::Listener)
                && self.descs[id].domain != AF_UNIX
                && self.socks[id].bound_at.ip == to.ip
        })
    }
}
