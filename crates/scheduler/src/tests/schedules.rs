//! All short schedules of few threads, and a million random ones, against the
//! model. The invariants are named there.

use super::Random;
use super::small::Pair;

/// Does every sequence of `depth` steps; returns how many there were.
fn every_schedule(pair: &mut Pair, threads: usize, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let saved = pair.save();
    let mut count = 0;
    for step in pair.steps(threads) {
        if pair.step(step) {
            count += every_schedule(pair, threads, depth - 1);
        } else {
            count += 1;
        }
        pair.restore(&saved);
    }
    count
}

#[test]
fn every_short_schedule_does_what_the_model_does() {
    let mut count = 0;
    for (threads, depth) in [(2, 5), (3, 5), (4, 4)] {
        for (quantum, budget) in [(1, 100), (2, 3), (100, 100)] {
            count += every_schedule(&mut Pair::new(threads, quantum, budget), threads, depth);
        }
    }
    assert!(count > 1_000_000, "{count} schedules");
}

/// Runs random steps; returns the hash of the schedule.
fn random_schedule(pair: &mut Pair, seed: u64, length: u64) -> u64 {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..length {
        pair.budget = 1 + random.below(12) as u32;
        let steps = pair.steps(5);
        let step = steps[random.below(steps.len() as u64) as usize];
        if !pair.step(step) {
            break;
        }
    }
    pair.hash()
}

#[test]
fn a_million_random_schedules_do_what_the_model_does() {
    const SCHEDULES: u64 = 1_000_000;
    const WORKERS: u64 = 4;
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || {
                let mut pairs: std::vec::Vec<_> = [(2, 1), (3, 2), (4, 5), (5, 3)]
                    .map(|(threads, quantum)| Pair::new(threads, quantum, 9))
                    .into_iter()
                    .map(|pair| (pair.save(), pair))
                    .collect();
                for seed in (worker..SCHEDULES).step_by(WORKERS as usize) {
                    let (saved, pair) = &mut pairs[seed as usize / WORKERS as usize % 4];
                    let hash = random_schedule(pair, seed, 12);
                    pair.restore(saved);
                    // The same once more, for some: the hash is the schedule's.
                    if seed % 64 < WORKERS {
                        assert_eq!(random_schedule(pair, seed, 12), hash, "seed {seed}");
                        pair.restore(saved);
                    }
                }
            });
        }
    });
}
