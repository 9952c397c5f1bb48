//! The node's share of a checkpoint, the engine's settings, and the file of a
//! saved segment.

use crate::Choices;
use crane_channel::epoch::{BatchHead, EpochHead};
use crane_channel::segment::{Segment, Settings};
use crane_engine::share::Share;
use crane_gateway::entry::EntryBuilder;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A share that is read goes on as a filter; a segment that is loaded can be
/// looked at.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.byte() % 3 {
        0 => share(choices.0),
        1 => settings(choices.0),
        _ => segment(choices.0),
    }
}

fn share(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(share) = Share::decode(text) else {
        return;
    };
    assert_eq!(
        Share::decode(&share.encode().to_string()),
        Ok(share.clone())
    );
    let mut filter = share.filter();
    let gateways: Vec<_> = filter.gateways().collect();
    for (gateway, state) in gateways {
        let head = BatchHead {
            gateway,
            incarnation: state.incarnation,
            first_seq: state.next_seq,
            events: u16::MAX,
        };
        filter.take(&head);
    }
    let head = EpochHead {
        time: filter.last_time(),
        budget: 1,
        seed: None,
    };
    let entry = EntryBuilder::new(&head, 0).finish();
    filter.admit(&entry, &mut Vec::new()).expect("an entry");
}

fn settings(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = crane_engine::Config::from_json(text);
    }
}

fn segment(bytes: &[u8]) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = crate::segment::memory().join(format!("crane-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    let saved = folder.join("saved");
    std::fs::write(&saved, bytes).expect("a file");
    let settings = Settings {
        replica: 1,
        quantum: 100,
        trace: false,
        objects: false,
        preempt: true,
        vote: false,
    };
    if let Ok(segment) = Segment::load(&folder.join("segment"), &saved, settings) {
        crane_engine::decoders::Scribbled::new(segment).look();
    }
}
