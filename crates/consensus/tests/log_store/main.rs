//! What any disk under the log has to give, and what the log makes of a disk
//! that was cut off, torn or damaged.

mod conformance;
mod damage;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crane_consensus::{
    Disk, Durability, Entry, HardState, LogStore, RealDisk, SimDisk, StoreConfig,
};

const CLUSTER: [u8; 16] = *b"cluster under te";

fn config() -> StoreConfig {
    StoreConfig {
        cluster_id: CLUSTER,
        replica: 1,
        peers: vec![1, 2, 3],
        join: false,
        durability: Durability::Disk,
        new_cluster: true,
        accept_memory_loss: false,
        checkpoint: None,
        membership: None,
        segment_bytes: 4096,
        cache_bytes: 600,
    }
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    Entry {
        index,
        term,
        data: (0..len)
            .map(|i| (index as usize * 31 + term as usize * 7 + i) as u8)
            .collect(),
        ..Entry::default()
    }
}

fn hard(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

/// What a log should contain.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: Vec<Entry>,
    hard: HardState,
}

impl Model {
    fn apply(&mut self, entries: &[Entry], hard: Option<&HardState>) {
        for entry in entries {
            self.entries.truncate(entry.index as usize - 1);
            self.entries.push(entry.clone());
        }
        if let Some(hard) = hard {
            self.hard = hard.clone();
        }
    }

    fn of<D: Disk>(store: &LogStore<D>) -> Self {
        let entries = store.read(1, u64::MAX, u64::MAX);
        let entries = entries.expect("the log is readable");
        assert_eq!(entries.len() as u64, store.last_index());
        for entry in &entries {
            assert_eq!(store.term_at(entry.index), Some(entry.term));
        }
        Self {
            entries,
            hard: store.hard_state().clone(),
        }
    }
}

/// Writes of all shapes: single, batches, empty data, larger than a segment,
/// replaced tails, and hard states alone.
fn script() -> Vec<(Vec<Entry>, Option<HardState>)> {
    let mut steps = vec![
        (vec![], Some(hard(1, 1, 0))),
        (vec![entry(1, 1, 0)], None),
        (
            (2..8).map(|i| entry(i, 1, 100)).collect(),
            Some(hard(1, 1, 3)),
        ),
        (vec![entry(8, 1, 1500)], None),
        (vec![entry(9, 1, 1)], Some(hard(1, 1, 7))),
        (vec![], Some(hard(1, 1, 8))),
        // A new leader replaces what was not committed.
        (vec![], Some(hard(3, 2, 8))),
        (vec![entry(9, 3, 40), entry(10, 3, 0)], Some(hard(3, 2, 8))),
        (vec![entry(11, 3, 9000)], None),
        (vec![entry(11, 4, 10)], Some(hard(4, 3, 10))),
    ];
    steps.extend((12..30).map(|i| (vec![entry(i, 4, 333)], Some(hard(4, 3, i - 1)))));
    steps
}

/// A directory that is removed when the test is over.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("crane-log-test-{}-{count}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn disk(&self) -> RealDisk {
        RealDisk::open(&self.0).expect("a directory of our own")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A simulated disk with the whole script on it, and what it should contain.
fn written() -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let (mut store, _) = LogStore::open(disk.reopen(), &config()).expect("an empty disk");
    let mut model = Model::default();
    for (entries, hard) in script() {
        model.apply(&entries, hard.as_ref());
        store
            .write(entries, hard.as_ref(), true)
            .expect("a good disk");
    }
    drop(store);
    (disk, model)
}
