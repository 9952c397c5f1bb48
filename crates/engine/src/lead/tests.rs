//! What a leader makes of what waits.

use super::*;
use crane_channel::epoch::{ConnId, Entry};

fn next(leading: &mut Leading, own: &mut EventStream, bubble: Bubble) -> Option<Proposal> {
    leading.next(own, bubble, 100, 1000, 0, || [7; 32])
}

fn leading() -> Leading {
    let mut leading = Leading::default();
    leading.begin(&Filter::new());
    leading
}

fn gather(stream: &mut EventStream, gateway: u8, bytes: &[u8]) {
    let conn = ConnId::new(gateway, 1, 1);
    stream.push(&Event::Data { conn, bytes });
}

#[test]
fn all_that_waits_goes_into_one_entry() {
    let mut leading = leading();
    let (mut own, mut other) = (EventStream::new(1, 1), EventStream::new(2, 1));
    gather(&mut own, 1, b"a");
    gather(&mut own, 1, b"b");
    gather(&mut other, 2, b"c");
    leading
        .offer(2, other.take_unsent().unwrap().1.to_vec())
        .unwrap();
    let proposal = next(&mut leading, &mut own, Bubble::None).unwrap();
    assert!(proposal.foreign && !proposal.bubble);
    let entry = Entry::decode(&proposal.entry).unwrap();
    assert_eq!((entry.batches, entry.head.time), (2, 1000));
    assert_eq!(entry.head.seed, Some([7; 32]));
    assert!(next(&mut leading, &mut own, Bubble::None).is_none());
    // The same again, as after a lost connection, is not proposed again.
    other.rewind();
    leading
        .offer(2, other.take_unsent().unwrap().1.to_vec())
        .unwrap();
    own.rewind();
    assert!(next(&mut leading, &mut own, Bubble::None).is_none());
}

#[test]
fn time_grows_and_reaches_the_deadline() {
    let mut leading = leading();
    let mut own = EventStream::new(1, 1);
    let mut time = |bubble| {
        let proposal = next(&mut leading, &mut own, bubble).unwrap();
        assert!(proposal.bubble);
        let head = Entry::decode(&proposal.entry).unwrap().head;
        (head.time, head.seed.is_some())
    };
    assert_eq!(time(Bubble::Now), (1000, true));
    assert_eq!(time(Bubble::Now), (1001, false));
    assert_eq!(time(Bubble::At(5000)), (5000, false));
    assert_eq!(time(Bubble::Now), (5001, false));
}

#[test]
fn long_queues_are_split_into_entries() {
    let mut leading = leading();
    let mut own = EventStream::new(1, 1);
    let bytes = vec![1; 60_000];
    for _ in 0..60 {
        gather(&mut own, 1, &bytes);
    }
    let mut entries = 0;
    while let Some(proposal) = next(&mut leading, &mut own, Bubble::None) {
        assert!(proposal.entry.len() < 2 << 20);
        entries += 1;
    }
    assert!((3..=5).contains(&entries), "{entries}");
}

#[test]
fn a_gateway_is_declared_down_once() {
    let mut filter = Filter::new();
    let mut stream = EventStream::new(2, 5);
    gather(&mut stream, 2, b"x");
    filter.take(&stream.take_unsent().unwrap().0);
    let mut leading = Leading::default();
    leading.begin(&filter);
    let mut own = EventStream::new(1, 1);
    leading.declare_down(2, 4);
    assert!(!leading.has_events(&own));
    leading.declare_down(2, 5);
    leading.declare_down(2, 5);
    let proposal = next(&mut leading, &mut own, Bubble::None).unwrap();
    assert_eq!(Entry::decode(&proposal.entry).unwrap().batches, 1);
    leading.declare_down(2, 5);
    assert!(!leading.has_events(&own));
}

#[test]
fn strange_batches_are_refused() {
    let mut leading = leading();
    let mut stream = EventStream::new(3, 1);
    gather(&mut stream, 3, b"x");
    let bytes = stream.take_unsent().unwrap().1.to_vec();
    assert!(leading.offer(2, bytes.clone()).is_err());
    assert!(leading.offer(3, bytes[..bytes.len() - 1].to_vec()).is_err());
    let mut stream = EventStream::new(3, 1);
    gather(&mut stream, 4, b"x");
    let bytes = stream.take_unsent().unwrap().1.to_vec();
    assert!(leading.offer(3, bytes).is_err());
    let mut stream = EventStream::new(3, 1);
    stream.push(&Event::GatewayDown {
        gateway: 2,
        incarnation: 1,
    });
    let bytes = stream.take_unsent().unwrap().1.to_vec();
    assert!(leading.offer(3, bytes).is_err());
    let mut stream = EventStream::new(3, 1);
    stream.push(&Event::Signal { number: 1 });
    let bytes = stream.take_unsent().unwrap().1.to_vec();
    assert!(leading.offer(3, bytes).is_ok());
}

#[test]
fn a_program_begins_anew_once_for_each_life() {
    let mut leading = leading();
    let mut own = EventStream::new(1, 1);
    next(&mut leading, &mut own, Bubble::Now).unwrap();
    let proposal = leading.restart(0, 1000).unwrap();
    assert!(!proposal.bubble);
    assert!(leading.restart(0, 1000).is_none());
    let view = leading.view().unwrap();
    assert_eq!((view.life(), view.epochs(), view.seeded()), (1, 0, false));
    // What comes next is the first epoch of the new one, with chance of its own.
    let first = next(&mut leading, &mut own, Bubble::Now).unwrap();
    assert!(Entry::decode(&first.entry).unwrap().head.seed.is_some());
    assert!(leading.restart(1, 1000).is_some());
}
