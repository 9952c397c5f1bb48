//! Who speaks at the other end of a connection, and whether that one may.

use super::{Arrival, Failure, Peers};
use crate::link::Phase;
use crate::manifest;
use crate::notice::Notices;
use crate::roster::Roster;
use crate::tls;
use crane_consensus::wire::{Hello, PROTOCOL_VERSION};
use serde_json::json;
use std::time::Instant;

impl Peers {
    /// Checks a greeting and says whose it is.
    pub(super) fn welcome(
        &mut self,
        hello: &Hello,
        dialled: Option<u8>,
        tls: Option<&rustls::Connection>,
    ) -> Result<u8, Failure> {
        let refuse = |why: String| Err(Failure::Warn(why));
        let replica = hello.replica;
        if hello.cluster_id != self.hello.cluster_id {
            return refuse(format!(
                "replica {replica} of another cluster was refused; correct the addresses in `peers`"
            ));
        }
        if hello.protocol != PROTOCOL_VERSION {
            return refuse(format!(
                "replica {replica} speaks protocol {} and this one {PROTOCOL_VERSION}; run the \
                 same version of crane on all replicas",
                hello.protocol
            ));
        }
        let Some(id) = u8::try_from(replica).ok().filter(|id| *id != self.own) else {
            return refuse(format!(
                "replica {replica} was refused: no other replica here can have that id; correct \
                 `id` or `peers`"
            ));
        };
        if let (Some(security), Some(tls)) = (&self.security, tls)
            && !security.is_from(tls, id)
        {
            return refuse(format!(
                "a connection that says it is replica {id} was refused: its certificate is of \
                 another replica; put each replica's own certificate there"
            ));
        }
        if let Some(other) = dialled.filter(|d| *d != id) {
            return refuse(format!(
                "the address {} of replica {other} was answered by replica {id}; correct the \
                 addresses in `peers`",
                self.address(other).unwrap_or_default()
            ));
        }
        let Some(roster) = Roster::decode(&hello.members) else {
            return refuse(format!(
                "replica {id} does not say who takes part; run the same version of crane on all \
                 replicas"
            ));
        };
        self.place(id, roster)?;
        let Some(peer) = self.peers.get(&id) else {
            return Err(Failure::Socket);
        };
        // A lower number is an empty directory that begins again (consensus
        // sorts that out), or an old process that a newer one replaced: that
        // one must not take the newer one's place while it is connected.
        if hello.incarnation < peer.incarnation && peer.link.is_some() {
            return refuse(format!(
                "an earlier start of replica {id} was refused; end its old process"
            ));
        }
        if hello.agreed != self.hello.agreed {
            let names = manifest::differences(&self.hello.agreed, &hello.agreed);
            // Those that matter come first.
            if names
                .first()
                .is_some_and(|name| !manifest::is_harmless(name))
            {
                return Err(Failure::Differs(id, names));
            }
            self.harmless = (!names.is_empty()).then_some((id, names));
        }
        Ok(id)
    }

    /// Notes that a replica has not what all must have in common, and tells
    /// whether so few have what this one has that it cannot be right.
    pub(super) fn differs(&mut self, id: u8, names: &[String], notices: &Notices) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.differs = true;
        }
        let different = self.peers.values().filter(|p| p.differs).count();
        let all = self.peers.len() + 1;
        self.tell_differences(id, names, all - different < all / 2 + 1, notices);
    }

    pub(super) fn tell_differences(
        &mut self,
        id: u8,
        names: &[String],
        outvoted: bool,
        notices: &Notices,
    ) {
        let text = format!("differs {id} {outvoted} {names:?}");
        if self.refusals.are_news(text, Instant::now()) {
            let refused = names
                .first()
                .is_some_and(|name| !manifest::is_harmless(name));
            let fields = json!({
                "replica": id, "names": names, "refused": refused, "outvoted": outvoted,
            });
            notices.add("differs", fields);
        }
    }

    pub(super) fn make_ready(&mut self, id: u8, slot: usize, incarnation: u32) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let new_life = peer.incarnation != 0 && peer.incarnation != incarnation;
        peer.incarnation = incarnation;
        peer.differs = false;
        if let Some(old) = peer.link.replace(slot) {
            // What the old one still holds must not come after this.
            self.links[old] = None;
            self.again.retain(|&s| s != old);
            self.arrivals.push((id, Arrival::Lost));
        }
        self.arrivals.push((id, Arrival::Connected { new_life }));
    }

    /// Tells why a session under TLS came to nothing.
    pub(super) fn refuse(&mut self, slot: usize, error: &rustls::Error, notices: &Notices) {
        let Some(Some(link)) = self.links.get(slot) else {
            return;
        };
        let (why, mend) = tls::explain(error);
        let text = match (link.phase, link.dialled, link.from) {
            (Phase::Ready(id), ..) => format!("the connection with replica {id} was closed"),
            (_, Some(id), _) => format!("whoever answers for replica {id} was refused"),
            (_, _, Some(from)) => format!("a connection from {from} was refused"),
            (_, _, None) => "a connection was refused".to_owned(),
        };
        self.warn(format!("{text}: {why}; {mend}"), notices);
    }

    pub(super) fn warn(&mut self, text: String, notices: &Notices) {
        if self.refusals.are_news(text.clone(), Instant::now()) {
            notices.warn(text);
        }
    }
}
