//! Listening sockets and their accept queues.

use crate::addr::Endpoint;
use crate::desc::Kind;
use crate::readiness::{IN, RDNORM, Wake};
use crate::socket::{AF_INET, bound};
use crate::stream::{ACCEPT, state};
use crate::table::{List, record};
use crate::{DescId, Dir, Errno, Host, Result, VKernel, wait_key};

/// Linux's default for `net.core.somaxconn`.
const SOMAXCONN: u32 = 4096;

record! {
    pub(crate) struct Listener {
        /// Connections not accepted yet, oldest first.
        pub(crate) queue: List,
        /// Sockets whose blocking Unix connect waits for room, oldest first.
        pub(crate) connecting: List,
        pub(crate) backlog: u32,
        pad: u32,
    }
}

impl VKernel {
    /// The number by which the log names a listener: the description's index
    /// and how often that index was used, so that a connection meant for a
    /// listener that is gone never reaches its successor.
    #[must_use]
    pub fn listener_id(&self, desc: DescId) -> u32 {
        (self.descs[desc.raw()].generation << 16) | desc.raw()
    }

    /// The open listener with this number.
    #[must_use]
    pub fn listener_desc(&self, listener: u32) -> Option<DescId> {
        let desc = DescId::from_raw(listener & 0xffff);
        let open = self.kind(desc) == Ok(Kind::Listener) && self.listener_id(desc) == listener;
        open.then_some(desc)
    }

    /// Makes a socket listen and announces it with `Host::listen`. On a
    /// listening socket only changes the backlog.
    pub fn listen<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        backlog: i32,
    ) -> Result<()> {
        let id = desc.raw();
        // A negative backlog is a very large one, as in Linux.
        let backlog = (backlog as u32).min(SOMAXCONN);
        match self.socket_kind(desc)? {
            Kind::Listener => {
                self.listeners[id].backlog = backlog;
                return Ok(());
            }
            Kind::Socket => {}
            _ => return Err(Errno::INVAL),
        }
        let is_bound = self.socks[id].state & bound::LISTED != 0;
        if self.is_unix(id) {
            if !is_bound {
                return Err(Errno::INVAL);
            }
        } else if is_bound {
            if self.port_conflict(id, self.socks[id].bound_at, true) {
                return Err(Errno::ADDRINUSE);
            }
        } else {
            let port = self.free_port(false).ok_or(Errno::ADDRINUSE)?;
            let v4 = self.descs[id].domain == AF_INET;
            self.enter_port(id, Endpoint::wildcard(v4, port));
        }
        self.set_kind(id, Kind::Listener);
        self.descs[id].err = 0;
        self.streams[id].shut = 0;
        self.listeners[id].backlog = backlog;
        let local = self.socks[id].local;
        // Messages with boundaries have no way through a gateway.
        if self.streams[id].state & state::FRAMED != 0 {
            return Ok(());
        }
        host.listen(self.listener_id(desc), local.as_bytes(), backlog);
        Ok(())
    }

    /// Takes the oldest connection; the new description has one reference and
    /// the status flags `flags`.
    pub fn accept<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        flags: u32,
    ) -> Result<DescId> {
        if self.socket_kind(desc)? != Kind::Listener {
            return Err(Errno::INVAL);
        }
        let id = desc.raw();
        let listener = &mut self.listeners[id];
        let Some(child) = listener.queue.pop_front::<ACCEPT, _>(&mut self.streams) else {
            return Err(Errno::AGAIN);
        };
        let more = !listener.queue.is_empty();
        self.streams[child].listener = 0;
        self.descs[child].flags = flags;
        // One arrival wakes one acceptor; if it was somebody else who took the
        // connection, the next one in the queue needs a taker.
        if more {
            host.wake_one(wait_key(desc, Dir::Read));
        }
        self.wake_connecting(host, id);
        Ok(DescId::from_raw(child))
    }

    /// Connections waiting to be accepted.
    pub fn accept_queue_len(&self, desc: DescId) -> Result<u32> {
        if self.socket_kind(desc)? != Kind::Listener {
            return Err(Errno::INVAL);
        }
        Ok(self.listeners[desc.raw()].queue.len)
    }

    /// Puts a new stream at the end of the accept queue.
    pub(crate) fn enqueue<H: Host + ?Sized>(&mut self, host: &mut H, listener: u32, child: u32) {
        self.streams[child].listener = listener;
        self.listeners[listener]
            .queue
            .push_back::<ACCEPT, _>(&mut self.streams, child);
        self.notify(host, listener, IN | RDNORM, Wake::One);
    }

    pub(crate) fn queue_is_full(&self, listener: u32) -> bool {
        let listener = &self.listeners[listener];
        listener.queue.len > listener.backlog
    }

    /// Remembers that the socket `id` waits for room in the queue.
    pub(crate) fn join_connect_queue(&mut self, id: u32, listener: u32) {
        if self.streams[id].state & state::WAITS_CONNECT != 0 {
            return;
        }
        self.streams[id].state |= state::WAITS_CONNECT;
        self.streams[id].listener = listener;
        self.listeners[listener]
            .connecting
            .push_back::<ACCEPT, _>(&mut self.streams, id);
    }

    pub(crate) fn leave_connect_queue(&mut self, id: u32) {
        if self.streams[id].state & state::WAITS_CONNECT == 0 {
            return;
        }
        let listener = self.streams[id].listener;
        self.listeners[listener]
            .connecting
            .remove::<ACCEPT, _>(&mut self.streams, id);
        self.streams[id].state &= !state::WAITS_CONNECT;
        self.streams[id].listener = 0;
    }

    fn wake_connecting<H: Host + ?Sized>(&mut self, host: &mut H, listener: u32) {
        let first = self.listeners[listener].connecting.head;
        if first != 0 {
            self.leave_connect_queue(first);
            host.wake_all(wait_key(DescId::from_raw(first), Dir::Write));
        }
    }

    /// Ends listening: refuses what is queued, frees the waiting connects.
    fn stop_listening<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        host.unlisten(self.listener_id(DescId::from_raw(id)));
        while let Some(child) = self.listeners[id]
            .queue
            .pop_front::<ACCEPT, _>(&mut self.streams)
        {
            self.streams[child].listener = 0;
            self.abort_stream(host, child);
        }
        while self.listeners[id].connecting.head != 0 {
            self.wake_connecting(host, id);
        }
    }

    pub(crate) fn close_listener<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        self.stop_listening(host, id);
        self.unbind(id);
    }

    /// `shutdown(SHUT_RD)` on a TCP listener: it becomes an ordinary bound
    /// socket again and its acceptors get `EINVAL`.
    pub(crate) fn unlisten<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        self.stop_listening(host, id);
        self.set_kind(id, Kind::Socket);
        if self.socks[id].state & bound::BY_CALLER == 0 {
            self.unbind(id);
            self.socks[id].local = crate::SockAddr::EMPTY;
        }
        // The index lives on as another listener, if it ever listens again.
        self.descs[id].generation = self.descs[id].generation.wrapping_add(1);
        self.state_changed(host, id);
    }
}
