//! What all sockets share: creation, names, options, pending errors.

use crate::addr::{Endpoint, SockAddr};
use crate::desc::Kind;
use crate::stream::state;
use crate::table::{Link, Linked, record};
use crate::{DescId, Errno, Result, VKernel};

pub(crate) const AF_UNIX: u16 = libc::AF_UNIX as u16;
pub(crate) const AF_INET: u16 = libc::AF_INET as u16;
pub(crate) const SOCK_STREAM: u8 = libc::SOCK_STREAM as u8;
pub(crate) const SOCK_DGRAM: u8 = libc::SOCK_DGRAM as u8;

record! {
    /// The colder half of a socket.
    pub(crate) struct Sock {
        pub(crate) local: SockAddr,
        pub(crate) peer: SockAddr,
        /// Where the socket is bound, for Internet sockets.
        pub(crate) bound_at: Endpoint,
        /// Where the socket is bound, for Unix sockets.
        pub(crate) unix_key: u64,
        /// Place among the sockets bound to the same port, or to Unix names.
        pub(crate) bound: Link,
        /// Bits of `bound`.
        pub(crate) state: u32,
        pub(crate) options: u32,
        pub(crate) recv_timeout: u64,
        pub(crate) send_timeout: u64,
    }
}

/// The list of sockets bound to the same port, or of all bound Unix sockets.
pub(crate) const BOUND: usize = 0;

impl Linked<BOUND> for Sock {
    fn link(&mut self) -> &mut Link {
        &mut self.bound
    }
    fn next(&self) -> u32 {
        self.bound.next
    }
}

/// Bits of `Sock::state`.
pub(crate) mod bound {
    /// Member of a port's list or of the list of Unix names.
    pub(crate) const LISTED: u32 = 1;
    /// Bound by `bind`, not by `connect` or `listen`: survives a refused
    /// connect.
    pub(crate) const BY_CALLER: u32 = 2;
}

/// Options that change how the virtual kernel behaves; all others are the
/// caller's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SockOption {
    /// `SO_REUSEADDR`: 0 or 1.
    ReuseAddr,
    /// `SO_REUSEPORT`: 0 or 1.
    ReusePort,
    /// `IPV6_V6ONLY`: 0 or 1.
    V6Only,
    /// `SO_LINGER` on with time 0, so that closing resets: 0 or 1.
    ResetOnClose,
    /// `SO_PASSCRED`: 0 or 1; stored for the caller.
    PassCred,
    /// `SO_BROADCAST`: 0 or 1.
    Broadcast,
    /// The opposite of `IP_MULTICAST_LOOP`: 0 or 1.
    NoMulticastLoop,
    /// `IP_PKTINFO`, `IPV6_RECVPKTINFO`: 0 or 1; stored for the caller.
    PacketInfo,
    /// `SO_TIMESTAMP` or one of its relatives: 0 or 1; stored for the caller.
    Timestamp,
    /// With nanoseconds (`SO_TIMESTAMPNS`): 0 or 1; stored for the caller.
    TimestampNanoseconds,
    /// Of the newer numbers (`SO_TIMESTAMP_NEW`): 0 or 1; stored for the caller.
    TimestampNew,
    /// `SO_RCVTIMEO` in nanoseconds, 0 for none; stored for the caller.
    RecvTimeout,
    /// `SO_SNDTIMEO` in nanoseconds, 0 for none; stored for the caller.
    SendTimeout,
}

impl SockOption {
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

impl VKernel {
    /// Makes a socket with one reference. `flags` become its status flags.
    ///
    /// # Errors
    ///
    /// `ESOCKTNOSUPPORT` for raw sockets and `EAFNOSUPPORT` for
    /// other families: the caller passes those to the real kernel. `ENFILE`
    /// when descriptions are used up.
    pub fn socket(
        &mut self,
        domain: i32,
        socket_type: i32,
        protocol: i32,
        flags: u32,
    ) -> Result<DescId> {
        let socket_type = socket_type & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let udp = protocol == 0 || protocol == libc::IPPROTO_UDP;
        let tcp = protocol == 0 || protocol == libc::IPPROTO_TCP;
        match (domain, socket_type) {
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if tcp => {}
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) if udp => {}
            (libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_SEQPACKET | libc::SOCK_DGRAM) => {
                if protocol != 0 && protocol != libc::PF_UNIX {
                    return Err(Errno::PROTONOSUPPORT);
                }
            }
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => {
                return Err(Errno::PROTONOSUPPORT);
            }
            (libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX, _) => {
                return Err(Errno::SOCKTNOSUPPORT);
            }
            _ => return Err(Errno::AFNOSUPPORT),
        }
        let kind = if socket_type == libc::SOCK_DGRAM {
            Kind::Datagram
        } else {
            Kind::Socket
        };
        let id = self.socket_alloc(kind, domain as u16, socket_type as u8, flags)?;
        Ok(DescId::from_raw(id))
    }

    pub(crate) fn socket_alloc(
        &mut self,
        kind: Kind,
        domain: u16,
        socket_type: u8,
        flags: u32,
    ) -> Result<u32> {
        let id = self.desc_alloc(kind)?;
        let desc = &mut self.descs[id];
        desc.domain = domain;
        desc.socket_type = socket_type;
        desc.flags = flags;
        if socket_type != SOCK_STREAM {
            self.streams[id].state |= state::FRAMED;
        }
        Ok(id)
    }

    /// Kind of `desc` if it is a socket; `ENOTSOCK` otherwise.
    pub(crate) fn socket_kind(&self, desc: DescId) -> Result<Kind> {
        let kind = self.kind(desc)?;
        if kind.is_socket() {
            Ok(kind)
        } else {
            Err(Errno::NOTSOCK)
        }
    }

    pub(crate) fn is_unix(&self, id: u32) -> bool {
        self.descs[id].domain == AF_UNIX
    }

    /// Address family of a socket.
    pub fn domain(&self, desc: DescId) -> Result<i32> {
        self.socket_kind(desc)?;
        Ok(i32::from(self.descs[desc.raw()].domain))
    }

    /// `SOCK_STREAM`, `SOCK_SEQPACKET` or `SOCK_DGRAM`.
    pub fn socket_type(&self, desc: DescId) -> Result<i32> {
        self.socket_kind(desc)?;
        Ok(i32::from(self.descs[desc.raw()].socket_type))
    }

    /// Address the socket is bound to, as `getsockname` shows it.
    pub fn getsockname(&self, desc: DescId) -> Result<SockAddr> {
        self.socket_kind(desc)?;
        let local = &self.socks[desc.raw()].local;
        if local.is_empty() {
            return Ok(SockAddr::unnamed(self.descs[desc.raw()].domain));
        }
        Ok(*local)
    }

    /// Address of the peer; `ENOTCONN` if there is none.
    pub fn getpeername(&self, desc: DescId) -> Result<SockAddr> {
        let id = desc.raw();
        let connected = match self.socket_kind(desc)? {
            Kind::Stream => self.streams[id].state & state::CLOSED == 0,
            Kind::Datagram => self.streams[id].state & state::CONNECTED != 0,
            _ => false,
        };
        if !connected {
            return Err(Errno::NOTCONN);
        }
        let peer = &self.socks[id].peer;
        if peer.is_empty() {
            return Ok(SockAddr::unnamed(self.descs[id].domain));
        }
        Ok(*peer)
    }

    /// Takes the pending error, as `SO_ERROR` does; 0 if there is none.
    pub fn take_error(&mut self, desc: DescId) -> Result<i32> {
        self.socket_kind(desc)?;
        Ok(core::mem::take(&mut self.descs[desc.raw()].err))
    }

    /// Sets an option; see [`SockOption`] for the values.
    pub fn set_option(&mut self, desc: DescId, option: SockOption, value: u64) -> Result<()> {
        self.socket_kind(desc)?;
        let sock = &mut self.socks[desc.raw()];
        match option {
            SockOption::RecvTimeout => sock.recv_timeout = value,
            SockOption::SendTimeout => sock.send_timeout = value,
            SockOption::V6Only if sock.state & bound::LISTED != 0 => return Err(Errno::INVAL),
            flag => {
                if value == 0 {
                    sock.options &= !flag.bit();
                } else {
                    sock.options |= flag.bit();
                }
            }
        }
        Ok(())
    }

    /// Reads an option back.
    pub fn option(&self, desc: DescId, option: SockOption) -> Result<u64> {
        self.socket_kind(desc)?;
        let sock = &self.socks[desc.raw()];
        Ok(match option {
            SockOption::RecvTimeout => sock.recv_timeout,
            SockOption::SendTimeout => sock.send_timeout,
            flag => u64::from(sock.options & flag.bit() != 0),
        })
    }

    /// `SO_ACCEPTCONN`: whether the socket listens.
    pub fn is_listening(&self, desc: DescId) -> Result<bool> {
        Ok(self.socket_kind(desc)? == Kind::Listener)
    }

    pub(crate) fn close_socket(&mut self, id: u32) {
        self.leave_connect_queue(id);
        self.unbind(id);
    }
}
