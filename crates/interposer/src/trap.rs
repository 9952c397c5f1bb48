//! System calls that the program makes by instructions of its own.
//!
//! A filter in the kernel (seccomp(2)) looks where a system call comes from.
//! From the program's own file it does not happen, but comes to our handler of
//! SIGSYS, which answers it by the same functions as syscall(2). A filter stays
//! for good, also across exec, and only gets stricter. So it cannot know where
//! this image's C library is; it knows where Linux puts programs (addresses are
//! not random): below 4 GiB, or from two thirds of the address space on. The
//! loader and all libraries are higher, and what they do is left alone, but for
//! the asynchronous calls, which are refused wherever they come from.

use crate::raw::{self, line, sys};
use crate::refuse::{self, Unsupported};
use crate::signals::KEPT;
use crate::world::world;
use crate::{numbers, tls, turn};
use core::ffi::c_long;
use libc::{siginfo_t, sock_filter, sock_fprog, ucontext_t};
use syscalls::Sysno;

/// si_code of a signal that a filter sends.
const SYS_SECCOMP: i32 = 1;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// Upper halves of the addresses at which Linux loads position-independent
/// programs, and of our own segment, below which they end.
const PROGRAMS: (u32, u32) = (0x5555, 0x6000);

/// Calls that bring nothing in, and are frequent or do not come back.
const ALLOWED: [Sysno; 17] = [
    Sysno::mmap,
    Sysno::mprotect,
    Sysno::munmap,
    Sysno::mremap,
    Sysno::madvise,
    Sysno::brk,
    Sysno::rt_sigreturn,
    Sysno::restart_syscall,
    Sysno::arch_prctl,
    Sysno::set_tid_address,
    Sysno::set_robust_list,
    Sysno::rseq,
    Sysno::getpid,
    Sysno::gettid,
    Sysno::getuid,
    Sysno::geteuid,
    Sysno::getgid,
];

/// Calls, first and last, that nothing in the C library and nothing here makes.
const NOWHERE: [(Sysno, Sysno); 2] = [
    (Sysno::io_setup, Sysno::io_cancel),
    (Sysno::io_uring_setup, Sysno::io_uring_register),
];

const LENGTH: usize = 3 + NOWHERE.len() * 2 + ALLOWED.len() + 4 + 2;

/// Places in the kernel's `struct seccomp_data`.
const NUMBER: u32 = 0;
const MACHINE: u32 = 4;
const PLACE_ABOVE: u32 = 12;

const fn step(code: u32, jt: usize, jf: usize, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: jt as u8,
        jf: jf as u8,
        k,
    }
}

const fn load(at: u32) -> sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at)
}

/// Goes `yes` or `no` instructions on, as the value compares with `k`.
const fn compare(how: u32, k: u32, yes: usize, no: usize) -> sock_filter {
    step(libc::BPF_JMP | how | libc::BPF_K, yes, no, k)
}

const fn say(what: u32) -> sock_filter {
    step(libc::BPF_RET | libc::BPF_K, 0, 0, what)
}

const fn filter() -> [sock_filter; LENGTH] {
    let mut code = [say(libc::SECCOMP_RET_TRAP); LENGTH];
    let allow = LENGTH - 2;
    let trap = LENGTH - 1;
    code[0] = load(MACHINE);
    // Calls of other machines (32 bits) are not even numbers that we know.
    code[1] = compare(libc::BPF_JEQ, AUDIT_ARCH_X86_64, 0, trap - 2);
    code[2] = load(NUMBER);
    let mut at = 3;
    let mut i = 0;
    while i < NOWHERE.len() {
        let (first, last) = (NOWHERE[i].0 as u32, NOWHERE[i].1 as u32);
        code[at] = compare(libc::BPF_JGE, first, 0, 1);
        code[at + 1] = compare(libc::BPF_JGT, last, 0, trap - (at + 2));
        at += 2;
        i += 1;
    }
    i = 0;
    while i < ALLOWED.len() {
        code[at] = compare(libc::BPF_JEQ, ALLOWED[i] as u32, allow - (at + 1), 0);
        at += 1;
        i += 1;
    }
    code[at] = load(PLACE_ABOVE);
    code[at + 1] = compare(libc::BPF_JEQ, 0, trap - (at + 2), 0);
    code[at + 2] = compare(libc::BPF_JGE, PROGRAMS.0, 0, allow - (at + 3));
    code[at + 3] = compare(libc::BPF_JGE, PROGRAMS.1, allow - (at + 4), trap - (at + 4));
    code[allow] = say(libc::SECCOMP_RET_ALLOW);
    code[trap] = say(libc::SECCOMP_RET_TRAP);
    code
}

static FILTER: [sock_filter; LENGTH] = filter();

/// Sets the trap, once for the whole group of processes: children and what
/// they execute inherit it.
pub(crate) fn set() {
    let program = sock_fprog {
        len: LENGTH as u16,
        filter: (&raw const FILTER).cast_mut().cast(),
    };
    // SAFETY: a valid filter; the sandbox has set no_new_privs.
    let code = unsafe {
        sys!(
            Sysno::seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program
        )
    };
    if code != 0 {
        turn::report(
            false,
            &line!(
                "the kernel does not let system calls be trapped (seccomp): those that the program makes by instructions of its own are not kept in step"
            ),
        );
    }
}

/// Answers a system call that the filter has stopped, or tells that the signal
/// is another's.
///
/// # Safety
/// `info` and `context` are the kernel's for a handler of SIGSYS.
pub(crate) unsafe fn answer(info: *const siginfo_t, context: *mut ucontext_t) -> bool {
    // SAFETY: same contract. The registers are copied, because what is called
    // may change the context, in a nested handler of the program.
    let (number, arguments) = unsafe {
        if (*info).si_code != SYS_SECCOMP {
            return false;
        }
        let of = |register: i32| (*context).uc_mcontext.gregs[register as usize] as u64;
        (
            of(libc::REG_RAX) as c_long,
            [
                of(libc::REG_RDI),
                of(libc::REG_RSI),
                of(libc::REG_RDX),
                of(libc::REG_R10),
                of(libc::REG_R8),
                of(libc::REG_R9),
            ],
        )
    };
    // SAFETY: of such a signal, the word at this place tells for which machine.
    let machine = unsafe { info.cast::<u32>().add(7).read() };
    let result = if machine == AUDIT_ARCH_X86_64 {
        // SAFETY: the program's own contract with the kernel.
        match unsafe { numbers::syscall(number, arguments) } {
            -1 => -c_long::from(raw::errno()),
            value => value,
        }
    } else {
        refuse::count(Unsupported::RawSystemCall);
        -c_long::from(libc::ENOSYS)
    };
    // SAFETY: same contract; nobody else uses the context now.
    let context = unsafe { &mut *context };
    context.uc_mcontext.gregs[libc::REG_RAX as usize] = result;
    match Sysno::new(number as usize) {
        // The end of this handler would undo these.
        Some(Sysno::rt_sigprocmask) if tls::slot() != 0 => {
            let mask = world().threads[tls::slot() as usize].mask & !KEPT;
            // SAFETY: sigset_t begins with the kernel's word.
            unsafe { *(&raw mut context.uc_sigmask).cast::<u64>() = mask };
        }
        Some(Sysno::sigaltstack) => {
            // SAFETY: the kernel fills it.
            unsafe { sys!(Sysno::sigaltstack, 0, &raw mut context.uc_stack) };
        }
        _ => {}
    }
    true
}
