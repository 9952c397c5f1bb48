//! What every replica keeps of the output of movable connections: what their
//! clients may lack.
//!
//! Output is the same on every replica, byte for byte. So whoever goes on with a
//! connection has what the former holder had sent, and the client keeps of it what
//! it has not got yet.

use crane_channel::epoch::ConnId;
use std::collections::HashMap;

/// The output of one connection that its client may lack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Bytes of output before it.
    base: u64,
    /// The bytes, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    /// Bytes of input that the server has read.
    pub consumed: u64,
    /// How the server ended its side.
    pub end: Ending,
    /// Some of it is missing: this replica began behind it.
    missing: bool,
}

/// How the server ended its side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// It has not.
    #[default]
    Open,
    /// It sends no more.
    Shutdown,
    /// It has closed it.
    Close,
    /// It has aborted it.
    Abort,
}

impl Tail {
    /// Bytes of output before the tail, and the tail.
    pub fn rest(&self) -> (u64, &[u8]) {
        (self.base, &self.bytes[self.start..])
    }

    /// Whether a client could go on with it.
    pub fn is_whole(&self) -> bool {
        !self.missing
    }

    fn drain(&mut self, offset: u64) {
        let known = (self.bytes.len() - self.start) as u64;
        let gone = offset.saturating_sub(self.base).min(known);
        self.base += gone;
        self.start += gone as usize;
        // Moving costs as much as it frees at the most.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }
}

/// The tails of all movable connections.
#[derive(Default)]
pub struct Tails {
    all: HashMap<ConnId, Tail>,
}

impl Tails {
    /// A connection has begun.
    pub fn open(&mut self, conn: ConnId) {
        self.all.insert(conn, Tail::default());
    }

    /// There is a connection whose earlier output is not known.
    pub fn open_late(&mut self, conn: ConnId) {
        let missing = true;
        let tail = Tail {
            missing,
            ..Tail::default()
        };
        self.all.insert(conn, tail);
    }

    /// The server has said more.
    pub fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(tail) = self.all.get_mut(&conn)
            && tail.is_whole()
            && tail.end == Ending::Open
        {
            tail.bytes.extend_from_slice(bytes);
        }
    }

    /// The server has ended its side.
    pub fn end(&mut self, conn: ConnId, how: Ending) {
        if let Some(tail) = self.all.get_mut(&conn) {
            tail.end = tail.end.max(how);
        }
    }

    /// The server has read `total` bytes of input.
    pub fn consumed(&mut self, conn: ConnId, total: u64) {
        if let Some(tail) = self.all.get_mut(&conn) {
            tail.consumed = tail.consumed.max(total);
        }
    }

    /// The client has all output up to `offset`.
    pub fn drain(&mut self, conn: ConnId, offset: u64) {
        if let Some(tail) = self.all.get_mut(&conn) {
            tail.drain(offset);
        }
    }

    /// A connection is over.
    pub fn close(&mut self, conn: ConnId) {
        self.all.remove(&conn);
    }

    /// The tail of a connection.
    pub fn get(&self, conn: ConnId) -> Option<&Tail> {
        self.all.get(&conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_what_the_client_may_lack() {
        let conn = ConnId::new(1, 1, 1).movable();
        let mut tails = Tails::default();
        tails.say(conn, b"nobody's");
        tails.open(conn);
        tails.say(conn, b"abc");
        tails.say(conn, b"defg");
        tails.drain(conn, 5);
        assert_eq!(tails.get(conn).unwrap().rest(), (5, &b"fg"[..]));
        tails.drain(conn, 4);
        tails.say(conn, b"h");
        assert_eq!(tails.get(conn).unwrap().rest(), (5, &b"fgh"[..]));
        // What is not known here yet cannot go.
        tails.drain(conn, 100);
        assert_eq!(tails.get(conn).unwrap().rest(), (8, &b""[..]));
        tails.end(conn, Ending::Close);
        tails.end(conn, Ending::Shutdown);
        assert_eq!(tails.get(conn).unwrap().end, Ending::Close);
        tails.open_late(conn);
        assert!(!tails.get(conn).unwrap().is_whole());
        tails.close(conn);
        assert!(tails.get(conn).is_none());
    }
}
