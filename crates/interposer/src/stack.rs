//! What the interposer leaves on the program's stacks.
//!
//! It works below the frame of the program that called it, and what it leaves
//! there is not the same on every replica: positions in the rings, real inode
//! numbers, whether this replica has the client. Programs write such leavings
//! out (PostgreSQL has padding from its stack in its write-ahead log), so they
//! are wiped, at the same places of the execution everywhere.

use core::arch::asm;

/// How deep the functions behind an interposed call go, in bytes.
const CALL: usize = 4096;
/// How deep attaching, and the dynamic linker before it, went.
const START: usize = 64 << 10;
/// What a leaf function may use below the stack pointer (System V ABI, x86-64).
const RED_ZONE: usize = 128;

/// Wipes `DEPTH` bytes below the caller's frame.
#[inline(always)]
fn wipe<const DEPTH: usize>() {
    // SAFETY: nobody owns what lies below the red zone of the innermost frame. A
    // signal handler that comes in between has left it again. A stack has room
    // for this much, since functions called before have just used it.
    unsafe {
        asm!(
            "lea rdi, [rsp - {below}]",
            "rep stosq",
            below = const RED_ZONE + DEPTH,
            inout("rcx") DEPTH / 8 => _,
            in("rax") 0,
            out("rdi") _,
            options(nostack, preserves_flags),
        );
    }
}

/// After a call whose way depends on the replica.
#[inline(always)]
pub(crate) fn clean() {
    wipe::<CALL>();
}

/// After this image of the program was attached to the schedule.
#[inline(never)]
pub(crate) fn clean_start() {
    wipe::<START>();
}
