//! The machine's network as a program sees it: a loopback interface and one
//! other, the same on every replica. What is sent to the other one's address
//! stays inside; clients come through the gateways.

use crate::world::vkernel;
use core::ffi::{CStr, c_int};
use core::net::Ipv4Addr;
use crane_vkernel::{DescId, SockOption, Source};
use libc::{cmsghdr, msghdr};

/// The address of the second interface, if the agreed environment names no
/// other: one that no network uses (RFC 5737).
const ADDRESS: [u8; 4] = [192, 0, 2, 1];

/// The variable that names another one, which programs that tell clients their
/// address need: the one that follows the leader.
const VARIABLE: &CStr = c"CRANE_ADDRESS";

/// Numbers of the interfaces.
pub(crate) const LOOPBACK: c_int = 1;
pub(crate) const OTHER: c_int = 2;

/// Reads the address from the first process's environment.
pub(crate) fn note_address() {
    // SAFETY: the program has one thread yet, so nobody changes the environment.
    let given = unsafe { libc::getenv(VARIABLE.as_ptr()) };
    let ip = if given.is_null() {
        None
    } else {
        // SAFETY: a variable's value is a C string.
        let text = unsafe { CStr::from_ptr(given) }.to_str();
        text.ok().and_then(|text| text.parse::<Ipv4Addr>().ok())
    };
    let ip = ip.map_or(ADDRESS, |ip| ip.octets());
    vkernel().set_interface(Ipv4Addr::from(ip).to_ipv6_mapped().octets());
}

/// The address of the second interface.
pub(crate) fn address() -> [u8; 4] {
    let [.., a, b, c, d] = vkernel().interface();
    [a, b, c, d]
}

/// Control data of a received message, in the room that the program gave.
struct Control<'a> {
    message: &'a mut msghdr,
    room: usize,
}

impl Control<'_> {
    /// Adds one piece, cut if there is not enough room, as Linux does.
    ///
    /// # Safety
    /// The message's control buffer is valid for `room` bytes.
    unsafe fn put(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        const HEAD: usize = size_of::<cmsghdr>();
        let used = self.message.msg_controllen;
        let left = self.room - used;
        let whole = HEAD + data.len();
        if left < whole {
            self.message.msg_flags |= libc::MSG_CTRUNC;
        }
        if left < HEAD {
            return;
        }
        let len = whole.min(left);
        let control = cmsghdr {
            cmsg_len: len,
            cmsg_level: level,
            cmsg_type: kind,
        };
        // SAFETY: the caller's buffer has `left` bytes behind `used`.
        unsafe {
            let at = self.message.msg_control.byte_add(used);
            at.cast::<cmsghdr>().write_unaligned(control);
            let to = at.cast::<u8>().add(HEAD);
            core::ptr::copy_nonoverlapping(data.as_ptr(), to, len - HEAD);
        }
        self.message.msg_controllen = used + whole.next_multiple_of(8).min(left);
    }
}

/// After a datagram was received: what the program asked to be told of it. When
/// it came (`SO_TIMESTAMP`, `SO_TIMESTAMPNS`), and where it was sent to
/// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
///
/// # Safety
/// The message is the caller's valid one.
pub(crate) unsafe fn told_beside(desc: DescId, source: &Source, message: &mut msghdr) {
    let room = if message.msg_control.is_null() {
        0
    } else {
        message.msg_controllen
    };
    message.msg_controllen = 0;
    let mut control = Control { message, room };
    let asked = |option| vkernel().option(desc, option) == Ok(1);
    // SAFETY: same contract.
    unsafe {
        if asked(SockOption::Timestamp) {
            let nanoseconds = asked(SockOption::TimestampNanoseconds);
            let kind = match (nanoseconds, asked(SockOption::TimestampNew)) {
                (false, false) => libc::SO_TIMESTAMP,
                (true, false) => libc::SO_TIMESTAMPNS,
                (false, true) => SO_TIMESTAMP_NEW,
                (true, true) => SO_TIMESTAMPNS_NEW,
            };
            let (seconds, rest) = (
                source.arrived / 1_000_000_000,
                source.arrived % 1_000_000_000,
            );
            let rest = if nanoseconds { rest } else { rest / 1000 };
            let mut time = [0; 16];
            time[..8].copy_from_slice(&seconds.to_ne_bytes());
            time[8..].copy_from_slice(&rest.to_ne_bytes());
            control.put(libc::SOL_SOCKET, kind, &time);
        }
        if asked(SockOption::PacketInfo) {
            put_packet_info(desc, source, &mut control);
        }
    }
}

pub(crate) const SO_TIMESTAMP_NEW: c_int = 63;
pub(crate) const SO_TIMESTAMPNS_NEW: c_int = 64;

unsafe fn put_packet_info(desc: DescId, source: &Source, control: &mut Control<'_>) {
    let v4 = vkernel().domain(desc) == Ok(libc::AF_INET);
    let loopback = if v4 {
        source.to[12] == 127
    } else {
        source.to[..15] == [0; 15]
    };
    let index = if loopback { LOOPBACK } else { OTHER }.to_ne_bytes();
    let mut info = [0u8; 20];
    let (len, level, kind) = if v4 {
        info[..4].copy_from_slice(&index);
        info[4..8].copy_from_slice(&source.to[12..]);
        info[8..12].copy_from_slice(&source.to[12..]);
        (12, libc::IPPROTO_IP, libc::IP_PKTINFO)
    } else {
        info[..16].copy_from_slice(&source.to);
        info[16..].copy_from_slice(&index);
        (20, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
    };
    // SAFETY: same contract as the caller's.
    unsafe { control.put(level, kind, &info[..len]) };
}
