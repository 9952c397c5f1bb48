//! futex(2) by number: programs' own locks, in the order of the schedule.

use crate::clock;
use crate::memory::memory_key;
use crate::objects::{is_alive, owner_id, private_key};
use crate::raw::fail;
use crate::refuse::{self, Unsupported};
use crate::turn::{self, Op, begin_on};
use crate::world::world;
use core::ffi::{c_int, c_long, c_ulong};
use crane_scheduler::{Slot, Wake};

const PRIVATE: c_int = 128;
const CLOCK_REALTIME: c_int = 256;
const COMMAND: c_int = 127;
/// Since Linux 5.14: as LOCK_PI, on the monotonic clock.
const LOCK_PI2: c_int = 13;

const PRIVATE_TAG: u64 = 1 << 56;

/// Bits of a word that LOCK_PI works on.
const TID_MASK: u32 = 0x3fff_ffff;
const WAITERS: u32 = 0x8000_0000;

/// Answers all operations but FD, WAIT_REQUEUE_PI and CMP_REQUEUE_PI, for
/// whose ENOSYS programs have other ways.
pub(crate) unsafe fn futex(a: [c_ulong; 6]) -> c_long {
    let me = begin_on(Op::Futex, a[0] as *const u32);
    let command = a[1] as c_int & COMMAND;
    // SAFETY: the caller passes valid words and, where the operation has one,
    // a valid time or null.
    match unsafe { Call { a, me }.run(command) } {
        Ok(value) => value,
        Err(code) => fail(code).into(),
    }
}

struct Call {
    a: [c_ulong; 6],
    me: Slot,
}

type Answer = Result<c_long, c_int>;

impl Call {
    fn word(&self) -> *mut u32 {
        self.a[0] as *mut u32
    }

    fn value(&self) -> u32 {
        self.a[2] as u32
    }

    /// The wait key of a word.
    fn key(&self, address: c_ulong) -> u64 {
        if self.a[1] as c_int & PRIVATE != 0 {
            private_key(address as *const u32, self.me) | PRIVATE_TAG
        } else {
            memory_key(address as usize, self.me)
        }
    }

    /// Whether anybody can wait: keys of memory that is perhaps shared are
    /// costly, and most programs that ask for them wake without need.
    fn may_have_waiters(&self) -> bool {
        self.a[1] as c_int & PRIVATE != 0 || world().shared_futexes != 0
    }

    unsafe fn run(&self, command: c_int) -> Answer {
        let realtime = self.a[1] as c_int & CLOCK_REALTIME != 0;
        if realtime && !matches!(command, libc::FUTEX_WAIT_BITSET | LOCK_PI2) {
            return Err(libc::ENOSYS);
        }
        if self.a[0] < 4096 {
            return Err(libc::EFAULT);
        }
        if !self.a[0].is_multiple_of(4) {
            return Err(libc::EINVAL);
        }
        // SAFETY: same contract for all.
        unsafe {
            match command {
                libc::FUTEX_WAIT => self.wait(u32::MAX, |at| clock::duration(at).map(clock::after)),
                libc::FUTEX_WAIT_BITSET => {
                    let id = if realtime {
                        libc::CLOCK_REALTIME
                    } else {
                        libc::CLOCK_MONOTONIC
                    };
                    self.wait(self.a[5] as u32, |at| absolute(id, at))
                }
                libc::FUTEX_WAKE => self.wake(self.a[0], self.value(), u32::MAX),
                libc::FUTEX_WAKE_BITSET => self.wake(self.a[0], self.value(), self.a[5] as u32),
                libc::FUTEX_REQUEUE => self.requeue(),
                libc::FUTEX_CMP_REQUEUE => {
                    if *self.word() != self.a[5] as u32 {
                        return Err(libc::EAGAIN);
                    }
                    self.requeue()
                }
                libc::FUTEX_WAKE_OP => self.wake_op(),
                libc::FUTEX_LOCK_PI => self.lock_pi(libc::CLOCK_REALTIME),
                LOCK_PI2 if realtime => self.lock_pi(libc::CLOCK_REALTIME),
                LOCK_PI2 => self.lock_pi(libc::CLOCK_MONOTONIC),
                libc::FUTEX_TRYLOCK_PI => self.try_lock_pi(libc::EAGAIN),
                libc::FUTEX_UNLOCK_PI => self.unlock_pi(),
                _ => {
                    refuse::count(Unsupported::RawSystemCall);
                    Err(libc::ENOSYS)
                }
            }
        }
    }

    unsafe fn wait(
        &self,
        bits: u32,
        until: impl FnOnce(*const libc::timespec) -> Result<u64, c_int>,
    ) -> Answer {
        let at = self.a[3] as *const libc::timespec;
        let deadline = if at.is_null() { None } else { Some(until(at)?) };
        if bits == 0 {
            return Err(libc::EINVAL);
        }
        // SAFETY: the caller passes a valid word.
        if unsafe { *self.word() } != self.value() {
            return Err(libc::EAGAIN);
        }
        let key = self.key(self.a[0]);
        world().threads[self.me as usize].futex_bits = bits;
        match turn::wait(self.me, key, deadline) {
            Wake::Woken => Ok(0),
            Wake::TimedOut => Err(libc::ETIMEDOUT),
            Wake::Interrupted => Err(libc::EINTR),
        }
    }

    /// Wakes up to `most` waiters that share a bit with `bits`; one at least is
    /// tried, as the kernel does.
    fn wake(&self, address: c_ulong, most: u32, bits: u32) -> Answer {
        if bits == 0 {
            return Err(libc::EINVAL);
        }
        if !self.may_have_waiters() {
            return Ok(0);
        }
        let key = self.key(address);
        let most = (most as i32).max(1) as u32;
        let mut count = 0;
        let mut last = 0;
        while count < most {
            let w = world();
            let Some(slot) = w.scheduler.waiter_after(key, last) else {
                break;
            };
            if w.threads[slot as usize].futex_bits & bits != 0 {
                w.scheduler.wake_thread(slot, Wake::Woken);
                count += 1;
            } else {
                last = slot;
            }
        }
        Ok(count.into())
    }

    fn requeue(&self) -> Answer {
        let (wakes, moves) = (self.value() as i32, self.a[3] as i32);
        if wakes < 0 || moves < 0 || !self.a[4].is_multiple_of(4) {
            return Err(libc::EINVAL);
        }
        if !self.may_have_waiters() {
            return Ok(0);
        }
        let (from, to) = (self.key(self.a[0]), self.key(self.a[4]));
        let mut woken = 0;
        while woken < wakes && turn::wake_one(from) {
            woken += 1;
        }
        let moved = if from == to {
            0
        } else {
            world().scheduler.requeue(from, to, moves as u32)
        };
        Ok(c_long::from(woken) + c_long::from(moved))
    }

    unsafe fn wake_op(&self) -> Answer {
        if !self.a[4].is_multiple_of(4) {
            return Err(libc::EINVAL);
        }
        let encoded = self.a[5] as u32;
        let extend = |twelve: u32| ((twelve << 20) as i32) >> 20;
        let mut operand = extend(encoded >> 12 & 0xfff);
        let comparand = extend(encoded & 0xfff);
        if encoded >> 28 & 8 != 0 {
            operand = 1 << (operand & 31);
        }
        let second = self.a[4] as *mut i32;
        // SAFETY: the caller passes two valid words.
        let old = unsafe { *second };
        let new = match encoded >> 28 & 7 {
            0 => operand,
            1 => old.wrapping_add(operand),
            2 => old | operand,
            3 => old & !operand,
            4 => old ^ operand,
            _ => return Err(libc::ENOSYS),
        };
        let holds = match encoded >> 24 & 15 {
            0 => old == comparand,
            1 => old != comparand,
            2 => old < comparand,
            3 => old <= comparand,
            4 => old > comparand,
            5 => old >= comparand,
            _ => return Err(libc::ENOSYS),
        };
        // SAFETY: as above.
        unsafe { *second = new };
        let mut count = self.wake(self.a[0], self.value(), u32::MAX)?;
        if holds {
            count += self.wake(self.a[4], self.a[3] as u32, u32::MAX)?;
        }
        Ok(count)
    }

    unsafe fn try_lock_pi(&self, busy: c_int) -> Answer {
        let tid = owner_id(self.me);
        let word = self.word();
        // SAFETY: the caller passes a valid word.
        unsafe {
            match *word & TID_MASK {
                0 => {
                    *word = *word & !TID_MASK | tid;
                    Ok(0)
                }
                owner if owner == tid => Err(libc::EDEADLK),
                owner if !is_alive(owner) => Err(libc::ESRCH),
                _ => Err(busy),
            }
        }
    }

    unsafe fn lock_pi(&self, id: c_int) -> Answer {
        let at = self.a[3] as *const libc::timespec;
        // SAFETY: the caller passes a valid word and a valid time or null.
        unsafe {
            let mut deadline = None;
            if !at.is_null() {
                deadline = Some(absolute(id, at)?);
            }
            match self.try_lock_pi(libc::EBUSY) {
                Err(libc::EBUSY) => {}
                answer => return answer,
            }
            *self.word() |= WAITERS;
            let key = self.key(self.a[0]);
            let tid = owner_id(self.me);
            world().threads[self.me as usize].futex_bits = u32::MAX;
            loop {
                let why = turn::wait(self.me, key, deadline);
                // Who unlocks names the next owner.
                if *self.word() & TID_MASK == tid {
                    return Ok(0);
                }
                if why == Wake::TimedOut {
                    if world().scheduler.waiter_after(key, 0).is_none() {
                        *self.word() &= !WAITERS;
                    }
                    return Err(libc::ETIMEDOUT);
                }
            }
        }
    }

    unsafe fn unlock_pi(&self) -> Answer {
        // SAFETY: the caller passes a valid word.
        unsafe {
            if *self.word() & TID_MASK != owner_id(self.me) {
                return Err(libc::EPERM);
            }
            *self.word() = 0;
            if !self.may_have_waiters() {
                return Ok(0);
            }
            let key = self.key(self.a[0]);
            let w = world();
            if let Some(next) = w.scheduler.waiter_after(key, 0) {
                let more = w.scheduler.waiter_after(key, next).is_some();
                let tid = w.threads[next as usize].tid;
                *self.word() = tid | if more { WAITERS } else { 0 };
                w.scheduler.wake_thread(next, Wake::Woken);
            }
        }
        Ok(0)
    }
}

/// The kernel refuses absolute times before its clocks began.
fn absolute(id: c_int, at: *const libc::timespec) -> Result<u64, c_int> {
    // SAFETY: the caller of futex(2) passes a valid time.
    unsafe {
        clock::duration(at)?;
        clock::deadline_from(id, at)
    }
}
