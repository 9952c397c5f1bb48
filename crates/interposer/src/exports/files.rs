//! Files, directories and streams.

use crate::directories::Compare;
use crate::directories::Directory;
use crate::directories::Entries;
use crate::directories::Filter;
use crate::stack::clean as leave;
use crate::{directories, dprintf, files, machine, stdio, temporary, times};
use core::ffi::{c_char, c_int, c_long, c_uint};
use core::ptr::null;
use libc::{mode_t, timespec};

interposed! {
    files {
        /// Special files of /proc and /dev are answered.
        fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn __open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn __open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(libc::AT_FDCWD, path, flags, mode) }
        /// As open.
        fn __open_2(path: *const c_char, flags: c_int) -> c_int { files::open(libc::AT_FDCWD, path, flags, 0) }
        /// As open.
        fn __open64_2(path: *const c_char, flags: c_int) -> c_int { files::open(libc::AT_FDCWD, path, flags, 0) }
        /// As open.
        fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(dir, path, flags, mode) }
        /// As open.
        fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int { files::open(dir, path, flags, mode) }
        /// As open.
        fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { files::open(dir, path, flags, 0) }
        /// As open.
        fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int { files::open(dir, path, flags, 0) }
        /// As open.
        fn creat(path: *const c_char, mode: mode_t) -> c_int {
            files::open(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
        }
        /// A name from the agreed randomness.
        fn mkstemp(template: *mut c_char) -> c_int { temporary::file(template, 0, 0) }
        /// As mkstemp.
        fn mkstemp64(template: *mut c_char) -> c_int { temporary::file(template, 0, 0) }
        /// As mkstemp.
        fn mkostemp(template: *mut c_char, flags: c_int) -> c_int { temporary::file(template, 0, flags) }
        /// As mkstemp.
        fn mkostemp64(template: *mut c_char, flags: c_int) -> c_int { temporary::file(template, 0, flags) }
        /// As mkstemp.
        fn mkstemps(template: *mut c_char, suffix: c_int) -> c_int { temporary::file(template, suffix, 0) }
        /// As mkstemp.
        fn mkstemps64(template: *mut c_char, suffix: c_int) -> c_int { temporary::file(template, suffix, 0) }
        /// As mkstemp.
        fn mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { temporary::file(template, suffix, flags) }
        /// As mkstemp.
        fn mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int { temporary::file(template, suffix, flags) }
        /// As mkstemp.
        fn mkdtemp(template: *mut c_char) -> *mut c_char { temporary::directory(template) }
        /// As mkstemp.
        fn mktemp(template: *mut c_char) -> *mut c_char { temporary::name(template) }
        /// As creat.
        fn creat64(path: *const c_char, mode: mode_t) -> c_int {
            files::open(libc::AT_FDCWD, path, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC, mode)
        }
        /// A disk of 256 GiB, half full, on every machine.
        fn statfs(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn statfs64(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn __statfs(path: *const c_char, to: *mut libc::statfs64) -> c_int { machine::statfs(path, to) }
        /// As statfs.
        fn fstatfs(fd: c_int, to: *mut libc::statfs64) -> c_int { machine::fstatfs(fd, to) }
        /// As statfs.
        fn fstatfs64(fd: c_int, to: *mut libc::statfs64) -> c_int { machine::fstatfs(fd, to) }
        /// As statfs.
        fn statvfs(path: *const c_char, to: *mut libc::statvfs64) -> c_int { machine::statvfs(path, to) }
        /// As statfs.
        fn statvfs64(path: *const c_char, to: *mut libc::statvfs64) -> c_int { machine::statvfs(path, to) }
        /// As statfs.
        fn fstatvfs(fd: c_int, to: *mut libc::statvfs64) -> c_int { machine::fstatvfs(fd, to) }
        /// As statfs.
        fn fstatvfs64(fd: c_int, to: *mut libc::statvfs64) -> c_int { machine::fstatvfs(fd, to) }
        /// Special files of /proc and /dev are answered.
        fn fopen(path: *const c_char, mode: *const c_char) -> *mut libc::FILE { files::fopen(path, mode) }
        /// As fopen.
        fn fopen64(path: *const c_char, mode: *const c_char) -> *mut libc::FILE { files::fopen(path, mode) }
        /// Also on virtual objects.
        fn fdopen(fd: c_int, mode: *const c_char) -> *mut libc::FILE { stdio::fdopen(fd, mode) }
        /// Also to virtual objects.
        fn vdprintf(fd: c_int, format: *const c_char, arguments: *const dprintf::Arguments) -> c_int { dprintf::vdprintf(fd, format, arguments) }
        /// As vdprintf.
        fn __vdprintf_chk(fd: c_int, _flag: c_int, format: *const c_char, arguments: *const dprintf::Arguments) -> c_int { dprintf::vdprintf(fd, format, arguments) }
        /// Also from virtual objects.
        fn freopen(path: *const c_char, mode: *const c_char, file: *mut libc::FILE) -> *mut libc::FILE { stdio::freopen(path, mode, file) }
        /// As freopen.
        fn freopen64(path: *const c_char, mode: *const c_char, file: *mut libc::FILE) -> *mut libc::FILE { stdio::freopen(path, mode, file) }
        /// Also of virtual objects.
        fn fclose(file: *mut libc::FILE) -> c_int { files::fclose(file) }
        /// Equal inode numbers and times on every replica.
        fn stat(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As stat.
        fn stat64(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As stat.
        fn lstat(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As stat.
        fn lstat64(path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As stat.
        fn fstat(fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As stat.
        fn fstat64(fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As stat.
        fn fstatat(dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat.
        fn fstatat64(dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat; what programs built against glibc before 2.33 call.
        fn __xstat(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As __xstat.
        fn __xstat64(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, 0) }
        /// As __xstat.
        fn __lxstat(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As __xstat.
        fn __lxstat64(_version: c_int, path: *const c_char, st: *mut libc::stat) -> c_int { files::stat(libc::AT_FDCWD, path, st, libc::AT_SYMLINK_NOFOLLOW) }
        /// As __xstat.
        fn __fxstat(_version: c_int, fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As __xstat.
        fn __fxstat64(_version: c_int, fd: c_int, st: *mut libc::stat) -> c_int { files::fstat(fd, st) }
        /// As __xstat.
        fn __fxstatat(_version: c_int, dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As __xstat.
        fn __fxstatat64(_version: c_int, dir: c_int, path: *const c_char, st: *mut libc::stat, flags: c_int) -> c_int { files::stat(dir, path, st, flags) }
        /// As stat.
        fn statx(dir: c_int, path: *const c_char, flags: c_int, mask: c_uint, stx: *mut libc::statx) -> c_int { files::statx(dir, path, flags, mask, stx) }
        /// What the program sets is what stat shows.
        fn utimensat(dir: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int { times::utimensat(dir, path, times, flags) }
        /// A name from the agreed randomness.
        fn tmpnam(to: *mut c_char) -> *mut c_char { temporary::tmpnam(to) }
        /// As tmpnam.
        fn tmpnam_r(to: *mut c_char) -> *mut c_char { temporary::tmpnam_r(to) }
        /// As tmpnam.
        fn tempnam(dir: *const c_char, prefix: *const c_char) -> *mut c_char { temporary::tempnam(dir, prefix) }
        /// As utimensat.
        fn futimens(fd: c_int, times: *const timespec) -> c_int { times::futimens(fd, times) }
        /// As utimensat.
        fn utimes(path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(libc::AT_FDCWD, path, times, 0) }
        /// As utimensat.
        fn lutimes(path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(libc::AT_FDCWD, path, times, libc::AT_SYMLINK_NOFOLLOW) }
        /// As utimensat.
        fn futimes(fd: c_int, times: *const libc::timeval) -> c_int { times::utimes(fd, null(), times, 0) }
        /// As utimensat.
        fn futimesat(dir: c_int, path: *const c_char, times: *const libc::timeval) -> c_int { times::utimes(dir, path, times, 0) }
        /// As utimensat.
        fn utime(path: *const c_char, times: *const libc::utimbuf) -> c_int { times::utime(path, times) }
        /// Lists in the order of the names, with the inode numbers that stat shows.
        fn opendir(path: *const c_char) -> *mut Directory { directories::opendir(path) }
        /// As opendir.
        fn fdopendir(fd: c_int) -> *mut Directory { directories::fdopendir(fd) }
        /// As opendir.
        fn readdir(stream: *mut Directory) -> *mut libc::dirent64 { directories::readdir(stream) }
        /// As opendir.
        fn readdir64(stream: *mut Directory) -> *mut libc::dirent64 { directories::readdir(stream) }
        /// As opendir.
        fn readdir_r(stream: *mut Directory, to: *mut libc::dirent64, result: *mut *mut libc::dirent64) -> c_int { directories::readdir_r(stream, to, result) }
        /// As opendir.
        fn readdir64_r(stream: *mut Directory, to: *mut libc::dirent64, result: *mut *mut libc::dirent64) -> c_int { directories::readdir_r(stream, to, result) }
        /// As opendir.
        fn rewinddir(stream: *mut Directory) { directories::rewinddir(stream) }
        /// As opendir.
        fn telldir(stream: *mut Directory) -> c_long { directories::telldir(stream) }
        /// As opendir.
        fn seekdir(stream: *mut Directory, place: c_long) { directories::seekdir(stream, place) }
        /// As opendir.
        fn dirfd(stream: *mut Directory) -> c_int { directories::dirfd(stream) }
        /// As opendir.
        fn closedir(stream: *mut Directory) -> c_int { directories::closedir(stream) }
        /// As opendir.
        fn scandir(path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(libc::AT_FDCWD, path, to, filter, compare) }
        /// As opendir.
        fn scandir64(path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(libc::AT_FDCWD, path, to, filter, compare) }
        /// As opendir.
        fn scandirat(dir: c_int, path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(dir, path, to, filter, compare) }
        /// As opendir.
        fn scandirat64(dir: c_int, path: *const c_char, to: *mut Entries, filter: Option<Filter>, compare: Option<Compare>) -> c_int { directories::scandir(dir, path, to, filter, compare) }
    }
}
