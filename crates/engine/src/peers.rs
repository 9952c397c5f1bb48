//! The connections between replicas.
//!
//! One per pair; the replica with the higher id dials. The first frame each way
//! says who speaks; strangers, other clusters, replaced state directories and
//! replicas with other files or settings are refused with a warning.

mod members;

use crate::agreement::message::Compare;
use crate::config::Config;
use crate::error::EngineError;
use crate::link::{Link, Phase, ReadResult};
use crate::manifest;
use crate::message::ToGateway;
use crate::notice::Notices;
use crate::refusals::Refusals;
use crate::roster::Roster;
use crate::stream::{Broken, Stream};
use crate::tls::{self, Security};
use crane_consensus::wire::{self, Frame, Hello, PROTOCOL_VERSION};
use crane_consensus::{Membership, Message};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The token of the listener for other replicas.
pub const PEER_LISTENER: Token = Token(2);
/// Tokens of connections to other replicas begin here.
pub const LINK_TOKENS: usize = 1 << 10;
/// Connections that have not said who they are, at most: so many from the other
/// replicas' machines, and so many from everywhere else, which cannot keep the
/// replicas out.
const STRANGERS: usize = 64;
/// Bytes of a greeting, at most.
const GREETING_LIMIT: usize = 8 << 20;
const FIRST_BACK_OFF: Duration = Duration::from_millis(20);
const LAST_BACK_OFF: Duration = Duration::from_millis(500);
/// A connection that lasted so long was a good one.
const LASTING: Duration = Duration::from_secs(1);
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Without any connection for so long, a replica dials everybody.
const ALONE: Duration = Duration::from_secs(2);
/// Longest time for which a message is held back: with the time since the one
/// before it stays below the shortest election time-out.
const HELD_BACK: Duration = Duration::from_millis(150);
const READ_BUFFER: usize = 256 << 10;

/// Something that came from another replica, in order.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most arrivals are the large variant, on the path of every request"
)]
pub enum Arrival {
    /// A connection is ready. `new_life`: it is another start of that replica
    /// than the one known before.
    Connected {
        /// Its process is not the one known before.
        new_life: bool,
    },
    /// The connection is gone.
    Lost,
    /// For the consensus core.
    Raft(Message),
    /// For or from a gateway.
    Gateway(ToGateway),
    /// For the comparison of results.
    Compare(Compare),
    /// From the other replica's owner to this one's.
    Mail(Vec<u8>),
    /// This replica was removed by this entry of the log.
    Removed(u64),
}

struct Peer {
    /// None: nobody said it yet.
    address: Option<SocketAddr>,
    link: Option<usize>,
    /// How often its state directory had been opened, as it last said.
    incarnation: u32,
    /// Whether it has not what all must have in common, as it last said.
    differs: bool,
    /// When the last connection ended.
    lost_since: Instant,
    dial_at: Instant,
    back_off: Duration,
}

/// All connections to other replicas.
pub struct Peers {
    own: u8,
    hello: Hello,
    hello_frame: Vec<u8>,
    listener: TcpListener,
    /// None: connections are plain.
    security: Option<Security>,
    links: Vec<Option<Link>>,
    peers: BTreeMap<u8, Peer>,
    /// Who takes part, and all addresses that are known.
    roster: Roster,
    /// What a replica said that knows more than this one.
    hint: Option<Roster>,
    /// Whom to dial until it is known who takes part.
    seeds: Vec<u8>,
    arrivals: Vec<(u8, Arrival)>,
    /// Links with more to read.
    again: Vec<usize>,
    refusals: Refusals,
    /// Differences of a replica that was let in, to be told.
    harmless: Option<(u8, Vec<String>)>,
    buffer: Vec<u8>,
    /// Replicas to which messages of the consensus core may wait for more.
    patient: Vec<u8>,
}

/// Why a connection is given up.
enum Failure {
    Socket,
    Warn(String),
    /// Nobody who belongs here speaks.
    Tls(rustls::Error),
    /// This replica has not what all must have in common.
    Differs(u8, Vec<String>),
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Socket(_) => Self::Socket,
            Broken::Tls(error) => Self::Tls(error),
        }
    }
}

impl Peers {
    /// Listens on the replica's own address; dials at the first
    /// [`tick`](Self::tick).
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn new(
        config: &Config,
        members: &Membership,
        incarnation: u32,
        registry: &Registry,
    ) -> Result<Self, EngineError> {
        let address = config.own_address();
        let fail = |e: io::Error| {
            EngineError::new(format!(
                "cannot listen on {address} for the other replicas: {e}; free it or correct \
                 this replica's address in `peers`"
            ))
        };
        let mut listener = TcpListener::bind(address).map_err(fail)?;
        registry
            .register(&mut listener, PEER_LISTENER, Interest::READABLE)
            .map_err(fail)?;
        let load = |files| Security::load(files, config.cluster_id, config.id);
        let security = config.tls.as_ref().map(load).transpose()?;
        let hello = Hello {
            cluster_id: config.cluster_id,
            replica: config.id.into(),
            incarnation,
            protocol: PROTOCOL_VERSION,
            members: Vec::new(),
            agreed: config.agreed.clone().into_bytes(),
        };
        let mut peers = Self {
            own: config.id,
            hello,
            hello_frame: Vec::new(),
            listener,
            security,
            links: Vec::new(),
            peers: BTreeMap::new(),
            roster: Roster {
                members: Membership::default(),
                addresses: config.peers.clone(),
            },
            hint: None,
            seeds: config.peers.keys().copied().collect(),
            arrivals: Vec::new(),
            again: Vec::new(),
            refusals: Refusals::default(),
            harmless: None,
            buffer: vec![0; READ_BUFFER],
            patient: Vec::new(),
        };
        peers.set_members(members);
        Ok(peers)
    }

    /// Takes what arrived, in order.
    pub fn take_arrivals(&mut self, into: &mut Vec<(u8, Arrival)>) {
        into.append(&mut self.arrivals);
    }

    /// The other replicas.
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.peers.keys().copied()
    }

    /// Since when there is no connection to `peer`; `None` when there is one.
    pub fn lost_since(&self, peer: u8) -> Option<Instant> {
        let peer = self.peers.get(&peer)?;
        peer.link.is_none().then_some(peer.lost_since)
    }

    fn link(&mut self, peer: u8) -> Option<(usize, &mut Link)> {
        let slot = self.peers.get(&peer)?.link?;
        Some((slot, self.links.get_mut(slot)?.as_mut()?))
    }

    /// Until it is called again, messages of the consensus core to these wait
    /// for the next that is for them, or [`HELD_BACK`].
    pub fn be_patient_with(&mut self, peers: Vec<u8>) {
        self.patient = peers;
    }

    /// When something that is held back has to leave.
    pub fn next_release(&self) -> Option<Instant> {
        let held = self.links.iter().flatten().filter_map(Link::held);
        held.min().map(|since| since + HELD_BACK)
    }

    /// Sends what is held back.
    pub fn release(&mut self) {
        for slot in 0..self.links.len() {
            if let Some(link) = &mut self.links[slot]
                && link.held().is_some()
                && link.flush().is_err()
            {
                self.drop_link(slot);
            }
        }
    }

    /// Sends a message of the consensus core at once, because the disk comes
    /// next. False when it was dropped.
    pub fn send_raft(&mut self, to: u8, message: &Message) -> bool {
        let patient = self.patient.contains(&to);
        let Some((slot, link)) = self.link(to) else {
            return false;
        };
        let sent = link.add(|out| wire::encode_raft(message, out));
        if patient && link.hold(Instant::now()) {
            return sent;
        }
        if link.flush().is_err() {
            self.drop_link(slot);
            return false;
        }
        sent
    }

    /// Adds a frame for `to`, sent by the next [`flush`](Self::flush).
    pub fn add(&mut self, to: u8, kind: u8, payload: &[u8]) -> bool {
        self.link(to)
            .is_some_and(|(_, link)| link.add_frame(kind, payload))
    }

    /// Whether there is a connection to `to` that takes more batches now.
    pub fn has_room(&mut self, to: u8) -> bool {
        self.link(to).is_some_and(|(_, link)| link.has_room())
    }

    /// Sends everything that was added.
    pub fn flush(&mut self) {
        for slot in 0..self.links.len() {
            if let Some(link) = &mut self.links[slot]
                && link.held().is_none()
                && link.flush().is_err()
            {
                self.drop_link(slot);
            }
        }
    }

    /// Whether there is more to read without a new event.
    pub fn has_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// Reads what was left over.
    pub fn go_on(&mut self, notices: &Notices) {
        for slot in std::mem::take(&mut self.again) {
            self.read(slot, notices);
        }
    }

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
    fn dial_at(&self, id: u8, peer: &Peer) -> Option<Instant> {
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

    fn is_dialling(&self, id: u8) -> bool {
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

    fn back_off(&mut self, id: u8) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.dial_at = Instant::now() + peer.back_off;
            peer.back_off = (peer.back_off * 2).min(LAST_BACK_OFF);
        }
    }

    fn add_link(&mut self, mut link: Link, registry: &Registry) {
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
    fn strangers_beside(&self, host: IpAddr) -> usize {
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

    /// Handles what the system reported of a connection.
    pub fn ready(&mut self, token: Token, event: &mio::event::Event, notices: &Notices) {
        let slot = token.0 - LINK_TOKENS;
        let Some(Some(link)) = self.links.get_mut(slot) else {
            return;
        };
        if link.phase == Phase::Connecting {
            match link.connected() {
                Ok(true) => {
                    link.phase = Phase::Greeting;
                    link.set_options();
                }
                Ok(false) => return,
                Err(_) => return self.drop_link(slot),
            }
        }
        if event.is_read_closed() || event.is_error() {
            link.end_reported();
        }
        if link.flush().is_err() {
            return self.drop_link(slot);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(slot, notices);
        }
    }

    fn read(&mut self, slot: usize, notices: &Notices) {
        self.read_link(slot, notices);
        if let Some((id, names)) = self.harmless.take() {
            self.tell_differences(id, &names, false, notices);
        }
    }

    fn read_link(&mut self, slot: usize, notices: &Notices) {
        // Taken out, so that its frames can be handled while it is read.
        let Some(mut link) = self.links.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = link.read(&mut buffer, |link| self.take_frames(slot, link));
        self.buffer = buffer;
        self.links[slot] = Some(link);
        match result {
            Ok(ReadResult::Drained) => {}
            Ok(ReadResult::More) => self.again.push(slot),
            Ok(ReadResult::Closed) | Err(Failure::Socket) => self.drop_link(slot),
            Err(Failure::Warn(text)) => {
                self.warn(text, notices);
                self.drop_link(slot);
            }
            Err(Failure::Tls(error)) => {
                self.refuse(slot, &error, notices);
                self.drop_link(slot);
            }
            Err(Failure::Differs(id, names)) => {
                self.differs(id, &names, notices);
                self.drop_link(slot);
            }
        }
    }

    fn take_frames(&mut self, slot: usize, link: &mut Link) -> Result<(), Failure> {
        let mut phase = link.phase;
        let dialled = link.dialled;
        loop {
            let frame = link.reader().next_frame().map_err(|e| {
                Failure::Warn(format!("a connection between replicas was closed: {e}"))
            })?;
            let Some(frame) = frame else {
                break;
            };
            let malformed = |peer: u8, what: &str| {
                Failure::Warn(format!(
                    "replica {peer} sent {what}; run the same version of crane on all replicas"
                ))
            };
            let (peer, arrival) = match (phase, frame) {
                (Phase::Ready(peer), Frame::Raft(bytes)) => {
                    let message = wire::decode_raft(bytes)
                        .map_err(|_| malformed(peer, "a message that cannot be read"))?;
                    if message.from != u64::from(peer) {
                        let what = format!("a message in the name of replica {}", message.from);
                        return Err(malformed(peer, &what));
                    }
                    (peer, Arrival::Raft(message))
                }
                (Phase::Ready(peer), Frame::Gateway(bytes)) => {
                    let message = ToGateway::decode(bytes)
                        .ok_or_else(|| malformed(peer, "a gateway message that cannot be read"))?;
                    (peer, Arrival::Gateway(message))
                }
                (Phase::Ready(peer), Frame::Hashes(bytes)) => {
                    let message = Compare::decode(bytes)
                        .ok_or_else(|| malformed(peer, "hashes that cannot be read"))?;
                    (peer, Arrival::Compare(message))
                }
                (Phase::Ready(peer), Frame::Other(wire::kind::MAIL, bytes)) => {
                    (peer, Arrival::Mail(bytes.to_vec()))
                }
                (Phase::Ready(peer), Frame::Members(bytes)) => {
                    let roster = Roster::decode(bytes)
                        .ok_or_else(|| malformed(peer, "members that cannot be read"))?;
                    self.place(peer, roster)?;
                    continue;
                }
                (Phase::Greeting, Frame::Hello(hello)) => {
                    let peer = self.welcome(&hello, dialled, link.stream().tls())?;
                    phase = Phase::Ready(peer);
                    // At once: what comes behind it may end the connection.
                    link.phase = phase;
                    self.make_ready(peer, slot, hello.incarnation);
                    continue;
                }
                (Phase::Ready(peer), Frame::Hello(_)) => {
                    return Err(malformed(peer, "a second greeting"));
                }
                (Phase::Greeting, _) => {
                    return Err(Failure::Warn(
                        "a connection between replicas did not begin with a greeting".into(),
                    ));
                }
                _ => continue,
            };
            self.arrivals.push((peer, arrival));
        }
        link.phase = phase;
        if phase == Phase::Greeting && link.reader().pending() > GREETING_LIMIT {
            return Err(Failure::Warn(
                "a connection between replicas began with too long a greeting".into(),
            ));
        }
        Ok(())
    }

    /// Checks a greeting and says whose it is.
    fn welcome(
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
    fn differs(&mut self, id: u8, names: &[String], notices: &Notices) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.differs = true;
        }
        let different = self.peers.values().filter(|p| p.differs).count();
        let all = self.peers.len() + 1;
        self.tell_differences(id, names, all - different < all / 2 + 1, notices);
    }

    fn tell_differences(&mut self, id: u8, names: &[String], outvoted: bool, notices: &Notices) {
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

    fn make_ready(&mut self, id: u8, slot: usize, incarnation: u32) {
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

    fn drop_link(&mut self, slot: usize) {
        let Some(link) = self.links.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.again.retain(|&s| s != slot);
        if let Phase::Ready(id) = link.phase
            && let Some(peer) = self.peers.get_mut(&id)
            && peer.link == Some(slot)
        {
            peer.link = None;
            peer.lost_since = Instant::now();
            // One that was refused at once must not be dialled in a fast loop.
            if peer.lost_since > link.since + LASTING {
                peer.back_off = FIRST_BACK_OFF;
            }
            peer.dial_at = peer.lost_since + peer.back_off;
            self.arrivals.push((id, Arrival::Lost));
        }
    }

    /// Tells why a session under TLS came to nothing.
    fn refuse(&mut self, slot: usize, error: &rustls::Error, notices: &Notices) {
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

    fn warn(&mut self, text: String, notices: &Notices) {
        if self.refusals.are_news(text.clone(), Instant::now()) {
            notices.warn(text);
        }
    }
}
