//! What travels beside the bytes of a Unix socket: descriptors.
//!
//! The kernel of the caller's world carries the real side (its placeholders
//! are connected for that); here is only which bytes they belong to and which
//! virtual descriptions they are.

use crate::iov::Gather;
use crate::stream::{shut, state};
use crate::table::{Link, Linked, Record, record};
use crate::{DescId, Errno, Host, Kind, Result, VKernel};

/// Most descriptors of one message, Linux's `SCM_MAX_FD`.
pub const MAX_PASSED: usize = 253;

/// Messages with descriptors that may be in flight at a time.
pub(crate) const ATTACHMENTS: u32 = 4096;

record! {
    /// Descriptors in flight.
    pub(crate) struct Attachment {
        link: Link,
        /// The bytes it belongs to, counted from the receiver's first.
        start: u64,
        end: u64,
        count: u32,
        /// Descriptions by their index, 0 for what is not virtual.
        descs: [u32; MAX_PASSED],
    }
}

impl Linked<0> for Attachment {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }
    fn next(&self) -> u32 {
        self.link.next
    }
}

/// An attachment that came with received bytes; give it back with
/// [`VKernel::attachment_free`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttachmentId(pub(crate) u32);

impl VKernel {
    fn attachment_alloc(&mut self) -> Result<u32> {
        let limit = self.attachments.len();
        let header = &mut self.header[0];
        let id = if header.attachment_free != 0 {
            let id = header.attachment_free;
            header.attachment_free = self.attachments[id].link.next;
            id
        } else if header.attachment_fresh + 1 < limit {
            header.attachment_fresh += 1;
            header.attachment_fresh
        } else {
            return Err(Errno::NOBUFS);
        };
        self.attachments[id].link = Link::zeroed();
        Ok(id)
    }

    /// Whether a message of `len` bytes with an attachment could be sent now.
    /// If not, sending it as an ordinary one tells why.
    #[must_use]
    pub fn can_attach(&self, desc: DescId, len: usize) -> bool {
        let id = desc.raw();
        if self.kind(desc) != Ok(Kind::Stream) {
            return false;
        }
        let stream = &self.streams[id];
        let most = u64::from(self.header[0].limits.local_capacity);
        if stream.state & state::EXTERNAL != 0
            || stream.shut & shut::SEND != 0
            || self.descs[id].err != 0
            || stream.peer == 0
            || len == 0
        {
            return false;
        }
        let peer = &self.streams[stream.peer];
        let framed = stream.state & state::FRAMED != 0;
        let fits = if framed {
            len as u64 <= most - 32
        } else {
            true
        };
        peer.shut & shut::RECV == 0
            && fits
            && peer.rx.bytes < most
            && self.pool.has_room(&peer.rx, (len + 4).min(most as usize))
            && (self.header[0].attachment_free != 0
                || self.header[0].attachment_fresh + 1 < self.attachments.len())
    }

    /// Sends bytes with descriptions attached (0: not a virtual one), each of
    /// which gets a reference. Returns how many bytes were taken.
    ///
    /// # Errors
    ///
    /// As `send_iov`; `EINVAL` for more than [`MAX_PASSED`]; `ENOBUFS` when
    /// too many messages with descriptors are in flight.
    pub fn send_attached<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        data: Gather<'_>,
        descs: &[u32],
    ) -> Result<usize> {
        if descs.len() > MAX_PASSED {
            return Err(Errno::INVAL);
        }
        if self.kind(desc)? != Kind::Stream || self.streams[desc.raw()].peer == 0 {
            return self.send_iov(host, desc, data);
        }
        let peer = self.streams[desc.raw()].peer;
        let attachment = self.attachment_alloc()?;
        // In the list before the bytes: whoever they wake sees it.
        let start = self.streams[peer].pushed;
        let record = &mut self.attachments[attachment];
        record.start = start;
        record.end = u64::MAX;
        record.count = descs.len() as u32;
        record.descs[..descs.len()].copy_from_slice(descs);
        let mut list = self.streams[peer].attached;
        list.push_back(&mut self.attachments, attachment);
        self.streams[peer].attached = list;
        match self.send_iov(host, desc, data) {
            Ok(len) => {
                self.attachments[attachment].end = self.streams[peer].pushed;
                for &raw in descs {
                    if raw != 0 {
                        self.desc_hold(DescId::from_raw(raw))?;
                    }
                }
                Ok(len)
            }
            Err(error) => {
                let mut list = self.streams[peer].attached;
                list.remove(&mut self.attachments, attachment);
                self.streams[peer].attached = list;
                self.attachments[attachment].count = 0;
                self.attachment_give_back(attachment);
                Err(error)
            }
        }
    }

    /// How many of the next `len` bytes may be read at once, and the
    /// attachment that comes with them: as Linux, a read goes up to the end of
    /// the first message with descriptors.
    pub(crate) fn attached_window(&self, id: u32, len: usize) -> (usize, u32) {
        let stream = &self.streams[id];
        let first = stream.attached.head;
        if first == 0 {
            return (len, 0);
        }
        let at = stream.pushed - stream.rx.bytes;
        let Attachment { start, end, .. } = self.attachments[first];
        if at + len as u64 > start {
            (len.min((end - at) as usize), first)
        } else {
            (len, 0)
        }
    }

    /// Takes the first attachment off a stream: its bytes were read.
    pub(crate) fn attached_taken(&mut self, id: u32) {
        let mut list = self.streams[id].attached;
        list.pop_front(&mut self.attachments);
        self.streams[id].attached = list;
    }

    /// How many descriptors an attachment has.
    #[must_use]
    pub fn attachment_len(&self, attachment: AttachmentId) -> usize {
        self.attachments[attachment.0].count as usize
    }

    /// The description of an attachment's descriptor, `None` if it is not
    /// virtual. The attachment keeps its reference.
    #[must_use]
    pub fn attachment_desc(&self, attachment: AttachmentId, index: usize) -> Option<DescId> {
        let record = &self.attachments[attachment.0];
        let raw = *record.descs[..record.count as usize].get(index)?;
        (raw != 0).then(|| DescId::from_raw(raw))
    }

    /// Ends a received attachment and its references.
    pub fn attachment_free<H: Host + ?Sized>(&mut self, host: &mut H, attachment: AttachmentId) {
        let Attachment { count, descs, .. } = self.attachments[attachment.0];
        self.attachment_give_back(attachment.0);
        for &raw in &descs[..count as usize] {
            if raw != 0 {
                let _ = self.desc_release(host, DescId::from_raw(raw));
            }
        }
    }

    fn attachment_give_back(&mut self, id: u32) {
        let header = &mut self.header[0];
        self.attachments[id] = Attachment::zeroed();
        self.attachments[id].link.next = header.attachment_free;
        header.attachment_free = id;
    }

    /// Drops what a stream that closes had not received.
    pub(crate) fn drop_attached<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        loop {
            let first = self.streams[id].attached.head;
            if first == 0 {
                return;
            }
            self.attached_taken(id);
            self.attachment_free(host, AttachmentId(first));
        }
    }
}
