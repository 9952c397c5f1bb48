//! What consensus produces: messages to send and entries to apply.

use crate::host::Links;
use crate::publish::Publisher;
use crane_consensus::{Membership, Message, Output, Role};
use crane_gateway::connection::ConnectionTable;
use crane_gateway::filter::Filter;
use crane_gateway::moves::News;
use std::sync::Arc;

/// The receiving end of [`crane_consensus::Node::process`].
pub struct Core<'a, L> {
    /// The connections to the other replicas.
    pub peers: L,
    /// What the log says up to the last entry applied.
    pub filter: Filter,
    /// The log ring.
    pub publisher: Publisher<'a>,
    /// Index and term of the last entry applied.
    pub applied: (u64, u64),
    /// The latest change of role, term or leader, not yet handled.
    pub change: Option<(Role, u64, Option<u64>)>,
    /// Replicas to which a message could not be sent.
    pub unsent: Vec<u64>,
    /// Why the log cannot be applied any further.
    pub failure: Option<String>,
    /// The log says that the program begins anew: this one gets nothing more, and
    /// nothing more is applied.
    pub over: bool,
    /// Nothing is applied for now: the program is to stand still.
    pub hold: bool,
    /// The leader's log begins behind this replica's end: it needs a checkpoint
    /// of this entry or a later one.
    pub needs_checkpoint: Option<u64>,
    /// This gateway's connections, and the tails of all movable ones.
    pub table: Arc<ConnectionTable>,
    /// Movable connections could come to this replica.
    pub keeps_tails: bool,
    /// Movable connections that went elsewhere, came here or are over, not yet handled.
    pub moved: Vec<News>,
    /// Who takes part now, when that has changed and was not handled yet.
    pub members: Option<Membership>,
    rewritten: Vec<u8>,
}

impl<'a, L: Links> Core<'a, L> {
    /// The state before the first entry.
    pub fn new(
        peers: L,
        publisher: Publisher<'a>,
        table: Arc<ConnectionTable>,
        keeps_tails: bool,
    ) -> Self {
        Self {
            peers,
            filter: Filter::new(),
            publisher,
            applied: (0, 0),
            change: None,
            unsent: Vec::new(),
            failure: None,
            over: false,
            hold: false,
            needs_checkpoint: None,
            table,
            keeps_tails,
            moved: Vec::new(),
            members: None,
            rewritten: Vec::new(),
        }
    }

    /// Whether entries are applied for now.
    pub fn takes_entries(&self) -> bool {
        !self.over && !self.hold && self.failure.is_none() && !self.publisher.is_full()
    }

    fn apply(&mut self, index: u64, data: &[u8]) -> Result<(), String> {
        let life = self.filter.life();
        let changed = self
            .filter
            .admit(data, &mut self.rewritten)
            .map_err(|bad| {
                format!(
                    "entry {index} of the log cannot be read at byte {}: it was written by another \
                 version of crane; run the same version on all replicas",
                    bad.offset
                )
            })?;
        self.note_news();
        if self.filter.life() != life {
            self.over = true;
            return Ok(());
        }
        let entry = if changed { &self.rewritten } else { data };
        if entry.len() > self.publisher.max_entry() {
            return Err(format!(
                "entry {index} of the log has {} bytes, more than a server can be given: it was \
                 written by another version of crane; run the same version on all replicas",
                entry.len()
            ));
        }
        self.publisher.publish(index, entry);
        Ok(())
    }

    /// Notes what the entry says of movable connections, before the program gets it:
    /// it may answer at once.
    fn note_news(&mut self) {
        for news in self.filter.moves.take_news() {
            match news {
                News::Opened(conn) if self.keeps_tails => self.table.tails().open(conn),
                News::Opened(_) => {}
                News::Received(conn) => {
                    if let Some(connection) = self.table.get(conn)
                        && let Some(one) = self.filter.moves.get(conn)
                    {
                        connection.agree(one.received, one.ended);
                    }
                }
                News::Drained(conn, offset) => self.table.tails().drain(conn, offset),
                News::Over(conn) => {
                    self.table.tails().close(conn);
                    self.moved.push(news);
                }
                News::Moved { .. } => self.moved.push(news),
            }
        }
    }
}

impl<L: Links> Output for Core<'_, L> {
    fn send(&mut self, to: u64, msg: Message) {
        let sent = u8::try_from(to).is_ok_and(|peer| self.peers.send_raft(peer, &msg));
        if !sent && !self.unsent.contains(&to) {
            self.unsent.push(to);
        }
    }

    fn committed(&mut self, index: u64, term: u64, data: &[u8]) {
        // An entry without data begins a leader's term, or changes the members.
        if !data.is_empty()
            && let Err(why) = self.apply(index, data)
        {
            self.failure = Some(why);
            return;
        }
        self.applied = (index, term);
    }

    fn role_changed(&mut self, role: Role, term: u64, leader: Option<u64>) {
        self.change = Some((role, term, leader));
    }

    fn membership_changed(&mut self, now: &Membership) {
        self.members = Some(now.clone());
    }

    fn needs_checkpoint(&mut self, index: u64) {
        self.needs_checkpoint = Some(index);
    }

    fn accepts_committed(&mut self) -> bool {
        self.takes_entries()
    }
}
