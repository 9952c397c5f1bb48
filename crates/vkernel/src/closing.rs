//! How streams end: half close, reset, close, and what the other end sees.

use crate::desc::Kind;
use crate::readiness::{OUT, WRBAND, WRNORM, Wake};
use crate::socket::{SOCK_DGRAM, SockOption};
use crate::stream::{shut, state};
use crate::{DescId, Errno, Host, Result, VKernel};

impl VKernel {
    /// `shutdown` with Linux's `how`: 0 read, 1 write, 2 both.
    pub fn shutdown<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        how: i32,
    ) -> Result<()> {
        let kind = self.socket_kind(desc)?;
        let id = desc.raw();
        if !(0..=2).contains(&how) {
            return Err(Errno::INVAL);
        }
        let how = (how + 1) as u32;
        if kind == Kind::Datagram {
            return self.shutdown_datagram(host, id, how);
        }
        let unix = self.is_unix(id);
        if kind == Kind::Listener && !unix {
            if how & shut::RECV != 0 {
                self.unlisten(host, id);
            }
            return Ok(());
        }
        let stream = &mut self.streams[id];
        let before = stream.shut;
        let finished = before & shut::SEND != 0 && stream.state & state::DONE != 0;
        let over = kind != Kind::Stream
            || stream.state & state::CLOSED != 0
            || (finished && stream.state & state::EXTERNAL == 0);
        stream.shut |= how;
        let new = stream.shut & !before;
        let peer = stream.peer;
        if kind == Kind::Stream && stream.state & state::EXTERNAL != 0 {
            if new & shut::SEND != 0 && stream.state & state::CLOSED == 0 {
                host.conn_shutdown_write(stream.conn);
            }
        } else if unix && peer != 0 && self.descs[id].socket_type != SOCK_DGRAM {
            // What one end no longer reads, the other can no longer send.
            let mirrored = ((how & shut::SEND) >> 1) | ((how & shut::RECV) << 1);
            self.streams[peer].shut |= mirrored;
            self.state_changed(host, id);
            self.state_changed(host, peer);
            return Ok(());
        } else if !unix && new & shut::SEND != 0 && peer != 0 {
            self.fin_received(host, peer);
        }
        self.state_changed(host, id);
        if over && !unix {
            return Err(Errno::NOTCONN);
        }
        Ok(())
    }

    /// The peer will send no more.
    pub(crate) fn fin_received<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let stream = &mut self.streams[id];
        if stream.state & (state::DONE | state::CLOSED) != 0 {
            return;
        }
        stream.shut |= shut::RECV;
        stream.state |= state::DONE;
        self.state_changed(host, id);
    }

    /// The peer broke the connection. Bytes that have arrived stay readable.
    pub(crate) fn reset_stream<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let stream = &mut self.streams[id];
        if stream.state & state::CLOSED != 0 {
            return;
        }
        // After the peer's end of stream a reset means that it will not read
        // what we send.
        let error = if stream.state & state::DONE != 0 {
            Errno::PIPE
        } else {
            Errno::CONNRESET
        };
        stream.shut = shut::BOTH;
        stream.state |= state::CLOSED;
        self.descs[id].err = error.0;
        self.state_changed(host, id);
    }

    /// Frees a stream that nobody has accepted, as its listener goes.
    pub(crate) fn abort_stream<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        self.socks[id].options |= SockOption::ResetOnClose.bit();
        let ended = self.desc_release(host, DescId::from_raw(id));
        debug_assert!(ended.is_ok());
    }

    pub(crate) fn close_stream<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let abort = self.socks[id].options & SockOption::ResetOnClose.bit() != 0;
        let stream = &mut self.streams[id];
        let reset = abort || stream.rx.bytes > 0;
        self.pool.clear(&mut stream.rx);
        let stream = *stream;
        if stream.state & state::EXTERNAL != 0 {
            if self.forget_conn(id) {
                host.conn_close(stream.conn, reset);
            }
        } else if stream.peer != 0 {
            self.peer_closed(host, stream.peer, reset);
        }
        self.unbind(id);
        // Last, since one of these may be the other end itself.
        self.drop_attached(host, id);
    }

    /// The other end of `id`, inside the group, was closed.
    fn peer_closed<H: Host + ?Sized>(&mut self, host: &mut H, id: u32, reset: bool) {
        let unix = self.is_unix(id);
        let datagram = self.descs[id].socket_type == SOCK_DGRAM;
        let stream = &mut self.streams[id];
        stream.peer = 0;
        stream.state |= state::PEER_GONE;
        if !unix {
            // With both ends of stream exchanged the connection is over: there
            // is nothing left to reset.
            let over = stream.state & state::DONE != 0 && stream.shut & shut::SEND != 0;
            if reset && !over {
                self.reset_stream(host, id);
            } else {
                self.fin_received(host, id);
            }
            return;
        }
        if datagram {
            self.notify(host, id, OUT | WRNORM | WRBAND, Wake::All);
            return;
        }
        stream.shut = shut::BOTH;
        if reset {
            self.descs[id].err = Errno::CONNRESET.0;
        }
        self.state_changed(host, id);
    }
}
