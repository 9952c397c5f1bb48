//! The wall clock, and an alarm that wakes the data-plane thread.

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

const SECOND: u64 = 1_000_000_000;

/// The wall clock, nanoseconds since the Unix epoch.
pub fn wall_clock() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec.max(0) as u64)
        .saturating_mul(SECOND)
        .saturating_add(now.tv_nsec as u64)
}

/// A timer for a moment of the wall clock, for epoll. It is finer than epoll's
/// own time-out, which counts milliseconds. Any thread may arm it; the one with
/// the epoll instance hears of it.
pub struct Alarm {
    descriptor: OwnedFd,
    armed: Mutex<Option<u64>>,
}

impl Alarm {
    /// An alarm that is not armed.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let descriptor = timerfd_create(TimerfdClockId::Realtime, flags)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self {
            descriptor,
            armed: Mutex::new(None),
        })
    }

    /// Arms it for `deadline` (wall clock, nanoseconds), or disarms it.
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
        // A value of zero disarms; a moment in the past fires at once.
        let value = deadline.map_or(zero, |at| Timespec {
            tv_sec: (at.max(1) / SECOND) as i64,
            tv_nsec: (at.max(1) % SECOND) as i64,
        });
        let timer = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        // Fails only for values out of range, which the division rules out.
        let _ = timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &timer);
    }

    /// It was reported: unless it has been armed anew since, it no longer is.
    pub fn fired(&self) {
        let mut armed = lock(&self.armed);
        if rustix::io::read(&self.descriptor, &mut [0u8; 8]).is_ok() {
            *armed = None;
        }
    }
}
