//! Cut power, torn writes and flipped bits.

use crane_consensus::{Disk, Error, LogStore, SimDisk};

use super::{Directory, Model, config, entry, hard, script, written};

/// Runs the script on a disk whose power goes at change number `stop`; returns
/// the disk after the cut and the two states it may be in. `None` if the
/// script ended before.
fn cut_at(stop: u64, seed: u64) -> Option<(SimDisk, Vec<Model>)> {
    let disk = SimDisk::new();
    disk.stop_after(stop);
    let mut before = Model::default();
    let opened = LogStore::open(disk.reopen(), &config());
    let mut allowed = vec![before.clone()];
    let mut finished = false;
    if let Ok((mut store, _)) = opened {
        finished = true;
        for (entries, hard) in script() {
            let mut after = before.clone();
            // Any prefix of the write may have arrived whole.
            allowed = vec![before.clone()];
            for entry in &entries {
                after.apply(std::slice::from_ref(entry), None);
                allowed.push(after.clone());
            }
            after.apply(&[], hard.as_ref());
            allowed.push(after.clone());
            if store.write(entries, hard.as_ref(), true).is_err() {
                finished = false;
                break;
            }
            before = after;
            // Makes the next segment sometimes ahead of time, sometimes not.
            if stop.is_multiple_of(2) && store.housekeep().is_err() {
                allowed = vec![before.clone()];
                finished = false;
                break;
            }
        }
    }
    disk.crash(seed);
    (!finished).then_some((disk, allowed))
}

#[test]
fn power_cut_at_every_change_loses_nothing_confirmed() {
    let mut cuts = 0;
    for seed in 0..12 {
        let mut stop = 0;
        while let Some((disk, allowed)) = cut_at(stop, seed) {
            let context = format!("cut at change {stop}, seed {seed}");
            let (mut store, _) = LogStore::open(disk.reopen(), &config())
                .unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = Model::of(&store);
            assert!(
                allowed.contains(&found),
                "{context}: {} entries",
                found.entries.len()
            );
            // And it can be used: what is written now survives, too.
            let next = found.entries.len() as u64 + 1;
            let term = found.hard.term.max(9);
            let mut model = found;
            let more = (vec![entry(next, term, 200)], hard(term, 1, next));
            model.apply(&more.0, Some(&more.1));
            store
                .write(more.0, Some(&more.1), true)
                .unwrap_or_else(|e| panic!("{context}: {e}"));
            drop(store);
            disk.crash(seed + 1);
            let (store, recovery) = LogStore::open(disk.reopen(), &config())
                .unwrap_or_else(|e| panic!("{context}, again: {e}"));
            assert_eq!(recovery.truncated_bytes, 0, "{context}: cut twice");
            assert_eq!(Model::of(&store), model, "{context}");
            stop += 1;
            cuts += 1;
        }
        assert!(stop > 50, "the script has more changes than {stop}");
    }
    assert!(cuts > 600, "only {cuts} cuts");
}

#[test]
fn power_cut_while_recovering_is_recovered_from() {
    let mut tested = 0;
    for seed in 0..20 {
        // In the middle of the script, with something torn if possible.
        let Some((disk, allowed)) = cut_at(40 + seed, seed) else {
            continue;
        };
        for stop in 0.. {
            disk.stop_after(stop);
            let opened = LogStore::open(disk.reopen(), &config()).is_ok();
            disk.crash(seed * 100 + stop);
            if opened {
                break;
            }
            tested += 1;
        }
        let (store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
        assert!(allowed.contains(&Model::of(&store)), "seed {seed}");
    }
    assert!(tested > 40);
}

/// The last segment's file name, its bytes, and where its records end.
fn last_segment(disk: &SimDisk) -> (String, Vec<u8>, usize) {
    let mut names = disk.list().expect("list");
    names.retain(|n| n.starts_with("log-"));
    let name = names.into_iter().max().expect("a segment");
    let bytes = disk.content(&name).expect("a segment");
    // The checksum at its start and the padding at its end may be zeros; a
    // record ends at a multiple of eight.
    let end = bytes.iter().rposition(|b| *b != 0).expect("records") + 1;
    (name, bytes, end.next_multiple_of(8))
}

#[test]
fn the_last_record_may_end_anywhere() {
    let (disk, mut model) = written();
    let (mut store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    let before = model.clone();
    let (_, _, start) = last_segment(&disk);
    let last = entry(30, 4, 61);
    model.apply(std::slice::from_ref(&last), None);
    store.write(vec![last], None, true).expect("write");
    drop(store);
    let (name, bytes, end) = last_segment(&disk);
    assert!(end > start + 61);
    for cut in start..end {
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        disk.set_content(&name, &torn);
        let (store, recovery) = LogStore::open(disk.reopen(), &config())
            .unwrap_or_else(|e| panic!("cut at byte {cut}: {e}"));
        let found = Model::of(&store);
        if torn == bytes {
            assert_eq!(found, model);
            continue;
        }
        assert_eq!(found, before, "cut at byte {cut}");
        let dirty = torn[start..].iter().rposition(|b| *b != 0);
        assert_eq!(
            recovery.truncated_bytes,
            dirty.map_or(0, |at| at as u64 + 1)
        );
        if dirty.is_some() {
            let at = recovery.truncated_at.expect("where it was cut");
            assert_eq!(at, (format!("sim:{name}"), start as u64));
        }
        drop(store);
        let (_, recovery) = LogStore::open(disk.reopen(), &config()).expect("open");
        assert_eq!(recovery.truncated_bytes, 0);
    }
    // The file itself may be short as well.
    for cut in start..end {
        disk.set_content(&name, &bytes[..cut]);
        let (mut store, _) = LogStore::open(disk.reopen(), &config())
            .unwrap_or_else(|e| panic!("file cut at byte {cut}: {e}"));
        let found = Model::of(&store);
        assert!(found == before || (found == model && cut + 8 > end));
        let next = found.entries.len() as u64 + 1;
        store
            .write(vec![entry(next, 4, 10)], None, true)
            .expect("a short file is no obstacle");
        // The write went to a next segment, for want of room.
        for newer in disk.list().expect("list") {
            if newer.starts_with("log-") && newer > name {
                disk.reopen().remove(&newer).expect("remove");
            }
        }
    }
}

#[test]
fn a_flipped_bit_before_the_tail_is_refused() {
    let (disk, model) = written();
    let mut names = disk.list().expect("list");
    names.retain(|n| n.starts_with("log-"));
    names.sort();
    assert!(names.len() >= 3, "the script fills several segments");
    let (last, _, end) = last_segment(&disk);
    let mut flips = 0;
    for name in &names {
        let bytes = disk.content(name).expect("a segment");
        let used = bytes.iter().rposition(|b| *b != 0).expect("records") + 1;
        for byte in 0..used {
            let bit = (byte % 8) as u8;
            disk.flip_bit(name, byte, bit);
            match LogStore::open(disk.reopen(), &config()) {
                Err(Error::Corrupt { path, offset, .. }) => {
                    assert_eq!(path, format!("sim:{name}"));
                    assert!(offset as usize <= byte, "it names the record that is bad");
                }
                Err(other) => panic!("{name} byte {byte}: {other}"),
                // The last write looks like a torn one: nothing is behind it.
                Ok((store, recovery)) => {
                    assert_eq!(*name, last, "byte {byte}");
                    let (_, from) = recovery.truncated_at.expect("it was cut");
                    assert!((from as usize) <= byte && end - (from as usize) < 500);
                    drop(store);
                }
            }
            // Puts everything back, also what the opening changed.
            disk.set_content(name, &bytes);
            flips += 1;
        }
    }
    assert!(flips > 10_000);
    let (store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    assert_eq!(Model::of(&store), model);
}

#[test]
fn the_refusal_says_where_and_what_to_do() {
    let (disk, _) = written();
    disk.flip_bit("log-00000001.seg", 300, 0);
    let error = match LogStore::open(disk.reopen(), &config()) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("damage was taken"),
    };
    for words in [
        "sim:log-00000001.seg is damaged at byte ",
        "remove this replica's `log` directory and restart it",
        "it will catch up from the leader",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!error.contains('\n'));
}

#[test]
fn missing_and_damaged_files_are_refused() {
    for name in ["log-00000001.seg", "log-00000002.seg", "meta"] {
        let (disk, _) = written();
        let bytes = disk.content(name).expect("a file");
        disk.reopen().remove(name).expect("remove");
        assert!(
            matches!(
                LogStore::open(disk.reopen(), &config()),
                Err(Error::Corrupt { .. })
            ),
            "{name} is missing"
        );
        disk.set_content(name, &bytes);
        LogStore::open(disk.reopen(), &config()).expect("it is back");
        disk.set_content(name, &[]);
        assert!(
            matches!(
                LogStore::open(disk.reopen(), &config()),
                Err(Error::Corrupt { .. })
            ),
            "{name} is empty"
        );
    }
    let (disk, _) = written();
    let len = disk.content("meta").expect("meta").len();
    for byte in 0..len {
        disk.flip_bit("meta", byte, 3);
        assert!(LogStore::open(disk.reopen(), &config()).is_err());
        disk.flip_bit("meta", byte, 3);
    }
    LogStore::open(disk.reopen(), &config()).expect("it is whole again");
}

#[test]
fn damage_noticed_while_reading_is_an_error() {
    let (disk, _) = written();
    let (store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    assert!(store.recent(5).is_none());
    disk.flip_bit("log-00000001.seg", 600, 0);
    match store.read(1, 9, u64::MAX) {
        Err(Error::Corrupt { path, reason, .. }) => {
            assert!(path.contains("log-00000001") && reason.contains("entry"));
        }
        other => panic!("bad data was read: {:?}", other.map(|e| e.len())),
    }
}

#[test]
fn bytes_of_a_client_that_look_like_records_stay_data() {
    // A client sends what the log's own file contains, aligned in every way.
    let (disk, _) = written();
    let (name, bytes, end) = last_segment(&disk);
    let (mut store, _) = LogStore::open(disk.reopen(), &config()).expect("open");
    for shift in 0..8 {
        let mut evil = entry(30 + shift, 4, shift as usize);
        evil.data.extend_from_slice(&bytes[..end]);
        store.write(vec![evil], None, true).expect("write");
    }
    let model = Model::of(&store);
    drop(store);
    let (last, current, used) = last_segment(&disk);
    assert_ne!(last, name);
    // Torn in the middle of such an entry.
    let mut torn = current.clone();
    torn[used - 40..].fill(0);
    disk.set_content(&last, &torn);
    let (store, recovery) = LogStore::open(disk.reopen(), &config()).expect("torn, not damaged");
    assert!(recovery.truncated_bytes > 0);
    let kept = Model::of(&store).entries;
    assert_eq!(kept.len(), model.entries.len() - 1);
    assert_eq!(kept[..], model.entries[..kept.len()]);
}

#[test]
fn a_real_directory_is_cut_and_refused_alike() {
    let directory = Directory::new();
    let open = || LogStore::open(directory.disk(), &config());
    let (mut store, _) = open().expect("open");
    for (entries, hard) in script() {
        store.write(entries, hard.as_ref(), true).expect("write");
    }
    let model = Model::of(&store);
    drop(store);
    let mut names: Vec<_> = std::fs::read_dir(&directory.0)
        .expect("directory")
        .filter_map(|f| f.ok()?.file_name().into_string().ok())
        .filter(|n| n.starts_with("log-"))
        .collect();
    names.sort();
    let path = directory.0.join(names.last().expect("a segment"));
    let bytes = std::fs::read(&path).expect("read");
    let end = bytes.iter().rposition(|b| *b != 0).expect("records");
    let mut torn = bytes.clone();
    torn[end] ^= 1;
    std::fs::write(&path, &torn).expect("write");
    let (store, recovery) = open().expect("torn");
    assert!(recovery.truncated_bytes > 0);
    assert_eq!(Model::of(&store).entries, model.entries);
    drop(store);
    let first = directory.0.join(&names[0]);
    let mut bytes = std::fs::read(&first).expect("read");
    bytes[100] ^= 1;
    std::fs::write(&first, &bytes).expect("write");
    match open() {
        Err(Error::Corrupt { path, .. }) => assert_eq!(path, first.display().to_string()),
        other => panic!("damage was taken: {:?}", other.map(|o| o.1)),
    }
}
