//! A thread that keeps the turn without operations: telling where it is, and
//! passing the turn on when it provably waits for another thread.
//!
//! The node notices that the logical clock stands and sends the holder of the
//! turn a signal that no program can block by mistake. Its handler runs
//! wherever the thread is in the program's own code, says where that is, and
//! looks at the thread's next instructions one by one (the processor's trap
//! flag). If the registers come back to what they were, twice in the same way,
//! and all instructions in between were plain ([`crate::instruction`]), then
//! the thread is in a loop that it cannot leave by itself: memory does not
//! change, because nobody else runs. The turn then goes to the next thread.
//!
//! Nothing has to be agreed for that. The thread would never make another
//! operation, on any replica, so every replica finds the same loop at the same
//! logical clock, sooner or later in real time. A thread that counts, or
//! computes anything, is not in such a loop and is left alone.

use crate::instruction::is_plain;
use crate::raw::{self, sys};
use crate::world::{header, world};
use crate::{callsite, tls, turn};
use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use crane_channel::layout::LOOK_SIGNAL;
use crane_scheduler::Slot;
use syscalls::Sysno;

/// Instructions looked at before a thread is taken to be computing.
const STEPS: u32 = 1024;
/// The processor traps after each instruction while this flag is set.
const TRAP_FLAG: i64 = 0x100;
/// Carry, parity, adjust, zero, sign, direction, overflow.
const FLAGS: u64 = 0xcd5;
/// General registers of a context, the flags' included: the first in `gregs`.
const REGISTERS: usize = 18;
const SA_RESTORER: u64 = 0x0400_0000;

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

impl Action {
    const NONE: Self = Self {
        handler: 0,
        flags: 0,
        restorer: 0,
        mask: 0,
    };

    fn new(handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)) -> Self {
        Self {
            handler: handler as *const () as usize,
            // Calls that it interrupts go on; a thread's own signal stack is used.
            flags: (libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK) as u64 | SA_RESTORER,
            restorer: restorer as *const () as usize,
            mask: 0,
        }
    }

    /// Makes this the action for a signal; the one before goes to `old`.
    fn install(&self, signal: c_int, old: *mut Action) {
        // SAFETY: a valid action, and room for the old one or null.
        unsafe {
            sys!(
                Sysno::rt_sigaction,
                signal,
                core::ptr::from_ref(self),
                old,
                size_of::<u64>()
            );
        }
    }
}

#[unsafe(naked)]
extern "C" fn restorer() {
    // rt_sigreturn(2).
    naked_asm!("mov eax, 15", "syscall");
}

/// Listens for the node's signal; once per process image.
pub(crate) fn listen() {
    Action::new(asked).install(LOOK_SIGNAL, core::ptr::null_mut());
    hear(true);
}

/// Whether the calling thread hears the node's signal now. Around an exec it
/// must not: a new image has no handler yet, and would be killed by it. What
/// comes meanwhile is heard afterwards.
pub(crate) fn hear(now: bool) {
    let set = 1u64 << (LOOK_SIGNAL - 1);
    let how = if now {
        libc::SIG_UNBLOCK
    } else {
        libc::SIG_BLOCK
    };
    // SAFETY: changes one bit of the calling thread's mask.
    unsafe { sys!(Sysno::rt_sigprocmask, how, &raw const set, 0, 8) };
}

/// A run through the instructions of one thread.
struct Proof {
    /// The thread; 0: none is under way.
    slot: Slot,
    steps: u32,
    clock: u64,
    /// Registers to which the thread may come back.
    mark: [u64; REGISTERS],
    /// Steps since the mark, and after how many a new one is made.
    lap: u32,
    limit: u32,
    /// Hash of the registers at each step since the mark, in their order, and
    /// the sum of their hashes, which is the same wherever in a loop one begins.
    trail: u64,
    sum: u64,
    /// The first time round: steps and hash; 0: not round yet.
    first: (u32, u64),
    /// What the program had for SIGTRAP.
    old: Action,
    old_mask: u64,
}

struct Place(UnsafeCell<Proof>);

// SAFETY: used by the handlers of the thread that has the turn alone, of which
// only one is under way at a time.
unsafe impl Sync for Place {}

static PROOF: Place = Place(UnsafeCell::new(Proof {
    slot: 0,
    steps: 0,
    clock: 0,
    mark: [0; REGISTERS],
    lap: 0,
    limit: 0,
    trail: 0,
    sum: 0,
    first: (0, 0),
    old: Action::NONE,
    old_mask: 0,
}));

const TRAP_BIT: u64 = 1 << (libc::SIGTRAP - 1);

fn registers(context: &libc::ucontext_t) -> [u64; REGISTERS] {
    let mut values = [0; REGISTERS];
    for (value, register) in values.iter_mut().zip(&context.uc_mcontext.gregs) {
        *value = *register as u64;
    }
    values
}

/// The signal mask in a context, as the kernel keeps it: one word.
fn mask(context: &mut libc::ucontext_t) -> &mut u64 {
    // SAFETY: sigset_t is longer than the kernel's word and begins with it.
    unsafe { &mut *(&raw mut context.uc_sigmask).cast::<u64>() }
}

extern "C" fn asked(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let me = tls::slot();
    let h = header();
    if me == 0 || h.holder.load(Ordering::Relaxed) != me {
        return;
    }
    // SAFETY: the kernel passes the context of what was interrupted, and no
    // other reference to it exists.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let glance = &h.glance;
    let register = |which: c_int| context.uc_mcontext.gregs[which as usize] as u64;
    let put = |word: &AtomicU64, value| word.store(value, Ordering::Relaxed);
    glance.slot.store(me, Ordering::Relaxed);
    put(&glance.instruction, register(libc::REG_RIP));
    put(&glance.stack, register(libc::REG_RSP));
    put(&glance.frame, register(libc::REG_RBP));
    let clock = h.ticks.load(Ordering::Relaxed);
    glance.clock.store(clock + 1, Ordering::Release);
    if h.preempt.load(Ordering::Relaxed) != 0
        && !callsite::is_ours(register(libc::REG_RIP))
        && world().threads[me as usize].pinned == 0
    {
        begin(me, clock, context);
    }
}

/// Lets the thread go on one instruction at a time.
fn begin(me: Slot, clock: u64, context: &mut libc::ucontext_t) {
    // SAFETY: see `Place`; the thread has the turn.
    let proof = unsafe { &mut *PROOF.0.get() };
    if proof.slot != 0 {
        return;
    }
    proof.slot = me;
    proof.steps = 0;
    proof.clock = clock;
    proof.limit = 0;
    proof.lap = 0;
    proof.first = (0, 0);
    proof.old_mask = *mask(context);
    Action::new(trapped).install(libc::SIGTRAP, &raw mut proof.old);
    // A trap that is blocked would end the process.
    *mask(context) &= !TRAP_BIT;
    context.uc_mcontext.gregs[libc::REG_EFL as usize] |= TRAP_FLAG;
}

extern "C" fn trapped(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: as for `asked`.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let me = tls::slot();
    // SAFETY: see `Place`; this thread has the turn, or it would not run.
    let proof = unsafe { &mut *PROOF.0.get() };
    let found = if proof.slot == me {
        proof.step(context)
    } else {
        Step::Computes
    };
    let spins = match found {
        Step::GoOn => return,
        Step::Computes => None,
        Step::Spins(which) => Some(which),
    };
    context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
    if proof.slot == me {
        proof.slot = 0;
        *mask(context) = proof.old_mask;
        proof.old.install(libc::SIGTRAP, core::ptr::null_mut());
    }
    if let Some(which) = spins {
        let code = raw::errno();
        header().spins.fetch_add(1, Ordering::Relaxed);
        turn::spin(me, which);
        raw::set_errno(code);
    }
}

enum Step {
    GoOn,
    Computes,
    /// In a loop that it cannot leave; the number tells one loop from another.
    Spins(u64),
}

impl Proof {
    fn step(&mut self, context: &libc::ucontext_t) -> Step {
        let mut now = registers(context);
        now[libc::REG_EFL as usize] &= FLAGS;
        let place = now[libc::REG_RIP as usize];
        self.steps += 1;
        let gone_on = self.clock != header().ticks.load(Ordering::Relaxed);
        // SAFETY: the instruction at this place is executed next.
        let plain = || unsafe { is_plain(place as *const u8) };
        if self.steps > STEPS || gone_on || callsite::is_ours(place) || !plain() {
            return Step::Computes;
        }
        if self.limit != 0 && now == self.mark {
            if self.first.0 == 0 {
                self.first = (self.lap, self.trail);
            } else if self.first == (self.lap, self.trail) {
                return Step::Spins(self.sum | 1);
            } else {
                return Step::Computes;
            }
            (self.lap, self.trail, self.sum) = (0, 0, 0);
        } else if self.lap == self.limit {
            // Not back for long, or not the same way again: begin from here.
            self.mark = now;
            self.limit = (2 * self.limit).max(4);
            self.first = (0, 0);
            (self.lap, self.trail, self.sum) = (0, 0, 0);
        }
        let hash = hash(&now);
        self.lap += 1;
        self.trail = (self.trail ^ hash)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
        self.sum = self.sum.wrapping_add(hash);
        Step::GoOn
    }
}

fn hash(registers: &[u64; REGISTERS]) -> u64 {
    registers.iter().fold(0, |hash: u64, value| {
        (hash ^ value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}
