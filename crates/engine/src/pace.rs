//! How long the data-plane thread may sleep.
//!
//! Consensus counts time in ticks of 25 ms, but nothing happens at most of them.
//! In a calm cluster a leader sleeps until its next heartbeat and a follower
//! while its leader is surely not late; the ticks that passed are counted when
//! the thread wakes. Whenever something is under way every tick is kept.

use std::time::{Duration, Instant};

/// The unit in which consensus counts time.
pub const TICK: Duration = Duration::from_millis(25);
/// Ticks between the heartbeats of a leader.
pub const HEARTBEAT_TICKS: u32 = 4;
/// Ticks without a leader before a replica may stand for election: the earliest
/// of its random time-outs, the latest are twice as long.
pub const ELECTION_TICKS: u32 = 12;
/// Ticks without a word of the leader through which a follower may sleep: more
/// than two heartbeats, before the earliest election.
const PATIENT_TICKS: u32 = 2 * HEARTBEAT_TICKS + 2;
/// Ticks made up for after a stall, at most: a replica that was stopped for a
/// moment must not stand for election before it has heard its leader.
const STALL_TICKS: u32 = 2;

/// How much may be slept through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calm {
    /// Nothing: every tick counts.
    No,
    /// A leader with nothing to do but heartbeats.
    Leading,
    /// A follower with nothing to do.
    Following,
}

/// The ticks of one replica.
pub struct Pace {
    /// Ticks are counted up to here.
    counted: Instant,
    /// Ticks that the present sleep was meant to take.
    planned: u32,
    /// Ticks since this replica became the leader.
    led: u64,
    /// The tick of its term up to which heartbeats say nothing new, because all
    /// were sent something.
    spoken: u64,
    /// Ticks since the leader was heard; an upper bound of what consensus
    /// counts towards an election.
    unheard: u32,
}

impl Pace {
    /// Counts from `now` on.
    pub fn new(now: Instant) -> Self {
        Self {
            counted: now,
            planned: 1,
            led: 0,
            spoken: 0,
            unheard: PATIENT_TICKS,
        }
    }

    /// Until when to sleep.
    pub fn sleep(&mut self, calm: Calm) -> Instant {
        self.planned = match calm {
            Calm::No => 1,
            Calm::Leading => {
                let next = self.led.max(self.spoken) + 1;
                (next.next_multiple_of(HEARTBEAT_TICKS.into()) - self.led) as u32
            }
            Calm::Following => PATIENT_TICKS.saturating_sub(self.unheard).max(1),
        };
        self.counted + TICK * self.planned
    }

    /// Ticks to count before what arrived is looked at: those slept through on
    /// purpose, which cannot cause an election.
    pub fn slept(&mut self, now: Instant) -> u32 {
        let ticks = self.elapsed(now).min(self.planned - 1);
        self.planned -= ticks;
        self.count(ticks)
    }

    /// Ticks to count after what arrived was looked at.
    pub fn due(&mut self, now: Instant) -> u32 {
        let elapsed = self.elapsed(now);
        if elapsed > STALL_TICKS {
            self.counted = now - TICK * STALL_TICKS;
        }
        self.count(elapsed.min(STALL_TICKS))
    }

    fn elapsed(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.counted).as_nanos() / TICK.as_nanos();
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    fn count(&mut self, ticks: u32) -> u32 {
        self.counted += TICK * ticks;
        self.led += u64::from(ticks);
        self.unheard = self.unheard.saturating_add(ticks);
        ticks
    }

    /// The leader was heard.
    pub fn heard_leader(&mut self) {
        self.unheard = 0;
    }

    /// This replica, the leader, sent entries to all others: its next heartbeat
    /// says nothing new.
    pub fn spoke(&mut self) {
        self.spoken = self.led + u64::from(HEARTBEAT_TICKS);
    }

    /// The role, the term or the leader changed.
    pub fn role_changed(&mut self) {
        self.led = 0;
        self.spoken = 0;
        self.unheard = PATIENT_TICKS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_follower_sleeps_from_heartbeat_to_heartbeat() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.sleep(Calm::Following), start + TICK);
        pace.heard_leader();
        assert_eq!(pace.sleep(Calm::Following), start + TICK * PATIENT_TICKS);
        // A heartbeat wakes it: the time before is counted before it is heard.
        let now = start + TICK * 4 + TICK / 2;
        assert_eq!(pace.slept(now), 4);
        pace.heard_leader();
        assert_eq!(pace.due(now), 0);
        assert_eq!(
            pace.sleep(Calm::Following),
            start + TICK * (4 + PATIENT_TICKS)
        );
    }

    #[test]
    fn without_its_leader_a_follower_counts_every_tick() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.heard_leader();
        let now = pace.sleep(Calm::Following);
        assert_eq!((pace.slept(now), pace.due(now)), (PATIENT_TICKS - 1, 1));
        assert_eq!(pace.sleep(Calm::Following), now + TICK);
    }

    #[test]
    fn a_leader_wakes_for_each_heartbeat() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.role_changed();
        let mut now = start;
        for _ in 0..3 {
            let wake = pace.sleep(Calm::Leading);
            assert_eq!(wake, now + TICK * HEARTBEAT_TICKS);
            // Something else wakes it in between.
            let between = now + TICK * 2;
            assert_eq!((pace.slept(between), pace.due(between)), (2, 0));
            assert_eq!(pace.sleep(Calm::Leading), wake);
            assert_eq!(pace.slept(wake) + pace.due(wake), 2);
            now = wake;
        }
    }

    #[test]
    fn a_leader_that_sends_entries_does_not_wake_for_heartbeats() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.role_changed();
        let mut now = start;
        for _ in 0..20 {
            pace.spoke();
            let wake = pace.sleep(Calm::Leading);
            assert!(
                wake >= now + TICK * HEARTBEAT_TICKS,
                "before the next entry"
            );
            assert!(wake <= now + TICK * 2 * HEARTBEAT_TICKS, "too late");
            now += TICK * HEARTBEAT_TICKS;
            assert_eq!(pace.slept(now) + pace.due(now), HEARTBEAT_TICKS);
        }
        // The last was long ago.
        let wake = pace.sleep(Calm::Leading);
        assert_eq!(wake, now + TICK * HEARTBEAT_TICKS);
    }

    #[test]
    fn a_stall_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.heard_leader();
        pace.sleep(Calm::Following);
        let late = start + Duration::from_secs(60);
        let before = pace.slept(late);
        assert!(before < PATIENT_TICKS);
        assert!(before + pace.due(late) < ELECTION_TICKS);
        assert_eq!(pace.due(late), 0);
    }
}
