//! How many logical clocks an epoch may run.
//!
//! An input that comes while the program is busy waits for the end of the
//! present epoch, so an epoch should take a few milliseconds: enough that
//! agreeing on the next one costs little, and no more. How long a clock takes
//! depends on what the program does between its operations, so the leader
//! measures its own program. A program that was slow a moment ago may be so
//! again, therefore the slowest of the recent measurements counts.

use std::time::{Duration, Instant};

/// How long an epoch should take.
const EPOCH: Duration = Duration::from_millis(10);
/// Budget while nothing is known: a program's epochs mostly end before it is
/// used up, and one whose operations take a millisecond each is not held up for
/// too long.
const FIRST: u32 = 1000;
/// Smallest budget.
const LEAST: u32 = 16;
/// Below this, epochs are not proposed before the program is ready for them.
const VERY_SLOW: u32 = 100;
/// Measurements that count.
const RECENT: usize = 8;
/// Shortest time between two measurements of an epoch that goes on.
const MEASURE_EVERY: Duration = Duration::from_millis(2);

/// How far the program is.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// The last epoch that the program was given.
    pub given: u64,
    /// The last epoch that it has done.
    pub done: u64,
    /// Its logical clock.
    pub clock: u64,
    /// It has used its budget up and waits for more.
    pub used_up: bool,
}

/// The leader's measurements. Its replica's program runs what it proposes.
#[derive(Debug)]
pub struct Budget {
    /// Largest budget, as configured.
    most: u32,
    /// What would have been right lately.
    recent: [u32; RECENT],
    next: usize,
    /// Where the present measurement began, while the program is at work.
    began: Option<(Instant, Stand)>,
}

impl Budget {
    /// Nothing is known; no budget is larger than `most`.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            recent: [FIRST; RECENT],
            next: 0,
            began: None,
        }
    }

    /// Takes note of how far the program is `now`.
    pub fn note(&mut self, now: Instant, stand: Stand) {
        let Some((at, then)) = self.began else {
            if stand.done < stand.given {
                self.began = Some((now, stand));
            }
            return;
        };
        let took = now.saturating_duration_since(at);
        let whole = stand.done >= then.given;
        if whole && !stand.used_up {
            // It has rested since, who knows how long: it was fast enough.
            self.learn(FIRST);
        } else if whole || took >= MEASURE_EVERY {
            let clocks = u128::from(stand.clock.saturating_sub(then.clock));
            let right = clocks * EPOCH.as_nanos() / took.as_nanos().max(1);
            self.learn(u32::try_from(right).unwrap_or(u32::MAX));
        } else {
            return;
        }
        self.began = (stand.done < stand.given).then_some((now, stand));
    }

    fn learn(&mut self, right: u32) {
        self.recent[self.next] = right;
        self.next = (self.next + 1) % RECENT;
    }

    fn slowest(&self) -> u32 {
        self.recent.iter().copied().min().unwrap_or(FIRST)
    }

    /// Whether the program's operations take very long just now. Epochs should
    /// then not be proposed before it is ready for them: they would queue up.
    pub fn is_slow(&self) -> bool {
        self.slowest() < VERY_SLOW
    }

    /// The budget for the next epoch.
    pub fn next(&self) -> u32 {
        let last = self.recent[(self.next + RECENT - 1) % RECENT];
        // While all goes well, as much as was right the last time.
        let slowest = self.slowest();
        let right = if slowest < FIRST { slowest * 2 } else { last };
        right.max(LEAST).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Program {
        now: Instant,
        clock: u64,
        epoch: u64,
    }

    impl Program {
        /// Runs epochs up, each clock of which takes `ns` nanoseconds; returns
        /// the next budget.
        fn run(&mut self, budget: &mut Budget, epochs: u64, ns: u64, used_up: bool) -> u32 {
            for _ in 0..epochs {
                let stand = Stand {
                    given: self.epoch + 1,
                    done: self.epoch,
                    clock: self.clock,
                    used_up: false,
                };
                budget.note(self.now, stand);
                self.epoch += 1;
                self.clock += u64::from(budget.next());
                self.now += Duration::from_nanos(ns * u64::from(budget.next()));
                let done = Stand {
                    done: self.epoch,
                    clock: self.clock,
                    used_up,
                    ..stand
                };
                budget.note(self.now, done);
            }
            budget.next()
        }
    }

    fn program() -> Program {
        Program {
            now: Instant::now(),
            clock: 0,
            epoch: 0,
        }
    }

    #[test]
    fn epochs_come_to_take_some_milliseconds() {
        let (mut budget, mut program) = (Budget::new(100_000), program());
        assert_eq!(budget.next(), FIRST);
        // 200 ns an operation: 10 ms are 50 000.
        assert_eq!(program.run(&mut budget, 1, 200, true), 50_000);
        // 10 ns: the configured limit.
        assert_eq!(program.run(&mut budget, 1, 10, true), 100_000);
        // 1 ms: at once, and for a while afterwards.
        assert_eq!(program.run(&mut budget, 1, 1_000_000, true), 20);
        assert!(budget.is_slow());
        assert_eq!(program.run(&mut budget, 6, 200, true), 20);
        assert_eq!(program.run(&mut budget, 20, 200, true), 50_000);
    }

    #[test]
    fn an_epoch_that_goes_on_is_measured_meanwhile() {
        let mut budget = Budget::new(100_000);
        let begin = Instant::now();
        for ms in 0..20 {
            let stand = Stand {
                given: 1,
                done: 0,
                clock: ms,
                used_up: false,
            };
            budget.note(begin + Duration::from_millis(ms), stand);
        }
        assert!(budget.is_slow());
        assert_eq!(budget.next(), 20);
    }

    #[test]
    fn epochs_that_end_early_leave_the_budget_as_it_was() {
        let (mut budget, mut program) = (Budget::new(100_000), program());
        assert_eq!(program.run(&mut budget, 100, 1_000_000, false), FIRST);
        assert_eq!(Budget::new(7).next(), 7);
    }
}
