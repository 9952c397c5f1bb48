//! The whole path of a request in one process and from one seed: the data plane
//! ([`crate::data_plane`]), the output thread, the gateway's clients and streams,
//! consensus and its log are the code of production; simulated are what lies
//! outside: clocks, disks, connections, clients' sockets and the program.
//!
//! `CRANE_SIM_SEEDS=N` runs N seeds of each scenario, `CRANE_SIM_SEED=S` runs
//! one again. A failure prints the command that repeats it.

mod checker;
mod clients;
mod cluster;
mod host;
mod network;
mod program;

use crate::share::Share;
use cluster::{Cluster, Figures};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of each scenario without a setting: about 200 s of one core in all.
const SEEDS: u64 = 1000;

/// What a run is about.
#[derive(Debug, Clone)]
struct Scenario {
    replicas: u8,
    /// Replicas may lose their disks, one at a time.
    wipes: bool,
    /// Replicas take checkpoints, cut their logs and start from them.
    checkpoints: bool,
    /// Answers leave when a majority has come to the same.
    votes: bool,
    /// Replicas are added, replaced and removed, and told to lead.
    changes: bool,
    /// Planted: disks are lost at any time, and replicas vote as if they were new.
    forgetful_voters: bool,
    /// Planted: who starts from a checkpoint has forgotten which events count.
    forgetful_filters: bool,
    /// Planted: who starts from a checkpoint has forgotten the virtual time.
    forgotten_time: bool,
    /// Planted: a leader's program is given what is not committed.
    hasty_programs: bool,
    /// Planted: one replica's program does something else.
    wrong_program: bool,
}

const PLAIN: Scenario = Scenario {
    replicas: 3,
    wipes: false,
    checkpoints: false,
    votes: false,
    changes: false,
    forgetful_voters: false,
    forgetful_filters: false,
    forgotten_time: false,
    hasty_programs: false,
    wrong_program: false,
};

impl Scenario {
    /// Whether replicas may notice that something is badly wrong.
    fn is_planted(&self) -> bool {
        self.forgetful_voters
            || self.forgetful_filters
            || self.forgotten_time
            || self.hasty_programs
            || self.wrong_program
    }

    /// The share of a checkpoint as a replica of this scenario reads it.
    fn spoil(&self, share: &Share) -> Share {
        let mut text = share.encode();
        if self.forgetful_filters {
            for gateway in text["gateways"].as_array_mut().expect("a list") {
                gateway["next"] = 1.into();
            }
        }
        if self.forgotten_time {
            text["last_time"] = 0.into();
        }
        Share::decode(&text.to_string()).expect("its own")
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is {text:?}: give a number")))
}

/// Runs one seed; the message of the panic if it failed.
fn run(scenario: &Scenario, seed: u64) -> Result<Figures, String> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut cluster = Cluster::new(scenario, seed);
        cluster.trouble();
        if !scenario.is_planted() {
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
    // One with changes takes as long as three others.
    let usual = if scenario.changes { SEEDS / 2 } else { SEEDS };
    let seeds = match setting("CRANE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("CRANE_SIM_SEEDS").unwrap_or(usual),
    };
    let mut total = Figures::default();
    for seed in seeds.clone() {
        match run(scenario, seed) {
            Ok(figures) => total.add(&figures),
            Err(why) => panic!(
                "seed {seed} failed: {why}\nrepeat it with: CRANE_SIM_SEED={seed} cargo test -p crane-engine --lib simulation::{test} -- --nocapture"
            ),
        }
    }
    println!("{test}: {} seeds, {total:?}", seeds.end - seeds.start);
}

/// Runs seeds of a scenario with a planted fault until the checker notices a
/// broken promise in these words (and not merely that a replica stopped).
fn expect_caught(scenario: &Scenario, words: &[&str], seeds: u64) {
    let mut others: Vec<String> = Vec::new();
    for seed in 0..seeds {
        match run(scenario, seed) {
            Err(why)
                if why.starts_with("safety:") && words.iter().any(|word| why.contains(word)) =>
            {
                println!(
                    "caught at seed {seed}: {why} ({} others before)",
                    others.len()
                );
                return;
            }
            Err(why) => others.push(why),
            Ok(_) => {}
        }
    }
    panic!(
        "the planted fault was not caught in {seeds} seeds, the checker has become blind: {others:?}"
    );
}

#[test]
fn three_replicas_serve_as_one_that_never_fails() {
    expect_safe("three_replicas_serve_as_one_that_never_fails", &PLAIN);
}

#[test]
fn five_replicas_serve_as_one_that_never_fails() {
    let scenario = Scenario {
        replicas: 5,
        ..PLAIN
    };
    expect_safe("five_replicas_serve_as_one_that_never_fails", &scenario);
}

#[test]
fn with_lost_disks_and_cut_logs_they_serve_as_one_that_never_fails() {
    let scenario = Scenario {
        wipes: true,
        checkpoints: true,
        ..PLAIN
    };
    expect_safe(
        "with_lost_disks_and_cut_logs_they_serve_as_one_that_never_fails",
        &scenario,
    );
}

#[test]
fn with_votes_on_answers_they_serve_as_one_that_never_fails() {
    let scenario = Scenario {
        votes: true,
        ..PLAIN
    };
    expect_safe(
        "with_votes_on_answers_they_serve_as_one_that_never_fails",
        &scenario,
    );
}

#[test]
fn while_replicas_come_and_go_they_serve_as_one_that_never_fails() {
    let scenario = Scenario {
        wipes: true,
        checkpoints: true,
        changes: true,
        ..PLAIN
    };
    expect_safe(
        "while_replicas_come_and_go_they_serve_as_one_that_never_fails",
        &scenario,
    );
}

#[test]
fn a_seed_of_the_whole_path_repeats_exactly() {
    let scenario = Scenario {
        wipes: true,
        checkpoints: true,
        changes: true,
        ..PLAIN
    };
    let first = run(&scenario, 7);
    assert!(first.is_ok(), "{first:?}");
    assert_eq!(run(&scenario, 7), first);
}

#[test]
fn answers_that_a_majority_forgot_are_caught() {
    let scenario = Scenario {
        wipes: true,
        forgetful_voters: true,
        ..PLAIN
    };
    expect_caught(&scenario, &["given another epoch", "executed"], 100);
}

#[test]
fn an_answer_released_too_early_is_caught() {
    let scenario = Scenario {
        hasty_programs: true,
        ..PLAIN
    };
    expect_caught(&scenario, &["which no majority had"], 100);
}

#[test]
fn a_filter_that_forgets_is_caught() {
    let scenario = Scenario {
        checkpoints: true,
        forgetful_filters: true,
        ..PLAIN
    };
    let words = ["given another epoch", "was due", "connected twice"];
    expect_caught(&scenario, &words, 2000);
}

#[test]
fn time_that_goes_back_is_caught() {
    let scenario = Scenario {
        checkpoints: true,
        forgotten_time: true,
        ..PLAIN
    };
    expect_caught(&scenario, &["virtual time"], 2000);
}

#[test]
fn a_program_that_does_something_else_is_caught() {
    let scenario = Scenario {
        wrong_program: true,
        ..PLAIN
    };
    expect_caught(&scenario, &["came to another result"], 10);
}
