//! Calls that wait for a disk leave the schedule and come back by agreement.
//!
//! The calling thread gives up the turn, so that others go on, and makes its
//! call, which touches no memory of the program. When the call has returned,
//! the node is told and puts an event into the log; every replica lets the
//! thread go on where that event is applied, which is the same instant of the
//! schedule everywhere. A replica whose own call takes longer waits for it
//! there, and one whose call had another result stops.
//!
//! Files in the replica's own layers stay inside: what is written there is
//! thrown away at the next start, so syncing it is nothing to wait for.

use crate::raw::{line, sys};
use crate::refuse;
use crate::turn::{self, Op, begin};
use crate::world::{card, header, world};
use core::ffi::{c_int, c_uint, c_void};
use core::sync::atomic::Ordering;
use crane_channel::futex;
use crane_channel::ring::Consumer;
use crane_scheduler::Slot;
use syscalls::Sysno;

/// File systems on which nothing lasts: overlayfs (ours is mounted volatile)
/// and tmpfs.
const FLEETING: [i64; 2] = [0x794c_7630, 0x0102_1994];

fn key(operation: u32) -> u64 {
    0x4f << 56 | u64::from(operation)
}

/// Whether syncing the file of a descriptor waits for a disk.
fn lasts(fd: c_int) -> bool {
    // SAFETY: all-zero is a valid statfs, and the kernel fills it.
    unsafe {
        let mut found: libc::statfs = core::mem::zeroed();
        sys!(Sysno::fstatfs, fd, &raw mut found) == 0 && !FLEETING.contains(&found.f_type)
    }
}

/// fsync(2), fdatasync(2), syncfs(2).
pub(crate) fn sync(call: Sysno, fd: c_int) -> c_int {
    // SAFETY: plain system calls of a descriptor.
    disk_wait(|| lasts(fd), || unsafe { sys!(call, fd) as isize as i32 })
}

/// sync_file_range(2).
pub(crate) fn sync_range(fd: c_int, from: i64, len: i64, flags: c_uint) -> c_int {
    // SAFETY: a plain system call of a descriptor.
    let wait = || unsafe { sys!(Sysno::sync_file_range, fd, from, len, flags) as isize as i32 };
    disk_wait(|| lasts(fd), wait)
}

/// sync(2).
pub(crate) fn sync_all() {
    // SAFETY: sync has no arguments.
    disk_wait(|| true, || unsafe { sys!(Sysno::sync) as isize as i32 });
}

/// msync(2).
pub(crate) fn msync(start: *mut c_void, len: usize, flags: c_int) -> c_int {
    let waits = || flags & libc::MS_SYNC != 0;
    // SAFETY: the kernel checks the range, and changes nothing in it.
    disk_wait(waits, || unsafe {
        sys!(Sysno::msync, start, len, flags) as isize as i32
    })
}

/// Makes a call that may wait for a disk: out of the schedule if it `waits`.
fn disk_wait(waits: impl FnOnce() -> bool, call: impl FnOnce() -> i32) -> c_int {
    let me = begin(Op::Sync);
    let code = if me != 0 && waits() {
        leave_for(me, call)
    } else {
        call()
    };
    if code < 0 {
        return crate::raw::fail(-code);
    }
    code
}

/// Makes `call` out of the schedule; returns its result, 0 or a negative error
/// number, with the turn held again.
fn leave_for(me: Slot, call: impl FnOnce() -> i32) -> i32 {
    let w = world();
    // Alone there is nobody whom the call could hold up.
    if w.scheduler.alive() < 2 || w.threads[me as usize].pinned > 0 {
        return call();
    }
    // 0 is none; a number comes again after four thousand million.
    w.left = w.left.wrapping_add(1).max(1);
    let operation = w.left;
    let card = card(me);
    card.outside.store(operation, Ordering::Relaxed);
    turn::wait_outside(me, key(operation), || {
        let result = call();
        card.result.store(result as u32, Ordering::Relaxed);
        card.returned.store(operation, Ordering::Release);
        futex::wake(&card.returned, u32::MAX >> 1);
        header().returned.fetch_add(1, Ordering::SeqCst);
        Consumer::interrupt(&header().output);
    });
    // Something else may have woken it, such as a signal, which these calls let
    // pass.
    while card.outside.load(Ordering::Relaxed) == operation {
        turn::wait_again(me, key(operation));
    }
    card.result.load(Ordering::Relaxed) as i32
}

/// The log says that an operation is complete. It may say so several times, and
/// of a thread that is gone: only the first counts, and only if it waits.
pub(crate) fn complete(operation: u32, result: i32) {
    let w = world();
    let slot = (1..w.scheduler.slots_end()).find(|&slot| {
        w.scheduler.exists(slot) && card(slot).outside.load(Ordering::Relaxed) == operation
    });
    let Some(slot) = slot else {
        return;
    };
    let card = card(slot);
    loop {
        let returned = card.returned.load(Ordering::Acquire);
        if returned == operation {
            break;
        }
        futex::wait(&card.returned, returned);
    }
    let ours = card.result.load(Ordering::Relaxed) as i32;
    if ours != result {
        refuse::fatal(line!(
            "a sync came to error {ours} here and to {result} on the other replicas (0: none): look at this machine's disk, then restart this replica"
        ));
    }
    card.outside.store(0, Ordering::Relaxed);
    turn::wake_all(key(operation));
}
