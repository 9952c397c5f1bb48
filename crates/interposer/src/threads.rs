//! Threads: creation, end and joining inside the order.
//!
//! Nothing of a new thread runs before its first turn, and a thread has really
//! ended before the turn moves on: its last `free()` calls would otherwise
//! race with whoever runs next, and through the choice of an arena such a race
//! reaches the server's answers.

mod ends;

pub(crate) use ends::{await_leavers, detach, join};

use crate::raw::sys;
use crate::real::real;
use crate::turn::{self, Op, begin};
use crate::world::{header, world};
use crate::{cancel, mutex, raw, refuse, tls};
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use crane_scheduler::Slot;
use syscalls::Sysno;

/// A thread's record, by slot. All-zero is a free one.
#[repr(C)]
pub(crate) struct Thread {
    pub(crate) gate: turn::Gate,
    /// 1: sleeps at its gate and may be asked to wait for the log.
    pub(crate) parked: u32,
    /// Kernel id in the replica's namespace.
    pub(crate) tid: u32,
    /// Depth of calls into the C library during which the turn may not rotate.
    pub(crate) pinned: u32,
    pub(crate) process: u32,
    /// Where the C library has the kernel clear the thread id at the end.
    tid_word: u64,
    /// The C library's handle (pthread_t).
    handle: u64,
    start: u64,
    argument: u64,
    result: u64,
    detached: u32,
    /// 1: has run its last operation; its slot waits for a join.
    pub(crate) ended: u32,
    /// Next slot of the process's list of leavers.
    next_leaver: Slot,
    /// Rounds of key destructors seen, see [`last_call`].
    rounds: u32,
    /// Signals to be taken by this thread, bit n-1 for signal n.
    pub(crate) pending: u64,
    /// See [`cancel`].
    pub(crate) cancel: u32,
    pub(crate) in_point: u32,
    /// Bits that wake it while it is in a futex wait.
    pub(crate) futex_bits: u32,
    /// Who waits for this thread's end.
    joiner: Slot,
    /// 1 while it waits for a robust mutex.
    pub(crate) awaits_robust: u32,
    /// Calls of the dynamic linker that it is in.
    pub(crate) linking: u32,
    /// Latest initialiser that it runs, see [`crate::once`].
    pub(crate) initialiser: u64,
    /// As pthread_setschedparam(3) set them; nothing is scheduled by them.
    pub(crate) policy: c_int,
    pub(crate) priority: c_int,
    /// Signals that it blocks, and those that it asked to block itself.
    pub(crate) mask: u64,
    pub(crate) asked: u64,
    /// Signals that it waits for (sigwait).
    pub(crate) awaits: u64,
    /// Signal that is on its way through the kernel to a handler.
    pub(crate) delivering: u32,
    /// What a handler that ran during a wait means for the call, see `signals`.
    pub(crate) interrupted: u32,
    /// Details of the signal that is on its way.
    pub(crate) current: crate::signals::Info,
    /// Of the segment, when the kernel was last told what it keeps for the thread.
    pub(crate) generation: u32,
    _pad: u32,
    pub(crate) holds: crate::holds::Holds,
    /// The program's own stack for handlers.
    pub(crate) own_stack: crate::fatal::OwnStack,
}

/// prctl(2) option, since Linux 3.5.
const PR_GET_TID_ADDRESS: usize = 40;

pub(crate) type Start = extern "C" fn(*mut c_void) -> *mut c_void;

/// Offset in the C library's thread structure of the word that the kernel
/// clears at a thread's end; found once per process image, see [`find_tid_word`].
static TID_OFFSET: AtomicU32 = AtomicU32::new(0);
static EXIT_KEY: AtomicU32 = AtomicU32::new(u32::MAX);

/// Registers the calling thread, the only one of its process, in `slot`.
pub(crate) fn adopt(slot: Slot, process: u32) {
    if TID_OFFSET.load(Ordering::Relaxed) == 0 {
        TID_OFFSET.store(find_tid_word(), Ordering::Relaxed);
    }
    reset(&mut world().threads[slot as usize], process);
    adopt_running(slot, process);
}

/// As [`adopt`], keeping the record's gate and signals: a forked child in its
/// first turn.
pub(crate) fn adopt_running(slot: Slot, process: u32) {
    let t = &mut world().threads[slot as usize];
    t.process = process;
    t.tid = raw::gettid();
    t.handle = handle();
    t.tid_word = t.handle + u64::from(TID_OFFSET.load(Ordering::Relaxed));
    tls::set_slot(slot);
}

/// As [`adopt`], for the image after an exec: signals stay pending and blocked.
pub(crate) fn adopt_image(slot: Slot, process: u32) {
    let t = &world().threads[slot as usize];
    let (pending, mask) = (t.pending, t.mask);
    adopt(slot, process);
    let t = &mut world().threads[slot as usize];
    (t.pending, t.mask, t.asked) = (pending, mask, mask);
}

/// Makes the record of a thread that a fork by the calling thread is about to
/// make: it goes on within whatever its original is in.
pub(crate) fn prepare_child(slot: Slot, process: u32) {
    let w = world();
    reset(&mut w.threads[slot as usize], process);
    let original = &w.threads[tls::slot() as usize];
    let (cancel, initialiser) = (original.cancel, original.initialiser);
    let (policy, priority) = (original.policy, original.priority);
    let (mask, interrupted) = (original.mask, original.interrupted);
    let t = &mut w.threads[slot as usize];
    (t.cancel, t.initialiser) = (cancel, initialiser);
    // A fork in a handler: the child, too, is in the wait that was interrupted.
    t.interrupted = interrupted;
    (t.policy, t.priority) = (policy, priority);
    (t.mask, t.asked) = (mask, mask);
}

fn reset(t: &mut Thread, process: u32) {
    // SAFETY: all-zero is the valid free state of a Thread (integers only).
    *t = unsafe { core::mem::zeroed() };
    t.process = process;
    // The thread that makes it has the turn, and passes on what it has.
    t.generation = header().generation.load(Ordering::Relaxed);
}

fn handle() -> u64 {
    // SAFETY: pthread_self has no preconditions.
    unsafe { libc::pthread_self() }
}

/// Finds the word of the C library's thread structure that the kernel clears
/// when the thread has ended. Its place differs between versions of glibc, so
/// the kernel is asked (prctl(2), PR_GET_TID_ADDRESS).
fn find_tid_word() -> u32 {
    let mut address = 0u64;
    let base = handle();
    // SAFETY: the kernel writes one pointer to `address`.
    let code = unsafe { sys!(Sysno::prctl, PR_GET_TID_ADDRESS, &raw mut address, 0, 0, 0) };
    let offset = address.wrapping_sub(base);
    if code != 0 || offset == 0 || offset > 4096 {
        refuse::fatal(raw::line!(
            "the kernel does not tell where threads end (PR_GET_TID_ADDRESS): use a kernel with CONFIG_CHECKPOINT_RESTORE"
        ));
    }
    offset as u32
}

/// pthread_create(3).
pub(crate) unsafe fn create(
    thread: *mut libc::pthread_t,
    attributes: *const libc::pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    let me = begin(Op::ThreadCreate);
    if me == 0 {
        refuse::unscheduled_wait();
    }
    let w = world();
    let process = w.threads[me as usize].process;
    let Some(slot) = w.scheduler.spawn(process) else {
        return libc::EAGAIN;
    };
    let t = &mut w.threads[slot as usize];
    reset(t, process);
    t.start = start as usize as u64;
    t.argument = argument as u64;
    crate::priorities::inherit(me, slot);
    let mask = w.threads[me as usize].mask;
    let t = &mut w.threads[slot as usize];
    (t.mask, t.asked) = (mask, mask);

    // Every thread is created joinable, so that its end can be awaited; the
    // program's wish is kept in our record.
    // SAFETY: the caller passes valid attributes or null, as pthread_create
    // demands; a bitwise copy is used for this one call only, while the
    // original stays alive.
    let code = unsafe {
        let mut own: libc::pthread_attr_t = core::mem::zeroed();
        if attributes.is_null() {
            libc::pthread_attr_init(&mut own);
        } else {
            own = *attributes;
            let mut state = 0;
            pthread_attr_getdetachstate(attributes, &mut state);
            t.detached = (state == libc::PTHREAD_CREATE_DETACHED).into();
            libc::pthread_attr_setdetachstate(&mut own, libc::PTHREAD_CREATE_JOINABLE);
            crate::priorities::from_attributes(attributes, &mut own, slot);
        }
        let mut handle: libc::pthread_t = 0;
        w.threads[me as usize].pinned += 1;
        let code =
            (real().pthread_create)(&mut handle, &own, trampoline, slot as usize as *mut c_void);
        let w = world();
        w.threads[me as usize].pinned -= 1;
        if code == 0 {
            w.threads[slot as usize].handle = handle;
            *thread = handle;
        }
        code
    };
    if code != 0 {
        world().scheduler.remove(slot);
    }
    code
}

unsafe extern "C" {
    fn pthread_attr_getdetachstate(a: *const libc::pthread_attr_t, state: *mut c_int) -> c_int;
}

extern "C" fn trampoline(slot: *mut c_void) -> *mut c_void {
    let slot = slot as usize as Slot;
    tls::set_slot(slot);
    turn::await_first(slot);
    crate::fatal::arm_stack(slot);
    let t = &mut world().threads[slot as usize];
    t.tid = raw::gettid();
    t.handle = handle();
    t.tid_word = t.handle + u64::from(TID_OFFSET.load(Ordering::Relaxed));
    // SAFETY: `start` was stored by `create` from a function of this type.
    let start: Start = unsafe { core::mem::transmute(t.start as usize) };
    let argument = t.argument as *mut c_void;
    arm_exit_key();
    let result = start(argument);
    world().threads[slot as usize].result = result as u64;
    result
}

/// Sets the calling thread's value of our key, so that its destructor runs.
fn arm_exit_key() {
    let mut key = EXIT_KEY.load(Ordering::Relaxed);
    if key == u32::MAX {
        // SAFETY: plain calls; the destructor is a function of this library,
        // which is never unloaded.
        unsafe { libc::pthread_key_create(&mut key, Some(last_call)) };
        EXIT_KEY.store(key, Ordering::Relaxed);
    }
    // SAFETY: the key is valid and owned by us.
    unsafe { libc::pthread_setspecific(key, core::ptr::dangling::<c_void>()) };
}

/// Creates the key before any other library can, so that ours is the first of
/// each round of destructors.
pub(crate) fn make_exit_key() {
    let mut key = u32::MAX;
    // SAFETY: as above.
    unsafe { libc::pthread_key_create(&mut key, Some(last_call)) };
    EXIT_KEY.store(key, Ordering::Relaxed);
}

/// Destructor of our key: re-arms until the last round, so that other
/// destructors have run, then leaves the schedule.
unsafe extern "C" fn last_call(_: *mut c_void) {
    let me = tls::slot();
    if me == 0 {
        return;
    }
    let t = &mut world().threads[me as usize];
    t.rounds += 1;
    if t.rounds < 4 {
        arm_exit_key();
        return;
    }
    end(me);
}

fn end(me: Slot) {
    cancel::ends(me);
    begin(Op::ThreadEnd);
    crate::holds::give_up_all(me);
    let w = world();
    let process = w.threads[me as usize].process as usize;
    if is_last(me) {
        // The C library calls exit(3) next, which is an operation again.
        return;
    }
    let t = &mut w.threads[me as usize];
    t.ended = 1;
    t.next_leaver = w.processes[process].leavers;
    w.processes[process].leavers = me;
    mutex::owners_died();
    crate::dynamic::abandon(me);
    turn::wake_all(ends::end_key(me));
    tls::set_slot(0);
    // The slot stays taken, as a thread that is blocked for ever, until joined.
    w.scheduler.block(0, None);
    turn::leave();
}

pub(crate) fn find(thread: libc::pthread_t) -> Option<Slot> {
    let w = world();
    let process = w.threads[tls::slot() as usize].process;
    (1..w.scheduler.slots_end()).find(|&slot| {
        let t = &w.threads[slot as usize];
        t.handle == thread && t.process == process && w.scheduler.exists(slot)
    })
}

/// pthread_exit(3): the result is noted, the C library unwinds and runs the
/// destructors, among them ours.
pub(crate) unsafe fn exit(result: *mut c_void) -> ! {
    let me = begin(Op::ThreadExit);
    // SAFETY: same contract.
    unsafe { unwind(me, result) }
}

/// exit(2) by number: the end of the process with its last thread.
pub(crate) fn exit_by_number(status: c_int) -> ! {
    let me = begin(Op::ThreadExit);
    if me == 0 || is_last(me) {
        crate::process::exit_now(status);
    }
    // SAFETY: the caller goes away for good.
    unsafe { unwind(me, core::ptr::null_mut()) }
}

/// Whether no other thread of the process is left.
fn is_last(me: Slot) -> bool {
    let w = world();
    let process = w.threads[me as usize].process;
    !(1..w.scheduler.slots_end()).any(|slot| {
        let t = &w.threads[slot as usize];
        slot != me && t.process == process && t.ended == 0 && w.scheduler.exists(slot)
    })
}

/// Ends the calling thread with `result`.
///
/// # Safety
/// As pthread_exit(3).
pub(crate) unsafe fn unwind(me: Slot, result: *mut c_void) -> ! {
    if me != 0 {
        cancel::ends(me);
        // The C library loads the unwinder the first time.
        crate::dynamic::await_linker(me);
        world().threads[me as usize].result = result as u64;
        arm_exit_key();
    }
    // SAFETY: same contract.
    unsafe { (real().pthread_exit)(result) }
}

/// Removes all threads of `process` but `me` from the schedule, for its end or
/// for exec. They sleep at their gates and never wake.
pub(crate) fn drop_siblings(me: Slot, process: u32) {
    let w = world();
    for slot in 1..w.scheduler.slots_end() {
        if slot != me && w.threads[slot as usize].process == process && w.scheduler.exists(slot) {
            w.scheduler.remove(slot);
            w.threads[slot as usize].handle = 0;
        }
    }
    // When none is left that could be woken by it.
    for slot in 1..world().scheduler.slots_end() {
        let w = world();
        let gone = !w.scheduler.exists(slot) && w.threads[slot as usize].process == process;
        if slot != me && gone {
            crate::holds::give_up_all(slot);
        }
    }
    w.processes[process as usize].leavers = 0;
    w.processes[process as usize].loader = 0;
    mutex::owners_died();
}

/// sched_yield(2), pthread_yield.
pub(crate) fn sched_yield() -> c_int {
    let me = begin(Op::Yield);
    turn::yield_now(me);
    0
}

/// pthread_kill(3).
pub(crate) fn kill(thread: libc::pthread_t, signal: c_int) -> c_int {
    let me = begin(Op::Kill);
    if !(0..=64).contains(&signal) {
        return libc::EINVAL;
    }
    let Some(slot) = find(thread) else {
        return libc::ESRCH;
    };
    if signal == 0 || world().threads[slot as usize].ended != 0 {
        return 0;
    }
    let mut info = crate::signals::Info::of_user(signal as u32);
    info.code = libc::SI_TKILL;
    crate::signals::post_to_thread(slot, info);
    crate::signals::deliver(me);
    0
}

/// pthread_sigqueue(3).
pub(crate) fn sigqueue(thread: libc::pthread_t, signal: c_int, value: u64) -> c_int {
    let me = begin(Op::Kill);
    if signal != 0 && !(1..=64).contains(&signal) {
        return libc::EINVAL;
    }
    let Some(slot) = find(thread) else {
        return libc::ESRCH;
    };
    if signal == 0 || world().threads[slot as usize].ended != 0 {
        return 0;
    }
    let mut info = crate::signals::Info::of_user(signal as u32);
    (info.code, info.value) = (libc::SI_QUEUE, value);
    if !crate::signals::post_to_thread(slot, info) {
        return libc::EAGAIN;
    }
    crate::signals::deliver(me);
    0
}

/// pthread_getattr_np(3): what the C library says, but for the detached state,
/// which is in our record.
pub(crate) unsafe fn getattr(thread: libc::pthread_t, to: *mut libc::pthread_attr_t) -> c_int {
    let me = begin(Op::ThreadCreate);
    let Some(slot) = find(thread) else {
        return libc::ESRCH;
    };
    // SAFETY: same contract; for the first thread it reads a file of /proc.
    unsafe {
        world().threads[me as usize].pinned += 1;
        let code = (real().pthread_getattr_np)(thread, to);
        let w = world();
        w.threads[me as usize].pinned -= 1;
        if code == 0 && w.threads[slot as usize].detached != 0 {
            libc::pthread_attr_setdetachstate(to, libc::PTHREAD_CREATE_DETACHED);
        }
        code
    }
}

/// sched_getaffinity(2): CPU 0, on every machine.
pub(crate) unsafe fn getaffinity(size: usize, mask: *mut u8) -> c_int {
    if size < 8 {
        return raw::fail(libc::EINVAL);
    }
    // SAFETY: the caller passes room for `size` bytes.
    unsafe {
        core::ptr::write_bytes(mask, 0, size);
        *mask = 1;
    }
    0
}
