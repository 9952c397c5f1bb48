//! read and write on any kind of description, and FIONREAD.

use crate::ancillary::AttachmentId;
use crate::desc::Kind;
use crate::iov::{Gather, Scatter};
use crate::{DescId, Errno, Host, Result, VKernel};

/// Outcome of receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes stored in the caller's memory.
    pub len: usize,
    /// Length of the message; more than `len` if it was cut (`MSG_TRUNC`).
    pub message: usize,
    /// Descriptors that came with the bytes; after a receive that was not a
    /// peek the caller must give it back with `attachment_free`.
    pub attached: Option<AttachmentId>,
}

impl Received {
    pub(crate) fn bytes(len: usize) -> Received {
        Received::with(len, len, 0)
    }

    pub(crate) fn with(len: usize, message: usize, attached: u32) -> Received {
        Received {
            len,
            message,
            attached: (attached != 0).then_some(AttachmentId(attached)),
        }
    }
}

/// An object that is read and written in units of eight bytes.
fn eight_bytes(to: &mut Scatter<'_>, value: u64) -> usize {
    to.copy_from(&value.to_ne_bytes());
    8
}

impl VKernel {
    /// Receives into one buffer; see `recv_iov`.
    pub fn recv<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        to: &mut [u8],
    ) -> Result<usize> {
        let received = self.recv_iov(host, desc, Scatter::new(to), false)?;
        Ok(self.without_attachment(host, received))
    }

    fn without_attachment<H: Host + ?Sized>(&mut self, host: &mut H, got: Received) -> usize {
        if let Some(attachment) = got.attached {
            self.attachment_free(host, attachment);
        }
        got.len
    }

    /// Receives into one buffer without consuming (`MSG_PEEK`).
    pub fn peek<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        to: &mut [u8],
    ) -> Result<usize> {
        let received = self.recv_iov(host, desc, Scatter::new(to), true)?;
        Ok(received.len)
    }

    /// Sends from one buffer; see `send_iov`.
    pub fn send<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        data: &[u8],
    ) -> Result<usize> {
        self.send_iov(host, desc, Gather::new(data))
    }

    /// `read` on any kind; see `read_iov`.
    pub fn read<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        to: &mut [u8],
    ) -> Result<usize> {
        let received = self.read_iov(host, desc, Scatter::new(to))?;
        Ok(self.without_attachment(host, received))
    }

    /// `write` on any kind; see `write_iov`.
    pub fn write<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        data: &[u8],
    ) -> Result<usize> {
        self.write_iov(host, desc, Gather::new(data))
    }

    /// `read`/`readv` on any kind. A timerfd uses the virtual time of the last
    /// `advance`, `timerfd_settime` or `timerfd_gettime`.
    ///
    /// # Errors
    ///
    /// `EBADF` for a write end, `EINVAL` for an epoll instance or a counter
    /// read into less than eight bytes, `EAGAIN` and others as Linux.
    pub fn read_iov<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        mut to: Scatter<'_>,
    ) -> Result<Received> {
        let len = match self.kind(desc)? {
            // System V behaviour that Linux keeps: an empty read asks nothing.
            Kind::Socket | Kind::Listener | Kind::Stream if to.is_empty() => 0,
            Kind::Socket | Kind::Listener | Kind::Stream | Kind::Datagram => {
                return self.recv_iov(host, desc, to, false);
            }
            Kind::PipeRead => self.pipe_read(host, desc, to)?,
            Kind::PipeWrite => return Err(Errno::BADF),
            Kind::EventFd | Kind::TimerFd if to.len() < 8 => return Err(Errno::INVAL),
            Kind::EventFd => {
                let value = self.eventfd_read(host, desc)?;
                eight_bytes(&mut to, value)
            }
            Kind::TimerFd => {
                let now = self.header[0].now;
                let value = self.timerfd_read(desc, now)?;
                eight_bytes(&mut to, value)
            }
            Kind::Epoll | Kind::Pollable => return Err(Errno::INVAL),
        };
        Ok(Received::bytes(len))
    }

    /// `write`/`writev` on any kind.
    ///
    /// # Errors
    ///
    /// `EBADF` for a read end, `EINVAL` where nothing can be written, `EAGAIN`
    /// and others as Linux.
    pub fn write_iov<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        mut data: Gather<'_>,
    ) -> Result<usize> {
        match self.kind(desc)? {
            Kind::Socket | Kind::Listener | Kind::Stream | Kind::Datagram => {
                self.send_iov(host, desc, data)
            }
            Kind::PipeWrite => self.pipe_write(host, desc, data),
            Kind::PipeRead => Err(Errno::BADF),
            Kind::EventFd if data.len() < 8 => Err(Errno::INVAL),
            Kind::EventFd => {
                let mut value = [0; 8];
                data.copy_to(&mut value);
                self.eventfd_write(host, desc, u64::from_ne_bytes(value))?;
                Ok(8)
            }
            Kind::TimerFd | Kind::Epoll | Kind::Pollable => Err(Errno::INVAL),
        }
    }

    /// `FIONREAD`: bytes that can be read now, for datagrams of the next
    /// message only.
    pub fn available(&self, desc: DescId) -> Result<usize> {
        let id = desc.raw();
        match self.kind(desc)? {
            Kind::Stream if self.streams[id].state & crate::stream::state::FRAMED != 0 => {
                Ok(self.packets_available(id))
            }
            Kind::Stream => Ok(self.streams[id].rx.bytes as usize),
            Kind::Socket => Ok(0),
            Kind::Datagram => Ok(self.datagram_available(id)),
            Kind::Listener => Err(Errno::INVAL),
            Kind::PipeRead | Kind::PipeWrite => Ok(self.pipe_bytes(id)),
            Kind::Epoll => Err(Errno::INVAL),
            _ => Err(Errno::NOTTY),
        }
    }

    /// `SIOCOUTQ`: bytes sent that the other side has not taken.
    pub fn unsent(&self, desc: DescId) -> Result<usize> {
        match self.socket_kind(desc)? {
            Kind::Stream => {}
            // What is sent is taken at once.
            Kind::Datagram => return Ok(0),
            _ => return Err(Errno::INVAL),
        }
        let stream = &self.streams[desc.raw()];
        if stream.state & crate::stream::state::EXTERNAL != 0 {
            return Ok((stream.bytes_out - stream.drained) as usize);
        }
        if stream.peer == 0 {
            return Ok(0);
        }
        Ok(self.streams[stream.peer].rx.bytes as usize)
    }
}
