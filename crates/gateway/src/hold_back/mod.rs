//! Nothing is acknowledged to a client of the virtual address that is not agreed.
//!
//! The kernel acknowledges input when it arrives, and a client forgets what was
//! acknowledged. What a leader's machine had acknowledged and the log does not have
//! would be lost with it, and its connections could not go on elsewhere. So a packet
//! program on the interface ([`program`], by `bpf(2)`, kernel 6.6 or newer) lowers the
//! acknowledgement numbers of outgoing packets to what the gateway says is agreed, in
//! memory that both see. It also drops the ends and aborts that the kernel sends
//! when a process dies: another replica goes on with these connections.
//!
//! The program works as long as any process has its descriptor, so also while the
//! node is stopped, and while its sockets are closed after its death if the process
//! that takes the address away has it, too.

mod kept;
mod program;

use kept::Kept;
use std::collections::HashMap;
use std::ffi::c_long;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections held at once, at the most; others cannot be moved.
const SLOTS: usize = 1 << 16;
/// Bytes for the headers of a packet: Ethernet, IP and TCP with all its options.
const HEADERS: usize = 96;
/// In [`Slot::may`]: an orderly end passes.
const MAY_END: u32 = 1;
/// In [`Slot::may`]: an abort passes.
const MAY_RESET: u32 = 2;

const MAP_CREATE: c_long = 0;
const MAP_UPDATE: c_long = 2;
const MAP_DELETE: c_long = 3;
const PROG_LOAD: c_long = 5;
const LINK_CREATE: c_long = 28;
const MAP_HASH: u32 = 1;
const MAP_ARRAY: u32 = 2;
const MAP_MMAPABLE: u32 = 1 << 10;
const PROG_SCHED_CLS: u32 = 3;
const ATTACH_TCX_EGRESS: u32 = 47;

/// What the packet program and the gateway tell each other of a connection.
#[repr(C)]
struct Slot {
    /// The number up to which input may be acknowledged.
    agreed: AtomicU32,
    /// Which ends are meant.
    may: AtomicU32,
    /// The last packet would have acknowledged more: its length, or 0.
    owed: AtomicU32,
    /// Counted up before and after the headers are written.
    version: AtomicU32,
    /// The headers of that packet.
    headers: [AtomicU32; HEADERS / 4],
}

impl Slot {
    /// The packet that was kept back last, if its bytes are one packet's.
    fn kept(&self) -> Option<Kept> {
        let whole = self.owed.load(Ordering::SeqCst) as usize;
        if whole == 0 {
            return None;
        }
        let version = self.version.load(Ordering::SeqCst);
        let mut headers = [0; HEADERS];
        for (to, from) in headers.chunks_exact_mut(4).zip(&self.headers) {
            to.copy_from_slice(&from.load(Ordering::SeqCst).to_ne_bytes());
        }
        let same = version.is_multiple_of(2) && version == self.version.load(Ordering::SeqCst);
        same.then(|| Kept::new(headers, whole))
    }
}

/// The packet program on an interface. It ends with the last descriptor.
pub struct HoldBack {
    address: Ipv4Addr,
    link: OwnedFd,
    flows: OwnedFd,
    /// Sends packets as they are.
    raw: OwnedFd,
    interface: u32,
    slots: NonNull<Slot>,
    used: Mutex<Used>,
}

/// Which slots are whose.
struct Used {
    free: Vec<u32>,
    flows: HashMap<Flow, u32>,
}

/// The client's address and port, and the port here, as in a packet.
type Flow = [u8; 8];

// SAFETY: the slots are shared memory of atomics, mapped as long as this lives.
unsafe impl Send for HoldBack {}
// SAFETY: as above; everything else is only read, or behind a lock.
unsafe impl Sync for HoldBack {}

impl HoldBack {
    /// Begins for what leaves `address` by `interface`.
    ///
    /// # Errors
    /// What the system says: the kernel is too old, this process may not, or there
    /// is no such interface.
    pub fn begin(address: Ipv4Addr, interface: &str) -> io::Result<Self> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the name ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        let flows = bpf(MAP_CREATE, &[MAP_HASH, 8, 4, SLOTS as u32, 0])?;
        let size = size_of::<Slot>() as u32;
        let slots = bpf(
            MAP_CREATE,
            &[MAP_ARRAY, 4, size, SLOTS as u32, MAP_MMAPABLE],
        )?;
        // SAFETY: no memory is involved.
        let raw = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let raw = unsafe { OwnedFd::from_raw_fd(raw) };
        let code = program::assemble(address, flows.as_raw_fd(), slots.as_raw_fd());
        let code = load(&code)?;
        let attach = [code.as_raw_fd() as u32, index, ATTACH_TCX_EGRESS, 0];
        let link = bpf(LINK_CREATE, &attach)?;
        // SAFETY: a new mapping of the whole map, at an address that the kernel picks.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                SLOTS * size_of::<Slot>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                slots.as_raw_fd(),
                0,
            )
        };
        let slots = NonNull::new(mapped.cast::<Slot>())
            .filter(|_| mapped != libc::MAP_FAILED)
            .ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            address,
            link,
            flows,
            raw,
            interface: index,
            slots,
            used: Mutex::new(Used {
                free: (0..SLOTS as u32).rev().collect(),
                flows: HashMap::new(),
            }),
        })
    }

    /// The descriptor that keeps the packet program at work.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    fn slot(&self, index: u32) -> &Slot {
        debug_assert!((index as usize) < SLOTS);
        // SAFETY: the index is one of the mapped array's, and its contents are
        // atomics (and padding), valid whatever their bytes.
        unsafe { self.slots.add(index as usize).as_ref() }
    }

    /// From now on no more than `agreed` of a connection's input is acknowledged.
    ///
    /// # Errors
    /// When there are too many, or it is not one of the address.
    pub fn hold(
        self: &Arc<Self>,
        local: SocketAddrV4,
        peer: SocketAddrV4,
        agreed: u32,
    ) -> io::Result<Held> {
        if *local.ip() != self.address {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut used = self.used();
        let index = used.free.pop().ok_or(io::ErrorKind::QuotaExceeded)?;
        let slot = self.slot(index);
        slot.agreed.store(agreed, Ordering::SeqCst);
        slot.may.store(0, Ordering::SeqCst);
        slot.owed.store(0, Ordering::SeqCst);
        let mut flow = [0; 8];
        flow[..4].copy_from_slice(&peer.ip().octets());
        flow[4..6].copy_from_slice(&peer.port().to_be_bytes());
        flow[6..].copy_from_slice(&local.port().to_be_bytes());
        if let Err(e) = self.flow(MAP_UPDATE, &flow, index) {
            used.free.push(index);
            return Err(e);
        }
        used.flows.insert(flow, index);
        drop(used);
        Ok(Held {
            hold_back: self.clone(),
            index,
            flow,
        })
    }

    fn send(&self, packet: &[u8]) {
        let to = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_IP as u16).to_be(),
            sll_ifindex: self.interface as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        // What is lost is made good by the next, or asked for by the client.
        // SAFETY: both pointers are valid for the lengths given.
        unsafe {
            libc::sendto(
                self.raw.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            );
        }
    }

    fn let_go(&self, flow: &Flow, index: u32) {
        let mut used = self.used();
        // The same client may have come again meanwhile, by another slot.
        if used.flows.get(flow) == Some(&index) {
            used.flows.remove(flow);
            // Fails only when it was never there.
            let _ = self.flow(MAP_DELETE, flow, 0);
        }
        used.free.push(index);
    }

    fn flow(&self, command: c_long, flow: &Flow, index: u32) -> io::Result<()> {
        let [key, value] = [flow.as_ptr() as u64, (&raw const index) as u64];
        let words = [
            self.flows.as_raw_fd() as u32,
            0,
            key as u32,
            (key >> 32) as u32,
            value as u32,
            (value >> 32) as u32,
        ];
        call(command, &words).map(drop)
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HoldBack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `begin` with this length, and every
        // reference into it borrowed from this.
        unsafe { libc::munmap(self.slots.as_ptr().cast(), SLOTS * size_of::<Slot>()) };
    }
}

/// One connection whose input is acknowledged only when it is agreed, until this
/// is dropped.
pub struct Held {
    hold_back: Arc<HoldBack>,
    index: u32,
    flow: Flow,
}

impl Held {
    fn slot(&self) -> &Slot {
        self.hold_back.slot(self.index)
    }

    /// Input up to this number is agreed. If an acknowledgement was kept back that
    /// can go now, at least in part, it is sent.
    pub fn agree(&self, number: u32) {
        let slot = self.slot();
        if slot.agreed.swap(number, Ordering::SeqCst) != number
            && let Some(mut kept) = slot.kept()
            && let Some(packet) = kept.acknowledging(number)
        {
            self.hold_back.send(packet);
        }
    }

    /// The end of the connection is meant, in order.
    pub fn may_end(&self) {
        self.slot().may.fetch_or(MAY_END, Ordering::SeqCst);
    }

    /// The abort of the connection is meant.
    pub fn may_reset(&self) {
        self.slot().may.fetch_or(MAY_RESET, Ordering::SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hold_back.let_go(&self.flow, self.index);
    }
}

fn load(code: &[program::Instruction]) -> io::Result<OwnedFd> {
    let license = c"GPL".as_ptr() as u64;
    let instructions = code.as_ptr() as u64;
    let words = [
        PROG_SCHED_CLS,
        code.len() as u32,
        instructions as u32,
        (instructions >> 32) as u32,
        license as u32,
        (license >> 32) as u32,
    ];
    bpf(PROG_LOAD, &words)
}

/// As [`call`], for what makes a descriptor. The kernel closes it at an exec.
fn bpf(command: c_long, words: &[u32]) -> io::Result<OwnedFd> {
    let fd = call(command, words)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2) with the beginning of its attributes, the rest being zero.
fn call(command: c_long, words: &[u32]) -> io::Result<i32> {
    let mut attributes = [0u32; 32];
    attributes[..words.len()].copy_from_slice(words);
    // The pointers among them are 64 bits wide, and aligned as such.
    #[repr(C, align(8))]
    struct Attributes([u32; 32]);
    let attributes = Attributes(attributes);
    // SAFETY: the kernel reads as many bytes as are given; what its pointers point
    // to lives in the callers until this returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
