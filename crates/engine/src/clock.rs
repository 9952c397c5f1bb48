//! The wall clock and the timer of the data-plane thread.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::AsRawFd;

const SECOND: u64 = 1_000_000_000;

/// The wall clock, nanoseconds since the Unix epoch.
pub fn wall_clock() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec.max(0) as u64)
        .saturating_mul(SECOND)
        .saturating_add(now.tv_nsec as u64)
}

/// A timer for a moment of the wall clock, for epoll. It is finer than epoll's
/// own time-out, which counts milliseconds.
pub struct Timer {
    descriptor: OwnedFd,
    armed: Option<u64>,
}

impl Timer {
    /// A timer that is not armed.
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
            armed: None,
        })
    }

    /// Arms the timer for `deadline` (wall clock, nanoseconds), or disarms it.
    pub fn set(&mut self, deadline: Option<u64>) {
        if self.armed == deadline {
            return;
        }
        self.armed = deadline;
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

    /// The timer fired: it is no longer armed.
    pub fn fired(&mut self) {
        let _ = rustix::io::read(&self.descriptor, &mut [0u8; 8]);
        self.armed = None;
    }
}
