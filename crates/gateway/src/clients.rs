//! All clients of this gateway: accepting, reading, windows.

mod admission;
mod movable;

pub use admission::Accepted;
pub use movable::Arrived;

use crate::connection::{Connection, ConnectionTable, Effects};
use crate::hold_back::HoldBack;
use crate::listeners::{Door, Listeners};
use crate::stream::EventStream;
use crate::{
    INPUT_FLOOR, INPUT_LIMIT, INPUT_WINDOW, READ_CHUNK, READ_LEAST, READ_ROUND,
    UNACKNOWLEDGED_LIMIT,
};
use crane_channel::epoch;
use mio::event::Event;
use mio::{Registry, Token};
use movable::Moving;
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tokens of clients have this bit.
pub const CLIENT_TOKENS: usize = 1 << 63;
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
    /// Whether another gateway could go on with it.
    moves: Moving,
    /// All that it gets was written: it is kept until its system has it.
    parting: Option<Instant>,
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
