//! Connections inside the group: connect and socketpair.

use crate::addr::{self, Endpoint};
use crate::bind::Route;
use crate::desc::Kind;
use crate::socket::{AF_INET, AF_UNIX, bound};
use crate::stream::{shut, state};
use crate::{DescId, Errno, Host, Result, VKernel};

impl VKernel {
    /// Connects a socket to a listener of the group.
    ///
    /// A TCP connect on a description with `O_NONBLOCK` returns `EINPROGRESS`
    /// as on Linux; its outcome is there at once for `poll` and `SO_ERROR`.
    ///
    /// # Errors
    ///
    /// `ECONNREFUSED` when nobody in the group listens there; `ENETUNREACH`
    /// when the address is outside the group (ask `route` first); `EAGAIN`
    /// when a Unix listener's queue is full (wait for `Dir::Write` on this
    /// socket); `EISCONN`, `EINVAL`, `EAFNOSUPPORT`, `EPROTOTYPE` as Linux.
    pub fn connect<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        address: &[u8],
    ) -> Result<()> {
        self.connect_keyed(host, desc, address, None)
    }

    /// As `connect`, with the key of a Unix path as in `bind_keyed`.
    pub fn connect_keyed<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        address: &[u8],
        key: Option<u64>,
    ) -> Result<()> {
        let kind = self.socket_kind(desc)?;
        let id = desc.raw();
        if kind == Kind::Datagram {
            return self.connect_datagram(id, address, key);
        }
        if self.is_unix(id) {
            return self.connect_unix(host, id, kind, address, key);
        }
        let family = addr::family(address).ok_or(Errno::INVAL)?;
        match kind {
            Kind::Stream if self.streams[id].state & state::CONNECTING != 0 => {
                self.streams[id].state &= !state::CONNECTING;
                return match self.take_err(id) {
                    Some(error) => Err(error),
                    None => Ok(()),
                };
            }
            Kind::Socket if self.streams[id].state & state::CONNECTING != 0 => {
                let error = self.take_err(id).unwrap_or(Errno::CONNABORTED);
                self.streams[id].state &= !state::CONNECTING;
                self.streams[id].shut = 0;
                return Err(error);
            }
            Kind::Socket => {}
            _ => return Err(Errno::ISCONN),
        }
        if family == libc::AF_UNSPEC as u16 {
            // Nothing to disconnect from.
            return Ok(());
        }
        let to = Endpoint::parse(self.descs[id].domain, address)?;
        let nonblocking = self.descs[id].flags & libc::O_NONBLOCK as u32 != 0;
        match self.route_to(to) {
            Route::Outside => return Err(Errno::NETUNREACH),
            Route::Listener(listener) => self.connect_tcp(host, id, listener.raw(), to)?,
            Route::Refused if nonblocking => {
                self.descs[id].err = Errno::CONNREFUSED.0;
                self.streams[id].shut = shut::BOTH;
                self.state_changed(host, id);
            }
            Route::Refused => return Err(Errno::CONNREFUSED),
        }
        if nonblocking {
            self.streams[id].state |= state::CONNECTING;
            return Err(Errno::INPROGRESS);
        }
        Ok(())
    }

    /// Makes the two ends of a connection each other's peers.
    fn join(&mut self, a: u32, b: u32) {
        self.streams[a].peer = b;
        self.streams[b].peer = a;
    }

    fn connect_tcp<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        listener: u32,
        mut to: Endpoint,
    ) -> Result<()> {
        if to.is_wildcard() {
            to = Endpoint::loopback(to.is_v4(), to.port);
        }
        let mut from = if self.socks[id].state & bound::LISTED != 0 {
            // A bound socket keeps its place in its port's list; only the
            // address it shows becomes a specific one.
            self.socks[id].bound_at
        } else {
            let port = self.free_port(false).ok_or(Errno::ADDRNOTAVAIL)?;
            let from = Endpoint::new(to.ip, port);
            self.enter_port(id, from);
            from
        };
        if from.is_wildcard() {
            from.ip = to.ip;
        }
        let child_domain = self.descs[listener].domain;
        let child_type = self.descs[listener].socket_type;
        let child = self.socket_alloc(Kind::Stream, child_domain, child_type, 0)?;
        self.socks[child].local = to.to_raw(child_domain);
        self.socks[child].peer = from.to_raw(child_domain);
        let domain = self.descs[id].domain;
        let own = |end: Endpoint| {
            // A socket of AF_INET cannot show an address that is not IPv4.
            if domain == AF_INET && !end.is_v4() {
                Endpoint::wildcard(true, end.port)
            } else {
                end
            }
        };
        self.socks[id].local = own(from).to_raw(domain);
        self.socks[id].peer = own(to).to_raw(domain);
        self.streams[id].shut = 0;
        self.set_kind(id, Kind::Stream);
        self.join(id, child);
        self.enqueue(host, listener, child);
        self.state_changed(host, id);
        Ok(())
    }

    fn connect_unix<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        kind: Kind,
        address: &[u8],
        key: Option<u64>,
    ) -> Result<()> {
        let target = self.unix_target(address, key);
        if target == Err(Errno::INVAL) {
            return Err(Errno::INVAL);
        }
        let listener = target?;
        if self.kind_of(listener) != Some(Kind::Listener) {
            return Err(Errno::CONNREFUSED);
        }
        if self.descs[listener].socket_type != self.descs[id].socket_type {
            return Err(Errno::PROTOTYPE);
        }
        match kind {
            Kind::Socket => {}
            Kind::Stream => return Err(Errno::ISCONN),
            _ => return Err(Errno::INVAL),
        }
        self.leave_connect_queue(id);
        if self.queue_is_full(listener) {
            self.join_connect_queue(id, listener);
            return Err(Errno::AGAIN);
        }
        let socket_type = self.descs[id].socket_type;
        let child = self.socket_alloc(Kind::Stream, AF_UNIX, socket_type, 0)?;
        self.socks[child].local = self.socks[listener].local;
        self.socks[child].peer = self.socks[id].local;
        self.socks[id].peer = self.socks[listener].local;
        self.set_kind(id, Kind::Stream);
        self.join(id, child);
        self.enqueue(host, listener, child);
        self.state_changed(host, id);
        Ok(())
    }

    /// Two connected Unix sockets, each with one reference.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for other families, `ESOCKTNOSUPPORT` for other types than
    /// stream, seqpacket and datagram, `ENFILE`.
    pub fn socketpair(
        &mut self,
        domain: i32,
        socket_type: i32,
        protocol: i32,
        flags: u32,
    ) -> Result<(DescId, DescId)> {
        let socket_type = socket_type & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        match domain {
            libc::AF_UNIX => {}
            libc::AF_INET | libc::AF_INET6 => return Err(Errno::OPNOTSUPP),
            _ => return Err(Errno::AFNOSUPPORT),
        }
        if protocol != 0 && protocol != libc::PF_UNIX {
            return Err(Errno::PROTONOSUPPORT);
        }
        if !matches!(
            socket_type,
            libc::SOCK_STREAM | libc::SOCK_DGRAM | libc::SOCK_SEQPACKET
        ) {
            return Err(Errno::SOCKTNOSUPPORT);
        }
        if self.header[0].desc_used + 2 >= self.descs.len() {
            return Err(Errno::NFILE);
        }
        let socket_type = socket_type as u8;
        let a = self.socket_alloc(Kind::Stream, AF_UNIX, socket_type, flags)?;
        let b = self.socket_alloc(Kind::Stream, AF_UNIX, socket_type, flags)?;
        self.join(a, b);
        Ok((DescId::from_raw(a), DescId::from_raw(b)))
    }
}
