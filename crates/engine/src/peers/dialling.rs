//! Making connections: dialling others, accepting theirs, giving up.

use super::{ALONE, GREETING_TIMEOUT, LAST_BACK_OFF, LINK_TOKENS, Peer, Peers, STRANGERS};
use crate::link::Link;
use crate::link::Phase;
use crate::notice::Notices;
use crate::stream::Stream;
use crate::tls::Security;
use mio::Interest;
use mio::Registry;
use mio::Token;
use mio::net::TcpStream;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

impl Peers {
    /// When the next replica has to be dialled, or a silent stranger be given
    /// up; `None` when there is neither.
    pub fn next_dial(&self) -> Option<Instant> {
        let strangers = self.links.iter().flatten();
        let strangers = strangers
            .filter(|l| !matches!(l.phase, Phase::Ready(_)))
            .map(|l| l.since + GREETING_TIMEOUT);
        let lost = |(&id, p): (&u8, &Peer)| self.dial_at(id, p);
        strangers.chain(self.peers.iter().filter_map(lost)).min()
    }

    /// When to dial a replica, if it is this one that does. The one with the
    /// higher id dials; but who has no connection at all for a while may not
    /// know that the others do not look for it any more.
    pub(super) fn dial_at(&self, id: u8, peer: &Peer) -> Option<Instant> {
        if peer.link.is_some() || peer.address.is_none() || self.is_dialling(id) {
            return None;
        }
        if id < self.own {
            return Some(peer.dial_at);
        }
        let alone = self.peers.values().all(|p| p.link.is_none());
        let since = self.peers.values().map(|p| p.lost_since).max()?;
        alone.then(|| peer.dial_at.max(since + ALONE))
    }

    pub(super) fn is_dialling(&self, id: u8) -> bool {
        self.links.iter().flatten().any(|l| l.dialled == Some(id))
    }

    /// Dials whom it is time to dial, and gives up on silent strangers.
    pub fn tick(&mut self, registry: &Registry, notices: &Notices) {
        let now = Instant::now();
        for slot in 0..self.links.len() {
            let late =
                |l: &Link| !matches!(l.phase, Phase::Ready(_)) && now > l.since + GREETING_TIMEOUT;
            if let Some(link) = self.links[slot].as_ref().filter(|l| late(l)) {
                if let Some(from) = link.from {
                    let text = format!("a connection from {from} was closed: it says nothing");
                    self.warn(text, notices);
                }
                self.drop_link(slot);
            }
        }
        let due = |(&id, p): (&u8, &Peer)| {
            let due = self.dial_at(id, p).is_some_and(|at| now >= at);
            due.then_some(id).zip(p.address)
        };
        let due: Vec<_> = self.peers.iter().filter_map(due).collect();
        for (id, address) in due {
            self.back_off(id);
            if let Ok(socket) = TcpStream::connect(address) {
                let tls = self.security.as_ref().map(|s| s.dial(id)).transpose();
                let Ok(stream) = tls.map(|tls| Stream::new(socket, tls)) else {
                    continue; // it is dialled again
                };
                let link = Link::new(stream, Phase::Connecting, Some(id), &self.hello_frame);
                self.add_link(link, registry);
            }
        }
    }

    pub(super) fn back_off(&mut self, id: u8) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.dial_at = Instant::now() + peer.back_off;
            peer.back_off = (peer.back_off * 2).min(LAST_BACK_OFF);
        }
    }

    pub(super) fn add_link(&mut self, mut link: Link, registry: &Registry) {
        let free = self.links.iter().position(Option::is_none);
        let slot = free.unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let token = Token(LINK_TOKENS + slot);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry
            .register(link.stream().socket(), token, interest)
            .is_ok()
        {
            self.links[slot] = Some(link);
        }
    }

    /// Accepts replicas that dial.
    pub fn accept(&mut self, registry: &Registry, notices: &Notices) {
        loop {
            match self.listener.accept() {
                Ok((socket, from)) => {
                    if self.strangers_beside(from.ip()) >= STRANGERS {
                        let from = from.ip();
                        let text = format!(
                            "a connection from {from} was closed: too many others have not said \
                             who they are; check who connects to this address"
                        );
                        self.warn(text, notices);
                        continue;
                    }
                    let tls = self.security.as_ref().map(Security::answer).transpose();
                    let Ok(stream) = tls.map(|tls| Stream::new(socket, tls)) else {
                        continue; // it dials again
                    };
                    let mut link = Link::new(stream, Phase::Greeting, None, &self.hello_frame);
                    link.from = Some(from.ip());
                    link.set_options();
                    self.add_link(link, registry);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // No descriptors: the other replica dials again.
                Err(_) => return,
            }
        }
    }

    /// Connections that were dialled from the same side as one from `host`, the
    /// other replicas' or everybody else's, and have not said who they are.
    pub(super) fn strangers_beside(&self, host: IpAddr) -> usize {
        let belongs = |host| {
            self.peers
                .values()
                .any(|p| p.address.is_some_and(|a| a.ip() == host))
        };
        let strange = |l: &&Link| {
            let silent = !matches!(l.phase, Phase::Ready(_));
            silent && l.from.is_some_and(|from| belongs(from) == belongs(host))
        };
        self.links.iter().flatten().filter(strange).count()
    }
}
