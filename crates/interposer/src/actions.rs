//! What a process does with signals: sigaction(2) and its relatives, and the
//! one handler that is really installed.

use crate::fatal;
use crate::process;
use crate::raw::{self, fail};
use crate::real::real;
use crate::refuse::{self, Unsupported};
use crate::signals::{self, FAULTS, KEPT, bit, put_set, set_of};
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{tls, trap, tsc};
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;
use libc::{sighandler_t, siginfo_t};

/// Signals and the unused 0.
pub(crate) const COUNT: usize = 65;

const SIG_DFL: u64 = libc::SIG_DFL as u64;
const SIG_IGN: u64 = libc::SIG_IGN as u64;

/// An action as the program has set it. All-zero: the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Action {
    /// Address of the handler, SIG_DFL or SIG_IGN.
    pub(crate) handler: u64,
    mask: u64,
    pub(crate) flags: u32,
    _pad: u32,
}

const DEFAULT: Action = Action {
    handler: SIG_DFL,
    mask: 0,
    flags: 0,
    _pad: 0,
};

/// Signals by which a process ends that its own code (or a limit) raises inside
/// the kernel or the C library, unseen; so they always come to our handler.
const ENDS: u64 = FAULTS | bit(libc::SIGABRT as u32) | bit(libc::SIGXFSZ as u32);

/// Whether the default action is to do nothing.
fn harmless(signal: u32) -> bool {
    matches!(
        signal as c_int,
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT
    )
}

/// Whether a signal with this action does nothing.
pub(crate) fn ignored(action: &Action, signal: u32) -> bool {
    action.handler == SIG_IGN || action.handler == SIG_DFL && harmless(signal)
}

/// Whether the children of a process are not kept for it to wait for.
pub(crate) fn children_vanish(process: u32) -> bool {
    let action = &world().processes[process as usize].actions[libc::SIGCHLD as usize];
    action.handler == SIG_IGN || action.flags & libc::SA_NOCLDWAIT as u32 != 0
}

/// The actions of a process whose image was replaced.
pub(crate) fn forget_handlers(process: u32) {
    for action in &mut world().processes[process as usize].actions {
        if action.handler != SIG_IGN {
            *action = DEFAULT;
        }
    }
}

/// Installs our handler for what must come to it, in a new image.
pub(crate) fn install_own() {
    let process = process::current();
    for signal in 1..COUNT as u32 {
        if (ENDS | KEPT) & bit(signal) != 0 {
            let action = world().processes[process as usize].actions[signal as usize];
            install(signal, &action);
        }
    }
}

/// Has the kernel do what `action` says, by way of our handler.
fn install(signal: u32, action: &Action) {
    // SAFETY: all-zero is a valid sigaction.
    let mut new: libc::sigaction = unsafe { core::mem::zeroed() };
    let own = (ENDS | KEPT) & bit(signal) != 0;
    match action.handler {
        SIG_DFL | SIG_IGN if !own => new.sa_sigaction = action.handler as sighandler_t,
        SIG_DFL | SIG_IGN => {
            new.sa_sigaction = entry as *const () as sighandler_t;
            // The stack may be what is exhausted.
            new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        }
        _ => {
            new.sa_sigaction = entry as *const () as sighandler_t;
            // Whether a call of the program is restarted is decided in the
            // order; a call of ours, always.
            let kept = action.flags as c_int & (libc::SA_ONSTACK | libc::SA_NODEFER);
            new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | kept;
            // SAFETY: a set of our own.
            unsafe { put_set(action.mask & !KEPT, &mut new.sa_mask) };
        }
    }
    if signal == libc::SIGSEGV as u32 {
        // Answering the time-stamp counter may hand the turn over, and in that
        // wait a handler of the program may read the counter again.
        new.sa_flags |= libc::SA_NODEFER;
    }
    if signal == libc::SIGSYS as u32 {
        // Answering a system call is not part of the program's own handler, and
        // may fork: on the stack that the program uses, which is copied then.
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_NODEFER;
        // SAFETY: a set of our own.
        unsafe { put_set(0, &mut new.sa_mask) };
    }
    if signal == libc::SIGCHLD as u32
        && (action.handler == SIG_IGN || action.flags & libc::SA_NOCLDWAIT as u32 != 0)
    {
        new.sa_flags |= libc::SA_NOCLDWAIT;
    }
    // SAFETY: a valid action for a valid signal.
    unsafe { (real().sigaction)(signal as c_int, &new, core::ptr::null_mut()) };
}

/// The kernel's own default action, for a process at its end.
pub(crate) fn restore_default(signal: u32) {
    // SAFETY: all-zero is the default action.
    unsafe {
        let new: libc::sigaction = core::mem::zeroed();
        (real().sigaction)(signal as c_int, &new, core::ptr::null_mut());
    }
}

fn set(signal: u32, action: Action) {
    let process = process::current();
    world().processes[process as usize].actions[signal as usize] = action;
    install(signal, &action);
    if ignored(&action, signal) {
        signals::forget(process, signal);
    }
}

/// Sets an action that was read from a record before.
pub(crate) fn put_back(signal: u32, action: Action) {
    set(signal, action);
}

/// Whether a program may have an action for the signal.
fn settable(signal: c_int) -> bool {
    signals::valid(signal) && !matches!(signal, libc::SIGKILL | libc::SIGSTOP | 32 | 33)
}

/// sigaction(2).
pub(crate) unsafe fn sigaction(
    signal: c_int,
    new: *const libc::sigaction,
    old: *mut libc::sigaction,
) -> c_int {
    let me = begin(Op::SignalAction);
    if !settable(signal) && (!new.is_null() || !signals::valid(signal)) {
        return fail(libc::EINVAL);
    }
    if me == 0 {
        // SAFETY: same contract.
        return unsafe { (real().sigaction)(signal, new, old) };
    }
    let before = world().processes[process::current() as usize].actions[signal as usize];
    // SAFETY: the caller passes valid places or null; `new` may be `old`.
    unsafe {
        let wanted = (!new.is_null()).then(|| Action {
            handler: (*new).sa_sigaction as u64,
            mask: set_of(&(*new).sa_mask),
            flags: (*new).sa_flags as u32,
            _pad: 0,
        });
        if !old.is_null() {
            core::ptr::write_bytes(old, 0, 1);
            (*old).sa_sigaction = before.handler as sighandler_t;
            (*old).sa_flags = before.flags as c_int;
            put_set(before.mask, &mut (*old).sa_mask);
        }
        if let Some(action) = wanted {
            set(signal as u32, action);
        }
    }
    0
}

/// The kernel's own form of an action, for rt_sigaction(2) by number.
#[repr(C)]
pub(crate) struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// rt_sigaction(2).
pub(crate) unsafe fn by_number(
    signal: c_int,
    new: *const KernelAction,
    old: *mut KernelAction,
) -> c_int {
    begin(Op::SignalAction);
    if !settable(signal) && (!new.is_null() || !signals::valid(signal)) {
        return fail(libc::EINVAL);
    }
    let before = world().processes[process::current() as usize].actions[signal as usize];
    // SAFETY: the caller passes valid places or null; `new` may be `old`.
    unsafe {
        let wanted = (!new.is_null()).then(|| Action {
            handler: (*new).handler,
            mask: (*new).mask,
            flags: (*new).flags as u32,
            _pad: 0,
        });
        if !old.is_null() {
            *old = KernelAction {
                handler: before.handler,
                flags: before.flags.into(),
                restorer: 0,
                mask: before.mask,
            };
        }
        if let Some(action) = wanted {
            set(signal as u32, action);
        }
    }
    0
}

/// signal(3) and its older relatives, which differ in the flags.
pub(crate) fn signal(signal: c_int, handler: sighandler_t, flags: c_int) -> sighandler_t {
    begin(Op::SignalAction);
    if !settable(signal) || handler == libc::SIG_ERR {
        raw::set_errno(libc::EINVAL);
        return libc::SIG_ERR;
    }
    let before = world().processes[process::current() as usize].actions[signal as usize].handler;
    let mask = if flags & libc::SA_NODEFER != 0 {
        0
    } else {
        bit(signal as u32)
    };
    set(
        signal as u32,
        Action {
            handler: handler as u64,
            mask,
            flags: flags as u32,
            _pad: 0,
        },
    );
    before as sighandler_t
}

/// siginterrupt(3).
pub(crate) fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int {
    begin(Op::SignalAction);
    if !settable(signal) {
        return fail(libc::EINVAL);
    }
    let mut action = world().processes[process::current() as usize].actions[signal as usize];
    let restart = libc::SA_RESTART as u32;
    action.flags = if interrupt != 0 {
        action.flags & !restart
    } else {
        action.flags | restart
    };
    set(signal as u32, action);
    0
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// What the kernel calls for every signal that the program handles, and for
/// those that end a process.
extern "C" fn entry(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: errno is the thread's own.
    let code = unsafe { *libc::__errno_location() };
    let me = tls::slot();
    // SAFETY: the kernel's arguments.
    if signal == libc::SIGSEGV && unsafe { tsc::emulate(info, context.cast()) } {
        raw::set_errno(code);
        return;
    }
    // SAFETY: the kernel's arguments.
    if signal == libc::SIGSYS && unsafe { trap::answer(info, context.cast()) } {
        raw::set_errno(code);
        return;
    }
    if me != 0 && world().threads[me as usize].delivering == signal as u32 {
        world().threads[me as usize].delivering = 0;
        // The kernel's details are of the tgkill by which it came here.
        // SAFETY: all-zero is a valid siginfo_t.
        unsafe {
            let mut told: siginfo_t = core::mem::zeroed();
            signals::store(Some(&world().threads[me as usize].current), &mut told);
            run(me, signal as u32, &mut told, context);
        }
    } else if ENDS & bit(signal as u32) != 0 {
        fatal::fault(me, signal as u32, info, context);
    } else if signal == libc::SIGCHLD {
        fatal::look_for_vanished_children();
    } else {
        refuse::count(Unsupported::OutsideSignal);
    }
    raw::set_errno(code);
}

/// Runs the program's handler, keeping its mask in our books meanwhile.
///
/// # Safety
///
/// Called by the kernel's way into a handler, with its arguments.
pub(crate) unsafe fn run(me: Slot, signal: u32, info: *mut siginfo_t, context: *mut c_void) {
    let process = process::current();
    let action = world().processes[process as usize].actions[signal as usize];
    if action.handler == SIG_DFL || action.handler == SIG_IGN {
        return;
    }
    if action.flags & libc::SA_RESETHAND as u32 != 0 {
        set(signal, DEFAULT);
    }
    let t = &mut world().threads[me as usize];
    let saved = t.mask;
    t.mask |= action.mask;
    if action.flags & libc::SA_NODEFER as u32 == 0 {
        t.mask |= bit(signal);
    }
    if signal == libc::SIGSYS as u32 {
        // The kernel has not done it, see `install`.
        let mask = t.mask;
        signals::set_mask(me, mask);
    }
    // SAFETY: the program gave this address as its handler.
    let handler: Handler = unsafe { core::mem::transmute(action.handler as usize) };
    handler(signal as c_int, info, context);
    // The kernel goes back to the context's mask, which the handler may have
    // changed; what is never blocked for real is not in it.
    // SAFETY: the kernel's context of this handler.
    let real = unsafe { set_of(&raw const (*context.cast::<libc::ucontext_t>()).uc_sigmask) };
    world().threads[me as usize].mask = (real & !KEPT) | (saved & KEPT);
}
