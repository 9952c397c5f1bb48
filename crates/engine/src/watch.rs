//! Noticing that the program makes no progress although it has work.
//!
//! Progress is the logical clock. While the program has something to do, the
//! clock is looked at now and then; an idle program is not looked at at all.
//! When it stands for some milliseconds, the holder of the turn is asked where
//! it is: if it provably spins, it passes the turn on (see the interposer's
//! `spin`). When it stands for seconds, the owner is told.

use crate::program::Program;
use crate::shared::lock;
use crane_channel::layout::{Header, LOOK_SIGNAL, State};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// Without progress for so long, the owner is told.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// The clock stands for so long before the holder of the turn is asked: the
/// first while it is known that threads spin, the last when asking has been in
/// vain again and again.
const PATIENCE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_millis(32);
/// And at the beginning.
const FIRST_PATIENCE: Duration = Duration::from_millis(4);

/// Whether the program has something to do: it runs, or was given epochs that
/// it has not taken.
fn has_work(header: &Header) -> bool {
    let given = header.log.head.load(Relaxed) != header.log.tail.load(Relaxed);
    match State::from_raw(header.state.load(Relaxed)) {
        State::Running => true,
        State::Quiescent | State::NeedsBudget => given,
        State::Absent | State::Exited | State::Refused => false,
    }
}

/// What a look found.
#[derive(Debug, PartialEq)]
pub enum Finding {
    /// The program has made no progress for long; the holder of the turn.
    Stuck(Value),
    /// It makes progress again.
    Moving,
}

/// What was seen at the last looks.
#[derive(Debug)]
pub struct Watch {
    /// The moment of the next look.
    next: Option<Instant>,
    /// Clock and epochs taken, which move with any progress.
    seen: (u64, u64),
    /// When they last moved.
    since: Instant,
    patience: Duration,
    /// The holder was asked at the last look.
    asked: bool,
    /// Spinning threads found so far.
    spins: u64,
    told: Option<Instant>,
}

impl Watch {
    /// Nothing was seen.
    pub fn new(now: Instant) -> Self {
        Self {
            next: None,
            seen: (0, 0),
            since: now,
            patience: FIRST_PATIENCE,
            asked: false,
            spins: 0,
            told: None,
        }
    }

    /// Since when the program makes no progress, if the owner was told.
    pub fn stuck_since(&self) -> Option<Instant> {
        self.told.map(|_| self.since)
    }

    /// When to look; `None` while the program has nothing to do.
    pub fn next(&mut self, header: &Header, now: Instant) -> Option<Instant> {
        if self.told.is_some() || has_work(header) {
            Some(*self.next.get_or_insert(now + self.patience))
        } else {
            self.next = None;
            self.since = now;
            None
        }
    }

    /// Looks, if it is time.
    pub fn look(
        &mut self,
        header: &Header,
        program: &Mutex<Program>,
        now: Instant,
    ) -> Option<Finding> {
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        self.learn(header);
        let seen = (header.ticks.load(Relaxed), header.log.tail.load(Relaxed));
        if seen != self.seen || !has_work(header) {
            self.seen = seen;
            self.since = now;
            self.next = Some(now + self.patience);
            return self.told.take().map(|_| Finding::Moving);
        }
        let stuck = now.saturating_duration_since(self.since);
        self.asked = true;
        ask(header, &mut lock(program));
        // Twice as long each time: a long computation is not to be disturbed.
        self.next = Some(now + stuck.clamp(self.patience, STUCK_AFTER / 4));
        // Told again now and then: the holder may have been killed since.
        let due = self.told.is_none_or(|at| now >= at + STUCK_AFTER);
        (stuck >= STUCK_AFTER && due).then(|| {
            self.told = Some(now);
            let mut holder = holder(header);
            holder["seconds"] = stuck.as_secs_f64().into();
            Finding::Stuck(holder)
        })
    }

    /// Asks sooner the next time if the last question found a thread that spins,
    /// and later otherwise.
    fn learn(&mut self, header: &Header) {
        let spins = header.spins.load(Relaxed);
        let asked = std::mem::take(&mut self.asked);
        if spins != self.spins {
            self.spins = spins;
            self.patience = *PATIENCE.start();
        } else if asked {
            self.patience = (2 * self.patience).min(*PATIENCE.end());
        }
    }
}

/// Asks the holder of the turn where it is, if it executes code of its own: a
/// call that it made to the kernel is not to be interrupted.
fn ask(header: &Header, program: &mut Program) {
    if let Some(thread) = program.find(header.holder_tid.load(Relaxed))
        && thread.is_in_user_code()
    {
        thread.signal(LOOK_SIGNAL);
    }
}

/// The holder of the turn as a JSON object; with its registers if it was asked
/// at this clock.
pub fn holder(header: &Header) -> Value {
    let slot = header.holder.load(Relaxed);
    let clock = header.ticks.load(Relaxed);
    let glance = &header.glance;
    let fresh =
        glance.clock.load(Acquire) == clock.wrapping_add(1) && glance.slot.load(Relaxed) == slot;
    let registers = fresh.then(|| {
        json!({
            "instruction": glance.instruction.load(Relaxed),
            "stack": glance.stack.load(Relaxed),
            "frame": glance.frame.load(Relaxed),
        })
    });
    json!({
        "slot": slot,
        "tid": header.holder_tid.load(Relaxed),
        "pid": header.holder_pid.load(Relaxed),
        "clock": clock,
        "registers": registers,
    })
}
