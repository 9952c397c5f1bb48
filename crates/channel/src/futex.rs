//! Futex wait and wake on words of the shared segment, see futex(2).

use core::sync::atomic::AtomicU32;
use syscalls::{Errno, Sysno, raw_syscall};

const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;

/// Sleeps until `word` is woken, unless it no longer holds `expected`.
///
/// May return spuriously (signals, a restore): callers re-check their
/// condition. Not private, so it works between processes.
pub fn wait(word: &AtomicU32, expected: u32) {
    // SAFETY: FUTEX_WAIT only reads the word, which outlives the call by the
    // borrow; a null timeout means no time-out.
    unsafe {
        raw_syscall!(Sysno::futex, word.as_ptr(), FUTEX_WAIT, expected, 0, 0, 0);
    }
}

/// As [`wait`], for at most `nanoseconds` of real time. Returns whether the
/// time ran out. For the node only: the server never sleeps in real time.
pub fn wait_for(word: &AtomicU32, expected: u32, nanoseconds: u64) -> bool {
    let timeout = [nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000];
    // SAFETY: as in `wait`; `timeout` has the layout of a struct timespec of a
    // 64-bit kernel and lives across the call.
    let code = unsafe {
        raw_syscall!(
            Sysno::futex,
            word.as_ptr(),
            FUTEX_WAIT,
            expected,
            timeout.as_ptr(),
            0,
            0
        )
    };
    Errno::from_ret(code) == Err(Errno::ETIMEDOUT)
}

/// Wakes up to `count` sleepers of `word`.
pub fn wake(word: &AtomicU32, count: u32) {
    // SAFETY: FUTEX_WAKE does not touch memory through the address.
    unsafe {
        raw_syscall!(Sysno::futex, word.as_ptr(), FUTEX_WAKE, count, 0, 0, 0);
    }
}
