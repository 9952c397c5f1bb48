//! Datagrams on their way out: one message at a time in one piece.

use crate::world::world;
use crane_vkernel::Gather;

/// Longest datagram.
const LONGEST: usize = 65_536;

/// Room for the parts of a message, in shared memory because the threads of a
/// program may have small stacks.
#[repr(C)]
pub(crate) struct Scratch {
    bytes: [u8; LONGEST],
}

/// The parts of a message in one piece, valid until the next one.
pub(crate) fn gathered<'a>(mut data: Gather<'_>) -> &'a [u8] {
    let len = data.len().min(LONGEST);
    let room = &mut world().datagram.bytes[..len];
    data.copy_to(room);
    room
}
