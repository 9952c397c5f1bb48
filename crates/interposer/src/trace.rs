//! The trace: one record for each scheduled operation, for `crane verify`.
//!
//! When two executions of one log differ, the first record in which their
//! traces differ names the thread, the operation and the place in the program.
//! The file is made by the node beside the segment; here it is filled by the
//! holder of the turn until it is full. Nothing of it reaches the program.

use crate::raw::{line, sys};
use crate::world::{header, world};
use crate::{callsite, tls, turn};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicUsize, Ordering};
use syscalls::Sysno;

/// Where every process maps the file, far behind the segment.
const ADDRESS: usize = 0x6200_0000_0000;
/// Where the records begin.
const RECORDS: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"CRANETRC");

/// First bytes of the file; the node writes all but the two counts.
#[repr(C)]
struct Head {
    magic: u64,
    /// Records that the file has room for.
    capacity: u64,
    /// Operations before this logical clock are not recorded.
    from: u64,
    /// Records written.
    count: u64,
    /// Operations that found the file full.
    missed: u64,
}

#[repr(C)]
struct Record {
    clock: u64,
    epoch: u64,
    /// Running hash of the output before the operation.
    output: u64,
    /// Where the program goes on after its call; 0: not known.
    caller: u64,
    /// The program's stack pointer there: the same unless its stack differs.
    stack: u64,
    /// Address of the object that the operation is on; 0: none in memory.
    object: u64,
    slot: u32,
    operation: u32,
}

const UNTRIED: usize = 0;
const MAPPED: usize = 1;
const FAILED: usize = 2;

/// Private to each process image; a forked child inherits the mapping.
static STATE: AtomicUsize = AtomicUsize::new(UNTRIED);

/// The node wants a trace.
pub(crate) const EACH: u32 = crane_channel::layout::WATCH_RECORDS;
/// The node wants the addresses of objects in the schedule's hash.
pub(crate) const OBJECTS: u32 = crane_channel::layout::WATCH_OBJECTS;

/// What the node wants, [`EACH`] and [`OBJECTS`].
#[inline]
pub(crate) fn wanted() -> u32 {
    header().watch.load(Ordering::Relaxed)
}

/// Records an operation that is about to begin. The caller holds the turn.
#[unsafe(naked)]
pub(crate) extern "C" fn record(operation: u32, object: u64) {
    // The places of the return address and of the frame are what the search
    // for the program's call begins with.
    naked_asm!("mov rdx, rsp", "mov rcx, rbp", "jmp {}", sym record_from);
}

extern "C" fn record_from(operation: u32, object: u64, stack: *const u64, base: u64) {
    if STATE.load(Ordering::Relaxed) == UNTRIED {
        let state = if map() { MAPPED } else { FAILED };
        STATE.store(state, Ordering::Relaxed);
        if state == FAILED {
            turn::report(
                false,
                &line!("/.crane/trace cannot be used, so there will be no trace"),
            );
        }
    }
    if STATE.load(Ordering::Relaxed) != MAPPED {
        return;
    }
    // SAFETY: mapped by `map`, which checked the length; only the holder of
    // the turn touches it, whichever process that is.
    let head = unsafe { &mut *(ADDRESS as *mut Head) };
    let w = world();
    let clock = w.scheduler.clock() + 1;
    if clock < head.from {
        return;
    }
    if head.count >= head.capacity {
        head.missed += 1;
        return;
    }
    // SAFETY: `stack` is where our caller's return address lies, `base` its
    // frame register, as they were at the call.
    let site = unsafe { callsite::of_the_program(stack, base) };
    let record = Record {
        clock,
        epoch: w.epoch,
        output: w.output_hash,
        caller: site.address,
        stack: site.stack,
        object,
        slot: tls::slot(),
        operation,
    };
    // SAFETY: within the mapping, because count is below the checked capacity.
    unsafe {
        ((ADDRESS + RECORDS) as *mut Record)
            .add(head.count as usize)
            .write(record);
    }
    head.count += 1;
}

fn map() -> bool {
    // SAFETY: plain system calls with valid arguments; all-zero is a valid stat.
    // The mapping is at an address that nothing else uses (NOREPLACE makes sure).
    let (mapped, length) = unsafe {
        let fd = sys!(
            Sysno::openat,
            libc::AT_FDCWD,
            c"/.crane/trace".as_ptr(),
            libc::O_RDWR | libc::O_CLOEXEC,
            0
        );
        let mut st: libc::stat = core::mem::zeroed();
        if sys!(Sysno::fstat, fd, &raw mut st) != 0 {
            return false;
        }
        let length = st.st_size as usize;
        let mapped = sys!(
            Sysno::mmap,
            ADDRESS,
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE,
            fd,
            0
        );
        sys!(Sysno::close, fd);
        (mapped, length)
    };
    if mapped != ADDRESS || length < RECORDS {
        return false;
    }
    // SAFETY: mapped, and longer than a head.
    let head = unsafe { &*(ADDRESS as *const Head) };
    let room = (length - RECORDS) / size_of::<Record>();
    head.magic == MAGIC && head.capacity <= room as u64
}
