//! The output thread: from the output ring straight to the clients' sockets.
//!
//! It sleeps on the ring by futex. A reply is written by this thread to the
//! client's socket without any other thread in between; only what needs epoll,
//! consensus or the log goes to the data-plane thread.

use crate::held::{Held, Said};
use crate::shared::{Shared, Work, lock};
use crane_channel::epoch::ConnId;
use crane_channel::futex;
use crane_channel::layout::{LOG_RING_LEN, NO_DEADLINE, State, WATCH_VOTES};
use crane_channel::output::Output;
use crane_channel::ring::Consumer;
use crane_channel::segment::Segment;
use crane_gateway::connection::{Connection, Effects};
use crane_gateway::tails::Ending;
use crane_gateway::{address, unix};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Records handled before their space is given back to the server.
const RECORDS_AT_ONCE: usize = 256;

/// Runs until the engine stops.
pub fn run(shared: &Shared) {
    let mut thread = OutputThread::new(shared);
    while !shared.stopping() {
        if let Err(why) = thread.drain() {
            // Nothing of what the server says can be trusted from here on.
            shared.fail(why);
            shared.inbox.poke();
            return;
        }
        thread.release_held();
        thread.report_state();
        thread.sleep();
    }
}

/// The server's state when the data-plane thread was last told.
type Told = (u64, u32, u64);

/// What the thread knows. A simulation steps it.
pub struct OutputThread<'a> {
    shared: &'a Shared,
    consumer: Consumer<'a>,
    /// The connection that `parts` are for; also saves looking it up again.
    current: Option<Arc<Connection>>,
    parts: Vec<&'a [u8]>,
    told: Option<Told>,
    /// Calls out of the schedule that had returned then.
    returned: u32,
    /// Output for clients waits for other replicas to come to the same.
    votes: bool,
    held: Held,
    /// Hash of all output up to the last epoch.
    output_hash: u64,
}

impl<'a> OutputThread<'a> {
    /// Nothing was read. There is one at a time for a segment.
    pub fn new(shared: &'a Shared) -> Self {
        // SAFETY: this thread is the only one to take the consumer's end; the
        // engine starts it once per segment.
        let consumer = unsafe { shared.segment.output_consumer() };
        Self {
            shared,
            consumer,
            current: None,
            parts: Vec::new(),
            told: None,
            returned: 0,
            held: Held::default(),
            votes: shared.segment.header().watch.load(Ordering::Relaxed) & WATCH_VOTES != 0,
            output_hash: 0,
        }
    }

    /// Handles everything that the server has said.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn drain(&mut self) -> Result<(), String> {
        while !self.shared.stopping() {
            let mut records = 0;
            while records < RECORDS_AT_ONCE {
                let record = self.consumer.pop().map_err(|d| damaged(d.position))?;
                let Some((kind, bytes)) = record else {
                    break;
                };
                let output = Output::decode(kind, bytes).map_err(|bad| unreadable(bad.kind))?;
                self.take(output);
                records += 1;
            }
            self.write_parts();
            self.current = None;
            if records == 0 {
                return Ok(());
            }
            self.consumer.release();
        }
        Ok(())
    }

    /// Handles a record of the ring, now or when other replicas have come to it.
    fn take(&mut self, output: Output<'a>) {
        if !self.votes && !self.shared.distrusted.load(Ordering::Relaxed) {
            return self.handle(output);
        }
        match Said::of(&output) {
            None => self.handle(output),
            Some(said) => {
                let gone =
                    |conn: ConnId| !conn.is_movable() && self.shared.table.get(conn).is_none();
                let distrusted = self.shared.distrusted.load(Ordering::SeqCst);
                if !distrusted && !said.conn().is_some_and(gone) {
                    self.held.add(said);
                }
            }
        }
    }

    /// Lets the output leave that other replicas have come to as well.
    pub fn release_held(&mut self) {
        if self.shared.distrusted.load(Ordering::SeqCst) {
            self.held.clear();
        }
        let confirmed = self.shared.confirmed.load(Ordering::SeqCst);
        while let Some(epoch) = self.held.next(confirmed) {
            for said in &epoch {
                self.say(said);
            }
        }
    }

    fn say(&mut self, said: &Said) {
        match said {
            Said::Send(conn, bytes) if conn.is_movable() => self.send_movable(*conn, bytes),
            Said::Send(conn, bytes) => {
                if let Some(connection) = self.shared.table.get(*conn) {
                    let effects = connection.send(&[bytes]);
                    self.carry_out(&connection, effects);
                }
            }
            Said::Shutdown(conn) => self.end(*conn, Ending::Shutdown, Connection::shutdown),
            Said::Close(conn, reset) => {
                self.end(*conn, closing(*reset), |c| c.close(*reset));
            }
            Said::Datagram {
                route,
                socket,
                to,
                bytes,
            } => self.send_datagram(*route, *socket, to, bytes),
        }
        self.current = None;
    }

    fn handle(&mut self, output: Output<'a>) {
        match output {
            Output::Send { conn, bytes } if conn.is_movable() => self.send_movable(conn, bytes),
            Output::Send { conn, bytes } => {
                if self.select(conn) {
                    self.parts.push(bytes);
                }
            }
            Output::Epoch(done) => {
                self.write_parts();
                lock(&self.shared.history).add(done);
                self.shared.done_epoch.store(done.epoch, Ordering::SeqCst);
                if self.shared.restored.load(Ordering::Relaxed) {
                    self.shared.restored.store(false, Ordering::Relaxed);
                    self.shared.notices.add("goes_on", json!({ "epoch": done.epoch }));
                }
                self.held.end(done.epoch);
                let said = std::mem::replace(&mut self.output_hash, done.output_hash);
                if self.votes && said != done.output_hash {
                    self.shared.inbox.poke();
                }
                let wanted = &self.shared.interest.epoch;
                if done.epoch >= wanted.load(Ordering::SeqCst) {
                    wanted.store(u64::MAX, Ordering::SeqCst);
                    self.shared.inbox.poke();
                }
            }
            Output::Consumed { conn, total } => {
                if conn.is_movable() {
                    self.shared.table.tails().consumed(conn, total);
                }
                if self.select(conn)
                    && let Some(connection) = &self.current
                    && connection.consumed(total)
                {
                    self.shared.inbox.add(Work::Resume(connection.token()));
                }
            }
            Output::Shutdown { conn } => {
                self.end(conn, Ending::Shutdown, Connection::shutdown);
            }
            Output::Close { conn, reset } => {
                self.end(conn, closing(reset), |c| c.close(reset));
            }
            Output::Listen {
                listener, address, ..
            } => match address::parse(address) {
                Some(address) => self.shared.inbox.add(Work::Listen { listener, address }),
                None if unix::path_of(address).is_some() => {
                    self.shared.inbox.add(Work::ListenUnix {
                        listener,
                        address: address.to_vec(),
                    });
                }
                None => self.shared.notices.warn(
                    "the server listens on an address that is neither an internet address nor a path; \
                     clients cannot reach it through Crane",
                ),
            },
            Output::DatagramOpen { socket, address } => {
                if let Some(address) = address::parse(address) {
                    self.shared
                        .inbox
                        .add(Work::DatagramOpen { socket, address });
                }
            }
            Output::DatagramGroup {
                socket,
                group,
                join,
            } => self.shared.inbox.add(Work::DatagramGroup {
                socket,
                group,
                join,
            }),
            Output::DatagramSend {
                route,
                socket,
                to,
                bytes,
            } => self.send_datagram(route, socket, to, bytes),
            Output::DatagramClose { socket } => self.shared.inbox.add(Work::DatagramClose(socket)),
            Output::Unlisten { listener } => self.shared.inbox.add(Work::Unlisten(listener)),
            Output::Hello { pid } => {
                self.shared.attached.store(true, Ordering::SeqCst);
                self.shared.notices.add("attached", json!({ "pid": pid }));
            }
            Output::Message { fatal, text } => {
                let text = String::from_utf8_lossy(text);
                self.shared
                    .notices
                    .add("message", json!({ "message": text, "fatal": fatal }));
            }
            Output::Exit { pid, status, last } => {
                self.write_parts();
                if last {
                    self.shared
                        .notices
                        .add("server_exit", json!({ "pid": pid, "wait_status": status }));
                    self.shared.crashed.store(status != 0, Ordering::SeqCst);
                    self.shared.exited.store(true, Ordering::SeqCst);
                    self.shared.server_gone.store(true, Ordering::SeqCst);
                    self.shared.inbox.add(Work::ServerGone);
                }
            }
        }
    }

    fn send_datagram(&self, route: u32, socket: u32, to: &[u8], bytes: &[u8]) {
        // To a peer of another gateway: nothing for this one.
        if route == 0 || self.is_ours(route) {
            self.shared.inbox.add(Work::DatagramSend {
                route,
                socket,
                to: to.to_vec(),
                bytes: bytes.to_vec(),
            });
        }
    }

    fn is_ours(&self, route: u32) -> bool {
        route >> 24 == self.shared.segment.header().replica.load(Ordering::Relaxed)
    }

    /// Makes `conn` the current connection, writing what is gathered for
    /// another. False when this gateway does not hold it (any more).
    fn select(&mut self, conn: ConnId) -> bool {
        if self.current.as_ref().is_some_and(|c| c.id() == conn) {
            return true;
        }
        self.write_parts();
        self.current = self.shared.table.get(conn);
        self.current.is_some()
    }

    fn write_parts(&mut self) {
        if self.parts.is_empty() {
            return;
        }
        if let Some(connection) = &self.current {
            let effects = connection.send(&self.parts);
            self.carry_out(connection, effects);
        }
        self.parts.clear();
    }

    /// Output for a client that another replica may hold: it is kept, and written if
    /// the client is here. Which of the two does not change in between, because a
    /// client comes only while the tails are locked.
    fn send_movable(&mut self, conn: ConnId, bytes: &[u8]) {
        self.write_parts();
        let mut tails = self.shared.table.tails();
        tails.say(conn, bytes);
        let here = self.shared.table.get(conn);
        drop(tails);
        if let Some(connection) = here {
            let effects = connection.send(&[bytes]);
            self.carry_out(&connection, effects);
        }
    }

    fn end(&mut self, conn: ConnId, ending: Ending, how: impl FnOnce(&Connection) -> Effects) {
        if conn.is_movable() {
            self.write_parts();
            self.current = None;
            let mut tails = self.shared.table.tails();
            tails.end(conn, ending);
            let here = self.shared.table.get(conn);
            drop(tails);
            if let Some(connection) = here {
                let effects = how(&connection);
                self.carry_out(&connection, effects);
            }
            return;
        }
        if !self.select(conn) {
            return;
        }
        self.write_parts();
        if let Some(connection) = &self.current {
            let effects = how(connection);
            self.carry_out(connection, effects);
        }
    }

    fn carry_out(&self, connection: &Connection, effects: Effects) {
        if effects.any() {
            let work = Work::Effects(connection.token(), effects);
            self.shared.inbox.add(work);
        }
    }

    /// Whether the data-plane thread waits for the state that the server is in.
    fn state_matters(&self) -> Option<Told> {
        let header = self.shared.segment.header();
        let interest = &self.shared.interest;
        if interest.space.load(Ordering::SeqCst) {
            let head = header.log.head.load(Ordering::SeqCst);
            let tail = header.log.tail.load(Ordering::SeqCst);
            if head.wrapping_sub(tail) <= LOG_RING_LEN as u64 / 2 {
                return Some((0, 0, 0));
            }
        }
        if !interest.bubbles.load(Ordering::SeqCst) {
            return None;
        }
        let epoch = header.epoch.load(Ordering::SeqCst);
        let state = header.state.load(Ordering::SeqCst);
        let deadline = header.deadline.load(Ordering::SeqCst);
        match State::from_raw(state) {
            State::NeedsBudget => {
                let now = (epoch, state, deadline);
                (self.told != Some(now)).then_some(now)
            }
            State::Quiescent => {
                if deadline != NO_DEADLINE {
                    self.shared.alarm.set_earlier(deadline);
                }
                None
            }
            _ => None,
        }
    }

    fn returned(&self) -> u32 {
        let returned = &self.shared.segment.header().returned;
        returned.load(Ordering::SeqCst)
    }

    /// Tells the data-plane thread what it waits for in the server's state.
    pub fn report_state(&mut self) {
        let returned = self.returned();
        if returned != self.returned {
            self.returned = returned;
            self.shared.inbox.poke();
        }
        if let Some(now) = self.state_matters() {
            self.shared.interest.space.store(false, Ordering::SeqCst);
            self.told = Some(now);
            self.shared.inbox.poke();
        }
    }

    fn sleep(&self) {
        sleep_unless(&self.shared.segment, &self.consumer, || {
            self.shared.stopping()
                || self
                    .held
                    .is_due(self.shared.confirmed.load(Ordering::SeqCst))
                || self.state_matters().is_some()
                || self.returned() != self.returned
        });
    }
}

fn closing(reset: bool) -> Ending {
    if reset { Ending::Abort } else { Ending::Close }
}

/// Sleeps until the server or the engine wakes this end of the output ring,
/// unless there is a record or `awake` says no. Unlike [`Consumer::wait`] this
/// asks after the mark is set that makes the server wake us, so that a change of
/// its state is not missed.
pub fn sleep_unless(segment: &Segment, consumer: &Consumer<'_>, awake: impl FnOnce() -> bool) {
    let control = &segment.header().output;
    let seen = control.wake.load(Ordering::SeqCst);
    control.waiting.store(1, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    if consumer.is_empty() && !awake() {
        futex::wait(&control.wake, seen);
    }
    control.waiting.store(0, Ordering::SeqCst);
}

/// What cannot be read of the output ring, for the operator.
pub fn damaged(position: u64) -> String {
    format!(
        "the output ring is damaged at byte {position}: the server wrote outside its own memory \
         or is of another version; restart this replica"
    )
}

/// As [`damaged`], for a record of an unknown kind or form.
pub fn unreadable(kind: u32) -> String {
    format!(
        "the output ring holds a record of kind {kind} that cannot be read: the interposer is of \
         another version; install the same one and restart"
    )
}
