//! Open file descriptions: allocation, references, release.

use crate::epoll::Epoll;
use crate::eventfd::EventFd;
use crate::listener::Listener;
use crate::pipe::Pipe;
use crate::signal::Pollable;
use crate::socket::Sock;
use crate::stream::Stream;
use crate::table::{List, Record, record};
use crate::timerfd::Timer;
use crate::{Dir, Errno, Host, Result, VKernel, wait_key};

/// Index of an open file description. Reused, last freed first, after the
/// last reference is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DescId(u32);

impl DescId {
    /// The index, as stored elsewhere in shared memory. Never 0.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The description with this index; operations on one that does not exist
    /// return `EBADF`.
    #[must_use]
    pub const fn from_raw(raw: u32) -> DescId {
        DescId(raw)
    }
}

/// What an open file description is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A socket that neither listens nor is connected.
    Socket = 1,
    /// A listening socket.
    Listener,
    /// A connected socket, or one end of a socket pair.
    Stream,
    /// Read end of a pipe.
    PipeRead,
    /// Write end of a pipe.
    PipeWrite,
    /// Event counter.
    EventFd,
    /// Timer.
    TimerFd,
    /// Epoll instance.
    Epoll,
    /// An object whose readiness the caller decides, for example a signalfd.
    Pollable,
    /// A datagram socket that was not made as one of a pair.
    Datagram,
}

impl Kind {
    fn from_raw(raw: u8) -> Option<Kind> {
        Some(match raw {
            1 => Kind::Socket,
            2 => Kind::Listener,
            3 => Kind::Stream,
            4 => Kind::PipeRead,
            5 => Kind::PipeWrite,
            6 => Kind::EventFd,
            7 => Kind::TimerFd,
            8 => Kind::Epoll,
            9 => Kind::Pollable,
            10 => Kind::Datagram,
            _ => return None,
        })
    }

    /// Whether socket calls apply.
    #[must_use]
    pub fn is_socket(self) -> bool {
        matches!(
            self,
            Kind::Socket | Kind::Listener | Kind::Stream | Kind::Datagram
        )
    }
}

record! {
    /// The part that all kinds have.
    pub(crate) struct Desc {
        kind: u8,
        pub(crate) socket_type: u8,
        pub(crate) domain: u16,
        pub(crate) refs: u32,
        /// `O_NONBLOCK`, `O_APPEND`, ...: as `F_GETFL` returns them.
        pub(crate) flags: u32,
        /// Pending `SO_ERROR`.
        pub(crate) err: i32,
        pub(crate) seq: u64,
        /// Epoll watches and poll registrations on this description.
        pub(crate) watches: List,
        /// Counts the uses of this index; survives release.
        pub(crate) generation: u32,
        next_free: u32,
        pad: u32,
    }
}

impl VKernel {
    /// Makes a description with one reference, which belongs to the caller.
    pub(crate) fn desc_alloc(&mut self, kind: Kind) -> Result<u32> {
        let limit = self.descs.len();
        let header = &mut self.header[0];
        let id = if header.desc_free != 0 {
            let id = header.desc_free;
            header.desc_free = self.descs[id].next_free;
            id
        } else if header.desc_fresh + 1 < limit {
            header.desc_fresh += 1;
            header.desc_fresh
        } else {
            return Err(Errno::NFILE);
        };
        header.desc_used += 1;
        header.desc_peak = header.desc_peak.max(header.desc_used);
        header.seq += 1;
        let desc = &mut self.descs[id];
        desc.kind = kind as u8;
        desc.refs = 1;
        desc.seq = header.seq;
        desc.generation = desc.generation.wrapping_add(1);
        desc.next_free = 0;
        Ok(id)
    }

    pub(crate) fn set_kind(&mut self, id: u32, kind: Kind) {
        self.descs[id].kind = kind as u8;
    }

    /// Kind of a description that is known to exist.
    pub(crate) fn kind_of(&self, id: u32) -> Option<Kind> {
        Kind::from_raw(self.descs[id].kind)
    }

    /// What `desc` is; `EBADF` if there is no such description.
    pub fn kind(&self, desc: DescId) -> Result<Kind> {
        if desc.0 == 0 || desc.0 >= self.descs.len() {
            return Err(Errno::BADF);
        }
        self.kind_of(desc.0).ok_or(Errno::BADF)
    }

    /// Status flags as given at creation and by `set_flags`.
    pub fn flags(&self, desc: DescId) -> Result<u32> {
        self.kind(desc)?;
        Ok(self.descs[desc.0].flags)
    }

    /// Replaces the status flags. Only `O_NONBLOCK` has a meaning here: a
    /// non-blocking TCP `connect` reports `EINPROGRESS`, as Linux does.
    pub fn set_flags(&mut self, desc: DescId, flags: u32) -> Result<()> {
        self.kind(desc)?;
        self.descs[desc.0].flags = flags;
        Ok(())
    }

    /// References that keep `desc` open.
    pub fn refs(&self, desc: DescId) -> Result<u32> {
        self.kind(desc)?;
        Ok(self.descs[desc.0].refs)
    }

    /// Order of creation, unique for the life of the region.
    pub fn creation(&self, desc: DescId) -> Result<u64> {
        self.kind(desc)?;
        Ok(self.descs[desc.0].seq)
    }

    /// Adds a reference, as a system call in progress holds one in Linux.
    pub fn desc_hold(&mut self, desc: DescId) -> Result<()> {
        self.kind(desc)?;
        self.descs[desc.0].refs += 1;
        Ok(())
    }

    /// Drops a reference; the last one closes the object.
    pub fn desc_release<H: Host + ?Sized>(&mut self, host: &mut H, desc: DescId) -> Result<()> {
        let kind = self.kind(desc)?;
        let id = desc.0;
        self.descs[id].refs -= 1;
        if self.descs[id].refs > 0 {
            return Ok(());
        }
        // First the watches, as Linux does: the closing itself must not make
        // this description ready in an epoll that is about to forget it.
        self.drop_watches(host, id);
        match kind {
            Kind::Socket => self.close_socket(id),
            Kind::Datagram => self.close_datagram(host, id),
            Kind::Listener => self.close_listener(host, id),
            Kind::Stream => self.close_stream(host, id),
            Kind::PipeRead => self.close_pipe_read(host, id),
            Kind::PipeWrite => self.close_pipe_write(host, id),
            Kind::TimerFd => self.timer_disarm(id),
            Kind::Epoll => self.close_epoll(id),
            Kind::EventFd | Kind::Pollable => {}
        }
        // A thread that still sleeps on this description held no reference;
        // let it look at its descriptor again rather than sleep for ever.
        host.wake_all(wait_key(desc, Dir::Read));
        host.wake_all(wait_key(desc, Dir::Write));
        self.desc_free(id, kind);
        Ok(())
    }

    fn desc_free(&mut self, id: u32, kind: Kind) {
        match kind {
            Kind::Socket | Kind::Listener | Kind::Stream | Kind::Datagram => {
                self.socks[id] = Sock::zeroed();
                self.streams[id] = Stream::zeroed();
                if kind == Kind::Listener {
                    self.listeners[id] = Listener::zeroed();
                }
            }
            Kind::PipeRead | Kind::PipeWrite => self.pipes[id] = Pipe::zeroed(),
            Kind::EventFd => self.eventfds[id] = EventFd::zeroed(),
            Kind::TimerFd => self.timers[id] = Timer::zeroed(),
            Kind::Epoll => self.epolls[id] = Epoll::zeroed(),
            Kind::Pollable => self.pollables[id] = Pollable::zeroed(),
        }
        let generation = self.descs[id].generation;
        self.descs[id] = Desc::zeroed();
        let header = &mut self.header[0];
        let desc = &mut self.descs[id];
        desc.generation = generation;
        desc.next_free = header.desc_free;
        header.desc_free = id;
        header.desc_used -= 1;
    }
}
