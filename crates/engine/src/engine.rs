//! An engine from its making to its end.

use crate::clock::{Alarm, wall_clock};
use crate::config::{Config, Durability, Start};
use crate::data_plane::DataPlane;
use crate::error::EngineError;
use crate::notice::Notices;
use crate::pace::{ELECTION_TICKS, HEARTBEAT_TICKS};
use crate::peers::Peers;
use crate::program::Program;
use crate::server_output;
use crate::share::Share;
use crate::shared::{Shared, Work, lock};
use crate::sockets::{ALARM, Sockets, WAKER};
use crane_channel::layout::SeenFile;
use crane_channel::ring::Consumer;
use crane_channel::segment::{Segment, Settings};
use crane_consensus::{Checkpoint, Node, RealDisk};
use mio::{Poll, Waker};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// One replica's engine. All methods may be called from any thread.
pub struct Engine {
    config: Arc<Config>,
    shared: Arc<Shared>,
    unstarted: Mutex<Option<(Poll, Node<RealDisk>)>>,
    /// From where it starts, if not from the beginning of the log.
    share: Option<Arc<Share>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine {
    /// Opens the log and makes the segment.
    ///
    /// # Errors
    /// For a wrong configuration, a log that is another's or damaged, or when
    /// the segment cannot be made; one line that says what to do.
    pub fn open(config_json: &str) -> Result<Self, EngineError> {
        let config = Config::from_json(config_json)?;
        let system = |what: &'static str| {
            move |e: io::Error| {
                EngineError::new(format!("cannot make {what}: {e}; raise RLIMIT_NOFILE"))
            }
        };
        let share = config.checkpoint.as_ref().map(read_share).transpose()?;
        let node = open_node(&config, share.as_ref())?;
        let settings = Settings {
            replica: config.id,
            quantum: config.quantum,
            trace: config.trace,
            objects: config.objects,
            preempt: config.preempt,
            vote: config.vote,
        };
        let saved = config.checkpoint.as_ref();
        let saved = saved.and_then(|from| from.segment.as_ref());
        let made = match saved {
            Some(saved) => Segment::load(&config.segment, saved, settings),
            None => Segment::create(&config.segment, settings),
        };
        let segment = made.map_err(|e| {
            let place = config.segment.display();
            EngineError::new(match saved {
                Some(saved) if e.kind() == io::ErrorKind::InvalidData => format!(
                    "{} cannot be used: {e}; remove this checkpoint, another one is taken",
                    saved.display()
                ),
                _ => format!(
                    "cannot make the segment {place}: {e}; it needs room on a tmpfs that this \
                     user may write to"
                ),
            })
        })?;
        let poll = Poll::new().map_err(system("an event queue"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(system("a waker"))?;
        let alarm = Alarm::new(poll.registry(), ALARM).map_err(system("a timer"))?;
        let notices = Notices::new().map_err(system("an event descriptor"))?;
        let shared = Shared::new(segment, waker, alarm, notices);
        shared.restoring.store(share.is_some(), Ordering::SeqCst);
        Ok(Self {
            shared: Arc::new(shared),
            share: share.map(Arc::new),
            config: Arc::new(config),
            unstarted: Mutex::new(Some((poll, node))),
            threads: Mutex::new(Vec::new()),
        })
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When the replica's own address cannot be listened on, or the engine was
    /// started before.
    pub fn start(&self) -> Result<(), EngineError> {
        let Some((poll, node)) = lock(&self.unstarted).take() else {
            return Err(EngineError::new(
                "the engine was started before; make a new one",
            ));
        };
        // Every client needs a descriptor; without the right it works with fewer.
        let _ = crane_gateway::clients::raise_descriptor_limit();
        let members = node.membership();
        let peers = Peers::new(&self.config, members, node.incarnation(), poll.registry())?;
        let (shared, config) = (self.shared.clone(), self.config.clone());
        let share = self.share.clone();
        self.spawn("crane-data", move || {
            let host = Sockets::new(&shared, &config, poll);
            let mut data_plane =
                DataPlane::new(&shared, &config, host, node, peers, share.as_deref());
            data_plane
                .clients
                .hold_back(crate::hold::of(config.virtual_host));
            data_plane.run();
        })?;
        let shared = self.shared.clone();
        self.spawn("crane-output", move || server_output::run(&shared))
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), EngineError> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(body);
        let thread = thread.map_err(|e| {
            EngineError::new(format!("cannot start a thread: {e}; raise RLIMIT_NPROC"))
        })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// The state as a JSON object, see the binding's documentation.
    pub fn status(&self) -> String {
        crate::status::status(&self.config, &self.shared).to_string()
    }

    /// The program's threads as a JSON array, see the binding's documentation.
    pub fn threads(&self) -> String {
        crate::threads::threads(&self.shared).to_string()
    }

    /// The program's processes live in the pid namespace of which this process
    /// of the machine is the first. A program that is restored is given nothing
    /// before.
    pub fn program_started(&self, init: u32) {
        *lock(&self.shared.program) = Program::new(init);
        self.shared.restoring.store(false, Ordering::SeqCst);
        self.shared.inbox.poke();
    }

    /// A descriptor that is readable while [`next_event`](Self::next_event) has
    /// something.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.notices.descriptor()
    }

    /// The next event as a JSON object; `None` makes the descriptor unreadable
    /// until there is another.
    pub fn next_event(&self) -> Option<String> {
        self.shared.notices.next()
    }

    /// Sends a signal, 1 to 64, to the server's main process on every replica,
    /// by way of the log.
    ///
    /// # Errors
    /// When there is no such signal, or this replica does not take inputs yet.
    pub fn signal(&self, number: u32) -> Result<(), EngineError> {
        if !(1..=64).contains(&number) {
            return Err(EngineError::new(format!("there is no signal {number}")));
        }
        if !lock(&self.shared.figures).caught_up {
            return Err(EngineError::new(
                "this replica does not take inputs yet; try again when it has caught up",
            ));
        }
        self.shared.inbox.add(Work::Signal(number));
        Ok(())
    }

    /// Sends bytes to the owner of replica `to`. They may be lost on the way.
    ///
    /// # Errors
    /// When they are more than a mebibyte.
    pub fn send_mail(&self, to: u8, bytes: Vec<u8>) -> Result<(), EngineError> {
        if bytes.len() > crate::mail::LARGEST {
            return Err(EngineError::new(format!(
                "mail of {} bytes is too large; send less at once",
                bytes.len()
            )));
        }
        self.shared.inbox.add(Work::Mail(to, bytes));
        Ok(())
    }

    /// The oldest mail that was not fetched yet, and from which replica it is; the
    /// event `mail` says that there is some.
    pub fn next_mail(&self) -> Option<(u8, Vec<u8>)> {
        self.shared.mail.next()
    }

    /// Asks the leader something about the members, or to change them; see
    /// [`crate::roster`]. The event `answer` has `number` and what it said.
    pub fn ask(&self, number: u64, question: &str) {
        let question = question.to_owned();
        self.shared.inbox.add(Work::Ask(number, question));
    }

    /// Has the program stand still at the end of an epoch, while the log goes on.
    /// The event `parked` says that it does, with the node's share of a checkpoint,
    /// or `unparked` why it cannot. A leader that is not alone does not.
    pub fn park(&self) {
        self.shared.inbox.add(Work::Park);
    }

    /// Saves the segment of the program, which stands still.
    ///
    /// # Errors
    /// When it does not, or the file cannot be written.
    pub fn save_segment(&self, path: &Path) -> Result<(), EngineError> {
        let saved = self.shared.segment.save(path);
        saved.map_err(|e| {
            EngineError::new(format!(
                "cannot write {}: {e}; free some space",
                path.display()
            ))
        })?;
        if !self.shared.parked.load(Ordering::SeqCst) {
            return Err(EngineError::new(
                "the program did not stand still: take another checkpoint",
            ));
        }
        Ok(())
    }

    /// The files that the program, which stands still, has seen.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn seen_files(&self) -> Result<Vec<(SeenFile, Vec<u8>)>, EngineError> {
        let found = self.shared.segment.seen_files();
        found.map_err(|e| EngineError::new(format!("cannot read the segment: {e}")))
    }

    /// Lets the program go on. Returns whether it stood still until now: only
    /// then is what was saved meanwhile of one moment.
    pub fn unpark(&self) -> bool {
        let parked = self.shared.parked.swap(false, Ordering::SeqCst);
        self.shared.inbox.add(Work::Unpark);
        parked
    }

    /// The program, which ended by its own fault, may begin anew on every replica, by
    /// way of the log. Does nothing unless the setting `restart` allows it. The event
    /// `restart` tells when to, with the share to begin from.
    pub fn restart(&self) {
        self.shared.inbox.add(Work::Restart);
    }

    /// This machine has the virtual address, and the network was told.
    pub fn address_held(&self) {
        self.shared.inbox.add(Work::AddressHeld);
    }

    /// There is a checkpoint of everything up to entry `index`.
    pub fn checkpointed(&self, index: u64) {
        self.shared.inbox.add(Work::Checkpointed(index));
    }

    /// Entries up to `index` are not needed any more by this replica; whole
    /// files of the log that hold nothing else are removed, as far as the newest
    /// checkpoint goes.
    pub fn cut(&self, index: u64) {
        self.shared.inbox.add(Work::Cut(index));
    }

    /// The server's program has ended; `status` says how, for people.
    pub fn server_exited(&self, status: &str) {
        let first = !self.shared.server_gone.swap(true, Ordering::SeqCst);
        if first {
            self.shared
                .notices
                .add("server_exit", serde_json::json!({ "status": status }));
        }
        self.shared.inbox.add(Work::ServerGone);
    }

    /// Ends the threads and closes the log; another replica is asked to lead.
    /// Clients are cut off. Does nothing the second time.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.inbox.poke();
        Consumer::interrupt(&self.shared.segment.header().output);
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            // A panic aborts the process, so there is nobody to report.
            let _ = thread.join();
        }
        lock(&self.unstarted).take();
    }

    /// Ends the threads as if the process had been killed: nobody is told and
    /// nothing is closed in order. For tests of exactly that.
    pub fn kill(&self) {
        self.shared.abrupt.store(true, Ordering::SeqCst);
        self.stop();
    }

    /// The wall clock in the unit of virtual time, nanoseconds since the Unix
    /// epoch.
    pub fn now() -> u64 {
        wall_clock()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes the log of a replica of a new cluster that begins with a checkpoint: empty,
/// and going on behind the checkpoint's entry.
///
/// # Errors
/// For a wrong configuration or one without a checkpoint, a directory that has a log,
/// or when the disk fails.
pub fn begin_log(config_json: &str) -> Result<(), EngineError> {
    let mut config = Config::from_json(config_json)?;
    let Some(from) = &config.checkpoint else {
        return Err(EngineError::new("there is no checkpoint to begin with"));
    };
    let share = read_share(from)?;
    config.new_cluster = true;
    let node = open_node(&config, Some(&share))?;
    if node.last_index() != share.index {
        return Err(EngineError::new(format!(
            "{} has a log already; give an empty state directory",
            config.log_dir.display()
        )));
    }
    node.close().map_err(|e| EngineError::new(e.to_string()))
}

fn read_share(from: &Start) -> Result<Share, EngineError> {
    let read = std::fs::read_to_string(&from.share).map_err(|e| e.to_string());
    read.and_then(|text| Share::decode(&text)).map_err(|why| {
        EngineError::new(format!(
            "{} cannot be used: {why}; remove this checkpoint, another one is taken",
            from.share.display()
        ))
    })
}

fn open_node(config: &Config, share: Option<&Share>) -> Result<Node<RealDisk>, EngineError> {
    let refuse = |e: crane_consensus::Error| EngineError::new(e.to_string());
    let disk = RealDisk::open(&config.log_dir).map_err(refuse)?;
    let peers = config.peers.keys().map(|&id| id.into()).collect();
    let mut settings = crane_consensus::Config::new(config.id.into(), peers, config.cluster_id);
    settings.durability = match config.durability {
        Durability::Disk => crane_consensus::Durability::Disk,
        Durability::Memory => crane_consensus::Durability::Memory,
    };
    settings.heartbeat_ticks = HEARTBEAT_TICKS as usize;
    settings.election_ticks = ELECTION_TICKS as usize;
    settings.checkpoint = share.map(|share| Checkpoint {
        index: share.index,
        term: share.term,
    });
    let own = share.filter(|share| share.cluster == config.cluster());
    settings.membership = own.map(|share| share.members.clone());
    settings.join = config.join;
    settings.new_cluster = config.new_cluster;
    settings.accept_memory_loss = config.accept_memory_loss;
    let (node, _) = Node::open(settings, disk).map_err(refuse)?;
    let members = node.membership();
    if members.is_removed(config.id.into()) {
        return Err(EngineError::new(removed(config.id, members.index())));
    }
    Ok(node)
}

/// Why a replica ends that is no member any more.
pub(crate) fn removed(id: u8, index: u64) -> String {
    format!(
        "replica {id} was removed from the cluster by entry {index} of the log, and its id is not \
         used again; its state directory can be removed"
    )
}
