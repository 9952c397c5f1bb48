//! Signals in logical order: what is pending, who takes it and when.
//!
//! A signal for a process of the group is noted here, and the thread that is
//! to take it raises it for itself when it has the turn: the kernel then runs
//! the handler with its mask and stack, at the same logical instant on every
//! replica. What the kernel knows of masks and actions is kept equal to what
//! the program asked for, but for the few signals in [`KEPT`].

use crate::actions;
use crate::fatal;
use crate::process::{Process, RUNNING};
use crate::raw::{self, sys};
use crate::stops;
use crate::world::world;
use core::ffi::c_int;
use crane_scheduler::{Slot, Wake};
use libc::{siginfo_t, sigset_t};
use syscalls::Sysno;

/// Most signals that are noted with their details for one process.
pub(crate) const QUEUE: usize = 64;

/// A set with this signal in it.
pub(crate) const fn bit(signal: u32) -> u64 {
    1 << ((signal - 1) & 63)
}

/// Signals that an instruction of the program itself raises.
pub(crate) const FAULTS: u64 = bit(libc::SIGSEGV as u32)
    | bit(libc::SIGBUS as u32)
    | bit(libc::SIGFPE as u32)
    | bit(libc::SIGILL as u32)
    | bit(libc::SIGTRAP as u32)
    | bit(libc::SIGSYS as u32);

/// Signals that are never really blocked: faults, which would end the process
/// out of the order, and SIGCHLD, by which we learn that a child vanished.
pub(crate) const KEPT: u64 = FAULTS | bit(libc::SIGCHLD as u32);

/// Signals that the C library uses for itself.
const INTERNAL: u64 = bit(32) | bit(33);

const UNBLOCKABLE: u64 = bit(libc::SIGKILL as u32) | bit(libc::SIGSTOP as u32) | INTERNAL;

const FIRST_REAL_TIME: u32 = 32;

/// The details of a signal. All-zero: none.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    pub(crate) signal: u32,
    /// As si_code.
    pub(crate) code: i32,
    /// Sender, or for a timer its id.
    pub(crate) pid: u32,
    /// Sender's user, or for a timer its overrun.
    pub(crate) uid: u32,
    /// What sigqueue(3) passes, or a child's exit status or signal.
    pub(crate) value: u64,
}

impl Info {
    /// Sent by kill(2) of the calling process.
    pub(crate) fn of_user(signal: u32) -> Self {
        Self {
            signal,
            code: libc::SI_USER,
            pid: raw::getpid(),
            uid: raw::getuid(),
            value: 0,
        }
    }

    /// Sent by the kernel, which is us.
    pub(crate) fn of_kernel(signal: u32) -> Self {
        Self {
            signal,
            code: libc::SI_KERNEL,
            pid: 0,
            uid: 0,
            value: 0,
        }
    }

    /// A child ended, stopped or went on, with a status as in wait(2).
    pub(crate) fn of_child(pid: u32, uid: u32, status: u32) -> Self {
        let (code, value) = match status & 0x7f {
            0 => (libc::CLD_EXITED, status >> 8 & 0xff),
            0x7f if status == stops::CONTINUED => (libc::CLD_CONTINUED, libc::SIGCONT as u32),
            0x7f => (libc::CLD_STOPPED, status >> 8 & 0xff),
            signal if status & 0x80 != 0 => (libc::CLD_DUMPED, signal),
            signal => (libc::CLD_KILLED, signal),
        };
        Self {
            signal: libc::SIGCHLD as u32,
            code,
            pid,
            uid,
            value: value.into(),
        }
    }
}

/// A noted signal.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Queued {
    info: Info,
    /// The thread it is for; 0: the process.
    target: Slot,
    _pad: u32,
}

/// Writes the details as a siginfo_t; none: all-zero.
pub(crate) unsafe fn store(info: Option<&Info>, to: *mut siginfo_t) {
    // SAFETY: the caller passes room for one; its layout on x86-64: signal,
    // errno, code, padding, two words and a value.
    unsafe {
        core::ptr::write_bytes(to, 0, 1);
        if let Some(info) = info {
            let words = to.cast::<u32>();
            *words = info.signal;
            *words.add(2) = info.code as u32;
            *words.add(4) = info.pid;
            *words.add(5) = info.uid;
            words.add(6).cast::<u64>().write_unaligned(info.value);
        }
    }
}

/// Whether the number is a signal's.
pub(crate) fn valid(signal: i32) -> bool {
    (1..=64).contains(&signal)
}

/// Notes a signal for a process. False when it could not be queued.
pub(crate) fn post(process: u32, info: Info) -> bool {
    let signal = info.signal;
    if world().processes[process as usize].state != RUNNING {
        return true;
    }
    stops::sent(process, signal);
    if discarded(process, 0, signal) {
        return true;
    }
    if !note(process, 0, info) {
        return false;
    }
    let bit = bit(signal);
    let w = world();
    let first = w.processes[process as usize].first;
    let others = 1..w.scheduler.slots_end();
    let mine = |&slot: &Slot| {
        let t = &w.threads[slot as usize];
        w.scheduler.exists(slot) && t.process == process && t.ended == 0
    };
    let mut candidates = core::iter::once(first).chain(others).filter(mine);
    let waiter = candidates
        .clone()
        .find(|&slot| w.threads[slot as usize].awaits & bit != 0);
    if let Some(slot) = waiter {
        w.scheduler.wake_thread(slot, Wake::Woken);
    } else if let Some(slot) = candidates.find(|&slot| w.threads[slot as usize].mask & bit == 0) {
        w.scheduler.wake_thread(slot, Wake::Interrupted);
    }
    true
}

/// Notes a signal for one thread and interrupts its wait.
pub(crate) fn post_to_thread(slot: Slot, info: Info) -> bool {
    let process = world().threads[slot as usize].process;
    stops::sent(process, info.signal);
    if discarded(process, slot, info.signal) {
        return true;
    }
    if !note(process, slot, info) {
        return false;
    }
    let w = world();
    let t = &w.threads[slot as usize];
    if t.awaits & bit(info.signal) != 0 {
        w.scheduler.wake_thread(slot, Wake::Woken);
    } else if t.mask & bit(info.signal) == 0 {
        w.scheduler.wake_thread(slot, Wake::Interrupted);
    }
    true
}

/// A signal from the log, for the server's main process.
pub(crate) fn post_to_main(signal: u32) {
    if valid(signal as i32)
        && let Some(process) = crate::process::main()
    {
        // SIGKILL too: the thread that takes it ends its process.
        post(process, Info::of_kernel(signal));
    }
}

/// Raises a signal of the kernel's own for the calling thread (SIGPIPE).
pub(crate) fn raise(signal: u32) {
    raise_with(crate::tls::slot(), Info::of_user(signal));
}

/// Raises a signal for the calling thread, which holds the turn.
pub(crate) fn raise_with(me: Slot, info: Info) {
    if me == 0 {
        // SAFETY: plain tgkill(2) to ourselves.
        unsafe {
            sys!(Sysno::tgkill, raw::getpid(), raw::gettid(), info.signal);
        }
        return;
    }
    post_to_thread(me, info);
    deliver(me);
}

/// Whether nobody will ever take the signal, because it is ignored and neither
/// blocked nor awaited.
fn discarded(process: u32, slot: Slot, signal: u32) -> bool {
    let w = world();
    let p = &w.processes[process as usize];
    if !actions::ignored(&p.actions[signal as usize], signal) {
        return false;
    }
    let slot = if slot == 0 { p.first } else { slot };
    let t = &w.threads[slot as usize];
    if (t.mask | t.awaits) & bit(signal) != 0 {
        return false;
    }
    true
}

/// Puts a signal into the process's queue. False: there is no room for it.
fn note(process: u32, target: Slot, info: Info) -> bool {
    let w = world();
    let p = &mut w.processes[process as usize];
    let bit = bit(info.signal);
    let noted = if target == 0 {
        p.pending
    } else {
        w.threads[target as usize].pending
    };
    let again = noted & bit != 0;
    if again && info.signal < FIRST_REAL_TIME {
        return true;
    }
    if !again {
        // What an earlier thread of that slot has left.
        forget_queued(p, |q| q.info.signal == info.signal && q.target == target);
    }
    let count = p.queued as usize;
    if count == QUEUE && info.signal >= FIRST_REAL_TIME {
        return false;
    }
    if target == 0 {
        p.pending |= bit;
    } else {
        w.threads[target as usize].pending |= bit;
    }
    if count < QUEUE {
        p.queue[count] = Queued {
            info,
            target,
            _pad: 0,
        };
        p.queued += 1;
    }
    crate::signalfd::noted(process, info.signal);
    true
}

/// Takes a pending signal out of `allowed`, the calling thread's own first.
pub(crate) fn take(me: Slot, allowed: u64) -> Option<Info> {
    let w = world();
    let process = w.threads[me as usize].process;
    let p = &mut w.processes[process as usize];
    let own = w.threads[me as usize].pending & allowed;
    let (set, target) = if own != 0 {
        (own, me)
    } else {
        (p.pending & allowed, 0)
    };
    if set == 0 {
        return None;
    }
    let faults = set & FAULTS;
    let signal = if faults != 0 { faults } else { set }.trailing_zeros() + 1;
    let is = |q: &Queued| q.info.signal == signal && q.target == target;
    let queue = &mut p.queue[..p.queued as usize];
    let mut info = Info {
        signal,
        code: libc::SI_USER,
        pid: 0,
        uid: 0,
        value: 0,
    };
    let mut more = false;
    if let Some(at) = queue.iter().position(is) {
        info = queue[at].info;
        queue.copy_within(at + 1.., at);
        p.queued -= 1;
        more = p.queue[..p.queued as usize].iter().any(is);
    }
    if !more {
        let pending = if target == 0 {
            &mut p.pending
        } else {
            &mut w.threads[me as usize].pending
        };
        *pending &= !bit(signal);
    }
    Some(info)
}

fn forget_queued(p: &mut Process, is: impl Fn(&Queued) -> bool) {
    let mut kept = 0;
    for at in 0..p.queued as usize {
        if !is(&p.queue[at]) {
            p.queue[kept] = p.queue[at];
            kept += 1;
        }
    }
    p.queued = kept as u32;
}

/// Forgets a signal that is ignored from now on.
pub(crate) fn forget(process: u32, signal: u32) {
    forget_all(process, bit(signal));
}

/// Forgets all signals of a set that are pending for a process or its threads.
pub(crate) fn forget_all(process: u32, set: u64) {
    let w = world();
    let p = &mut w.processes[process as usize];
    forget_queued(p, |q| set & bit(q.info.signal) != 0);
    p.pending &= !set;
    for slot in 1..w.scheduler.slots_end() {
        if w.threads[slot as usize].process == process {
            w.threads[slot as usize].pending &= !set;
        }
    }
}

/// What is pending for the calling thread, blocked or not.
pub(crate) fn pending(me: Slot) -> u64 {
    let w = world();
    let t = &w.threads[me as usize];
    t.pending | w.processes[t.process as usize].pending
}

/// Whether something would be taken now.
#[inline]
pub(crate) fn due(me: Slot) -> bool {
    let w = world();
    let t = &w.threads[me as usize];
    (t.pending | w.processes[t.process as usize].pending) & !t.mask != 0
}

/// Takes what is noted for the calling thread, which holds the turn.
#[inline]
pub(crate) fn deliver(me: Slot) {
    if due(me) {
        deliver_all(me);
    }
}

#[cold]
fn deliver_all(mut me: Slot) {
    // Inside the C library a lock of its own may be held that a handler needs.
    while world().threads[me as usize].pinned == 0 {
        let mask = world().threads[me as usize].mask;
        let Some(info) = take(me, !mask) else {
            break;
        };
        act(me, info);
        me = crate::tls::slot();
    }
}

fn act(me: Slot, info: Info) {
    let w = world();
    let process = w.threads[me as usize].process;
    let action = w.processes[process as usize].actions[info.signal as usize];
    if actions::ignored(&action, info.signal) {
        return;
    }
    if action.handler == libc::SIG_DFL as u64 {
        if stops::stops(info.signal) {
            stops::stop(me, info.signal);
            return;
        }
        fatal::end_by(info.signal);
    }
    let t = &mut w.threads[me as usize];
    if t.interrupted == 0 {
        t.interrupted = if action.flags & libc::SA_RESTART as u32 != 0 {
            RESTART
        } else {
            FAIL
        };
    }
    let interrupted = t.interrupted;
    t.current = info;
    t.delivering = info.signal;
    // SAFETY: raises a signal for the calling thread; its handler runs now and
    // may itself perform operations.
    unsafe {
        sys!(Sysno::tgkill, raw::getpid(), raw::gettid(), info.signal);
    }
    // The handler may have waited itself, and a fork in it made another thread.
    let t = &mut world().threads[crate::tls::slot() as usize];
    t.delivering = 0;
    t.interrupted = interrupted;
}

/// Values of a thread's `interrupted`: what a handler that ran during its wait
/// means for the call that waited.
const RESTART: u32 = 1;
const FAIL: u32 = 2;

/// Begins a wait: no handler has run in it yet.
#[inline]
pub(crate) fn wait_begins(me: Slot) {
    world().threads[me as usize].interrupted = 0;
}

/// Whether a handler ran since the wait of the calling thread began.
#[inline]
pub(crate) fn handled() -> bool {
    let me = crate::tls::slot();
    world().threads[me as usize].interrupted != 0
}

/// Whether a call that was interrupted goes on after the handler (SA_RESTART).
pub(crate) fn restarts() -> bool {
    let me = crate::tls::slot();
    world().threads[me as usize].interrupted != FAIL
}

/// Bytes of the kernel's signal set.
const SET: usize = 8;

/// Reads a set of the program.
pub(crate) unsafe fn set_of(set: *const sigset_t) -> u64 {
    // SAFETY: the caller passes a valid set; signal n is bit n-1.
    unsafe { set.cast::<u64>().read_unaligned() }
}

/// Writes a set for the program.
pub(crate) unsafe fn put_set(value: u64, set: *mut sigset_t) {
    // SAFETY: the caller passes room for a set.
    unsafe {
        core::ptr::write_bytes(set, 0, 1);
        set.cast::<u64>().write_unaligned(value);
    }
}

/// Sets the calling thread's mask, without taking what it lets through.
pub(crate) fn set_mask(me: Slot, mask: u64) {
    let mask = mask & !UNBLOCKABLE;
    world().threads[me as usize].mask = mask;
    let real = mask & !KEPT;
    // SAFETY: plain rt_sigprocmask(2) with a valid set.
    unsafe {
        sys!(
            Sysno::rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const real,
            0,
            SET
        )
    };
}

/// Runs `f` under another signal mask (null: none), as ppoll(2) and its like.
pub(crate) unsafe fn with_mask(mask: *const sigset_t, f: impl FnOnce() -> c_int) -> c_int {
    let me = crate::tls::slot();
    if mask.is_null() || me == 0 {
        return f();
    }
    let old = world().threads[me as usize].mask;
    // SAFETY: the caller passes a valid mask.
    set_mask(me, unsafe { set_of(mask) });
    // What it lets through and is there already ends the call at once.
    wait_begins(me);
    deliver(me);
    let result = if handled() {
        raw::fail(libc::EINTR)
    } else {
        f()
    };
    // A child that was made in a handler meanwhile has a record of its own.
    let me = crate::tls::slot();
    set_mask(me, old);
    // A handler that runs now must not change what the call says.
    // SAFETY: errno is the thread's own.
    let code = unsafe { *libc::__errno_location() };
    deliver(me);
    raw::set_errno(code);
    result
}
