//! Scheduling policies and priorities of threads: kept, shown, and without
//! effect. The kernel's would need a privilege that a replica may not have, and
//! nothing but the turn decides who runs.

use crate::raw::fail;
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{threads, tls};
use core::ffi::c_int;
use crane_scheduler::Slot;
use libc::sched_param;

const RESET_ON_FORK: c_int = 0x4000_0000;
const PTHREAD_EXPLICIT_SCHED: c_int = 1;

/// Whether a policy takes that priority (sched(7)).
fn is_valid(policy: c_int, priority: c_int) -> bool {
    match policy & !RESET_ON_FORK {
        libc::SCHED_FIFO | libc::SCHED_RR => (1..=99).contains(&priority),
        libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE => priority == 0,
        _ => false,
    }
}

/// A new thread has its creator's.
pub(crate) fn inherit(creator: Slot, slot: Slot) {
    let w = world();
    let t = &w.threads[creator as usize];
    let (policy, priority) = (t.policy, t.priority);
    let t = &mut w.threads[slot as usize];
    (t.policy, t.priority) = (policy, priority);
}

/// Moves what the creator's attributes say from `own`, a copy of them, to the
/// new thread's record.
pub(crate) unsafe fn from_attributes(
    attributes: *const libc::pthread_attr_t,
    own: *mut libc::pthread_attr_t,
    slot: Slot,
) {
    unsafe extern "C" {
        fn pthread_attr_getinheritsched(a: *const libc::pthread_attr_t, to: *mut c_int) -> c_int;
        fn pthread_attr_setinheritsched(a: *mut libc::pthread_attr_t, to: c_int) -> c_int;
        fn pthread_attr_getschedpolicy(a: *const libc::pthread_attr_t, to: *mut c_int) -> c_int;
        fn pthread_attr_getschedparam(
            a: *const libc::pthread_attr_t,
            to: *mut sched_param,
        ) -> c_int;
    }
    // SAFETY: the caller passes valid attributes and a copy of them.
    unsafe {
        let mut how = 0;
        pthread_attr_getinheritsched(attributes, &mut how);
        if how != PTHREAD_EXPLICIT_SCHED {
            return;
        }
        let (mut policy, mut priority) = (0, sched_param { sched_priority: 0 });
        pthread_attr_getschedpolicy(attributes, &mut policy);
        pthread_attr_getschedparam(attributes, &mut priority);
        let t = &mut world().threads[slot as usize];
        (t.policy, t.priority) = (policy, priority.sched_priority);
        pthread_attr_setinheritsched(own, 0);
    }
}

/// pthread_setschedparam(3).
pub(crate) unsafe fn set(thread: libc::pthread_t, policy: c_int, to: *const sched_param) -> c_int {
    begin(Op::Priority);
    let Some(slot) = threads::find(thread) else {
        return libc::ESRCH;
    };
    // SAFETY: the caller passes valid parameters.
    set_slot(slot, policy, unsafe { (*to).sched_priority })
}

fn set_slot(slot: Slot, policy: c_int, priority: c_int) -> c_int {
    if !is_valid(policy, priority) {
        return libc::EINVAL;
    }
    let t = &mut world().threads[slot as usize];
    (t.policy, t.priority) = (policy & !RESET_ON_FORK, priority);
    0
}

/// pthread_setschedprio(3).
pub(crate) fn set_priority(thread: libc::pthread_t, priority: c_int) -> c_int {
    begin(Op::Priority);
    match threads::find(thread) {
        Some(slot) => set_slot(slot, world().threads[slot as usize].policy, priority),
        None => libc::ESRCH,
    }
}

/// pthread_getschedparam(3).
pub(crate) unsafe fn get(
    thread: libc::pthread_t,
    policy: *mut c_int,
    to: *mut sched_param,
) -> c_int {
    begin(Op::Priority);
    let Some(slot) = threads::find(thread) else {
        return libc::ESRCH;
    };
    let t = &world().threads[slot as usize];
    // SAFETY: the caller passes places for the results.
    unsafe {
        *policy = t.policy;
        (*to).sched_priority = t.priority;
    }
    0
}

/// The thread with a kernel id, 0 for the caller.
pub(crate) fn by_tid(tid: c_int) -> Option<Slot> {
    if tid == 0 {
        return Some(tls::slot());
    }
    let w = world();
    (1..w.scheduler.slots_end()).find(|&slot| {
        let t = &w.threads[slot as usize];
        t.tid == tid as u32 && t.ended == 0 && w.scheduler.exists(slot)
    })
}

/// Does `f` to the thread with a kernel id, in the convention of system calls.
fn of_tid(tid: c_int, f: impl FnOnce(Slot) -> c_int) -> c_int {
    begin(Op::Priority);
    if tid < 0 {
        return fail(libc::EINVAL);
    }
    match by_tid(tid) {
        Some(slot) => f(slot),
        None => fail(libc::ESRCH),
    }
}

fn errno_result(code: c_int) -> c_int {
    if code == 0 { 0 } else { fail(code) }
}

/// sched_setscheduler(2).
pub(crate) unsafe fn set_of(tid: c_int, policy: c_int, to: *const sched_param) -> c_int {
    if policy < 0 || to.is_null() {
        return fail(libc::EINVAL);
    }
    // SAFETY: the caller passes valid parameters.
    let priority = unsafe { (*to).sched_priority };
    of_tid(tid, |slot| errno_result(set_slot(slot, policy, priority)))
}

/// sched_setparam(2).
pub(crate) unsafe fn set_priority_of(tid: c_int, to: *const sched_param) -> c_int {
    if to.is_null() {
        return fail(libc::EINVAL);
    }
    // SAFETY: the caller passes valid parameters.
    let priority = unsafe { (*to).sched_priority };
    of_tid(tid, |slot| {
        errno_result(set_slot(
            slot,
            world().threads[slot as usize].policy,
            priority,
        ))
    })
}

/// sched_getscheduler(2).
pub(crate) fn policy_of(tid: c_int) -> c_int {
    of_tid(tid, |slot| world().threads[slot as usize].policy)
}

/// sched_getparam(2).
pub(crate) unsafe fn priority_of(tid: c_int, to: *mut sched_param) -> c_int {
    if to.is_null() {
        return fail(libc::EINVAL);
    }
    of_tid(tid, |slot| {
        // SAFETY: the caller passes a place for the result.
        unsafe { (*to).sched_priority = world().threads[slot as usize].priority };
        0
    })
}
