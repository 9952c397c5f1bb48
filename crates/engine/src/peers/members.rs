//! Who the other replicas are, while that changes.
//!
//! The log decides. But one that slept through changes, or was just added, has
//! to reach those who have the log first: so greetings say who takes part, and
//! what somebody says who knows more is believed until the log says it.

use super::{FIRST_BACK_OFF, Failure, Peer, Peers};
use crate::peers::Arrival;
use crate::roster::Roster;
use crane_consensus::Membership;
use crane_consensus::wire::{self, kind};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

fn small(ids: impl IntoIterator<Item = u64>) -> impl Iterator<Item = u8> {
    ids.into_iter().filter_map(|id| u8::try_from(id).ok())
}

impl Peers {
    /// From now on these take part. Connections with others are closed, after
    /// they were told why.
    pub fn set_members(&mut self, members: &Membership) {
        for (id, address) in &members.addresses {
            if let (Ok(id), Ok(address)) = (u8::try_from(*id), address.parse::<SocketAddr>()) {
                self.roster.addresses.insert(id, address);
            }
        }
        self.roster.members = members.clone();
        let newer = |hint: &Roster| hint.members.index() > members.index();
        self.hint = self.hint.take().filter(newer);
        self.rebuild();
    }

    /// Where `peer` is reached, for people.
    pub fn address(&self, peer: u8) -> Option<String> {
        self.roster.addresses.get(&peer).map(ToString::to_string)
    }

    /// Decides by what `id` says of the members whether it belongs here, and
    /// learns from it.
    pub(super) fn place(&mut self, id: u8, theirs: Roster) -> Result<(), Failure> {
        let refuse = |why: String| Err(Failure::Warn(why));
        let (own, other) = (u64::from(self.own), u64::from(id));
        let ours = &self.roster.members;
        let newer = theirs.members.index() > ours.index();
        if newer && theirs.members.is_removed(own) {
            let index = theirs.members.index();
            self.arrivals.push((id, Arrival::Removed(index)));
            return Err(Failure::Socket);
        }
        if newer || ours.is_empty() {
            if !theirs.members.contains(other) {
                return refuse(format!(
                    "replica {id} was refused: it has not been added to the cluster; \
                     `crane member add` does that"
                ));
            }
            if !theirs.members.contains(own) {
                return refuse(format!(
                    "replica {own} waits until it is added to the cluster; `crane member add` \
                     does that"
                ));
            }
            let known = self.hint.as_ref().map_or(0, |hint| hint.members.index());
            if self.hint.is_none() || theirs.members.index() > known {
                self.hint = Some(theirs);
                self.rebuild();
            }
            return Ok(());
        }
        if ours.is_removed(other) {
            return refuse(format!(
                "replica {id} was refused: it was removed from the cluster, and its id is not \
                 used again; end its node, and add a replica with a new id if one is needed"
            ));
        }
        let hinted = self.hint.as_ref();
        if !ours.contains(other) && !hinted.is_some_and(|hint| hint.members.contains(other)) {
            return refuse(format!(
                "replica {id} was refused: it is not a member of the cluster; `crane member add` \
                 makes it one, or correct its `id` or `peers`"
            ));
        }
        let first = |members: &Membership| members.index() == 0 && !members.is_empty();
        if first(ours) && first(&theirs.members) && ours.initial != theirs.members.initial {
            return refuse(format!(
                "replica {id} was refused: it has other replicas in `peers` ({:?}, here {:?}); \
                 make them equal",
                theirs.members.initial, ours.initial
            ));
        }
        let missing = |id: &u8| !self.roster.addresses.contains_key(id);
        let found: Vec<_> = theirs.addresses.into_iter().collect();
        let found: Vec<_> = found.into_iter().filter(|(id, _)| missing(id)).collect();
        if !found.is_empty() {
            self.roster.addresses.extend(found);
            self.rebuild();
        }
        Ok(())
    }

    /// Brings connections in line with who takes part.
    fn rebuild(&mut self) {
        let mut wanted: BTreeSet<u8> = small(self.roster.members.members()).collect();
        if let Some(hint) = &self.hint {
            wanted.extend(small(hint.members.members()));
            for (id, address) in &hint.addresses {
                self.roster.addresses.entry(*id).or_insert(*address);
            }
        }
        if self.roster.members.is_empty() || !self.roster.members.contains(self.own.into()) {
            wanted.extend(&self.seeds);
        }
        wanted.remove(&self.own);
        let used = &self.roster.members.used;
        let gone = |id: &u8| used.contains(&u64::from(*id)) && !wanted.contains(id);
        let forgotten: Vec<u8> = self.roster.addresses.keys().copied().filter(gone).collect();
        for id in forgotten {
            if id != self.own {
                self.roster.addresses.remove(&id);
            }
        }
        self.hello.members = self.roster.encode();
        self.hello_frame.clear();
        wire::encode_hello(&self.hello, &mut self.hello_frame);
        let over: Vec<u8> = self.peers.keys().copied().collect();
        for id in over.into_iter().filter(|id| !wanted.contains(id)) {
            self.say_goodbye(id);
        }
        let now = Instant::now();
        for id in wanted {
            let address = self.roster.addresses.get(&id).copied();
            let peer = self.peers.entry(id).or_insert(Peer {
                address,
                link: None,
                incarnation: 0,
                differs: false,
                lost_since: now,
                dial_at: now,
                back_off: FIRST_BACK_OFF,
            });
            peer.address = address;
        }
    }

    /// Tells a replica that it takes part no more, as far as its socket takes it
    /// at once; it hears it again when it connects.
    fn say_goodbye(&mut self, id: u8) {
        let members = self.hello.members.clone();
        if let Some((slot, link)) = self.link(id) {
            link.add_frame(kind::MEMBERS, &members);
            let _ = link.flush();
            self.drop_link(slot);
        }
        self.peers.remove(&id);
    }
}
