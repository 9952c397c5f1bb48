//! Cursors over the caller's memory, so that vectored calls keep Linux's
//! atomicity and message boundaries without a copy in between.

use core::marker::PhantomData;
use core::ptr;

use crate::{Errno, Result};

/// Bytes to send: one slice or an array of `iovec`.
#[derive(Clone, Copy)]
pub struct Gather<'a> {
    current: *const u8,
    current_len: usize,
    rest: &'a [libc::iovec],
    total: usize,
    bytes: PhantomData<&'a [u8]>,
}

/// Sums the lengths as Linux does: more than `isize::MAX` bytes is `EINVAL`.
fn total_len(iov: &[libc::iovec]) -> Result<usize> {
    let mut total: usize = 0;
    for part in iov {
        total = total.checked_add(part.iov_len).ok_or(Errno::INVAL)?;
    }
    if total > isize::MAX as usize {
        return Err(Errno::INVAL);
    }
    Ok(total)
}

impl<'a> Gather<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Gather {
            current: bytes.as_ptr(),
            current_len: bytes.len(),
            rest: &[],
            total: bytes.len(),
            bytes: PhantomData,
        }
    }

    /// The parts of `iov` in order; `EINVAL` if they are longer than
    /// `isize::MAX` together.
    ///
    /// # Safety
    ///
    /// Every part must be readable for `'a` and not lie in the region.
    pub unsafe fn from_iovecs(iov: &'a [libc::iovec]) -> Result<Self> {
        Ok(Gather {
            current: ptr::null(),
            current_len: 0,
            rest: iov,
            total: total_len(iov)?,
            bytes: PhantomData,
        })
    }

    /// Bytes that are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    fn settle(&mut self) {
        while self.current_len == 0 {
            let Some((first, rest)) = self.rest.split_first() else {
                return;
            };
            self.current = first.iov_base.cast();
            self.current_len = first.iov_len;
            self.rest = rest;
        }
    }

    /// The next contiguous bytes, at most `limit`; empty at the end.
    pub(crate) fn segment(&mut self, limit: usize) -> &'a [u8] {
        self.settle();
        let len = self.current_len.min(limit);
        if len == 0 {
            return &[];
        }
        // SAFETY: `current` points to `current_len >= len` readable bytes that
        // live for 'a, by the constructors' contracts.
        let bytes = unsafe { core::slice::from_raw_parts(self.current, len) };
        self.current = self.current.wrapping_add(len);
        self.current_len -= len;
        self.total -= len;
        bytes
    }

    /// Copies the next `to.len()` bytes, which must be left.
    pub fn copy_to(&mut self, to: &mut [u8]) {
        let mut done = 0;
        while done < to.len() {
            let bytes = self.segment(to.len() - done);
            to[done..done + bytes.len()].copy_from_slice(bytes);
            done += bytes.len();
        }
    }
}

/// Space to receive into: one slice or an array of `iovec`.
pub struct Scatter<'a> {
    current: *mut u8,
    current_len: usize,
    rest: &'a [libc::iovec],
    total: usize,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> Scatter<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Scatter {
            current: bytes.as_mut_ptr(),
            current_len: bytes.len(),
            rest: &[],
            total: bytes.len(),
            bytes: PhantomData,
        }
    }

    /// The parts of `iov` in order; `EINVAL` if they are longer than
    /// `isize::MAX` together.
    ///
    /// # Safety
    ///
    /// Every part must be writable for `'a` and not lie in the region. Parts
    /// may overlap, as Linux allows.
    pub unsafe fn from_iovecs(iov: &'a [libc::iovec]) -> Result<Self> {
        Ok(Scatter {
            current: ptr::null_mut(),
            current_len: 0,
            rest: iov,
            total: total_len(iov)?,
            bytes: PhantomData,
        })
    }

    /// Space that is left, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether no space is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Appends `bytes`, for which there must be space.
    pub(crate) fn copy_from(&mut self, mut bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.total);
        while !bytes.is_empty() {
            if self.current_len == 0 {
                let Some((first, rest)) = self.rest.split_first() else {
                    return;
                };
                self.current = first.iov_base.cast();
                self.current_len = first.iov_len;
                self.rest = rest;
                continue;
            }
            let len = self.current_len.min(bytes.len());
            // SAFETY: `current` points to `current_len >= len` writable bytes
            // by the constructors' contracts; `bytes` is in the region or on
            // our stack, so the two do not overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.current, len) };
            self.current = self.current.wrapping_add(len);
            self.current_len -= len;
            self.total -= len;
            bytes = &bytes[len..];
        }
    }
}
