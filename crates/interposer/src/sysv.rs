//! System V semaphores and message queues.
//!
//! The objects are the kernel's, in the replica's own IPC namespace. A call
//! that would wait is made without waiting, and the wait is the schedule's.
//! (Shared memory needs nothing: the segments are in that namespace too.)

use crate::process::current;
use crate::raw::{self, fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::world;
use crate::{clock, signals};
use core::ffi::{c_int, c_long, c_ulong, c_void};
use crane_scheduler::{Slot, Wake};
use libc::{sembuf, timespec};
use syscalls::Sysno;

const KEY: u64 = 0x53 << 56;

fn key(queue: bool, id: c_int) -> u64 {
    KEY | u64::from(queue) << 40 | u64::from(id as u32)
}

/// Everybody that waits for a semaphore tries again.
pub(crate) fn all_go_on() {
    for id in 0..world().semaphores_end {
        turn::wake_all(key(false, id));
    }
}

fn errno(code: usize) -> c_int {
    let code = code as isize;
    if (-4095..0).contains(&code) {
        -code as c_int
    } else {
        0
    }
}

/// Tries `attempt`, which does not wait, until it is done or `deadline`.
fn waiting(
    me: Slot,
    key: u64,
    wait: bool,
    again: c_int,
    deadline: Option<u64>,
    mut attempt: impl FnMut() -> usize,
) -> isize {
    let mut waited = false;
    loop {
        let code = attempt();
        let failure = errno(code);
        if waited && failure == libc::EINVAL {
            // It was there when the wait began.
            return fail(libc::EIDRM) as isize;
        }
        if failure == 0 {
            turn::wake_all(key);
        }
        if failure != again || !wait || me == 0 {
            return raw::ret(code);
        }
        waited = true;
        match turn::wait(me, key, deadline) {
            Wake::TimedOut => return fail(libc::EAGAIN) as isize,
            // Never restarted, see signal(7).
            Wake::Interrupted if signals::handled() => return fail(libc::EINTR) as isize,
            _ => {}
        }
    }
}

/// semop(2), and semtimedop(2) with a length.
pub(crate) unsafe fn semop(
    id: c_int,
    operations: *const sembuf,
    count: usize,
    length: *const timespec,
) -> c_int {
    let me = begin(Op::SemWait);
    const MOST: usize = 500;
    if count == 0 || count > MOST {
        return fail(if count == 0 {
            libc::EINVAL
        } else {
            libc::E2BIG
        });
    }
    let mut deadline = None;
    let mut now = [sembuf {
        sem_num: 0,
        sem_op: 0,
        sem_flg: 0,
    }; MOST];
    let mut wait = true;
    // SAFETY: the caller passes `count` operations, and a time or null.
    unsafe {
        if !length.is_null() {
            match clock::duration(length) {
                Ok(ns) => deadline = Some(clock::after(ns)),
                Err(code) => return fail(code),
            }
        }
        for (i, slot) in now[..count].iter_mut().enumerate() {
            *slot = operations.add(i).read();
            wait &= i32::from(slot.sem_flg) & libc::IPC_NOWAIT == 0;
            if i32::from(slot.sem_flg) & SEM_UNDO != 0 && me != 0 {
                world().processes[current() as usize].undo = 1;
            }
            slot.sem_flg |= libc::IPC_NOWAIT as i16;
        }
    }
    if me != 0 {
        let w = world();
        w.semaphores_end = w.semaphores_end.max(id.saturating_add(1));
    }
    waiting(me, key(false, id), wait, libc::EAGAIN, deadline, || {
        // SAFETY: valid operations; it does not wait.
        unsafe { sys!(Sysno::semop, id, now.as_ptr(), count) }
    }) as c_int
}

/// semop(2): done again at the end of the process.
const SEM_UNDO: i32 = 0x1000;

/// semctl(2). What changes a value or removes the set lets others try.
pub(crate) unsafe fn semctl(id: c_int, number: c_int, command: c_int, argument: c_ulong) -> c_int {
    begin(Op::SemPost);
    // SAFETY: the caller keeps the contract of the command.
    let code = unsafe { sys!(Sysno::semctl, id, number, command, argument) };
    if matches!(command, libc::SETVAL | libc::SETALL | libc::IPC_RMID) {
        turn::wake_all(key(false, id));
    }
    if errno(code) == 0 && matches!(command, libc::IPC_STAT | libc::SEM_STAT | SEM_STAT_ANY) {
        let set = argument as *mut libc::semid_ds;
        // SAFETY: filled by the kernel. Its times are the machine's.
        unsafe { ((*set).sem_otime, (*set).sem_ctime) = (0, 0) };
    }
    raw::ret(code) as c_int
}

const SEM_STAT_ANY: c_int = 20;
const MSG_STAT_ANY: c_int = 13;
const SHM_STAT: c_int = 13;

/// msgsnd(2).
pub(crate) unsafe fn msgsnd(id: c_int, message: *const c_void, size: usize, flags: c_int) -> c_int {
    let me = begin(Op::SemPost);
    let wait = flags & libc::IPC_NOWAIT == 0;
    waiting(me, key(true, id), wait, libc::EAGAIN, None, || {
        // SAFETY: same contract; it does not wait.
        unsafe { sys!(Sysno::msgsnd, id, message, size, flags | libc::IPC_NOWAIT) }
    }) as c_int
}

/// msgrcv(2).
pub(crate) unsafe fn msgrcv(
    id: c_int,
    message: *mut c_void,
    size: usize,
    kind: c_long,
    flags: c_int,
) -> isize {
    let me = begin(Op::SemWait);
    let wait = flags & libc::IPC_NOWAIT == 0;
    waiting(me, key(true, id), wait, libc::ENOMSG, None, || {
        // SAFETY: same contract; it does not wait.
        unsafe {
            sys!(
                Sysno::msgrcv,
                id,
                message,
                size,
                kind,
                flags | libc::IPC_NOWAIT
            )
        }
    })
}

/// msgctl(2).
pub(crate) unsafe fn msgctl(id: c_int, command: c_int, argument: *mut libc::msqid_ds) -> c_int {
    begin(Op::SemPost);
    // SAFETY: same contract.
    let code = unsafe { sys!(Sysno::msgctl, id, command, argument) };
    if matches!(command, libc::IPC_RMID | libc::IPC_SET) {
        turn::wake_all(key(true, id));
    }
    if errno(code) == 0 && matches!(command, libc::IPC_STAT | libc::MSG_STAT | MSG_STAT_ANY) {
        // SAFETY: filled by the kernel. Its times are the machine's.
        unsafe {
            (
                (*argument).msg_stime,
                (*argument).msg_rtime,
                (*argument).msg_ctime,
            ) = (0, 0, 0);
        }
    }
    raw::ret(code) as c_int
}

/// shmctl(2).
pub(crate) unsafe fn shmctl(id: c_int, command: c_int, argument: *mut libc::shmid_ds) -> c_int {
    begin(Op::SemPost);
    // SAFETY: same contract.
    let code = unsafe { sys!(Sysno::shmctl, id, command, argument) };
    if errno(code) == 0 && matches!(command, libc::IPC_STAT | SHM_STAT) {
        // SAFETY: filled by the kernel. Its times are the machine's.
        unsafe {
            (
                (*argument).shm_atime,
                (*argument).shm_dtime,
                (*argument).shm_ctime,
            ) = (0, 0, 0);
        }
    }
    raw::ret(code) as c_int
}
