//! The last operations and outputs, for when replicas differ: see
//! [`crane_channel::recent`].

use crate::world::header;
use core::sync::atomic::{AtomicU64, Ordering};
use crane_channel::layout::{
    OPERATIONS, OPERATIONS_OFFSET, OUTPUTS, OUTPUTS_OFFSET, SEGMENT_ADDRESS,
};
use crane_channel::recent::{Operation, Sent, SentRecord, place_of};

/// Remembers the operation at `clock`. The caller holds the turn.
#[inline]
pub(crate) fn note(clock: u64, code: u32, slot: u32, object: u64) {
    // SAFETY: mapped by `attach`; the place is below the number of words, which
    // are atomics.
    let places =
        unsafe { &*((SEGMENT_ADDRESS + OPERATIONS_OFFSET) as *const [AtomicU64; OPERATIONS]) };
    let one = Operation::new(code, slot, object);
    places[place_of(clock)].store(one.0, Ordering::Relaxed);
}

/// Remembers an output. The caller holds the turn.
pub(crate) fn sent(sent: Sent) {
    // SAFETY: as above.
    let places = unsafe { &*((SEGMENT_ADDRESS + OUTPUTS_OFFSET) as *const [SentRecord; OUTPUTS]) };
    let count = &header().sent;
    let number = count.load(Ordering::Relaxed);
    places[number as usize % OUTPUTS].set(sent);
    count.store(number + 1, Ordering::Release);
}
