//! What a leader proposes: batches of all gateways, gateways that are down, and
//! bubbles.
//!
//! The leader drops repetitions before it proposes, so that the log does not
//! grow by them; correctness does not depend on that (see
//! `crane_gateway::filter`). It can, because proposals of one term enter the
//! log in their order: what the log will say is what it says when the leader's
//! own first entry is applied, plus what the leader proposed since.

use crane_channel::epoch::{Batch, EpochHead, Event};
use crane_gateway::entry::EntryBuilder;
use crane_gateway::filter::{Filter, Verdict};
use crane_gateway::moves::Holder;
use crane_gateway::stream::EventStream;
use std::collections::VecDeque;

/// Bytes of other gateways' batches that may wait. What comes beyond is dropped
/// and offered again by its gateway.
const PENDING_LIMIT: usize = 128 << 20;
/// Shortest time between two seeds, nanoseconds.
const SEED_EVERY: u64 = 60_000_000_000;

/// An entry ready to be proposed.
#[derive(Debug)]
pub struct Proposal {
    /// The encoded entry.
    pub entry: Vec<u8>,
    /// It holds events of another gateway, whose clients wait for the commit.
    pub foreign: bool,
    /// It holds no events.
    pub bubble: bool,
}

/// An entry that was proposed and is not yet committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct InFlight {
    index: u64,
    foreign: bool,
}

/// Why an entry without events should be proposed, and for when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bubble {
    /// None should.
    None,
    /// Now.
    Now,
    /// For this virtual time, nanoseconds since the Unix epoch.
    At(u64),
}

/// The state of a leader; empty on other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leading {
    /// What the log will say after everything that was proposed; `None` until
    /// the first entry of this leader's term is applied.
    view: Option<Filter>,
    /// Batches of other gateways in the order of their arrival.
    pending: VecDeque<(u8, Vec<u8>)>,
    pending_bytes: usize,
    downs: Vec<(u8, u32)>,
    /// Gateways whose movable connections come to another one, and that.
    moves: Vec<(Holder, Holder)>,
    in_flight: VecDeque<InFlight>,
    last_seed: u64,
    drawn_at_seed: u64,
}

impl Leading {
    /// Leads no more, or does not yet: forgets everything. The gateways offer
    /// their events to the next leader.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// The first entry of this leader's term is applied; `filter` is the log
    /// up to it.
    pub fn begin(&mut self, filter: &Filter) {
        self.view = Some(filter.clone());
    }

    /// Whether proposals can be made.
    pub fn is_ready(&self) -> bool {
        self.view.is_some()
    }

    /// What the log will say of all that was proposed.
    pub fn view(&self) -> Option<&Filter> {
        self.view.as_ref()
    }

    /// Takes a batch that `peer`'s gateway sent.
    ///
    /// # Errors
    /// When it is not a batch of that gateway: the line says what is wrong.
    pub fn offer(&mut self, peer: u8, bytes: Vec<u8>) -> Result<(), &'static str> {
        check(peer, &bytes)?;
        if self.pending_bytes + bytes.len() <= PENDING_LIMIT {
            self.pending_bytes += bytes.len();
            self.pending.push_back((peer, bytes));
        }
        Ok(())
    }

    /// Drops what waits of `peer`: it has connected anew and begins again.
    pub fn forget(&mut self, peer: u8) {
        self.pending.retain(|p| p.0 != peer);
        self.pending_bytes = self.pending.iter().map(|p| p.1.len()).sum();
    }

    /// An incarnation of a gateway is over, if the log does not know yet.
    pub fn declare_down(&mut self, gateway: u8, incarnation: u32) {
        let news = self.view.as_ref().is_some_and(|view| {
            let state = view.gateway(gateway);
            state.incarnation == incarnation && !state.down
        });
        if news && !self.downs.contains(&(gateway, incarnation)) {
            self.downs.push((gateway, incarnation));
        }
    }

    /// The movable connections of `from` are to go on at `heir`.
    pub fn hand_over(&mut self, from: Holder, heir: Holder) {
        if !self.moves.contains(&(from, heir)) {
            self.moves.push((from, heir));
        }
    }

    /// Whether events wait to be proposed.
    pub fn has_events(&self, own: &EventStream) -> bool {
        let control = !self.downs.is_empty() || !self.moves.is_empty();
        own.has_unsent() || !self.pending.is_empty() || control
    }

    /// Entries proposed and not yet committed.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether there is nothing but to wait for events.
    pub fn is_idle(&self) -> bool {
        let waiting = self.pending.is_empty() && self.downs.is_empty() && self.moves.is_empty();
        self.is_ready() && waiting && self.in_flight.is_empty()
    }

    /// Whether an entry under way has clients of another gateway waiting.
    pub fn foreign_in_flight(&self) -> bool {
        self.in_flight.iter().any(|f| f.foreign)
    }

    /// The next entry: all events that wait, as far as they fit, or a bubble.
    /// `now` is the virtual time, `drawn` the randomness that the server used,
    /// `seed` makes a fresh one.
    pub fn next(
        &mut self,
        own: &mut EventStream,
        bubble: Bubble,
        budget: u32,
        now: u64,
        drawn: u64,
        seed: impl FnOnce() -> [u8; 32],
    ) -> Option<Proposal> {
        let events = self.has_events(own);
        if !events && bubble == Bubble::None {
            return None;
        }
        let view = self.view.as_mut()?;
        let due = match bubble {
            Bubble::At(time) if !events => time,
            _ => 0,
        };
        let stale = drawn != self.drawn_at_seed && now >= self.last_seed + SEED_EVERY;
        let fresh = (!view.seeded() || stale).then(seed);
        let head = EpochHead {
            time: (view.last_time() + 1).max(now).max(due),
            budget,
            seed: fresh,
        };
        let room = own.unacknowledged().min(1 << 20);
        let mut builder = EntryBuilder::new(&head, room);
        let mut any = false;
        // Before their gateways are declared down.
        for ((gateway, incarnation), (heir, heir_incarnation)) in self.moves.drain(..) {
            builder.add_control(&Event::Move {
                gateway,
                incarnation,
                heir,
                heir_incarnation,
            });
            any = true;
        }
        for (gateway, incarnation) in self.downs.drain(..) {
            if view.declare_down(gateway, incarnation) {
                builder.add_control(&Event::GatewayDown {
                    gateway,
                    incarnation,
                });
                any = true;
            }
        }
        let mut foreign = false;
        while !builder.is_full()
            && let Some((peer, bytes)) = self.pending.pop_front()
        {
            self.pending_bytes -= bytes.len();
            // Checked by `offer`.
            if let Ok(batch) = Batch::decode(&bytes)
                && counts(view.take(&batch.head).0)
            {
                debug_assert_eq!(batch.head.gateway, peer);
                builder.add_encoded(&bytes);
                foreign = true;
            }
        }
        while !builder.is_full()
            && let Some((head, bytes)) = own.take_unsent()
        {
            if counts(view.take(&head).0) {
                builder.add_encoded(bytes);
                any = true;
            }
        }
        any |= foreign;
        if !any && bubble == Bubble::None {
            // All of it was there before.
            return None;
        }
        view.take_head(&head);
        if head.seed.is_some() {
            self.last_seed = now;
            self.drawn_at_seed = drawn;
        }
        Some(Proposal {
            entry: builder.finish(),
            foreign,
            bubble: !any,
        })
    }

    /// The entry with which the program begins anew after its life `life`; `None`
    /// when that was proposed already. `now` is virtual time.
    pub fn restart(&mut self, life: u32, now: u64) -> Option<Proposal> {
        let view = self.view.as_mut().filter(|view| view.life() == life)?;
        let head = EpochHead {
            time: (view.last_time() + 1).max(now),
            budget: 1,
            seed: None,
        };
        let mut builder = EntryBuilder::new(&head, 0);
        builder.add_control(&Event::Restart { life: life + 1 });
        view.take_head(&head);
        view.restart(life + 1);
        Some(Proposal {
            entry: builder.finish(),
            foreign: true,
            bubble: false,
        })
    }

    /// An entry went into the leader's log at `index`.
    pub fn proposed(&mut self, index: u64, foreign: bool) {
        self.in_flight.push_back(InFlight { index, foreign });
    }

    /// Entries up to `index` are committed.
    pub fn committed(&mut self, index: u64) {
        while self.in_flight.front().is_some_and(|f| f.index <= index) {
            self.in_flight.pop_front();
        }
    }
}

fn counts(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Whole | Verdict::Tail(_))
}

/// Checks that `bytes` are one batch of events that `peer`'s gateway may number.
fn check(peer: u8, bytes: &[u8]) -> Result<(), &'static str> {
    let batch = Batch::decode(bytes).map_err(|_| "a batch that cannot be read")?;
    if batch.head.gateway != peer {
        return Err("a batch of another gateway");
    }
    let mut events = batch.events();
    for event in events.by_ref() {
        let conn = match event.map_err(|_| "an event that cannot be read")? {
            Event::Connect { conn, .. }
            | Event::Data { conn, .. }
            | Event::Eof { conn }
            | Event::Reset { conn }
            | Event::Drained { conn, .. }
            | Event::Movable { conn, .. }
            | Event::Datagram { conn, .. } => conn,
            // Its user sends it by whichever replica is at hand.
            Event::Signal { .. } | Event::Complete { .. } => continue,
            Event::GatewayDown { .. } | Event::Restart { .. } | Event::Move { .. } => {
                return Err("an event that only a leader makes");
            }
        };
        // Whose a movable one is, the log knows.
        if conn.gateway() != peer && !conn.is_movable() {
            return Err("an event of another gateway's connection");
        }
    }
    if events.remaining_bytes().is_empty() {
        Ok(())
    } else {
        Err("a batch with bytes behind its events")
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
