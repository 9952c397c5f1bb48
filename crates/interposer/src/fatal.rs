//! Ends by a signal, in the order.
//!
//! What the program's own code raises (a bad address, a division by zero,
//! abort) and what a signal's default action ends comes to a handler of ours:
//! the process ends in the order as any other, its parent is told, and only
//! then does the signal do its work. What cannot be met from inside (a loader
//! that fails, a kill from outside) is noticed by the parent, which really gets
//! SIGCHLD, whatever the program has done about that signal.

use crate::process::{self, RUNNING};
use crate::raw::{self, fail, line, sys};
use crate::signals::bit;
use crate::turn::{Op, begin};
use crate::world::{MAX_PROCESSES, header, world};
use crate::{actions, tls};
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;
use crane_scheduler::{MAX_THREADS, Slot};
use libc::{siginfo_t, stack_t};
use syscalls::Sysno;

/// Bytes of the stack on which a thread's last handler runs when its own stack
/// is exhausted.
const STACK: usize = 64 << 10;

/// A stack for each thread, in the segment: costs memory when it is used.
#[repr(C, align(4096))]
pub(crate) struct Stacks([[u8; STACK]; MAX_THREADS]);

/// What the program has set by sigaltstack(2). All-zero: nothing.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct OwnStack {
    base: u64,
    size: u64,
    set: u32,
    flags: u32,
}

/// The calling process meets its signals: called once in every image.
pub(crate) fn guard() {
    actions::install_own();
    arm_stack(tls::slot());
}

/// Gives the calling thread a stack for handlers.
pub(crate) fn arm_stack(slot: Slot) {
    let base = &raw mut world().stacks.0[slot as usize];
    let own = stack_t {
        ss_sp: base.cast(),
        ss_flags: 0,
        ss_size: STACK,
    };
    world().threads[slot as usize].own_stack.set = 0;
    // SAFETY: memory of the segment that belongs to this thread alone.
    unsafe { sys!(Sysno::sigaltstack, &raw const own, 0) };
}

/// sigaltstack(2): ours does not show.
pub(crate) unsafe fn sigaltstack(new: *const stack_t, old: *mut stack_t) -> c_int {
    let me = begin(Op::SignalAction);
    if me == 0 {
        // SAFETY: same contract.
        return raw::ret(unsafe { sys!(Sysno::sigaltstack, new, old) }) as c_int;
    }
    let before = world().threads[me as usize].own_stack;
    // SAFETY: the caller passes valid places or null; all-zero is valid.
    unsafe {
        let mut real: stack_t = core::mem::zeroed();
        sys!(Sysno::sigaltstack, 0, &raw mut real);
        let on_it = before.set != 0 && real.ss_flags & libc::SS_ONSTACK != 0;
        if !new.is_null() {
            if on_it {
                return fail(libc::EPERM);
            }
            if (*new).ss_flags & libc::SS_DISABLE != 0 {
                arm_stack(me);
            } else {
                let code = sys!(Sysno::sigaltstack, new, 0) as isize;
                if code < 0 {
                    return fail(-code as c_int);
                }
                world().threads[me as usize].own_stack = OwnStack {
                    base: (*new).ss_sp as u64,
                    size: (*new).ss_size as u64,
                    set: 1,
                    flags: (*new).ss_flags as u32,
                };
            }
        }
        if !old.is_null() {
            *old = stack_t {
                ss_sp: before.base as *mut c_void,
                ss_size: before.size as usize,
                ss_flags: if before.set == 0 {
                    libc::SS_DISABLE
                } else if on_it {
                    libc::SS_ONSTACK
                } else {
                    before.flags as c_int
                },
            };
            if before.set == 0 {
                (*old).ss_sp = core::ptr::null_mut();
                (*old).ss_size = 0;
            }
        }
    }
    0
}

/// The calling process ends by a signal.
pub(crate) fn end_by(signal: u32) -> ! {
    begin(Op::Exit);
    process::end(signal);
    die(signal)
}

/// The real end: the process is not in the schedule any more.
fn die(signal: u32) -> ! {
    if signal != libc::SIGKILL as u32 {
        actions::restore_default(signal);
    }
    let let_through = bit(signal);
    // SAFETY: plain system calls on ourselves with a valid set.
    unsafe {
        sys!(
            Sysno::rt_sigprocmask,
            libc::SIG_UNBLOCK,
            &raw const let_through,
            0,
            size_of::<u64>()
        );
        sys!(Sysno::tgkill, raw::getpid(), raw::gettid(), signal);
    }
    raw::exit_group(128 + signal as c_int)
}

/// A signal that the program itself raised, inside an instruction or inside the
/// C library (abort).
pub(crate) fn fault(me: Slot, signal: u32, info: *mut siginfo_t, context: *mut c_void) {
    if me == 0 {
        die(signal);
    }
    let process = process::current();
    let action = &world().processes[process as usize].actions[signal as usize];
    let handler = action.handler;
    // One that ignores or blocks what it cannot go on from ends all the same.
    let blocked = world().threads[me as usize].mask & bit(signal) != 0;
    let raised = signal == libc::SIGABRT as u32;
    if handler == libc::SIG_IGN as u64 && (raised || signal == libc::SIGXFSZ as u32) {
        return;
    }
    let handled = handler != libc::SIG_DFL as u64 && handler != libc::SIG_IGN as u64;
    if handled && (raised || !blocked) {
        // SAFETY: the kernel's arguments, passed on.
        unsafe { actions::run(me, signal, info, context) };
        return;
    }
    begin(Op::Exit);
    process::end(signal);
    // The instruction is run again and does what it did, now for real.
    actions::restore_default(signal);
    // SAFETY: the kernel's details of this signal.
    let sent = unsafe { (*info).si_code } <= 0;
    if sent {
        die(signal);
    }
}

/// A child really ended. Most have ended in the order before; one that has not
/// vanished: it ends in the order now if it held the turn, as the others do
/// the same, and otherwise this replica cannot go on.
///
/// Called from a handler, mostly without the turn: it reads what only the end
/// of a child changes, and acts when that child can be seen to hold the turn.
pub(crate) fn look_for_vanished_children() {
    // The kernel prefers the thread that made the child, which may be at its end
    // and out of the schedule by now.
    let mine = match tls::slot() {
        0 => process::find(raw::getpid()),
        me => Some(world().threads[me as usize].process),
    };
    let Some(mine) = mine else {
        return;
    };
    for index in 1..MAX_PROCESSES as u32 {
        let p = &world().processes[index as usize];
        if p.state != RUNNING || p.parent != mine || p.pid == 0 {
            continue;
        }
        // SAFETY: all-zero is a valid siginfo_t; plain waitid(2), which leaves
        // the child as it is.
        let (code, status) = unsafe {
            let mut info: siginfo_t = core::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let found = sys!(Sysno::waitid, libc::P_PID, p.pid, &raw mut info, options, 0) as isize;
            if found != 0 || info.si_pid() == 0 {
                continue;
            }
            (info.si_code, info.si_status())
        };
        let holder = header().holder.load(Ordering::Acquire);
        let held = world().threads[holder as usize].process == index;
        if code == libc::CLD_EXITED && held {
            process::end_of_another(index, ((status & 0xff) << 8) as u32);
        } else if held && status != libc::SIGKILL {
            process::end_of_another(index, status as u32 & 0x7f);
        } else {
            vanished(p.pid, status);
        }
    }
}

/// A process was ended from outside: nobody else's did, so this replica stops.
fn vanished(pid: u32, signal: c_int) -> ! {
    raw::write_stderr(
        line!("crane: process {pid} was ended from outside (signal {signal}), which the other replicas did not see: this replica stops\n")
            .as_bytes(),
    );
    // SAFETY: ends every process of the replica; its init then ends too.
    unsafe { sys!(Sysno::kill, -1isize, libc::SIGKILL) };
    raw::exit_group(70)
}
