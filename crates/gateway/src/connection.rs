//! One client's socket and the output waiting for it.
//!
//! Two threads use a connection: one reads the socket and finishes writes when
//! it becomes writable, the other writes the server's output to it directly, so
//! that a reply costs no hand-over between threads. The lock is held for one
//! non-blocking system call at most.

use crate::hold_back::Held;
use crate::socket::Socket;
use crate::tails::Tails;
use crate::tcp::Tcp;
use crate::{DRAIN_STEP, OUTPUT_LIMIT, SEND_WINDOW};
use crane_channel::epoch::ConnId;
use mio::Token;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the server ended its side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Open,
    Shutdown,
    Close,
}

struct Outgoing {
    /// Output that the socket has not taken, from `start` on.
    pending: Vec<u8>,
    start: usize,
    /// Bytes that left, or were dropped because nobody takes them any more.
    left: u64,
    /// Value of `left` when the server's side was last told.
    told: u64,
    end: End,
    /// The client is gone: output is counted and dropped.
    broken: bool,
    /// Bytes pending in all connections of this gateway together.
    all: Arc<AtomicUsize>,
    /// How many of them are counted as this one's.
    counted: usize,
}

/// What an operation on a connection calls for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Effects {
    /// Enough output left to tell the server's side (a `Drained` event).
    pub drained: bool,
    /// The client turned out to be gone (a `Reset` event).
    pub broken: bool,
    /// The server closed the connection and all output left: drop the socket.
    pub finished: bool,
}

impl Effects {
    /// Whether anything is called for.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What makes a connection one that can go on at another gateway.
pub struct Anchor {
    /// Its socket's state.
    pub tcp: Tcp,
    /// Keeps back what is not agreed.
    pub held: Held,
}

/// Where a connection stands that goes on here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// Bytes of output that the client has, as the log has it.
    pub drained: u64,
    /// Bytes of output that the socket has taken.
    pub left: u64,
    /// Bytes of input that the server has read.
    pub consumed: u64,
}

/// A client's connection.
pub struct Connection {
    id: ConnId,
    token: Token,
    socket: Box<dyn Socket>,
    /// Dropped after the socket, whose last words it keeps back.
    anchor: Option<Anchor>,
    out: Mutex<Outgoing>,
    /// Input bytes that the server has read.
    consumed: AtomicU64,
    /// The reader stopped because the window is used up.
    stalled: AtomicBool,
}

impl Connection {
    /// A connection of `table` whose socket is known to the reading thread as
    /// `token`.
    pub fn new(id: ConnId, token: Token, socket: Box<dyn Socket>, table: &ConnectionTable) -> Self {
        Self::movable(id, token, socket, None, Standing::default(), table)
    }

    /// As [`new`](Self::new), with what makes it movable, and from where it goes on.
    pub fn movable(
        id: ConnId,
        token: Token,
        socket: Box<dyn Socket>,
        anchor: Option<Anchor>,
        at: Standing,
        table: &ConnectionTable,
    ) -> Self {
        let out = Outgoing {
            all: table.pending.clone(),
            counted: 0,
            pending: Vec::new(),
            start: 0,
            left: at.left,
            told: at.drained,
            end: End::Open,
            broken: false,
        };
        if anchor.is_some() {
            // When the process dies, nothing of it is left in the kernel: another
            // machine goes on with it, and later this one may again.
            socket.abort_on_drop();
        }
        Self {
            id,
            token,
            socket,
            anchor,
            out: Mutex::new(out),
            consumed: AtomicU64::new(at.consumed),
            stalled: AtomicBool::new(false),
        }
    }

    /// The connection's id in the log.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// How the reading thread knows the socket.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The socket. Only the reading thread reads from it.
    pub fn socket(&self) -> &dyn Socket {
        &*self.socket
    }

    fn out(&self) -> MutexGuard<'_, Outgoing> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes output of the server, in parts that belong together, writing what
    /// the socket takes now.
    pub fn send(&self, parts: &[&[u8]]) -> Effects {
        let mut out = self.out();
        if out.end != End::Open {
            return Effects::default();
        }
        let whole: usize = parts.iter().map(|p| p.len()).sum();
        if out.broken {
            return out.break_off(whole, false);
        }
        let mut done = 0;
        if out.pending.is_empty() {
            match write_now(&*self.socket, parts, whole) {
                Ok(n) => done = n,
                Err(_) => return out.break_off(whole, true),
            }
            out.left += done as u64;
        }
        if done < whole {
            // The server's side keeps the window; if it does not, this client
            // must not be allowed to take the node's memory.
            let more = whole - done;
            if out.pending.len() - out.start + more > 2 * SEND_WINDOW as usize
                || out.all.load(Ordering::Relaxed) + more > OUTPUT_LIMIT
            {
                return out.break_off(more, true);
            }
            for part in parts {
                let skip = done.min(part.len());
                out.pending.extend_from_slice(&part[skip..]);
                done -= skip;
            }
            out.count();
        }
        out.effects(false)
    }

    /// Goes on with pending output; to be called when the socket is writable.
    pub fn flush(&self) -> Effects {
        let mut out = self.out();
        if out.pending.is_empty() {
            return Effects::default();
        }
        let rest = &out.pending[out.start..];
        match write_now(&*self.socket, &[rest], rest.len()) {
            Ok(n) => {
                out.start += n;
                out.left += n as u64;
            }
            Err(_) => return out.break_off(0, true),
        }
        if out.start == out.pending.len() {
            // Not kept: a connection that was slow once needs no buffer later.
            out.pending = Vec::new();
            out.start = 0;
            self.apply_end(&out);
        } else if out.start > 1 << 20 {
            let start = out.start;
            out.pending.drain(..start);
            out.start = 0;
        }
        out.count();
        out.effects(false)
    }

    /// The server will send no more; the client learns it behind all output.
    pub fn shutdown(&self) -> Effects {
        self.end(End::Shutdown)
    }

    /// The server closed the connection. With `reset` the client sees an abort
    /// at once, else the end behind all output.
    pub fn close(&self, reset: bool) -> Effects {
        if reset {
            self.abort_on_drop();
            let mut out = self.out();
            out.end = End::Close;
            return out.break_off(0, false);
        }
        // Nothing limits how many of these there are, as the server is done with
        // them: beyond a part of the memory they are cut off.
        let mut out = self.out();
        if !out.pending.is_empty() && out.all.load(Ordering::Relaxed) > OUTPUT_LIMIT / 4 {
            self.abort_on_drop();
            out.end = End::Close;
            return out.break_off(0, false);
        }
        drop(out);
        self.end(End::Close)
    }

    fn end(&self, end: End) -> Effects {
        let mut out = self.out();
        out.end = out.end.max(end);
        if out.pending.is_empty() {
            self.apply_end(&out);
        }
        out.effects(false)
    }

    /// Tells the client that nothing more will come, once nothing is pending.
    fn apply_end(&self, out: &Outgoing) {
        if out.end != End::Open && !out.broken {
            if let Some(anchor) = &self.anchor {
                anchor.held.may_end();
            }
            self.socket.end();
        }
    }

    /// What makes it movable.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// So much of the input is agreed, and perhaps its end: the client may know.
    pub fn agree(&self, received: u64, ended: bool) {
        if let Some(anchor) = &self.anchor {
            anchor.held.agree(anchor.tcp.receive_next(received, ended));
        }
    }

    /// Bytes of output that the client's system has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let out = self.out();
        let mut waiting = self.socket.unacknowledged();
        if out.end != End::Open && out.pending.is_empty() {
            waiting = waiting.saturating_sub(1);
        }
        out.left.saturating_sub(waiting)
    }

    /// Whether the client's system has everything, the end included.
    pub fn has_all(&self) -> bool {
        let out = self.out();
        out.broken || (out.pending.is_empty() && self.socket.unacknowledged() == 0)
    }

    /// If the client has so much more than the server's side was told that it should
    /// be told, how much.
    pub fn newly_acknowledged(&self, step: u64) -> Option<u64> {
        let has = self.acknowledged();
        let mut out = self.out();
        let news = !out.broken && has >= out.told + step;
        if news {
            out.told = has;
        }
        news.then_some(has)
    }

    /// Bytes of output of which the server's side was not told that they left.
    pub fn untold(&self) -> u64 {
        let out = self.out();
        out.left - out.told.min(out.left)
    }

    /// Has the client's system say what it has.
    pub fn probe(&self) {
        let out = self.out();
        if !out.broken {
            self.socket.probe();
        }
    }

    /// It goes on elsewhere: the drop is nothing that the client notices.
    pub fn vanish(&self) {
        let mut out = self.out();
        let _ = out.break_off(0, false);
        self.socket.vanish();
    }

    /// It is over, in order: what the client's system has not acknowledged is left to
    /// this machine's.
    pub fn let_go(&self) {
        if self.anchor.is_some() && !self.out().broken {
            self.socket.end_on_drop();
        }
    }

    /// The client is gone: from now on output is dropped.
    pub fn abandon(&self) -> Effects {
        self.out().break_off(0, false)
    }

    /// Makes the drop of the socket an abort (RST) instead of an orderly end.
    pub fn abort_on_drop(&self) {
        if let Some(anchor) = &self.anchor {
            anchor.held.may_reset();
        }
        self.socket.abort_on_drop();
    }

    /// Whether the server has closed the connection (output may be pending).
    pub fn is_closed(&self) -> bool {
        self.out().end == End::Close
    }

    /// Bytes of output that left; the server's side is taken as told.
    pub fn tell_drained(&self) -> u64 {
        let mut out = self.out();
        out.told = out.left;
        out.left
    }

    /// Notes that the server has read `total` bytes of input. Returns whether
    /// the reader had stopped for the window and must be told.
    pub fn consumed(&self, total: u64) -> bool {
        self.consumed.fetch_max(total, Ordering::SeqCst);
        self.stalled.load(Ordering::SeqCst) && self.stalled.swap(false, Ordering::SeqCst)
    }

    /// How many bytes may be read when `received` were read so far and the server
    /// may leave `most` unread. When none, the next [`consumed`](Self::consumed)
    /// reports that the reader waits.
    pub fn window(&self, received: u64, most: u64) -> u64 {
        let open = || {
            let ahead = received.saturating_sub(self.consumed.load(Ordering::SeqCst));
            most.saturating_sub(ahead)
        };
        let window = open();
        if window > 0 {
            return window;
        }
        self.stalled.store(true, Ordering::SeqCst);
        // Again: the server may have read between the look and the mark.
        open()
    }
}

impl Outgoing {
    /// Drops pending output and `more` bytes, because the client is gone.
    fn break_off(&mut self, more: usize, noticed: bool) -> Effects {
        let noticed = noticed && !self.broken;
        self.broken = true;
        self.left += (self.pending.len() - self.start + more) as u64;
        self.pending = Vec::new();
        self.start = 0;
        self.count();
        self.effects(noticed)
    }

    /// Brings the count of all connections' pending bytes up to date.
    fn count(&mut self) {
        let pending = self.pending.len() - self.start;
        let before = std::mem::replace(&mut self.counted, pending);
        if pending >= before {
            self.all.fetch_add(pending - before, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(before - pending, Ordering::Relaxed);
        }
    }

    fn effects(&self, broken: bool) -> Effects {
        Effects {
            drained: self.end == End::Open && self.left - self.told > DRAIN_STEP,
            broken: broken && self.end != End::Close,
            finished: self.end == End::Close && self.pending.is_empty(),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.all.fetch_sub(self.counted, Ordering::Relaxed);
    }
}

/// Parts written with one system call.
const PARTS_AT_ONCE: usize = 32;

/// Writes until all is written or the socket takes no more. It must have said
/// so, not only have taken a part: only then does the kernel report when it is
/// writable again.
fn write_now(socket: &dyn Socket, parts: &[&[u8]], whole: usize) -> io::Result<usize> {
    let mut done = 0;
    while done < whole {
        let result = match parts {
            [one] => socket.write(&[IoSlice::new(&one[done..])]),
            many => socket.write(&behind(many, done)),
        };
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// What is left of `parts` behind the first `done` bytes.
fn behind<'a>(parts: &[&'a [u8]], mut done: usize) -> Vec<IoSlice<'a>> {
    let mut rest = Vec::with_capacity(parts.len().min(PARTS_AT_ONCE));
    for &part in parts {
        let skip = done.min(part.len());
        done -= skip;
        if skip < part.len() {
            rest.push(IoSlice::new(&part[skip..]));
            if rest.len() == PARTS_AT_ONCE {
                break;
            }
        }
    }
    rest
}

/// Hashes connection ids, whose low bits count up: one multiplication is enough.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(b.into());
        }
    }

    fn write_u64(&mut self, n: u64) {
        let mixed = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

type ById = HashMap<ConnId, Arc<Connection>, BuildHasherDefault<IdHasher>>;

/// The connections that this gateway holds, by id, for both threads.
#[derive(Default)]
pub struct ConnectionTable {
    by_id: Mutex<ById>,
    pending: Arc<AtomicUsize>,
    tails: Mutex<Tails>,
}

impl ConnectionTable {
    fn lock(&self) -> MutexGuard<'_, ById> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with this id.
    pub fn get(&self, id: ConnId) -> Option<Arc<Connection>> {
        self.lock().get(&id).cloned()
    }

    /// Adds a connection.
    pub fn insert(&self, connection: Arc<Connection>) {
        self.lock().insert(connection.id(), connection);
    }

    /// Forgets a connection.
    pub fn remove(&self, id: ConnId) {
        self.lock().remove(&id);
    }

    /// Forgets all connections.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// What clients of movable connections may lack, wherever they are. While it is
    /// locked, none of these comes here.
    pub fn tails(&self) -> MutexGuard<'_, Tails> {
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of output that wait for their clients, of all connections.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Number of connections.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
