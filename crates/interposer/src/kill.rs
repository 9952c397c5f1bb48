//! Sending signals: to processes, groups and threads of the replica.

use crate::process::{self, RUNNING, ZOMBIE, current};
use crate::raw::{self, fail, sys};
use crate::signals::{self, Info};
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{fatal, threads};
use core::ffi::{c_int, c_uint};
use syscalls::Sysno;

/// Whether the caller may send signals to a living process: asked of the kernel.
fn permitted(pid: u32) -> bool {
    // SAFETY: plain kill(2) that sends nothing.
    raw::geteuid() == 0 || unsafe { sys!(Sysno::kill, pid, 0) as isize } != -(libc::EPERM as isize)
}

/// Ends a process as SIGKILL does: without any doing of its own.
fn end_at_once(index: u32) {
    let killed = libc::SIGKILL as u32;
    if index == current() {
        fatal::end_by(killed);
    }
    let p = &mut world().processes[index as usize];
    let pid = p.pid;
    // Its parent really gets SIGCHLD: it must not look as if it had vanished.
    p.state = ZOMBIE;
    // What it held (locks, memory) is given back at its real end: wait for it.
    // SAFETY: plain system calls; `one` is valid for poll(2).
    unsafe {
        let watch = sys!(Sysno::pidfd_open, pid, 0) as isize;
        sys!(Sysno::kill, pid, killed);
        if watch >= 0 {
            let mut one = libc::pollfd {
                fd: watch as c_int,
                events: libc::POLLIN,
                revents: 0,
            };
            while sys!(Sysno::poll, &raw mut one, 1, usize::MAX) as isize == -(libc::EINTR as isize)
            {
            }
            sys!(Sysno::close, watch);
        }
    }
    threads::drop_siblings(0, index);
    process::bury(index, killed);
}

/// Sends to one process.
pub(crate) fn send(index: u32, info: Info) -> Result<(), c_int> {
    let p = &world().processes[index as usize];
    if p.state == ZOMBIE {
        return Ok(());
    }
    if !permitted(p.pid) {
        return Err(libc::EPERM);
    }
    if info.signal == 0 {
        return Ok(());
    }
    if info.signal == libc::SIGKILL as u32 {
        end_at_once(index);
        return Ok(());
    }
    if signals::post(index, info) {
        Ok(())
    } else {
        Err(libc::EAGAIN)
    }
}

/// Sends to all processes of a group (0: to all but the caller's own).
fn send_all(group: u32, info: Info) -> Result<(), c_int> {
    let (mut found, mut sent) = (false, false);
    let own = current();
    // The caller's own process comes last: it may end by it.
    let others = process::all().filter(|&i| i != own);
    let me = (group != 0).then_some(own);
    for index in others.chain(me) {
        let p = &world().processes[index as usize];
        if p.state != RUNNING || group != 0 && p.group != group {
            continue;
        }
        found = true;
        sent |= send(index, info).is_ok();
    }
    match (found, sent) {
        (_, true) => Ok(()),
        (true, false) => Err(libc::EPERM),
        (false, false) => Err(libc::ESRCH),
    }
}

/// kill(2) in logical order.
pub(crate) fn kill(pid: c_int, signal: c_int) -> c_int {
    let me = begin(Op::Kill);
    if me == 0 {
        // SAFETY: plain kill(2).
        return raw::ret(unsafe { sys!(Sysno::kill, pid, signal) }) as c_int;
    }
    if signal != 0 && !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    let info = if signal == 0 {
        Info {
            signal: 0,
            ..Info::of_user(1)
        }
    } else {
        Info::of_user(signal as u32)
    };
    let result = match pid {
        -1 => send_all(0, info),
        0 => send_all(world().processes[current() as usize].group, info),
        1 => init(),
        2.. => process::find(pid as u32).map_or(Err(libc::ESRCH), |index| send(index, info)),
        _ => send_all(pid.unsigned_abs(), info),
    };
    signals::deliver(me);
    result.map_or_else(fail, |()| 0)
}

/// The replica's init takes no signals.
fn init() -> Result<(), c_int> {
    if raw::geteuid() == 0 {
        Ok(())
    } else {
        Err(libc::EPERM)
    }
}

/// killpg(3).
pub(crate) fn killpg(group: c_int, signal: c_int) -> c_int {
    if group < 0 || group == 1 {
        return fail(libc::EINVAL);
    }
    kill(-group, signal)
}

/// sigqueue(3).
pub(crate) fn sigqueue(pid: c_int, signal: c_int, value: u64) -> c_int {
    let me = begin(Op::Kill);
    if me == 0 || signal != 0 && !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    let Some(index) = (pid > 0).then(|| process::find(pid as u32)).flatten() else {
        return fail(libc::ESRCH);
    };
    let info = Info {
        signal: signal as u32,
        code: libc::SI_QUEUE,
        value,
        ..Info::of_user(1)
    };
    let result = send(index, info);
    signals::deliver(me);
    result.map_or_else(fail, |()| 0)
}

/// tgkill(2); `group` 0: any process, as tkill(2).
pub(crate) fn tgkill(group: c_uint, tid: c_int, signal: c_int) -> c_int {
    let me = begin(Op::Kill);
    if tid <= 0 || signal != 0 && !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    let w = world();
    let slot = (1..w.scheduler.slots_end()).find(|&slot| {
        let t = &w.threads[slot as usize];
        let pid = w.processes[t.process as usize].pid;
        w.scheduler.exists(slot) && t.tid == tid as u32 && (group == 0 || pid == group)
    });
    let Some(slot) = slot else {
        return fail(libc::ESRCH);
    };
    let process = w.threads[slot as usize].process;
    if signal == libc::SIGKILL {
        return send(process, Info::of_user(signal as u32)).map_or_else(fail, |()| 0);
    }
    if signal != 0 {
        let code = libc::SI_TKILL;
        signals::post_to_thread(
            slot,
            Info {
                code,
                ..Info::of_user(signal as u32)
            },
        );
        signals::deliver(me);
    }
    0
}
