//! Calls of the program that left the schedule and have returned.
//!
//! Where such a thread goes on is agreed: a gateway puts it into the log as an
//! event of its own stream. The leader's does so at once, another's when the
//! log has not said it for a while. Several may; the first counts.

use crane_channel::epoch::Event;
use crane_channel::segment::Segment;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// How long a replica that does not lead leaves it to the leader.
const PATIENCE: Duration = Duration::from_millis(200);

/// A call that has returned and with which the thread has not gone on.
#[derive(Debug)]
struct Return {
    slot: usize,
    operation: u32,
    result: i32,
    since: Instant,
    told: bool,
}

/// What is known of such calls.
#[derive(Debug, Default)]
pub struct Returns {
    /// Returned so far when the threads were last looked at.
    seen: u32,
    waiting: Vec<Return>,
}

impl Returns {
    /// When there is something to do although nothing arrives.
    pub fn next(&self) -> Option<Instant> {
        let untold = self.waiting.iter().filter(|one| !one.told);
        untold.map(|one| one.since + PATIENCE).min()
    }

    /// The events to put into the log now.
    pub fn look(&mut self, segment: &Segment, now: Instant, leads: bool) -> Vec<Event<'static>> {
        let cards = segment.cards();
        self.waiting
            .retain(|one| cards[one.slot].outside.load(Relaxed) == one.operation);
        let returned = segment.header().returned.load(Acquire);
        if returned != self.seen {
            self.seen = returned;
            for (slot, card) in cards.iter().enumerate() {
                let operation = card.outside.load(Relaxed);
                let known = |one: &Return| one.operation == operation;
                if operation != 0
                    && card.returned.load(Acquire) == operation
                    && !self.waiting.iter().any(known)
                {
                    self.waiting.push(Return {
                        slot,
                        operation,
                        result: card.result.load(Relaxed) as i32,
                        since: now,
                        told: false,
                    });
                }
            }
        }
        let due = |one: &&mut Return| !one.told && (leads || now >= one.since + PATIENCE);
        let told = self.waiting.iter_mut().filter(due).map(|one| {
            one.told = true;
            Event::Complete {
                operation: one.operation,
                result: one.result,
            }
        });
        told.collect()
    }
}
