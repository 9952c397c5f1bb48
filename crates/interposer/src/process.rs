//! Processes: their records, fork, attaching after exec, and their ordered end.

use crate::actions::{self, Action};
use crate::boundary::{self, Effects};
use crate::raw::{self, fail, sys};
use crate::real::real;
use crate::signals::{self, Info, Queued};
use crate::turn::{self, Op, begin};
use crate::world::{MAX_PROCESSES, header, vkernel, world};
use crate::{fatal, locks, refuse, stops, threads, tls, wait};
use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::layout::State;
use crane_channel::output::Output;
use crane_scheduler::Slot;
use syscalls::Sysno;

/// What a process is.
pub(crate) const FREE: u32 = 0;
pub(crate) const RUNNING: u32 = 1;
/// Ended; its parent has not waited for it.
pub(crate) const ZOMBIE: u32 = 2;

/// A process's record. All-zero is a free one.
#[repr(C)]
pub(crate) struct Process {
    /// [`FREE`], [`RUNNING`] or [`ZOMBIE`].
    pub(crate) state: u32,
    /// Pid in the replica's namespace; 0 while it is being made.
    pub(crate) pid: u32,
    /// Index of its parent; 0: that has ended, or is the replica's init.
    pub(crate) parent: u32,
    /// Status as in wait(2), for a zombie.
    pub(crate) status: u32,
    /// First of the list of threads whose real end must be awaited.
    pub(crate) leavers: Slot,
    /// Slot of the thread that called exec and keeps the turn across it.
    pub(crate) exec: Slot,
    /// Slot of the first thread, which takes the process's signals.
    pub(crate) first: Slot,
    /// Process group and session.
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// 1: orphans below it become its children (PR_SET_CHILD_SUBREAPER).
    pub(crate) subreaper: u32,
    /// Signal that it gets when its parent ends (PR_SET_PDEATHSIG).
    pub(crate) death_signal: u32,
    /// 1: its parent waits until it has called exec or ended (vfork, spawn).
    pub(crate) awaited: u32,
    /// Why its parent's spawn failed, an errno.
    pub(crate) spawn_error: i32,
    /// 1: has undoable operations on System V semaphores.
    pub(crate) undo: u32,
    /// The signal that stopped it; 0: it is not stopped.
    pub(crate) stopped: u32,
    /// Status of a stop or a continuation that its parent has not asked for.
    pub(crate) report: u32,
    /// Order of creation.
    pub(crate) serial: u64,
    /// Signals for the process, bit n-1 for signal n.
    pub(crate) pending: u64,
    pub(crate) queued: u32,
    /// Thread that is in the dynamic linker, see [`crate::dynamic`].
    pub(crate) loader: Slot,
    pub(crate) queue: [Queued; signals::QUEUE],
    pub(crate) actions: [Action; actions::COUNT],
}

/// Slot of the child that a fork of this process is making.
static FORKING: AtomicU32 = AtomicU32::new(0);

/// What waits for children of a process wait for.
pub(crate) fn wait_key(parent: u32) -> u64 {
    0x50 << 56 | u64::from(parent)
}

/// What a parent waits for that is suspended until its child has called exec.
fn awaited_key(child: u32) -> u64 {
    0x51 << 56 | u64::from(child)
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
    let pid = raw::getpid();
    prepare(1, 0, slot);
    let p = &mut w.processes[1];
    (p.pid, p.group, p.session) = (pid, pid, pid);
    header().processes.store(1, Ordering::Relaxed);
    threads::adopt(slot, 1);
    fatal::guard();
}

/// Clears a record for a new process.
fn prepare(index: u32, parent: u32, first: Slot) {
    let w = world();
    let p = &mut w.processes[index as usize];
    // SAFETY: all-zero is the valid free state of a Process (integers only).
    unsafe { core::ptr::write_bytes(p, 0, 1) };
    p.state = RUNNING;
    (p.parent, p.first) = (parent, first);
    w.process_serial += 1;
    p.serial = w.process_serial;
}

/// The process of the group with this pid, also one that has ended and was not
/// waited for.
pub(crate) fn find(pid: u32) -> Option<u32> {
    let w = world();
    all().find(|&i| w.processes[i as usize].state != FREE && w.processes[i as usize].pid == pid)
}

/// All indices.
pub(crate) fn all() -> core::ops::Range<u32> {
    1..MAX_PROCESSES as u32
}

/// The server's main process: the first one, or when that has put itself into
/// the background, the oldest that nobody of the group is the parent of.
pub(crate) fn main() -> Option<u32> {
    let w = world();
    all()
        .filter(|&i| {
            let p = &w.processes[i as usize];
            p.state == RUNNING && p.parent == 0
        })
        .min_by_key(|&i| w.processes[i as usize].serial)
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
    world().processes[index as usize].first = slot;
    // The kernel has ended the other threads, closed these descriptors and
    // taken the handlers out.
    threads::drop_siblings(slot, index);
    crate::holds::give_up_all(slot);
    let _ = vkernel().exec(&mut Effects, index, |_| {});
    crate::timers::forget(index, true);
    actions::forget_handlers(index);
    threads::adopt_image(slot, index);
    fatal::guard();
    release_parent(index);
}

/// The parent of a spawned child goes on.
fn release_parent(index: u32) {
    if core::mem::take(&mut world().processes[index as usize].awaited) != 0 {
        turn::wake_all(awaited_key(index));
    }
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
        __cxa_at_quick_exit(ended_quickly, core::ptr::null_mut());
    }
}

unsafe extern "C" {
    fn on_exit(f: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    fn __cxa_at_quick_exit(f: extern "C" fn(*mut c_void), dso: *mut c_void) -> c_int;
    fn fcloseall() -> c_int;
}

/// Status of the quick_exit under way.
static QUICK_STATUS: AtomicU32 = AtomicU32::new(0);

/// Notes the status of a quick_exit(3), whose handlers are not told it.
pub(crate) fn note_quick_exit(status: c_int) {
    QUICK_STATUS.store(status as u32, Ordering::Relaxed);
}

extern "C" fn ended_quickly(_: *mut c_void) {
    if begin(Op::Exit) != 0 {
        end((QUICK_STATUS.load(Ordering::Relaxed) & 0xff) << 8);
    }
}

extern "C" fn ended(status: c_int, _: *mut c_void) {
    if begin(Op::Exit) == 0 {
        return;
    }
    // What the C library would write after us, in real time, it writes now, and as
    // it would: fflush(NULL) waited for the locks of streams in which others read.
    // SAFETY: fcloseall(3) has no preconditions. It leaves the streams open.
    unsafe { fcloseall() };
    end(((status & 0xff) << 8) as u32);
}

/// _exit(2).
pub(crate) fn exit_now(status: c_int) -> ! {
    if begin(Op::Exit) != 0 {
        end(((status & 0xff) << 8) as u32);
    }
    raw::exit_group(status)
}

/// The calling process leaves the schedule with a status as in wait(2). What
/// follows is its real end.
pub(crate) fn end(status: u32) {
    let me = tls::slot();
    let index = current();
    // What the kernel gives back at a process's real end, and others can see,
    // is given back now: locks on files, and operations on semaphores.
    locks::process_ends(index);
    // SAFETY: plain close_range(2); nothing of this process uses them again.
    unsafe { sys!(Sysno::close_range, 0, u32::MAX, 0) };
    threads::drop_siblings(me, index);
    tls::set_slot(0);
    world().scheduler.remove(me);
    crate::holds::give_up_all(me);
    bury(index, status);
    if world().scheduler.alive() > 0 {
        turn::leave();
    }
}

/// A process that is really gone ends in the order, by the hand of another,
/// which is not in the schedule while it does this.
pub(crate) fn end_of_another(index: u32, status: u32) {
    threads::drop_siblings(0, index);
    bury(index, status);
    if world().scheduler.alive() > 0 {
        turn::leave();
    }
}

/// Marks a process as ended: its descriptors close, its children get another
/// parent, its own parent is told.
pub(crate) fn bury(index: u32, status: u32) {
    let leaving = stops::Leaving::before();
    crate::timers::forget(index, false);
    let _ = vkernel().exit(&mut Effects, index);
    let w = world();
    let p = &mut w.processes[index as usize];
    p.state = ZOMBIE;
    p.status = status;
    p.exec = 0;
    (p.pending, p.queued) = (0, 0);
    (p.stopped, p.report) = (0, 0);
    crate::pidfds::ended(index);
    let p = &world().processes[index as usize];
    let (pid, parent, failed) = (p.pid, p.parent, p.spawn_error != 0);
    release_parent(index);
    hand_children_over(index);
    leaving.after();
    header().processes.fetch_sub(1, Ordering::Relaxed);
    if parent == 0 {
        world().processes[index as usize].state = FREE;
    } else if !failed {
        let uid = raw::getuid();
        signals::post(parent, Info::of_child(pid, uid, status));
        if actions::children_vanish(parent) {
            world().processes[index as usize].state = FREE;
        }
    }
    turn::wake_all(wait_key(parent));
    locks::others_go_on();
    let last = world().scheduler.alive() == 0;
    boundary::tell(&Output::Exit { pid, status, last });
    if last {
        header().state.store(State::Exited as u32, Ordering::SeqCst);
    }
    boundary::flush();
}

/// Children of a process that ended belong to the nearest ancestor that wants
/// orphans, or else to the replica's init, which waits for them at once.
fn hand_children_over(index: u32) {
    let w = world();
    let mut heir = w.processes[index as usize].parent;
    while heir != 0 && w.processes[heir as usize].subreaper == 0 {
        heir = w.processes[heir as usize].parent;
    }
    for child in all() {
        let p = &mut world().processes[child as usize];
        if p.state == FREE || p.parent != index {
            continue;
        }
        p.parent = heir;
        if p.state == ZOMBIE && heir == 0 {
            p.state = FREE;
        } else if p.state == ZOMBIE {
            turn::wake_all(wait_key(heir));
        } else if p.death_signal != 0 {
            let signal = p.death_signal;
            signals::post(child, Info::of_kernel(signal));
        }
    }
}

/// fork(2).
pub(crate) fn fork() -> c_int {
    make(false).map_or_else(fail, |(pid, _)| pid)
}

/// vfork(2): as fork, because a child that shares its parent's memory could not
/// take turns with it; the parent waits until the child has called exec or
/// ended.
pub(crate) fn vfork() -> c_int {
    match make(true) {
        Ok((pid, index)) => {
            if pid > 0 {
                await_child(index);
            }
            pid
        }
        Err(code) => fail(code),
    }
}

/// Makes a child by fork(2). Returns as fork does, with the child's index.
pub(crate) fn make(awaited: bool) -> Result<(c_int, u32), c_int> {
    let me = begin(Op::Fork);
    if me == 0 {
        // SAFETY: same contract.
        let pid = unsafe { (real().fork)() };
        return Ok((pid, 0));
    }
    let w = world();
    let parent = w.threads[me as usize].process;
    let free = all().find(|&i| w.processes[i as usize].state == FREE);
    let Some((index, slot)) = free.and_then(|i| Some((i, w.scheduler.spawn(i)?))) else {
        return Err(libc::EAGAIN);
    };
    threads::prepare_child(slot, index);
    prepare(index, parent, slot);
    let actions = w.processes[parent as usize].actions;
    let (group, session) = (
        w.processes[parent as usize].group,
        w.processes[parent as usize].session,
    );
    let p = &mut w.processes[index as usize];
    (p.group, p.session, p.actions) = (group, session, actions);
    p.awaited = awaited.into();
    let _ = vkernel().fork(parent, index);
    header().processes.fetch_add(1, Ordering::Relaxed);
    FORKING.store(slot, Ordering::Relaxed);
    w.threads[me as usize].pinned += 1;
    // SAFETY: same contract; the child comes back through `child_started`.
    let pid = unsafe { (real().fork)() };
    if pid == 0 {
        return Ok((0, index));
    }
    let w = world();
    w.threads[me as usize].pinned -= 1;
    FORKING.store(0, Ordering::Relaxed);
    if pid < 0 {
        // SAFETY: errno is the thread's own.
        let code = unsafe { *libc::__errno_location() };
        w.scheduler.remove(slot);
        w.processes[index as usize].state = FREE;
        let _ = vkernel().exit(&mut Effects, index);
        header().processes.fetch_sub(1, Ordering::Relaxed);
        return Err(code);
    }
    w.processes[index as usize].pid = pid as u32;
    Ok((pid, index))
}

/// Waits until a child that was made with `awaited` has called exec or ended.
pub(crate) fn await_child(index: u32) {
    let me = tls::slot();
    let serial = world().processes[index as usize].serial;
    if me == 0 {
        return;
    }
    loop {
        let p = &world().processes[index as usize];
        if p.awaited == 0 || p.serial != serial || p.state != RUNNING {
            return;
        }
        turn::wait_deaf(me, awaited_key(index));
    }
}

/// Takes a child that could not be spawned away again and says why it could not.
pub(crate) fn spawn_failure(index: u32) -> Option<c_int> {
    let p = &mut world().processes[index as usize];
    if p.spawn_error == 0 {
        return None;
    }
    let (code, pid) = (p.spawn_error, p.pid);
    if p.state == ZOMBIE {
        p.state = FREE;
        wait::reap(pid);
    }
    Some(code)
}

/// First of the child's fork handlers: waits for its first turn.
unsafe extern "C" fn child_started() {
    let slot = FORKING.swap(0, Ordering::Relaxed);
    if slot == 0 {
        // A fork that did not come through us (by a dying thread).
        refuse::count(refuse::Unsupported::Spawn);
        tls::set_slot(0);
        return;
    }
    tls::set_slot(slot);
    turn::await_first(slot);
    let process = world().threads[slot as usize].process;
    threads::adopt_running(slot, process);
    fatal::arm_stack(slot);
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

/// The program's environment, for exec without one.
pub(crate) fn environment() -> *const *const c_char {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the C library's own variable; the caller holds the turn.
    unsafe { environ }
}
