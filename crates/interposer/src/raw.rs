//! System calls without libc: what the interposer itself may use anywhere.

use core::ffi::c_int;
use syscalls::{Errno, Sysno};

pub(crate) use syscalls::raw_syscall as sys;

/// Sets the calling thread's errno.
pub(crate) fn set_errno(code: i32) {
    // SAFETY: __errno_location returns the thread's own errno, always valid.
    unsafe { *libc::__errno_location() = code }
}

/// The calling thread's errno.
pub(crate) fn errno() -> i32 {
    // SAFETY: as for `set_errno`.
    unsafe { *libc::__errno_location() }
}

/// The C convention for a kernel result: -1 and errno, or the value.
pub(crate) fn ret(result: usize) -> isize {
    match Errno::from_ret(result) {
        Ok(value) => value as isize,
        Err(e) => fail(e.into_raw()) as isize,
    }
}

/// Sets errno and returns -1.
pub(crate) fn fail(code: c_int) -> c_int {
    set_errno(code);
    -1
}

/// The calling thread's kernel id.
pub(crate) fn gettid() -> u32 {
    // SAFETY: gettid has no arguments and cannot fail.
    unsafe { sys!(Sysno::gettid) as u32 }
}

/// The process id.
pub(crate) fn getpid() -> u32 {
    // SAFETY: getpid has no arguments and cannot fail.
    unsafe { sys!(Sysno::getpid) as u32 }
}

/// The real user.
pub(crate) fn getuid() -> u32 {
    // SAFETY: getuid has no arguments and cannot fail.
    unsafe { sys!(Sysno::getuid) as u32 }
}

/// The effective user.
pub(crate) fn geteuid() -> u32 {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { sys!(Sysno::geteuid) as u32 }
}

/// Writes a whole line to the server's standard error, ignoring failures.
pub(crate) fn write_stderr(bytes: &[u8]) {
    // SAFETY: the slice is valid for its length.
    unsafe {
        sys!(Sysno::write, 2, bytes.as_ptr(), bytes.len());
    }
}

/// Ends the process at once, without handlers.
pub(crate) fn exit_group(status: c_int) -> ! {
    loop {
        // SAFETY: exit_group does not return.
        unsafe {
            sys!(Sysno::exit_group, status);
        }
    }
}

/// A fixed buffer to format a line into without allocating. Cuts at the end.
pub(crate) struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; 512],
            len: 0,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Makes a C string of it.
    pub(crate) fn end(&mut self) {
        self.len = self.len.min(self.bytes.len() - 1);
        self.bytes[self.len] = 0;
        self.len += 1;
    }
}

/// Anonymous memory of the calling process, given back at the end: room for
/// lists whose length the program decides, where nothing may be allocated.
pub(crate) struct Pages {
    address: usize,
    length: usize,
}

impl Pages {
    /// Room for `length` bytes, zeroed. `None` when there is no memory.
    pub(crate) fn new(length: usize) -> Option<Self> {
        let length = length.max(1).next_multiple_of(4096);
        // SAFETY: a new private mapping wherever the kernel puts it.
        let address = unsafe {
            sys!(
                Sysno::mmap,
                0,
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                usize::MAX,
                0
            )
        };
        Errno::from_ret(address)
            .is_ok()
            .then_some(Self { address, length })
    }

    /// Where it begins.
    pub(crate) fn start(&self) -> *mut u8 {
        self.address as *mut u8
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping; its users do not outlive it.
        unsafe { sys!(Sysno::munmap, self.address, self.length) };
    }
}

impl core::fmt::Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let room = self.bytes.len() - self.len;
        let n = s.len().min(room);
        self.bytes[self.len..self.len + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// Formats a line, for messages and refusals.
macro_rules! line {
    ($($arg:tt)*) => {{
        let mut line = $crate::raw::Line::new();
        let _ = core::fmt::Write::write_fmt(&mut line, format_args!($($arg)*));
        line
    }};
}
pub(crate) use line;
