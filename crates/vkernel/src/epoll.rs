//! Epoll instances, with a ready list as in `fs/eventpoll.c`.

use crate::desc::Kind;
use crate::readiness::{ANY, ERR, HUP, IN, OUT, RDNORM, Wake};
use crate::table::{Link, Linked, List, Record, record};
use crate::{DescId, Dir, Errno, Host, Result, VKernel, wait_key};

const ET: u32 = libc::EPOLLET as u32;
const ONESHOT: u32 = libc::EPOLLONESHOT as u32;
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
const WAKEUP: u32 = libc::EPOLLWAKEUP as u32;
/// Bits that are settings, not events; a fired one-shot watch keeps only these.
const PRIVATE: u32 = ET | ONESHOT | EXCLUSIVE | WAKEUP;
const EXCLUSIVE_OK: u32 = IN | OUT | ERR | HUP | WAKEUP | ET | EXCLUSIVE;
/// Epoll instances may watch each other in chains of this many links.
const MAX_NESTS: u32 = 4;

/// An event as `epoll_wait` returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpollEvent {
    /// `EPOLLIN`, `EPOLLOUT`, ... bits.
    pub events: u32,
    /// What the watch was registered with.
    pub data: u64,
}

record! {
    pub(crate) struct Epoll {
        /// All watches, oldest first.
        items: List,
        /// Watches that may be ready, in the order in which they became so.
        ready: List,
    }
}

record! {
    /// A watch on a description: an epoll item or a poll registration.
    pub(crate) struct Watch {
        pub(crate) data: u64,
        /// The description watched.
        pub(crate) target: u32,
        /// The epoll instance, 0 for a poll registration.
        epoll: u32,
        /// The polling thread plus 1, 0 for an epoll item.
        pub(crate) thread: u32,
        fd: i32,
        pub(crate) events: u32,
        /// 1 while on the ready list.
        is_ready: u32,
        on_target: Link,
        on_owner: Link,
        on_ready: Link,
    }
}

/// List of a description's watches.
pub(crate) const ON_TARGET: usize = 0;
/// List of an epoll's or a thread's watches, or of free ones.
pub(crate) const ON_OWNER: usize = 1;
/// Ready list.
const ON_READY: usize = 2;

macro_rules! watch_links {
    ($($list:ident: $field:ident,)*) => {$(
        impl Linked<$list> for Watch {
            fn link(&mut self) -> &mut Link {
                &mut self.$field
            }
            fn next(&self) -> u32 {
                self.$field.next
            }
        }
    )*};
}
watch_links! {
    ON_TARGET: on_target,
    ON_OWNER: on_owner,
    ON_READY: on_ready,
}

impl VKernel {
    /// Makes an epoll instance with one reference.
    pub fn epoll_create(&mut self) -> Result<DescId> {
        self.desc_alloc(Kind::Epoll).map(DescId::from_raw)
    }

    /// Takes a watch from the pool and puts it on its target's list: like
    /// Linux's wait queues, ordinary ones in front, exclusive ones behind.
    pub(crate) fn watch_alloc(&mut self, target: u32, exclusive: bool) -> Result<u32> {
        let limit = self.watches.len();
        let header = &mut self.header[0];
        let id = if header.watch_free != 0 {
            let id = header.watch_free;
            header.watch_free = self.watches[id].on_owner.next;
            id
        } else if header.watch_fresh + 1 < limit {
            header.watch_fresh += 1;
            header.watch_fresh
        } else {
            return Err(Errno::NOMEM);
        };
        header.watch_used += 1;
        self.watches[id] = Watch::zeroed();
        self.watches[id].target = target;
        let list = &mut self.descs[target].watches;
        if exclusive {
            list.push_back::<ON_TARGET, _>(&mut self.watches, id);
        } else {
            list.push_front::<ON_TARGET, _>(&mut self.watches, id);
        }
        Ok(id)
    }

    /// Gives a watch, already off its owner's list, back to the pool.
    pub(crate) fn watch_free(&mut self, id: u32) {
        let target = self.watches[id].target;
        self.descs[target]
            .watches
            .remove::<ON_TARGET, _>(&mut self.watches, id);
        let header = &mut self.header[0];
        self.watches[id] = Watch::zeroed();
        self.watches[id].on_owner.next = header.watch_free;
        header.watch_free = id;
        header.watch_used -= 1;
    }

    fn find_item(&self, epoll: u32, fd: i32, target: u32) -> Option<u32> {
        let mut id = self.descs[target].watches.head;
        while id != 0 {
            let watch = &self.watches[id];
            if watch.epoll == epoll && watch.fd == fd {
                return Some(id);
            }
            id = watch.on_target.next;
        }
        None
    }

    /// `epoll_ctl`. `op` is `EPOLL_CTL_ADD`, `MOD` or `DEL`; a watch is known
    /// by the descriptor number `fd` and the description `target` together.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EEXIST`, `ENOENT`, `ELOOP` as Linux, `ENOMEM` when watches
    /// are used up.
    pub fn epoll_ctl<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        epoll: DescId,
        op: i32,
        fd: i32,
        target: DescId,
        event: EpollEvent,
    ) -> Result<()> {
        let target_kind = self.kind(target)?;
        if self.kind(epoll)? != Kind::Epoll || epoll == target {
            return Err(Errno::INVAL);
        }
        let (ep, target) = (epoll.raw(), target.raw());
        let exclusive = op != libc::EPOLL_CTL_DEL && event.events & EXCLUSIVE != 0;
        if exclusive
            && (op == libc::EPOLL_CTL_MOD
                || target_kind == Kind::Epoll
                || event.events & !EXCLUSIVE_OK != 0)
        {
            return Err(Errno::INVAL);
        }
        if op == libc::EPOLL_CTL_ADD && target_kind == Kind::Epoll {
            let depth = self.depth_below(target, 0) + 1 + self.depth_above(ep, 0);
            if depth > MAX_NESTS || self.reaches(target, ep, 0) {
                return Err(Errno::LOOP);
            }
        }
        let found = self.find_item(ep, fd, target);
        match op {
            libc::EPOLL_CTL_ADD => {
                if found.is_some() {
                    return Err(Errno::EXIST);
                }
                let id = self.watch_alloc(target, exclusive)?;
                self.watches[id].epoll = ep;
                self.watches[id].fd = fd;
                self.epolls[ep]
                    .items
                    .push_back::<ON_OWNER, _>(&mut self.watches, id);
                self.arm_item(host, id, event);
            }
            libc::EPOLL_CTL_MOD => {
                let id = found.ok_or(Errno::NOENT)?;
                if self.watches[id].events & EXCLUSIVE != 0 {
                    return Err(Errno::INVAL);
                }
                self.arm_item(host, id, event);
            }
            libc::EPOLL_CTL_DEL => {
                let id = found.ok_or(Errno::NOENT)?;
                self.drop_item(id);
            }
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn arm_item<H: Host + ?Sized>(&mut self, host: &mut H, id: u32, event: EpollEvent) {
        let watch = &mut self.watches[id];
        watch.events = event.events | ERR | HUP;
        watch.data = event.data;
        let (target, epoll) = (watch.target, watch.epoll);
        if self.ready_mask(target) & self.watches[id].events != 0 && self.watches[id].is_ready == 0
        {
            self.push_ready(id);
            self.epoll_became_ready(host, epoll);
        }
    }

    fn push_ready(&mut self, id: u32) {
        let watch = &mut self.watches[id];
        if watch.is_ready == 0 {
            watch.is_ready = 1;
            self.epolls[watch.epoll]
                .ready
                .push_back::<ON_READY, _>(&mut self.watches, id);
        }
    }

    fn drop_ready(&mut self, id: u32) {
        let watch = &mut self.watches[id];
        if watch.is_ready == 1 {
            watch.is_ready = 0;
            self.epolls[watch.epoll]
                .ready
                .remove::<ON_READY, _>(&mut self.watches, id);
        }
    }

    /// Wakes one thread in `epoll_wait` and those who watch the instance.
    /// Returns whether a thread was waiting.
    fn epoll_became_ready<H: Host + ?Sized>(&mut self, host: &mut H, epoll: u32) -> bool {
        let woke = host.wake_one(wait_key(DescId::from_raw(epoll), Dir::Read));
        if !self.descs[epoll].watches.is_empty() {
            self.run_watches(host, epoll, IN | RDNORM, Wake::One);
        }
        woke
    }

    fn drop_item(&mut self, id: u32) {
        self.drop_ready(id);
        let epoll = self.watches[id].epoll;
        self.epolls[epoll]
            .items
            .remove::<ON_OWNER, _>(&mut self.watches, id);
        self.watch_free(id);
    }

    /// Something in `mask` (`ANY` for everything) may have happened on `id`:
    /// puts its watches on their ready lists and wakes the waiters.
    pub(crate) fn run_watches<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        id: u32,
        mask: u32,
        wake: Wake,
    ) {
        // Nested instances are at most MAX_NESTS deep, so this recursion is too.
        let mut next = self.descs[id].watches.head;
        let mut taken = false;
        while next != 0 {
            let at = next;
            let watch = self.watches[at];
            next = watch.on_target.next;
            if mask != ANY && mask & watch.events == 0 {
                continue;
            }
            if watch.thread != 0 {
                self.wake_poller(host, watch.thread - 1);
                continue;
            }
            let exclusive = watch.events & EXCLUSIVE != 0;
            // A one-shot watch that fired has no events left to wait for.
            if watch.events & !PRIVATE == 0 || (exclusive && taken) {
                continue;
            }
            self.push_ready(at);
            let woke = self.epoll_became_ready(host, watch.epoll);
            if exclusive && woke && wake == Wake::One {
                taken = true;
            }
        }
    }

    /// Removes all watches on a description that is about to close.
    pub(crate) fn drop_watches<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        while self.descs[id].watches.head != 0 {
            let watch = self.descs[id].watches.head;
            match self.watches[watch].thread {
                0 => self.drop_item(watch),
                thread => {
                    self.leave_poller(thread - 1, watch);
                    self.watch_free(watch);
                    self.wake_poller(host, thread - 1);
                }
            }
        }
    }

    pub(crate) fn close_epoll(&mut self, id: u32) {
        while self.epolls[id].items.head != 0 {
            self.drop_item(self.epolls[id].items.head);
        }
    }

    /// Stores ready events in `out` and returns how many, 0 if nothing is
    /// ready: then a caller that may block waits for `Dir::Read` on `epoll`.
    ///
    /// `EINVAL` if `epoll` is not an epoll instance or `out` is empty.
    pub fn epoll_collect<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        epoll: DescId,
        out: &mut [EpollEvent],
    ) -> Result<usize> {
        if self.kind(epoll)? != Kind::Epoll || out.is_empty() {
            return Err(Errno::INVAL);
        }
        let ep = epoll.raw();
        let mut count = 0;
        // Level-triggered watches go back to the end; look at each only once.
        for _ in 0..self.epolls[ep].ready.len {
            let id = self.epolls[ep].ready.head;
            if count == out.len() || id == 0 {
                break;
            }
            self.drop_ready(id);
            let Watch {
                target,
                events,
                data,
                ..
            } = self.watches[id];
            let ready = self.ready_mask(target) & events;
            if ready == 0 {
                continue;
            }
            out[count] = EpollEvent {
                events: ready,
                data,
            };
            count += 1;
            if events & ONESHOT != 0 {
                self.watches[id].events &= PRIVATE;
            } else if events & ET == 0 {
                self.push_ready(id);
            }
        }
        // What is left may concern another thread that sleeps on this instance.
        if !self.epolls[ep].ready.is_empty() {
            host.wake_one(wait_key(epoll, Dir::Read));
        }
        Ok(count)
    }

    /// Whether any watch is ready; forgets those that turn out not to be.
    pub(crate) fn epoll_mask(&mut self, epoll: u32) -> u32 {
        loop {
            let id = self.epolls[epoll].ready.head;
            if id == 0 {
                return 0;
            }
            let Watch { target, events, .. } = self.watches[id];
            if self.ready_mask(target) & events != 0 {
                return IN | RDNORM;
            }
            self.drop_ready(id);
        }
    }

    /// Links of the longest chain of instances below `epoll`.
    fn depth_below(&self, epoll: u32, level: u32) -> u32 {
        let mut deepest = 0;
        let mut id = self.epolls[epoll].items.head;
        while id != 0 && level <= MAX_NESTS {
            let watch = &self.watches[id];
            if self.kind_of(watch.target) == Some(Kind::Epoll) {
                deepest = deepest.max(1 + self.depth_below(watch.target, level + 1));
            }
            id = watch.on_owner.next;
        }
        deepest
    }

    /// Links of the longest chain of instances above `epoll`.
    fn depth_above(&self, epoll: u32, level: u32) -> u32 {
        let mut highest = 0;
        let mut id = self.descs[epoll].watches.head;
        while id != 0 && level <= MAX_NESTS {
            let watch = &self.watches[id];
            if watch.epoll != 0 {
                highest = highest.max(1 + self.depth_above(watch.epoll, level + 1));
            }
            id = watch.on_target.next;
        }
        highest
    }

    fn reaches(&self, from: u32, to: u32, level: u32) -> bool {
        let mut id = self.epolls[from].items.head;
        while id != 0 && level <= MAX_NESTS {
            let watch = &self.watches[id];
            if watch.target == to
                || (self.kind_of(watch.target) == Some(Kind::Epoll)
                    && self.reaches(watch.target, to, level + 1))
            {
                return true;
            }
            id = watch.on_owner.next;
        }
        false
    }
}
