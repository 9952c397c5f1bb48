//! What carries a connection between replicas: a socket, plain or under TLS.
//!
//! Everything that is sent or received between replicas goes through
//! [`Stream`], which never waits.

use mio::net::TcpStream;
use rustls::Connection;
use std::fmt;
use std::io::{self, BufRead, Read, Write};

/// Bytes encrypted at once.
const PIECE: usize = 256 << 10;
/// Bytes that may wait encrypted because the socket is full.
const ENCRYPTED_LIMIT: usize = 2 * PIECE;

/// Why a stream cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The socket failed.
    Socket(io::Error),
    /// What came is not what a replica of this cluster sends.
    Tls(rustls::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

/// What a read from the socket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The socket had as much as there was room for: there may be more.
    Some,
    /// The socket had less: it will report again.
    All,
    /// Nothing is there.
    Nothing,
    /// The other side closed.
    Closed,
}

/// A connection to another replica that never waits.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
}

impl Stream {
    /// A connection under TLS, whose handshake goes on as bytes arrive; without
    /// `tls` everybody on the way can read and change everything.
    pub fn new(socket: TcpStream, tls: Option<Connection>) -> Self {
        let limited = |mut tls: Connection| {
            tls.set_buffer_limit(Some(ENCRYPTED_LIMIT));
            Box::new(tls)
        };
        Self {
            socket,
            tls: tls.map(limited),
        }
    }

    /// The socket, to register it and set its options.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The socket, to look at.
    pub fn socket_ref(&self) -> &TcpStream {
        &self.socket
    }

    /// The TLS session; none on a plain connection.
    pub fn tls(&self) -> Option<&Connection> {
        self.tls.as_deref()
    }

    /// Reads once from the socket and hands what it says to `take`, in pieces
    /// that live in `buffer` or in the session.
    ///
    /// # Errors
    /// When the connection is at its end for another reason than that the other
    /// side closed it.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<Received, Broken> {
        let count = loop {
            match self.socket.read(buffer) {
                Ok(0) => return Ok(Received::Closed),
                Ok(count) => break count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        };
        match &mut self.tls {
            None => take(&buffer[..count]),
            Some(tls) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    tls.read_tls(&mut rest)?;
                    if let Err(error) = tls.process_new_packets() {
                        // The other side is told why, if it can still be.
                        let _ = tls.write_tls(&mut self.socket);
                        return Err(Broken::Tls(error));
                    }
                    decrypted(tls, &mut take)?;
                }
                // A handshake's next words.
                self.push()?;
            }
        }
        Ok(if count < buffer.len() {
            Received::All
        } else {
            Received::Some
        })
    }

    /// Takes as many of `bytes` as there is room for, and sends them as far as
    /// the socket takes them; 0 when it takes nothing now.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        if self.tls.is_none() {
            return loop {
                match self.socket.write(bytes) {
                    Ok(count) => break Ok(count),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(0),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => break Err(e.into()),
                }
            };
        }
        if !self.push()? {
            return Ok(0);
        }
        let mut count = 0;
        if let Some(tls) = &mut self.tls {
            count = tls.writer().write(&bytes[..bytes.len().min(PIECE)])?;
        }
        self.push()?;
        Ok(count)
    }

    /// Sends what waits encrypted, as far as the socket takes it; whether that
    /// was everything.
    ///
    /// # Errors
    /// The socket's.
    pub fn push(&mut self) -> Result<bool, Broken> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// Hands on what was decrypted.
fn decrypted(tls: &mut Connection, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = tls.reader();
    loop {
        let count = match reader.fill_buf() {
            // The other side says that it is done; the socket's end follows.
            Ok([]) => return Ok(()),
            Ok(bytes) => {
                take(bytes);
                bytes.len()
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        };
        reader.consume(count);
    }
}

#[cfg(test)]
#[path = "../tests/support/certificates.rs"]
mod certificates;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;
    use crate::tls::Security;
    use std::net::TcpListener;

    /// Two ends of a connection.
    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        for socket in [&one, &other] {
            socket.set_nonblocking(true).unwrap();
        }
        (TcpStream::from_std(one), TcpStream::from_std(other))
    }

    fn secured() -> (Stream, Stream) {
        let cluster = [7; 16];
        let directory = std::env::temp_dir().join(format!("crane-stream-{}", std::process::id()));
        let authority = certificates::Authority::new();
        let security = |replica: u8| {
            let at = directory.join(replica.to_string());
            let written = authority.write(&at, &"07".repeat(16), replica, 100);
            let files: Tls = serde_json::from_value(written).unwrap();
            Security::load(&files, cluster, replica).unwrap()
        };
        let (dialler, answerer) = (security(2), security(1));
        std::fs::remove_dir_all(&directory).unwrap();
        let (one, other) = sockets();
        (
            Stream::new(one, Some(dialler.dial(1).unwrap())),
            Stream::new(other, Some(answerer.answer().unwrap())),
        )
    }

    /// Sends `bytes` from one to the other, as the event loop does.
    fn carry(from: &mut Stream, to: &mut Stream, bytes: &[u8]) {
        let (mut sent, mut got, mut buffer) = (0, Vec::new(), vec![0; 5000]);
        while got.len() < bytes.len() {
            sent += from.send(&bytes[sent..]).unwrap();
            to.receive(&mut buffer, |b| got.extend_from_slice(b))
                .unwrap();
            from.receive(&mut buffer, |_| panic!("nothing was sent"))
                .unwrap();
        }
        assert!(got == bytes);
    }

    #[test]
    fn bytes_arrive_as_they_were_sent() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let (one, other) = sockets();
        for (mut one, mut other) in [
            (Stream::new(one, None), Stream::new(other, None)),
            secured(),
        ] {
            carry(&mut one, &mut other, &bytes);
            carry(&mut other, &mut one, &bytes[..1000]);
        }
    }
}
