//! Who a process is: its parent, group and session, and putting itself into
//! the background.

use crate::process::{self, FREE, RUNNING, current};
use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{fds, files};
use core::ffi::{c_int, c_ulong};
use syscalls::Sysno;

/// Pid of the replica's init, the parent of orphans.
const INIT: c_int = 1;

/// getppid(2).
pub(crate) fn getppid() -> c_int {
    let me = begin(Op::Ids);
    if me == 0 {
        return INIT;
    }
    match world().processes[current() as usize].parent {
        0 => INIT,
        parent => world().processes[parent as usize].pid as c_int,
    }
}

/// The process meant by a pid; 0 is the caller.
fn meant(pid: c_int) -> Result<u32, c_int> {
    match pid {
        0 => Ok(current()),
        1.. => process::find(pid as u32).ok_or(libc::ESRCH),
        _ => Err(libc::ESRCH),
    }
}

/// getpgid(2).
pub(crate) fn getpgid(pid: c_int) -> c_int {
    begin(Op::Ids);
    meant(pid).map_or_else(fail, |i| world().processes[i as usize].group as c_int)
}

/// getsid(2).
pub(crate) fn getsid(pid: c_int) -> c_int {
    begin(Op::Ids);
    meant(pid).map_or_else(fail, |i| world().processes[i as usize].session as c_int)
}

/// setpgid(2).
pub(crate) fn setpgid(pid: c_int, group: c_int) -> c_int {
    begin(Op::Ids);
    if group < 0 || pid < 0 {
        return fail(libc::EINVAL);
    }
    let Ok(index) = meant(pid) else {
        return fail(libc::ESRCH);
    };
    let w = world();
    let own = current();
    let (parent, pid, session) = {
        let p = &w.processes[index as usize];
        (p.parent, p.pid, p.session)
    };
    if index != own && parent != own {
        return fail(libc::ESRCH);
    }
    if session == pid || session != w.processes[own as usize].session {
        return fail(libc::EPERM);
    }
    let group = if group == 0 { pid } else { group as u32 };
    let joined = group == pid
        || w.processes
            .iter()
            .any(|p| p.state != FREE && p.group == group && p.session == session);
    if !joined {
        return fail(libc::EPERM);
    }
    w.processes[index as usize].group = group;
    if index == own {
        // What /proc shows.
        // SAFETY: plain setpgid(2) on ourselves.
        unsafe { sys!(Sysno::setpgid, 0, group) };
    }
    0
}

/// setsid(2).
pub(crate) fn setsid() -> c_int {
    begin(Op::Ids);
    let w = world();
    let own = current() as usize;
    let pid = w.processes[own].pid_or_own();
    let leads = w
        .processes
        .iter()
        .any(|p| p.state == RUNNING && p.group == pid);
    if leads {
        return fail(libc::EPERM);
    }
    (w.processes[own].group, w.processes[own].session) = (pid, pid);
    // SAFETY: plain setsid(2).
    unsafe { sys!(Sysno::setsid) };
    pid as c_int
}

impl process::Process {
    /// The pid of the calling process, which this is.
    fn pid_or_own(&self) -> u32 {
        if self.pid == 0 {
            raw::getpid()
        } else {
            self.pid
        }
    }
}

/// daemon(3).
pub(crate) fn daemon(keep_directory: c_int, keep_streams: c_int) -> c_int {
    match process::fork() {
        -1 => return -1,
        0 => {}
        _ => process::exit_now(0),
    }
    if setsid() < 0 {
        return -1;
    }
    if keep_directory == 0 {
        // SAFETY: plain chdir(2).
        unsafe { sys!(Sysno::chdir, c"/".as_ptr()) };
    }
    if keep_streams == 0 {
        // SAFETY: a C string.
        let null = unsafe { files::open(libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR, 0) };
        if null < 0 {
            return -1;
        }
        for fd in 0..3 {
            fds::dup3(null, fd, 0, true);
        }
        if null > 2 {
            fds::close(null);
        }
    }
    0
}

/// prctl(2): what concerns the order of processes is answered here.
pub(crate) fn prctl(option: c_int, a: [c_ulong; 4]) -> c_int {
    let me = begin(Op::Ids);
    let native = || {
        // SAFETY: the caller keeps the contract of the option.
        raw::ret(unsafe { sys!(Sysno::prctl, option, a[0], a[1], a[2], a[3]) }) as c_int
    };
    if me == 0 {
        return native();
    }
    let p = &mut world().processes[current() as usize];
    match option {
        libc::PR_SET_CHILD_SUBREAPER => p.subreaper = u32::from(a[0] != 0),
        libc::PR_GET_CHILD_SUBREAPER => {
            // SAFETY: the caller passes a place for an int.
            unsafe { *(a[0] as *mut c_int) = p.subreaper as c_int };
        }
        libc::PR_SET_PDEATHSIG => {
            if a[0] > 64 {
                return fail(libc::EINVAL);
            }
            p.death_signal = a[0] as u32;
        }
        libc::PR_GET_PDEATHSIG => {
            // SAFETY: as above.
            unsafe { *(a[0] as *mut c_int) = p.death_signal as c_int };
        }
        _ => return native(),
    }
    0
}
