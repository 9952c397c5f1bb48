//! The same node code as in production, over simulated disks and a simulated
//! network, with everything that can go wrong going wrong.
//!
//! `CRANE_SIM_SEEDS=N` runs N seeds of each scenario, `CRANE_SIM_SEED=S` runs
//! one again. A failure prints the command that repeats it.

mod checker;
mod cluster;
mod faults;
mod members;
mod network;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::{Cluster, Scenario};

/// Seeds of each scenario without a setting, and a quarter of them of each with
/// changes of members: about 75 s of one core in all.
const SEEDS: u64 = 1000;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}: give a number")))
}

/// Runs one seed; the message of the panic if it failed.
fn run(scenario: &Scenario, seed: u64) -> Result<cluster::Figures, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut cluster = Cluster::new(scenario, seed);
        cluster.trouble();
        if scenario.must_recover {
            cluster.recover();
        }
        cluster.figures()
    }));
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_else(|| "a panic without a message".into())
    })
}

/// Runs all seeds of a scenario and expects every one to pass.
fn expect_safe(test: &str, scenario: &Scenario) {
    expect_seeds(test, scenario, SEEDS);
}

fn expect_seeds(test: &str, scenario: &Scenario, usual: u64) {
    let seeds = match setting("CRANE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CRANE_SIM_SEEDS").unwrap_or(usual),
    };
    let mut total = cluster::Figures::default();
    for seed in seeds.clone() {
        match run(scenario, seed) {
            Ok(figures) => total.add(&figures),
            Err(why) => panic!(
                "seed {seed} failed: {why}\nrepeat it with: CRANE_SIM_SEED={seed} cargo test -p crane-consensus --test simulation {test} -- --nocapture"
            ),
        }
    }
    println!("{test}: {} seeds, {total:?}", seeds.end - seeds.start);
}

/// Runs seeds of a scenario with a planted fault until the checker notices a
/// broken promise (and not merely that a replica stopped).
fn expect_caught(scenario: &Scenario, seeds: u64) {
    let mut others = 0;
    for seed in 0..seeds {
        match run(scenario, seed) {
            Err(why) if why.starts_with("safety:") => {
                println!("caught at seed {seed}: {why} ({others} seeds failed otherwise before)");
                return;
            }
            Err(_) => others += 1,
            Ok(_) => {}
        }
    }
    panic!(
        "the planted fault was not caught in {seeds} seeds ({others} failed otherwise): the checker has become blind"
    );
}

#[test]
fn three_replicas_keep_every_promise() {
    expect_safe(
        "three_replicas_keep_every_promise",
        &Scenario {
            replicas: 3,
            ..Scenario::default()
        },
    );
}

#[test]
fn five_replicas_keep_every_promise() {
    expect_safe(
        "five_replicas_keep_every_promise",
        &Scenario {
            replicas: 5,
            ..Scenario::default()
        },
    );
}

#[test]
fn replicas_that_lose_their_disks_come_back_without_breaking_promises() {
    for replicas in [3, 5] {
        expect_safe(
            "replicas_that_lose_their_disks_come_back_without_breaking_promises",
            &Scenario {
                replicas,
                wipes: true,
                ..Scenario::default()
            },
        );
    }
}

#[test]
fn logs_that_are_cut_and_replicas_that_start_from_checkpoints_keep_every_promise() {
    for replicas in [3, 5] {
        expect_safe(
            "logs_that_are_cut_and_replicas_that_start_from_checkpoints_keep_every_promise",
            &Scenario {
                replicas,
                wipes: true,
                cuts: true,
                ..Scenario::default()
            },
        );
    }
}

#[test]
fn replicas_come_and_go_without_breaking_promises() {
    for (replicas, cuts) in [(3, false), (1, false), (3, true), (5, true)] {
        expect_seeds(
            "replicas_come_and_go_without_breaking_promises",
            &Scenario {
                replicas,
                cuts,
                // A disk of one replica alone is a majority of them.
                wipes: replicas > 1,
                changes: true,
                ..Scenario::default()
            },
            SEEDS / 4,
        );
    }
}

#[test]
fn a_seed_repeats_exactly() {
    let scenario = Scenario {
        replicas: 5,
        wipes: true,
        cuts: true,
        changes: true,
        ..Scenario::default()
    };
    let first = run(&scenario, 7);
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(run(&scenario, 7), first);
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    expect_caught(
        &Scenario {
            replicas: 3,
            lying_disks: true,
            must_recover: false,
            ..Scenario::default()
        },
        2000,
    );
}

#[test]
fn a_replica_that_forgot_and_votes_at_once_is_caught() {
    expect_caught(
        &Scenario {
            replicas: 3,
            wipes: true,
            forgetful_voters: true,
            must_recover: false,
            ..Scenario::default()
        },
        2000,
    );
}
