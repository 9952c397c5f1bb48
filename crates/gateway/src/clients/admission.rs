//! Clients that come in: accepting them, and what waits for descriptors.

use super::movable::Moving;
use super::{ASKED_AFTER, CLIENT_TOKENS, Client, Clients, Slot};
use crate::connection::{Anchor, Connection, Standing};
use crate::listeners::{Door, Listeners};
use crate::socket::Socket;
use crate::tcp;
use crate::unix::UnixListeners;
use crane_channel::epoch;
use crane_channel::epoch::ConnId;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Clients accepted from one port before other work gets its turn.
const ACCEPTS_AT_ONCE: usize = 64;
/// The highest bit of a connection's counter says that it is movable.
const COUNTER_MASK: u32 = u32::MAX >> 1;

/// What accepting came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// All waiting clients were accepted, or will be in the next rounds.
    Going,
    /// There are no descriptors left; waiting clients will be tried again.
    NoDescriptors,
}

impl Clients {
    /// Whether clients wait to be accepted for want of descriptors.
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty() || !self.starved_unix.is_empty()
    }

    fn starve(&mut self, door: Door) {
        if !self.starved.contains(&door) {
            self.starved.push(door);
        }
    }

    fn starve_unix(&mut self, token: Token) {
        if !self.starved_unix.contains(&token) {
            self.starved_unix.push(token);
        }
    }

    /// Tries again to accept where descriptors had run out; call now and then.
    pub fn retry_starved(&mut self, unix: &UnixListeners, registry: &Registry) {
        self.accept_again.append(&mut self.starved);
        for token in std::mem::take(&mut self.starved_unix) {
            self.accept_unix(token, unix, registry);
        }
    }

    /// Accepts clients that wait at a real listener.
    pub fn accept(
        &mut self,
        door: Door,
        listeners: &mut Listeners,
        registry: &Registry,
    ) -> Accepted {
        for _ in 0..ACCEPTS_AT_ONCE {
            if self.is_full() {
                break;
            }
            let Some(listener) = listeners.socket(door) else {
                return Accepted::Going;
            };
            if self.len() >= self.most {
                self.starve(door);
                return Accepted::NoDescriptors;
            }
            match listener.accept() {
                Ok((socket, peer)) => self.admit(door.port, socket, peer, listeners, registry),
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::AGAIN) => return Accepted::Going,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.starve(door);
                        return Accepted::NoDescriptors;
                    }
                    // The client went away before it was accepted.
                    _ => {}
                },
            }
        }
        self.accept_again.push(door);
        Accepted::Going
    }

    fn admit(
        &mut self,
        port: u16,
        socket: TcpStream,
        peer: SocketAddr,
        listeners: &mut Listeners,
        registry: &Registry,
    ) {
        // A failure here is a client that is gone again, or one that no socket
        // of the server would take: dropping refuses it.
        let Ok(local) = socket.local_addr() else {
            return;
        };
        let at_virtual = listeners.is_virtual(local);
        if at_virtual && !self.holds_virtual {
            // It came in at the last moment.
            return;
        }
        let Some(target) = listeners.pick(port, local, peer) else {
            return;
        };
        let _ = socket.set_nodelay(true);
        tcp::keep_alive(&socket, ASKED_AFTER);
        let anchor = if at_virtual {
            self.anchor(&socket)
        } else {
            None
        };
        let (local, peer) = (target.local.as_bytes(), target.peer.as_bytes());
        let open = registered(socket, registry);
        self.take(target.listener, local, peer, at_virtual, anchor, open);
    }

    /// Accepts clients that wait at the Unix socket of `token`.
    pub fn accept_unix(
        &mut self,
        token: Token,
        listeners: &UnixListeners,
        registry: &Registry,
    ) -> Accepted {
        /// Raw address of a client without a name.
        const UNNAMED: [u8; 2] = rustix::net::AddressFamily::UNIX.as_raw().to_ne_bytes();
        // All of them: the system reports changes only.
        loop {
            if self.len() >= self.most {
                self.starve_unix(token);
                return Accepted::NoDescriptors;
            }
            match listeners.accept(token) {
                Ok((socket, listener, local)) => {
                    self.enter(listener, local, &UNNAMED, registered(socket, registry));
                }
                Err(Errno::AGAIN) => return Accepted::Going,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.starve_unix(token);
                    return Accepted::NoDescriptors;
                }
                // The client went away before it was accepted.
                Err(_) => {}
            }
        }
    }

    /// Takes a client in that connected to `listener` of the server; addresses
    /// are raw sockaddr bytes. `open` is given the token by which the socket will
    /// be reported, and makes the socket; when it fails, the client is gone again.
    /// Returns the connection.
    pub fn enter(
        &mut self,
        listener: u32,
        local: &[u8],
        peer: &[u8],
        open: impl FnOnce(Token) -> io::Result<Box<dyn Socket>>,
    ) -> Option<ConnId> {
        self.take(listener, local, peer, false, None, open)
    }

    /// As [`enter`](Self::enter); `at_virtual`: by the address that goes with the
    /// leadership.
    fn take(
        &mut self,
        listener: u32,
        local: &[u8],
        peer: &[u8],
        at_virtual: bool,
        anchor: Option<(Anchor, u64)>,
        open: impl FnOnce(Token) -> io::Result<Box<dyn Socket>>,
    ) -> Option<ConnId> {
        let (index, token, socket) = self.place(open)?;
        let (anchor, arrived) = anchor.unzip();
        let id = loop {
            self.counter = self.counter.wrapping_add(1) & COUNTER_MASK;
            let id = ConnId::new(self.gateway, self.stream.incarnation(), self.counter);
            let id = if anchor.is_some() { id.movable() } else { id };
            // Only after two thousand million connections can one be in use.
            if self.table.get(id).is_none() {
                break id;
            }
        };
        let at = Standing::default();
        let connection = Connection::movable(id, token, socket, anchor, at, &self.table);
        let connection = Arc::new(connection);
        self.table.insert(connection.clone());
        self.slots[index as usize].client = Some(Client {
            connection,
            received: 0,
            readable: false,
            ending: false,
            input_over: false,
            queued: false,
            at_virtual,
            moves: arrived.map_or(Moving::No, Moving::After),
            parting: None,
        });
        self.stream.push(&epoch::Event::Connect {
            conn: id,
            listener,
            local,
            peer,
        });
        self.declare_movable(index);
        Some(id)
    }

    /// A free place for a client, whose socket `open` makes.
    pub(super) fn place(
        &mut self,
        open: impl FnOnce(Token) -> io::Result<Box<dyn Socket>>,
    ) -> Option<(u32, Token, Box<dyn Socket>)> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.generation = (slot.generation + 1) & 0x7fff_ffff;
        let token = Token(CLIENT_TOKENS | (slot.generation as usize) << 32 | index as usize);
        let Ok(socket) = open(token) else {
            self.free.push(index);
            return None;
        };
        Some((index, token, socket))
    }
}

/// Has a client's socket reported under the token that it is given.
pub(super) fn registered(
    mut socket: TcpStream,
    registry: &Registry,
) -> impl FnOnce(Token) -> io::Result<Box<dyn Socket>> {
    move |token| {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut socket, token, interest)?;
        Ok(Box::new(socket))
    }
}
