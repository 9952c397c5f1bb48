//! Movable connections as the log has them: who holds each, and how far it is.
//!
//! A client that came in by the virtual address can go on at another gateway when
//! that gateway knows its socket's state, all input that was agreed, and all output
//! that the client may not have. The first two are here, a function of the log
//! alone; the last is kept by every replica in its [`tails`](crate::tails).
//!
//! Only the gateway that holds a connection may say something of it. Once the log
//! has moved it, nothing that the former holder offers counts any more: the client
//! was not told that those bytes had arrived (see [`hold_back`](crate::hold_back)),
//! so it sends them again, to the new one.

use crate::tcp::Tcp;
use crane_channel::epoch::{ConnId, Event};
use std::collections::BTreeMap;

/// A gateway and its incarnation.
pub type Holder = (u8, u32);

/// What the log says of one movable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Movable {
    /// Which gateway holds it.
    pub holder: Holder,
    /// Bytes of input that were agreed.
    pub received: u64,
    /// The end of the input was agreed, too.
    pub ended: bool,
    /// Bytes of output that the client is known to have.
    pub drained: u64,
    /// Its socket, once all that its gateway acknowledged is in the log.
    pub tcp: Option<Tcp>,
    /// Time of the entry that `tcp` is of, nanoseconds since the Unix epoch.
    pub since: u64,
    /// How often it has moved.
    pub moves: u32,
    /// The holder has not said yet that it goes on with it. It may have held it before,
    /// and what it read then may still be on its way: that does not count.
    pub arriving: bool,
}

impl Movable {
    /// What the holder says of it in a `Movable` event, from which on its events count.
    pub fn declaration(tcp: &Tcp, moves: u32) -> Vec<u8> {
        let mut bytes = tcp.encode().to_vec();
        bytes.extend_from_slice(&moves.to_le_bytes());
        bytes
    }
}

/// What [`Movable::declaration`] wrote.
fn declared(bytes: &[u8]) -> Option<(Tcp, u32)> {
    let (tcp, moves) = bytes.split_last_chunk()?;
    Some((Tcp::decode(tcp)?, u32::from_le_bytes(*moves)))
}

/// What an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// There is a connection.
    Opened(ConnId),
    /// More of its input is agreed.
    Received(ConnId),
    /// The client has its output up to here.
    Drained(ConnId, u64),
    /// It is over.
    Over(ConnId),
    /// It goes on at another gateway.
    Moved {
        /// The connection.
        conn: ConnId,
        /// Where it was.
        from: Holder,
        /// Where it is.
        to: Holder,
    },
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    all: BTreeMap<ConnId, Movable>,
    /// How many each gateway holds.
    counts: BTreeMap<Holder, usize>,
    news: Vec<News>,
}

/// News are for whoever applies the log, and no part of what it says.
impl PartialEq for Moves {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Eq for Moves {}

impl std::hash::Hash for Moves {
    fn hash<S: std::hash::Hasher>(&self, state: &mut S) {
        self.all.hash(state);
    }
}

impl Moves {
    /// As a checkpoint kept them.
    pub fn at(all: impl IntoIterator<Item = (ConnId, Movable)>) -> Self {
        let mut moves = Self {
            all: all.into_iter().collect(),
            ..Self::default()
        };
        for one in moves.all.values() {
            *moves.counts.entry(one.holder).or_default() += 1;
        }
        moves
    }

    /// All connections, in their order.
    pub fn all(&self) -> impl Iterator<Item = (ConnId, Movable)> + '_ {
        self.all.iter().map(|(&conn, &one)| (conn, one))
    }

    /// What the log says of a connection.
    pub fn get(&self, conn: ConnId) -> Option<Movable> {
        self.all.get(&conn).copied()
    }

    /// The gateways other than `own` that hold any.
    pub fn others(&self, own: Holder) -> Vec<Holder> {
        let holders = self.counts.keys().copied();
        holders.filter(|&holder| holder != own).collect()
    }

    fn count_less(&mut self, holder: Holder) {
        if let Some(count) = self.counts.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&holder);
            }
        }
    }

    /// Takes what the entries changed since the last time, in order.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes an event that `holder` numbered into account. False: it does not count.
    pub(crate) fn take(&mut self, event: &Event<'_>, holder: Holder, time: u64) -> bool {
        let conn = match *event {
            Event::Connect { conn, .. }
            | Event::Data { conn, .. }
            | Event::Eof { conn }
            | Event::Reset { conn }
            | Event::Drained { conn, .. }
            | Event::Movable { conn, .. } => conn,
            _ => return true,
        };
        if !conn.is_movable() {
            return true;
        }
        if let Event::Connect { .. } = event {
            let fresh = Movable {
                holder,
                received: 0,
                ended: false,
                drained: 0,
                tcp: None,
                since: 0,
                moves: 0,
                arriving: false,
            };
            // A gateway uses no number twice.
            let news = !self.all.contains_key(&conn);
            if news {
                self.all.insert(conn, fresh);
                *self.counts.entry(holder).or_default() += 1;
                self.news.push(News::Opened(conn));
            }
            return news;
        }
        // Of one that is over, or another's.
        let Some(one) = self.all.get_mut(&conn).filter(|one| one.holder == holder) else {
            return false;
        };
        let counts = match *event {
            Event::Reset { .. } => true,
            Event::Movable { socket, .. } => {
                declared(socket).is_some_and(|(_, moves)| moves == one.moves)
            }
            _ => !one.arriving,
        };
        if !counts {
            return false;
        }
        match *event {
            Event::Data { bytes, .. } => {
                one.received += bytes.len() as u64;
                self.news.push(News::Received(conn));
            }
            Event::Eof { .. } => {
                one.ended = true;
                self.news.push(News::Received(conn));
            }
            Event::Drained { offset, .. } => {
                one.drained = one.drained.max(offset);
                self.news.push(News::Drained(conn, offset));
            }
            Event::Movable { socket, .. } => {
                one.arriving = false;
                if one.tcp.is_none() {
                    one.tcp = declared(socket).map(|(tcp, _)| tcp);
                    one.since = time;
                }
            }
            Event::Reset { .. } => {
                self.all.remove(&conn);
                self.count_less(holder);
                self.news.push(News::Over(conn));
            }
            _ => {}
        }
        true
    }

    /// A gateway's incarnation is over: what it holds has ended.
    pub(crate) fn end(&mut self, holder: Holder) -> Vec<ConnId> {
        self.end_those(|one| one.holder == holder)
    }

    /// The program begins anew without any.
    pub(crate) fn end_all(&mut self) {
        self.end_those(|_| true);
    }

    fn end_those(&mut self, over: impl Fn(&Movable) -> bool) -> Vec<ConnId> {
        let ended = self.all.extract_if(.., |_, one| over(one));
        let ended: Vec<(ConnId, Movable)> = ended.collect();
        for &(conn, one) in &ended {
            self.count_less(one.holder);
            self.news.push(News::Over(conn));
        }
        ended.into_iter().map(|(conn, _)| conn).collect()
    }

    /// What `from` holds goes on at `to`. Returns what cannot, and has ended.
    pub(crate) fn hand_over(&mut self, from: Holder, to: Holder, time: u64) -> Vec<ConnId> {
        let ended = self.end_those(|one| one.holder == from && one.tcp.is_none());
        for (&conn, one) in &mut self.all {
            if one.holder == from {
                one.holder = to;
                one.moves += 1;
                one.arriving = true;
                if let Some(tcp) = &mut one.tcp {
                    tcp.age(one.since, time);
                }
                one.since = time;
                self.news.push(News::Moved { conn, from, to });
            }
        }
        if let Some(count) = self.counts.remove(&from) {
            *self.counts.entry(to).or_default() += count;
        }
        ended
    }
}
