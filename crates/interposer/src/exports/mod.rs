//! The one table of interposed symbols.
//!
//! Each row is an exported function: its family, its C signature, what answers
//! it, and a line of documentation. From here come the library's exports, the
//! answers of `dlsym`, `docs/compatibility.md` and the symbol test. Unversioned
//! definitions answer callers of every version of a symbol.
//!
//! Variadic functions take their arguments as fixed integers: on x86-64 they
//! are passed alike.

// The contract of every row is that of the C function of the same name.
#![allow(clippy::missing_safety_doc)]

use core::ffi::{CStr, c_void};

/// Makes the functions of some families. `leave` is what each does last: quick
/// calls clean the stack only after a wait (see `turn`), all others always.
macro_rules! interposed {
    ($(
        $family:ident {
            $($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? $body:block)*
        }
    )*) => {
        $($(
            $(#[$doc])*
            #[unsafe(no_mangle)]
            // Some do not return.
            #[allow(unreachable_code, unused_variables, clippy::diverging_sub_expression)]
            pub unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller keeps the contract of the C function.
                #[allow(unused_unsafe)]
                let result = unsafe { $body };
                leave();
                result
            }
        )*)*

        /// Names and addresses, for dlsym. Families are for the documentation.
        pub(super) static TABLE: &[(&str, super::Address)] = &[
            $($((stringify!($name), super::Address($name as *const ())),)*)*
        ];
    };
}

struct Address(*const ());

// SAFETY: addresses of functions are plain numbers.
unsafe impl Sync for Address {}

/// Our function of that name, or null.
pub(crate) fn address_of(name: &CStr) -> *mut c_void {
    let name = name.to_bytes();
    let mut rows = TABLES.iter().flat_map(|table| table.iter());
    let row = rows.find(|(n, _)| n.as_bytes() == name);
    row.map_or(core::ptr::null_mut(), |(_, address)| {
        address.0 as *mut c_void
    })
}

mod descriptors;
mod files;
mod processes;
mod sockets;
mod threads;
mod time;

static TABLES: [&[(&str, Address)]; 6] = [
    descriptors::TABLE,
    files::TABLE,
    processes::TABLE,
    sockets::TABLE,
    threads::TABLE,
    time::TABLE,
];
