//! The processor's time-stamp counter: virtual time, as any other clock.
//!
//! Programs read it by an instruction, which no function stands before. The
//! kernel makes the instruction fault (prctl(2), PR_SET_TSC), and the handler
//! of faults answers it: a counter of nanoseconds, each reading an operation.
//!
//! The setting survives execve(2), but the loader reads the counter before we
//! are there, so it is lifted for exec and made again while attaching. The
//! kernel's own code in every process (the vDSO) reads it too, for the C
//! library's inner calls; it gets the machine's, as its other numbers are.

use crate::raw::{line, sys};
use crate::turn::{self, Op, begin};
use crate::{clock, tls};
use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};
use libc::{siginfo_t, ucontext_t};
use syscalls::Sysno;

const PR_SET_TSC: usize = 26;
const PR_TSC_ENABLE: usize = 1;
const PR_TSC_SIGSEGV: usize = 2;

/// si_code of a fault that has no address: a privileged instruction.
const SI_KERNEL: i32 = 0x80;

/// Where the vDSO is mapped, and no less than its length.
static VDSO: AtomicU64 = AtomicU64::new(0);
const VDSO_LENGTH: u64 = 16 << 10;

fn set(mode: usize) -> bool {
    // SAFETY: prctl(2) with numbers only.
    unsafe { sys!(Sysno::prctl, PR_SET_TSC, mode, 0, 0, 0) == 0 }
}

/// Makes reading the counter fault in this thread and those it starts.
pub(crate) fn guard() {
    // SAFETY: getauxval has no preconditions.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    VDSO.store(vdso, Ordering::Relaxed);
    if !set(PR_TSC_SIGSEGV) {
        turn::report(
            false,
            &line!(
                "the kernel does not let the time-stamp counter be trapped (PR_SET_TSC): a program whose answers depend on it differs between replicas"
            ),
        );
    }
}

/// Lets the counter be read, for a new image's loader.
pub(crate) fn lift() {
    set(PR_TSC_ENABLE);
}

/// Undoes [`lift`] when the new image did not come.
pub(crate) fn guard_again() {
    set(PR_TSC_SIGSEGV);
}

/// The machine's counter.
fn real() -> u64 {
    set(PR_TSC_ENABLE);
    // SAFETY: every x86-64 processor has it, and it may be read now.
    let value = unsafe { _rdtsc() };
    set(PR_TSC_SIGSEGV);
    value
}

/// The handler of faults asks this first: answers the instruction if it reads
/// the counter. Returns whether it did.
///
/// # Safety
/// `info` and `context` are the kernel's for a handler of SIGSEGV.
pub(crate) unsafe fn emulate(info: *const siginfo_t, context: *mut ucontext_t) -> bool {
    // SAFETY: same contract.
    let registers = unsafe {
        if (*info).si_code != SI_KERNEL {
            return false;
        }
        &mut (*context).uc_mcontext.gregs
    };
    let place = registers[libc::REG_RIP as usize] as u64;
    // SAFETY: the instruction at this place has just faulted for what it does,
    // so it is there to be read; the third byte is read only if there is one.
    let length = unsafe {
        let byte = |at: u64| *((place + at) as *const u8);
        match (byte(0), byte(1)) {
            (0x0f, 0x31) => 2,
            (0x0f, 0x01) if byte(2) == 0xf9 => 3,
            _ => return false,
        }
    };
    let vdso = VDSO.load(Ordering::Relaxed);
    let in_vdso = (vdso..vdso + VDSO_LENGTH).contains(&place);
    let value = if in_vdso || tls::slot() == 0 {
        real()
    } else {
        begin(Op::Clock);
        clock::uptime()
    };
    registers[libc::REG_RAX as usize] = (value & 0xffff_ffff) as i64;
    registers[libc::REG_RDX as usize] = (value >> 32) as i64;
    if length == 3 {
        // rdtscp also tells the processor: the only one there is.
        registers[libc::REG_RCX as usize] = 0;
    }
    registers[libc::REG_RIP as usize] += length;
    true
}
