//! signalfd(2): signals of the program as bytes of a descriptor.

use crate::boundary::Effects;
use crate::fds::{blocking, close_real, install, nonblocking, virtual_of};
use crate::process;
use crate::raw::{self, fail, sys};
use crate::signals;
use crate::turn::{Op, begin};
use crate::world::{vkernel, world};
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Errno};
use libc::{sigset_t, ssize_t};
use syscalls::Sysno;

/// Most of them in the group.
const INSTANCES: usize = 128;
/// Tag of their descriptions.
const TAG: u64 = 0x2;
/// Bytes of a signal.
const RECORD: usize = size_of::<libc::signalfd_siginfo>();

#[repr(C)]
#[derive(Clone, Copy)]
struct Instance {
    /// 0: a free entry.
    desc: u32,
    /// Whose signals it tells: its maker's.
    process: u32,
    mask: u64,
    /// Counts the uses of the description's number.
    creation: u64,
}

/// All of them. All-zero is empty.
#[repr(C)]
pub(crate) struct Table {
    used: u32,
    _pad: u32,
    instances: [Instance; INSTANCES],
}

/// Entries whose description is still that one.
fn living(at: usize) -> Option<Instance> {
    let instance = world().signal_files.instances[at];
    if instance.desc == 0 {
        return None;
    }
    let desc = DescId::from_raw(instance.desc);
    if vkernel().creation(desc) == Ok(instance.creation) {
        return Some(instance);
    }
    world().signal_files.instances[at].desc = 0;
    world().signal_files.used -= 1;
    None
}

fn find(desc: DescId) -> Option<usize> {
    if vkernel().pollable_tag(desc) != Ok(TAG) {
        return None;
    }
    (0..INSTANCES).find(|&at| living(at).is_some_and(|i| i.desc == desc.raw()))
}

/// Whether a description is one.
pub(crate) fn is_instance(desc: DescId) -> bool {
    world().signal_files.used > 0 && vkernel().pollable_tag(desc) == Ok(TAG)
}

/// signalfd4(2).
pub(crate) unsafe fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
    let me = begin(Op::EventFd);
    // SAFETY: the caller passes a set, whose first word is the kernel's. The
    // placeholder is one that is never ready.
    let (new, wanted) = unsafe {
        let never = 0u64;
        let call = || sys!(Sysno::signalfd4, -1isize, &raw const never, 8, flags);
        let new = if fd == -1 {
            raw::ret(call()) as c_int
        } else {
            fd
        };
        (new, mask.cast::<u64>().read_unaligned())
    };
    if new < 0 || me == 0 {
        return new;
    }
    if fd != -1 {
        let Some(at) = virtual_of(me, fd).and_then(find) else {
            return fail(libc::EINVAL);
        };
        world().signal_files.instances[at].mask = wanted;
        look(me, at);
        return fd;
    }
    let made = vkernel().pollable(TAG, (flags & libc::SFD_NONBLOCK) as u32);
    let free = (0..INSTANCES).find(|&at| living(at).is_none());
    let (Ok(desc), Some(at)) = (made, free) else {
        if let Ok(desc) = made {
            let _ = vkernel().desc_release(&mut Effects, desc);
        }
        close_real(new);
        return fail(libc::EMFILE);
    };
    world().signal_files.instances[at] = Instance {
        desc: desc.raw(),
        process: process::current(),
        mask: wanted,
        creation: vkernel().creation(desc).unwrap_or(0),
    };
    world().signal_files.used += 1;
    let fd = install(me, new, desc, flags & libc::SFD_CLOEXEC != 0);
    look(me, at);
    fd
}

/// Makes an instance ready if the calling thread has a signal for it.
fn look(me: Slot, at: usize) {
    let Instance { desc, mask, .. } = world().signal_files.instances[at];
    let ready = signals::pending(me) & mask != 0;
    let events = if ready { libc::POLLIN as u32 } else { 0 };
    let _ = vkernel().pollable_set(&mut Effects, DescId::from_raw(desc), events);
}

/// A signal was noted for a process.
#[inline]
pub(crate) fn noted(process: u32, signal: u32) {
    if world().signal_files.used > 0 {
        tell(process, signal);
    }
}

#[cold]
fn tell(process: u32, signal: u32) {
    for at in 0..INSTANCES {
        if let Some(Instance {
            desc,
            process: of,
            mask,
            ..
        }) = living(at)
            && of == process
            && mask & signals::bit(signal) != 0
        {
            let events = libc::POLLIN as u32;
            let _ = vkernel().pollable_set(&mut Effects, DescId::from_raw(desc), events);
        }
    }
}

/// read(2).
pub(crate) unsafe fn read(me: Slot, desc: DescId, to: *mut c_void, len: usize) -> ssize_t {
    let Some(at) = find(desc) else {
        return fail(libc::EINVAL) as ssize_t;
    };
    if len < RECORD {
        return fail(libc::EINVAL) as ssize_t;
    }
    let got = blocking(me, desc, Dir::Read, nonblocking(desc), None, || {
        let mask = world().signal_files.instances[at].mask;
        let mut stored = 0;
        while stored + RECORD <= len {
            let Some(info) = signals::take(me, mask) else {
                break;
            };
            // SAFETY: all-zero is valid; the caller passes room for `len` bytes.
            unsafe {
                let mut record: libc::signalfd_siginfo = core::mem::zeroed();
                record.ssi_signo = info.signal;
                record.ssi_code = info.code;
                record.ssi_pid = info.pid;
                record.ssi_uid = info.uid;
                if info.code == libc::SI_TIMER {
                    (record.ssi_tid, record.ssi_overrun) = (info.pid, info.uid);
                    (record.ssi_pid, record.ssi_uid) = (0, 0);
                }
                record.ssi_status = info.value as i32;
                record.ssi_int = info.value as i32;
                record.ssi_ptr = info.value;
                to.byte_add(stored)
                    .cast::<libc::signalfd_siginfo>()
                    .write_unaligned(record);
            }
            stored += RECORD;
        }
        look(me, at);
        if stored == 0 {
            Err(Errno::AGAIN)
        } else {
            Ok(stored)
        }
    });
    match got {
        Ok(got) => got as ssize_t,
        Err(code) => fail(code) as ssize_t,
    }
}
