//! Objects that a thread keeps while it waits for them.
//!
//! Another thread may close the descriptor meanwhile, and the object stays, as
//! in Linux. A thread that is ended in its wait (its process is killed or ends,
//! another thread calls exec) does not come back to give it up, so what it
//! keeps is in its record: else the other side would never see the end.

use crate::boundary::Effects;
use crate::tls;
use crate::world::{vkernel, world};
use core::ffi::c_int;
use crane_scheduler::Slot;
use crane_vkernel::DescId;

/// Waits within handlers within waits, of which each keeps one.
const MOST: usize = 6;

/// What one thread keeps. All-zero: nothing.
#[repr(C)]
pub(crate) struct Holds {
    objects: [u32; MOST],
}

/// Keeps an object for the calling thread.
pub(crate) fn keep(me: Slot, desc: DescId) -> Result<(), c_int> {
    vkernel().desc_hold(desc).map_err(|e| e.0)?;
    let objects = &mut world().threads[me as usize].holds.objects;
    if let Some(free) = objects.iter_mut().find(|object| **object == 0) {
        *free = desc.raw();
    }
    Ok(())
}

/// Gives it up again.
pub(crate) fn give_up(desc: DescId) {
    let me = tls::slot();
    let objects = &mut world().threads[me as usize].holds.objects;
    // A child that was made in a handler during the wait has not kept it.
    if let Some(kept) = objects.iter_mut().rfind(|object| **object == desc.raw()) {
        *kept = 0;
        let _ = vkernel().desc_release(&mut Effects, desc);
    }
}

/// The thread is gone, or will never come back to its waits.
pub(crate) fn give_up_all(slot: Slot) {
    vkernel().poll_unregister_all(slot);
    for at in 0..MOST {
        let object = core::mem::take(&mut world().threads[slot as usize].holds.objects[at]);
        if object != 0 {
            let _ = vkernel().desc_release(&mut Effects, DescId::from_raw(object));
        }
    }
}
