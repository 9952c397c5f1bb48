//! The connections between replicas.
//!
//! One per pair; the replica with the higher id dials. The first frame each way
//! says who speaks; strangers, other clusters, replaced state directories and
//! replicas with other files or settings are refused with a warning.

mod dialling;
mod greeting;
mod members;

use crate::agreement::message::Compare;
use crate::config::Config;
use crate::error::EngineError;
use crate::link::{Link, Phase, ReadResult};
use crate::message::ToGateway;
use crate::notice::Notices;
use crate::refusals::Refusals;
use crate::roster::Roster;
use crate::stream::Broken;
use crate::tls::Security;
use crane_consensus::wire::{self, Frame, Hello, PROTOCOL_VERSION};
use crane_consensus::{Membership, Message};
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
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
}
