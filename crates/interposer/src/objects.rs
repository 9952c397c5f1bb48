//! What synchronisation objects have in common: who waits for which.
//!
//! The objects are the C library's in size and in what their static
//! initialisers mean, but every call on them is ours: glibc's own condition
//! variables, for one, lock their mutex by internal calls that nobody could
//! order. As only the holder of the turn runs, their words need no atomics.
//! A wait is always "try; if it cannot be, wait for the key and try again".
//! The words change while we wait, by others in their turns, so waiting code
//! works through pointers and never holds a reference.

use crate::clock;
use crate::raw;
use crate::world::world;
use core::ffi::c_int;
use crane_scheduler::Slot;

const SHARED_TAG: u64 = 0x53 << 56;

/// Wait key of an object that its process has for itself: its address and the
/// process, because a forked sibling has another object at the same address.
pub(crate) fn private_key<T>(object: *const T, me: Slot) -> u64 {
    let process = u64::from(world().threads[me as usize].process);
    (object as u64 & 0x7fff_ffff_ffff) | process << 47
}

/// Wait key of an object in memory that processes share, perhaps at different
/// addresses: a number that is written into the object when it is first needed.
///
/// # Safety
/// `id` is the place for the number in a valid object.
pub(crate) unsafe fn shared_key(id: *mut u64) -> u64 {
    // SAFETY: as above; read without alignment, because a program may pack
    // what it shares.
    unsafe {
        if id.read_unaligned() == 0 {
            let w = world();
            w.shared_objects += 1;
            id.write_unaligned(w.shared_objects);
        }
        id.read_unaligned() | SHARED_TAG
    }
}

/// How long to try to get something.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Try,
    Forever,
    /// Until an absolute time on a clock.
    Until(c_int, *const libc::timespec),
}

impl Limit {
    /// The end of a wait that begins now, in virtual time.
    ///
    /// # Errors
    /// `busy` for a mere try, EINVAL for a bad time.
    ///
    /// # Safety
    /// The time is a valid one.
    pub(crate) unsafe fn deadline(self, busy: c_int) -> Result<Option<u64>, c_int> {
        match self {
            Self::Try => Err(busy),
            Self::Forever => Ok(None),
            // SAFETY: same contract.
            Self::Until(id, at) => unsafe { clock::deadline_from(id, at) }.map(Some),
        }
    }

    /// Whether the clock is one that locks can wait on.
    pub(crate) fn has_lock_clock(self) -> bool {
        match self {
            Self::Until(id, _) => id == libc::CLOCK_REALTIME || id == libc::CLOCK_MONOTONIC,
            _ => true,
        }
    }

    /// Whether its nanoseconds are below a second.
    ///
    /// # Safety
    /// The time is a valid place.
    pub(crate) unsafe fn is_proper(self) -> bool {
        match self {
            // SAFETY: same contract.
            Self::Until(_, at) => unsafe { (0..1_000_000_000).contains(&(*at).tv_nsec) },
            _ => true,
        }
    }
}

/// What is written as the owner: the thread's kernel id.
pub(crate) fn owner_id(me: Slot) -> u32 {
    if me == 0 {
        raw::gettid()
    } else {
        world().threads[me as usize].tid
    }
}

/// Whether the thread with this kernel id lives.
pub(crate) fn is_alive(tid: u32) -> bool {
    let w = world();
    (1..w.scheduler.slots_end()).any(|slot| {
        let t = &w.threads[slot as usize];
        t.tid == tid && t.ended == 0 && w.scheduler.exists(slot)
    })
}
