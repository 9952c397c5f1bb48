//! A server for tests: it plays the interposer's part on the segment and echoes
//! what clients send, with the same windows as a real one.

use crane_channel::epoch::{ConnId, Entry, Event};
use crane_channel::layout::{
    Header, LOG_RING_LEN, LOG_RING_OFFSET, MAGIC, NO_DEADLINE, OPERATIONS, OPERATIONS_OFFSET,
    OUTPUT_RING_LEN, OUTPUT_RING_OFFSET, OUTPUTS, OUTPUTS_OFFSET, State, WORLD_OFFSET,
};
use crane_channel::output::{EpochDone, LOG_EPOCH, Output};
use crane_channel::recent::{Operation, Sent, SentRecord, place_of};
use crane_channel::ring::{Consumer, Producer};
use rustix::mm::{MapFlags, ProtFlags};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The port that the server believes to listen on.
pub const PORT: u16 = 7000;
const SEND_WINDOW: u64 = 4 << 20;
const CONSUMED_STEP: u64 = 128 << 10;

/// How the server behaves beyond echoing.
#[derive(Clone, Copy, Default)]
pub struct Habits {
    /// It sleeps so long after an epoch with data, nanoseconds of virtual time.
    pub sleep: u64,
    /// It uses up its budget so often after an epoch with data.
    pub hungry: u32,
    /// Its results are wrong from the first data on.
    pub wrong: bool,
    /// It closes a connection at the client's end.
    pub close_at_eof: bool,
    /// After `lie 13` from a client, replicas 1 and 3 give answers of their own;
    /// after `stray 2`, replica 2 does other operations.
    pub obeys: bool,
}

/// A running server.
pub struct Server {
    stop: Arc<AtomicBool>,
    map: Arc<Map>,
    thread: Option<JoinHandle<()>>,
}

struct Map(*mut u8);

// SAFETY: shared memory of atomics and rings, whose ends are used by one thread.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(path: &Path) -> Self {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                WORLD_OFFSET,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
            .unwrap()
        };
        Self(base.cast())
    }

    fn header(&self) -> &Header {
        // SAFETY: page aligned, long enough, and any bits are a valid Header.
        unsafe { &*self.0.cast::<Header>() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; all users are gone with the last reference.
        unsafe { rustix::mm::munmap(self.0.cast(), WORLD_OFFSET).unwrap() };
    }
}

impl Server {
    /// Starts a server on a segment that an engine has made.
    pub fn start(segment: &Path, habits: Habits) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let map = Arc::new(Map::new(segment));
        assert_eq!(map.header().magic.load(Ordering::SeqCst), MAGIC);
        let thread = {
            let (stop, map) = (stop.clone(), map.clone());
            std::thread::spawn(move || serve(&map, &stop, habits))
        };
        Self {
            stop,
            map,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().unwrap();
        // Again and again: it may be on its way to sleep.
        while !thread.is_finished() {
            Consumer::interrupt(&self.map.header().log);
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().unwrap();
    }
}

#[derive(Default)]
struct Client {
    waiting: VecDeque<u8>,
    received: u64,
    told: u64,
    sent: u64,
    drained: u64,
    eof: bool,
    gone: bool,
}

struct World<'a> {
    header: &'a Header,
    operations: &'a [AtomicU64],
    outputs: &'a [SentRecord],
    output: Producer<'a>,
    replica: u8,
    habits: Habits,
    clients: BTreeMap<ConnId, Client>,
    hash: u64,
    clock: u64,
    hungry: u32,
    deadline: u64,
    lies: bool,
    strays: bool,
}

fn serve(map: &Map, stop: &AtomicBool, habits: Habits) {
    let header = map.header();
    // SAFETY: the rings lie in the mapping, and this thread alone plays the
    // server's side.
    let (mut log, output) = unsafe {
        (
            Consumer::new(&header.log, map.0.add(LOG_RING_OFFSET), LOG_RING_LEN),
            Producer::new(
                &header.output,
                map.0.add(OUTPUT_RING_OFFSET),
                OUTPUT_RING_LEN,
            ),
        )
    };
    // SAFETY: both lie in the mapping, aligned, and any bits are valid.
    let (operations, outputs) = unsafe {
        (
            std::slice::from_raw_parts(map.0.add(OPERATIONS_OFFSET).cast(), OPERATIONS),
            std::slice::from_raw_parts(map.0.add(OUTPUTS_OFFSET).cast(), OUTPUTS),
        )
    };
    let mut world = World {
        header,
        operations,
        outputs,
        output,
        replica: header.replica.load(Ordering::SeqCst) as u8,
        habits,
        clients: BTreeMap::new(),
        hash: 0,
        clock: 0,
        hungry: 0,
        deadline: NO_DEADLINE,
        lies: false,
        strays: false,
    };
    world.tell(Output::Hello { pid: 2 });
    world.output.notify();
    let mut listening = false;
    loop {
        match log.pop().unwrap() {
            None if stop.load(Ordering::SeqCst) => return,
            None => {
                world.output.notify();
                log.wait();
            }
            Some((kind, record)) => {
                assert_eq!(kind, LOG_EPOCH);
                header.state.store(State::Running as u32, Ordering::SeqCst);
                if !std::mem::replace(&mut listening, true) {
                    world.listen();
                }
                let index = u64::from_le_bytes(record[..8].try_into().unwrap());
                world.epoch(index, &Entry::decode(&record[8..]).unwrap());
                log.release();
            }
        }
    }
}

impl World<'_> {
    fn tell(&mut self, record: Output<'_>) {
        while record
            .encode(|k, parts| self.output.push(k, parts))
            .is_err()
        {
            self.output.notify();
            self.output.wait_for_space();
        }
    }

    fn listen(&mut self) {
        let mut address = [0u8; 16];
        address[0] = 2;
        address[2..4].copy_from_slice(&PORT.to_be_bytes());
        self.tell(Output::Listen {
            listener: 1,
            address: &address,
            backlog: 128,
        });
    }

    fn epoch(&mut self, index: u64, entry: &Entry<'_>) {
        let mut data = false;
        if entry.head.time >= self.deadline {
            self.deadline = NO_DEADLINE;
        }
        self.hungry = self.hungry.saturating_sub(1);
        for batch in entry.batches() {
            for event in batch.unwrap().events() {
                data |= self.event(event.unwrap());
            }
        }
        if data {
            self.hungry = self.habits.hungry;
            if self.habits.sleep > 0 {
                self.deadline = entry.head.time + self.habits.sleep;
            }
            if self.habits.wrong {
                self.tick(9);
            }
        }
        self.tick(if self.strays { 8 } else { 2 });
        let done = EpochDone {
            epoch: index,
            clock: self.clock,
            output_hash: self.hash,
            schedule_hash: self.clock * 3 + u64::from(self.strays),
        };
        self.tell(Output::Epoch(done));
        let h = self.header;
        h.epoch.store(index, Ordering::Relaxed);
        h.clock.store(self.clock, Ordering::Relaxed);
        h.output_hash.store(self.hash, Ordering::Relaxed);
        h.schedule_hash.store(done.schedule_hash, Ordering::Relaxed);
        h.connections
            .store(self.clients.len() as u32, Ordering::Relaxed);
        h.deadline.store(self.deadline, Ordering::Relaxed);
        let state = if self.hungry > 0 {
            State::NeedsBudget
        } else {
            State::Quiescent
        };
        h.state.store(state as u32, Ordering::Release);
    }

    fn tick(&mut self, code: u32) {
        self.clock += 1;
        let one = Operation::new(code, 1, 0);
        self.operations[place_of(self.clock)].store(one.0, Ordering::SeqCst);
        self.header.ticks.store(self.clock, Ordering::SeqCst);
    }

    fn obey(&mut self, bytes: &[u8]) {
        let own = b'0' + self.replica;
        if let Some(who) = bytes.strip_prefix(b"lie ") {
            self.lies |= who.contains(&own);
        }
        if let Some(who) = bytes.strip_prefix(b"stray ") {
            self.strays |= who.contains(&own);
        }
    }

    fn event(&mut self, event: Event<'_>) -> bool {
        match event {
            Event::Connect { conn, listener, .. } => {
                assert_eq!(listener, 1);
                let known = self.clients.insert(conn, Client::default());
                assert!(known.is_none(), "{conn:?} connected twice");
            }
            Event::Data { conn, bytes } => {
                if self.habits.obeys {
                    self.obey(bytes);
                }
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.waiting.extend(bytes);
                    self.echo(conn);
                }
                return true;
            }
            Event::Eof { conn } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.eof = true;
                    self.echo(conn);
                }
            }
            Event::Reset { conn } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.gone = true;
                    self.echo(conn);
                }
            }
            Event::Drained { conn, offset } => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    assert!(offset <= client.sent);
                    client.drained = offset;
                    self.echo(conn);
                }
            }
            Event::GatewayDown {
                gateway,
                incarnation,
            } => {
                self.clients
                    .retain(|c, _| c.gateway() != gateway || c.incarnation() != incarnation);
            }
            Event::Signal { .. } | Event::Datagram { .. } => {}
            Event::Complete { .. } | Event::Restart { .. } => {}
            Event::Movable { .. } | Event::Move { .. } => {}
        }
        false
    }

    fn echo(&mut self, conn: ConnId) {
        let ours = conn.gateway() == self.replica;
        let mut client = self.clients.remove(&conn).unwrap();
        let window = SEND_WINDOW - (client.sent - client.drained);
        let n = client.waiting.len().min(window as usize);
        let mut bytes: Vec<u8> = client.waiting.drain(..n).collect();
        if self.lies {
            bytes.fill(b'0' + self.replica);
        }
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            let mixed = self.hash ^ u64::from_le_bytes(word) ^ piece.len() as u64;
            self.hash = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if n > 0 {
            let number = self.header.sent.load(Ordering::SeqCst);
            self.outputs[number as usize % OUTPUTS].set(Sent {
                clock: self.clock + 1,
                conn: conn.0,
                hash: self.hash,
                what: 1,
                len: n as u32,
            });
            self.header.sent.store(number + 1, Ordering::SeqCst);
        }
        client.sent += n as u64;
        client.received += n as u64;
        if ours && n > 0 {
            for piece in bytes.chunks(1 << 20) {
                self.tell(Output::Send { conn, bytes: piece });
            }
        }
        if ours && client.received - client.told >= CONSUMED_STEP {
            client.told = client.received;
            let total = client.received;
            self.tell(Output::Consumed { conn, total });
        }
        let end = client.eof && client.waiting.is_empty() && self.habits.close_at_eof;
        if client.gone || end {
            if ours {
                self.tell(Output::Close { conn, reset: false });
            }
        } else {
            self.clients.insert(conn, client);
        }
    }
}
