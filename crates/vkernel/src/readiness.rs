//! What is ready, and telling those who wait when it changes.

use crate::desc::Kind;
use crate::stream::{shut, state};
use crate::{DescId, Dir, Host, Result, VKernel, wait_key};

pub(crate) const IN: u32 = libc::EPOLLIN as u32;
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
pub(crate) const ERR: u32 = libc::EPOLLERR as u32;
pub(crate) const HUP: u32 = libc::EPOLLHUP as u32;
pub(crate) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub(crate) const RDNORM: u32 = libc::EPOLLRDNORM as u32;
pub(crate) const WRNORM: u32 = libc::EPOLLWRNORM as u32;
pub(crate) const WRBAND: u32 = libc::EPOLLWRBAND as u32;

/// Any event: Linux's wake-up without a mask.
pub(crate) const ANY: u32 = 0;

/// How many of the blocked threads a change is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// One: what became available can be taken only once.
    One,
    /// All.
    All,
}

impl VKernel {
    /// What `poll` would report for `desc` if every event were asked for, as
    /// `POLLIN`, `POLLOUT`, `POLLHUP`, `POLLRDHUP`, `POLLERR`, `POLLRDNORM`...
    /// bits (equal to the `EPOLL*` bits).
    ///
    /// Takes `&mut self` because, as in Linux, asking may note that somebody
    /// wants to hear of free space, and cleans the list of ready events of an
    /// epoll instance.
    pub fn readiness(&mut self, desc: DescId) -> Result<u32> {
        self.kind(desc)?;
        Ok(self.ready_mask(desc.raw()))
    }

    pub(crate) fn ready_mask(&mut self, id: u32) -> u32 {
        match self.kind_of(id) {
            Some(Kind::Stream | Kind::Socket) => self.socket_mask(id),
            Some(Kind::Listener) => {
                if self.listeners[id].queue.is_empty() {
                    0
                } else {
                    IN | RDNORM
                }
            }
            Some(Kind::PipeRead | Kind::PipeWrite) => self.pipe_mask(id),
            Some(Kind::Datagram) => self.datagram_mask(id),
            Some(Kind::EventFd) => self.eventfd_mask(id),
            Some(Kind::TimerFd) => self.timerfd_mask(id),
            Some(Kind::Epoll) => self.epoll_mask(id),
            Some(Kind::Pollable) => self.pollables[id].ready,
            None => 0,
        }
    }

    fn socket_mask(&mut self, id: u32) -> u32 {
        let unix = self.is_unix(id);
        let connected = self.kind_of(id) == Some(Kind::Stream);
        let err = self.descs[id].err;
        let writable = self.is_writable(id);
        let stream = &mut self.streams[id];
        let mut mask = 0;
        if err != 0 {
            mask |= ERR;
        }
        if stream.shut == shut::BOTH || !connected || stream.state & state::CLOSED != 0 {
            mask |= HUP;
        }
        if stream.shut & shut::RECV != 0 {
            mask |= IN | RDNORM | RDHUP;
        }
        if stream.rx.bytes > 0 {
            mask |= IN | RDNORM;
        }
        if unix {
            if writable {
                mask |= OUT | WRNORM | WRBAND;
            }
        } else if writable || stream.shut & shut::SEND != 0 {
            mask |= OUT | WRNORM;
        }
        if !writable {
            stream.state |= state::NO_SPACE;
        }
        mask
    }

    /// Tells blocked threads, epoll instances and pollers that events in
    /// `mask` may have happened on `id`; `ANY` for all.
    pub(crate) fn notify<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mask: u32,
        wake: Wake,
    ) {
        let desc = DescId::from_raw(id);
        for (events, dir) in [(IN, Dir::Read), (OUT, Dir::Write)] {
            if mask == ANY || mask & events != 0 {
                let key = wait_key(desc, dir);
                match wake {
                    Wake::One => _ = host.wake_one(key),
                    Wake::All => host.wake_all(key),
                }
            }
        }
        self.run_watches(host, id, mask, wake);
    }

    /// Something other than data or space changed: everybody looks again.
    pub(crate) fn state_changed<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        self.notify(host, id, ANY, Wake::All);
    }
}
