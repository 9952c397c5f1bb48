//! inotify(7), for what the program itself changes.
//!
//! The instance is a real one. As files are the replica's own and one thread
//! runs at a time, what it queues, and in which order, is a function of the
//! schedule; when a thread hears of it is one too, because the queue is looked
//! at only where its process polls, reads or is about to wait. What other
//! processes of the group change is so heard with the watching process's next
//! step. Numbers of renames are the machine's and are replaced.

use crate::boundary::Effects;
use crate::fds::{blocking, install, nonblocking, virtual_of};
use crate::process;
use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::world::{vkernel, world};
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use crane_vkernel::{DescId, Dir, Errno};
use libc::ssize_t;
use syscalls::Sysno;

/// Most instances of the group.
const INSTANCES: usize = 128;
/// Tag of their descriptions.
const TAG: u64 = 0x1;

#[repr(C)]
#[derive(Clone, Copy)]
struct Instance {
    /// 0: a free entry.
    desc: u32,
    process: u32,
    fd: c_int,
    _pad: u32,
}

/// All instances. All-zero is empty.
#[repr(C)]
pub(crate) struct Table {
    used: u32,
    /// The machine's number of the last rename seen, and ours for it.
    renamed: u32,
    renames: u32,
    _pad: u32,
    instances: [Instance; INSTANCES],
}

/// inotify_init1(2).
pub(crate) fn init(flags: c_int) -> c_int {
    let me = begin(Op::EventFd);
    // SAFETY: plain inotify_init1(2); nobody may wait in the kernel.
    let fd = raw::ret(unsafe { sys!(Sysno::inotify_init1, flags | libc::IN_NONBLOCK) }) as c_int;
    if fd < 0 || me == 0 {
        return fd;
    }
    let status = (flags & libc::IN_NONBLOCK) as u32;
    let made = vkernel().pollable(TAG, status);
    let table = &mut world().inotify;
    let free = table.instances.iter_mut().find(|i| i.desc == 0);
    let (Ok(desc), Some(free)) = (made, free) else {
        if let Ok(desc) = made {
            let _ = vkernel().desc_release(&mut Effects, desc);
        }
        crate::fds::close_real(fd);
        return fail(libc::EMFILE);
    };
    *free = Instance {
        desc: desc.raw(),
        process: process::current(),
        fd,
        _pad: 0,
    };
    table.used += 1;
    install(me, fd, desc, flags & libc::IN_CLOEXEC != 0)
}

/// Whether a description is an instance.
pub(crate) fn is_instance(desc: DescId) -> bool {
    world().inotify.used > 0 && vkernel().pollable_tag(desc) == Ok(TAG)
}

/// Looks at the queues of the calling process.
#[inline]
pub(crate) fn look(me: Slot) {
    if world().inotify.used > 0 && me != 0 {
        look_at_all(me);
    }
}

#[cold]
fn look_at_all(me: Slot) {
    let mine = process::current();
    for at in 0..INSTANCES {
        let Instance {
            desc, process, fd, ..
        } = world().inotify.instances[at];
        if desc == 0 || process != mine {
            continue;
        }
        let id = DescId::from_raw(desc);
        if virtual_of(me, fd) != Some(id) {
            // Closed, or another process's by now.
            world().inotify.instances[at].desc = 0;
            world().inotify.used -= 1;
            continue;
        }
        let mut one = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: polls one descriptor without waiting.
        let ready = unsafe { sys!(Sysno::poll, &raw mut one, 1, 0) } == 1;
        let now = vkernel().readiness(id).unwrap_or(0);
        let wanted = if ready { libc::POLLIN as u32 } else { 0 };
        if now != wanted {
            let _ = vkernel().pollable_set(&mut Effects, id, wanted);
        }
    }
}

/// read(2) of an instance.
pub(crate) unsafe fn read(
    me: Slot,
    fd: c_int,
    desc: DescId,
    to: *mut c_void,
    len: usize,
) -> ssize_t {
    let got = blocking(me, desc, Dir::Read, nonblocking(desc), None, || {
        // SAFETY: the caller passes room for `len` bytes.
        let got = unsafe { sys!(Sysno::read, fd, to, len) } as isize;
        look(me);
        if got < 0 {
            return Err(Errno(-got as c_int));
        }
        Ok(got as usize)
    });
    match got {
        Ok(got) => {
            // SAFETY: the kernel has stored whole events in `got` bytes.
            unsafe { renumber(to.cast(), got) };
            got as ssize_t
        }
        Err(code) => fail(code) as ssize_t,
    }
}

/// Replaces the machine's numbers of renames by ours.
unsafe fn renumber(events: *mut u8, len: usize) {
    const HEAD: usize = size_of::<libc::inotify_event>();
    let table = &mut world().inotify;
    let mut at = 0;
    while at + HEAD <= len {
        // SAFETY: a whole event's head lies in the buffer.
        unsafe {
            let place = events.add(at).cast::<libc::inotify_event>();
            let mut event = place.read_unaligned();
            if event.cookie != 0 {
                if event.cookie != table.renamed {
                    table.renamed = event.cookie;
                    table.renames += 1;
                }
                event.cookie = table.renames;
                place.write_unaligned(event);
            }
            at += HEAD + event.len as usize;
        }
    }
}
