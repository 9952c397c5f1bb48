//! All clients of this gateway: accepting, reading, windows.

use crate::connection::{Connection, ConnectionTable, Effects};
use crate::listeners::{Door, Listeners};
use crate::socket::Socket;
use crate::stream::EventStream;
use crate::unix::UnixListeners;
use crate::{
    INPUT_FLOOR, INPUT_LIMIT, INPUT_WINDOW, READ_CHUNK, READ_LEAST, READ_ROUND,
    UNACKNOWLEDGED_LIMIT,
};
use crane_channel::epoch;
use crane_channel::epoch::ConnId;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Tokens of clients have this bit.
pub const CLIENT_TOKENS: usize = 1 << 63;
/// Clients accepted from one port before other work gets its turn.
const ACCEPTS_AT_ONCE: usize = 64;
/// A client that has been silent for so long is asked whether it is there, and
/// given up after twice as long.
const ASKED_AFTER: Duration = Duration::from_secs(120);
/// Descriptors that are not for clients: the log, other replicas, listeners,
/// administration.
const RESERVED_DESCRIPTORS: u64 = 128;
/// Chunks read from one client before others get their turn.
const READS_AT_ONCE: usize = 4;

struct Client {
    connection: Arc<Connection>,
    /// Bytes read so far.
    received: u64,
    /// The socket may have more to read (it reports changes only).
    readable: bool,
    /// The client's end was seen: read on until it comes.
    ending: bool,
    /// No more input will be reported: end, reset, or closed by the server.
    input_over: bool,
    /// Waits in `again`.
    queued: bool,
    /// It came in at the virtual address.
    at_virtual: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
}

/// What the system reported of a client's socket.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Readiness {
    /// There is something to read.
    pub readable: bool,
    /// There is room to write again.
    pub writable: bool,
    /// The client has ended its side.
    pub read_closed: bool,
    /// The connection is broken.
    pub error: bool,
}

impl From<&Event> for Readiness {
    fn from(event: &Event) -> Self {
        Self {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_closed: event.is_read_closed(),
            error: event.is_error(),
        }
    }
}

/// What accepting came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// All waiting clients were accepted, or will be in the next rounds.
    Going,
    /// There are no descriptors left; waiting clients will be tried again.
    NoDescriptors,
}

/// The clients of a gateway. Belongs to the thread that reads.
pub struct Clients {
    gateway: u8,
    stream: EventStream,
    table: Arc<ConnectionTable>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    counter: u32,
    /// Clients with more to read.
    again: Vec<u32>,
    /// Ports with more to accept.
    accept_again: Vec<Door>,
    /// Ports that wait for free descriptors.
    starved: Vec<Door>,
    /// Unix sockets that do.
    starved_unix: Vec<Token>,
    /// Clients at the most, so that descriptors are left for everything else.
    most: usize,
    /// Bytes to read from a client at a time, so that each has its turn.
    chunk: usize,
    /// Bytes of a client that the server may leave unread.
    window: u64,
    /// Whether this machine has the virtual address.
    holds_virtual: bool,
}

impl Clients {
    /// No clients yet, of `incarnation` of `gateway`. `table` is shared with the
    /// thread that writes.
    pub fn new(gateway: u8, incarnation: u32, table: Arc<ConnectionTable>) -> Self {
        Self {
            gateway,
            stream: EventStream::new(gateway, incarnation),
            table,
            slots: Vec::new(),
            free: Vec::new(),
            counter: 0,
            again: Vec::new(),
            accept_again: Vec::new(),
            starved: Vec::new(),
            starved_unix: Vec::new(),
            most: most_clients(),
            window: INPUT_WINDOW,
            chunk: READ_CHUNK,
            holds_virtual: false,
        }
    }

    /// The server's virtual sockets and pipes hold `buffered` bytes: the more it
    /// is, the less of each client's may wait there.
    pub fn limit_input(&mut self, buffered: u64) {
        let left = INPUT_LIMIT.saturating_sub(buffered);
        self.window = (left / 8).clamp(INPUT_FLOOR, INPUT_WINDOW);
    }

    /// The numbered events of these clients.
    pub fn stream(&mut self) -> &mut EventStream {
        &mut self.stream
    }

    /// As [`stream`](Self::stream), to look.
    pub fn stream_ref(&self) -> &EventStream {
        &self.stream
    }

    /// Whether there is more to read or accept without any new event.
    pub fn has_more(&self) -> bool {
        let waiting = !self.again.is_empty() || !self.accept_again.is_empty();
        waiting && !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.stream.unacknowledged() > UNACKNOWLEDGED_LIMIT
    }

    /// Reads and accepts what was left over.
    pub fn go_on(&mut self, listeners: &mut Listeners, registry: &Registry) -> Accepted {
        let mut result = Accepted::Going;
        if self.is_full() {
            return result;
        }
        self.read_on();
        for door in std::mem::take(&mut self.accept_again) {
            if self.accept(door, listeners, registry) == Accepted::NoDescriptors {
                result = Accepted::NoDescriptors;
            }
        }
        result
    }

    /// Reads what was left over.
    pub fn read_on(&mut self) {
        if self.is_full() {
            return;
        }
        let waiting = std::mem::take(&mut self.again);
        self.chunk = (READ_ROUND / waiting.len().max(1)).clamp(READ_LEAST, READ_CHUNK);
        for (nth, &index) in waiting.iter().enumerate() {
            if self.is_full() {
                // They come first when there is room again.
                self.again.splice(..0, waiting[nth..].iter().copied());
                break;
            }
            if let Some(client) = &mut self.slots[index as usize].client {
                client.queued = false;
                self.read(index);
            }
        }
    }

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

    /// This replica has the virtual address from now on, or no more: then the
    /// clients that came in by it are cut off, as nothing of theirs can reach it.
    pub fn hold_virtual(&mut self, holds: bool) {
        if std::mem::replace(&mut self.holds_virtual, holds) && !holds {
            for index in 0..self.slots.len() as u32 {
                if let Some(client) = self.client(index)
                    && client.at_virtual
                {
                    client.connection.abort_on_drop();
                    self.lost(index);
                }
            }
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
        notice_dead_machines(&socket);
        let (local, peer) = (target.local.as_bytes(), target.peer.as_bytes());
        let open = registered(socket, registry);
        self.take(target.listener, local, peer, at_virtual, open);
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
        self.take(listener, local, peer, false, open)
    }

    /// As [`enter`](Self::enter); `at_virtual`: by the address that goes with the
    /// leadership.
    fn take(
        &mut self,
        listener: u32,
        local: &[u8],
        peer: &[u8],
        at_virtual: bool,
        open: impl FnOnce(Token) -> io::Result<Box<dyn Socket>>,
    ) -> Option<ConnId> {
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
        let id = loop {
            self.counter = self.counter.wrapping_add(1);
            let id = ConnId::new(self.gateway, self.stream.incarnation(), self.counter);
            // Only after four thousand million connections can one be in use.
            if self.table.get(id).is_none() {
                break id;
            }
        };
        let connection = Arc::new(Connection::new(id, token, socket, &self.table));
        self.table.insert(connection.clone());
        self.slots[index as usize].client = Some(Client {
            connection,
            received: 0,
            readable: false,
            ending: false,
            input_over: false,
            queued: false,
            at_virtual,
        });
        self.stream.push(&epoch::Event::Connect {
            conn: id,
            listener,
            local,
            peer,
        });
        Some(id)
    }

    fn index_of(&self, token: Token) -> Option<u32> {
        let index = token.0 as u32;
        let generation = (token.0 >> 32) as u32 & 0x7fff_ffff;
        let slot = self.slots.get(index as usize)?;
        (slot.generation == generation && slot.client.is_some()).then_some(index)
    }

    fn client(&mut self, index: u32) -> Option<&mut Client> {
        self.slots[index as usize].client.as_mut()
    }

    /// Handles what the system reported of a client's socket.
    pub fn ready(&mut self, token: Token, now: Readiness) {
        let Some(index) = self.index_of(token) else {
            return;
        };
        if now.writable {
            self.flush(index);
        }
        if now.readable || now.read_closed || now.error {
            if let Some(client) = self.client(index) {
                client.readable = true;
                client.ending |= now.read_closed || now.error;
            }
            self.read(index);
        }
        if now.error {
            self.lost(index);
        }
    }

    fn flush(&mut self, index: u32) {
        if let Some(client) = self.client(index) {
            let effects = client.connection.flush();
            self.effects(index, effects);
        }
    }

    /// Carries out what an operation of the writing thread called for.
    pub fn carry_out(&mut self, token: Token, effects: Effects) {
        if let Some(index) = self.index_of(token) {
            self.effects(index, effects);
        }
    }

    fn effects(&mut self, index: u32, effects: Effects) {
        if effects.broken {
            self.lost(index);
        }
        if effects.finished {
            self.remove(index);
        } else if effects.drained {
            let Some(client) = &self.slots[index as usize].client else {
                return;
            };
            let conn = client.connection.id();
            let offset = client.connection.tell_drained();
            self.stream.push(&epoch::Event::Drained { conn, offset });
        }
    }

    /// The server has read input of a client whose window was used up.
    pub fn resume(&mut self, token: Token) {
        if let Some(index) = self.index_of(token) {
            self.read(index);
        }
    }

    fn read(&mut self, index: u32) {
        let full = self.is_full();
        let Some(client) = self.slots[index as usize].client.as_mut() else {
            return;
        };
        if !client.input_over && client.connection.is_closed() {
            client.input_over = true;
        }
        let connection = client.connection.clone();
        let conn = connection.id();
        for _ in 0..READS_AT_ONCE {
            if full || client.input_over || !client.readable {
                break;
            }
            let window = connection.window(client.received, self.window);
            if window == 0 {
                return;
            }
            let limit = self.chunk.min(window as usize);
            let result = self
                .stream
                .push_data(conn, |buffer| connection.socket().read(buffer, limit));
            match result {
                Ok(0) => {
                    client.input_over = true;
                    self.stream.push(&epoch::Event::Eof { conn });
                }
                Ok(n) => {
                    client.received += n as u64;
                    // Less than asked for: the socket is empty, and reports
                    // again when that changes, unless it already told its end.
                    client.readable = n == limit || client.ending;
                }
                Err(Errno::AGAIN) => client.readable = false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.lost(index);
                    return;
                }
            }
        }
        if client.readable && !client.input_over && !client.queued {
            client.queued = true;
            self.again.push(index);
        }
    }

    /// The client is gone.
    fn lost(&mut self, index: u32) {
        let Some(client) = self.client(index) else {
            return;
        };
        let closed = client.connection.is_closed();
        let conn = client.connection.id();
        client.connection.abandon();
        if !closed {
            self.stream.push(&epoch::Event::Reset { conn });
        }
        // The server says no more of a connection that was reset.
        self.remove(index);
    }

    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if let Some(client) = slot.client.take() {
            self.table.remove(client.connection.id());
            self.free.push(index);
        }
    }

    /// This incarnation was declared down while alive: its clients are cut off
    /// and the gateway starts afresh as `incarnation`.
    pub fn start_afresh(&mut self, incarnation: u32) {
        for slot in &mut self.slots {
            if let Some(client) = slot.client.take() {
                client.connection.abort_on_drop();
            }
        }
        self.again.clear();
        self.free = (0..self.slots.len() as u32).collect();
        self.table.clear();
        self.counter = 0;
        self.stream = EventStream::new(self.gateway, incarnation);
    }

    /// The server is gone: clients get what it said, then the end.
    pub fn close_all(&mut self) {
        for index in 0..self.slots.len() as u32 {
            if let Some(client) = self.client(index) {
                client.input_over = true;
                let effects = client.connection.close(false);
                self.effects(index, effects);
            }
        }
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Has a client's socket reported under the token that it is given.
fn registered(
    mut socket: TcpStream,
    registry: &Registry,
) -> impl FnOnce(Token) -> io::Result<Box<dyn Socket>> {
    move |token| {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut socket, token, interest)?;
        Ok(Box::new(socket))
    }
}

/// Whether `token` is that of a client.
pub fn is_client(token: Token) -> bool {
    token.0 & CLIENT_TOKENS != 0
}

/// Has the system ask now and then whether the client's machine is still there:
/// one that vanished would otherwise hold its connection, here and in every
/// replica's program, for ever.
fn notice_dead_machines(socket: &TcpStream) {
    // Each only makes it better; without them it works.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, ASKED_AFTER);
    let _ = sockopt::set_tcp_keepintvl(socket, ASKED_AFTER / 6);
    let _ = sockopt::set_tcp_keepcnt(socket, 6);
}

/// Clients for which there are descriptors, when some are left for everything
/// else that a replica does.
fn most_clients() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.saturating_sub(RESERVED_DESCRIPTORS).max(1) as usize
}

/// Raises the limit of open descriptors to what the system allows, because every
/// client needs one.
///
/// # Errors
/// What the system says.
pub fn raise_descriptor_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
