//! The clocks, and an alarm that wakes the data-plane thread.

use crate::shared::lock;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const SECOND: u64 = 1_000_000_000;
/// A change of virtual time's pace that an alarm must not miss.
const NOTICED: u64 = 1_000_000;

/// The wall clock, nanoseconds since the Unix epoch. By way of the C library, so
/// that it can be set for one process in tests.
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos().try_into().unwrap_or(u64::MAX))
}

/// A clock that nobody sets, in nanoseconds.
fn monotonic_clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    (now.tv_sec.max(0) as u64)
        .saturating_mul(SECOND)
        .saturating_add(now.tv_nsec as u64)
}

/// A timer for a moment of virtual time, for epoll. It is finer than epoll's
/// own time-out, which counts milliseconds. Any thread may arm it; the one with
/// the epoll instance hears of it.
///
/// It counts on the monotonic clock. Where virtual time is slower it comes too
/// early; who hears of it looks at the time.
pub struct Alarm {
    descriptor: OwnedFd,
    /// Virtual time less the monotonic clock.
    ahead: AtomicU64,
    armed: Mutex<Option<u64>>,
    /// What it was told last that virtual time is.
    #[cfg(test)]
    told: AtomicU64,
}

impl Alarm {
    /// An alarm that is not armed.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            descriptor,
            ahead: AtomicU64::new(wall_clock().wrapping_sub(monotonic_clock())),
            armed: Mutex::new(None),
            #[cfg(test)]
            told: AtomicU64::new(0),
        })
    }

    /// It is `now` in virtual time.
    pub fn adjust(&self, now: u64) {
        #[cfg(test)]
        self.told.store(now, Ordering::Relaxed);
        let ahead = now.wrapping_sub(monotonic_clock());
        let armed = lock(&self.armed);
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        if armed.is_some() && (ahead.wrapping_sub(before) as i64).unsigned_abs() > NOTICED {
            self.settime(*armed);
        }
    }

    /// Arms it for `deadline` (virtual time, nanoseconds), or disarms it.
    pub fn set(&self, deadline: Option<u64>) {
        let mut armed = lock(&self.armed);
        if *armed != deadline {
            *armed = deadline;
            self.settime(deadline);
        }
    }

    /// Arms it for `deadline` if that is earlier than what it is armed for.
    pub fn set_earlier(&self, deadline: u64) {
        let mut armed = lock(&self.armed);
        if armed.is_none_or(|known| deadline < known) {
            *armed = Some(deadline);
            self.settime(Some(deadline));
        }
    }

    fn settime(&self, deadline: Option<u64>) {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ahead = self.ahead.load(Ordering::Relaxed);
        // A value of zero disarms; a moment in the past fires at once.
        let value = deadline.map_or(zero, |at| {
            let at = (at.wrapping_sub(ahead) as i64).max(1) as u64;
            Timespec {
                tv_sec: (at / SECOND) as i64,
                tv_nsec: (at % SECOND) as i64,
            }
        });
        let timer = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        // Fails only for values out of range, which the division rules out.
        let _ = timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &timer);
    }

    /// What it was told last that virtual time is; 0 for nothing yet.
    #[cfg(test)]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Microseconds of virtual time from `now` until it goes off.
    #[cfg(test)]
    pub fn micros_until(&self, now: u64) -> Option<u64> {
        lock(&self.armed).map(|at| at.saturating_sub(now).div_ceil(1000))
    }

    /// It was reported: unless it has been armed anew since, it no longer is.
    pub fn fired(&self) {
        let mut armed = lock(&self.armed);
        if rustix::io::read(&self.descriptor, &mut [0u8; 8]).is_ok() {
            *armed = None;
        }
    }
}
