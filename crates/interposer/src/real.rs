//! The C library's own versions of functions that we interpose and still need.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};

type ThreadStart = extern "C" fn(*mut c_void) -> *mut c_void;

/// Addresses, resolved once per process image before other threads exist.
#[derive(Clone, Copy)]
pub(crate) struct Real {
    pub(crate) pthread_create: unsafe extern "C" fn(
        *mut libc::pthread_t,
        *const libc::pthread_attr_t,
        ThreadStart,
        *mut c_void,
    ) -> c_int,
    pub(crate) pthread_join: unsafe extern "C" fn(libc::pthread_t, *mut *mut c_void) -> c_int,
    pub(crate) pthread_exit: unsafe extern "C" fn(*mut c_void) -> !,
    pub(crate) pthread_getattr_np:
        unsafe extern "C" fn(libc::pthread_t, *mut libc::pthread_attr_t) -> c_int,
    pub(crate) fork: unsafe extern "C" fn() -> c_int,
    pub(crate) register_atfork: unsafe extern "C" fn(
        Option<unsafe extern "C" fn()>,
        Option<unsafe extern "C" fn()>,
        Option<unsafe extern "C" fn()>,
        *mut c_void,
    ) -> c_int,
    pub(crate) fclose: unsafe extern "C" fn(*mut libc::FILE) -> c_int,
    pub(crate) fopen: unsafe extern "C" fn(*const c_char, *const c_char) -> *mut libc::FILE,
    pub(crate) sigaction:
        unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int,
    pub(crate) fdopen: unsafe extern "C" fn(c_int, *const c_char) -> *mut libc::FILE,
    pub(crate) freopen:
        unsafe extern "C" fn(*const c_char, *const c_char, *mut libc::FILE) -> *mut libc::FILE,
    pub(crate) quick_exit: unsafe extern "C" fn(c_int) -> !,
    pub(crate) sysconf: unsafe extern "C" fn(c_int) -> libc::c_long,
}

struct Slot(UnsafeCell<Option<Real>>);

// SAFETY: written once by `resolve`, while the process has a single thread.
unsafe impl Sync for Slot {}

static REAL: Slot = Slot(UnsafeCell::new(None));

/// Addresses of the C library's functions, for the assembly in `dynamic`.
pub(crate) static REAL_DLSYM: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLOPEN: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLMOPEN: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLCLOSE: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLADDR: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLADDR1: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DLINFO: AtomicUsize = AtomicUsize::new(0);
pub(crate) static REAL_DL_ITERATE_PHDR: AtomicUsize = AtomicUsize::new(0);

/// Address of the C library's siglongjmp, for the assembly in `jumps`.
pub(crate) static REAL_LONGJMP: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    // Not interposed, unlike dlsym, so it can be called to find the rest.
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
}

/// Finds `name` under the version that glibc 2.34 and newer give it on x86-64.
///
/// Exactly that one: a look-up that fails builds an error message with malloc,
/// and the first call that brings us here may come from inside an allocator.
unsafe fn find<F: Copy>(name: &CStr, version: &CStr) -> F {
    const { assert!(size_of::<F>() == size_of::<usize>()) };
    // SAFETY: valid strings; RTLD_NEXT finds the next object's definition.
    let address = unsafe { dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) };
    if !address.is_null() {
        // SAFETY: F is the function pointer type of this symbol, of pointer size.
        return unsafe { core::mem::transmute_copy(&address) };
    }
    let name = name.to_str().unwrap_or("?");
    crate::raw::write_stderr(
        crate::raw::line!("crane: this C library has no {name}: glibc 2.34 or newer is needed\n")
            .as_bytes(),
    );
    crate::raw::exit_group(127)
}

/// Resolves everything. Called once per process image.
pub(crate) fn resolve() {
    // SAFETY: single-threaded; each field's type is that of the symbol.
    unsafe {
        let real = Real {
            pthread_create: find(c"pthread_create", c"GLIBC_2.34"),
            pthread_join: find(c"pthread_join", c"GLIBC_2.34"),
            pthread_exit: find(c"pthread_exit", c"GLIBC_2.2.5"),
            pthread_getattr_np: find(c"pthread_getattr_np", c"GLIBC_2.32"),
            fork: find(c"fork", c"GLIBC_2.2.5"),
            register_atfork: find(c"__register_atfork", c"GLIBC_2.3.2"),
            fclose: find(c"fclose", c"GLIBC_2.2.5"),
            fopen: find(c"fopen", c"GLIBC_2.2.5"),
            sigaction: find(c"sigaction", c"GLIBC_2.2.5"),
            fdopen: find(c"fdopen", c"GLIBC_2.2.5"),
            freopen: find(c"freopen", c"GLIBC_2.2.5"),
            quick_exit: find(c"quick_exit", c"GLIBC_2.24"),
            sysconf: find(c"sysconf", c"GLIBC_2.2.5"),
        };
        *REAL.0.get() = Some(real);
        REAL_DLSYM.store(find(c"dlsym", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLOPEN.store(find(c"dlopen", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLMOPEN.store(find(c"dlmopen", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLCLOSE.store(find(c"dlclose", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLADDR.store(find(c"dladdr", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLADDR1.store(find(c"dladdr1", c"GLIBC_2.34"), Ordering::Relaxed);
        REAL_DLINFO.store(find(c"dlinfo", c"GLIBC_2.34"), Ordering::Relaxed);
        let iterate = find(c"dl_iterate_phdr", c"GLIBC_2.2.5");
        REAL_DL_ITERATE_PHDR.store(iterate, Ordering::Relaxed);
        REAL_LONGJMP.store(find(c"siglongjmp", c"GLIBC_2.2.5"), Ordering::Relaxed);
    }
}

/// The resolved functions. Only after `resolve`, which attaching does first.
pub(crate) fn real() -> &'static Real {
    // SAFETY: written before any caller can exist, never changed afterwards.
    match unsafe { &*REAL.0.get() } {
        Some(real) => real,
        None => {
            resolve();
            real()
        }
    }
}
