//! Recorded epochs into a fresh server, without clients and without consensus.

use crate::dump::Source;
use crate::error::EngineError;
use crate::program::Program;
use crate::publish::Publisher;
use crate::server_output::{damaged, sleep_unless, unreadable};
use crate::shared::lock;
use crate::status::hex;
use crate::watch::Watch;
use crane_channel::layout::LOG_RING_LEN;
use crane_channel::output::{EpochDone, Output};
use crane_channel::ring::Consumer;
use crane_channel::segment::{Segment, Settings};
use crane_gateway::filter::Filter;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a program without work is looked at.
const LOOK_FOR_WORK: Duration = Duration::from_millis(10);

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Where the segment is made.
    pub segment: PathBuf,
    /// A log directory, or a file made by [`dump_log`](crate::dump_log).
    pub source: PathBuf,
    /// As in the recorded run.
    pub quantum: u32,
    /// Record every operation of the server.
    pub trace: bool,
    /// Have the addresses of locks in the schedule's hash, as in the recorded run.
    pub objects: bool,
    /// As in the recorded run: a thread that spins on memory passes the turn on.
    pub preempt: bool,
    /// A file for one line per epoch: epoch, clock, output hash, schedule hash.
    pub hashes: Option<PathBuf>,
}

struct State {
    segment: Segment,
    stop: AtomicBool,
    wants_space: AtomicBool,
    result: Mutex<Option<Result<Value, EngineError>>>,
    finished: Condvar,
    program: Mutex<Program>,
}

/// Feeds recorded epochs to a server. All methods may be called from any thread.
pub struct Replayer {
    state: Arc<State>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Replayer {
    /// Makes the segment and begins to feed it; the server may then be started.
    ///
    /// # Errors
    /// When the segment cannot be made or the recording not be opened.
    pub fn start(replay: &Replay) -> Result<Self, EngineError> {
        let source = Source::open(&replay.source)?;
        let failed = |path: &Path, e: std::io::Error| {
            EngineError::new(format!(
                "cannot make {}: {e}; choose a place that this user may write to",
                path.display()
            ))
        };
        let hashes = match &replay.hashes {
            Some(path) => Some(File::create(path).map_err(|e| failed(path, e))?),
            None => None,
        };
        let settings = Settings {
            // No connection belongs to replica 0, so no output is asked for.
            replica: 0,
            quantum: replay.quantum,
            trace: replay.trace,
            objects: replay.objects,
            preempt: replay.preempt,
        };
        let segment =
            Segment::create(&replay.segment, settings).map_err(|e| failed(&replay.segment, e))?;
        let state = Arc::new(State {
            segment,
            stop: AtomicBool::new(false),
            wants_space: AtomicBool::new(false),
            result: Mutex::new(None),
            finished: Condvar::new(),
            program: Mutex::default(),
        });
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(body);
            thread.map_err(|e| {
                EngineError::new(format!("cannot start a thread: {e}; raise RLIMIT_NPROC"))
            })
        };
        let fed = state.clone();
        let feed = move || {
            let result = Feeder::new(&fed, source, hashes).run();
            *lock(&fed.result) = Some(result);
            fed.finished.notify_all();
        };
        let watched = state.clone();
        let threads = vec![
            spawn("crane-replay", Box::new(feed))?,
            spawn("crane-watch", Box::new(move || watch(&watched)))?,
        ];
        Ok(Self {
            state,
            threads: Mutex::new(threads),
        })
    }

    /// The program's processes live in the pid namespace of which this process
    /// of the machine is the first.
    pub fn program_started(&self, init: u32) {
        *lock(&self.state.program) = Program::new(init);
    }

    /// Waits until the server has done all epochs, or has ended. Returns the
    /// result as a JSON object, `None` when it takes longer than `timeout`.
    ///
    /// # Errors
    /// When the recording or the server's output cannot be read.
    pub fn wait(&self, timeout: Duration) -> Result<Option<String>, EngineError> {
        let deadline = Instant::now() + timeout;
        let mut result = lock(&self.state.result);
        loop {
            if let Some(result) = &*result {
                return result.clone().map(|value| Some(value.to_string()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = self.state.finished.wait_timeout(result, left);
            result = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Ends the feeding.
    pub fn stop(&self) {
        self.state.stop.store(true, Ordering::SeqCst);
        Consumer::interrupt(&self.state.segment.header().output);
        self.state.finished.notify_all();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic aborts the process, so there is nobody to report.
            let _ = thread.join();
        }
    }
}

impl Drop for Replayer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Looks for threads that spin until the replay is over.
fn watch(state: &State) {
    let header = state.segment.header();
    let mut watch = Watch::new(Instant::now());
    let mut result = lock(&state.result);
    while result.is_none() && !state.stop.load(Ordering::SeqCst) {
        let now = Instant::now();
        let next = watch.next(header, now).unwrap_or(now + LOOK_FOR_WORK);
        let sleep = next.saturating_duration_since(now);
        let waited = state.finished.wait_timeout(result, sleep);
        drop(waited.unwrap_or_else(std::sync::PoisonError::into_inner));
        watch.look(header, &state.program, Instant::now());
        result = lock(&state.result);
    }
}

struct Feeder<'a> {
    state: &'a State,
    source: Option<Source>,
    filter: Filter,
    publisher: Publisher<'a>,
    consumer: Consumer<'a>,
    hashes: Option<BufWriter<File>>,
    rewritten: Vec<u8>,
    last: Option<EpochDone>,
    epochs: u64,
    messages: Vec<String>,
    exited: bool,
}

impl<'a> Feeder<'a> {
    fn new(state: &'a State, source: Source, hashes: Option<File>) -> Self {
        // SAFETY: this thread is the only one to take either end.
        let (publisher, consumer) = unsafe {
            (
                Publisher::new(&state.segment, &state.wants_space),
                state.segment.output_consumer(),
            )
        };
        Self {
            state,
            source: Some(source),
            filter: Filter::new(),
            publisher,
            consumer,
            hashes: hashes.map(BufWriter::new),
            rewritten: Vec::new(),
            last: None,
            epochs: 0,
            messages: Vec::new(),
            exited: false,
        }
    }

    fn run(mut self) -> Result<Value, EngineError> {
        loop {
            self.feed()?;
            self.drain()?;
            if self.is_done() || self.state.stop.load(Ordering::SeqCst) {
                return self.result();
            }
            let state = self.state;
            let has_room = || {
                let log = &state.segment.header().log;
                let used = log.head.load(Ordering::SeqCst) - log.tail.load(Ordering::SeqCst);
                !self.publisher.is_drained() && used <= LOG_RING_LEN as u64 / 2
            };
            sleep_unless(&state.segment, &self.consumer, || {
                state.stop.load(Ordering::SeqCst) || has_room()
            });
        }
    }

    fn feed(&mut self) -> Result<(), EngineError> {
        while let Some(source) = &mut self.source
            && !self.publisher.is_full()
        {
            let Some((index, entry)) = source.next()? else {
                self.source = None;
                break;
            };
            let changed = self.filter.admit(&entry, &mut self.rewritten);
            let changed = changed.map_err(|bad| {
                EngineError::new(format!(
                    "entry {index} of the recording cannot be read at byte {}: it was made by \
                     another version of crane; use the same version",
                    bad.offset
                ))
            })?;
            let entry = if changed { &self.rewritten } else { &entry };
            if entry.len() > self.publisher.max_entry() {
                return Err(EngineError::new(format!(
                    "entry {index} of the recording is longer than a server can be given; it was \
                     made by another version of crane; use the same version"
                )));
            }
            self.publisher.publish(index, entry);
        }
        self.publisher.announce();
        Ok(())
    }

    fn drain(&mut self) -> Result<(), EngineError> {
        loop {
            let record = self.consumer.pop();
            let record = record.map_err(|d| EngineError::new(damaged(d.position)))?;
            let Some((kind, bytes)) = record else {
                self.consumer.release();
                return Ok(());
            };
            let output = Output::decode(kind, bytes);
            match output.map_err(|bad| EngineError::new(unreadable(bad.kind)))? {
                Output::Epoch(done) => self.epoch_done(done)?,
                Output::Message { text, .. } => self
                    .messages
                    .push(String::from_utf8_lossy(text).into_owned()),
                Output::Exit { last, .. } => self.exited |= last,
                _ => {}
            }
            self.consumer.release();
        }
    }

    fn epoch_done(&mut self, done: EpochDone) -> Result<(), EngineError> {
        self.epochs += 1;
        self.last = Some(done);
        let Some(file) = &mut self.hashes else {
            return Ok(());
        };
        let (output, schedule) = (hex(done.output_hash), hex(done.schedule_hash));
        writeln!(file, "{} {} {output} {schedule}", done.epoch, done.clock).map_err(hashes_failed)
    }

    fn is_done(&self) -> bool {
        let reached = self.last.map_or(0, |d| d.epoch) == self.publisher.last();
        self.exited || (self.source.is_none() && self.publisher.is_drained() && reached)
    }

    fn result(mut self) -> Result<Value, EngineError> {
        if let Some(file) = &mut self.hashes {
            file.flush().map_err(hashes_failed)?;
        }
        let last = self.last;
        let connections = &self.state.segment.header().connections;
        Ok(json!({
            "epochs": self.epochs,
            "epoch": last.map_or(0, |d| d.epoch),
            "clock": last.map_or(0, |d| d.clock),
            "output_hash": hex(last.map_or(0, |d| d.output_hash)),
            "schedule_hash": hex(last.map_or(0, |d| d.schedule_hash)),
            "connections": connections.load(Ordering::Relaxed),
            "complete": self.source.is_none() && self.last.map_or(0, |d| d.epoch) == self.publisher.last(),
            "exited": self.exited,
            "messages": self.messages,
        }))
    }
}

fn hashes_failed(e: std::io::Error) -> EngineError {
    EngineError::new(format!(
        "cannot write the file of hashes: {e}; free some space"
    ))
}
