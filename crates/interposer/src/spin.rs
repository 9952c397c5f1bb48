//! A thread that keeps the turn without operations: telling where it is.
//!
//! The node notices and sends the holder of the turn a signal that no program
//! can block by mistake; its handler is ours. It runs between two operations
//! of the program, or inside one, in whatever the thread is doing, so it
//! touches nothing but the segment's header.

use crate::raw::sys;
use crate::tls;
use crate::world::header;
use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::sync::atomic::Ordering;
use crane_channel::layout::LOOK_SIGNAL;
use syscalls::Sysno;

/// The kernel's `struct sigaction` on x86-64.
#[repr(C)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

const SA_RESTORER: u64 = 0x0400_0000;

#[unsafe(naked)]
extern "C" fn restorer() {
    // rt_sigreturn(2).
    naked_asm!("mov eax, 15", "syscall");
}

/// Listens for the node's signal; once per process image.
pub(crate) fn listen() {
    let action = Action {
        handler: asked as *const () as usize,
        // Calls that it interrupts go on; a thread's own signal stack is used.
        flags: (libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK) as u64 | SA_RESTORER,
        restorer: restorer as *const () as usize,
        mask: 0,
    };
    // SAFETY: a valid action whose handler is async-signal-safe.
    unsafe {
        sys!(
            Sysno::rt_sigaction,
            LOOK_SIGNAL,
            &raw const action,
            0,
            size_of::<u64>()
        );
    }
}

extern "C" fn asked(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let me = tls::slot();
    let h = header();
    if me == 0 || h.holder.load(Ordering::Relaxed) != me {
        return;
    }
    // SAFETY: the kernel passes the context of what was interrupted.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let glance = &h.glance;
    let register = |which: c_int| registers[which as usize] as u64;
    let put = |word: &core::sync::atomic::AtomicU64, value| word.store(value, Ordering::Relaxed);
    glance.slot.store(me, Ordering::Relaxed);
    put(&glance.instruction, register(libc::REG_RIP));
    put(&glance.stack, register(libc::REG_RSP));
    put(&glance.frame, register(libc::REG_RBP));
    let clock = h.ticks.load(Ordering::Relaxed);
    glance.clock.store(clock + 1, Ordering::Release);
}
