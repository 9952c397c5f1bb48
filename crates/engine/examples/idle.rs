//! Measures what three idle engines cost:
//! `cargo run --release -p crane-engine --example idle [seconds]`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;
use support::{Cluster, Options};

/// CPU seconds and switches of this process's threads, by name.
fn usage() -> Vec<(String, f64, u64)> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        let stat = std::fs::read_to_string(path.join("schedstat")).unwrap();
        let words: Vec<u64> = stat.split(' ').map(|w| w.trim().parse().unwrap()).collect();
        all.push((name.trim().to_owned(), words[0] as f64 / 1e9, words[2]));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let seconds: u64 = seconds.unwrap_or(10);
    let cluster = Cluster::start(Options::new(3));
    cluster.leader();
    std::thread::sleep(Duration::from_secs(1));
    let before = usage();
    std::thread::sleep(Duration::from_secs(seconds));
    for (now, then) in usage().iter().zip(&before) {
        let share = (now.1 - then.1) / seconds as f64 * 100.0;
        let wakes = (now.2 - then.2) as f64 / seconds as f64;
        println!(
            "{:12} {share:6.3} % of a core, {wakes:6.1} switches/s",
            now.0
        );
    }
}
