//! The rules, one test each, and random schedules against the invariants.

mod model;
mod schedules;
mod small;

use crate::{Attention, MAX_THREADS, Next, STEP_NS, Scheduler, Slot, State, Wake};
use std::boxed::Box;
use std::collections::VecDeque;
use std::vec::Vec;

fn scheduler(quantum: u32) -> Box<Scheduler> {
    // SAFETY: the structure is documented to be valid when all zero.
    let mut s: Box<Scheduler> = unsafe { Box::new_zeroed().assume_init() };
    s.init(quantum);
    s
}

fn started(threads: u32) -> Box<Scheduler> {
    let mut s = scheduler(10);
    for _ in 0..threads {
        s.spawn(1).unwrap();
    }
    s.begin_epoch(1_000, 1_000_000);
    assert_eq!(s.pick(), Next::Run(1));
    s
}

#[test]
fn the_turn_rotates_after_a_quantum_in_fifo_order() {
    let mut s = started(3);
    let mut order = Vec::new();
    for _ in 0..60 {
        order.push(s.current());
        if s.tick(1) && s.attend() == Attention::Rotate {
            s.rotate();
        }
    }
    let expect: Vec<Slot> = [1, 2, 3, 1, 2, 3].iter().flat_map(|&t| [t; 10]).collect();
    assert_eq!(order, expect);
}

#[test]
fn a_lone_thread_keeps_the_turn() {
    let mut s = started(1);
    for _ in 0..1000 {
        if s.tick(1) {
            assert_eq!(s.attend(), Attention::Continue);
        }
    }
    assert_eq!(s.handovers(), 1);
}

#[test]
fn waiters_are_woken_in_the_order_in_which_they_came() {
    let mut s = started(4);
    for _ in 0..3 {
        s.block(77, None);
        s.pick();
    }
    assert_eq!(s.current(), 4);
    assert_eq!(s.wake_one(77), Some(1));
    assert_eq!(s.wake_all(77), 2);
    assert_eq!(s.wake_one(77), None);
    s.block(5, None);
    assert_eq!(
        (s.pick(), s.rotate(), s.rotate()),
        (Next::Run(1), Next::Run(2), Next::Run(3))
    );
}

#[test]
fn when_all_block_the_execution_is_quiescent() {
    let mut s = started(2);
    s.block(1, None);
    assert_eq!(s.pick(), Next::Run(2));
    s.block(2, None);
    assert_eq!(s.pick(), Next::Quiescent);
    assert_eq!(s.next_deadline(), None);
    s.wake_one(2);
    assert_eq!(s.pick(), Next::Run(2));
}

#[test]
fn deadlines_fire_in_virtual_time_and_in_order() {
    let mut s = started(3);
    s.block(9, Some(5_000_000));
    s.pick();
    s.block(0, Some(4_000_000));
    s.pick();
    s.block(9, Some(4_000_000));
    assert_eq!(s.pick(), Next::Quiescent);
    assert_eq!(s.next_deadline(), Some(4_000_000));
    s.begin_epoch(3_999_999, 100);
    assert_eq!(s.pick(), Next::Quiescent);
    s.begin_epoch(9_000_000, 100);
    for slot in [2, 3, 1] {
        assert_eq!(s.pick(), Next::Run(slot));
        assert_eq!(s.wake_reason(slot), Wake::TimedOut);
        s.block(1, None);
    }
    assert_eq!(s.wake_one(9), None, "a timed-out waiter has left its queue");
}

#[test]
fn operations_move_time_so_that_deadlines_pass_under_load() {
    let mut s = started(2);
    let deadline = s.now() + 50 * STEP_NS;
    s.block(3, Some(deadline));
    assert_eq!(s.pick(), Next::Run(2));
    let mut ticks = 0;
    loop {
        ticks += 1;
        if s.tick(1) {
            match s.attend() {
                Attention::Rotate => break,
                a => assert_eq!(a, Attention::Continue),
            }
        }
    }
    assert_eq!(ticks, 50);
    assert_eq!(s.rotate(), Next::Run(1));
}

#[test]
fn the_budget_is_exact_whatever_the_quantum() {
    for quantum in [1, 7, 100, 1000] {
        let mut s = scheduler(quantum);
        s.spawn(1);
        s.spawn(1);
        s.begin_epoch(1, 500);
        s.pick();
        let mut ticks = 0;
        loop {
            ticks += 1;
            if s.tick(1) {
                match s.attend() {
                    Attention::Boundary => break,
                    Attention::Rotate => _ = s.rotate(),
                    Attention::Continue => {}
                }
            }
        }
        assert_eq!((ticks, s.clock()), (500, 500), "quantum {quantum}");
        s.begin_epoch(1, 5);
        assert!((0..4).all(|_| !s.tick(1) || s.attend() != Attention::Boundary));
    }
}

#[test]
fn virtual_time_never_goes_back() {
    let mut s = started(1);
    let before = s.now();
    s.begin_epoch(1, 10);
    assert_eq!(s.now(), before);
}

#[test]
fn requeue_moves_waiters_without_waking_them() {
    let mut s = started(4);
    for _ in 0..3 {
        s.block(10, None);
        s.pick();
    }
    assert_eq!(s.requeue(10, 20, 2), 2);
    assert_eq!(s.wake_all(10), 1);
    assert_eq!(s.wake_one(20), Some(1));
    assert_eq!(s.wake_one(20), Some(2));
}

#[test]
fn slots_are_reused_and_run_out_with_an_answer() {
    let mut s = scheduler(1);
    for want in 1..MAX_THREADS as u32 {
        assert_eq!(s.spawn(1), Some(want));
    }
    assert_eq!(s.spawn(1), None);
    s.remove(17);
    assert_eq!(s.spawn(2), Some(17));
    assert_eq!(s.process_of(17), 2);
}

/// A small deterministic generator, so that a failing case is its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

/// What must hold between any two operations.
fn check(s: &Scheduler, seed: u64) {
    let mut counts = [0u32; 4];
    for slot in 1..s.slots_end() {
        let t = &s.threads[slot as usize];
        counts[t.state as usize] += 1;
        if t.heap != 0 {
            assert_eq!(s.heap[t.heap as usize - 1], slot, "seed {seed}");
            assert_eq!(
                t.state,
                State::Blocked as u32,
                "seed {seed}: only the blocked have deadlines"
            );
        }
    }
    assert!(
        counts[State::Running as usize] <= 1,
        "seed {seed}: one turn"
    );
    let (mut queued, mut slot) = (0, s.run.head);
    while slot != 0 {
        assert_eq!(
            s.threads[slot as usize].state,
            State::Ready as u32,
            "seed {seed}"
        );
        queued += 1;
        slot = s.threads[slot as usize].next;
    }
    assert_eq!(
        queued,
        counts[State::Ready as usize],
        "seed {seed}: the ready are queued once"
    );
    for i in 1..s.heap_len as usize {
        let (a, b) = (s.heap[(i - 1) / 2] as usize, s.heap[i] as usize);
        assert!(
            s.threads[a].deadline <= s.threads[b].deadline,
            "seed {seed}: heap order"
        );
    }
}

/// Runs a random program; returns its schedule.
fn random_run(seed: u64, steps: u32) -> (u64, Vec<Slot>) {
    let mut r = Random(seed);
    let mut s = scheduler(1 + r.below(20) as u32);
    s.spawn(0);
    s.begin_epoch(1, 50);
    s.pick();
    let mut order = Vec::new();
    // Model of one key's FIFO, to compare wake order with.
    let mut fifo: VecDeque<Slot> = VecDeque::new();
    for _ in 0..steps {
        order.push(s.current());
        let mut next = None;
        if s.tick(r.below(5) as u32) {
            match s.attend() {
                Attention::Boundary => {
                    s.begin_epoch(s.now() + r.below(10_000), 1 + r.below(60) as u32)
                }
                Attention::Rotate => next = Some(s.rotate()),
                Attention::Continue => {}
            }
        }
        if next.is_none() {
            match r.below(8) {
                0 if s.alive() < 30 => _ = s.spawn(r.below(3) as u32),
                1 => {
                    let timed = r.below(3) == 0;
                    let key = if timed { 2 } else { 1 };
                    if key == 1 {
                        fifo.push_back(s.current());
                    }
                    s.block(key, timed.then(|| s.now() + r.below(50_000)));
                    next = Some(s.pick());
                }
                2 => {
                    let woken = s.wake_one(1);
                    assert_eq!(woken, fifo.pop_front(), "seed {seed}: FIFO wake order");
                }
                3 => _ = s.wake_all(2),
                4 if s.alive() > 1 => {
                    let me = s.current();
                    s.remove(me);
                    next = Some(s.pick());
                }
                5 => next = Some(s.rotate()),
                6 if r.below(2) == 0 => next = Some(s.spin(1 + r.below(2))),
                _ => {}
            }
        }
        let mut rounds = 0;
        while next == Some(Next::Quiescent) {
            match s.next_deadline() {
                Some(d) => s.begin_epoch(d, 40),
                None => {
                    assert_eq!(s.wake_one(1), fifo.pop_front());
                    if s.alive() == 0 || rounds > 3 {
                        s.spawn(0);
                    }
                }
            }
            rounds += 1;
            next = Some(s.pick());
        }
        check(&s, seed);
    }
    (s.hash(), order)
}

#[test]
fn one_that_spins_is_passed_over_until_something_may_have_changed() {
    let mut s = started(2);
    _ = s.tick(7);
    assert_eq!(s.spin(9), Next::Run(2));
    // The other one waits: it may have changed what the first one waits for.
    s.block(5, None);
    assert_eq!(s.pick(), Next::Run(1));
    // It is in the same loop still.
    _ = s.tick(7);
    assert_eq!(s.spin(9), Next::Quiescent);
    s.begin_epoch(5_000, 100);
    assert_eq!(s.pick(), Next::Quiescent);
    // An input wakes the other one, which goes first.
    s.wake_one(5);
    assert_eq!(s.pick(), Next::Run(2));
}

#[test]
fn threads_that_only_spin_come_to_rest() {
    let mut s = started(3);
    let mut turns = 0;
    let mut next = Next::Run(1);
    while next != Next::Quiescent {
        _ = s.tick(7);
        next = s.spin(u64::from(s.current()));
        turns += 1;
    }
    // Each once, and once more after the others had their first turn.
    assert!(turns <= 9, "{turns}");
    // A signal is for one of them alone.
    s.wake_thread(2, Wake::Interrupted);
    assert_eq!(s.pick(), Next::Run(2));
}

#[test]
fn one_that_does_something_between_two_loops_counts_as_a_change() {
    let mut s = started(2);
    _ = s.tick(7);
    assert_eq!(s.spin(9), Next::Run(2));
    _ = s.tick(1);
    _ = s.tick(7);
    assert_eq!(s.spin(8), Next::Run(1));
    // Another loop, another matter.
    _ = s.tick(7);
    assert_eq!(s.spin(3), Next::Run(2));
}

#[test]
fn random_schedules_keep_the_invariants_and_repeat() {
    for seed in 0..300 {
        assert_eq!(random_run(seed, 400), random_run(seed, 400), "seed {seed}");
    }
}
