//! dlsym and dlopen.
//!
//! A library that looks up an interposed function with
//! `dlsym(RTLD_NEXT, ...)` would step over us: jemalloc finds pthread_create
//! that way, and its background threads would escape the schedule. So look-ups
//! of interposed names through the special handles get our functions.

use crate::real::real;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};

/// dlsym(3).
///
/// The C library finds the caller by the return address, so there must not be
/// a frame of ours in between: ask our table, then jump.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {lookup}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jnz 2f",
        "mov rax, qword ptr [rip + {real}]",
        "jmp rax",
        "2: ret",
        lookup = sym lookup,
        real = sym crate::real::REAL_DLSYM,
    )
}

/// Our function for an interposed name looked up through RTLD_NEXT or
/// RTLD_DEFAULT, else null.
unsafe extern "C" fn lookup(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    crate::world::ensure_attached();
    real();
    let special = handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT;
    if !special || name.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: dlsym's caller passes a C string.
    crate::exports::address_of(unsafe { CStr::from_ptr(name) })
}

/// dlopen(3): RTLD_DEEPBIND would bind the new object past the interposer.
pub(crate) unsafe fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    // SAFETY: same contract.
    unsafe { (real().dlopen)(path, flags & !libc::RTLD_DEEPBIND) }
}
