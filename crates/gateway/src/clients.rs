//! All clients of this gateway: accepting, reading, windows.

use crate::connection::{Anchor, Connection, ConnectionTable, Effects, Standing};
use crate::hold_back::HoldBack;
use crate::listeners::{Door, Listeners};
use crate::moves::Movable;
use crate::socket::Socket;
use crate::stream::EventStream;
use crate::tails::{Ending, Tail};
use crate::tcp::{self, Tcp};
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
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// Output that a movable client has got after which the server's side is told: so
/// much of each is kept on every replica at least.
const ACKNOWLEDGED_STEP: u64 = 16 << 10;
/// How long a movable client may take to get the last of what the server said, before
/// that is left to this machine alone.
const PARTING: Duration = Duration::from_secs(60);
/// The highest bit of a connection's counter says that it is movable.
const COUNTER_MASK: u32 = u32::MAX >> 1;
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
    /// Whether another gateway could go on with it.
    moves: Moving,
    /// All that it gets was written: it is kept until its system has it.
    parting: Option<Instant>,
}

/// Whether another gateway could go on with a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moving {
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
    /// Clients of the virtual address can be moved by this.
    hold_back: Option<Arc<HoldBack>>,
    /// Some client has output of which the server's side was not told that it left.
    untold: bool,
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
            hold_back: None,
            untold: false,
        }
    }

    /// From now on clients of the virtual address can go on at another gateway.
    pub fn hold_back(&mut self, hold_back: Option<Arc<HoldBack>>) {
        self.hold_back = hold_back;
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

    /// What makes a client movable that has just come, and how much of its input may
    /// have been acknowledged already.
    fn anchor(&self, socket: &TcpStream) -> Option<(Anchor, u64)> {
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
    fn place(
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

    /// Says so when all is in the log that the client may take for received.
    fn declare_movable(&mut self, index: u32) {
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
    fn part(&mut self, index: u32) {
        if let Some(client) = &self.slots[index as usize].client {
            client.connection.let_go();
            let conn = client.connection.id();
            self.stream.push(&epoch::Event::Reset { conn });
            self.remove(index);
        }
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
        let Some(client) = &mut self.slots[index as usize].client else {
            return;
        };
        if client.connection.anchor().is_some() {
            self.untold = true;
            if effects.finished {
                client.input_over = true;
                client.parting.get_or_insert_with(Instant::now);
            }
        } else if effects.finished {
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
        let undeclared = matches!(client.moves, Moving::After(_));
        if client.readable && !client.input_over && !client.queued {
            client.queued = true;
            self.again.push(index);
        }
        if undeclared {
            self.declare_movable(index);
        }
    }

    /// The client is gone.
    fn lost(&mut self, index: u32) {
        let Some(client) = self.client(index) else {
            return;
        };
        // The log forgets a movable one only when it is told to.
        let closed = client.connection.is_closed() && client.connection.anchor().is_none();
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

    /// The server is gone: clients get what it said, then the end. Those that can go
    /// on at another gateway wait for it if the server goes on there (`elsewhere`).
    pub fn close_all(&mut self, elsewhere: bool) {
        for index in 0..self.slots.len() as u32 {
            if let Some(client) = self.client(index) {
                if elsewhere && client.moves == Moving::Yes {
                    continue;
                }
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
