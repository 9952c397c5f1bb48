//! Socket options: the placeholder checks and keeps them; those that change
//! what the virtual kernel does are told to it too.

use crate::boundary::Effects;
use crate::fds::{done, virtual_of};
use crate::network;
use crate::raw::{self, sys};
use crate::turn::{Op, begin};
use crate::world::vkernel;
use core::ffi::{c_int, c_void};
use crane_vkernel::{DescId, SockOption};
use libc::socklen_t;
use syscalls::Sysno;

/// The virtual option behind a (level, name), if it is one.
fn virtual_option(level: c_int, name: c_int) -> Option<SockOption> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => SockOption::ReuseAddr,
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => SockOption::ReusePort,
        (libc::SOL_SOCKET, libc::SO_PASSCRED) => SockOption::PassCred,
        (libc::SOL_SOCKET, libc::SO_BROADCAST) => SockOption::Broadcast,
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO) => SockOption::RecvTimeout,
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO) => SockOption::SendTimeout,
        (libc::SOL_SOCKET, libc::SO_LINGER) => SockOption::ResetOnClose,
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => SockOption::V6Only,
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
        | (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO | libc::IPV6_PKTINFO) => {
            SockOption::PacketInfo
        }
        (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP)
        | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP) => SockOption::NoMulticastLoop,
        _ => return None,
    })
}

/// Joining and leaving groups: (join, the group's address in its mapped form).
unsafe fn membership(
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> Option<Result<(bool, [u8; 16]), c_int>> {
    let (join, group_at, v4) = match (level, name) {
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP) => (true, 0, true),
        (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP) => (false, 0, true),
        (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP) => (true, 0, false),
        (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP) => (false, 0, false),
        // struct group_req: an interface's number, then an address.
        (libc::IPPROTO_IP, MCAST_JOIN_GROUP) => (true, 12, true),
        (libc::IPPROTO_IP, MCAST_LEAVE_GROUP) => (false, 12, true),
        (libc::IPPROTO_IPV6, MCAST_JOIN_GROUP) => (true, 16, false),
        (libc::IPPROTO_IPV6, MCAST_LEAVE_GROUP) => (false, 16, false),
        _ => return None,
    };
    let bytes = if v4 { 4 } else { 16 };
    if value.is_null() || (len as usize) < group_at + bytes + if group_at == 0 { 4 } else { 0 } {
        return Some(Err(libc::EINVAL));
    }
    let mut group = [0; 16];
    // SAFETY: the value is long enough by the check.
    let from = unsafe { core::slice::from_raw_parts(value.cast::<u8>().add(group_at), bytes) };
    if v4 {
        group[10..12].fill(0xff);
    }
    group[16 - bytes..].copy_from_slice(from);
    Some(Ok((join, group)))
}

/// Of the protocol-independent interface, see RFC 3678.
const MCAST_JOIN_GROUP: c_int = 42;
const MCAST_LEAVE_GROUP: c_int = 45;

/// Options about interfaces that the placeholder's empty network has not.
fn names_an_interface(level: c_int, name: c_int) -> bool {
    matches!(
        (level, name),
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF)
            | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF)
            | (libc::SOL_SOCKET, libc::SO_BINDTODEVICE)
    )
}

/// setsockopt(2): the placeholder checks and keeps the option, ours acts.
pub(crate) unsafe fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    let me = begin(Op::Option);
    let ours = virtual_of(me, fd);
    if let Some(desc) = ours {
        // SAFETY: same contract.
        if let Some(group) = unsafe { membership(level, name, value, len) } {
            return done(group.and_then(|(join, group)| {
                vkernel()
                    .membership(&mut Effects, desc, group, join)
                    .map_err(|e| e.0)
            }));
        }
        if names_an_interface(level, name) {
            return 0;
        }
    }
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::setsockopt, fd, level, name, value, len) }) as c_int;
    if code < 0 {
        return code;
    }
    if let (Some(desc), Some(option)) = (ours, virtual_option(level, name)) {
        // SAFETY: the kernel has checked that the value is long enough for the
        // option: a timeval, a linger, or an int (of which a byte may do).
        let value = unsafe {
            match option {
                SockOption::RecvTimeout | SockOption::SendTimeout => {
                    let t = *value.cast::<libc::timeval>();
                    (t.tv_sec as u64).saturating_mul(1_000_000_000) + t.tv_usec as u64 * 1000
                }
                SockOption::ResetOnClose => {
                    let linger = *value.cast::<libc::linger>();
                    (linger.l_onoff != 0 && linger.l_linger == 0).into()
                }
                _ => {
                    let on = if (len as usize) < size_of::<c_int>() {
                        *value.cast::<u8>() != 0
                    } else {
                        *value.cast::<c_int>() != 0
                    };
                    (on != (option == SockOption::NoMulticastLoop)).into()
                }
            }
        };
        let _ = vkernel().set_option(desc, option, value);
    } else if let (Some(desc), Some(kind)) = (ours, timestamp(level, name)) {
        // SAFETY: the kernel has read an int there.
        let on = unsafe { value.cast::<c_int>().read_unaligned() } != 0;
        // The last one counts, and any of them turns them all off.
        for (option, value) in [
            (SockOption::Timestamp, true),
            (SockOption::TimestampNanoseconds, kind.nanoseconds),
            (SockOption::TimestampNew, kind.new),
        ] {
            let _ = vkernel().set_option(desc, option, (on && value).into());
        }
    }
    code
}

/// One of the options by which a program asks when messages came.
struct Timestamp {
    nanoseconds: bool,
    new: bool,
}

fn timestamp(level: c_int, name: c_int) -> Option<Timestamp> {
    let (nanoseconds, new) = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_TIMESTAMP) => (false, false),
        (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => (true, false),
        (libc::SOL_SOCKET, network::SO_TIMESTAMP_NEW) => (false, true),
        (libc::SOL_SOCKET, network::SO_TIMESTAMPNS_NEW) => (true, true),
        _ => return None,
    };
    Some(Timestamp { nanoseconds, new })
}

/// What only the virtual kernel knows of an option's value.
fn own_value(desc: DescId, level: c_int, name: c_int) -> Option<c_int> {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_ERROR) => vkernel().take_error(desc).ok(),
        (libc::SOL_SOCKET, libc::SO_ACCEPTCONN) => {
            vkernel().is_listening(desc).ok().map(c_int::from)
        }
        _ => None,
    }
}

/// getsockopt(2).
pub(crate) unsafe fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    let me = begin(Op::Option);
    let ours = virtual_of(me, fd);
    if let Some(desc) = ours
        && (level, name) == (libc::IPPROTO_TCP, libc::TCP_INFO)
    {
        // SAFETY: same contract.
        return unsafe { tcp_info(desc, value.cast(), len) };
    }
    // SAFETY: same contract.
    let code = raw::ret(unsafe { sys!(Sysno::getsockopt, fd, level, name, value, len) }) as c_int;
    if let (Some(desc), 0) = (ours, code)
        && let Some(own) = own_value(desc, level, name)
    {
        // SAFETY: the kernel has just stored an int there.
        unsafe { value.cast::<c_int>().write_unaligned(own) };
    }
    code
}

/// `TCP_INFO`: the state, and figures of a perfect network.
unsafe fn tcp_info(desc: DescId, value: *mut u8, len: *mut socklen_t) -> c_int {
    const ESTABLISHED: u8 = 1;
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    /// Up to and with `tcpi_total_retrans`.
    const SIZE: usize = 104;
    let state = match vkernel().is_listening(desc) {
        Ok(true) => LISTEN,
        _ if vkernel().getpeername(desc).is_ok() => ESTABLISHED,
        _ => CLOSE,
    };
    let mut info = [0u8; SIZE];
    info[0] = state;
    let mut put = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    put(16, 1448); // segment size sent
    put(20, 1448); // and received
    put(24, if state == LISTEN { backlog_of(desc) } else { 0 });
    put(68, 20); // round trip, microseconds
    put(72, 10);
    put(80, 10); // congestion window, segments
    put(84, 1448);
    // SAFETY: the caller passes a place of `*len` bytes.
    unsafe {
        let room = (*len as usize).min(SIZE);
        core::ptr::copy_nonoverlapping(info.as_ptr(), value, room);
        *len = room as socklen_t;
    }
    0
}

/// Connections that wait to be accepted: what a listener shows.
fn backlog_of(desc: DescId) -> u32 {
    vkernel().accept_queue_len(desc).unwrap_or(0)
}
