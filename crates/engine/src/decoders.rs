//! What this crate reads that others wrote, for fuzzing alone.

use crate::agreement::evidence::Side;
use crate::agreement::history::History;
use crate::agreement::message::Compare;
use crate::bubble;
use crate::budget::{Budget, Stand};
use crate::clock::Alarm;
use crate::lead::{Bubble, Leading};
use crate::manifest;
use crate::message::ToGateway;
use crate::notice::Notices;
use crate::publish::Publisher;
use crate::returns::Returns;
use crate::server_output::OutputThread;
use crate::shared::{Shared, Work, lock};
use crate::sockets::{ALARM, WAKER};
use crate::threads;
use crate::watch::{Watch, holder};
use crane_channel::epoch::ConnId;
use crane_channel::output::EpochDone;
use crane_channel::segment::Segment;
use crane_gateway::connection::Connection;
use crane_gateway::filter::Filter;
use crane_gateway::socket::Socket;
use crane_gateway::stream::EventStream;
use mio::{Poll, Token, Waker};
use rustix::fd::BorrowedFd;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What a gateway, or a leader, sends; a batch goes through a leader's hands.
pub fn gateway(bytes: &[u8]) {
    let Some(message) = ToGateway::decode(bytes) else {
        return;
    };
    assert_eq!(message.encode(), bytes);
    if let ToGateway::Batch(batch) = message {
        let mut leading = Leading::default();
        leading.begin(&Filter::new());
        if leading.offer(bytes[0], batch).is_ok() {
            let mut own = EventStream::new(0, 1);
            while let Some(made) = leading.next(&mut own, Bubble::None, 1, 1, 0, || [0; 32]) {
                let admitted = Filter::new().admit(&made.entry, &mut Vec::new());
                admitted.expect("a leader makes entries that can be read");
            }
        }
    }
}

/// Hashes of another replica, and what it asks and tells of a difference.
pub fn hashes(bytes: &[u8]) {
    let Some(message) = Compare::decode(bytes) else {
        return;
    };
    assert_eq!(message.encode(), bytes);
    if let Compare::Report(report) = &message {
        let mut history = History::default();
        for epoch in 1..4 {
            history.add(EpochDone {
                epoch,
                clock: epoch,
                output_hash: 0,
                schedule_hash: 0,
            });
        }
        let _ = history.compare(2, report);
    }
    if let Compare::Operations { epoch, side } = &message {
        let none = Side::decode(&[]).unwrap_or_else(|| side.clone());
        for (ours, theirs) in [(side, &none), (&none, side), (side, side)] {
            let _ = ours
                .first_difference(theirs, *epoch)
                .map(|found| found.told());
        }
        let _ = (side.at(*epoch), side.told(*epoch));
    }
}

/// What another replica says that all must have in common.
pub fn agreed(bytes: &[u8]) {
    let names = manifest::differences(b"file /a\t1\ncwd b\t2", bytes);
    let _ = names
        .iter()
        .filter(|name| manifest::is_harmless(name))
        .count();
}

/// A client that takes nothing, and one that takes all.
struct Client(bool);

impl Socket for Client {
    fn read(&self, _: &mut Vec<u8>, _: usize) -> rustix::io::Result<usize> {
        Err(rustix::io::Errno::AGAIN)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.0 {
            Ok(parts.iter().map(|part| part.len()).sum())
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn end(&self) {}

    fn abort_on_drop(&self) {}

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A node whose program may have written anything to their segment.
pub struct Scribbled {
    shared: &'static Shared,
    returns: Returns,
    watch: Watch,
    budget: Budget,
    now: Instant,
}

impl Scribbled {
    /// A node with two clients.
    ///
    /// # Panics
    /// When no descriptor is left.
    pub fn new(segment: Segment) -> Self {
        let poll = Poll::new().expect("a descriptor");
        let waker = Waker::new(poll.registry(), WAKER).expect("a descriptor");
        let alarm = Alarm::new(poll.registry(), ALARM).expect("a descriptor");
        let notices = Notices::new().expect("a descriptor");
        let shared = Shared::new(segment, waker, alarm, notices);
        for (n, takes) in [(1, true), (2, false)] {
            let id = ConnId::new(1, 1, n);
            let socket = Box::new(Client(takes));
            let token = Token(n as usize);
            let connection = Connection::new(id, token, socket, &shared.table);
            shared.table.insert(Arc::new(connection));
        }
        let now = Instant::now();
        // Freed by the drop.
        let shared = Box::leak(Box::new(shared));
        Self {
            shared,
            returns: Returns::default(),
            watch: Watch::new(now),
            budget: Budget::new(100_000),
            now,
        }
    }

    /// The node reads everything that it reads of the segment while it runs.
    pub fn look(&mut self) {
        let shared = self.shared;
        let mut output = OutputThread::new(shared);
        match output.drain() {
            Ok(()) => output.report_state(),
            Err(why) => assert!(!why.is_empty()),
        }
        drop(output);
        self.now += Duration::from_millis(700);
        let header = shared.segment.header();
        let _ = self.returns.look(&shared.segment, self.now, true);
        let _ = self.watch.next(header, self.now);
        let _ = self.watch.look(header, &shared.program, self.now);
        let stand = Stand {
            given: 1,
            done: header.epoch.load(Relaxed),
            clock: header.ticks.load(Relaxed),
            used_up: false,
        };
        self.budget.note(self.now, stand);
        let _ = (self.budget.next(), self.budget.is_slow());
        let mut leading = Leading::default();
        for epochs in [0, 1] {
            leading.begin(&Filter::at([], epochs, 5, true, 0));
            let _ = bubble::look(shared, &leading, 1, 1 << 60);
        }
        let _ = holder(header);
        let _ = threads::threads(shared);
        let _ = shared.segment.is_parked(1);
        let _ = lock(&shared.history).report(true);
        // SAFETY: the only producer at this time.
        let mut publisher = unsafe { Publisher::new(&shared.segment, &shared.interest.space) };
        publisher.publish(1, &[0; 100]);
        publisher.announce();
        let mut work: Vec<Work> = Vec::new();
        shared.inbox.take(&mut work);
        while shared.notices.next().is_some() {}
    }
}

impl Drop for Scribbled {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak` in `new`, and all borrows of it end with
        // the calls that made them.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self.shared).cast_mut()) });
    }
}
