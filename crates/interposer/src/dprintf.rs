//! dprintf(3) and its relatives: the C library writes inside itself.

use crate::raw::{Pages, fail};
use crate::transfer;
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    fn vsnprintf(
        to: *mut c_char,
        room: usize,
        format: *const c_char,
        arguments: *mut Arguments,
    ) -> c_int;
}

/// va_list of x86-64.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Arguments {
    general: u32,
    floating: u32,
    overflow: *mut c_void,
    saved: *mut c_void,
}

/// vdprintf(3).
pub(crate) unsafe fn vdprintf(
    fd: c_int,
    format: *const c_char,
    arguments: *const Arguments,
) -> c_int {
    let mut place = [0u8; 1024];
    // SAFETY: same contract; the list is read through copies, so that it can be
    // read again.
    unsafe {
        let mut list = *arguments;
        let count = vsnprintf(place.as_mut_ptr().cast(), place.len(), format, &mut list);
        if count < 0 {
            return count;
        }
        let length = count as usize;
        if length < place.len() {
            return write_all(fd, place.as_ptr(), length);
        }
        let Some(room) = Pages::new(length + 1) else {
            return fail(libc::ENOMEM);
        };
        let mut list = *arguments;
        vsnprintf(room.start().cast(), length + 1, format, &mut list);
        write_all(fd, room.start(), length)
    }
}

unsafe fn write_all(fd: c_int, from: *const u8, length: usize) -> c_int {
    let mut done = 0;
    while done < length {
        // SAFETY: within the text.
        let n = unsafe { transfer::write(fd, from.add(done).cast(), length - done) };
        if n < 0 {
            return -1;
        }
        done += n as usize;
    }
    length as c_int
}

unsafe extern "C" fn with_list(
    fd: c_int,
    format: *const c_char,
    arguments: *const Arguments,
) -> c_int {
    // SAFETY: same contract.
    unsafe { vdprintf(fd, format, arguments) }
}

/// Makes a va_list of the arguments and passes it on. `$named` is 8 times the
/// number of arguments that are not in the list, `$format` the register of the
/// format.
macro_rules! listed {
    ($named:literal, $format:literal) => {
        naked_asm!(
            "lea r11, [rsp + 8]",
            "sub rsp, 216",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "mov [rsp + 32], r8",
            "mov [rsp + 40], r9",
            "movaps [rsp + 48], xmm0",
            "movaps [rsp + 64], xmm1",
            "movaps [rsp + 80], xmm2",
            "movaps [rsp + 96], xmm3",
            "movaps [rsp + 112], xmm4",
            "movaps [rsp + 128], xmm5",
            "movaps [rsp + 144], xmm6",
            "movaps [rsp + 160], xmm7",
            concat!("mov dword ptr [rsp + 184], ", $named),
            "mov dword ptr [rsp + 188], 48",
            "mov [rsp + 192], r11",
            "mov [rsp + 200], rsp",
            concat!("mov rsi, ", $format),
            "lea rdx, [rsp + 184]",
            "call {with}",
            "add rsp, 216",
            "ret",
            with = sym with_list,
        )
    };
}

/// dprintf(3).
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dprintf(fd: c_int, format: *const c_char) -> c_int {
    listed!("16", "rsi")
}

/// dprintf(3) of programs built with fortification.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __dprintf_chk(fd: c_int, flag: c_int, format: *const c_char) -> c_int {
    listed!("24", "rdx")
}
