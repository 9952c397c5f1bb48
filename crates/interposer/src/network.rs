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

/// After a datagram was received: where it was sent to, if the program asked
/// (`IP_PKTINFO`, `IPV6_RECVPKTINFO`).
pub(crate) unsafe fn packet_info(desc: DescId, source: &Source, message: &mut msghdr) {
    let room = if message.msg_control.is_null() {
        0
    } else {
        message.msg_controllen
    };
    message.msg_controllen = 0;
    if vkernel().option(desc, SockOption::PacketInfo) != Ok(1) {
        return;
    }
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
    let head = size_of::<cmsghdr>();
    if room < head + len {
        message.msg_flags |= libc::MSG_CTRUNC;
        return;
    }
    let control = cmsghdr {
        cmsg_len: head + len,
        cmsg_level: level,
        cmsg_type: kind,
    };
    // SAFETY: the caller's control buffer has room for both by the check.
    unsafe {
        message
            .msg_control
            .cast::<cmsghdr>()
            .write_unaligned(control);
        let data = message.msg_control.cast::<u8>().add(head);
        core::ptr::copy_nonoverlapping(info.as_ptr(), data, len);
    }
    message.msg_controllen = (head + len).next_multiple_of(8).min(room);
}
