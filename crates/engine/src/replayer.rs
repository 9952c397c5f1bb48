//! Recorded epochs into a fresh server, without clients and without consensus.

use crate::dump::Source;
use crate::error::EngineError;
use crate::program::Program;
use crate::publish::Publisher;
use crate::server_output::{damaged, sleep_unless, unreadable};
use crate::shared::lock;
use crate::status::hex;
use crate::watch::Watch;
use crate::witness::Witness;
use crane_channel::layout::{EVERY_REPLICA, LOG_RING_LEN, SeenFile};
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
/// How often a program that is about to stand still is looked at.
const STAND_STILL: Duration = Duration::from_millis(1);

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
    /// Let the server stand still after so many epochs, for a checkpoint.
    pub park_after: Option<u64>,
    /// A file for what every connection carried, see [`crate::witness`].
    pub witness: Option<PathBuf>,
}

impl Replay {
    fn settings(&self) -> Settings {
        Settings {
            // No connection belongs to replica 0, so no output is asked for.
            replica: if self.witness.is_some() {
                EVERY_REPLICA
            } else {
                0
            },
            quantum: self.quantum,
            trace: self.trace,
            objects: self.objects,
            preempt: self.preempt,
            vote: false,
        }
    }
}

/// What goes on with the server after a checkpoint.
struct Progress {
    source: Option<Source>,
    filter: Filter,
    hashes: Option<BufWriter<File>>,
    witness: Option<Witness>,
    last: Option<EpochDone>,
    epochs: u64,
    messages: Vec<String>,
    park_after: Option<u64>,
    parked: bool,
}

struct State {
    segment: Segment,
    stop: AtomicBool,
    wants_space: AtomicBool,
    result: Mutex<Option<Result<Value, EngineError>>>,
    finished: Condvar,
    program: Mutex<Program>,
    /// The server is being restored: what it does before the next pid within is
    /// put right would have another pid.
    held: AtomicBool,
    /// Kept here while nobody feeds.
    progress: Mutex<Option<Progress>>,
}

/// Feeds recorded epochs to a server. All methods may be called from any thread.
pub struct Replayer {
    replay: Replay,
    state: Mutex<Arc<State>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Replayer {
    /// Makes the segment and begins to feed it; the server may then be started.
    ///
    /// # Errors
    /// When the segment cannot be made or the recording not be opened.
    pub fn start(replay: &Replay) -> Result<Self, EngineError> {
        let source = Source::open(&replay.source)?;
        let hashes = match &replay.hashes {
            Some(path) => Some(File::create(path).map_err(|e| cannot_make(path, &e))?),
            None => None,
        };
        let witness = match &replay.witness {
            Some(path) => Some(Witness::create(path).map_err(|e| cannot_make(path, &e))?),
            None => None,
        };
        let segment = Segment::create(&replay.segment, replay.settings())
            .map_err(|e| cannot_make(&replay.segment, &e))?;
        let progress = Progress {
            source: Some(source),
            filter: Filter::new(),
            hashes: hashes.map(BufWriter::new),
            witness,
            last: None,
            epochs: 0,
            messages: Vec::new(),
            park_after: replay.park_after,
            parked: false,
        };
        let (state, threads) = feed(segment, progress, false)?;
        Ok(Self {
            replay: replay.clone(),
            state: Mutex::new(state),
            threads: Mutex::new(threads),
        })
    }

    fn state(&self) -> Arc<State> {
        lock(&self.state).clone()
    }

    /// Saves the segment of the server, which stands still.
    ///
    /// # Errors
    /// When it does not, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EngineError> {
        let state = self.state();
        if !lock(&state.progress).as_ref().is_some_and(|p| p.parked) {
            return Err(EngineError::new(
                "the program does not stand still; give an epoch to stop after",
            ));
        }
        let saved = state.segment.save(path);
        saved.map_err(|e| cannot_make(path, &e))
    }

    /// The files that the server, which stands still, has seen.
    ///
    /// # Errors
    /// When there is no server, or the segment cannot be read.
    pub fn seen_files(&self) -> Result<Vec<(SeenFile, Vec<u8>)>, EngineError> {
        let found = self.state().segment.seen_files();
        found.map_err(|e| EngineError::new(format!("cannot read the segment: {e}")))
    }

    /// Goes on with a server that was restored together with the segment saved in
    /// `saved`, until `park_after` epochs in all or to the end. The server may be
    /// restored as soon as this has returned, and is given epochs when
    /// [`program_started`](Self::program_started) was told.
    ///
    /// # Errors
    /// When the server before did not stand still, or the segment cannot be used.
    pub fn resume(&self, saved: &Path, park_after: Option<u64>) -> Result<(), EngineError> {
        let old = self.state();
        let Some(mut progress) = lock(&old.progress).take_if(|p| p.parked) else {
            return Err(EngineError::new(
                "the program before did not stand still; nothing can go on from it",
            ));
        };
        self.join();
        (progress.park_after, progress.parked) = (park_after, false);
        let segment = Segment::load(&self.replay.segment, saved, self.replay.settings());
        let segment = segment.map_err(|e| {
            EngineError::new(format!(
                "cannot load {}: {e}; take another checkpoint",
                saved.display()
            ))
        })?;
        let (state, threads) = feed(segment, progress, true)?;
        *lock(&self.state) = state;
        *lock(&self.threads) = threads;
        Ok(())
    }

    /// The program's processes live in the pid namespace of which this process
    /// of the machine is the first.
    pub fn program_started(&self, init: u32) {
        let state = self.state();
        *lock(&state.program) = Program::new(init);
        state.held.store(false, Ordering::SeqCst);
        Consumer::interrupt(&state.segment.header().output);
    }

    /// Waits until the server has done all epochs, stands still where it was asked
    /// to (`parked`), or has ended. Returns the result as a JSON object, `None` when it takes longer than `timeout`.
    ///
    /// # Errors
    /// When the recording or the server's output cannot be read.
    pub fn wait(&self, timeout: Duration) -> Result<Option<String>, EngineError> {
        let deadline = Instant::now() + timeout;
        let state = self.state();
        let mut result = lock(&state.result);
        loop {
            if let Some(result) = &*result {
                return result.clone().map(|value| Some(value.to_string()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let waited = state.finished.wait_timeout(result, left);
            result = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Ends the feeding.
    pub fn stop(&self) {
        let state = self.state();
        state.stop.store(true, Ordering::SeqCst);
        Consumer::interrupt(&state.segment.header().output);
        state.finished.notify_all();
        self.join();
    }

    fn join(&self) {
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A panic aborts the process, so there is nobody to report.
            let _ = thread.join();
        }
    }
}

fn cannot_make(path: &Path, e: &std::io::Error) -> EngineError {
    EngineError::new(format!(
        "cannot make {}: {e}; choose a place that this user may write to",
        path.display()
    ))
}

/// Begins to feed a segment.
fn feed(
    segment: Segment,
    progress: Progress,
    restored: bool,
) -> Result<(Arc<State>, Vec<JoinHandle<()>>), EngineError> {
    let state = Arc::new(State {
        segment,
        stop: AtomicBool::new(false),
        wants_space: AtomicBool::new(false),
        result: Mutex::new(None),
        finished: Condvar::new(),
        program: Mutex::default(),
        held: AtomicBool::new(restored),
        progress: Mutex::new(None),
    });
    let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body);
        thread.map_err(|e| {
            EngineError::new(format!("cannot start a thread: {e}; raise RLIMIT_NPROC"))
        })
    };
    let fed = state.clone();
    let feed = move || {
        let mut feeder = Feeder::new(&fed, progress);
        let result = feeder.run().and_then(|()| feeder.result());
        *lock(&fed.progress) = Some(feeder.progress);
        *lock(&fed.result) = Some(result);
        fed.finished.notify_all();
    };
    let watched = state.clone();
    let threads = vec![
        spawn("crane-replay", Box::new(feed))?,
        spawn("crane-watch", Box::new(move || watch(&watched)))?,
    ];
    Ok((state, threads))
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
    progress: Progress,
    publisher: Publisher<'a>,
    consumer: Consumer<'a>,
    rewritten: Vec<u8>,
    published: u64,
    exited: bool,
}

impl<'a> Feeder<'a> {
    fn new(state: &'a State, progress: Progress) -> Self {
        // SAFETY: this thread is the only one to take either end.
        let (mut publisher, consumer) = unsafe {
            (
                Publisher::new(&state.segment, &state.wants_space),
                state.segment.output_consumer(),
            )
        };
        publisher.begin_after(progress.last.map_or(0, |d| d.epoch));
        Self {
            state,
            published: progress.epochs,
            progress,
            publisher,
            consumer,
            rewritten: Vec::new(),
            exited: false,
        }
    }

    fn run(&mut self) -> Result<(), EngineError> {
        loop {
            let held = self.state.held.load(Ordering::SeqCst);
            if !held {
                self.feed()?;
            }
            self.drain()?;
            if self.is_done() || self.state.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            if self.is_to_stand() && self.has_reached() {
                self.progress.parked = self.state.segment.is_parked(self.publisher.last());
                if self.progress.parked {
                    return Ok(());
                }
                // It has told of the boundary and is on its way to sleep there.
                std::thread::sleep(STAND_STILL);
                continue;
            }
            let state = self.state;
            let has_room = || {
                let log = &state.segment.header().log;
                let used = log.head.load(Ordering::SeqCst) - log.tail.load(Ordering::SeqCst);
                !self.publisher.is_drained() && used <= LOG_RING_LEN as u64 / 2
            };
            sleep_unless(&state.segment, &self.consumer, || {
                let let_go = held && !state.held.load(Ordering::SeqCst);
                state.stop.load(Ordering::SeqCst) || let_go || (!held && has_room())
            });
        }
    }

    /// Whether all epochs have been published after which it is to stand still.
    fn is_to_stand(&self) -> bool {
        let progress = &self.progress;
        progress.park_after.is_some_and(|n| self.published >= n)
    }

    fn feed(&mut self) -> Result<(), EngineError> {
        while !self.is_to_stand()
            && let Some(source) = &mut self.progress.source
            && !self.publisher.is_full()
        {
            let Some((index, entry)) = source.next()? else {
                self.progress.source = None;
                break;
            };
            let life = self.progress.filter.life();
            let changed = self.progress.filter.admit(&entry, &mut self.rewritten);
            let changed = changed.map_err(|bad| {
                EngineError::new(format!(
                    "entry {index} of the recording cannot be read at byte {}: it was made by \
                     another version of crane; use the same version",
                    bad.offset
                ))
            })?;
            if self.progress.filter.life() != life {
                // Here the program begins anew, which is another execution.
                self.progress.source = None;
                break;
            }
            let entry = if changed { &self.rewritten } else { &entry };
            if entry.len() > self.publisher.max_entry() {
                return Err(EngineError::new(format!(
                    "entry {index} of the recording is longer than a server can be given; it was \
                     made by another version of crane; use the same version"
                )));
            }
            if let Some(witness) = &mut self.progress.witness {
                witness.entry(index, entry)?;
            }
            self.publisher.publish(index, entry);
            self.published += 1;
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
                    .progress
                    .messages
                    .push(String::from_utf8_lossy(text).into_owned()),
                Output::Send { conn, bytes } => {
                    if let Some(witness) = &mut self.progress.witness {
                        witness.sent(conn.0, bytes)?;
                    }
                }
                Output::Exit { last, .. } => self.exited |= last,
                _ => {}
            }
            self.consumer.release();
        }
    }

    fn epoch_done(&mut self, done: EpochDone) -> Result<(), EngineError> {
        self.progress.epochs += 1;
        self.progress.last = Some(done);
        let Some(file) = &mut self.progress.hashes else {
            return Ok(());
        };
        let (output, schedule) = (hex(done.output_hash), hex(done.schedule_hash));
        writeln!(file, "{} {} {output} {schedule}", done.epoch, done.clock).map_err(hashes_failed)
    }

    fn is_done(&self) -> bool {
        self.exited || (self.progress.source.is_none() && self.has_reached())
    }

    /// Whether the server has done everything that was published.
    fn has_reached(&self) -> bool {
        let done = self.progress.last.map_or(0, |d| d.epoch);
        self.publisher.is_drained() && done == self.publisher.last()
    }

    fn result(&mut self) -> Result<Value, EngineError> {
        if let Some(file) = &mut self.progress.hashes {
            file.flush().map_err(hashes_failed)?;
        }
        if let Some(witness) = &mut self.progress.witness {
            witness.finish()?;
        }
        let last = self.progress.last;
        let connections = &self.state.segment.header().connections;
        Ok(json!({
            "epochs": self.progress.epochs,
            "epoch": last.map_or(0, |d| d.epoch),
            "clock": last.map_or(0, |d| d.clock),
            "output_hash": hex(last.map_or(0, |d| d.output_hash)),
            "schedule_hash": hex(last.map_or(0, |d| d.schedule_hash)),
            "connections": connections.load(Ordering::Relaxed),
            "complete": self.progress.source.is_none() && self.has_reached(),
            "parked": self.progress.parked,
            "exited": self.exited,
            "messages": self.progress.messages,
        }))
    }
}

fn hashes_failed(e: std::io::Error) -> EngineError {
    EngineError::new(format!(
        "cannot write the file of hashes: {e}; free some space"
    ))
}
