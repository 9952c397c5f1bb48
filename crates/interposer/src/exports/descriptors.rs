//! Reading, writing and the numbers of descriptors.

use crate::refuse::{self, Unsupported};
use crate::stack::clean as leave;
use crate::{control, fds, outside, splice, transfer};
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use libc::{iovec, off_t, size_t, ssize_t};

interposed! {
    descriptors {
        /// Programs fall back to reading and writing.
        fn aio_read(_block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn aio_read64(_block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn aio_write(_block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn aio_write64(_block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn aio_fsync(_operation: c_int, _block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn aio_fsync64(_operation: c_int, _block: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn lio_listio(_mode: c_int, _list: *mut c_void, _count: c_int, _event: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As aio_read.
        fn lio_listio64(_mode: c_int, _list: *mut c_void, _count: c_int, _event: *mut c_void) -> c_int { refuse::unknown(Unsupported::AsynchronousIo) }
        /// As read.
        fn __read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t { transfer::read(fd, to, len) }
        /// As write.
        fn __write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t { transfer::write(fd, from, len) }
        /// As pwrite64.
        fn __pwrite64(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t { transfer::pwrite(fd, from, len, at) }
        /// As close.
        fn __close(fd: c_int) -> c_int { fds::close(fd) }
        /// As dup2.
        fn __dup2(old: c_int, new: c_int) -> c_int { fds::dup3(old, new, 0, true) }
        /// As pipe.
        fn __pipe(ends: *mut c_int) -> c_int { fds::pipe(ends, 0) }
        /// As fcntl.
        fn __fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int { control::fcntl(fd, command, argument) }
        /// Virtual or real.
        fn read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t { transfer::read(fd, to, len) }
        /// As read.
        fn __read_chk(fd: c_int, to: *mut c_void, len: size_t, _room: size_t) -> ssize_t { transfer::read(fd, to, len) }
        /// Virtual or real.
        fn readv(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t { transfer::readv(fd, iov, count) }
        /// Virtual or real; a real file's time of change is virtual.
        fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t { transfer::write(fd, from, len) }
        /// Virtual or real.
        fn writev(fd: c_int, iov: *const iovec, count: c_int) -> ssize_t { transfer::writev(fd, iov, count) }
        /// A real file's time of change is virtual.
        fn pwrite64(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t { transfer::pwrite(fd, from, len, at) }
        /// As pwrite64.
        fn pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t { transfer::pwrite(fd, from, len, at) }
        /// On a file that lasts, other threads go on meanwhile; where it goes on is agreed.
        fn fsync(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::fsync, fd) }
        /// As fsync.
        fn fdatasync(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::fdatasync, fd) }
        /// As fsync.
        fn syncfs(fd: c_int) -> c_int { outside::sync(syscalls::Sysno::syncfs, fd) }
        /// As fsync.
        fn sync_file_range(fd: c_int, from: off_t, len: off_t, flags: c_uint) -> c_int { outside::sync_range(fd, from, len, flags) }
        /// Other threads go on meanwhile.
        fn sync() { outside::sync_all(); }
        /// Other threads go on meanwhile, if it waits.
        fn msync(start: *mut c_void, len: size_t, flags: c_int) -> c_int { outside::msync(start, len, flags) }
        /// A real file's time of change is virtual.
        fn ftruncate64(fd: c_int, len: off_t) -> c_int { transfer::ftruncate(fd, len) }
        /// As ftruncate64.
        fn ftruncate(fd: c_int, len: off_t) -> c_int { transfer::ftruncate(fd, len) }
        /// Closes the virtual object and its placeholder.
        fn close(fd: c_int) -> c_int { fds::close(fd) }
        /// Closes virtual objects and placeholders.
        fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int { fds::close_range(first, last, flags) }
        /// As close_range to the end.
        fn closefrom(first: c_int) { fds::close_range(first.max(0) as c_uint, c_uint::MAX, 0); }
        /// Also of virtual objects.
        fn dup(fd: c_int) -> c_int { fds::dup(fd) }
        /// Also of virtual objects.
        fn dup2(old: c_int, new: c_int) -> c_int { fds::dup3(old, new, 0, true) }
        /// Also of virtual objects.
        fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int { fds::dup3(old, new, flags, false) }
        /// Descriptor and status flags of virtual objects.
        fn fcntl(fd: c_int, command: c_int, argument: c_ulong) -> c_int { control::fcntl(fd, command, argument) }
        /// As fcntl.
        fn fcntl64(fd: c_int, command: c_int, argument: c_ulong) -> c_int { control::fcntl(fd, command, argument) }
        /// FIONREAD and FIONBIO of virtual objects.
        fn ioctl(fd: c_int, request: c_ulong, argument: c_ulong) -> c_int { control::ioctl(fd, request, argument) }
        /// In memory of the group.
        fn pipe(ends: *mut c_int) -> c_int { fds::pipe(ends, 0) }
        /// In memory of the group.
        fn pipe2(ends: *mut c_int, flags: c_int) -> c_int { fds::pipe(ends, flags) }
        /// In memory of the group.
        fn eventfd(value: c_uint, flags: c_int) -> c_int { fds::eventfd(value, flags) }
        /// Copies through memory.
        fn sendfile(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t { splice::sendfile(out, input, offset, count) }
        /// Copies through memory.
        fn sendfile64(out: c_int, input: c_int, offset: *mut off_t, count: size_t) -> ssize_t { splice::sendfile(out, input, offset, count) }
        /// Of a real file; ESPIPE otherwise.
        fn preadv(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::preadv(fd, iov, count, at, 0) }
        /// Of a real file; ESPIPE otherwise.
        fn preadv64(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::preadv(fd, iov, count, at, 0) }
        /// Notes the virtual time of the write.
        fn pwritev(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::pwritev(fd, iov, count, at, 0) }
        /// Notes the virtual time of the write.
        fn pwritev64(fd: c_int, iov: *const iovec, count: c_int, at: off_t) -> ssize_t { transfer::pwritev(fd, iov, count, at, 0) }
        /// As readv at -1, else as preadv.
        fn preadv2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::preadv(fd, iov, count, at, flags) }
        /// As readv at -1, else as preadv.
        fn preadv64v2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::preadv(fd, iov, count, at, flags) }
        /// As writev at -1, else as pwritev.
        fn pwritev2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::pwritev(fd, iov, count, at, flags) }
        /// As writev at -1, else as pwritev.
        fn pwritev64v2(fd: c_int, iov: *const iovec, count: c_int, at: off_t, flags: c_int) -> ssize_t { transfer::pwritev(fd, iov, count, at, flags) }
        /// Copies between pipes, sockets and files.
        fn splice(input: c_int, from: *mut off_t, out: c_int, to: *mut off_t, len: size_t, flags: c_uint) -> ssize_t { splice::splice(input, from, out, to, len, flags) }
        /// Copies between pipes.
        fn tee(input: c_int, out: c_int, len: size_t, flags: c_uint) -> ssize_t { splice::tee(input, out, len, flags) }
        /// Copies: later changes of the memory do not show.
        fn vmsplice(fd: c_int, iov: *const iovec, count: size_t, flags: c_uint) -> ssize_t { splice::vmsplice(fd, iov, count, flags) }
        /// Between real files; notes the virtual time of the write.
        fn copy_file_range(input: c_int, from: *mut off_t, out: c_int, to: *mut off_t, len: size_t, flags: c_uint) -> ssize_t { splice::copy_file_range(input, from, out, to, len, flags) }
    }
}
