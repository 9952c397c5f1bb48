//! One TCP connection to another replica.

use crane_consensus::wire::{self, FrameReader};
use mio::net::TcpStream;
use rustix::net::sockopt;
use std::io::{self, Read, Write};
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
    stream: TcpStream,
    /// Where it stands.
    pub phase: Phase,
    /// The replica that this side dialled, if it did.
    pub dialled: Option<u8>,
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
    pub fn new(stream: TcpStream, phase: Phase, dialled: Option<u8>, hello: &[u8]) -> Self {
        Self {
            stream,
            phase,
            dialled,
            since: Instant::now(),
            reader: FrameReader::new(),
            out: hello.to_vec(),
            start: 0,
            closing: false,
            held: None,
        }
    }

    /// The socket, to register it.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Sets the options that every connection between replicas has.
    pub fn set_options(&self) {
        // Each only makes the connection better; without them it works.
        let _ = self.stream.set_nodelay(true);
        let _ = sockopt::set_tcp_user_timeout(&self.stream, DEAD_AFTER.as_millis() as u32);
        let _ = sockopt::set_socket_keepalive(&self.stream, true);
        let _ = sockopt::set_tcp_keepidle(&self.stream, DEAD_AFTER);
        let _ = sockopt::set_tcp_keepintvl(&self.stream, DEAD_AFTER);
        let _ = sockopt::set_tcp_keepcnt(&self.stream, 2);
    }

    /// Whether the connection that was being made is there.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
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
    /// The socket's, or those of `each`.
    pub fn read<E: From<io::Error>>(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<ReadResult, E> {
        let mut total = 0;
        while total < READ_AT_ONCE {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(ReadResult::Closed),
                Ok(n) => {
                    total += n;
                    self.reader.feed(&buffer[..n]);
                    each(self)?;
                    // A short read emptied the socket, which reports again.
                    if n < buffer.len() && !self.closing {
                        return Ok(ReadResult::Drained);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(ReadResult::Drained),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
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

    /// Writes what waits, as far as the socket takes it, held back or not.
    ///
    /// # Errors
    /// The socket's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.held = None;
        if self.phase == Phase::Connecting {
            return Ok(());
        }
        while self.start < self.out.len() {
            match self.stream.write(&self.out[self.start..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.start += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if self.start > 1 << 20 {
                        self.out.drain(..self.start);
                        self.start = 0;
                    }
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.start = 0;
        // After a burst the memory goes back.
        if self.out.capacity() > BACKLOG_COMFORT {
            self.out = Vec::new();
        }
        Ok(())
    }
}
