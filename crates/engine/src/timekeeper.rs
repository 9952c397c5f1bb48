//! What time it is for the program: virtual time as the leader proposes it.
//!
//! It follows the wall clock, with three exceptions. It never goes back. Where
//! it is ahead of the wall clock, because that was set back or the leader
//! before had a clock that was ahead, it goes on nearly as fast as real time
//! until the wall clock has come up: standing still would stop all timers of the
//! program. And a leader whose own clock is far from those of most replicas goes
//! by theirs.

use std::collections::BTreeMap;
use std::time::Instant;

/// A leader's clock may be so far from the others' before it is not believed.
const BELIEVED: u64 = 1_000_000_000;
/// Virtual time that is ahead loses one part in so many.
const SLOWER: u64 = 16;

/// The leader's idea of the time. All times in nanoseconds.
#[derive(Default)]
pub struct Timekeeper {
    /// Virtual time, and when it was that.
    last: Option<(u64, Instant)>,
    /// What the other replicas' wall clocks were, and when.
    others: BTreeMap<u8, (u64, Instant)>,
}

impl Timekeeper {
    /// This replica does not lead.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// Another replica's wall clock shows `wall` now.
    pub fn heard(&mut self, replica: u8, wall: u64, instant: Instant) {
        self.others.insert(replica, (wall, instant));
    }

    /// Virtual time now, not below `least`. `wall` is this machine's wall clock,
    /// `instant` the clock that nobody sets.
    pub fn now(&mut self, wall: u64, instant: Instant, least: u64) -> u64 {
        let flowed = self.last.map_or(0, |(time, at)| {
            let elapsed = since(at, instant);
            time.saturating_add(elapsed - elapsed / SLOWER)
        });
        let now = self.believed(wall, instant).max(flowed).max(least);
        self.last = Some((now, instant));
        now
    }

    /// How far this machine's wall clock is from what is believed (positive: ahead).
    pub fn error(&self, wall: u64, instant: Instant) -> i64 {
        wall.wrapping_sub(self.believed(wall, instant)) as i64
    }

    /// The wall clock, unless most replicas have quite another: of those known
    /// the middle one, and of two the earlier, because time cannot be taken back.
    fn believed(&self, wall: u64, instant: Instant) -> u64 {
        let others = self.others.values();
        let mut clocks: Vec<u64> = others
            .map(|&(theirs, at)| theirs.saturating_add(since(at, instant)))
            .collect();
        clocks.push(wall);
        clocks.sort_unstable();
        let middle = clocks[(clocks.len() - 1) / 2];
        if middle.abs_diff(wall) <= BELIEVED {
            wall
        } else {
            middle
        }
    }
}

fn since(begin: Instant, end: Instant) -> u64 {
    let passed = end.saturating_duration_since(begin).as_nanos();
    passed.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * SECOND;
    /// Moments in a test, from one beginning.
    struct Moments(Instant);

    impl Moments {
        fn at(&self, nanos: u64) -> Instant {
            self.0 + std::time::Duration::from_nanos(nanos)
        }
    }

    const T: u64 = 1_700_000_000 * SECOND;

    #[test]
    fn it_is_the_wall_clock_while_that_goes_on() {
        let m = Moments(Instant::now());
        let mut keeper = Timekeeper::default();
        assert_eq!(keeper.now(T, m.at(5), 0), T);
        assert_eq!(keeper.now(T + 10, m.at(15), 0), T + 10);
        // Set ahead, as after a leap of the machine alone.
        assert_eq!(keeper.now(T + HOUR, m.at(20), 0), T + HOUR);
    }

    #[test]
    fn it_goes_on_where_the_leader_before_was_ahead() {
        let m = Moments(Instant::now());
        let mut keeper = Timekeeper::default();
        let last = T + HOUR;
        let begin = keeper.now(T, m.at(0), last);
        assert_eq!(begin, last);
        let later = keeper.now(T + 16 * SECOND, m.at(16 * SECOND), last);
        assert_eq!(later, last + 15 * SECOND);
        // In the end the wall clock has come up.
        let mut monotonic = 16 * SECOND;
        let mut before = later;
        for _ in 0..20 {
            monotonic += HOUR;
            let now = keeper.now(T + monotonic, m.at(monotonic), before);
            assert!(now > before);
            before = now;
        }
        assert_eq!(before, T + monotonic);
    }

    #[test]
    fn it_never_goes_back_and_never_stands_still() {
        let m = Moments(Instant::now());
        let mut keeper = Timekeeper::default();
        let first = keeper.now(T, m.at(0), 0);
        let second = keeper.now(T - HOUR, m.at(SECOND), first + 1);
        assert!(second > first + SECOND / 2);
        assert!(second < first + SECOND);
        assert_eq!(keeper.now(T, m.at(SECOND), second + 7), second + 7);
    }

    #[test]
    fn a_leader_goes_by_the_majority() {
        let m = Moments(Instant::now());
        for jump in [HOUR as i64, -(HOUR as i64)] {
            let mut keeper = Timekeeper::default();
            keeper.heard(2, T, m.at(0));
            keeper.heard(3, T + 1000, m.at(0));
            assert_eq!(keeper.now(T + 5, m.at(5), 0), T + 5);
            let wrong = T.wrapping_add_signed(jump) + SECOND;
            let now = keeper.now(wrong, m.at(SECOND), 0);
            assert!(now.abs_diff(T + SECOND) < SECOND / 8, "{now}");
            assert!(keeper.error(wrong, m.at(SECOND)).abs_diff(jump) < 2000);
        }
    }

    #[test]
    fn of_two_the_earlier_is_believed() {
        let m = Moments(Instant::now());
        let mut keeper = Timekeeper::default();
        keeper.heard(2, T, m.at(0));
        assert_eq!(keeper.now(T + HOUR, m.at(0), 0), T);
        let mut keeper = Timekeeper::default();
        keeper.heard(2, T + HOUR, m.at(0));
        assert_eq!(keeper.now(T, m.at(0), 0), T);
    }

    #[test]
    fn a_small_difference_is_the_leaders() {
        let m = Moments(Instant::now());
        let mut keeper = Timekeeper::default();
        keeper.heard(2, T - SECOND / 2, m.at(0));
        keeper.heard(3, T - SECOND / 2, m.at(0));
        assert_eq!(keeper.now(T, m.at(0), 0), T);
        assert_eq!(keeper.error(T, m.at(0)), 0);
    }
}
