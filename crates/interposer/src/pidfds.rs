//! Descriptors of processes: pidfd_open(2) and what takes such a descriptor.
//!
//! The placeholder is a real one, which nobody looks at: a process ends in the
//! order, and its descriptors become ready there.

use crate::boundary::Effects;
use crate::fds::{install, nonblocking, virtual_of};
use crate::kill;
use crate::process::{self, FREE, ZOMBIE};
use crate::raw::{self, fail, sys};
use crate::signals::{self, Info};
use crate::turn::{Op, begin};
use crate::world::{vkernel, world};
use core::ffi::{c_int, c_uint};
use crane_scheduler::Slot;
use libc::siginfo_t;
use syscalls::Sysno;

/// Tag of their descriptions, with the process in the upper bytes.
const TAG: u64 = 0x3;
const READY: u32 = (libc::EPOLLIN | libc::EPOLLRDNORM) as u32;

/// What tells a process from others that have had its place.
fn tag_of(index: u32) -> u64 {
    let serial = world().processes[index as usize].serial;
    serial << 24 | u64::from(index) << 8 | TAG
}

/// The process of a descriptor: its index, if it has not been waited for.
fn process_of(me: Slot, fd: c_int) -> Result<Option<u32>, c_int> {
    let tag = virtual_of(me, fd).and_then(|desc| vkernel().pollable_tag(desc).ok());
    match tag {
        Some(tag) if tag & 0xff == TAG => {
            let index = (tag >> 8 & 0xffff) as u32;
            let there = world().processes[index as usize].state != FREE && tag_of(index) == tag;
            Ok(there.then_some(index))
        }
        _ => Err(libc::EBADF),
    }
}

/// pidfd_open(2).
pub(crate) fn open(pid: c_int, flags: c_uint) -> c_int {
    let me = begin(Op::EventFd);
    let delay = libc::PIDFD_NONBLOCK;
    if flags & !delay != 0 || pid <= 0 {
        return fail(libc::EINVAL);
    }
    let Some(index) = process::find(pid as u32) else {
        return fail(libc::ESRCH);
    };
    // SAFETY: plain pidfd_open(2).
    let new = raw::ret(unsafe { sys!(Sysno::pidfd_open, pid, flags) }) as c_int;
    if new < 0 || me == 0 {
        return new;
    }
    match vkernel().pollable(tag_of(index), flags & delay) {
        Ok(desc) => {
            world().process_files = 1;
            if world().processes[index as usize].state == ZOMBIE {
                let _ = vkernel().pollable_set(&mut Effects, desc, READY);
            }
            install(me, new, desc, true)
        }
        Err(error) => {
            crate::fds::close_real(new);
            fail(error.0)
        }
    }
}

/// A process has ended.
pub(crate) fn ended(index: u32) {
    if world().process_files != 0 {
        vkernel().pollable_set_all(&mut Effects, tag_of(index), READY);
    }
}

/// The pid that waitid(2) means by a descriptor, and whether it is not to wait.
pub(crate) fn awaited(me: Slot, fd: c_int) -> Result<(u32, bool), c_int> {
    let index = process_of(me, fd)?.ok_or(libc::ECHILD)?;
    let now = virtual_of(me, fd).is_some_and(nonblocking);
    Ok((world().processes[index as usize].pid, now))
}

/// pidfd_send_signal(2).
pub(crate) unsafe fn send_signal(
    fd: c_int,
    signal: c_int,
    details: *const siginfo_t,
    flags: c_uint,
) -> c_int {
    let me = begin(Op::Kill);
    if flags != 0 || signal != 0 && !signals::valid(signal) {
        return fail(libc::EINVAL);
    }
    let index = match process_of(me, fd) {
        Ok(Some(index)) => index,
        Ok(None) => return fail(libc::ESRCH),
        Err(code) => return fail(code),
    };
    let mut info = Info {
        signal: signal as u32,
        ..Info::of_user(1)
    };
    if !details.is_null() {
        // SAFETY: the caller passes details or null; they are laid out as
        // `signals::store` writes them.
        let (code, value) = unsafe {
            if (*details).si_signo != signal {
                return fail(libc::EINVAL);
            }
            (
                (*details).si_code,
                details.cast::<u64>().add(3).read_unaligned(),
            )
        };
        if code >= 0 && index != process::current() {
            return fail(libc::EPERM);
        }
        (info.code, info.value) = (code, value);
    }
    let result = kill::send(index, info);
    signals::deliver(me);
    result.map_or_else(fail, |()| 0)
}
