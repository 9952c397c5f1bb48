//! Things that happen once: pthread_once(3), call_once, C++ statics.

// The condition of a waiting loop is changed by others, in their turns.
#![allow(clippy::while_immutable_condition)]

use crate::objects::private_key;
use crate::tls;
use crate::turn::{self, Op, begin_on};
use crate::world::world;
use core::arch::global_asm;
use core::ffi::{c_int, c_void};
use crane_scheduler::Slot;

const ONCE_RUNNING: i32 = 1;
const ONCE_DONE: i32 = 2;

/// What is written while an initialiser runs: with the process, because in a
/// child that was forked meanwhile it does not run, and is begun anew.
fn running_word(me: Slot) -> i32 {
    ONCE_RUNNING | (world().threads[me as usize].process << 2) as i32
}

/// An initialiser under way, on its thread's stack; they may be nested.
#[repr(C)]
struct Running {
    control: *mut i32,
    outer: u64,
}

unsafe extern "C" {
    fn crane_call_initialiser(routine: extern "C" fn());
}

// An initialiser may end by an exception, by pthread_exit or by cancellation:
// then it has not run. The unwinder tells our personality routine when it
// takes the frame of this function away; there is nothing to run in it.
global_asm!(
    ".pushsection .text.crane_call_initialiser,\"ax\",@progbits",
    ".hidden crane_call_initialiser",
    ".globl crane_call_initialiser",
    ".type crane_call_initialiser,@function",
    "crane_call_initialiser:",
    ".cfi_startproc",
    // 0x1b: a 32-bit distance from here.
    ".cfi_personality 0x1b, {left}",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "call rdi",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size crane_call_initialiser, . - crane_call_initialiser",
    ".popsection",
    left = sym initialiser_left,
);

const CLEANUP_PHASE: c_int = 2;
const CONTINUE_UNWIND: c_int = 8;

/// Personality routine of `crane_call_initialiser` (Itanium C++ ABI): frames
/// are left innermost first, so it is the thread's latest initialiser.
extern "C" fn initialiser_left(
    _version: c_int,
    actions: c_int,
    _class: u64,
    _exception: *mut c_void,
    _context: *mut c_void,
) -> c_int {
    if actions & CLEANUP_PHASE != 0 {
        finish(0);
    }
    CONTINUE_UNWIND
}

/// Ends the calling thread's latest initialiser.
fn finish(value: i32) {
    let me = tls::slot();
    let latest = world().threads[me as usize].initialiser as *mut Running;
    if latest.is_null() {
        return;
    }
    // SAFETY: it lies in a frame of this thread that has not returned.
    unsafe {
        world().threads[me as usize].initialiser = (*latest).outer;
        *(*latest).control = value;
        turn::wake_all(private_key((*latest).control, me));
    }
}

pub(crate) unsafe fn once(control: *mut i32, routine: extern "C" fn()) -> c_int {
    // SAFETY: the control word is valid.
    unsafe {
        if *control == ONCE_DONE {
            return 0;
        }
        let me = begin_on(Op::Once, control);
        let running_here = running_word(me);
        while *control == running_here {
            turn::wait(me, private_key(control, me), None);
        }
        if *control == ONCE_DONE {
            return 0;
        }
        *control = running_here;
        let t = &mut world().threads[me as usize];
        let mut running = Running {
            control,
            outer: t.initialiser,
        };
        t.initialiser = &raw mut running as u64;
        crane_call_initialiser(routine);
        finish(ONCE_DONE);
    }
    0
}

/// __cxa_guard_acquire of the C++ ABI: 1 when the caller is to initialise.
/// Byte 0 of the guard: done; byte 1: being initialised.
pub(crate) unsafe fn guard_acquire(guard: *mut u8) -> c_int {
    // SAFETY: the compiler passes a valid 8-byte guard.
    unsafe {
        if *guard != 0 {
            return 0;
        }
        let me = begin_on(Op::Once, guard);
        while *guard.add(1) != 0 {
            turn::wait(me, private_key(guard, me), None);
        }
        if *guard != 0 {
            return 0;
        }
        *guard.add(1) = 1;
    }
    1
}

/// __cxa_guard_release (`done`) and __cxa_guard_abort.
pub(crate) unsafe fn guard_release(guard: *mut u8, done: bool) {
    let me = begin_on(Op::Once, guard);
    // SAFETY: as above.
    unsafe {
        *guard.add(1) = 0;
        *guard = done.into();
    }
    turn::wake_all(private_key(guard, me));
}
