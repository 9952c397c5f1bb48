//! Clients whose connections can go on at another gateway.

use super::admission::registered;
use super::{ASKED_AFTER, Client, Clients};
use crate::connection::{Anchor, Connection, Effects, Standing};
use crate::hold_back::HoldBack;
use crate::moves::Movable;
use crate::tails::{Ending, Tail};
use crate::tcp::{self, Tcp};
use crane_channel::epoch;
use crane_channel::epoch::ConnId;
use mio::net::TcpStream;
use mio::{Registry, Token};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Output that a movable client has got after which the server's side is told: so
/// much of each is kept on every replica at least.
const ACKNOWLEDGED_STEP: u64 = 16 << 10;
/// How long a movable client may take to get the last of what the server said, before
/// that is left to this machine alone.
const PARTING: Duration = Duration::from_secs(60);

/// Whether another gateway could go on with a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moving {
    /// None could.
    No,
    /// When so much of its input was read, which may have been acknowledged to it.
    After(u64),
    /// The log says so, or will.
    Yes,
}

/// A client that goes on here.
pub struct Arrived<'a> {
    /// The connection.
    pub conn: ConnId,
    /// What the log says of it.
    pub movable: Movable,
    /// Its socket's state, out of that.
    pub tcp: Tcp,
    /// What it may lack.
    pub tail: &'a Tail,
}

impl Clients {
    /// From now on clients of the virtual address can go on at another gateway.
    pub fn hold_back(&mut self, hold_back: Option<Arc<HoldBack>>) {
        self.hold_back = hold_back;
    }

    /// This replica has the virtual address from now on, or no more: then the
    /// clients that came in by it and can go on nowhere else are cut off, as nothing
    /// of theirs can reach it.
    pub fn hold_virtual(&mut self, holds: bool) {
        if std::mem::replace(&mut self.holds_virtual, holds) && !holds {
            for index in 0..self.slots.len() as u32 {
                if let Some(client) = self.client(index)
                    && client.at_virtual
                    && client.moves != Moving::Yes
                {
                    client.connection.abort_on_drop();
                    self.lost(index);
                }
            }
        }
    }

    /// What makes a client movable that has just come, and how much of its input may
    /// have been acknowledged already.
    pub(super) fn anchor(&self, socket: &TcpStream) -> Option<(Anchor, u64)> {
        // When it fails, the client is one as any other.
        let hold_back = self.hold_back.as_ref()?;
        let first = Tcp::look(socket).ok()??;
        let tcp = first.tcp;
        let agreed = tcp.receive_next(first.arrived, false);
        let held = hold_back.hold(tcp.local, tcp.peer, agreed).ok()?;
        // What came before it was held may have been acknowledged as well.
        let arrived = Tcp::look(socket).ok()??.arrived;
        Some((Anchor { tcp, held }, arrived))
    }

    /// Says so when all is in the log that the client may take for received.
    pub(super) fn declare_movable(&mut self, index: u32) {
        let Some(client) = &mut self.slots[index as usize].client else {
            return;
        };
        if let Moving::After(arrived) = client.moves
            && client.received >= arrived
            && let Some(anchor) = client.connection.anchor()
        {
            client.moves = Moving::Yes;
            self.stream.push(&epoch::Event::Movable {
                conn: client.connection.id(),
                socket: &Movable::declaration(&anchor.tcp, 0),
            });
        }
    }

    /// A client goes on here whose connection the log has moved to this gateway. The
    /// tails are locked meanwhile, so that the output thread finds it here or adds to
    /// its tail. It is given up when that cannot be: then the log will say so.
    pub fn adopt(
        &mut self,
        arrived: &Arrived<'_>,
        registry: &Registry,
    ) -> Option<(Token, Effects)> {
        let Arrived {
            conn,
            movable,
            tcp,
            tail,
        } = arrived;
        let (drained, bytes) = tail.rest();
        let made = self
            .hold_back
            .as_ref()
            .filter(|_| tail.is_whole() && tail.end != Ending::Abort)
            .and_then(|hold_back| {
                let agreed = tcp.receive_next(movable.received, movable.ended);
                let held = hold_back.hold(tcp.local, tcp.peer, agreed).ok()?;
                let restored = tcp::restore(tcp, movable.received, movable.ended, drained, bytes);
                Some((Anchor { tcp: *tcp, held }, restored.ok()?))
            });
        let taken = made.and_then(|(anchor, socket)| {
            let _ = socket.set_nodelay(true);
            tcp::keep_alive(&socket, ASKED_AFTER);
            let place = self.place(registered(socket, registry))?;
            Some((anchor, place))
        });
        let Some((anchor, (index, token, socket))) = taken else {
            self.stream.push(&epoch::Event::Reset { conn: *conn });
            return None;
        };
        let at = Standing {
            drained: movable.drained,
            left: drained + bytes.len() as u64,
            consumed: tail.consumed,
        };
        let connection = Connection::movable(*conn, token, socket, Some(anchor), at, &self.table);
        let connection = Arc::new(connection);
        let effects = match tail.end {
            Ending::Open => Effects::default(),
            Ending::Shutdown => connection.shutdown(),
            Ending::Close | Ending::Abort => connection.close(false),
        };
        self.table.insert(connection.clone());
        self.stream.push(&epoch::Event::Movable {
            conn: *conn,
            socket: &Movable::declaration(tcp, movable.moves),
        });
        self.slots[index as usize].client = Some(Client {
            connection,
            received: movable.received,
            readable: true,
            ending: false,
            input_over: movable.ended,
            queued: false,
            at_virtual: true,
            moves: Moving::Yes,
            parting: None,
        });
        self.untold = true;
        Some((token, effects))
    }

    /// The log has moved a connection to another gateway, which goes on with it.
    pub fn release(&mut self, conn: ConnId) {
        if let Some(connection) = self.table.get(conn)
            && let Some(index) = self.index_of(connection.token())
        {
            connection.vanish();
            self.remove(index);
        }
    }

    /// The log says that a connection is over.
    pub fn over(&mut self, conn: ConnId) {
        if let Some(connection) = self.table.get(conn)
            && let Some(index) = self.index_of(connection.token())
        {
            connection.abort_on_drop();
            let _ = connection.abandon();
            self.remove(index);
        }
    }

    /// This machine has the virtual address now: clients that have moved here are
    /// asked where they are.
    pub fn probe_movable(&self) {
        for client in self.movable() {
            client.connection.probe();
        }
    }

    fn movable(&self) -> impl Iterator<Item = &Client> {
        let clients = self.slots.iter().filter_map(|slot| slot.client.as_ref());
        clients.filter(|client| client.connection.anchor().is_some())
    }

    /// Whether movable clients have to be looked after soon.
    pub fn has_untold(&self) -> bool {
        self.untold
    }

    /// Tells the server's side what movable clients have got, and lets those go that
    /// have all. Returns whether any got anything.
    pub fn look_after_movable(&mut self, now: Instant) -> bool {
        let mut news = false;
        if !std::mem::take(&mut self.untold) {
            return news;
        }
        for index in 0..self.slots.len() as u32 {
            let Some(client) = &mut self.slots[index as usize].client else {
                continue;
            };
            if client.connection.anchor().is_none() {
                continue;
            }
            let connection = client.connection.clone();
            if let Some(since) = client.parting {
                if connection.has_all() || now > since + PARTING {
                    self.part(index);
                    news = true;
                } else {
                    self.untold = true;
                }
                continue;
            }
            if let Some(offset) = connection.newly_acknowledged(ACKNOWLEDGED_STEP) {
                let conn = connection.id();
                self.stream.push(&epoch::Event::Drained { conn, offset });
                news = true;
            }
            self.untold |= connection.untold() >= ACKNOWLEDGED_STEP;
        }
        news
    }

    /// A movable client has all that the server said, its end included.
    pub(super) fn part(&mut self, index: u32) {
        if let Some(client) = &self.slots[index as usize].client {
            client.connection.let_go();
            let conn = client.connection.id();
            self.stream.push(&epoch::Event::Reset { conn });
            self.remove(index);
        }
    }
}
