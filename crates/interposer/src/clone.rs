//! clone(2): as fork where it is one; threads made by it are refused.
//!
//! A thread that the C library does not know has none of its storage, and
//! nobody could await its end.

use crate::raw::{fail, line};
use crate::refuse::{self, Unsupported};
use crate::{process, turn};
use core::ffi::{c_int, c_ulong, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

/// What the child of clone(3) does.
pub(crate) type Child = extern "C" fn(*mut c_void) -> c_int;

/// Lowest byte of the flags: the signal that tells of the child's end.
const END_SIGNAL: c_int = 0xff;
/// What the C library's own fork(3) asks for besides.
const OF_FORK: c_int = libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID;

static TOLD: AtomicBool = AtomicBool::new(false);

fn is_fork(flags: c_int) -> bool {
    flags & END_SIGNAL == libc::SIGCHLD && flags & !END_SIGNAL & !OF_FORK == 0
}

fn refuse(flags: c_int) -> c_int {
    if crate::world::ensure_attached() && !TOLD.swap(true, Ordering::Relaxed) {
        turn::report(
            false,
            &line!(
                "the program calls clone(2) with flags {flags:#x}; only what fork(2) and pthread_create(3) do can be kept in step, so it gets ENOSYS"
            ),
        );
    }
    refuse::count(if flags & libc::CLONE_VM != 0 {
        Unsupported::Thread
    } else {
        Unsupported::Spawn
    });
    fail(libc::ENOSYS)
}

/// clone(3). The child of a fork runs on its copy of the caller's stack; the
/// stack that it was given, a copy too, is not needed.
pub(crate) fn by_name(child: Child, flags: c_int, argument: *mut c_void) -> c_int {
    if !is_fork(flags) {
        return refuse(flags);
    }
    let pid = process::fork();
    if pid == 0 {
        process::exit_now(child(argument));
    }
    pid
}

/// clone(2) by number.
pub(crate) fn by_number(flags: c_ulong, stack: c_ulong) -> c_int {
    if stack != 0 || !is_fork(flags as c_int) {
        return refuse(flags as c_int);
    }
    process::fork()
}

/// clone3(2) by number: the C library has no function for it.
///
/// # Safety
/// `arguments` is null or begins with valid flags.
pub(crate) unsafe fn by_structure(arguments: *const u64) -> c_int {
    let flags = if arguments.is_null() {
        0
    } else {
        // SAFETY: same contract.
        unsafe { *arguments }
    };
    refuse(flags as c_int)
}
