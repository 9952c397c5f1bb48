//! What the server did lately, so that two replicas that differ can say where it
//! began: its last operations, by logical clock, and its last outputs.
//!
//! Written by the holder of the turn, read by the node at any time. An operation
//! is one word at the place that its clock gives; older ones are overwritten.
//! A reader looks at [`Header::ticks`](crate::layout::Header::ticks) afterwards
//! and keeps only what cannot have been overwritten meanwhile.

use crate::layout::{OPERATIONS, OUTPUTS};
use core::sync::atomic::{AtomicU64, Ordering};

const CODE_BITS: u32 = 8;
const SLOT_BITS: u32 = 13;
/// Objects are told apart by 16 bytes of memory.
const OBJECT_SHIFT: u32 = 4;
#[cfg(any(feature = "std", test))]
/// Operations and outputs that may be under way while the ring is read.
const UNDER_WAY: u64 = 4;

/// One operation, as it lies in the ring; 0: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation(pub u64);

impl Operation {
    /// An operation `code` (below 256, not 0) of thread `slot` (below 8192) on the
    /// object at `object` (0: on none).
    #[inline]
    pub fn new(code: u32, slot: u32, object: u64) -> Self {
        let object = object >> OBJECT_SHIFT << (CODE_BITS + SLOT_BITS);
        Self(object | u64::from(slot) << CODE_BITS | u64::from(code))
    }

    /// Its code.
    pub fn code(self) -> u32 {
        (self.0 & ((1 << CODE_BITS) - 1)) as u32
    }

    /// The thread's slot.
    pub fn slot(self) -> u32 {
        (self.0 >> CODE_BITS & ((1 << SLOT_BITS) - 1)) as u32
    }

    /// Address of the object, rounded down to 16 bytes; 0: none.
    pub fn object(self) -> u64 {
        self.0 >> (CODE_BITS + SLOT_BITS) << OBJECT_SHIFT
    }

    /// Whether both are the same but for the object.
    pub fn is_like(self, other: Self) -> bool {
        (self.0 ^ other.0) & ((1 << (CODE_BITS + SLOT_BITS)) - 1) == 0
    }
}

/// What an output was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Logical clock of the operation that it belongs to.
    pub clock: u64,
    /// The connection, or the number of a datagram socket.
    pub conn: u64,
    /// Running hash of all output up to this one.
    pub hash: u64,
    /// 1 bytes, 2 end of output, 3 close, 4 a datagram's address, 5 its bytes.
    pub what: u32,
    /// Bytes, the lower 32 bits of their number.
    pub len: u32,
}

/// An output as it lies in the ring.
#[repr(C)]
#[derive(Default)]
pub struct SentRecord {
    clock: AtomicU64,
    conn: AtomicU64,
    hash: AtomicU64,
    rest: AtomicU64,
}

impl SentRecord {
    /// Writes it.
    #[inline]
    pub fn set(&self, sent: Sent) {
        self.clock.store(sent.clock, Ordering::Relaxed);
        self.conn.store(sent.conn, Ordering::Relaxed);
        self.hash.store(sent.hash, Ordering::Relaxed);
        let rest = u64::from(sent.what) << 32 | u64::from(sent.len);
        self.rest.store(rest, Ordering::Relaxed);
    }

    #[cfg(any(feature = "std", test))]
    fn get(&self) -> Sent {
        let rest = self.rest.load(Ordering::Relaxed);
        Sent {
            clock: self.clock.load(Ordering::Relaxed),
            conn: self.conn.load(Ordering::Relaxed),
            hash: self.hash.load(Ordering::Relaxed),
            what: (rest >> 32) as u32,
            len: rest as u32,
        }
    }
}

/// Place of the operation at logical clock `clock`.
#[inline]
pub fn place_of(clock: u64) -> usize {
    clock as usize % OPERATIONS
}

#[cfg(any(feature = "std", test))]
/// The node's view.
#[derive(Clone, Copy)]
pub struct Recent<'a> {
    /// By place.
    pub operations: &'a [AtomicU64],
    /// By number.
    pub outputs: &'a [SentRecord],
    /// The logical clock.
    pub ticks: &'a AtomicU64,
    /// Outputs so far.
    pub sent: &'a AtomicU64,
}

#[cfg(any(feature = "std", test))]
impl Recent<'_> {
    /// The operations at the logical clocks `from` to `to`, with the clock of the
    /// first. Those that were overwritten are left out, so it may begin later.
    pub fn operations(&self, from: u64, to: u64) -> (u64, Vec<Operation>) {
        let kept = |now: u64| (now + UNDER_WAY).saturating_sub(OPERATIONS as u64) + 1;
        let to = to.min(self.ticks.load(Ordering::SeqCst));
        let from = from.max(1).max(kept(to));
        let read = |clock| Operation(self.operations[place_of(clock)].load(Ordering::Relaxed));
        let mut found: Vec<Operation> = (from..=to).map(read).collect();
        let first = from.max(kept(self.ticks.load(Ordering::SeqCst)));
        found.drain(..((first - from) as usize).min(found.len()));
        // What was done before this segment was loaded is not there.
        let absent = found
            .iter()
            .rposition(|one| one.0 == 0)
            .map_or(0, |n| n + 1);
        found.drain(..absent);
        (first + absent as u64, found)
    }

    /// The outputs of the operations at the logical clocks `from` to `to` that
    /// are still there, in order; and whether those are all.
    pub fn outputs(&self, from: u64, to: u64) -> (Vec<Sent>, bool) {
        let len = self.outputs.len() as u64;
        let end = self.sent.load(Ordering::SeqCst);
        let begin = (end + UNDER_WAY).saturating_sub(len);
        let mut found = Vec::new();
        for number in (begin..end).rev() {
            let sent = self.outputs[(number % len) as usize].get();
            if sent.clock < from {
                break;
            }
            found.push((number, sent));
        }
        let kept = (self.sent.load(Ordering::SeqCst) + UNDER_WAY).saturating_sub(len);
        let whole = found.last().map_or(end, |last| last.0) > kept || kept == 0;
        found.retain(|(number, sent)| *number >= kept && sent.clock <= to);
        (found.into_iter().rev().map(|one| one.1).collect(), whole)
    }
}

const _: () = assert!(OPERATIONS.is_power_of_two() && OUTPUTS.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    struct Rings {
        operations: Vec<AtomicU64>,
        outputs: Vec<SentRecord>,
        ticks: AtomicU64,
        sent: AtomicU64,
    }

    impl Rings {
        fn new() -> Self {
            Self {
                operations: (0..OPERATIONS).map(|_| AtomicU64::new(0)).collect(),
                outputs: (0..OUTPUTS).map(|_| SentRecord::default()).collect(),
                ticks: AtomicU64::new(0),
                sent: AtomicU64::new(0),
            }
        }

        fn tick(&self, code: u32) -> u64 {
            let clock = self.ticks.load(Ordering::SeqCst) + 1;
            let one = Operation::new(code, 3, 0x7fff_1234_5678);
            self.operations[place_of(clock)].store(one.0, Ordering::SeqCst);
            self.ticks.store(clock, Ordering::SeqCst);
            clock
        }

        fn send(&self, clock: u64) {
            let number = self.sent.load(Ordering::SeqCst);
            self.outputs[number as usize % OUTPUTS].set(Sent {
                clock,
                conn: 7,
                hash: number,
                what: 1,
                len: 5,
            });
            self.sent.store(number + 1, Ordering::SeqCst);
        }

        fn recent(&self) -> Recent<'_> {
            Recent {
                operations: &self.operations,
                outputs: &self.outputs,
                ticks: &self.ticks,
                sent: &self.sent,
            }
        }
    }

    #[test]
    fn an_operation_is_one_word() {
        let one = Operation::new(182, 8191, 0x7fff_ffff_ffff);
        assert_eq!((one.code(), one.slot()), (182, 8191));
        assert_eq!(one.object(), 0x7fff_ffff_fff0);
        assert!(one.is_like(Operation::new(182, 8191, 16)));
        assert!(!one.is_like(Operation::new(182, 8190, 0x7fff_ffff_ffff)));
    }

    #[test]
    fn the_last_operations_are_found_by_their_clock() {
        let rings = Rings::new();
        for number in 0..OPERATIONS as u32 + 1000 {
            rings.tick(number % 200 + 1);
        }
        let (first, found) = rings.recent().operations(0, u64::MAX);
        assert_eq!(first, 1001 + UNDER_WAY);
        assert_eq!(found.len(), OPERATIONS - UNDER_WAY as usize);
        assert_eq!(found[0].code(), (first - 1) as u32 % 200 + 1);
        let (first, found) = rings.recent().operations(5000, 5009);
        assert_eq!((first, found.len(), found[9].slot()), (5000, 10, 3));
        assert!(rings.recent().operations(1, 10).1.is_empty());
    }

    #[test]
    fn what_was_before_a_restore_is_not_there() {
        let rings = Rings::new();
        rings.ticks.store(500, Ordering::SeqCst);
        rings.tick(1);
        rings.tick(2);
        let (first, found) = rings.recent().operations(400, 600);
        assert_eq!((first, found.len()), (501, 2));
    }

    #[test]
    fn outputs_are_found_by_their_clock() {
        let rings = Rings::new();
        for clock in 1..=OUTPUTS as u64 * 2 {
            rings.tick(1);
            rings.send(clock);
        }
        let last = OUTPUTS as u64 * 2;
        let (found, whole) = rings.recent().outputs(last - 1, last);
        assert_eq!((found.len(), found[0].clock, whole), (2, last - 1, true));
        let (found, whole) = rings.recent().outputs(1, last);
        assert_eq!((found.len(), whole), (OUTPUTS - UNDER_WAY as usize, false));
    }
}
