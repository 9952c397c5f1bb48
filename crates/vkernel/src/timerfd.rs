//! Timers in virtual time. The caller says what time it is; armed timers are
//! in a heap ordered by deadline, then by creation.

use crate::desc::Kind;
use crate::readiness::{IN, Wake};
use crate::table::record;
use crate::{DescId, Errno, Host, Result, VKernel};

record! {
    pub(crate) struct Timer {
        /// Next expiry in ns, 0 if not armed.
        deadline: u64,
        interval: u64,
        /// Expirations not read yet.
        ticks: u64,
        clock: i32,
        /// Place in the heap plus 1, 0 if not in it.
        at: u32,
        /// 1 after an expiry, until the next read or setting. Like Linux, a
        /// periodic timer sleeps meanwhile and counts what it missed later.
        expired: u32,
        pad: u32,
    }
}

/// A timer's setting, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimerSetting {
    /// Time to the next expiry, 0 if not armed.
    pub value: u64,
    /// Time between expiries, 0 for a single one.
    pub interval: u64,
}

impl VKernel {
    /// A timer with one reference. `clock` is kept for the caller, who
    /// converts all times of this interface to one virtual clock.
    pub fn timerfd(&mut self, clock: i32, flags: u32) -> Result<DescId> {
        let id = self.desc_alloc(Kind::TimerFd)?;
        self.descs[id].flags = flags | libc::O_RDWR as u32;
        self.timers[id].clock = clock;
        Ok(DescId::from_raw(id))
    }

    fn timer_id(&self, desc: DescId) -> Result<u32> {
        if self.kind(desc)? == Kind::TimerFd {
            Ok(desc.raw())
        } else {
            Err(Errno::INVAL)
        }
    }

    /// The clock given at creation.
    pub fn timerfd_clock(&self, desc: DescId) -> Result<i32> {
        Ok(self.timers[self.timer_id(desc)?].clock)
    }

    /// Virtual time has come to `now`: that of what happens next.
    pub fn saw_time(&mut self, now: u64) {
        let header = self.hdr();
        header.now = header.now.max(now);
    }

    /// Sets a timer and returns the old setting. `setting.value` is relative
    /// to `now`, or the time itself if `absolute`; 0 disarms. A time that has
    /// passed expires at once.
    pub fn timerfd_settime<H: Host + ?Sized>(
        &mut self,
        host: &mut H,
        desc: DescId,
        now: u64,
        absolute: bool,
        setting: TimerSetting,
    ) -> Result<TimerSetting> {
        let id = self.timer_id(desc)?;
        self.saw_time(now);
        let old = self.current_setting(id, now);
        self.timer_disarm(id);
        let timer = &mut self.timers[id];
        timer.ticks = 0;
        timer.expired = 0;
        timer.deadline = 0;
        timer.interval = setting.interval;
        if setting.value != 0 {
            timer.deadline = if absolute {
                setting.value
            } else {
                now.saturating_add(setting.value)
            };
            if timer.deadline <= now {
                self.expire(host, id);
            } else {
                self.heap_insert(id);
            }
        }
        Ok(old)
    }

    /// Time to the next expiry and the interval.
    pub fn timerfd_gettime(&mut self, desc: DescId, now: u64) -> Result<TimerSetting> {
        let id = self.timer_id(desc)?;
        self.saw_time(now);
        self.rearm(id, now);
        Ok(self.current_setting(id, now))
    }

    fn current_setting(&self, id: u32, now: u64) -> TimerSetting {
        let timer = &self.timers[id];
        let value = if timer.expired != 0 && timer.interval != 0 {
            timer.interval - (now - timer.deadline.min(now)) % timer.interval
        } else if timer.expired != 0 {
            0
        } else {
            timer.deadline.saturating_sub(now)
        };
        TimerSetting {
            value,
            interval: timer.interval,
        }
    }

    /// Starts a periodic timer again after its expiry was noticed, counting
    /// the periods that passed meanwhile.
    fn rearm(&mut self, id: u32, now: u64) {
        let timer = &mut self.timers[id];
        if timer.expired == 0 || timer.interval == 0 {
            return;
        }
        let missed = now.saturating_sub(timer.deadline) / timer.interval;
        timer.ticks += missed;
        timer.deadline = timer
            .deadline
            .saturating_add((missed + 1).saturating_mul(timer.interval));
        timer.expired = 0;
        self.heap_insert(id);
    }

    /// Takes the number of expirations; `EAGAIN` if there was none.
    pub fn timerfd_read(&mut self, desc: DescId, now: u64) -> Result<u64> {
        let id = self.timer_id(desc)?;
        self.saw_time(now);
        if self.timers[id].ticks == 0 {
            return Err(Errno::AGAIN);
        }
        self.rearm(id, now);
        Ok(core::mem::take(&mut self.timers[id].ticks))
    }

    /// When the earliest armed timer expires.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        (self.header[0].timers_armed > 0).then(|| self.timers[self.timer_heap[0]].deadline)
    }

    /// Brings virtual time to `now` and expires what is due, earliest first,
    /// ties in order of creation. Returns how many timers expired.
    pub fn advance<H: Host + ?Sized>(&mut self, host: &mut H, now: u64) -> u32 {
        self.saw_time(now);
        let mut count = 0;
        while let Some(deadline) = self.next_deadline() {
            if deadline > now {
                break;
            }
            let id = self.timer_heap[0];
            self.timer_disarm(id);
            self.expire(host, id);
            count += 1;
        }
        count
    }

    fn expire<H: Host + ?Sized>(&mut self, host: &mut H, id: u32) {
        let timer = &mut self.timers[id];
        timer.ticks += 1;
        timer.expired = 1;
        self.notify(host, id, IN, Wake::All);
    }

    pub(crate) fn timerfd_mask(&self, id: u32) -> u32 {
        if self.timers[id].ticks > 0 { IN } else { 0 }
    }

    fn before(&self, a: u32, b: u32) -> bool {
        let key = |id: u32| (self.timers[id].deadline, self.descs[id].seq);
        key(a) < key(b)
    }

    fn heap_place(&mut self, at: u32, id: u32) {
        self.timer_heap[at] = id;
        self.timers[id].at = at + 1;
    }

    fn heap_insert(&mut self, id: u32) {
        let at = self.header[0].timers_armed;
        self.header[0].timers_armed += 1;
        self.heap_place(at, id);
        self.heap_up(at);
    }

    fn heap_up(&mut self, mut at: u32) {
        let id = self.timer_heap[at];
        while at > 0 {
            let parent = (at - 1) / 2;
            let above = self.timer_heap[parent];
            if !self.before(id, above) {
                break;
            }
            self.heap_place(at, above);
            at = parent;
        }
        self.heap_place(at, id);
    }

    fn heap_down(&mut self, mut at: u32) {
        let id = self.timer_heap[at];
        let len = self.header[0].timers_armed;
        loop {
            let mut child = 2 * at + 1;
            if child >= len {
                break;
            }
            if child + 1 < len && self.before(self.timer_heap[child + 1], self.timer_heap[child]) {
                child += 1;
            }
            let below = self.timer_heap[child];
            if !self.before(below, id) {
                break;
            }
            self.heap_place(at, below);
            at = child;
        }
        self.heap_place(at, id);
    }

    /// Takes a timer out of the heap, if it is there.
    pub(crate) fn timer_disarm(&mut self, id: u32) {
        let Some(at) = self.timers[id].at.checked_sub(1) else {
            return;
        };
        self.timers[id].at = 0;
        self.header[0].timers_armed -= 1;
        let len = self.header[0].timers_armed;
        let last = self.timer_heap[len];
        self.timer_heap[len] = 0;
        if last != id {
            self.heap_place(at, last);
            self.heap_up(at);
            let at = self.timers[last].at - 1;
            self.heap_down(at);
        }
    }
}
