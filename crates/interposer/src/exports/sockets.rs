//! Sockets, messages, and waiting for readiness.

use crate::stack::clean as leave;
use crate::{
    clock, inotify, interfaces, messages, options, polling, signalfd, sockets, timers, transfer,
};
use core::ffi::{c_char, c_int, c_uint, c_void};
use core::ptr::null;
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
    polling {
        /// Tells what the program itself changes.
        fn inotify_init() -> c_int { inotify::init(0) }
        /// As inotify_init.
        fn inotify_init1(flags: c_int) -> c_int { inotify::init(flags) }
        /// Readiness of virtual objects; real files are always ready.
        fn poll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll.
        fn __poll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll.
        fn __poll_chk(set: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int, _room: size_t) -> c_int { polling::poll(set, count, clock::deadline_ms(timeout)) }
        /// As poll, with a signal mask.
        fn ppoll(set: *mut libc::pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::ppoll(set, count, timeout, mask) }
        /// As poll.
        fn select(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int { polling::select(count, r, w, e, timeout) }
        /// As select.
        fn __select(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int { polling::select(count, r, w, e, timeout) }
        /// As select, with a signal mask.
        fn pselect(count: c_int, r: *mut libc::fd_set, w: *mut libc::fd_set, e: *mut libc::fd_set, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::pselect(count, r, w, e, timeout, mask) }
        /// As ppoll.
        fn __ppoll_chk(set: *mut libc::pollfd, count: libc::nfds_t, timeout: *const timespec, mask: *const libc::sigset_t, _room: size_t) -> c_int { polling::ppoll(set, count, timeout, mask) }
        /// As epoll_pwait.
        fn epoll_pwait2(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: *const timespec, mask: *const libc::sigset_t) -> c_int { polling::epoll_pwait2(ep, events, max, timeout, mask) }
        /// In memory of the group.
        fn epoll_create(size: c_int) -> c_int { polling::epoll_create(size) }
        /// In memory of the group.
        fn epoll_create1(flags: c_int) -> c_int { polling::epoll_create1(flags) }
        /// Level and edge triggered, one-shot, exclusive.
        fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int { polling::epoll_ctl(ep, op, fd, event) }
        /// Readiness in the order in which it came.
        fn epoll_wait(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: c_int) -> c_int { polling::epoll_wait(ep, events, max, timeout, null()) }
        /// As epoll_wait, with a signal mask.
        fn epoll_pwait(ep: c_int, events: *mut libc::epoll_event, max: c_int, timeout: c_int, mask: *const libc::sigset_t) -> c_int { polling::epoll_wait(ep, events, max, timeout, mask) }
        /// As read.
        fn eventfd_read(fd: c_int, value: *mut u64) -> c_int { if transfer::read(fd, value.cast(), 8) == 8 { 0 } else { -1 } }
        /// As write.
        fn eventfd_write(fd: c_int, value: u64) -> c_int { if transfer::write(fd, (&raw const value).cast(), 8) == 8 { 0 } else { -1 } }
        /// Signals of the process that are blocked, as bytes.
        fn signalfd(fd: c_int, mask: *const libc::sigset_t, flags: c_int) -> c_int { signalfd::signalfd(fd, mask, flags) }
        /// In virtual time, also those of CPU time.
        fn setitimer(which: c_int, new: *const libc::itimerval, old: *mut libc::itimerval) -> c_int { timers::setitimer(which, new, old) }
        /// In virtual time.
        fn getitimer(which: c_int, now: *mut libc::itimerval) -> c_int { timers::getitimer(which, now) }
        /// In virtual time.
        fn alarm(seconds: c_uint) -> c_uint { timers::alarm(seconds) }
        /// In virtual time.
        fn ualarm(value: c_uint, interval: c_uint) -> c_uint { timers::ualarm(value, interval) }
        /// In virtual time; a function is called in one thread for all expiries.
        fn timer_create(id: c_int, event: *mut libc::sigevent, timer: *mut libc::timer_t) -> c_int { timers::timer_create(id, event, timer) }
        /// In virtual time.
        fn timer_settime(timer: libc::timer_t, flags: c_int, new: *const libc::itimerspec, old: *mut libc::itimerspec) -> c_int { timers::timer_settime(timer, flags, new, old) }
        /// In virtual time.
        fn timer_gettime(timer: libc::timer_t, now: *mut libc::itimerspec) -> c_int { timers::timer_gettime(timer, now) }
        /// Of the last signal.
        fn timer_getoverrun(timer: libc::timer_t) -> c_int { timers::timer_getoverrun(timer) }
        /// Its thread, if it has one, ends.
        fn timer_delete(timer: libc::timer_t) -> c_int { timers::timer_delete(timer) }
        /// In virtual time.
        fn timerfd_create(id: c_int, flags: c_int) -> c_int { timers::timerfd_create(id, flags) }
        /// In virtual time.
        fn timerfd_settime(fd: c_int, flags: c_int, new: *const libc::itimerspec, old: *mut libc::itimerspec) -> c_int { timers::timerfd_settime(fd, flags, new, old) }
        /// In virtual time.
        fn timerfd_gettime(fd: c_int, now: *mut libc::itimerspec) -> c_int { timers::timerfd_gettime(fd, now) }
    }
}
