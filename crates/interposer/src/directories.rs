//! Directories: listed in the order of their names, with the inode numbers that
//! stat shows.
//!
//! File systems list in an order of their own, which differs between machines
//! (ext4 hashes names with a secret of each file system). So a directory stream
//! is ours as a whole: the list is read at once, when it is first needed, and
//! sorted. The C library's own walks (ftw, fts, glob) have streams of its own;
//! glob sorts, the others are named in the compatibility page.

use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::{fds, files, inodes};
use core::cmp::Ordering;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use syscalls::Sysno;

/// Bytes read at a time while the length of a list is found out.
const PART: usize = 2048;
/// Where the name begins in struct dirent64, see getdents64(2).
const NAME: usize = core::mem::offset_of!(libc::dirent64, d_name);

/// What DIR points to: an anonymous mapping of its own, so that nothing is
/// allocated, and a fork copies it.
#[repr(C)]
pub(crate) struct Directory {
    fd: c_int,
    /// 1: the list is there.
    read: u32,
    /// Entries in the list, and the next one to give.
    count: usize,
    next: usize,
    /// The mapping of the list: records as the kernel gives them, then where
    /// each begins, in order.
    list: *mut u8,
    length: usize,
    index: *mut u32,
}

/// The list that scandir(3) makes.
pub(crate) type Entries = *mut *mut libc::dirent64;
pub(crate) type Filter = unsafe extern "C" fn(*const libc::dirent64) -> c_int;
pub(crate) type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

fn map(length: usize) -> Option<*mut u8> {
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
    (raw::ret(address) != -1).then_some(address as *mut u8)
}

fn unmap(address: *mut u8, length: usize) {
    // SAFETY: only called for mappings made by `map` that nobody uses any more.
    unsafe { sys!(Sysno::munmap, address, length) };
}

fn getdents(fd: c_int, to: *mut u8, room: usize) -> isize {
    // SAFETY: the callers pass memory of their own with that much room.
    unsafe { sys!(Sysno::getdents64, fd, to, room) as isize }
}

fn rewind(fd: c_int) {
    // SAFETY: plain lseek(2).
    unsafe { sys!(Sysno::lseek, fd, 0, libc::SEEK_SET) };
}

/// The records in `bytes`, each as its place and length.
fn records(bytes: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    core::iter::from_fn(move || {
        // d_ino, d_off, then d_reclen.
        let length = bytes.get(at + 16..at + 18)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        let place = at;
        at += length;
        Some((place, length))
    })
}

/// "." and ".." come first, as programs are used to.
fn in_order(left: &CStr, right: &CStr) -> Ordering {
    let dots = |name: &CStr| matches!(name.to_bytes(), b"." | b"..");
    let key = |name| (!dots(name), name);
    key(left).cmp(&key(right))
}

impl Directory {
    /// Makes a stream of an open directory. Takes the descriptor only if it
    /// can.
    fn new(fd: c_int) -> *mut Self {
        let Some(place) = map(size_of::<Self>()) else {
            return core::ptr::null_mut();
        };
        let stream = place.cast::<Self>();
        // SAFETY: fresh zeroed memory; all-zero is a valid stream but for `fd`.
        unsafe { (*stream).fd = fd };
        stream
    }

    /// Reads and sorts the list.
    fn fill(&mut self) -> Result<(), c_int> {
        let (mut bytes, mut count) = (0, 0);
        let mut part = [0u64; PART / 8];
        rewind(self.fd);
        loop {
            let got = getdents(self.fd, part.as_mut_ptr().cast(), PART);
            if got < 0 {
                return Err(-got as c_int);
            }
            if got == 0 {
                break;
            }
            // SAFETY: the kernel filled that many bytes of the array.
            let got = unsafe { core::slice::from_raw_parts(part.as_ptr().cast(), got as usize) };
            count += records(got).count();
            bytes += got.len();
        }
        // The index behind the records; a record more than there are, because
        // the kernel wants room for the longest name.
        let room = bytes + size_of::<libc::dirent64>();
        self.length = room.next_multiple_of(8) + count * size_of::<u32>();
        self.list = map(self.length).ok_or(libc::ENOMEM)?;
        // SAFETY: within the mapping, which is zeroed and aligned.
        unsafe {
            self.index = self.list.add(room.next_multiple_of(8)).cast();
            rewind(self.fd);
            let mut used = 0;
            while room - used >= size_of::<libc::dirent64>() {
                let got = getdents(self.fd, self.list.add(used), room - used);
                if got <= 0 {
                    break;
                }
                used += got as usize;
            }
            let list = core::slice::from_raw_parts(self.list, used);
            let index = core::slice::from_raw_parts_mut(self.index, count);
            self.count = 0;
            for (entry, (place, _)) in index.iter_mut().zip(records(list)) {
                *entry = place as u32;
                self.count += 1;
            }
            let name = |place: &u32| CStr::from_ptr(self.list.add(*place as usize + NAME).cast());
            index[..self.count].sort_unstable_by(|a, b| in_order(name(a), name(b)));
        }
        self.read = 1;
        Ok(())
    }

    fn forget(&mut self) {
        if self.read != 0 {
            unmap(self.list, self.length);
            self.read = 0;
        }
        self.next = 0;
    }

    /// The next entry, null at the end; an error number if it cannot be read.
    fn next(&mut self) -> Result<*mut libc::dirent64, c_int> {
        if self.read == 0 {
            self.fill()?;
        }
        if self.next >= self.count {
            return Ok(core::ptr::null_mut());
        }
        // SAFETY: `fill` made the index and the records that it names; a record
        // is aligned as the kernel aligns it, and only this stream writes it.
        unsafe {
            let entry = self.list.add(*self.index.add(self.next) as usize);
            let entry = entry.cast::<libc::dirent64>();
            self.next += 1;
            (*entry).d_ino = inodes::listed(self.fd, (&raw const (*entry).d_name).cast());
            (*entry).d_off = self.next as i64;
            Ok(entry)
        }
    }
}

/// opendir(3).
pub(crate) unsafe fn opendir(path: *const c_char) -> *mut Directory {
    // SAFETY: same contract.
    unsafe { open(libc::AT_FDCWD, path) }
}

unsafe fn open(dir: c_int, path: *const c_char) -> *mut Directory {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: same contract.
    let fd = unsafe { files::open(dir, path, flags, 0) };
    if fd < 0 {
        return core::ptr::null_mut();
    }
    let stream = Directory::new(fd);
    if stream.is_null() {
        fds::close_real(fd);
    }
    stream
}

/// fdopendir(3).
pub(crate) fn fdopendir(fd: c_int) -> *mut Directory {
    begin(Op::Open);
    let found = if fd < 0 {
        Err(-libc::EBADF)
    } else {
        inodes::examine(fd, c"".as_ptr(), libc::AT_EMPTY_PATH)
    };
    let refused = match found {
        Err(code) => -code,
        Ok(found) if u32::from(found.stx_mode) & libc::S_IFMT != libc::S_IFDIR => libc::ENOTDIR,
        Ok(_) => return Directory::new(fd),
    };
    fail(refused);
    core::ptr::null_mut()
}

/// readdir(3).
pub(crate) unsafe fn readdir(stream: *mut Directory) -> *mut libc::dirent64 {
    begin(Op::Read);
    // SAFETY: the caller passes an open stream, which one thread uses at a time.
    unsafe { (*stream).next() }.unwrap_or_else(|code| {
        raw::set_errno(code);
        core::ptr::null_mut()
    })
}

/// readdir_r(3).
pub(crate) unsafe fn readdir_r(
    stream: *mut Directory,
    to: *mut libc::dirent64,
    result: *mut *mut libc::dirent64,
) -> c_int {
    begin(Op::Read);
    // SAFETY: as for `readdir`, and room for an entry at `to`.
    unsafe {
        result.write(core::ptr::null_mut());
        match (*stream).next() {
            Err(code) => return code,
            Ok(entry) if entry.is_null() => {}
            Ok(entry) => {
                let length = usize::from((*entry).d_reclen);
                core::ptr::copy_nonoverlapping(entry.cast::<u8>(), to.cast(), length);
                result.write(to);
            }
        }
    }
    0
}

/// rewinddir(3).
pub(crate) unsafe fn rewinddir(stream: *mut Directory) {
    begin(Op::Control);
    // SAFETY: the caller passes an open stream.
    unsafe { (*stream).forget() }
}

/// telldir(3): entries given so far.
pub(crate) unsafe fn telldir(stream: *mut Directory) -> c_long {
    // SAFETY: the caller passes an open stream.
    unsafe { (*stream).next as c_long }
}

/// seekdir(3).
pub(crate) unsafe fn seekdir(stream: *mut Directory, place: c_long) {
    // SAFETY: the caller passes an open stream.
    unsafe { (*stream).next = place.max(0) as usize }
}

/// dirfd(3).
pub(crate) unsafe fn dirfd(stream: *mut Directory) -> c_int {
    // SAFETY: the caller passes an open stream.
    unsafe { (*stream).fd }
}

/// closedir(3).
pub(crate) unsafe fn closedir(stream: *mut Directory) -> c_int {
    begin(Op::Close);
    if stream.is_null() {
        return fail(libc::EINVAL);
    }
    // SAFETY: the caller passes an open stream and does not use it again.
    unsafe {
        (*stream).forget();
        let fd = (*stream).fd;
        unmap(stream.cast(), size_of::<Directory>());
        fds::close_real(fd)
    }
}

/// scandirat(3), and scandir(3) with the current directory. The list and its
/// entries are the C library's memory, as the caller frees them.
pub(crate) unsafe fn scandir(
    dir: c_int,
    path: *const c_char,
    to: *mut Entries,
    filter: Option<Filter>,
    compare: Option<Compare>,
) -> c_int {
    // SAFETY: the caller keeps the contract of scandir(3).
    unsafe {
        let stream = open(dir, path);
        if stream.is_null() {
            return -1;
        }
        let mut list: Entries = core::ptr::null_mut();
        let (mut count, mut room) = (0, 0);
        let outcome = loop {
            let entry = match (*stream).next() {
                Err(code) => break Err(code),
                Ok(entry) if entry.is_null() => break Ok(count),
                Ok(entry) => entry,
            };
            if filter.is_some_and(|wanted| wanted(entry) == 0) {
                continue;
            }
            if count == room {
                room = (room * 2).max(16);
                let more = libc::realloc(list.cast(), room * size_of::<*mut libc::dirent64>());
                if more.is_null() {
                    break Err(libc::ENOMEM);
                }
                list = more.cast();
            }
            let length = usize::from((*entry).d_reclen);
            let copy = libc::malloc(length).cast::<u8>();
            if copy.is_null() {
                break Err(libc::ENOMEM);
            }
            core::ptr::copy_nonoverlapping(entry.cast(), copy, length);
            list.add(count).write(copy.cast());
            count += 1;
        };
        closedir(stream);
        match outcome {
            Ok(count) => {
                if let Some(compare) = compare {
                    let size = size_of::<*mut libc::dirent64>();
                    libc::qsort(list.cast(), count, size, Some(compare));
                }
                to.write(list);
                count as c_int
            }
            Err(code) => {
                for at in 0..count {
                    libc::free((*list.add(at)).cast());
                }
                libc::free(list.cast());
                fail(code)
            }
        }
    }
}
