//! One connection to another replica.

use crate::stream::{Broken, Received, Stream};
use crane_consensus::wire::{self, FrameReader};
use rustix::net::sockopt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Bytes that may wait to be sent; beyond it, messages are dropped, which the
/// consensus core is made for.
const BACKLOG_LIMIT: usize = 64 << 20;
/// Bytes waiting above which no more batches are added.
const BACKLOG_COMFORT: usize = 4 << 20;
/// Bytes read before other work gets its turn.
const READ_AT_ONCE: usize = 4 << 20;
/// A silent or unresponsive machine is noticed after about this long.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The system is still connecting.
    Connecting,
    /// Waiting for the other side to say who it is.
    Greeting,
    /// In use with this replica.
    Ready(u8),
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// Nothing more for now.
    Drained,
    /// There may be more; other work first.
    More,
    /// The other side closed.
    Closed,
}

/// A connection.
pub struct Link {
    stream: Stream,
    /// Where it stands.
    pub phase: Phase,
    /// The replica that this side dialled, if it did.
    pub dialled: Option<u8>,
    /// The machine that dialled this side, if it was.
    pub from: Option<IpAddr>,
    /// When it was opened.
    pub since: Instant,
    reader: FrameReader,
    out: Vec<u8>,
    start: usize,
    closing: bool,
    /// Since when what waits may wait for more.
    held: Option<Instant>,
}

impl Link {
    /// A connection that is ready for greetings, or will be.
    pub fn new(stream: Stream, phase: Phase, dialled: Option<u8>, hello: &[u8]) -> Self {
        Self {
            stream,
            phase,
            dialled,
            from: None,
            since: Instant::now(),
            reader: FrameReader::new(),
            out: hello.to_vec(),
            start: 0,
            closing: false,
            held: None,
        }
    }

    /// What carries it.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// Sets the options that every connection between replicas has.
    pub fn set_options(&self) {
        let socket = self.stream.socket_ref();
        // Each only makes the connection better; without them it works.
        let _ = socket.set_nodelay(true);
        let _ = sockopt::set_tcp_user_timeout(socket, DEAD_AFTER.as_millis() as u32);
        let _ = sockopt::set_socket_keepalive(socket, true);
        let _ = sockopt::set_tcp_keepidle(socket, DEAD_AFTER);
        let _ = sockopt::set_tcp_keepintvl(socket, DEAD_AFTER);
        let _ = sockopt::set_tcp_keepcnt(socket, 2);
    }

    /// Whether the connection that was being made is there.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.socket_ref().take_error()? {
            return Err(error);
        }
        match self.stream.socket_ref().peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The system reported the other side's end or an error: read up to it.
    pub fn end_reported(&mut self) {
        self.closing = true;
    }

    /// Frames that arrived.
    pub fn reader(&mut self) -> &mut FrameReader {
        &mut self.reader
    }

    /// Reads what is there into the frame reader; `each` is called after every
    /// piece to take the frames out.
    ///
    /// # Errors
    /// The stream's, or those of `each`.
    pub fn read<E: From<Broken>>(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<ReadResult, E> {
        for _ in 0..READ_AT_ONCE.div_ceil(buffer.len().max(1)) {
            let reader = &mut self.reader;
            let received = self.stream.receive(buffer, |bytes| reader.feed(bytes))?;
            match received {
                Received::Closed => return Ok(ReadResult::Closed),
                Received::Nothing => return Ok(ReadResult::Drained),
                Received::Some | Received::All => {
                    each(self)?;
                    // The first words wait for the end of a handshake.
                    if !matches!(self.phase, Phase::Ready(_)) {
                        self.flush()?;
                    }
                    if received == Received::All && !self.closing {
                        return Ok(ReadResult::Drained);
                    }
                }
            }
        }
        Ok(ReadResult::More)
    }

    fn backlog(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether more batches should be given to it now.
    pub fn has_room(&self) -> bool {
        self.backlog() < BACKLOG_COMFORT
    }

    /// Appends a frame through `encode`, unless too much waits already; false
    /// then.
    pub fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.backlog() > BACKLOG_LIMIT {
            return false;
        }
        encode(&mut self.out);
        true
    }

    /// Appends a frame of `kind`; as [`add`](Self::add).
    pub fn add_frame(&mut self, kind: u8, payload: &[u8]) -> bool {
        self.add(|out| wire::encode(kind, payload, out))
    }

    /// Lets what waits wait for more, unless it has before; false then.
    pub fn hold(&mut self, now: Instant) -> bool {
        let first = self.held.is_none();
        if first {
            self.held = Some(now);
        }
        first
    }

    /// Since when something is held back.
    pub fn held(&self) -> Option<Instant> {
        self.held
    }

    /// Writes what waits, as far as the stream takes it, held back or not.
    ///
    /// # Errors
    /// The stream's.
    pub fn flush(&mut self) -> Result<(), Broken> {
        self.held = None;
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        while self.start < self.out.len() {
            let taken = self.stream.send(&self.out[self.start..])?;
            self.start += taken;
            if taken == 0 {
                if self.start > 1 << 20 {
                    self.out.drain(..self.start);
                    self.start = 0;
                }
                return Ok(());
            }
        }
        self.stream.push()?;
        self.out.clear();
        self.start = 0;
        // After a burst the memory goes back.
        if self.out.capacity() > BACKLOG_COMFORT {
            self.out = Vec::new();
        }
        Ok(())
    }
}
