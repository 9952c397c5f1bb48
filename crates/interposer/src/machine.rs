//! What the machine would show of itself: the same on every replica.

use crate::raw::{self, Line, fail, line, sys};
use crate::real::real;
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{clock, random};
use core::ffi::{c_char, c_int};
use syscalls::Sysno;

/// Files that are not the real ones. Lives on the stack for one call.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Special {
    Random,
    Text(Line),
    /// Of a process: the real one, but for what the machine shows in it.
    Status,
}

pub(crate) fn special(path: &[u8]) -> Option<Special> {
    if path == b"/dev/urandom" || path == b"/dev/random" {
        return Some(Special::Random);
    }
    if let Some(name) = path.strip_prefix(b"/sys/devices/system/cpu/") {
        let one = matches!(name, b"online" | b"possible" | b"present");
        return one.then(|| Special::Text(line!("0\n")));
    }
    let name = path.strip_prefix(b"/proc/")?;
    let pid = raw::getpid();
    let own = line!("{pid}/");
    let of_self = name
        .strip_prefix(b"self/")
        .or_else(|| name.strip_prefix(own.as_bytes()));
    let uptime = world().start;
    let text = match (name, of_self) {
        // Memory in use depends on when the kernel hands out and takes back
        // pages, so it is shown as fixed: 64 MiB of address space, 16 MiB resident.
        (_, Some(b"stat")) => line!(
            "{pid} (server) R 1 {pid} {pid} 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 100 67108864 4096 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        ),
        (_, Some(b"statm")) => line!("16384 4096 1024 256 0 8192 0\n"),
        (_, Some(b"smaps" | b"smaps_rollup")) => {
            line!(
                "00000000-00000000 ---p 00000000 00:00 0 [rollup]\nRss: 16384 kB\nPss: 16384 kB\nPrivate_Clean: 0 kB\nPrivate_Dirty: 0 kB\nAnonHugePages: 0 kB\n"
            )
        }
        (b"uptime", _) => {
            let up = (clock::now() - uptime) / 10_000_000 + 100_000;
            line!(
                "{}.{:02} {}.{:02}\n",
                up / 100,
                up % 100,
                up / 100,
                up % 100
            )
        }
        (_, Some(b"status")) => return Some(Special::Status),
        (b"stat", _) => line!(
            "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\nintr 0\nctxt 0\nbtime {}\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
            (uptime / 1_000_000_000).saturating_sub(1000)
        ),
        (b"cpuinfo", _) => line!(
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 1\nmodel name\t: one of the cluster's\nstepping\t: 0\ncpu MHz\t\t: 1000.000\ncache size\t: 1024 KB\nphysical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\nflags\t\t: fpu tsc msr cx8 cmov mmx fxsr sse sse2 lm\nbogomips\t: 2000.00\n\n"
        ),
        (b"sys/kernel/random/uuid", _) => {
            let mut bytes = [0; 16];
            random::fill(&mut bytes);
            uuid(bytes)
        }
        // One for the life of the cluster.
        (b"sys/kernel/random/boot_id", _) => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&uptime.to_le_bytes());
            uuid(bytes)
        }
        (b"loadavg", _) => line!("0.00 0.00 0.00 1/64 {pid}\n"),
        (b"meminfo", _) => line!(
            "MemTotal:       16777216 kB\nMemFree:         8388608 kB\nMemAvailable:   12582912 kB\nBuffers:               0 kB\nCached:          4194304 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n"
        ),
        _ => return None,
    };
    Some(Special::Text(text))
}

/// A random UUID of these bytes, with a newline.
fn uuid(mut b: [u8; 16]) -> Line {
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let part = |range: core::ops::Range<usize>| {
        b[range]
            .iter()
            .fold(0u64, |n, &byte| n << 8 | u64::from(byte))
    };
    line!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}\n",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..16)
    )
}

/// What is shown instead of a line of a process's status.
fn shown(line: &[u8]) -> Option<&'static [u8]> {
    let named = |name: &[u8]| line.starts_with(name);
    if named(b"VmPeak") || named(b"VmSize") {
        Some(b"    65536 kB")
    } else if named(b"Vm") || named(b"Rss") || named(b"Hugetlb") {
        Some(b"    16384 kB")
    } else if named(b"voluntary_ctxt")
        || named(b"nonvoluntary_ctxt")
        || named(b"SigQ")
        || named(b"Cpus_allowed_list")
    {
        Some(b"0")
    } else if named(b"Cpus_allowed") {
        Some(b"1")
    } else {
        None
    }
}

/// A copy of a process's status.
pub(crate) fn open_status(path: *const c_char, cloexec: c_int) -> c_int {
    let mut text = [0u8; 4096];
    // SAFETY: plain system calls on the caller's path with valid buffers.
    let (fd, len) = unsafe {
        let from = sys!(
            Sysno::openat,
            libc::AT_FDCWD,
            path,
            libc::O_RDONLY | libc::O_CLOEXEC,
            0
        );
        if (from as isize) < 0 {
            return raw::ret(from) as c_int;
        }
        let len = sys!(Sysno::read, from, text.as_mut_ptr(), text.len());
        sys!(Sysno::close, from);
        let flags = if cloexec != 0 { libc::MFD_CLOEXEC } else { 0 };
        (
            sys!(Sysno::memfd_create, c"proc".as_ptr(), flags),
            len.min(text.len()),
        )
    };
    for line in text[..len].split_inclusive(|b| *b == b'\n') {
        let name = line.iter().position(|b| *b == b':').map_or(0, |at| at + 1);
        let put = |bytes: &[u8]| {
            // SAFETY: plain write(2) of a slice.
            unsafe { sys!(Sysno::write, fd, bytes.as_ptr(), bytes.len()) };
        };
        match shown(line) {
            Some(value) => {
                put(&line[..name]);
                put(b"\t");
                put(value);
                put(b"\n");
            }
            None => put(line),
        }
    }
    // SAFETY: back to the beginning of our copy.
    unsafe { sys!(Sysno::lseek, fd, 0, libc::SEEK_SET) };
    raw::ret(fd) as c_int
}

/// sysconf(3): the machine's size is the same everywhere.
pub(crate) fn sysconf(name: c_int) -> libc::c_long {
    crate::world::ensure_attached();
    const PAGES: libc::c_long = (16 << 30) / 4096;
    match name {
        libc::_SC_NPROCESSORS_ONLN | libc::_SC_NPROCESSORS_CONF => 1,
        libc::_SC_PHYS_PAGES => PAGES,
        libc::_SC_AVPHYS_PAGES => PAGES * 3 / 4,
        // SAFETY: plain call.
        _ => unsafe { (real().sysconf)(name) },
    }
}

/// sysinfo(2).
pub(crate) unsafe fn sysinfo(to: *mut libc::sysinfo) -> c_int {
    begin(Op::Stat);
    if to.is_null() {
        return fail(libc::EFAULT);
    }
    // SAFETY: the caller passes a place; all-zero is valid.
    unsafe {
        core::ptr::write_bytes(to, 0, 1);
        let to = &mut *to;
        to.uptime = ((clock::now() - world().start) / 1_000_000_000) as i64 + 1000;
        to.totalram = 16 << 30;
        to.freeram = 8 << 30;
        to.procs = 64;
        to.mem_unit = 1;
    }
    0
}

/// The part of struct statfs and struct statvfs that shows a disk.
const BLOCKS: u64 = 64 << 20;

/// After statfs(2): the same file system everywhere, of 256 GiB and half full.
pub(crate) unsafe fn equal_statfs(code: c_int, to: *mut libc::statfs64) -> c_int {
    if code == 0 {
        // SAFETY: filled by the kernel.
        let to = unsafe { &mut *to };
        to.f_bsize = 4096;
        to.f_frsize = 4096;
        to.f_blocks = BLOCKS;
        (to.f_bfree, to.f_bavail) = (BLOCKS / 2, BLOCKS / 2);
        (to.f_files, to.f_ffree) = (BLOCKS, BLOCKS / 2);
        // SAFETY: plain data; the id names the machine's device.
        to.f_fsid = unsafe { core::mem::zeroed() };
    }
    code
}

/// statfs(2).
pub(crate) unsafe fn statfs(path: *const c_char, to: *mut libc::statfs64) -> c_int {
    begin(Op::Stat);
    // SAFETY: same contract.
    unsafe { equal_statfs(raw::ret(sys!(Sysno::statfs, path, to)) as c_int, to) }
}

/// fstatfs(2).
pub(crate) unsafe fn fstatfs(fd: c_int, to: *mut libc::statfs64) -> c_int {
    begin(Op::Stat);
    // SAFETY: same contract.
    unsafe { equal_statfs(raw::ret(sys!(Sysno::fstatfs, fd, to)) as c_int, to) }
}

/// statvfs(3) of what statfs(2) gave.
unsafe fn statvfs_of(code: c_int, from: &libc::statfs64, to: *mut libc::statvfs64) -> c_int {
    /// Bit of f_flags that says that the others are valid; not shown.
    const VALID: i64 = 0x20;
    if code == 0 {
        // SAFETY: the caller passes a place; all-zero is valid.
        unsafe {
            core::ptr::write_bytes(to, 0, 1);
            let to = &mut *to;
            to.f_bsize = from.f_bsize as u64;
            to.f_frsize = from.f_frsize as u64;
            to.f_blocks = from.f_blocks;
            (to.f_bfree, to.f_bavail) = (from.f_bfree, from.f_bavail);
            (to.f_files, to.f_ffree, to.f_favail) = (from.f_files, from.f_ffree, from.f_ffree);
            to.f_flag = (from.f_flags & !VALID) as u64;
            to.f_namemax = from.f_namelen as u64;
        }
    }
    code
}

/// statvfs(3).
pub(crate) unsafe fn statvfs(path: *const c_char, to: *mut libc::statvfs64) -> c_int {
    // SAFETY: all-zero is valid; same contract.
    unsafe {
        let mut st: libc::statfs64 = core::mem::zeroed();
        statvfs_of(statfs(path, &raw mut st), &st, to)
    }
}

/// fstatvfs(3).
pub(crate) unsafe fn fstatvfs(fd: c_int, to: *mut libc::statvfs64) -> c_int {
    // SAFETY: all-zero is valid; same contract.
    unsafe {
        let mut st: libc::statfs64 = core::mem::zeroed();
        statvfs_of(fstatfs(fd, &raw mut st), &st, to)
    }
}
