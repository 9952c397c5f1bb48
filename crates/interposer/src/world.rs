//! The interposer's state in the shared segment, and attaching to it.
//!
//! Everything here is used by the holder of the turn alone, whichever thread
//! of whichever process that is. References from [`world`] must not be kept
//! across a hand-over of the turn (`turn::*`): others write meanwhile.

use crate::raw::{self, line, sys};
use crate::{boundary, process, random, real, spin, stack, threads, tsc, turn};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use crane_channel::layout::{
    CARDS_OFFSET, Header, MAGIC, SEGMENT_ADDRESS, SEGMENT_LEN, SEGMENT_PATH, THREAD_CARDS,
    ThreadCard, VERSION, WORLD_LEN, WORLD_OFFSET,
};
use crane_channel::output::Output;
use crane_scheduler::{MAX_THREADS, Scheduler, Slot};
use crane_vkernel::{AttachError, Limits, VKernel};
use syscalls::Sysno;

/// Most processes of a server at a time. Index 0 is never used.
pub(crate) const MAX_PROCESSES: usize = 256;

/// The world. All-zero memory is its valid empty state.
#[repr(C)]
pub(crate) struct World {
    /// 1 once the first process has set everything up.
    pub(crate) ready: AtomicU32,
    /// Index of the last epoch applied.
    pub(crate) epoch: u64,
    /// Virtual time at which the first epoch began.
    pub(crate) start: u64,
    pub(crate) output_hash: u64,
    /// Number of the last operation for which a thread left the schedule.
    pub(crate) left: u32,
    /// Bytes or records were pushed to the output ring since the node was told.
    pub(crate) untold: u32,
    /// Epochs that the node has not been woken for.
    pub(crate) unhurried: u32,
    /// A client's bytes were announced in this epoch already.
    pub(crate) announced: u32,
    /// Numbers given to objects that processes share.
    pub(crate) shared_objects: u64,
    _pad: u32,
    /// 1 once a robust mutex was locked.
    pub(crate) robust_used: u32,
    /// 1 once somebody waited for a word that processes may share.
    pub(crate) shared_futexes: u32,
    pub(crate) random: random::Stream,
    /// Processes made so far.
    pub(crate) process_serial: u64,
    /// Threads that wait for a lock on a file.
    pub(crate) lock_waiters: u32,
    /// 1: there were descriptors of processes.
    pub(crate) process_files: u32,
    /// Ids of semaphores that were used are below this.
    pub(crate) semaphores_end: i32,
    pub(crate) processes: [process::Process; MAX_PROCESSES],
    pub(crate) threads: [threads::Thread; MAX_THREADS],
    pub(crate) datagram: crate::datagrams::Scratch,
    pub(crate) inotify: crate::inotify::Table,
    pub(crate) timers: crate::timers::Table,
    pub(crate) signal_files: crate::signalfd::Table,
    pub(crate) inodes: crate::inodes::Inodes,
    pub(crate) scheduler: Scheduler,
    pub(crate) stacks: crate::fatal::Stacks,
}

const VKERNEL_OFFSET: usize = WORLD_OFFSET + core::mem::size_of::<World>().next_multiple_of(4096);
const VKERNEL_ROOM: usize = WORLD_OFFSET + WORLD_LEN - VKERNEL_OFFSET;

/// The segment's header.
#[inline]
pub(crate) fn header() -> &'static Header {
    // SAFETY: mapped at this address by `attach` before anything else runs, for
    // the life of the process; a header is atomics only.
    unsafe { &*(SEGMENT_ADDRESS as *const Header) }
}

/// What the node sees of a thread.
#[inline]
pub(crate) fn card(slot: Slot) -> &'static ThreadCard {
    // SAFETY: mapped by `attach`; slots are below the number of cards; a card
    // is atomics only.
    unsafe {
        let cards = (SEGMENT_ADDRESS + CARDS_OFFSET) as *const ThreadCard;
        &*cards.add(slot as usize)
    }
}

const _: () = assert!(MAX_THREADS <= THREAD_CARDS);

/// The world.
///
/// Call only while holding the turn (or before other threads exist), and do
/// not keep the reference across a hand-over.
#[inline]
pub(crate) fn world() -> &'static mut World {
    // SAFETY: mapped by `attach`; exclusive by the turn, see above; all-zero is
    // a valid World.
    unsafe { &mut *((SEGMENT_ADDRESS + WORLD_OFFSET) as *mut World) }
}

/// The calling process's view of the virtual kernel; forked children inherit it.
struct View(UnsafeCell<Option<VKernel>>);

// SAFETY: written once while attaching; used by the holder of the turn alone.
unsafe impl Sync for View {}

static VIEW: View = View(UnsafeCell::new(None));

/// The virtual kernel, under the same rules as [`world`].
#[inline]
pub(crate) fn vkernel() -> &'static mut VKernel {
    // SAFETY: exclusive by the turn; set by `attach` before any use.
    match unsafe { &mut *VIEW.0.get() } {
        Some(view) => view,
        None => unreachable!("used before attaching"),
    }
}

fn set_view(view: Result<VKernel, AttachError>) {
    match view {
        // SAFETY: attaching is single-threaded.
        Ok(view) => unsafe { *VIEW.0.get() = Some(view) },
        Err(_) => crate::refuse::fatal(line!(
            "the shared segment is not what this interposer expects: reinstall Crane"
        )),
    }
}

const DETACHED: u32 = 0;
const ATTACHING: u32 = 1;
const ATTACHED: u32 = 2;

/// Whether this process has attached. Private to each process; a forked child
/// inherits "attached" together with the mapping.
static STATE: AtomicU32 = AtomicU32::new(DETACHED);

/// Attaches on the first call of anything in this process, which may be before
/// our constructor: other libraries' constructors run in an order of their own.
///
/// Returns false while attaching is under way: the call must then be answered
/// natively. That is only seen by the C library's own work in this thread.
#[inline]
pub(crate) fn ensure_attached() -> bool {
    ensure_attached_by(false)
}

/// `first`: by our constructor, before any other code of this image has run.
#[inline]
fn ensure_attached_by(first: bool) -> bool {
    match STATE.load(Ordering::Relaxed) {
        ATTACHED => true,
        DETACHED => {
            STATE.store(ATTACHING, Ordering::Relaxed);
            attach();
            STATE.store(ATTACHED, Ordering::Relaxed);
            turn::first_turn();
            random::replace_kernels(first);
            // Keeps a masked pointer, so not before the mask is replaced.
            process::register_end();
            if first {
                stack::clean_start();
            }
            true
        }
        _ => false,
    }
}

fn attach() {
    map_segment();
    real::resolve();
    if world().ready.load(Ordering::Relaxed) == 0 {
        initialise();
    } else {
        // SAFETY: the region was initialised by the first process.
        set_view(unsafe {
            VKernel::attach((SEGMENT_ADDRESS + VKERNEL_OFFSET) as *mut u8, VKERNEL_ROOM)
        });
        process::reattach_after_exec();
    }
    spin::listen();
    tsc::guard();
}

fn map_segment() {
    let mut path = [0u8; 64];
    path[..SEGMENT_PATH.len()].copy_from_slice(SEGMENT_PATH.as_bytes());
    // SAFETY: plain system calls with valid arguments. The mapping is at an
    // address that nothing else uses (NOREPLACE makes sure).
    let mapped = unsafe {
        let fd = sys!(
            Sysno::openat,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::O_RDWR | libc::O_CLOEXEC,
            0
        );
        let mapped = sys!(
            Sysno::mmap,
            SEGMENT_ADDRESS,
            SEGMENT_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE,
            fd,
            0
        );
        sys!(Sysno::close, fd);
        mapped
    };
    if mapped != SEGMENT_ADDRESS {
        let code = (mapped as isize).unsigned_abs();
        let text = line!(
            "crane: cannot map {SEGMENT_PATH} (errno {code}): start this program with `crane run`, not with LD_PRELOAD\n"
        );
        raw::write_stderr(text.as_bytes());
        raw::exit_group(127);
    }
    let h = header();
    if h.magic.load(Ordering::Acquire) != MAGIC || h.version.load(Ordering::Relaxed) != VERSION {
        raw::write_stderr(
            b"crane: the node and the interposer are of different versions: reinstall Crane\n",
        );
        raw::exit_group(127);
    }
}

fn initialise() {
    let w = world();
    w.scheduler.init(header().quantum.load(Ordering::Relaxed));
    let limits = Limits::default();
    assert!(VKernel::required_size(&limits) <= VKERNEL_ROOM);
    // SAFETY: the region is ours, zero-filled, and long enough.
    set_view(unsafe {
        VKernel::init(
            (SEGMENT_ADDRESS + VKERNEL_OFFSET) as *mut u8,
            VKERNEL_ROOM,
            &limits,
        )
    });
    crate::network::note_address();
    crate::inodes::note_start();
    process::first();
    w.ready.store(1, Ordering::Release);
    let pid = raw::getpid();
    let scheduler = WORLD_OFFSET + core::mem::offset_of!(World, scheduler);
    header()
        .scheduler
        .store(scheduler as u64, Ordering::Relaxed);
    let (files, names) = crate::inodes::places();
    header().seen_files.store(files, Ordering::Relaxed);
    header().seen_names.store(names, Ordering::Relaxed);
    header().server_pid.store(pid, Ordering::Relaxed);
    boundary::tell(&Output::Hello { pid });
    boundary::flush();
    crate::trap::set();
}

/// Runs as the library is loaded, if nothing called us before.
extern "C" fn constructor() {
    ensure_attached_by(true);
    crate::stdio::ready();
}

// SAFETY: .init_array holds pointers to functions that ld.so calls once, after
// relocation.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
