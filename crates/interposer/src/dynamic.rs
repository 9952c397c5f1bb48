//! The dynamic linker's functions.
//!
//! A library that looks up an interposed function with
//! `dlsym(RTLD_NEXT, ...)` would step over us: jemalloc finds pthread_create
//! that way, and its background threads would escape the schedule. So look-ups
//! of interposed names through the special handles get our functions.
//!
//! The linker holds a lock of its own while it runs the constructors of what it
//! loads, or a caller's function. Who is handed the turn meanwhile must not
//! wait for that lock in the kernel, so it waits here, in the schedule.

use crate::real::{self, real};
use crate::tls;
use crate::turn::{self, Op, begin};
use crate::world::world;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use crane_scheduler::Slot;

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
        real = sym real::REAL_DLSYM,
    )
}

/// Our function for an interposed name looked up through RTLD_NEXT or
/// RTLD_DEFAULT, else null.
unsafe extern "C" fn lookup(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    let attached = crate::world::ensure_attached();
    real();
    let special = handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT;
    if special && !name.is_null() {
        // SAFETY: dlsym's caller passes a C string.
        let name = unsafe { CStr::from_ptr(name) };
        let found = match JUMPS.iter().find(|(ours, _)| *ours == name) {
            Some((_, address)) => address.0.cast_mut().cast(),
            None => crate::exports::address_of(name),
        };
        if !found.is_null() {
            return found;
        }
    }
    if attached {
        await_linker(tls::slot());
    }
    core::ptr::null_mut()
}

/// Functions of which the C library looks at the caller: at its search path for
/// libraries, for one. So they are entered with a return address in the
/// caller's object, of an instruction that returns to [`left`], which returns to
/// the caller.
macro_rules! jumps {
    ($($(#[$doc:meta])* $name:ident => $real:ident, $first:literal;)*) => {
        $(
            $(#[$doc])*
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                naked_asm!(
                    "push rdi",
                    "push rsi",
                    "push rdx",
                    "push rcx",
                    "mov rdi, [rsp + 32]",
                    "sub rsp, 8",
                    "call {enter}",
                    "add rsp, 8",
                    "pop rcx",
                    "pop rdx",
                    "pop rsi",
                    "pop rdi",
                    $first,
                    "test rax, rax",
                    "jz 2f",
                    "lea r11, [rip + {left}]",
                    "push r11",
                    "push rax",
                    "2: mov r11, qword ptr [rip + {real}]",
                    "jmp r11",
                    enter = sym enter,
                    left = sym left,
                    real = sym real::$real,
                )
            }
        )*

        static JUMPS: &[(&CStr, Address)] = &[$((
            // SAFETY: the name ends with its only NUL.
            unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) },
            Address($name as *const ()),
        ),)*];
    };
}

struct Address(*const ());

// SAFETY: addresses of functions are plain numbers.
unsafe impl Sync for Address {}

// RTLD_DEEPBIND, bit 3, would bind the new object past the interposer.
jumps! {
    /// dlopen(3).
    dlopen => REAL_DLOPEN, "and esi, -9";
    /// dlmopen(3).
    dlmopen => REAL_DLMOPEN, "and edx, -9";
    /// dlclose(3).
    dlclose => REAL_DLCLOSE, "";
    /// dladdr(3).
    dladdr => REAL_DLADDR, "";
    /// dladdr1(3).
    dladdr1 => REAL_DLADDR1, "";
    /// dlinfo(3).
    dlinfo => REAL_DLINFO, "";
    /// dl_iterate_phdr(3).
    dl_iterate_phdr => REAL_DL_ITERATE_PHDR, "";
}

const _: () = assert!(libc::RTLD_DEEPBIND as c_int == 8);

fn key(process: u32) -> u64 {
    0x4c << 56 | u64::from(process)
}

/// Waits until no other thread of the process is in the linker.
pub(crate) fn await_linker(me: Slot) {
    if me == 0 {
        return;
    }
    let process = world().threads[me as usize].process;
    loop {
        let loader = world().processes[process as usize].loader;
        if loader == 0 || loader == me {
            break;
        }
        turn::wait_deaf(me, key(process));
    }
}

/// The calling thread goes into the linker, to come back to `caller`. Returns the
/// address of a return instruction in the caller's object; 0 without one, then
/// the linker is not held.
extern "C" fn enter(caller: *const u8) -> *const u8 {
    let attached = crate::world::ensure_attached();
    real();
    let me = tls::slot();
    if !attached || me == 0 {
        return core::ptr::null();
    }
    begin(Op::Link);
    await_linker(me);
    // SAFETY: the address is one of code that is about to run.
    let instruction = unsafe { return_near(caller) };
    if !instruction.is_null() {
        let w = world();
        let t = &mut w.threads[me as usize];
        // A constructor may load again.
        t.linking += 1;
        w.processes[t.process as usize].loader = me;
    }
    instruction
}

/// A `ret` in the page of code of `address`, or null.
unsafe fn return_near(address: *const u8) -> *const u8 {
    const RET: u8 = 0xc3;
    const PAGE: usize = 4096;
    let offset = address as usize % PAGE;
    let behind = offset..PAGE;
    let before = (0..offset).rev();
    // SAFETY: all in one page, which is mapped as code, and so can be read.
    unsafe {
        let page = address.sub(offset);
        let found = behind.chain(before).find(|&at| *page.add(at) == RET);
        found.map_or(core::ptr::null(), |at| page.add(at))
    }
}

/// The way back from the linker.
#[unsafe(naked)]
unsafe extern "C" fn left() {
    naked_asm!("push rax", "call {leave}", "pop rax", "ret", leave = sym leave);
}

/// The calling thread has come back from the linker.
extern "C" fn leave() {
    let me = tls::slot();
    let w = world();
    let t = &mut w.threads[me as usize];
    let process = t.process;
    // Another process than the one that went in was forked meanwhile.
    if me == 0 || w.processes[process as usize].loader != me {
        return;
    }
    t.linking -= 1;
    if t.linking == 0 {
        abandon(me);
    }
}

/// The calling thread ends, or has come back.
pub(crate) fn abandon(me: Slot) {
    let w = world();
    let process = w.threads[me as usize].process;
    if w.processes[process as usize].loader == me {
        w.processes[process as usize].loader = 0;
        turn::wake_all(key(process));
    }
}
