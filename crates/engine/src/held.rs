//! Output that waits for other replicas to come to the same (setting `vote`).
//!
//! It waits by epoch, because a vote is on all output up to an epoch's end.

use crane_channel::epoch::ConnId;
use crane_channel::output::Output;
use std::collections::VecDeque;

/// An output for a client, copied out of the ring.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Bytes.
    Send(ConnId, Vec<u8>),
    /// The end of the output.
    Shutdown(ConnId),
    /// The end of the connection, whether by an abort.
    Close(ConnId, bool),
    /// A datagram.
    Datagram {
        /// As in [`Output::DatagramSend`].
        route: u32,
        /// The socket.
        socket: u32,
        /// The address.
        to: Vec<u8>,
        /// The message.
        bytes: Vec<u8>,
    },
}

impl Said {
    /// The copy of an output that waits; `None` for one that does not.
    pub fn of(output: &Output<'_>) -> Option<Self> {
        match *output {
            Output::Send { conn, bytes } => Some(Self::Send(conn, bytes.to_vec())),
            Output::Shutdown { conn } => Some(Self::Shutdown(conn)),
            Output::Close { conn, reset } => Some(Self::Close(conn, reset)),
            Output::DatagramSend {
                route,
                socket,
                to,
                bytes,
            } => Some(Self::Datagram {
                route,
                socket,
                to: to.to_vec(),
                bytes: bytes.to_vec(),
            }),
            _ => None,
        }
    }

    /// The connection that it is for.
    pub fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Send(conn, _) | Self::Shutdown(conn) | Self::Close(conn, _) => Some(*conn),
            Self::Datagram { .. } => None,
        }
    }
}

/// What waits.
#[derive(Default)]
pub struct Held {
    /// Of the epoch that goes on.
    open: Vec<Said>,
    epochs: VecDeque<(u64, Vec<Said>)>,
}

impl Held {
    /// Output of the epoch that goes on.
    pub fn add(&mut self, said: Said) {
        self.open.push(said);
    }

    /// The epoch has ended.
    pub fn end(&mut self, epoch: u64) {
        if !self.open.is_empty() {
            self.epochs
                .push_back((epoch, std::mem::take(&mut self.open)));
        }
    }

    /// Whether something may leave, with output up to epoch `confirmed` agreed.
    pub fn is_due(&self, confirmed: u64) -> bool {
        self.epochs.front().is_some_and(|one| one.0 <= confirmed)
    }

    /// The next that may leave.
    pub fn next(&mut self, confirmed: u64) -> Option<Vec<Said>> {
        let due = |one: &mut (u64, Vec<Said>)| one.0 <= confirmed;
        self.epochs.pop_front_if(due).map(|one| one.1)
    }

    /// Nothing of it may leave.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_leaves_by_epochs_and_in_order() {
        let conn = ConnId::new(1, 2, 3);
        let mut held = Held::default();
        for (epoch, text) in [(1, b"a"), (3, b"b"), (4, b"c")] {
            let output = Output::Send { conn, bytes: text };
            held.add(Said::of(&output).unwrap());
            held.end(epoch);
        }
        held.add(Said::Close(conn, true));
        held.end(5);
        held.end(6);
        assert!(!held.is_due(0) && held.is_due(1));
        let mut left = Vec::new();
        while let Some(one) = held.next(3) {
            left.extend(one);
        }
        assert_eq!(left.len(), 2);
        assert_eq!(left[1], Said::Send(conn, b"b".to_vec()));
        assert!(!held.is_due(3));
        held.clear();
        assert!(!held.is_due(9));
        assert!(Said::of(&Output::Hello { pid: 1 }).is_none());
    }
}
