//! One word of thread-local storage: the calling thread's slot.
//!
//! Initial-exec by hand, because `#[thread_local]` is not stable and
//! `__tls_get_addr` may allocate and is not async-signal-safe. The word is
//! kept to 8 bytes: thread-local storage of a preloaded library is taken from
//! every thread's stack.

use core::arch::{asm, global_asm};

global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".hidden crane_slot",
    ".globl crane_slot",
    ".type crane_slot,@object",
    ".size crane_slot,8",
    "crane_slot:",
    ".zero 8",
    ".popsection",
);

fn word() -> *mut u64 {
    let address: *mut u64;
    // SAFETY: reads the thread pointer (%fs:0 holds itself, x86-64 ABI) and the
    // symbol's offset from it, which the dynamic linker put into the GOT.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + crane_slot@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) address,
            options(nostack, readonly)
        );
    }
    address
}

/// The slot of the calling thread; 0 for a thread that the scheduler does not
/// know.
#[inline]
pub(crate) fn slot() -> u32 {
    // SAFETY: `word` is this thread's own storage.
    unsafe { word().read() as u32 }
}

/// Sets the calling thread's slot.
pub(crate) fn set_slot(slot: u32) {
    // SAFETY: as above.
    unsafe { word().write(slot.into()) }
}
