//! The boundary of an epoch: applying the log, and telling the node.

use crate::outside;
use crate::raw;
use crate::recent;
use crate::refuse;
use crate::signals;
use crate::world::{header, vkernel, world};
use core::sync::atomic::Ordering;
use crane_channel::epoch::{ConnId, Entry, Event};
use crane_channel::layout::{
    EVERY_REPLICA, LOG_RING_LEN, LOG_RING_OFFSET, NO_DEADLINE, OUTPUT_RING_LEN, OUTPUT_RING_OFFSET,
    SEGMENT_ADDRESS, State, WATCH_VOTES,
};
use crane_channel::output::{EpochDone, LOG_EPOCH, Output};
use crane_channel::recent::Sent;
use crane_channel::ring::{Consumer, Producer};
use crane_scheduler::Wake;
use crane_vkernel::{Gather, Host, conn_gateway};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Epochs in which nothing was said that the node hears of together.
const UNHURRIED_EPOCHS: u32 = 3;
/// Longest piece of output in one record; a ring must hold several.
const PIECE: usize = 1 << 20;

fn producer() -> Producer<'static> {
    // SAFETY: the ring lies in the mapped segment; the caller holds the turn,
    // so no other producer is in use.
    unsafe {
        let base = (SEGMENT_ADDRESS + OUTPUT_RING_OFFSET) as *mut u8;
        Producer::new(&header().output, base, OUTPUT_RING_LEN)
    }
}

fn consumer() -> Consumer<'static> {
    // SAFETY: as for `producer`.
    unsafe {
        let base = (SEGMENT_ADDRESS + LOG_RING_OFFSET) as *const u8;
        Consumer::new(&header().log, base, LOG_RING_LEN)
    }
}

/// Puts a record into the output ring. Sleeps in real time while the node does
/// not drain the ring: nobody else could go on anyway.
pub(crate) fn tell(record: &Output<'_>) {
    let mut ring = producer();
    while record.encode(|kind, parts| ring.push(kind, parts)).is_err() {
        ring.notify();
        ring.wait_for_space();
    }
    world().untold = 1;
}

/// Wakes the node if anything was told since the last time.
pub(crate) fn flush() {
    let w = world();
    if w.untold != 0 {
        w.untold = 0;
        producer().notify();
    }
}

/// As [`flush`], from the scheduler's slow path: bounds how long output waits
/// for a busy thread.
pub(crate) fn flush_if_due() {
    flush();
}

/// Whether output is held back until other replicas have come to the same.
fn votes() -> bool {
    header().watch.load(Ordering::Relaxed) & WATCH_VOTES != 0
}

/// What virtual objects do to the world outside them.
pub(crate) struct Effects;

impl Effects {
    fn witness(conn: u64, what: u64, bytes: &[u8]) {
        let w = world();
        w.output_hash =
            xxh3_64_with_seed(bytes, w.output_hash.rotate_left(7) ^ conn ^ (what << 60));
        recent::sent(Sent {
            clock: w.scheduler.clock(),
            conn,
            hash: w.output_hash,
            what: what as u32,
            len: bytes.len() as u32,
        });
        // With votes, the node wants to hear of it whichever replica's client it
        // is for.
        if votes() {
            w.untold = 1;
        }
    }

    /// Whether this replica's node wants to hear of the connection: it holds the
    /// client's socket, or may get it.
    fn is_ours(conn: u64) -> bool {
        let replica = header().replica.load(Ordering::Relaxed);
        ConnId(conn).is_movable()
            || replica == u32::from(ConnId(conn).gateway())
            || replica == u32::from(EVERY_REPLICA)
    }
}

impl Host for Effects {
    fn wake_one(&mut self, key: u64) -> bool {
        world().scheduler.wake_one(key).is_some()
    }

    fn wake_all(&mut self, key: u64) {
        world().scheduler.wake_all(key);
    }

    fn wake_thread(&mut self, thread: u32) {
        world().scheduler.wake_thread(thread, Wake::Woken);
    }

    fn output(&mut self, conn: u64, bytes: &[u8]) {
        Self::witness(conn, 1, bytes);
        if !Self::is_ours(conn) {
            return;
        }
        for piece in bytes.chunks(PIECE) {
            tell(&Output::Send {
                conn: ConnId(conn),
                bytes: piece,
            });
        }
        // The first reply of an epoch leaves at once (unless there is a vote on the
        // whole epoch first); those that follow wait for the boundary, so that a batch of requests costs few wake-ups.
        if world().announced == 0 && !votes() {
            world().announced = 1;
            flush();
        }
    }

    fn conn_shutdown_write(&mut self, conn: u64) {
        Self::witness(conn, 2, b"");
        if Self::is_ours(conn) {
            tell(&Output::Shutdown { conn: ConnId(conn) });
        }
    }

    fn conn_close(&mut self, conn: u64, reset: bool) {
        Self::witness(conn, 3, &[reset.into()]);
        if Self::is_ours(conn) {
            tell(&Output::Close {
                conn: ConnId(conn),
                reset,
            });
        }
    }

    fn conn_consumed(&mut self, conn: u64, total: u64) {
        if Self::is_ours(conn) {
            tell(&Output::Consumed {
                conn: ConnId(conn),
                total,
            });
        }
    }

    fn listen(&mut self, listener: u32, addr: &[u8], backlog: u32) {
        tell(&Output::Listen {
            listener,
            address: addr,
            backlog,
        });
    }

    fn datagram_open(&mut self, socket: u32, addr: &[u8]) {
        tell(&Output::DatagramOpen {
            socket,
            address: addr,
        });
    }

    fn datagram_group(&mut self, socket: u32, group: &[u8; 16], join: bool) {
        tell(&Output::DatagramGroup {
            socket,
            group: *group,
            join,
        });
    }

    fn datagram_send(&mut self, gateway: u32, socket: u32, to: &[u8], data: Gather<'_>) {
        let bytes = crate::datagrams::gathered(data);
        Self::witness(u64::from(socket), 4, to);
        Self::witness(u64::from(socket), 5, bytes);
        let ours = gateway >> 24 == header().replica.load(Ordering::Relaxed);
        if gateway == 0 || ours {
            tell(&Output::DatagramSend {
                route: gateway,
                socket,
                to,
                bytes,
            });
        }
    }

    fn datagram_close(&mut self, socket: u32) {
        tell(&Output::DatagramClose { socket });
    }

    fn unlisten(&mut self, listener: u32) {
        tell(&Output::Unlisten { listener });
    }
}

/// The budget of the epoch is used up: waits for the next epoch while the
/// caller keeps the turn.
pub(crate) fn budget_used() {
    end_epoch(State::NeedsBudget);
    next_epoch();
}

/// Nobody can run: waits for the next epoch.
pub(crate) fn quiescent() {
    end_epoch(State::Quiescent);
    next_epoch();
}

fn end_epoch(state: State) {
    let w = world();
    let h = header();
    let deadline = earliest_deadline();
    let silent = w.untold == 0;
    if w.epoch > 0 {
        tell(&Output::Epoch(EpochDone {
            epoch: w.epoch,
            clock: w.scheduler.clock(),
            output_hash: w.output_hash,
            schedule_hash: w.scheduler.hash(),
        }));
    }
    h.epoch.store(w.epoch, Ordering::Relaxed);
    h.clock.store(w.scheduler.clock(), Ordering::Relaxed);
    h.now.store(w.scheduler.now(), Ordering::Relaxed);
    h.output_hash.store(w.output_hash, Ordering::Relaxed);
    h.schedule_hash.store(w.scheduler.hash(), Ordering::Relaxed);
    h.threads.store(w.scheduler.alive(), Ordering::Relaxed);
    h.handovers
        .store(w.scheduler.handovers(), Ordering::Relaxed);
    h.random_drawn.store(w.random.drawn(), Ordering::Relaxed);
    let counters = vkernel().counters();
    h.connections.store(counters.conns, Ordering::Relaxed);
    let buffered = u64::from(counters.chunks) * crane_vkernel::CHUNK as u64;
    h.buffered.store(buffered, Ordering::Relaxed);
    h.deadline.store(deadline, Ordering::Relaxed);
    // Before the look at the node's wish, which it makes known before it looks
    // at the state.
    h.state.store(state as u32, Ordering::SeqCst);
    let patient = state == State::Quiescent && h.eager.load(Ordering::SeqCst) == 0;
    if patient && silent && w.unhurried < UNHURRIED_EPOCHS {
        w.unhurried += 1;
        w.untold = 0;
    } else {
        w.unhurried = 0;
        w.untold = 1;
    }
    if !silent && votes() {
        flush();
    }
}

fn earliest_deadline() -> u64 {
    let threads = world().scheduler.next_deadline().unwrap_or(NO_DEADLINE);
    threads.min(vkernel().next_deadline().unwrap_or(NO_DEADLINE))
}

fn next_epoch() {
    let mut log = consumer();
    loop {
        match log.pop() {
            Ok(Some((LOG_EPOCH, record))) => {
                apply(record);
                log.release();
                return;
            }
            Ok(Some((kind, _))) => refuse::fatal(raw::line!(
                "the node sent a log record of unknown kind {kind}"
            )),
            Err(damage) => {
                refuse::fatal(raw::line!("the log ring is damaged at {}", damage.position))
            }
            Ok(None) => {
                flush();
                log.wait();
            }
        }
    }
}

fn apply(record: &[u8]) {
    let entry = record
        .split_first_chunk::<8>()
        .and_then(|(index, bytes)| Some((u64::from_le_bytes(*index), Entry::decode(bytes).ok()?)));
    let Some((index, entry)) = entry else {
        refuse::fatal(raw::line!("the node sent a log record that is no entry"));
    };
    let w = world();
    if w.epoch == 0 {
        w.start = entry.head.time;
    }
    w.epoch = index;
    w.announced = 0;
    if let Some(seed) = &entry.head.seed {
        w.random.reseed(seed);
    }
    w.scheduler.begin_epoch(entry.head.time, entry.head.budget);
    vkernel().advance(&mut Effects, w.scheduler.now());
    crate::timers::fire();
    for batch in entry.batches() {
        let Ok(batch) = batch else {
            refuse::fatal(raw::line!("entry {index} has a bad batch"))
        };
        for event in batch.events() {
            let Ok(event) = event else {
                refuse::fatal(raw::line!("entry {index} has a bad event"))
            };
            admit(event);
        }
    }
    header()
        .state
        .store(State::Running as u32, Ordering::Relaxed);
}

fn admit(event: Event<'_>) {
    let vk = vkernel();
    let host = &mut Effects;
    match event {
        Event::Connect {
            conn,
            listener,
            local,
            peer,
        } => {
            vk.apply_connect(host, conn.0, listener, local, peer);
        }
        // Events of a connection that the server has closed are ignored: both
        // sides may end it.
        Event::Data { conn, bytes } => _ = vk.apply_data(host, conn.0, bytes),
        Event::Eof { conn } => _ = vk.apply_eof(host, conn.0),
        Event::Reset { conn } => _ = vk.apply_reset(host, conn.0),
        Event::Drained { conn, offset } => _ = vk.apply_drained(host, conn.0, offset),
        Event::Datagram {
            conn,
            socket,
            local,
            peer,
            bytes,
        } => {
            let gateway = conn_gateway(conn.0);
            vk.apply_datagram(host, gateway, socket, local, peer, bytes);
        }
        Event::GatewayDown {
            gateway,
            incarnation,
        } => {
            vk.apply_gateway_down(host, gateway, incarnation);
        }
        Event::Complete { operation, result } => outside::complete(operation, result),
        Event::Signal { number } => signals::post_to_main(number),
        // For the node.
        Event::Restart { .. } | Event::Movable { .. } | Event::Move { .. } => {}
    }
}
