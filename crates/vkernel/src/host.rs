//! What the virtual kernel asks of the world around it.

use crate::DescId;

/// The side of a description that a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dir {
    /// Data, a connection to accept, an expiry, or a ready event.
    Read,
    /// Space to write into, or room in a listener's queue.
    Write,
}

/// Set in every wait key, so that keys cannot collide with keys that a caller
/// makes from user addresses (which never have this byte).
pub const WAIT_KEY_TAG: u64 = 0x56 << 56;

/// Key on which a thread blocks after `Errno::AGAIN` from an operation on
/// `desc` in direction `dir`.
///
/// A pure function: equal in every process and on every replica.
#[must_use]
pub const fn wait_key(desc: DescId, dir: Dir) -> u64 {
    let side = match dir {
        Dir::Read => 0,
        Dir::Write => 1,
    };
    WAIT_KEY_TAG | ((desc.raw() as u64) << 1) | side
}

/// Receiver of wake-ups and of what leaves the group of processes.
///
/// Called in a deterministic order from inside operations, by the thread that
/// runs the operation. An implementation must not call the kernel again.
///
/// A thread that was woken by key must retry its operation before it gives up
/// for another reason (signal, timeout): `wake_one` hands one event to it and
/// nobody else hears of that event.
pub trait Host {
    /// Wakes the thread that has waited longest on `key`. Returns whether
    /// there was one; exclusive epoll watches need to know.
    fn wake_one(&mut self, key: u64) -> bool;
    /// Wakes all threads that wait on `key`, oldest first.
    fn wake_all(&mut self, key: u64);
    /// A description that `thread` registered with `poll_register` may have
    /// become ready. At most once between two `poll_unregister_all`.
    fn wake_thread(&mut self, thread: u32);
    /// The server sent `bytes` on connection `conn`. One send may come as
    /// several calls in order.
    fn output(&mut self, conn: u64, bytes: &[u8]);
    /// The server will send no more on `conn`.
    fn conn_shutdown_write(&mut self, conn: u64);
    /// The server has let go of `conn`; later events for it are ignored.
    /// `reset`: unread input or a zero linger time demand a reset.
    fn conn_close(&mut self, conn: u64, reset: bool);
    /// The server has consumed `total` bytes of `conn` since its start.
    fn conn_consumed(&mut self, conn: u64, total: u64);
    /// `listener` now accepts connections at `addr` (a raw socket address).
    fn listen(&mut self, listener: u32, addr: &[u8], backlog: u32);
    /// Messages from outside for the datagram socket `socket`, bound at
    /// `addr` (a raw socket address), are wanted from now on.
    fn datagram_open(&mut self, socket: u32, addr: &[u8]);
    /// `socket` joins or leaves a multicast group (IPv4 in its mapped form).
    fn datagram_group(&mut self, socket: u32, group: &[u8; 16], join: bool);
    /// `socket` sends a message to `to` (a raw socket address), through
    /// `gateway` (with its incarnation); 0: through any one.
    fn datagram_send(&mut self, gateway: u32, socket: u32, to: &[u8], data: crate::Gather<'_>);
    /// `socket` is closed.
    fn datagram_close(&mut self, socket: u32);
    /// `listener` accepts no more connections.
    fn unlisten(&mut self, listener: u32);
}
