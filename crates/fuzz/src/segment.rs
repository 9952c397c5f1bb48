//! The shared segment, written over by the program.

use crate::Choices;
use crane_channel::layout::{CARDS_OFFSET, HEADER_LEN, OUTPUT_RING_OFFSET};
use crane_channel::segment::{Segment, Settings};
use crane_engine::decoders::Scribbled;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A folder in memory, if there is one.
pub fn memory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() {
        shm
    } else {
        std::env::temp_dir()
    }
}

/// Writes anywhere into what the node reads, and has the node read it.
pub fn run(data: &[u8]) {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    let place = PLACE.get_or_init(|| memory().join(format!("crane-fuzz-{}", std::process::id())));
    let settings = Settings {
        replica: 1,
        quantum: 100,
        trace: false,
        objects: false,
        preempt: true,
        vote: false,
    };
    let segment = Segment::create(place, settings).expect("a segment");
    let file = std::fs::File::options().write(true).open(place);
    let file = file.expect("it was made just now");
    std::fs::remove_file(place).expect("it was made just now");
    let mut scribbled = Scribbled::new(segment);
    let mut choices = Choices(data);
    while !choices.is_empty() {
        let what = choices.byte();
        let near = u64::from(choices.word());
        let at = match what % 3 {
            0 => near % HEADER_LEN as u64,
            1 => CARDS_OFFSET as u64 + near,
            _ => OUTPUT_RING_OFFSET as u64 + near,
        };
        let bytes = choices.bytes(1 + usize::from(what >> 2));
        file.write_all_at(bytes, at).expect("memory");
        if choices.byte() & 1 == 0 {
            scribbled.look();
        }
    }
    scribbled.look();
}
