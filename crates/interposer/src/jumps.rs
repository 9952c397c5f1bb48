//! Jumps out of signal handlers: siglongjmp(3) and its relatives.
//!
//! The C library tells the kernel to go back to the mask that was saved with
//! the place; our books of what is blocked must go back too.

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};

/// What all of them do: our books first, then the C library's own.
macro_rules! jump {
    () => {
        naked_asm!(
            "push rdi",
            "push rsi",
            "sub rsp, 8",
            "call {before}",
            "add rsp, 8",
            "pop rsi",
            "pop rdi",
            "mov rax, qword ptr [rip + {real}]",
            "jmp rax",
            before = sym before,
            real = sym crate::real::REAL_LONGJMP,
        )
    };
}

unsafe extern "C" fn before(place: *const c_void) {
    crate::real::real();
    // SAFETY: the caller of longjmp passes a filled jmp_buf.
    unsafe { crate::masks::before_jump(place) };
}

/// siglongjmp(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn siglongjmp(place: *const c_void, value: c_int) {
    jump!()
}

/// longjmp(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn longjmp(place: *const c_void, value: c_int) {
    jump!()
}

/// _longjmp(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _longjmp(place: *const c_void, value: c_int) {
    jump!()
}

/// longjmp(3) of programs built with fortification.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __longjmp_chk(place: *const c_void, value: c_int) {
    jump!()
}
