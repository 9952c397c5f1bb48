//! What comes over a connection from another replica, or from a stranger.

use crate::Choices;
use crane_consensus::wire::{self, Frame, FrameReader, WireError};
use crane_engine::roster::Roster;

/// Bytes of a connection in pieces, as they are and in frames with right
/// checksums, and all that is read inside of the frames.
pub fn run(data: &[u8]) {
    let mut choices = Choices(data);
    let mode = choices.byte();
    let piece = 1 + usize::from(choices.byte());
    if mode & 1 == 0 {
        let whole = read(choices.0, usize::MAX);
        let pieces = read(choices.0, piece);
        assert_eq!(whole, pieces, "how bytes are split must not matter");
        return;
    }
    let mut bytes = Vec::new();
    while !choices.is_empty() {
        let kind = choices.byte() % 8;
        let len = usize::from(choices.word());
        wire::encode(kind, choices.bytes(len), &mut bytes);
    }
    read(&bytes, piece);
}

/// Reads frames up to an error; returns how many there were, and the error.
fn read(bytes: &[u8], piece: usize) -> (usize, Option<WireError>) {
    let mut reader = FrameReader::new();
    let mut frames = 0;
    for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
        reader.feed(piece);
        loop {
            match reader.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => look_into(frame),
                Err(error) => return (frames, Some(error)),
            }
            frames += 1;
        }
    }
    (frames, None)
}

fn look_into(frame: Frame<'_>) {
    match frame {
        Frame::Hello(hello) => {
            let mut again = Vec::new();
            wire::encode_hello(&hello, &mut again);
            let mut reader = FrameReader::new();
            reader.feed(&again);
            assert_eq!(reader.next_frame(), Ok(Some(Frame::Hello(hello.clone()))));
            crane_engine::decoders::agreed(&hello.agreed);
            look_at_members(&hello.members);
        }
        Frame::Raft(bytes) => drop(wire::decode_raft(bytes)),
        Frame::Gateway(bytes) => crane_engine::decoders::gateway(bytes),
        Frame::Hashes(bytes) => crane_engine::decoders::hashes(bytes),
        Frame::Members(bytes) => look_at_members(bytes),
        Frame::Other(..) => {}
    }
}

/// What is understood is said again in the same way.
fn look_at_members(bytes: &[u8]) {
    if let Some(roster) = Roster::decode(bytes) {
        assert_eq!(Roster::decode(&roster.encode()), Some(roster));
    }
}
