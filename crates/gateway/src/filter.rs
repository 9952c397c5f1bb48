//! Exactly once: which events of a committed entry count.
//!
//! A gateway offers its events again after every change of leader or lost
//! connection, so the log may hold them several times. Every replica drops the
//! repetitions by the same rule, from the log alone: each number of a
//! (gateway, incarnation) counts once and in order; a higher incarnation ends
//! the lower one, and nothing of an ended incarnation counts.

use crate::moves::{Holder, Moves};
use crane_channel::epoch::{
    Batch, BatchHead, ConnId, Entry, EpochHead, Event, Events, Malformed, encode_batch, encode_head,
};

/// Ends of connections that are told in one batch.
const RESETS_AT_ONCE: usize = 1000;

/// What the log says of one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayState {
    /// The highest incarnation seen; 0 before the first.
    pub incarnation: u32,
    /// Number of the next event that counts.
    pub next_seq: u64,
    /// Whether this incarnation was declared down.
    pub down: bool,
    /// Whether any event of this incarnation has counted: only then can it have
    /// connections that somebody must close.
    pub used: bool,
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All its events count.
    Whole,
    /// All but the first `0` events, which were there before, count.
    Tail(u16),
    /// All its events were there before.
    Duplicate,
    /// Events before it are missing; the gateway will offer them again.
    Gap,
    /// Its incarnation has ended.
    Ended,
}

/// The state that decides, a function of the log up to some entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    gateways: Vec<GatewayState>,
    /// Highest gateway id seen, to keep walks short.
    highest: u8,
    epochs: u64,
    last_time: u64,
    seeded: bool,
    life: u32,
    /// Connections that gateways hand to one another.
    pub moves: Moves,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            gateways: vec![GatewayState::default(); 256],
            highest: 0,
            epochs: 0,
            last_time: 0,
            seeded: false,
            life: 0,
            moves: Moves::default(),
        }
    }
}

impl Filter {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A state that a checkpoint kept.
    pub fn at(
        gateways: impl IntoIterator<Item = (u8, GatewayState)>,
        epochs: u64,
        last_time: u64,
        seeded: bool,
        life: u32,
    ) -> Self {
        let mut filter = Self {
            epochs,
            last_time,
            seeded,
            life,
            ..Self::default()
        };
        for (gateway, state) in gateways {
            filter.gateways[usize::from(gateway)] = state;
            filter.highest = filter.highest.max(gateway);
        }
        filter
    }

    /// What the log says of `gateway`.
    pub fn gateway(&self, gateway: u8) -> GatewayState {
        self.gateways[usize::from(gateway)]
    }

    /// All gateways that appear in the log.
    pub fn gateways(&self) -> impl Iterator<Item = (u8, GatewayState)> + '_ {
        (1..=self.highest)
            .map(|g| (g, self.gateway(g)))
            .filter(|(_, s)| s.incarnation != 0)
    }

    /// Epochs of this life of the program so far.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Time of the last epoch, nanoseconds since the Unix epoch; 0 before the first.
    pub fn last_time(&self) -> u64 {
        self.last_time
    }

    /// How often the program has begun anew.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// The program begins anew as `life`. Returns whether that is news: only the
    /// next one counts, however many leaders say so.
    pub fn restart(&mut self, life: u32) -> bool {
        let news = life == self.life + 1;
        if news {
            self.life = life;
            self.moves.end_all();
            self.epochs = 0;
            self.seeded = false;
        }
        news
    }

    /// Whether any epoch of this life carried a seed.
    pub fn seeded(&self) -> bool {
        self.seeded
    }

    /// What would become of a numbered batch that came next.
    pub fn judge(&self, head: &BatchHead) -> Verdict {
        let state = self.gateway(head.gateway);
        let (next, ended) = match head.incarnation.cmp(&state.incarnation) {
            std::cmp::Ordering::Less => (0, true),
            std::cmp::Ordering::Equal => (state.next_seq, state.down),
            std::cmp::Ordering::Greater => (1, false),
        };
        if ended {
            Verdict::Ended
        } else if head.first_seq == next {
            Verdict::Whole
        } else if head.first_seq > next {
            Verdict::Gap
        } else {
            match head.first_seq.saturating_add(head.events.into()) {
                end if end > next => Verdict::Tail((next - head.first_seq) as u16),
                _ => Verdict::Duplicate,
            }
        }
    }

    /// Takes a numbered batch into account. Returns the verdict and the lower
    /// incarnation that it ended, when that one may have open connections.
    pub fn take(&mut self, head: &BatchHead) -> (Verdict, Option<u32>) {
        let verdict = self.judge(head);
        let state = &mut self.gateways[usize::from(head.gateway)];
        let mut ended = None;
        if head.incarnation > state.incarnation {
            if state.used && !state.down {
                ended = Some(state.incarnation);
            }
            *state = GatewayState {
                incarnation: head.incarnation,
                next_seq: 1,
                ..GatewayState::default()
            };
            self.highest = self.highest.max(head.gateway);
        }
        if let Verdict::Whole | Verdict::Tail(_) = verdict {
            state.next_seq = head.first_seq + u64::from(head.events);
            state.used |= head.events > 0;
        }
        (verdict, ended)
    }

    /// Declares an incarnation of a gateway down. Returns whether that is news.
    pub fn declare_down(&mut self, gateway: u8, incarnation: u32) -> bool {
        let state = &mut self.gateways[usize::from(gateway)];
        let news = match incarnation.cmp(&state.incarnation) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => !state.down && incarnation != 0,
            std::cmp::Ordering::Greater => true,
        };
        if news {
            if incarnation > state.incarnation {
                *state = GatewayState {
                    incarnation,
                    next_seq: 1,
                    ..GatewayState::default()
                };
            }
            state.down = true;
            self.highest = self.highest.max(gateway);
        }
        news
    }

    /// Takes the head of an entry into account, as [`admit`](Self::admit) does.
    pub fn take_head(&mut self, head: &EpochHead) {
        self.epochs += 1;
        self.last_time = self.last_time.max(head.time);
        self.seeded |= head.seed.is_some();
    }

    /// Filters the next committed entry. Returns false when all of it counts as
    /// it is, which is the usual case and copies nothing; true when `out` holds
    /// the entry to use instead.
    ///
    /// # Errors
    /// When the bytes are not an entry of this version. The state is then
    /// undefined: the log must not be applied any further.
    pub fn admit(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, Malformed> {
        let entry = Entry::decode(bytes)?;
        self.take_head(&entry.head);
        let mut rewrite = Rewrite::default();
        for (nth, batch) in entry.batches().enumerate() {
            let batch = batch?;
            let clean = if batch.head.gateway == 0 {
                self.admit_control(&entry, nth, &batch, &mut rewrite, out)?
            } else {
                self.admit_numbered(&entry, nth, &batch, &mut rewrite, out)?
            };
            if clean && rewrite.active {
                rewrite.add(&batch.head, batch.bytes, out);
            }
        }
        if rewrite.active {
            rewrite.finish(out);
        }
        Ok(rewrite.active)
    }

    /// Returns whether the batch counts as it is; otherwise what counts of it
    /// was written to the rewrite.
    fn admit_numbered(
        &mut self,
        entry: &Entry<'_>,
        nth: usize,
        batch: &Batch<'_>,
        rewrite: &mut Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        let (verdict, ended) = self.take(&batch.head);
        let skip = match verdict {
            Verdict::Whole => Some(0),
            Verdict::Tail(skip) => Some(skip),
            Verdict::Duplicate | Verdict::Gap | Verdict::Ended => None,
        };
        if let Some(incarnation) = ended {
            rewrite.begin(entry, nth, out)?;
            self.end(batch.head.gateway, incarnation, rewrite, out);
        }
        let mut events = batch.events();
        for event in events.by_ref().take(skip.unwrap_or(0).into()) {
            event?;
        }
        let left = events.remaining_bytes();
        let lost = match skip {
            Some(_) => self.take_events(events.clone(), &batch.head)?,
            None => Vec::new(),
        };
        if ended.is_none() && verdict == Verdict::Whole && lost.is_empty() {
            return Ok(true);
        }
        rewrite.begin(entry, nth, out)?;
        if let Some(skip) = skip {
            let head = BatchHead {
                first_seq: batch.head.first_seq + u64::from(skip),
                events: batch.head.events - skip - lost.len() as u16,
                ..batch.head
            };
            if lost.is_empty() {
                rewrite.add(&head, left, out);
            } else if head.events > 0 {
                let mut bytes = Vec::with_capacity(batch.bytes.len());
                for (nth, event) in (0..).zip(events) {
                    if lost.binary_search(&nth).is_err() {
                        event?.encode(|b| bytes.extend_from_slice(b));
                    }
                }
                rewrite.add(&head, &bytes, out);
            }
        }
        Ok(false)
    }

    /// Takes events of movable connections into account. Returns which of these
    /// events do not count, in order.
    fn take_events(&mut self, events: Events<'_>, head: &BatchHead) -> Result<Vec<u16>, Malformed> {
        let holder = (head.gateway, head.incarnation);
        let mut lost = Vec::new();
        for (nth, event) in (0..).zip(events) {
            if !self.moves.take(&event?, holder, self.last_time) {
                lost.push(nth);
            }
        }
        Ok(lost)
    }

    /// The connections of an incarnation are over: the program is told.
    fn end(&mut self, gateway: u8, incarnation: u32, rewrite: &mut Rewrite, out: &mut Vec<u8>) {
        let down = Event::GatewayDown {
            gateway,
            incarnation,
        };
        rewrite.add_control(&down, out);
        rewrite.add_resets(&self.moves.end((gateway, incarnation)), out);
    }

    /// The movable connections of an incarnation go on at another gateway, if that
    /// one is there.
    fn hand_over(&mut self, from: Holder, heir: Holder, rewrite: &mut Rewrite, out: &mut Vec<u8>) {
        let (gateway, incarnation) = heir;
        let state = self.gateway(gateway);
        let over =
            incarnation < state.incarnation || (incarnation == state.incarnation && state.down);
        if over || gateway == 0 || from == heir {
            return;
        }
        let ended = self.moves.hand_over(from, heir, self.last_time);
        rewrite.add_resets(&ended, out);
        if incarnation > state.incarnation {
            if state.used && !state.down {
                self.end(gateway, state.incarnation, rewrite, out);
            }
            self.gateways[usize::from(gateway)] = GatewayState {
                incarnation,
                next_seq: 1,
                ..GatewayState::default()
            };
            self.highest = self.highest.max(gateway);
        }
        // It has connections, that is: they end with it.
        self.gateways[usize::from(gateway)].used = true;
    }

    fn admit_control(
        &mut self,
        entry: &Entry<'_>,
        nth: usize,
        batch: &Batch<'_>,
        rewrite: &mut Rewrite,
        out: &mut Vec<u8>,
    ) -> Result<bool, Malformed> {
        // What changes is rare: look first, rewrite only if needed.
        let mut counted = Vec::new();
        let mut changed = false;
        for event in batch.events() {
            let event = event?;
            let after = match event {
                Event::GatewayDown {
                    gateway,
                    incarnation,
                } if gateway != 0 && self.declare_down(gateway, incarnation) => {
                    After::Ended(self.moves.end((gateway, incarnation)))
                }
                Event::Restart { life } if self.restart(life) => After::Ended(Vec::new()),
                Event::GatewayDown { .. } | Event::Restart { .. } => After::Nothing,
                Event::Move { .. } => After::Nothing,
                _ => After::Ended(Vec::new()),
            };
            let plain = matches!(&after, After::Ended(conns) if conns.is_empty());
            if !plain && !changed {
                changed = true;
                rewrite.begin(entry, nth, out)?;
                for event in &counted {
                    rewrite.add_control(event, out);
                }
            }
            if let Event::Move {
                gateway,
                incarnation,
                heir,
                heir_incarnation,
            } = event
            {
                let heir = (heir, heir_incarnation);
                self.hand_over((gateway, incarnation), heir, rewrite, out);
            } else if !changed {
                counted.push(event);
            } else if let After::Ended(conns) = after {
                rewrite.add_control(&event, out);
                rewrite.add_resets(&conns, out);
            }
        }
        Ok(!changed)
    }
}

/// What comes of a control event.
enum After {
    /// It does not count, or is not for the program.
    Nothing,
    /// It counts, and these connections end with it.
    Ended(Vec<ConnId>),
}

/// An entry that is being written anew because some of it does not count.
#[derive(Default)]
struct Rewrite {
    active: bool,
    batches: u16,
}

impl Rewrite {
    /// Starts with the head and the first `clean` batches of `entry`.
    fn begin(
        &mut self,
        entry: &Entry<'_>,
        clean: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        if !self.active {
            self.active = true;
            out.clear();
            encode_head(&entry.head, 0, |b| out.extend_from_slice(b));
            for batch in entry.batches().take(clean) {
                let batch = batch?;
                self.add(&batch.head, batch.bytes, out);
            }
        }
        Ok(())
    }

    fn add(&mut self, head: &BatchHead, events: &[u8], out: &mut Vec<u8>) {
        encode_batch(head, events, |b| out.extend_from_slice(b));
        self.batches += 1;
    }

    fn add_control(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let mut events = Vec::with_capacity(event.encoded_len());
        event.encode(|b| events.extend_from_slice(b));
        self.add(&control_head(1), &events, out);
    }

    fn add_resets(&mut self, conns: &[ConnId], out: &mut Vec<u8>) {
        for some in conns.chunks(RESETS_AT_ONCE) {
            let mut events = Vec::new();
            for &conn in some {
                Event::Reset { conn }.encode(|b| events.extend_from_slice(b));
            }
            self.add(&control_head(some.len() as u16), &events, out);
        }
    }

    fn finish(&self, out: &mut [u8]) {
        crate::entry::set_batches(out, self.batches);
    }
}

/// The head of a batch of `events` control events.
pub fn control_head(events: u16) -> BatchHead {
    BatchHead {
        gateway: 0,
        incarnation: 0,
        first_seq: 0,
        events,
    }
}

#[cfg(test)]
mod tests;
