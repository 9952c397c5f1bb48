//! Noticing that the program makes no progress although it has work.
//!
//! Progress is the logical clock. While the program has something to do, the
//! clock is looked at now and then; an idle program is not looked at at all.

use crate::program::Program;
use crate::shared::{Shared, lock};
use crane_channel::layout::{Header, LOOK_SIGNAL, State};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// Without progress for so long, the owner is told.
const STUCK_AFTER: Duration = Duration::from_secs(2);
/// Time between two looks at a program that has work.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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

/// What was seen at the last looks.
#[derive(Debug)]
pub struct Watch {
    /// The moment of the next look.
    next: Option<Instant>,
    /// Clock and epochs taken, which move with any progress.
    seen: (u64, u64),
    since: Instant,
    asked: bool,
    told: Option<Instant>,
}

impl Watch {
    /// Nothing was seen.
    pub fn new(now: Instant) -> Self {
        Self {
            next: None,
            seen: (0, 0),
            since: now,
            asked: false,
            told: None,
        }
    }

    /// When to look; `None` while the program has nothing to do.
    pub fn next(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        if self.told.is_some() || has_work(shared.segment.header()) {
            Some(*self.next.get_or_insert(now + LOOK_EVERY))
        } else {
            self.next = None;
            self.since = now;
            None
        }
    }

    /// Looks, if it is time.
    pub fn look(&mut self, shared: &Shared, now: Instant) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + LOOK_EVERY);
        let header = shared.segment.header();
        let seen = (header.ticks.load(Relaxed), header.log.tail.load(Relaxed));
        if seen != self.seen || !has_work(header) {
            self.seen = seen;
            self.since = now;
            self.asked = false;
            if self.told.take().is_some() {
                *lock(&shared.stuck_since) = None;
                shared.notices.add("moving", json!({ "clock": seen.0 }));
            }
            return;
        }
        let stuck = now.saturating_duration_since(self.since);
        if !self.asked && stuck + LOOK_EVERY >= STUCK_AFTER {
            self.asked = true;
            ask(header, &mut lock(&shared.program));
        } else if stuck >= STUCK_AFTER && self.told.is_none_or(|at| now >= at + STUCK_AFTER) {
            // Told again now and then: the holder may have been killed since.
            self.told = Some(now);
            *lock(&shared.stuck_since) = Some(self.since);
            let mut holder = holder(header);
            holder["seconds"] = stuck.as_secs_f64().into();
            shared.notices.add("stuck", holder);
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
    let fresh = glance.clock.load(Acquire) == clock + 1 && glance.slot.load(Relaxed) == slot;
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
