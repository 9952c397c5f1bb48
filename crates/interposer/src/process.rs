//! Processes: fork, exec, end, waiting and killing, in logical order.

use crate::boundary::{self, Effects};
use crate::raw::{self, fail, sys};
use crate::real::real;
use crate::turn::{self, Op, begin};
use crate::world::{MAX_PROCESSES, header, vkernel, world};
use crate::{refuse, signals, threads, tls};
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::layout::State;
use crane_channel::output::Output;
use crane_scheduler::{Slot, Wake};
use syscalls::Sysno;

const FREE: u32 = 0;
const RUNNING: u32 = 1;
/// Ended; its parent has not waited for it.
const ZOMBIE: u32 = 2;

/// A process's record. All-zero is a free one.
#[repr(C)]
pub(crate) struct Process {
    state: u32,
    /// Pid in the replica's namespace.
    pub(crate) pid: u32,
    parent: u32,
    /// Status as in wait(2), for a zombie.
    status: u32,
    /// First of the list of threads whose real end must be awaited.
    pub(crate) leavers: Slot,
    /// Slot of the thread that called exec and keeps the turn across it.
    exec: Slot,
    /// Slot of the first thread, which takes the process's signals.
    pub(crate) first: Slot,
    _pad: u32,
    /// Signals for the process, bit n-1 for signal n.
    pub(crate) pending: u64,
}

/// Slot of the child that a fork of this process is making.
static FORKING: AtomicU32 = AtomicU32::new(0);

fn wait_key(parent: u32) -> u64 {
    0x50 << 56 | u64::from(parent)
}

/// The index of the calling process.
pub(crate) fn current() -> u32 {
    world().threads[tls::slot() as usize].process
}

/// Registers the server's first process and thread.
pub(crate) fn first() {
    let w = world();
    let slot = w
        .scheduler
        .spawn(1)
        .unwrap_or_else(|| unreachable!("the table is empty"));
    w.processes[1] = record(raw::getpid(), 0, slot);
    header().processes.store(1, Ordering::Relaxed);
    threads::adopt(slot, 1);
}

fn record(pid: u32, parent: u32, first: Slot) -> Process {
    Process {
        state: RUNNING,
        pid,
        parent,
        status: 0,
        leavers: 0,
        exec: 0,
        first,
        _pad: 0,
        pending: 0,
    }
}

fn find(pid: u32) -> Option<u32> {
    let w = world();
    (1..MAX_PROCESSES as u32).find(|&i| {
        let p = &w.processes[i as usize];
        p.state != FREE && p.pid == pid
    })
}

/// After exec: the process is known by its pid and goes on with its turn.
pub(crate) fn reattach_after_exec() {
    let pid = raw::getpid();
    let known = find(pid).filter(|&i| world().processes[i as usize].exec != 0);
    let Some(index) = known else {
        refuse::count(refuse::Unsupported::Spawn);
        raw::write_stderr(
            raw::line!("crane: process {pid} was not started by fork and exec of this server: it cannot be kept in step\n")
                .as_bytes(),
        );
        raw::exit_group(126);
    };
    let slot = world().processes[index as usize].exec;
    world().processes[index as usize].exec = 0;
    // The kernel has ended the other threads and closed these descriptors.
    threads::drop_siblings(slot, index);
    let _ = vkernel().exec(&mut Effects, index, |_| {});
    threads::adopt(slot, index);
}

/// Arranges to be called at fork and at the process's end, before any other
/// library can: fork handlers of others then run in the schedule, and our end
/// comes after theirs.
pub(crate) fn register_end() {
    threads::make_exit_key();
    // SAFETY: plain registrations of functions of this library, which is never
    // unloaded.
    unsafe {
        (real().register_atfork)(None, None, Some(child_started), core::ptr::null_mut());
        on_exit(ended, core::ptr::null_mut());
    }
}

unsafe extern "C" {
    fn on_exit(f: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

extern "C" fn ended(status: c_int, _: *mut c_void) {
    if begin(Op::Exit) == 0 {
        return;
    }
    // What the C library would write after us, in real time, it writes now.
    // SAFETY: fflush(NULL) has no preconditions.
    unsafe { libc::fflush(core::ptr::null_mut()) };
    end(((status & 0xff) << 8) as u32);
}

/// _exit(2).
pub(crate) fn exit_now(status: c_int) -> ! {
    if begin(Op::Exit) != 0 {
        end(((status & 0xff) << 8) as u32);
    }
    raw::exit_group(status)
}

/// The calling process leaves the schedule. What follows is its real end.
fn end(status: u32) {
    let me = tls::slot();
    let index = current();
    threads::drop_siblings(me, index);
    tls::set_slot(0);
    world().scheduler.remove(me);
    bury(index, status);
    if world().scheduler.alive() > 0 {
        turn::leave();
    }
}

/// Marks a process as ended: its descriptors close, its parent is told.
fn bury(index: u32, status: u32) {
    let w = world();
    let p = &mut w.processes[index as usize];
    p.state = ZOMBIE;
    p.status = status;
    let (pid, parent) = (p.pid, p.parent);
    let _ = vkernel().exit(&mut Effects, index);
    let w = world();
    for p in &mut w.processes {
        if p.state != FREE && p.parent == index {
            p.parent = 0;
        }
    }
    header().processes.fetch_sub(1, Ordering::Relaxed);
    turn::wake_all(wait_key(parent));
    let last = w.scheduler.alive() == 0;
    boundary::tell(&Output::Exit { pid, status, last });
    if last {
        header().state.store(State::Exited as u32, Ordering::SeqCst);
    }
    boundary::flush();
}

/// fork(2); vfork(2) is the same, as a child that shares its parent's memory
/// could not take turns with it.
pub(crate) fn fork() -> c_int {
    let me = begin(Op::Fork);
    if me == 0 {
        // SAFETY: same contract.
        return unsafe { (real().fork)() };
    }
    let w = world();
    let parent = w.threads[me as usize].process;
    let free = (1..MAX_PROCESSES as u32).find(|&i| w.processes[i as usize].state == FREE);
    let Some((index, slot)) = free.and_then(|i| Some((i, w.scheduler.spawn(i)?))) else {
        return fail(libc::EAGAIN);
    };
    threads::prepare_child(slot, index);
    w.processes[index as usize] = record(0, parent, slot);
    let _ = vkernel().fork(parent, index);
    header().processes.fetch_add(1, Ordering::Relaxed);
    FORKING.store(slot, Ordering::Relaxed);
    w.threads[me as usize].pinned += 1;
    // SAFETY: same contract; the child comes back through `child_started`.
    let pid = unsafe { (real().fork)() };
    if pid == 0 {
        return 0;
    }
    let w = world();
    w.threads[me as usize].pinned -= 1;
    FORKING.store(0, Ordering::Relaxed);
    if pid < 0 {
        w.scheduler.remove(slot);
        w.processes[index as usize].state = FREE;
        let _ = vkernel().exit(&mut Effects, index);
        header().processes.fetch_sub(1, Ordering::Relaxed);
        return pid;
    }
    w.processes[index as usize].pid = pid as u32;
    pid
}

/// First of the child's fork handlers: waits for its first turn.
unsafe extern "C" fn child_started() {
    let slot = FORKING.swap(0, Ordering::Relaxed);
    if slot == 0 {
        // A fork that did not come through us (_Fork, or by a dying thread).
        refuse::count(refuse::Unsupported::Spawn);
        tls::set_slot(0);
        return;
    }
    tls::set_slot(slot);
    turn::await_first(slot);
    let process = world().threads[slot as usize].process;
    threads::adopt_running(slot, process);
}

/// The calling thread is about to exec: it keeps the turn until the new image
/// attaches, which then does what the kernel does with the old one.
pub(crate) fn exec_begins(me: Slot) {
    world().processes[current() as usize].exec = me;
}

/// The exec that was begun did not happen.
pub(crate) fn exec_failed() {
    world().processes[current() as usize].exec = 0;
}

/// wait4(2) over the processes of the group.
pub(crate) unsafe fn wait4(
    pid: c_int,
    status: *mut c_int,
    options: c_int,
    usage: *mut libc::rusage,
) -> c_int {
    let me = begin(Op::Wait);
    let mine = current();
    loop {
        let w = world();
        let matches = |i: &u32| {
            let p = &w.processes[*i as usize];
            p.state != FREE && p.parent == mine && (pid <= 0 || p.pid == pid as u32)
        };
        let children = || (1..MAX_PROCESSES as u32).filter(matches);
        let dead = children().find(|&i| w.processes[i as usize].state == ZOMBIE);
        if let Some(index) = dead {
            let p = &mut w.processes[index as usize];
            let (child, code) = (p.pid, p.status);
            p.state = FREE;
            if !usage.is_null() {
                // SAFETY: same contract; all-zero is a valid rusage.
                unsafe { core::ptr::write_bytes(usage, 0, 1) };
            }
            if !status.is_null() {
                // SAFETY: same contract.
                unsafe { *status = code as c_int };
            }
            // The kernel's zombie goes too; the process is at its very end.
            // SAFETY: plain wait4(2) without results.
            unsafe { sys!(Sysno::wait4, child, 0, 0, 0) };
            return child as c_int;
        }
        if children().next().is_none() {
            return fail(libc::ECHILD);
        }
        if options & libc::WNOHANG != 0 {
            return 0;
        }
        if turn::wait(me, wait_key(mine), None) == Wake::Interrupted {
            return fail(libc::EINTR);
        }
    }
}

/// kill(2): processes of the group in logical order, others as they are.
pub(crate) fn kill(pid: c_int, signal: c_int) -> c_int {
    let me = begin(Op::Kill);
    let native = || {
        // SAFETY: plain kill(2).
        raw::ret(unsafe { sys!(Sysno::kill, pid, signal) }) as c_int
    };
    if me == 0 || pid <= 0 {
        return native();
    }
    let Some(index) = find(pid as u32) else {
        return native();
    };
    if world().processes[index as usize].state == ZOMBIE || signal == 0 {
        return 0;
    }
    if !(1..=64).contains(&signal) {
        return fail(libc::EINVAL);
    }
    if signal == libc::SIGKILL && index != current() {
        native();
        threads::drop_siblings(0, index);
        bury(index, signal as u32);
        return 0;
    }
    signals::post(index, signal as u32);
    signals::deliver(me);
    0
}

/// The program's environment, for exec without one.
pub(crate) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library's own variable; the caller holds the turn.
    unsafe { environ }
}
