//! The files of a log that a disk, or somebody, changed.

use crate::Choices;
use crane_consensus::{Config, Disk, LogStore, Node, SimDisk, StoreConfig};
use std::sync::OnceLock;

/// Where the log's own seed is in `meta`.
const SEED_AT: usize = 88;
const RECORD: usize = 32;

/// Files of a good log with a few entries in several segments.
fn good() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let disk = SimDisk::new();
        let (mut node, _) = Node::open(config(), disk.reopen()).expect("a new log");
        for round in 0..30u8 {
            while node.has_urgent() || node.has_ready() {
                node.process(&mut Nowhere).expect("a good disk");
            }
            node.tick();
            if node.is_leader() {
                node.propose(vec![round; 60 * usize::from(round % 7)])
                    .expect("it leads");
            }
        }
        node.close().expect("a good disk");
        let names = disk.list().expect("a good disk");
        let files = names.into_iter().map(|name| {
            let content = disk.content(&name).expect("it is there");
            (name, content)
        });
        files.collect()
    })
}

fn config() -> Config {
    let mut config = Config::new(1, vec![1], [7; 16]);
    config.segment_bytes = 4096;
    config.seed = Some(1);
    config.election_ticks = 4;
    config.heartbeat_ticks = 1;
    config
}

struct Nowhere;

impl crane_consensus::Output for Nowhere {
    fn send(&mut self, _to: u64, _msg: crane_consensus::Message) {}

    fn committed(&mut self, _index: u64, _term: u64, _data: &[u8]) {}

    fn role_changed(&mut self, _: crane_consensus::Role, _: u64, _: Option<u64>) {}

    fn needs_checkpoint(&mut self, _index: u64) {}

    fn accepts_committed(&mut self) -> bool {
        true
    }
}

/// Changes files, with or without putting the checksums right, and opens the
/// log: it is refused in words or can be read to its end.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let honest = choices.byte() & 1 == 0;
    let mut files = good().to_vec();
    while !choices.is_empty() {
        let at = usize::from(choices.byte()) % files.len();
        let content = &mut files[at].1;
        let how = choices.byte();
        let offset = usize::from(choices.word()) % (content.len() + 1);
        match how % 4 {
            0 => content.truncate(offset),
            1 => {
                let insert = choices.bytes(usize::from(how >> 2));
                content.splice(offset..offset, insert.iter().copied());
            }
            2 => drop(files.remove(at)),
            _ => {
                let over = choices.bytes(1 + usize::from(how >> 2));
                let end = content.len().min(offset + over.len());
                content[offset..end].copy_from_slice(&over[..end - offset]);
            }
        }
        if files.is_empty() {
            break;
        }
    }
    if !honest {
        set_checksums(&mut files);
    }
    let disk = SimDisk::new();
    for (name, content) in &files {
        disk.set_content(name, content);
    }
    if let Ok(config) = StoreConfig::found_on(&disk)
        && let Ok((store, _)) = LogStore::open(disk.reopen(), &config)
    {
        let end = store.last_index() + 1;
        let mut next = store.base() + 1;
        while next < end {
            let Ok(entries) = store.read(next, end, 1 << 20) else {
                break;
            };
            let Some(last) = entries.last() else {
                break;
            };
            assert!(last.index >= next, "reading must go on");
            next = last.index + 1;
        }
    }
    // With wrong checksums nothing may pass; a log that was forged with right
    // ones is its owner's own doing, and consensus would end the process.
    if honest {
        let _ = Node::open(config(), disk.reopen());
    }
}

fn set_checksums(files: &mut [(String, Vec<u8>)]) {
    let mut seed = 0;
    for (name, content) in files.iter_mut() {
        if name == "meta" && content.len() >= SEED_AT + 8 {
            let end = content.len() - 4;
            let crc = crc32c::crc32c(&content[..end]);
            content[end..].copy_from_slice(&crc.to_le_bytes());
            seed = u32_at(content, SEED_AT);
        }
    }
    let mut previous = seed;
    for (name, content) in files.iter_mut() {
        if name == "meta" {
            continue;
        }
        let mut at = 0;
        while at + RECORD <= content.len() {
            let len = u32_at(content, at + 8) as usize;
            let size = RECORD + len.next_multiple_of(8);
            if content[at + 12] == 0 || at + size > content.len() {
                break;
            }
            content[at + 4..at + 8].copy_from_slice(&previous.to_le_bytes());
            let crc = crc32c::crc32c_append(seed, &content[at + 4..at + size]);
            content[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            previous = crc;
            at += size;
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
