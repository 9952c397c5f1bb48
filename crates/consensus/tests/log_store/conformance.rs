//! The same checks over the real and the simulated disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crane_consensus::{Disk, DiskFile, Durability, Error, LogStore, RealDisk, SimDisk};

use super::{Directory, Model, config, entry, hard, script};

/// What the log relies on in a disk.
fn disk_contract<D: Disk>(mut disk: D) {
    assert!(disk.list().expect("list").is_empty());
    assert!(disk.open("a").is_err());
    let a = disk.create("a").expect("create");
    assert!(disk.create("a").is_err(), "create must not replace");
    a.write_at(5, b"hello").expect("write");
    assert_eq!(a.size().expect("size"), 10);
    let mut buf = [9; 20];
    assert_eq!(a.read_at(0, &mut buf).expect("read"), 10);
    assert_eq!(&buf[..10], b"\0\0\0\0\0hello");
    assert_eq!(a.read_at(10, &mut buf).expect("read"), 0);
    assert_eq!(a.read_at(999, &mut buf).expect("read"), 0);
    a.sync().expect("sync");
    let b = disk.create("b").expect("create");
    b.write_at(0, b"b").expect("write");
    disk.rename("a", "b").expect("rename");
    // An open file follows its rename, and the replaced one is gone.
    a.write_at(0, b"x").expect("write");
    let b = disk.open("b").expect("open");
    assert_eq!(b.size().expect("size"), 10);
    assert_eq!(b.read_at(0, &mut buf[..1]).expect("read"), 1);
    assert_eq!(buf[0], b'x');
    assert_eq!(disk.list().expect("list"), ["b"]);
    disk.remove("b").expect("remove");
    assert!(disk.remove("b").is_err());
    assert!(disk.list().expect("list").is_empty());
    assert!(disk.new_life() > 0);
    assert_eq!(disk.boot_id(), disk.boot_id());
}

#[test]
fn both_disks_keep_the_contract() {
    disk_contract(SimDisk::new());
    let directory = Directory::new();
    disk_contract(directory.disk());
}

/// Writes the script, reopening after every step, and compares each time.
fn every_step_survives_reopening<D: Disk>(mut disk: impl FnMut() -> D) {
    let mut model = Model::default();
    for (at, (entries, hard)) in script().into_iter().enumerate() {
        let (mut store, recovery) = LogStore::open(disk(), &config()).expect("open");
        assert_eq!(recovery.fresh, at == 0);
        assert_eq!(recovery.truncated_bytes, 0);
        assert_eq!(recovery.incarnation as usize, at + 1);
        assert_eq!(store.incarnation() as usize, at + 1);
        assert_eq!(recovery.entries, model.entries.len() as u64);
        assert_eq!(Model::of(&store), model);
        model.apply(&entries, hard.as_ref());
        store.write(entries, hard.as_ref(), true).expect("write");
        assert_eq!(Model::of(&store), model);
        for _ in 0..8 {
            store.housekeep().expect("housekeep");
        }
        if at % 2 == 0 {
            store.close().expect("close");
        }
    }
}

#[test]
fn every_step_survives_on_both_disks() {
    let sim = SimDisk::new();
    every_step_survives_reopening(|| sim.reopen());
    let directory = Directory::new();
    every_step_survives_reopening(|| directory.disk());
}

#[test]
fn pages_are_bounded_and_complete() {
    let sim = SimDisk::new();
    let (mut store, _) = LogStore::open(sim.reopen(), &config()).expect("open");
    for index in 1..=200 {
        store
            .write(vec![entry(index, 1, 150)], None, true)
            .expect("write");
    }
    for max in [0, 1, 500, 5000, u64::MAX] {
        let mut next = 1;
        while next <= 200 {
            let page = store.read(next, 201, max).expect("read");
            assert!(!page.is_empty());
            let bytes: usize = page.iter().map(|e| e.data.len()).sum();
            assert!(page.len() == 1 || bytes as u64 <= max);
            for got in page {
                assert_eq!(got, entry(next, 1, 150));
                next += 1;
            }
        }
    }
    assert!(store.recent(200).is_some() && store.recent(1).is_none());
    assert!(store.read(201, 300, 100).expect("read").is_empty());
}

#[test]
fn a_directory_has_one_user_and_one_owner() {
    let directory = Directory::new();
    let disk = directory.disk();
    match RealDisk::open(&directory.0) {
        Err(Error::Locked { path }) => assert!(path.ends_with("LOCK")),
        other => panic!("two users of one directory: {other:?}"),
    }
    let (mut store, _) = LogStore::open(disk, &config()).expect("open");
    store
        .write(vec![entry(1, 1, 10)], Some(&hard(1, 1, 0)), true)
        .expect("write");
    let mode = |path: &std::path::Path| {
        let metadata = fs::metadata(path).expect("metadata");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode(&directory.0), 0o700);
    let mut files = 0;
    for file in fs::read_dir(&directory.0).expect("directory") {
        assert_eq!(mode(&file.expect("file").path()), 0o600);
        files += 1;
    }
    assert_eq!(files, 3, "LOCK, meta and one segment");
    drop(store);
    directory.disk();
}

/// Opening with changed settings must be refused with a message that has all
/// of `words`.
fn refused(disk: &SimDisk, change: impl FnOnce(&mut crane_consensus::StoreConfig), words: &[&str]) {
    let mut changed = config();
    change(&mut changed);
    let error = match LogStore::open(disk.reopen(), &changed) {
        Err(error @ Error::Refused(_)) => error.to_string(),
        other => panic!("not refused: {:?}", other.map(|o| o.1)),
    };
    assert!(!error.contains('\n'));
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn somebody_elses_directory_is_refused() {
    let (disk, model) = super::written();
    refused(&disk, |c| c.cluster_id = [1; 16], &["cluster", "meta"]);
    refused(&disk, |c| c.replica = 2, &["replica 1", "replica 2"]);
    // Nothing was changed by the attempts.
    let (store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    assert_eq!(Model::of(&store), model);
}

#[test]
fn memory_durability_survives_processes_and_refuses_a_lost_machine() {
    let mut memory = config();
    memory.durability = Durability::Memory;
    let disk = SimDisk::new();
    let open = |config: &_| LogStore::open(disk.reopen(), config);
    let (mut store, _) = open(&memory).expect("open");
    store
        .write(vec![entry(1, 1, 10)], Some(&hard(1, 1, 0)), true)
        .expect("write");
    disk.kill();
    let (mut store, recovery) = open(&memory).expect("a killed process loses nothing");
    assert_eq!(recovery.entries, 1);
    store
        .write(vec![entry(2, 1, 10)], None, true)
        .expect("write");
    disk.crash(1);
    refused(
        &disk,
        |c| c.durability = Durability::Memory,
        &["in memory", "remove this replica's `log` directory"],
    );
    refused(&disk, |_| (), &["in memory"]);
    memory.accept_memory_loss = true;
    let (store, recovery) = open(&memory).expect("accepted");
    assert!(recovery.entries >= 1, "what was synced at the start stays");
    store.close().expect("close");
    memory.accept_memory_loss = false;
    disk.crash(2);
    open(&memory).expect("it was closed in order");
}

#[test]
fn a_failed_sync_is_the_end() {
    let disk = SimDisk::new();
    let (mut store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    disk.set_sync_fails(true);
    let error = store.write(vec![entry(1, 1, 10)], None, true);
    let error = error.expect_err("EIO").to_string();
    assert!(error.contains("cannot sync") && error.contains("the replica stops"));
    // Never tried again: the second attempt would wrongly succeed.
    disk.set_sync_fails(false);
    assert!(matches!(
        store.write(vec![entry(1, 1, 10)], None, true),
        Err(Error::Fatal(_))
    ));
}

#[test]
fn a_full_disk_stops_with_advice_and_can_be_mended() {
    let disk = SimDisk::new();
    let (mut store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    disk.set_full(true);
    let mut index = 0;
    let error = loop {
        index += 1;
        // The prepared segment still has room; the next one has not.
        store.housekeep().expect("no harm while there is room");
        if let Err(error) = store.write(vec![entry(index, 1, 400)], None, true) {
            break error.to_string();
        }
    };
    assert!(error.contains("no space") && error.contains("restart"));
    assert!(index > 5);
    disk.set_full(false);
    disk.kill();
    let (mut store, recovery) = LogStore::open(disk.reopen(), &config()).expect("open");
    assert_eq!(recovery.entries, index - 1);
    store
        .write(vec![entry(index, 1, 400)], None, true)
        .expect("write");
}
