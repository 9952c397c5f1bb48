//! The region: its limits, its layout, and the handle through which a process
//! uses it.

use core::fmt;
use core::ptr::NonNull;

use crate::ancillary::{ATTACHMENTS, Attachment};
use crate::bind::{PortState, UDP_PORTS};
use crate::buffer::{CHUNK, Chunk, Pool, PoolState};
use crate::connmap::{ConnMap, Slot};
use crate::datagram::{Outside, PEERS};
use crate::desc::Desc;
use crate::epoll::{Epoll, Watch};
use crate::eventfd::EventFd;
use crate::fds::Proc;
use crate::listener::Listener;
use crate::multicast::{MEMBERSHIPS, Membership};
use crate::pipe::Pipe;
use crate::poll::Poller;
use crate::signal::Pollable;
use crate::socket::Sock;
use crate::stream::Stream;
use crate::table::{List, Record, Table, record};
use crate::timerfd::Timer;

const MAGIC: u64 = 0x4352_414e_4556_4b31;

record! {
    /// Sizes and windows, agreed by all replicas; they decide the layout of
    /// the region.
    pub struct Limits {
        /// Open file descriptions; at most 65536.
        pub descs: u32,
        /// Processes of the group.
        pub procs: u32,
        /// Descriptors per process.
        pub fds_per_proc: u32,
        /// Chunks of 4 KiB for bytes in flight.
        pub chunks: u32,
        /// Epoll watches and poll registrations together.
        pub watches: u32,
        /// Threads that may poll.
        pub threads: u32,
        /// Bytes that a connection inside the group holds per direction.
        pub local_capacity: u32,
        /// Bytes consumed between two `Host::conn_consumed`.
        pub consumed_step: u32,
        /// Bytes a connection may have sent beyond what its gateway drained, at
        /// the most.
        pub send_window: u64,
        /// Bytes that all connections together may have so, about: what is left
        /// of it decides each one's window.
        pub output_limit: u64,
        /// What a connection may have sent so however much others have. Gateways
        /// tell what they drained in steps of less than half of it.
        pub window_floor: u32,
        /// Descriptions that clients' connections leave to the program's own.
        pub reserve: u32,
    }
}

impl Default for Limits {
    /// Fits in 1 GiB of sparse memory.
    fn default() -> Self {
        Limits {
            descs: 65536,
            procs: 256,
            fds_per_proc: 65536,
            chunks: 131_072,
            watches: 1 << 20,
            threads: 65536,
            local_capacity: 212_992,
            consumed_step: 32 << 10,
            send_window: 4 << 20,
            output_limit: 256 << 20,
            window_floor: 160 << 10,
            reserve: 2048,
        }
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Limits")
            .field("descs", &self.descs)
            .field("procs", &self.procs)
            .field("fds_per_proc", &self.fds_per_proc)
            .field("chunks", &self.chunks)
            .field("watches", &self.watches)
            .field("threads", &self.threads)
            .field("local_capacity", &self.local_capacity)
            .field("consumed_step", &self.consumed_step)
            .field("send_window", &self.send_window)
            .field("output_limit", &self.output_limit)
            .field("window_floor", &self.window_floor)
            .field("reserve", &self.reserve)
            .finish()
    }
}

impl Limits {
    fn check(&self) -> core::result::Result<(), AttachError> {
        let fds = u64::from(self.procs) * u64::from(self.fds_per_proc);
        let sane = (2..=65536).contains(&self.descs)
            && (1..=1 << 16).contains(&self.procs)
            && fds < u64::from(u32::MAX)
            && (2..=1 << 24).contains(&self.chunks)
            && (2..=1 << 26).contains(&self.watches)
            && (1..=1 << 20).contains(&self.threads)
            && (4096..=1 << 30).contains(&self.local_capacity)
            && self.consumed_step > 0
            && (1..=1 << 40).contains(&self.send_window)
            && self.output_limit <= 1 << 40
            && self.reserve < self.descs;
        if sane {
            Ok(())
        } else {
            Err(AttachError::Limits)
        }
    }

    fn conn_slots(&self) -> u32 {
        (self.descs * 2).next_power_of_two()
    }
}

/// Why a region cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachError {
    /// The limits are outside what the layout supports.
    Limits,
    /// The region is shorter than `VKernel::required_size`, or not aligned to
    /// a page.
    Size,
    /// The region was not initialised by this version of the crate.
    Magic,
}

impl fmt::Display for AttachError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            AttachError::Limits => {
                "virtual kernel: a limit is out of range; use values near Limits::default()"
            }
            AttachError::Size => {
                "virtual kernel: the region is too small or unaligned; map required_size() bytes"
            }
            AttachError::Magic => {
                "virtual kernel: the region has another format; restart all processes of the group"
            }
        })
    }
}

record! {
    /// What exists once per region.
    pub(crate) struct Header {
        magic: u64,
        pub(crate) limits: Limits,
        /// Creation order of descriptions.
        pub(crate) seq: u64,
        /// Virtual time in ns of the last call that brought one.
        pub(crate) now: u64,
        pub(crate) desc_free: u32,
        pub(crate) desc_fresh: u32,
        pub(crate) desc_used: u32,
        pub(crate) desc_peak: u32,
        pub(crate) watch_free: u32,
        pub(crate) watch_fresh: u32,
        pub(crate) watch_used: u32,
        pub(crate) timers_armed: u32,
        /// Open external connections in creation order.
        pub(crate) conns: List,
        /// Sockets bound to Unix names, newest first matters for look-up.
        pub(crate) unix_bound: List,
        pub(crate) next_port: u32,
        pub(crate) next_unix_name: u32,
        pub(crate) next_reuseport: u32,
        pub(crate) attachment_free: u32,
        pub(crate) attachment_fresh: u32,
        pub(crate) pad: u32,
        pub(crate) conns_total: u64,
        pub(crate) conns_overrun: u64,
        pub(crate) bytes_in: u64,
        pub(crate) bytes_out: u64,
        pub(crate) datagrams_dropped: u64,
        /// Bytes that external connections have sent beyond what was drained,
        /// not counting what a gateway need not have told yet.
        pub(crate) output_held: u64,
        /// The machine's own address besides loopback.
        pub(crate) interface: [u8; 16],
    }
}

/// Figures for status pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Open file descriptions now.
    pub descs: u32,
    /// Most open file descriptions at once.
    pub descs_peak: u32,
    /// External connections that are open now.
    pub conns: u32,
    /// External connections since the start.
    pub conns_total: u64,
    /// External connections reset because descriptions or chunks ran out.
    pub conns_overrun: u64,
    /// Chunks in use now, of [`CHUNK`] bytes.
    pub chunks: u32,
    /// Most chunks in use at once.
    pub chunks_peak: u32,
    /// Epoll watches and poll registrations now.
    pub watches: u32,
    /// Armed timers now.
    pub timers: u32,
    /// Bytes received on external connections since the start.
    pub bytes_in: u64,
    /// Bytes sent on external connections since the start.
    pub bytes_out: u64,
}

/// A process's handle on the virtual kernel in a region.
///
/// Not thread-safe by itself: methods may run only while the caller holds the
/// global turn of the group (see `attach`).
pub struct VKernel {
    pub(crate) header: Table<Header>,
    pub(crate) descs: Table<Desc>,
    pub(crate) socks: Table<Sock>,
    pub(crate) streams: Table<Stream>,
    pub(crate) listeners: Table<Listener>,
    pub(crate) pipes: Table<Pipe>,
    pub(crate) eventfds: Table<EventFd>,
    pub(crate) timers: Table<Timer>,
    pub(crate) timer_heap: Table<u32>,
    pub(crate) epolls: Table<Epoll>,
    pub(crate) pollables: Table<Pollable>,
    pub(crate) attachments: Table<Attachment>,
    pub(crate) outside: Table<Outside>,
    pub(crate) memberships: Table<Membership>,
    pub(crate) watches: Table<Watch>,
    pub(crate) pollers: Table<Poller>,
    pub(crate) procs: Table<Proc>,
    pub(crate) fds: Table<u32>,
    pub(crate) ports: Table<PortState>,
    pub(crate) conns: ConnMap,
    pub(crate) pool: Pool,
}

// SAFETY: the handle's pointers are valid in every thread of the process, and
// `attach`'s contract (the global turn) excludes concurrent use.
unsafe impl Send for VKernel {}

/// Hands out consecutive page-aligned tables.
struct Cursor {
    base: *mut u8,
    at: usize,
}

impl Cursor {
    fn skip<T: Record>(&mut self, len: u32) -> usize {
        let at = self.at;
        let bytes = (len as usize).saturating_mul(size_of::<T>());
        self.at = at.saturating_add(bytes).saturating_add(4095) & !4095;
        at
    }

    /// # Safety
    ///
    /// As for [`VKernel::attach`], and the region must reach to the table's
    /// end.
    unsafe fn table<T: Record>(&mut self, len: u32) -> Table<T> {
        let at = self.skip::<T>(len);
        // SAFETY: inside the region by the caller's contract, so not null.
        let base = unsafe { NonNull::new_unchecked(self.base.add(at)) };
        // SAFETY: page-aligned, `len` records lie in the region, tables do not
        // overlap because the cursor only moves on.
        unsafe { Table::new(base, len) }
    }
}

impl VKernel {
    /// Bytes of address space that a region with these limits needs. Most of
    /// it is never touched.
    #[must_use]
    pub fn required_size(limits: &Limits) -> usize {
        let mut cursor = Cursor {
            base: core::ptr::null_mut(),
            at: 0,
        };
        let descs = limits.descs;
        cursor.skip::<Header>(1);
        cursor.skip::<Desc>(descs);
        cursor.skip::<Sock>(descs);
        cursor.skip::<Stream>(descs);
        cursor.skip::<Listener>(descs);
        cursor.skip::<Pipe>(descs);
        cursor.skip::<EventFd>(descs);
        cursor.skip::<Timer>(descs);
        cursor.skip::<u32>(descs);
        cursor.skip::<Epoll>(descs);
        cursor.skip::<Pollable>(descs);
        cursor.skip::<Attachment>(ATTACHMENTS);
        cursor.skip::<Outside>(PEERS);
        cursor.skip::<Membership>(MEMBERSHIPS);
        cursor.skip::<Watch>(limits.watches);
        cursor.skip::<Poller>(limits.threads);
        cursor.skip::<Proc>(limits.procs);
        cursor.skip::<u32>(limits.procs.saturating_mul(limits.fds_per_proc));
        cursor.skip::<PortState>(2 * UDP_PORTS);
        cursor.skip::<Slot>(limits.conn_slots());
        cursor.skip::<PoolState>(1);
        cursor.skip::<Chunk>(limits.chunks);
        cursor.skip::<[u8; CHUNK]>(limits.chunks);
        cursor.at
    }

    /// Makes an empty virtual kernel in `region`.
    ///
    /// # Safety
    ///
    /// `region` must be `len` bytes of zero-filled, writable memory that
    /// nobody uses meanwhile; see also [`VKernel::attach`].
    ///
    /// # Errors
    ///
    /// `Limits` or `Size`, with nothing written.
    pub unsafe fn init(
        region: *mut u8,
        len: usize,
        limits: &Limits,
    ) -> core::result::Result<VKernel, AttachError> {
        limits.check()?;
        if region.is_null()
            || !region.addr().is_multiple_of(4096)
            || len < Self::required_size(limits)
        {
            return Err(AttachError::Size);
        }
        // SAFETY: page-aligned and long enough for a header by the checks.
        let header = unsafe { &mut *region.cast::<Header>() };
        header.limits = *limits;
        header.next_port = crate::bind::FIRST_EPHEMERAL;
        header.magic = MAGIC;
        // SAFETY: the region now has a header whose limits fit its length.
        unsafe { Self::attach(region, len) }
    }

    /// Makes this process's handle on the virtual kernel in `region`.
    ///
    /// # Safety
    ///
    /// `region` must be `len` bytes of writable memory that stay mapped while
    /// the handle exists. All handles on one region, in all processes, may be
    /// used only by the holder of the group's turn.
    ///
    /// # Errors
    ///
    /// `Size`, `Magic`, or `Limits` if the region is not a matching one.
    pub unsafe fn attach(
        region: *mut u8,
        len: usize,
    ) -> core::result::Result<VKernel, AttachError> {
        if region.is_null() || !region.addr().is_multiple_of(4096) || len < size_of::<Header>() {
            return Err(AttachError::Size);
        }
        // SAFETY: aligned and long enough by the check; all bytes are valid.
        let header = unsafe { *region.cast::<Header>() };
        if header.magic != MAGIC {
            return Err(AttachError::Magic);
        }
        let limits = header.limits;
        limits.check()?;
        if len < Self::required_size(&limits) {
            return Err(AttachError::Size);
        }
        let mut at = Cursor {
            base: region,
            at: 0,
        };
        let descs = limits.descs;
        // SAFETY: the tables are taken in the order of `required_size`, which
        // the region's length was checked against.
        unsafe {
            Ok(VKernel {
                header: at.table(1),
                descs: at.table(descs),
                socks: at.table(descs),
                streams: at.table(descs),
                listeners: at.table(descs),
                pipes: at.table(descs),
                eventfds: at.table(descs),
                timers: at.table(descs),
                timer_heap: at.table(descs),
                epolls: at.table(descs),
                pollables: at.table(descs),
                attachments: at.table(ATTACHMENTS),
                outside: at.table(PEERS),
                memberships: at.table(MEMBERSHIPS),
                watches: at.table(limits.watches),
                pollers: at.table(limits.threads),
                procs: at.table(limits.procs),
                fds: at.table(limits.procs * limits.fds_per_proc),
                ports: at.table(2 * UDP_PORTS),
                conns: ConnMap::new(at.table(limits.conn_slots())),
                pool: Pool {
                    state: at.table(1),
                    chunks: at.table(limits.chunks),
                    data: at.table(limits.chunks),
                },
            })
        }
    }

    /// The limits the region was made with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.header[0].limits
    }

    /// Figures for status pages.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let header = &self.header[0];
        let pool = &self.pool.state[0];
        Counters {
            descs: header.desc_used,
            descs_peak: header.desc_peak,
            conns: header.conns.len,
            conns_total: header.conns_total,
            conns_overrun: header.conns_overrun,
            chunks: pool.used,
            chunks_peak: pool.peak,
            watches: header.watch_used,
            timers: header.timers_armed,
            bytes_in: header.bytes_in,
            bytes_out: header.bytes_out,
        }
    }

    pub(crate) fn hdr(&mut self) -> &mut Header {
        &mut self.header[0]
    }
}
