//! futex(2) by number: programs' own locks, in the order of the schedule.

use crate::raw::fail;
use crate::refuse::{self, Unsupported};
use crate::turn::{self, Op, begin};
use crate::world::world;
use crate::{clock, sync};
use core::ffi::{c_int, c_long, c_ulong};
use crane_scheduler::Wake;

const PRIVATE: c_int = 128;
const CLOCK_REALTIME: c_int = 256;

/// Answers the operations that wait, wake and requeue; PI and WAITV are refused
/// with ENOSYS, for which programs have other ways.
pub(crate) unsafe fn futex(a: [c_ulong; 6]) -> c_long {
    let me = begin(Op::Futex);
    let address = a[0] as *mut u32;
    let op = a[1] as c_int;
    let value = a[2] as u32;
    let key = |address: c_ulong| sync::key(address as usize, op & PRIVATE == 0, me) | 1 << 56;
    // SAFETY: the caller passes a valid word and, where the operation has one,
    // a valid time or null.
    unsafe {
        match op & 127 {
            libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => {
                if *address != value {
                    return fail(libc::EAGAIN).into();
                }
                let at = a[3] as *const libc::timespec;
                let mut deadline = None;
                if !at.is_null() {
                    let until = if op & 127 == libc::FUTEX_WAIT {
                        clock::duration(at).map(clock::after)
                    } else if op & CLOCK_REALTIME != 0 {
                        clock::deadline_from(libc::CLOCK_REALTIME, at)
                    } else {
                        clock::deadline_from(libc::CLOCK_MONOTONIC, at)
                    };
                    match until {
                        Ok(until) => deadline = Some(until),
                        Err(code) => return fail(code).into(),
                    }
                }
                match turn::wait(me, key(a[0]), deadline) {
                    Wake::Woken => 0,
                    Wake::TimedOut => fail(libc::ETIMEDOUT).into(),
                    Wake::Interrupted => fail(libc::EINTR).into(),
                }
            }
            libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET => wake(key(a[0]), value),
            libc::FUTEX_REQUEUE | libc::FUTEX_CMP_REQUEUE => {
                if op & 127 == libc::FUTEX_CMP_REQUEUE && *address != a[5] as u32 {
                    return fail(libc::EAGAIN).into();
                }
                let woken = wake(key(a[0]), value);
                let moved = world().scheduler.requeue(key(a[0]), key(a[4]), a[3] as u32);
                woken + c_long::from(moved)
            }
            _ => {
                refuse::count(Unsupported::RawSystemCall);
                fail(libc::ENOSYS).into()
            }
        }
    }
}

fn wake(key: u64, most: u32) -> c_long {
    let mut count = 0;
    while count < c_long::from(most) && turn::wake_one(key) {
        count += 1;
    }
    count
}
