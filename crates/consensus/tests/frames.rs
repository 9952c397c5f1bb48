//! Frames come out as they went in, however they are split, and nothing that
//! arrives makes the reader do worse than refuse.

use crane_consensus::wire::{
    self, Frame, FrameReader, HEADER_LEN, Hello, MAX_PAYLOAD, WireError, kind,
};
use crane_consensus::{Entry, Message, MessageType};
use proptest::prelude::*;

fn hello() -> Hello {
    Hello {
        members: b"1 2 3".to_vec(),
        agreed: b"file /bin/sh\t1\n".to_vec(),
        cluster_id: [9; 16],
        replica: 3,
        incarnation: 12,
        protocol: wire::PROTOCOL_VERSION,
    }
}

/// A frame with the kind and an owned payload, to compare.
fn own(frame: &Frame<'_>) -> (u8, Vec<u8>) {
    match frame {
        Frame::Hello(_) => (kind::HELLO, Vec::new()),
        Frame::Raft(p) => (kind::RAFT, p.to_vec()),
        Frame::Gateway(p) => (kind::GATEWAY, p.to_vec()),
        Frame::Hashes(p) => (kind::HASHES, p.to_vec()),
        Frame::Members(p) => (kind::MEMBERS, p.to_vec()),
        Frame::Other(k, p) => (*k, p.to_vec()),
    }
}

fn read_all(reader: &mut FrameReader) -> Result<Vec<(u8, Vec<u8>)>, WireError> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(own(&frame));
    }
    Ok(frames)
}

#[test]
fn hello_and_raft_messages_survive() {
    let mut message = Message {
        from: 1,
        to: 2,
        term: 7,
        entries: vec![Entry {
            index: 4,
            term: 7,
            data: b"input".to_vec(),
            ..Entry::default()
        }],
        ..Message::default()
    };
    message.set_msg_type(MessageType::MsgAppend);
    let mut bytes = Vec::new();
    wire::encode_hello(&hello(), &mut bytes);
    wire::encode_raft(&message, &mut bytes);
    let mut reader = FrameReader::new();
    reader.feed(&bytes);
    assert_eq!(reader.next_frame(), Ok(Some(Frame::Hello(hello()))));
    let Ok(Some(Frame::Raft(payload))) = reader.next_frame() else {
        panic!("a Raft frame was due");
    };
    assert_eq!(wire::decode_raft(payload), Ok(message));
    assert_eq!(reader.next_frame(), Ok(None));
    assert_eq!(reader.pending(), 0);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut good = Vec::new();
    wire::encode(kind::GATEWAY, b"some bytes of a client", &mut good);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut reader = FrameReader::new();
        reader.feed(&bytes);
        let error = reader.next_frame().expect_err("a damaged frame was taken");
        // And it stays that way.
        reader.feed(&good);
        assert_eq!(reader.next_frame(), Err(error));
    }
}

#[test]
fn refusals_have_their_reasons() {
    let refuse = |bytes: &[u8]| {
        let mut reader = FrameReader::new();
        reader.feed(bytes);
        reader.next_frame().map(|f| f.is_some())
    };
    assert_eq!(refuse(b"G"), Err(WireError::NotAFrame));
    assert_eq!(refuse(b"GET / HTTP/1.1\r\n"), Err(WireError::NotAFrame));
    assert_eq!(refuse(b"C"), Ok(false));
    let mut bytes = Vec::new();
    wire::encode(kind::HASHES, b"", &mut bytes);
    assert_eq!(refuse(&bytes), Ok(true));
    bytes[2] = 9;
    assert_eq!(refuse(&bytes), Err(WireError::Version(9)));

    let mut large = b"CN\x01\x03".to_vec();
    let len = MAX_PAYLOAD as u32 + 1;
    large.extend_from_slice(&len.to_le_bytes());
    large.extend_from_slice(&crc32c::crc32c(&large).to_le_bytes());
    large.extend_from_slice(&[0; 4]);
    assert_eq!(refuse(&large), Err(WireError::TooLarge(len)));

    let mut short = Vec::new();
    wire::encode(kind::HELLO, &[1; 29], &mut short);
    assert_eq!(refuse(&short), Err(WireError::Malformed));
    assert_eq!(wire::decode_raft(&[0xff; 9]), Err(WireError::Malformed));

    let mut newer = Vec::new();
    wire::encode(77, b"from the future", &mut newer);
    let mut reader = FrameReader::new();
    reader.feed(&newer);
    assert_eq!(
        reader.next_frame(),
        Ok(Some(Frame::Other(77, b"from the future")))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_split_gives_the_same_frames(
        payloads in prop::collection::vec((2u8..9, prop::collection::vec(any::<u8>(), 0..300)), 0..12),
        pieces in prop::collection::vec(1usize..200, 1..40),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in &payloads {
            wire::encode(*kind, payload, &mut bytes);
        }
        let mut reader = FrameReader::new();
        let mut got = Vec::new();
        let mut rest = &bytes[..];
        let mut sizes = pieces.iter().cycle();
        while !rest.is_empty() {
            let n = (*sizes.next().unwrap_or(&1)).min(rest.len());
            reader.feed(&rest[..n]);
            rest = &rest[n..];
            got.extend(read_all(&mut reader).expect("good frames"));
        }
        prop_assert_eq!(got, payloads);
        prop_assert_eq!(reader.pending(), 0);
    }

    #[test]
    fn hostile_bytes_are_refused_or_waited_for(
        prefix in 0usize..40,
        noise in prop::collection::vec(any::<u8>(), 0..400),
        pieces in prop::collection::vec(1usize..50, 1..20),
    ) {
        // A good beginning, then anything.
        let mut bytes = Vec::new();
        wire::encode(kind::RAFT, b"0123456789", &mut bytes);
        bytes.truncate(prefix);
        bytes.extend_from_slice(&noise);
        let mut reader = FrameReader::new();
        let mut sizes = pieces.iter().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n = (*sizes.next().unwrap_or(&1)).min(rest.len());
            reader.feed(&rest[..n]);
            rest = &rest[n..];
            if let Ok(frames) = read_all(&mut reader) {
                for (kind, payload) in frames {
                    if kind == kind::RAFT {
                        // May make sense or not, but must not panic.
                        let _ = wire::decode_raft(&payload);
                    }
                }
            }
            prop_assert!(reader.pending() <= HEADER_LEN + MAX_PAYLOAD);
        }
    }

    #[test]
    fn any_bytes_as_a_message_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::decode_raft(&bytes);
    }
}
