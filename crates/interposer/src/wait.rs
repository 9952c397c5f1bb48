//! Waiting for children: their ends, stops and continuations.

use crate::process::{self, FREE, RUNNING, ZOMBIE, current};
use crate::raw::{fail, sys};
use crate::turn::{self, Op, begin};
use crate::world::world;
use crate::{pidfds, signals, stops};
use core::ffi::{c_int, c_uint};
use crane_scheduler::Wake;
use syscalls::Sysno;

/// Which children are meant.
#[derive(Clone, Copy)]
enum Whom {
    Any,
    Pid(u32),
    Group(u32),
}

/// What is told of a child: its index, pid and status.
struct News {
    index: u32,
    pid: u32,
    status: u32,
    /// It has ended, and did not only stop or go on.
    ended: bool,
}

/// Takes the kernel's own zombie away; the process is at its very end.
pub(crate) fn reap(pid: u32) {
    // SAFETY: plain wait4(2) without results.
    unsafe { sys!(Sysno::wait4, pid, 0, libc::__WALL, 0) };
}

/// The child to report, of the kinds of news in `options`; `None` when there may
/// be some later and the caller does not want to wait.
fn find(whom: Whom, options: c_int) -> Result<Option<News>, c_int> {
    let me = begin(Op::Wait);
    let mine = current();
    loop {
        let mut any = false;
        for index in process::all() {
            let p = &world().processes[index as usize];
            let meant = match whom {
                Whom::Any => true,
                Whom::Pid(pid) => p.pid == pid,
                Whom::Group(group) => p.group == group,
            };
            if p.state == FREE || p.parent != mine || !meant {
                continue;
            }
            let news = |status, ended| News {
                index,
                pid: p.pid,
                status,
                ended,
            };
            if p.state == ZOMBIE && options & libc::WEXITED != 0 {
                return Ok(Some(news(p.status, true)));
            }
            let wanted = match p.report {
                0 => 0,
                stops::CONTINUED => libc::WCONTINUED,
                _ => libc::WSTOPPED,
            };
            if options & wanted != 0 {
                return Ok(Some(news(p.report, false)));
            }
            any |= p.state == RUNNING;
        }
        if !any {
            return Err(libc::ECHILD);
        }
        if options & libc::WNOHANG != 0 {
            return Ok(None);
        }
        let why = turn::wait(me, process::wait_key(mine), None);
        if why == Wake::Interrupted && !signals::restarts() {
            return Err(libc::EINTR);
        }
    }
}

fn release(child: &News) {
    if !child.ended {
        world().processes[child.index as usize].report = 0;
        return;
    }
    world().processes[child.index as usize].state = FREE;
    reap(child.pid);
}

/// wait4(2) over the processes of the group.
pub(crate) unsafe fn wait4(
    pid: c_int,
    status: *mut c_int,
    options: c_int,
    usage: *mut libc::rusage,
) -> c_int {
    const KNOWN: c_int = libc::WNOHANG
        | libc::WUNTRACED
        | libc::WCONTINUED
        | libc::__WALL
        | libc::__WCLONE
        | libc::__WNOTHREAD;
    if options & !KNOWN != 0 {
        return fail(libc::EINVAL);
    }
    let whom = match pid {
        -1 => Whom::Any,
        c_int::MIN => return fail(libc::ESRCH),
        0 => Whom::Group(world_group()),
        1.. => Whom::Pid(pid as u32),
        _ => Whom::Group(pid.unsigned_abs()),
    };
    match find(whom, options | libc::WEXITED) {
        Err(code) => fail(code),
        Ok(None) => 0,
        Ok(Some(child)) => {
            // SAFETY: the caller passes valid places or null; all-zero is a
            // valid rusage.
            unsafe {
                if !usage.is_null() {
                    core::ptr::write_bytes(usage, 0, 1);
                }
                if !status.is_null() {
                    *status = child.status as c_int;
                }
            }
            release(&child);
            child.pid as c_int
        }
    }
}

fn world_group() -> u32 {
    crate::world::ensure_attached();
    world().processes[current() as usize].group
}

/// waitid(2).
pub(crate) unsafe fn waitid(
    kind: c_uint,
    id: c_uint,
    info: *mut libc::siginfo_t,
    options: c_int,
) -> c_int {
    /// Not an option of waitid(2).
    const AGAIN: c_int = 1 << 20;
    const ENDS: c_int = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    const KNOWN: c_int =
        ENDS | libc::WNOHANG | libc::WNOWAIT | libc::__WALL | libc::__WCLONE | libc::__WNOTHREAD;
    if options & !KNOWN != 0 || options & ENDS == 0 {
        return fail(libc::EINVAL);
    }
    let mut options = options;
    let whom = match kind {
        libc::P_PIDFD => match pidfds::awaited(crate::tls::slot(), id as c_int) {
            Ok((pid, now)) => {
                if now && options & libc::WNOHANG == 0 {
                    options |= libc::WNOHANG | AGAIN;
                }
                Whom::Pid(pid)
            }
            Err(code) => {
                begin(Op::Wait);
                return fail(code);
            }
        },
        libc::P_ALL => Whom::Any,
        libc::P_PID if id as c_int > 0 => Whom::Pid(id),
        libc::P_PGID if id as c_int >= 0 => Whom::Group(if id == 0 { world_group() } else { id }),
        _ => return fail(libc::EINVAL),
    };
    let child = match find(whom, options) {
        Err(code) => return fail(code),
        // A descriptor that does not wait says so.
        Ok(None) if options & AGAIN != 0 => return fail(libc::EAGAIN),
        Ok(child) => child,
    };
    if !info.is_null() {
        let told = child
            .as_ref()
            .map(|c| signals::Info::of_child(c.pid, crate::raw::getuid(), c.status));
        // SAFETY: the caller passes a place for a siginfo_t.
        unsafe { signals::store(told.as_ref(), info) };
    }
    if let Some(child) = child
        && options & libc::WNOWAIT == 0
    {
        release(&child);
    }
    0
}
