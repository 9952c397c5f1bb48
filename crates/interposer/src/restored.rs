//! After a restore from a checkpoint: what the kernel kept beside memory and
//! descriptors, and does not bring back.
//!
//! A checkpoint is taken while every thread sleeps in a futex wait on the
//! segment. Restored, each goes on with its next turn, and first of all sees that
//! the segment is of another generation. Reading the time-stamp counter must
//! fault again, and programs that it executes must have no random addresses.

use crate::inodes;
use crate::raw::sys;
use crate::tsc;
use crate::world::{header, world};
use core::sync::atomic::Ordering;
use crane_scheduler::Slot;
use syscalls::Sysno;

/// Asks personality(2) for the present one.
const PRESENT: usize = 0xffff_ffff;
const ADDR_NO_RANDOMIZE: usize = 0x0004_0000;

/// Looks, with the turn just taken, whether the calling thread was restored.
#[inline]
pub(crate) fn look(me: Slot) {
    let generation = header().generation.load(Ordering::Relaxed);
    if world().threads[me as usize].generation != generation {
        world().threads[me as usize].generation = generation;
        arm();
    }
}

#[cold]
fn arm() {
    tsc::guard_again();
    inodes::find_again();
    // SAFETY: personality(2) takes a number only.
    unsafe {
        let present = sys!(Sysno::personality, PRESENT);
        sys!(Sysno::personality, present | ADDR_NO_RANDOMIZE);
    }
}
