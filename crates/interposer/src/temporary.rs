//! Names of temporary files, from the agreed randomness.

use crate::raw::{self, fail, sys};
use crate::turn::{Op, begin};
use crate::{files, random};
use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int};
use syscalls::Sysno;

const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Names tried before giving up.
const ATTEMPTS: u32 = 62 * 62 * 62;

/// Fills the six X before `suffix` last bytes of a template until `make` makes
/// something of that name.
unsafe fn fill(
    template: *mut c_char,
    suffix: c_int,
    mut make: impl FnMut(*const c_char) -> Result<c_int, c_int>,
) -> Result<c_int, c_int> {
    // SAFETY: the caller passes a C string that may be written.
    let len = unsafe { CStr::from_ptr(template) }.count_bytes();
    let suffix = usize::try_from(suffix).map_err(|_| libc::EINVAL)?;
    if len < 6 + suffix {
        return Err(libc::EINVAL);
    }
    // SAFETY: inside the string by the check.
    let places =
        unsafe { core::slice::from_raw_parts_mut(template.cast::<u8>().add(len - suffix - 6), 6) };
    if places != b"XXXXXX" {
        return Err(libc::EINVAL);
    }
    for _ in 0..ATTEMPTS {
        for place in places.iter_mut() {
            *place = LETTERS[random::number(62) as usize];
        }
        match make(template) {
            Err(libc::EEXIST) => {}
            other => return other,
        }
    }
    Err(libc::EEXIST)
}

fn told(made: Result<c_int, c_int>) -> c_int {
    made.unwrap_or_else(fail)
}

/// mkostemps(3) and its relatives.
pub(crate) unsafe fn file(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int {
    let flags = flags & !libc::O_ACCMODE | libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: same contract.
    told(unsafe {
        fill(template, suffix, |path| {
            // errno is left alone until the end.
            match files::open(libc::AT_FDCWD, path, flags, 0o600) {
                -1 => Err(*libc::__errno_location()),
                fd => Ok(fd),
            }
        })
    })
}

/// mkdtemp(3).
pub(crate) unsafe fn directory(template: *mut c_char) -> *mut c_char {
    begin(Op::Open);
    // SAFETY: same contract.
    let made = told(unsafe {
        fill(template, 0, |path| {
            match sys!(Sysno::mkdir, path, 0o700) as isize {
                code if code < 0 => Err(-code as c_int),
                _ => Ok(0),
            }
        })
    });
    if made < 0 {
        core::ptr::null_mut()
    } else {
        template
    }
}

/// mktemp(3): a name that nothing has; the empty one on failure.
pub(crate) unsafe fn name(template: *mut c_char) -> *mut c_char {
    begin(Op::Stat);
    // SAFETY: same contract; all-zero is a valid stat.
    unsafe {
        let made = fill(template, 0, |path| {
            let mut st: libc::stat = core::mem::zeroed();
            match sys!(Sysno::lstat, path, &raw mut st) as isize {
                0 => Err(libc::EEXIST),
                _ => Ok(0),
            }
        });
        if let Err(code) = made {
            raw::set_errno(code);
            *template = 0;
        }
    }
    template
}

/// L_tmpnam: room for a name of tmpnam(3).
const ROOM: usize = 20;
const PATTERN: &[u8; 16] = b"/tmp/fileXXXXXX\0";

/// tmpnam_r(3).
pub(crate) unsafe fn tmpnam_r(to: *mut c_char) -> *mut c_char {
    if to.is_null() {
        return to;
    }
    // SAFETY: the caller has room for L_tmpnam bytes.
    unsafe {
        core::ptr::copy_nonoverlapping(PATTERN.as_ptr(), to.cast(), PATTERN.len());
        if *name(to) == 0 {
            return core::ptr::null_mut();
        }
    }
    to
}

/// Where tmpnam(3) puts a name if the caller has no room of its own.
struct Own(UnsafeCell<[c_char; ROOM]>);

// SAFETY: only the holder of the turn writes it; who reads it meanwhile breaks the
// contract of tmpnam(3).
unsafe impl Sync for Own {}

static OWN: Own = Own(UnsafeCell::new([0; ROOM]));

/// tmpnam(3).
pub(crate) unsafe fn tmpnam(to: *mut c_char) -> *mut c_char {
    let to = if to.is_null() { OWN.0.get().cast() } else { to };
    // SAFETY: room for L_tmpnam bytes in both cases.
    unsafe { tmpnam_r(to) }
}

/// Whether a name of tempnam(3) may be in that directory.
unsafe fn is_usable(directory: *const c_char) -> bool {
    // SAFETY: the callers pass a C string or null.
    unsafe {
        !directory.is_null()
            && files::is_directory(directory)
            && sys!(Sysno::access, directory, libc::W_OK | libc::X_OK) == 0
    }
}

/// tempnam(3); the name is the C library's memory, as the caller frees it.
pub(crate) unsafe fn tempnam(directory: *const c_char, prefix: *const c_char) -> *mut c_char {
    // SAFETY: the caller passes C strings or null.
    unsafe {
        let chosen = [libc::getenv(c"TMPDIR".as_ptr()), directory.cast_mut()];
        let chosen = chosen.into_iter().find(|one| is_usable(*one));
        let place = chosen.map_or(c"/tmp", |one| CStr::from_ptr(one)).to_bytes();
        let place = place.strip_suffix(b"/").unwrap_or(place);
        let prefix = if prefix.is_null() {
            b"file"
        } else {
            CStr::from_ptr(prefix).to_bytes()
        };
        let prefix = &prefix[..prefix.len().min(5)];
        let parts = [place, b"/", prefix, b"XXXXXX\0"];
        let made = libc::malloc(parts.iter().map(|part| part.len()).sum()).cast::<u8>();
        if made.is_null() {
            return made.cast();
        }
        let mut at = made;
        for part in parts {
            core::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
            at = at.add(part.len());
        }
        if *name(made.cast()) == 0 {
            libc::free(made.cast());
            return core::ptr::null_mut();
        }
        made.cast()
    }
}
