//! When the leader proposes an epoch without inputs.
//!
//! Only when its own server has done everything that was agreed and asks for
//! more: because its budget is used up, or because a moment of virtual time is
//! due. A server that waits for clients costs nothing.

use crate::lead::{Bubble, Leading};
use crate::shared::Shared;
use crane_channel::layout::{NO_DEADLINE, State};
use std::sync::atomic::Ordering;

/// Looks at the server and says what to propose; sets the alarm for later.
/// `published` is the last epoch given to the server, `now` the virtual time.
pub fn look(shared: &Shared, leading: &Leading, published: u64, now: u64) -> Bubble {
    let interest = &shared.interest;
    let Some(view) = leading.view() else {
        interest.bubbles.store(false, Ordering::SeqCst);
        shared.make_known();
        shared.alarm.set(None);
        return Bubble::None;
    };
    if view.epochs() == 0 {
        // Servers wait for their first epoch before they run.
        return Bubble::Now;
    }
    // The wish first, then the look: see `Interest`.
    interest.bubbles.store(true, Ordering::SeqCst);
    shared.make_known();
    let header = shared.segment.header();
    let state = State::from_raw(header.state.load(Ordering::SeqCst));
    let epoch = header.epoch.load(Ordering::SeqCst);
    if leading.in_flight() > 0 || epoch != published {
        return Bubble::None;
    }
    match state {
        State::NeedsBudget => Bubble::Now,
        State::Quiescent => {
            let deadline = header.deadline.load(Ordering::SeqCst);
            if deadline <= now {
                return Bubble::At(deadline);
            }
            let armed = (deadline != NO_DEADLINE).then_some(deadline);
            shared.alarm.set(armed);
            Bubble::None
        }
        _ => Bubble::None,
    }
}
