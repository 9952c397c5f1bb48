//! Sockets and messages.

use crate::{interfaces, messages, options, sockets};
use core::ffi::{c_char, c_int, c_uint, c_void};
use libc::{msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

interposed! {
    sockets {
        /// A loopback interface and `eth0`, the same on every replica.
        fn getifaddrs(to: *mut *mut libc::ifaddrs) -> c_int { interfaces::getifaddrs(to) }
        /// Of what getifaddrs gave.
        fn freeifaddrs(list: *mut libc::ifaddrs) { interfaces::release(list.cast()) }
        /// As getifaddrs.
        fn if_nametoindex(name: *const c_char) -> c_uint { interfaces::index_of(name) }
        /// As getifaddrs.
        fn if_indextoname(index: c_uint, to: *mut c_char) -> *mut c_char { interfaces::name_of(index, to) }
        /// As getifaddrs.
        fn if_nameindex() -> *mut libc::if_nameindex { interfaces::names() }
        /// Of what if_nameindex gave.
        fn if_freenameindex(list: *mut libc::if_nameindex) { interfaces::release(list.cast()) }
        /// Streams are virtual; the descriptor's number is a real, unbound socket's.
        fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int { sockets::socket(domain, kind, protocol) }
        /// Inside the group.
        fn bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int { sockets::bind(fd, address, len) }
        /// The node listens for clients.
        fn listen(fd: c_int, backlog: c_int) -> c_int { sockets::listen(fd, backlog) }
        /// Connections come from the log.
        fn accept(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::accept(fd, address, len, 0) }
        /// Connections come from the log.
        fn accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int { sockets::accept(fd, address, len, flags) }
        /// Inside the group; ENETUNREACH to the outside.
        fn connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int { sockets::connect(fd, address, len) }
        /// As connect.
        fn __connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int { sockets::connect(fd, address, len) }
        /// Urgent data is not carried, so never.
        fn sockatmark(fd: c_int) -> c_int { sockets::at_mark(fd) }
        /// The bound address.
        fn getsockname(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::name(fd, address, len, false) }
        /// The client's address, as its gateway saw it.
        fn getpeername(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int { sockets::name(fd, address, len, true) }
        /// To the output ring.
        fn send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t { messages::send(fd, from, len, flags) }
        /// As send.
        fn __send(fd: c_int, from: *const c_void, len: size_t, flags: c_int) -> ssize_t { messages::send(fd, from, len, flags) }
        /// To the output ring.
        fn sendto(fd: c_int, from: *const c_void, len: size_t, flags: c_int, address: *const sockaddr, alen: socklen_t) -> ssize_t { messages::sendto(fd, from, len, flags, address, alen) }
        /// To the output ring.
        fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t { messages::sendmsg(fd, message, flags) }
        /// From the log.
        fn recv(fd: c_int, to: *mut c_void, len: size_t, flags: c_int) -> ssize_t { messages::recvfrom(fd, to, len, flags, core::ptr::null_mut(), core::ptr::null_mut()) }
        /// As recv.
        fn __recv_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t, flags: c_int) -> ssize_t { messages::recvfrom(fd, to, len, flags, core::ptr::null_mut(), core::ptr::null_mut()) }
        /// From the log.
        fn recvfrom(fd: c_int, to: *mut c_void, len: size_t, flags: c_int, address: *mut sockaddr, alen: *mut socklen_t) -> ssize_t { messages::recvfrom(fd, to, len, flags, address, alen) }
        /// As recvfrom.
        fn __recvfrom_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t, flags: c_int, address: *mut sockaddr, alen: *mut socklen_t) -> ssize_t { messages::recvfrom(fd, to, len, flags, address, alen) }
        /// From the log.
        fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t { messages::recvmsg(fd, message, flags) }
        /// As recvmsg for each.
        fn recvmmsg(fd: c_int, messages: *mut libc::mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int { messages::recvmmsg(fd, messages, count, flags, timeout) }
        /// As sendmsg for each.
        fn sendmmsg(fd: c_int, messages: *mut libc::mmsghdr, count: c_uint, flags: c_int) -> c_int { messages::sendmmsg(fd, messages, count, flags) }
        /// Half close, both ways.
        fn shutdown(fd: c_int, how: c_int) -> c_int { sockets::shutdown(fd, how) }
        /// Time-outs and errors are virtual, other options are the placeholder's.
        fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int { options::getsockopt(fd, level, name, value, len) }
        /// Time-outs are virtual, other options are the placeholder's.
        fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int { options::setsockopt(fd, level, name, value, len) }
        /// In memory of the group.
        fn socketpair(domain: c_int, kind: c_int, protocol: c_int, ends: *mut c_int) -> c_int { sockets::socketpair(domain, kind, protocol, ends) }
    }
}
