//! Groups that datagram sockets have joined, and who hears a message to one.

use crate::addr::Endpoint;
use crate::datagram::is_broadcast;
use crate::desc::Kind;
use crate::socket::bound;
use crate::table::{Record, record};
use crate::{DescId, Errno, Host, Result, VKernel};

/// Memberships in multicast groups.
pub(crate) const MEMBERSHIPS: u32 = 1024;

record! {
    pub(crate) struct Membership {
        /// The socket, 0: a free entry.
        desc: u32,
        pad: u32,
        group: [u8; 16],
    }
}

pub(crate) fn is_multicast(to: &Endpoint) -> bool {
    if to.is_v4() {
        to.ip[12] & 0xf0 == 0xe0
    } else {
        to.ip[0] == 0xff
    }
}

impl VKernel {
    pub(crate) fn takes_group(&self, id: u32, from: &Endpoint, to: &Endpoint) -> bool {
        if self
            .connected_to(id)
            .is_some_and(|peer| peer.ip != from.ip || peer.port != from.port)
        {
            return false;
        }
        let at = self.socks[id].bound_at;
        if at.ip == to.ip {
            return true;
        }
        at.is_wildcard()
            && self.wildcard_covers(id, at, *to)
            && (is_broadcast(to)
                || (0..MEMBERSHIPS)
                    .any(|m| self.memberships[m].desc != 0 && self.memberships[m].group == to.ip))
    }

    /// Joins or leaves a multicast group (IPv4 in its mapped form).
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is no group's, `EADDRINUSE` when it is
    /// joined already, `EADDRNOTAVAIL` when it is not, `ENOBUFS` beyond 1024
    /// memberships.
    pub fn membership<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        group: [u8; 16],
        join: bool,
    ) -> Result<()> {
        if self.socket_kind(desc)? != Kind::Datagram {
            return Err(Errno::INVAL);
        }
        let id = desc.raw();
        if !is_multicast(&Endpoint::new(group, 0)) {
            return Err(Errno::INVAL);
        }
        let mine = |m: &Membership| m.desc == id && m.group == group;
        let found = (0..MEMBERSHIPS).find(|&at| mine(&self.memberships[at]));
        if join {
            if found.is_some() {
                return Err(Errno::ADDRINUSE);
            }
            let free = (0..MEMBERSHIPS).find(|&at| self.memberships[at].desc == 0);
            self.memberships[free.ok_or(Errno::NOBUFS)?] = Membership {
                desc: id,
                pad: 0,
                group,
            };
        } else {
            self.memberships[found.ok_or(Errno::ADDRNOTAVAIL)?] = Membership::zeroed();
        }
        if self.socks[id].state & bound::LISTED != 0 {
            self.announce_datagram(host, id);
        }
        host.datagram_group(self.datagram_id(id), &group, join);
        Ok(())
    }

    /// The socket is closed.
    pub(crate) fn leave_groups(&mut self, id: u32) {
        for at in 0..MEMBERSHIPS {
            if self.memberships[at].desc == id {
                self.memberships[at] = Membership::zeroed();
            }
        }
    }
}
