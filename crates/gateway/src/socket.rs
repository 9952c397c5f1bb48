//! A client's socket, as the gateway uses it.

use crate::tcp;
use mio::net::TcpStream;
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// One client's non-blocking stream. The real one is [`TcpStream`], which also
/// stands for a Unix stream; a simulation has its own.
pub trait Socket: Send + Sync {
    /// Appends at most `limit` bytes to `buffer`; 0 at the client's end.
    ///
    /// # Errors
    /// The system's; `AGAIN` when there is nothing now.
    fn read(&self, buffer: &mut Vec<u8>, limit: usize) -> rustix::io::Result<usize>;

    /// Writes what the socket takes of `parts`. Returns the number of bytes.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Tells the client that nothing more will come.
    fn end(&self);

    /// Makes the drop an abort (RST) instead of an orderly end.
    fn abort_on_drop(&self);

    /// Undoes [`abort_on_drop`](Self::abort_on_drop).
    fn end_on_drop(&self) {}

    /// Makes the drop one that the client does not notice: the connection goes on
    /// elsewhere.
    fn vanish(&self) {}

    /// Has the client's system say what it has; not while another thread writes.
    fn probe(&self) {}

    /// Bytes written that the client's system has not acknowledged; 0 if that is not
    /// known. An end that was written counts as one.
    fn unacknowledged(&self) -> u64 {
        0
    }

    /// The descriptor, if there is one.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

impl Socket for TcpStream {
    fn read(&self, buffer: &mut Vec<u8>, limit: usize) -> rustix::io::Result<usize> {
        // Without clearing memory first that the kernel overwrites anyway.
        buffer.reserve(limit);
        let spare = &mut buffer.spare_capacity_mut()[..limit];
        let read = rustix::io::read(self, spare)?.0.len();
        let len = buffer.len() + read;
        // SAFETY: the kernel has written the `read` bytes behind the old length,
        // which are within the capacity reserved above.
        unsafe { buffer.set_len(len) };
        Ok(read)
    }

    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut socket = self;
        match parts {
            [one] => Write::write(&mut socket, one),
            many => socket.write_vectored(many),
        }
    }

    fn end(&self) {
        // Fails only when the client is gone already.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn abort_on_drop(&self) {
        // Without it the client sees an orderly end, which is second best.
        let _ = rustix::net::sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }

    fn end_on_drop(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self, None);
    }

    fn vanish(&self) {
        // The packet program drops what leaves nevertheless.
        let _ = tcp::vanish(self.as_raw_fd());
    }

    fn probe(&self) {
        // A broken socket is reported by itself.
        let _ = tcp::probe(self.as_raw_fd());
    }

    fn unacknowledged(&self) -> u64 {
        tcp::unacknowledged(self.as_raw_fd()).unwrap_or(0)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}
