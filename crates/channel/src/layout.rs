//! Layout of the segment: the header and where the other parts begin.

use crate::recent::SentRecord;
use core::sync::atomic::{AtomicU32, AtomicU64};

/// Where every process of the server maps the segment.
///
/// Fixed, so that references into it stay valid across fork and across a
/// restore; far from where the kernel places programs, heaps and libraries on
/// 64-bit Linux without address randomisation.
pub const SEGMENT_ADDRESS: usize = 0x6000_0000_0000;

/// As a replica's id: the bytes of every connection are wanted.
pub const EVERY_REPLICA: u8 = 255;

/// Path of the segment inside the replica's mount namespace.
pub const SEGMENT_PATH: &str = "/.crane/seg";

/// First word of the segment.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CRANESEG");

/// Version of the layout; both sides must have been built with the same.
pub const VERSION: u32 = 7;

/// Bytes of the log ring, a power of two.
pub const LOG_RING_LEN: usize = 32 << 20;
/// Bytes of the output ring, a power of two.
pub const OUTPUT_RING_LEN: usize = 32 << 20;
/// Bytes reserved for the header.
pub const HEADER_LEN: usize = 16 << 10;
/// Bytes of the interposer's world. Sparse: only touched pages cost memory.
pub const WORLD_LEN: usize = 4 << 30;

/// Threads that have a [`ThreadCard`], by slot: all that a scheduler can have.
pub const THREAD_CARDS: usize = 8192;
/// Offset of the [`ThreadCard`]s.
pub const CARDS_OFFSET: usize = HEADER_LEN;
/// Offset of the log ring.
pub const LOG_RING_OFFSET: usize = CARDS_OFFSET + THREAD_CARDS * size_of::<ThreadCard>();
/// Offset of the output ring.
pub const OUTPUT_RING_OFFSET: usize = LOG_RING_OFFSET + LOG_RING_LEN;
/// Operations that are remembered, see [`crate::recent`].
pub const OPERATIONS: usize = 1 << 17;
/// Outputs that are remembered.
pub const OUTPUTS: usize = 1 << 13;
/// Offset of the remembered operations, a word each.
pub const OPERATIONS_OFFSET: usize = OUTPUT_RING_OFFSET + OUTPUT_RING_LEN;
/// Offset of the remembered outputs.
pub const OUTPUTS_OFFSET: usize = OPERATIONS_OFFSET + OPERATIONS * size_of::<u64>();
/// Offset of the world.
pub const WORLD_OFFSET: usize = OUTPUTS_OFFSET + OUTPUTS * size_of::<SentRecord>();
/// Length of the whole segment.
pub const SEGMENT_LEN: usize = WORLD_OFFSET + WORLD_LEN;

/// Number of slots for counts of unsupported calls, see [`Header::unsupported`].
pub const UNSUPPORTED_SLOTS: usize = 128;

/// Positions and sleep words of one ring. Positions are byte counts that only
/// grow; each side writes its own.
#[repr(C, align(64))]
#[derive(Default)]
pub struct RingControl {
    /// Bytes published by the producer.
    pub head: AtomicU64,
    _pad0: [u64; 7],
    /// Bytes consumed by the consumer.
    pub tail: AtomicU64,
    _pad1: [u64; 7],
    /// Futex word of the consumer: bumped when it is woken.
    pub wake: AtomicU32,
    /// 1 while the consumer sleeps (or is about to) on `wake`.
    pub waiting: AtomicU32,
    /// Futex word of the producer, for when the ring is full.
    pub space: AtomicU32,
    /// 1 while the producer waits for space.
    pub space_wanted: AtomicU32,
    _pad2: [u64; 6],
}

/// What the server is doing, as it last published.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No interposer has reported in yet.
    Absent = 0,
    /// Threads run within the budget of the current epoch.
    Running = 1,
    /// Every thread is blocked; only an input or [`Header::deadline`] can move it.
    Quiescent = 2,
    /// The budget of the epoch is used up while threads could still run.
    NeedsBudget = 3,
    /// The server's last process has ended.
    Exited = 4,
    /// The interposer met something that it must refuse; the reason is in the
    /// output ring and on the server's standard error.
    Refused = 5,
}

impl State {
    /// The state for a raw word of the segment; unknown values are `Absent`.
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Quiescent,
            3 => Self::NeedsBudget,
            4 => Self::Exited,
            5 => Self::Refused,
            _ => Self::Absent,
        }
    }
}

/// The signal by which the node asks the holder of the turn where it is.
///
/// It is the C library's own for cancelling threads, which the interposer
/// delivers in another way: no program can block or catch it by mistake.
pub const LOOK_SIGNAL: i32 = 32;

/// Where the holder of the turn was in the program's own code.
#[repr(C)]
#[derive(Default)]
pub struct Glance {
    /// Thread slot that answered.
    pub slot: AtomicU32,
    _pad: u32,
    /// The logical clock then, plus one; 0: nobody has answered.
    pub clock: AtomicU64,
    /// The instruction pointer.
    pub instruction: AtomicU64,
    /// The stack pointer.
    pub stack: AtomicU64,
    /// The frame pointer, or whatever the program keeps in that register.
    pub frame: AtomicU64,
}

/// What is known of a thread besides the scheduler's state.
#[repr(C)]
#[derive(Default)]
pub struct ThreadCard {
    /// Kernel id in the replica's namespace.
    pub tid: AtomicU32,
    /// Pid of its process, likewise.
    pub pid: AtomicU32,
    /// Code of its last scheduled operation.
    pub operation: AtomicU32,
    /// Number of the operation for which it left the schedule; 0: it has not.
    pub outside: AtomicU32,
    /// That number, once its call has returned.
    pub returned: AtomicU32,
    /// The call's result: 0 or a negative error number.
    pub result: AtomicU32,
    _pad: [u32; 2],
}

/// Most files that the server can have seen at a time.
pub const SEEN_FILES: usize = 1 << 20;
/// Bytes for the names under which they were seen first.
pub const SEEN_NAMES: usize = 64 << 20;

/// A file that the server has seen: who it is to the kernel, which differs between
/// replicas and is another after a restore, and what the server is shown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeenFile {
    /// The kernel's device number.
    pub device: u64,
    /// The kernel's inode number; 0: a free entry.
    pub number: u64,
    /// Real time at which it was made, nanoseconds; 0: not known.
    pub born: i64,
    /// The inode number that the server is shown.
    pub shown: u64,
    /// Virtual time of the last write, nanoseconds; 0: none.
    pub written: u64,
    /// Where in the names the one under which it was first seen begins, plus one;
    /// 0: not known. A name is its length (`u16`) and that many bytes.
    pub name: u64,
}

/// Bit of [`Header::watch`]: record every operation in the trace file, see the
/// interposer.
pub const WATCH_RECORDS: u32 = 1;
/// Bit of [`Header::watch`]: mix the addresses of the objects of operations into
/// the schedule's hash.
pub const WATCH_OBJECTS: u32 = 2;

/// Bit of [`Header::watch`]: output is held back until other replicas have come to
/// the same, so the node hears of every epoch with output, and at its end.
pub const WATCH_VOTES: u32 = 4;

/// No deadline: the value of [`Header::deadline`] when nothing is due.
pub const NO_DEADLINE: u64 = u64::MAX;

/// The first page of the segment.
///
/// The settings are written once by the node before the server starts; the
/// state is written by the holder of the turn. All words are read by the other
/// side at any time, hence atomics; only the rings order anything.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// This replica's id, 1 to 254, or [`EVERY_REPLICA`]. The server's program never sees it: it only
    /// tells the interposer which connections' bytes are wanted by this node.
    pub replica: AtomicU32,
    /// Operations a thread may do before the turn rotates.
    pub quantum: AtomicU32,
    /// [`WATCH_RECORDS`], [`WATCH_OBJECTS`], [`WATCH_VOTES`].
    pub watch: AtomicU32,

    /// Ring from the node to the server: committed epochs.
    pub log: RingControl,
    /// Ring from the server to the node: [`crate::output`].
    pub output: RingControl,

    /// Non-zero, as at the start: the node waits for the next boundary. Otherwise
    /// the server need not wake it for each epoch in which nothing was said.
    pub eager: AtomicU32,

    /// A [`State`].
    pub state: AtomicU32,
    /// Threads known to the scheduler.
    pub threads: AtomicU32,
    /// Processes known to the scheduler.
    pub processes: AtomicU32,
    /// Open external connections.
    pub connections: AtomicU32,
    /// Bytes in flight in virtual sockets and pipes, as at the last boundary.
    pub buffered: AtomicU64,
    /// Index of the last epoch applied.
    pub epoch: AtomicU64,
    /// Logical clock: scheduled operations so far.
    pub clock: AtomicU64,
    /// Virtual time now, nanoseconds since the Unix epoch.
    pub now: AtomicU64,
    /// Virtual time of the earliest deadline, or [`NO_DEADLINE`].
    pub deadline: AtomicU64,
    /// Running hash of all bytes sent to clients, with their connections.
    pub output_hash: AtomicU64,
    /// Running hash of the schedule: the sequence of (thread, operation).
    pub schedule_hash: AtomicU64,
    /// Pid, in the replica's namespace, of the process that first attached.
    pub server_pid: AtomicU32,
    /// Thread slot that holds the turn.
    pub holder: AtomicU32,
    /// Tid, in the replica's namespace, of the thread that holds the turn.
    pub holder_tid: AtomicU32,
    /// Pid, in the replica's namespace, of that thread's process.
    pub holder_pid: AtomicU32,
    /// Turns handed from one thread to another so far.
    pub handovers: AtomicU64,
    /// Bytes of randomness drawn so far (a change asks the leader for a seed).
    pub random_drawn: AtomicU64,
    /// The logical clock at this moment; [`Header::clock`] is that of the last
    /// boundary.
    pub ticks: AtomicU64,
    /// Outputs so far, as [`crate::recent`] has them.
    pub sent: AtomicU64,
    /// Offset in the segment of the scheduler's state.
    pub scheduler: AtomicU64,
    /// Where the holder was when it was last asked by [`LOOK_SIGNAL`].
    pub glance: Glance,
    /// Times a thread was found in a loop that only another thread can end.
    pub spins: AtomicU64,
    /// Non-zero: such a thread passes the turn on. Written by the node.
    pub preempt: AtomicU32,
    /// Calls out of the schedule that have returned so far.
    pub returned: AtomicU32,
    /// Times that the server was restored from a checkpoint. A thread that sees
    /// another value than before has lost what the kernel keeps for it alone.
    pub generation: AtomicU32,
    /// Non-zero: a thread waited for a plain word of memory that processes share. Which
    /// object that is, is not the same after a restore.
    pub shared_words: AtomicU32,
    /// Offset in the segment of the [`SEEN_FILES`] entries of [`SeenFile`]s.
    pub seen_files: AtomicU64,
    /// Offset in the segment of their [`SEEN_NAMES`] bytes of names.
    pub seen_names: AtomicU64,
    /// Counts of calls let through or refused because they are not supported,
    /// indexed by the interposer's table of such calls.
    pub unsupported: [AtomicU32; UNSUPPORTED_SLOTS],
}

const _: () = assert!(core::mem::size_of::<Header>() <= HEADER_LEN);
const _: () = assert!(LOG_RING_OFFSET.is_multiple_of(4096) && WORLD_OFFSET.is_multiple_of(4096));
const _: () = assert!(LOG_RING_LEN.is_power_of_two() && OUTPUT_RING_LEN.is_power_of_two());
