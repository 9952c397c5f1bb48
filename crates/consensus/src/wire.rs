//! How replicas talk: frames on a TCP connection.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | `CN` |
//! | 1 | version of the framing |
//! | 1 | kind |
//! | 4 | bytes of payload, at most [`MAX_PAYLOAD`] |
//! | 4 | CRC32C of the eight bytes before |
//! | 4 | CRC32C of the payload |
//!
//! Numbers are little-endian. The header has a checksum of its own, so that a
//! damaged length is noticed before anybody waits for that many bytes. The
//! checksums find accidents, not attackers: connections are authenticated and
//! encrypted by whoever owns the socket.

use std::fmt;

use prost::Message as _;
use raft::eraftpb::Message;

/// The version of the framing and of what is in the frames.
pub const PROTOCOL_VERSION: u16 = 4;
/// Bytes before a payload.
pub const HEADER_LEN: usize = 16;
/// The largest payload in bytes.
pub const MAX_PAYLOAD: usize = 64 << 20;

const MAGIC: [u8; 2] = *b"CN";
const FRAMING: u8 = 1;

/// The kinds of frames by their number on the wire.
pub mod kind {
    /// [`Hello`](super::Hello), first on every connection.
    pub const HELLO: u8 = 1;
    /// A message of the consensus core.
    pub const RAFT: u8 = 2;
    /// Bytes of the gateway.
    pub const GATEWAY: u8 = 3;
    /// Hashes of output and schedule.
    pub const HASHES: u8 = 4;
    /// What the owners of two replicas say to each other.
    pub const MAIL: u8 = 5;
    /// Who takes part, and where they are reached.
    pub const MEMBERS: u8 = 6;
}

/// What a replica says first on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The cluster it belongs to.
    pub cluster_id: [u8; 16],
    /// Which replica it is.
    pub replica: u64,
    /// How often its state directory was opened
    /// ([`Node::incarnation`](crate::Node::incarnation)); a connection replaces
    /// those of earlier incarnations.
    pub incarnation: u32,
    /// The sender's [`PROTOCOL_VERSION`].
    pub protocol: u16,
    /// Who takes part as far as the sender knows, as its owner says it.
    pub members: Vec<u8>,
    /// What the replicas must have in common, as their owner compares it.
    pub agreed: Vec<u8>,
}

const HELLO_LEN: usize = 34;

/// A frame that arrived; it borrows from its [`FrameReader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First on every connection.
    Hello(Hello),
    /// For [`decode_raft`] and [`Node::step`](crate::Node::step).
    Raft(&'a [u8]),
    /// For the gateway.
    Gateway(&'a [u8]),
    /// For the comparison of replicas.
    Hashes(&'a [u8]),
    /// Who takes part.
    Members(&'a [u8]),
    /// Of a kind that a newer version sends: skip it.
    Other(u8, &'a [u8]),
}

/// Why a connection cannot be read any further. It has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The bytes are not frames of a replica.
    NotAFrame,
    /// The other side uses another version of the framing.
    Version(u8),
    /// A frame announces more than [`MAX_PAYLOAD`] bytes.
    TooLarge(u32),
    /// A checksum does not match.
    Checksum,
    /// A checksum matches but the content makes no sense.
    Malformed,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFrame => {
                f.write_str("the bytes are not from a replica: check who connects to this address")
            }
            Self::Version(v) => write!(
                f,
                "the other replica uses framing version {v}, this one {FRAMING}: run the same version of crane"
            ),
            Self::TooLarge(len) => write!(
                f,
                "a frame of {len} bytes is announced, more than the limit of {MAX_PAYLOAD}"
            ),
            Self::Checksum => {
                f.write_str("a frame's checksum does not match: it was damaged on its way")
            }
            Self::Malformed => f.write_str(
                "a frame's content makes no sense: run the same version of crane on all replicas",
            ),
        }
    }
}

impl std::error::Error for WireError {}

/// Appends a frame to `out`.
///
/// # Panics
/// If `payload` is longer than [`MAX_PAYLOAD`].
pub fn encode(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    frame(kind, out, |out| out.extend_from_slice(payload));
}

/// Appends a [`Hello`] frame to `out`.
pub fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    frame(kind::HELLO, out, |out| {
        out.extend_from_slice(&hello.cluster_id);
        out.extend_from_slice(&hello.replica.to_le_bytes());
        out.extend_from_slice(&hello.incarnation.to_le_bytes());
        out.extend_from_slice(&hello.protocol.to_le_bytes());
        out.extend_from_slice(&(hello.members.len() as u32).to_le_bytes());
        out.extend_from_slice(&hello.members);
        out.extend_from_slice(&hello.agreed);
    });
}

/// Appends a message of the consensus core to `out`, without copying it first.
///
/// # Panics
/// If it is longer than [`MAX_PAYLOAD`], which the limits in
/// [`Config`](crate::Config) exclude.
pub fn encode_raft(message: &Message, out: &mut Vec<u8>) {
    out.reserve(HEADER_LEN + message.encoded_len());
    frame(kind::RAFT, out, |out| message.encode_raw(out));
}

/// Reads the payload of a [`Frame::Raft`].
///
/// # Errors
/// [`WireError::Malformed`].
pub fn decode_raft(payload: &[u8]) -> Result<Message, WireError> {
    Message::decode(payload).map_err(|_| WireError::Malformed)
}

fn frame(kind: u8, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    fill(out);
    let (header, payload) = out[start..].split_at_mut(HEADER_LEN);
    assert!(
        payload.len() <= MAX_PAYLOAD,
        "a frame of {} bytes is larger than the limit of {MAX_PAYLOAD}",
        payload.len()
    );
    header[..2].copy_from_slice(&MAGIC);
    header[2] = FRAMING;
    header[3] = kind;
    header[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let check = crc32c::crc32c(&header[..8]);
    header[8..12].copy_from_slice(&check.to_le_bytes());
    header[12..16].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
}

/// Finds frames in the bytes of a connection, however they were split.
///
/// It never holds more than one frame and what was fed beyond it, and takes no
/// bytes on trust: after an error it stays in error.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Everything before was returned.
    start: usize,
    error: Option<WireError>,
}

impl FrameReader {
    /// A reader for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that arrived. Read all frames before feeding more, so that
    /// the buffer stays small.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.error.is_some() {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        // One huge frame must not keep its buffer for the connection's life.
        if self.buffer.is_empty() && self.buffer.capacity() > 4 << 20 {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` until more bytes arrive.
    ///
    /// # Errors
    /// The connection has to be closed; the same error is returned from then on.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, WireError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match parse(&self.buffer[self.start..]) {
            Ok(None) => Ok(None),
            Ok(Some((kind, len))) => {
                let from = self.start + HEADER_LEN;
                self.start = from + len;
                let payload = &self.buffer[from..from + len];
                match decode(kind, payload) {
                    Ok(frame) => Ok(Some(frame)),
                    Err(error) => {
                        self.error = Some(error);
                        Err(error)
                    }
                }
            }
            Err(error) => {
                self.error = Some(error);
                self.buffer = Vec::new();
                self.start = 0;
                Err(error)
            }
        }
    }

    /// Bytes held that are not part of a returned frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// Kind and payload length of the frame at the start of `bytes`, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(u8, usize)>, WireError> {
    // A stranger is noticed at the first bytes, not at the sixteenth.
    let known = bytes.len().min(2);
    if bytes[..known] != MAGIC[..known] {
        return Err(WireError::NotAFrame);
    }
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    if header[2] != FRAMING {
        return Err(WireError::Version(header[2]));
    }
    let field = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if crc32c::crc32c(&header[..8]) != field(8) {
        return Err(WireError::Checksum);
    }
    let len = field(4);
    if len as usize > MAX_PAYLOAD {
        return Err(WireError::TooLarge(len));
    }
    let Some(payload) = rest.get(..len as usize) else {
        return Ok(None);
    };
    if crc32c::crc32c(payload) != field(12) {
        return Err(WireError::Checksum);
    }
    Ok(Some((header[3], payload.len())))
}

fn decode(kind: u8, payload: &[u8]) -> Result<Frame<'_>, WireError> {
    Ok(match kind {
        kind::HELLO => Frame::Hello(decode_hello(payload).ok_or(WireError::Malformed)?),
        kind::RAFT => Frame::Raft(payload),
        kind::GATEWAY => Frame::Gateway(payload),
        kind::HASHES => Frame::Hashes(payload),
        kind::MEMBERS => Frame::Members(payload),
        other => Frame::Other(other, payload),
    })
}

fn decode_hello(payload: &[u8]) -> Option<Hello> {
    let (fixed, rest) = payload.split_at_checked(HELLO_LEN)?;
    let members = u32::from_le_bytes(fixed[30..34].try_into().ok()?);
    let (members, agreed) = rest.split_at_checked(members as usize)?;
    Some(Hello {
        cluster_id: fixed[..16].try_into().ok()?,
        replica: u64::from_le_bytes(fixed[16..24].try_into().ok()?),
        incarnation: u32::from_le_bytes(fixed[24..28].try_into().ok()?),
        protocol: u16::from_le_bytes(fixed[28..30].try_into().ok()?),
        members: members.to_vec(),
        agreed: agreed.to_vec(),
    })
}
