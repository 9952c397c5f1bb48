//! Stopping and continuing processes of the group.
//!
//! A stopped process is a state of the schedule: its threads do not run until
//! SIGCONT comes, and what wakes them meanwhile is kept. Its parent hears of
//! both by SIGCHLD and wait(2). Nothing is stopped in the kernel.

use crate::process::{self, RUNNING, current, wait_key};
use crate::signals::{self, Info, bit};
use crate::turn;
use crate::world::world;
use core::ffi::c_int;
use crane_scheduler::Slot;

/// All whose default action is to stop the process.
const STOPS: u64 = bit(libc::SIGSTOP as u32)
    | bit(libc::SIGTSTP as u32)
    | bit(libc::SIGTTIN as u32)
    | bit(libc::SIGTTOU as u32);
const CONTINUE: u64 = bit(libc::SIGCONT as u32);

/// Status of a child that goes on, as in wait(2).
pub(crate) const CONTINUED: u32 = 0xffff;

/// Whether the default action is to stop the process.
pub(crate) fn stops(signal: u32) -> bool {
    STOPS & bit(signal) != 0
}

/// A status as in wait(2) for a stop.
fn status_of(signal: u32) -> u32 {
    signal << 8 | 0x7f
}

fn threads_of(process: u32) -> impl Iterator<Item = Slot> {
    let w = world();
    (1..w.scheduler.slots_end()).filter(move |&slot| {
        let w = world();
        w.scheduler.exists(slot) && w.threads[slot as usize].process == process
    })
}

/// A signal was sent, whether or not anybody takes it: stops and SIGCONT cancel
/// each other, and SIGCONT and SIGKILL let a stopped process go on.
pub(crate) fn sent(process: u32, signal: u32) {
    if stops(signal) {
        signals::forget_all(process, CONTINUE);
    } else if signal == libc::SIGCONT as u32 {
        signals::forget_all(process, STOPS);
        if go_on(process) {
            // A stop that the parent did not ask for yet is not told any more.
            world().processes[process as usize].report = CONTINUED;
            tell_parent(process, CONTINUED);
        }
    } else if signal == libc::SIGKILL as u32 {
        go_on(process);
    }
}

/// Lets the threads of a process run; false if it was not stopped.
fn go_on(process: u32) -> bool {
    let was_stopped = core::mem::take(&mut world().processes[process as usize].stopped) != 0;
    if was_stopped {
        for slot in threads_of(process) {
            world().scheduler.release(slot);
        }
    }
    was_stopped
}

/// The calling thread takes a signal that stops its process. Returns when it
/// goes on.
pub(crate) fn stop(me: Slot, signal: u32) {
    let process = current();
    let group = world().processes[process as usize].group;
    if signal != libc::SIGSTOP as u32 && is_orphaned(group) {
        return;
    }
    let p = &mut world().processes[process as usize];
    p.stopped = signal;
    p.report = status_of(signal);
    for slot in threads_of(process) {
        world().scheduler.hold(slot);
    }
    tell_parent(process, status_of(signal));
    turn::stand(me);
}

fn tell_parent(process: u32, status: u32) {
    let w = world();
    let p = &w.processes[process as usize];
    let (pid, parent) = (p.pid, p.parent);
    if parent == 0 {
        return;
    }
    let action = &w.processes[parent as usize].actions[libc::SIGCHLD as usize];
    if action.flags & libc::SA_NOCLDSTOP as u32 == 0 {
        let uid = crate::raw::getuid();
        signals::post(parent, Info::of_child(pid, uid, status));
    }
    turn::wake_all(wait_key(parent));
}

/// Whether no parent of a member is there, in the session but not in the group,
/// to let it go on: terminals' stops do nothing then.
fn is_orphaned(group: u32) -> bool {
    !process::all().any(|index| keeps_alive(index, group))
}

/// Whether a process is in the group and its parent outside of it.
fn keeps_alive(index: u32, group: u32) -> bool {
    let w = world();
    let p = &w.processes[index as usize];
    let parent = &w.processes[p.parent as usize];
    p.state == RUNNING
        && p.group == group
        && p.parent != 0
        && parent.group != group
        && parent.session == p.session
}

/// A process ends: groups that it alone kept from being orphaned, and in which
/// somebody is stopped, get SIGHUP and SIGCONT when it has gone.
pub(crate) struct Leaving {
    /// Stopped processes whose groups were not orphaned.
    stopped: [u64; crate::world::MAX_PROCESSES.div_ceil(64)],
}

impl Leaving {
    pub(crate) fn before() -> Self {
        let mut stopped = [0; crate::world::MAX_PROCESSES.div_ceil(64)];
        for index in process::all() {
            let p = &world().processes[index as usize];
            if p.stopped != 0 && p.state == RUNNING && !is_orphaned(p.group) {
                stopped[index as usize / 64] |= 1 << (index % 64);
            }
        }
        Self { stopped }
    }

    pub(crate) fn after(self) {
        for index in process::all() {
            let p = &world().processes[index as usize];
            let was = self.stopped[index as usize / 64] >> (index % 64) & 1 != 0;
            let group = p.group;
            if was && p.stopped != 0 && p.state == RUNNING && is_orphaned(group) {
                send_group(group, libc::SIGHUP);
                send_group(group, libc::SIGCONT);
            }
        }
    }
}

fn send_group(group: u32, signal: c_int) {
    for index in process::all() {
        let p = &world().processes[index as usize];
        if p.state == RUNNING && p.group == group {
            signals::post(index, Info::of_kernel(signal as u32));
        }
    }
}
