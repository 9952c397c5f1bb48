//! The program's threads and what each of them waits for, for its owner.

use crate::shared::Shared;
use crane_channel::layout::THREAD_CARDS;
use crane_channel::segment::Segment;
use crane_scheduler::{Doing, Scheduler};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;

/// A copy of the scheduler's state, taken while the program may be changing it:
/// for looking, not for deciding.
fn copy(segment: &Segment) -> Option<Box<Scheduler>> {
    let offset = segment.header().scheduler.load(Relaxed);
    if offset == 0 {
        return None;
    }
    // SAFETY: all-zero memory is a valid scheduler.
    let mut scheduler = unsafe { Box::<Scheduler>::new_zeroed().assume_init() };
    // SAFETY: a scheduler is integers only, so any bytes are valid for it.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut((&raw mut *scheduler).cast::<u8>(), size_of::<Scheduler>())
    };
    segment.read(offset, bytes).ok()?;
    Some(scheduler)
}

/// The threads as a JSON array.
pub fn threads(shared: &Shared) -> Value {
    let Some(scheduler) = copy(&shared.segment) else {
        return json!([]);
    };
    let cards = shared.segment.cards();
    let end = (scheduler.slots_end() as usize).min(THREAD_CARDS);
    let rows = (1..end).filter_map(|slot| {
        let look = scheduler.look(slot as u32)?;
        let card = &cards[slot];
        let (state, key, deadline) = match look.doing {
            Doing::Running => ("running", None, None),
            Doing::Ready => ("ready", None, None),
            Doing::Spinning => ("spinning", None, None),
            Doing::Stopped => ("stopped", None, None),
            Doing::Waiting { key, deadline } => ("waiting", Some(key), deadline),
        };
        Some(json!({
            "slot": slot,
            "process": look.process,
            "pid": card.pid.load(Relaxed),
            "tid": card.tid.load(Relaxed),
            "operation": card.operation.load(Relaxed),
            "state": state,
            "key": key.filter(|key| *key != 0).map(|key| format!("{key:#x}")),
            "deadline_ns": deadline,
        }))
    });
    rows.collect()
}
