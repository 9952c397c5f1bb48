//! The machine's network as a program sees it: a loopback interface and one
//! other, the same on every replica. What is sent to the other one's address
//! stays inside; clients come through the gateways.

use crate::world::vkernel;
use core::ffi::c_int;
use crane_vkernel::{DescId, SockOption, Source};
use libc::{cmsghdr, msghdr};

/// The address of the second interface: one that no network uses (RFC 5737),
/// IPv4 in its mapped form.
pub(crate) const ADDRESS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];

/// Numbers of the interfaces.
const LOOPBACK: c_int = 1;
const OTHER: c_int = 2;

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
