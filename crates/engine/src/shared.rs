//! What the engine's threads have in common.
//!
//! The data-plane thread works on sockets, consensus and the log ring; the
//! output thread on the output ring and on writes to clients. What the second
//! finds for the first goes through [`Inbox`]; what the first waits for in the
//! server's state it says in [`Interest`].

use crate::agreement::history::{Disagreement, History};
use crate::clock::Alarm;
use crate::mail::Mail;
use crate::notice::Notices;
use crate::program::Program;
use crane_channel::ring::Consumer;
use crane_channel::segment::Segment;
use crane_gateway::connection::{ConnectionTable, Effects};
use mio::{Token, Waker};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Something that the output thread leaves to the data-plane thread.
#[derive(Debug)]
pub enum Work {
    /// What a write to a client called for.
    Effects(Token, Effects),
    /// The server read input of a client whose window was used up.
    Resume(Token),
    /// The server listens.
    Listen {
        /// Listener id.
        listener: u32,
        /// The bound address.
        address: SocketAddr,
    },
    /// The server listens on a Unix socket that has a path.
    ListenUnix {
        /// Listener id.
        listener: u32,
        /// The bound address as raw sockaddr bytes.
        address: Vec<u8>,
    },
    /// The server closed a listening socket.
    Unlisten(u32),
    /// The server bound a datagram socket.
    DatagramOpen {
        /// Its id.
        socket: u32,
        /// The bound address.
        address: SocketAddr,
    },
    /// A datagram socket joined or left a group.
    DatagramGroup {
        /// Its id.
        socket: u32,
        /// The group.
        group: [u8; 16],
        /// Joined, or left.
        join: bool,
    },
    /// A datagram to the outside.
    DatagramSend {
        /// Through which gateway; 0 for the leader's.
        route: u32,
        /// The socket that sends.
        socket: u32,
        /// Where to, as raw sockaddr bytes.
        to: Vec<u8>,
        /// The message.
        bytes: Vec<u8>,
    },
    /// The server closed a datagram socket.
    DatagramClose(u32),
    /// The user sends a signal to the server.
    Signal(u32),
    /// From this replica's owner to that of another one.
    Mail(u8, Vec<u8>),
    /// This machine has the virtual address.
    AddressHeld,
    /// The program is to stand still at the end of what it was given.
    Park,
    /// It may go on.
    Unpark,
    /// The program may begin anew.
    Restart,
    /// There is a checkpoint of everything up to this entry.
    Checkpointed(u64),
    /// The log up to this entry is not needed any more.
    Cut(u64),
    /// The owner asks the leader something, by a number of its own.
    Ask(u64, String),
    /// The server is gone.
    ServerGone,
}

/// Work for the data-plane thread. Adding wakes it once until it looks.
pub struct Inbox {
    work: Mutex<Vec<Work>>,
    woken: AtomicBool,
    waker: Waker,
}

impl Inbox {
    /// An empty inbox whose owner is woken by `waker`.
    pub fn new(waker: Waker) -> Self {
        Self {
            work: Mutex::new(Vec::new()),
            woken: AtomicBool::new(false),
            waker,
        }
    }

    /// Adds work.
    pub fn add(&self, work: Work) {
        lock(&self.work).push(work);
        self.poke();
    }

    /// Wakes the owner to look at the server's state.
    pub fn poke(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            // A full counter means that it is awake; there is no other failure.
            let _ = self.waker.wake();
        }
    }

    /// Whether the owner was woken and has not looked.
    #[cfg(test)]
    pub fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// Takes all work, leaving `buffer`'s memory for the next.
    pub fn take(&self, buffer: &mut Vec<Work>) {
        buffer.clear();
        if self.woken.swap(false, Ordering::SeqCst) {
            std::mem::swap(&mut *lock(&self.work), buffer);
        }
    }
}

/// What the data-plane thread wants to be woken for. It sets the wish first and
/// looks at the server's state afterwards; the output thread looks the other way
/// round before it sleeps, so nothing is missed.
#[derive(Default)]
pub struct Interest {
    /// Wake when the server needs clocks; arm the alarm when it has a deadline.
    pub bubbles: AtomicBool,
    /// Wake when there is room in the log ring.
    pub space: AtomicBool,
    /// Wake when the server has done this epoch; `u64::MAX` for never.
    pub epoch: AtomicU64,
}

/// Figures that the data-plane thread publishes.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// `leader`, `follower` or `candidate`.
    pub role: &'static str,
    /// Current term.
    pub term: u64,
    /// The leader, 0 if none is known.
    pub leader: u64,
    /// Index of the last committed entry.
    pub commit: u64,
    /// Index of the last entry handed to the server.
    pub applied: u64,
    /// Index of the last epoch given to the server.
    pub published: u64,
    /// Index of the last entry of the log.
    pub last_index: u64,
    /// Clients of this gateway.
    pub connections: usize,
    /// Pairs of the server's port and the real address.
    pub listening: Vec<(u16, SocketAddr)>,
    /// Entries with inputs proposed by this replica.
    pub epochs_proposed: u64,
    /// Entries without inputs proposed by this replica.
    pub bubbles_proposed: u64,
    /// Whether the replica has come as far as the cluster was when it started.
    pub caught_up: bool,
    /// The gateway's incarnation.
    pub incarnation: u32,
    /// The entry before the first one in the log.
    pub log_base: u64,
    /// Bytes of the log on the disk, about.
    pub log_bytes: u64,
    /// Bytes of the log behind the newest checkpoint, about.
    pub log_behind: u64,
    /// The newest checkpoint's entry, 0 for none.
    pub checkpoint: u64,
    /// Replicas that decide.
    pub voters: Vec<u64>,
    /// Replicas that only get the log.
    pub learners: Vec<u64>,
    /// The entry with which these began to take part.
    pub members_index: u64,
    /// The other replicas that this one looks for.
    pub peers: Vec<u8>,
}

/// Results of comparing hashes with other replicas.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    /// Whether all comparisons so far were equal; none yet: `None`.
    pub agrees: Option<bool>,
    /// The earliest difference found.
    pub disagreement: Option<Disagreement>,
    /// What was found of it, see [`crate::agreement`].
    pub divergence: Option<serde_json::Value>,
    /// Why no clients are served, while that is so.
    pub suspended: Option<String>,
}

/// All that is shared.
pub struct Shared {
    /// The segment.
    pub segment: Segment,
    /// This gateway's connections.
    pub table: Arc<ConnectionTable>,
    /// Work for the data-plane thread.
    pub inbox: Inbox,
    /// What the data-plane thread waits for.
    pub interest: Interest,
    /// Wakes the data-plane thread when a deadline of the server is due.
    pub alarm: Alarm,
    /// What the owner is told.
    pub notices: Notices,
    /// What the owners of other replicas sent.
    pub mail: Mail,
    /// Hashes of recent epochs.
    pub history: Mutex<History>,
    /// Comparison with other replicas.
    pub agreement: Mutex<Agreement>,
    /// Figures of the data-plane thread.
    pub figures: Mutex<Figures>,
    /// Why the engine stopped by itself.
    pub fatal: Mutex<Option<String>>,
    /// The program's threads.
    pub program: Mutex<Program>,
    /// Since when the program makes no progress although it has work.
    pub stuck_since: Mutex<Option<Instant>>,
    /// The last epoch whose output was handled.
    pub done_epoch: AtomicU64,
    /// The program stands still, and nothing was given to it since.
    pub parked: AtomicBool,
    /// The program is being restored from a checkpoint. What it did before the next
    /// pid within is put right would have another pid.
    pub restoring: AtomicBool,
    /// It was restored, and has not ended an epoch since.
    pub restored: AtomicBool,
    /// The interposer reported in.
    pub attached: AtomicBool,
    /// The program came to another result than the majority's: nobody may get
    /// what it says.
    pub distrusted: AtomicBool,
    /// With the setting `vote`: output up to this epoch may leave.
    pub confirmed: AtomicU64,
    /// The program ended by its own fault, in the order of the schedule.
    pub crashed: AtomicBool,
    /// The program ended in the order of the schedule, as on every replica.
    pub exited: AtomicBool,
    /// The server has ended.
    pub server_gone: AtomicBool,
    /// The threads must end.
    pub stop: AtomicBool,
    /// They must end as if the process had died.
    pub abrupt: AtomicBool,
}

/// Locks, whatever happened to an earlier holder: every critical section here
/// leaves the data whole at each step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(segment: Segment, waker: Waker, alarm: Alarm, notices: Notices) -> Self {
        let interest = Interest::default();
        interest.epoch.store(u64::MAX, Ordering::SeqCst);
        let figures = Figures {
            role: "follower",
            ..Figures::default()
        };
        Self {
            segment,
            table: Arc::default(),
            inbox: Inbox::new(waker),
            interest,
            alarm,
            notices,
            mail: Mail::default(),
            history: Mutex::default(),
            agreement: Mutex::default(),
            program: Mutex::default(),
            stuck_since: Mutex::default(),
            figures: Mutex::new(figures),
            fatal: Mutex::default(),
            done_epoch: AtomicU64::new(0),
            parked: AtomicBool::new(false),
            restoring: AtomicBool::new(false),
            restored: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            server_gone: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            abrupt: AtomicBool::new(false),
        }
    }

    /// Makes known to the server whether this node waits for its next boundary;
    /// after every change of [`Interest`] and before the look at the state.
    pub fn make_known(&self) {
        let interest = &self.interest;
        let waits = interest.bubbles.load(Ordering::SeqCst)
            || interest.space.load(Ordering::SeqCst)
            || interest.epoch.load(Ordering::SeqCst) != u64::MAX;
        let header = self.segment.header();
        if header.eager.swap(waits.into(), Ordering::SeqCst) == 0 && waits {
            // What it has not told of yet is looked at now.
            Consumer::interrupt(&header.output);
        }
    }

    /// Has the output thread look at what the server left untold, if anything.
    /// Returns whether there was nothing.
    pub fn has_heard_all(&self) -> bool {
        let header = self.segment.header();
        let all = self.done_epoch.load(Ordering::SeqCst) >= header.epoch.load(Ordering::SeqCst);
        if !all {
            Consumer::interrupt(&header.output);
        }
        all
    }

    /// Notes that the engine cannot go on; only the first reason is kept.
    /// Returns whether this was it.
    pub fn fail(&self, message: String) -> bool {
        let mut fatal = lock(&self.fatal);
        let first = fatal.is_none();
        if first {
            self.notices
                .add("fatal", serde_json::json!({ "message": message }));
            *fatal = Some(message);
        }
        first
    }

    /// Whether the threads must end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
