//! Error numbers as Linux returns them.

use core::fmt;

/// A positive Linux error number, for example `Errno(libc::EAGAIN)`.
///
/// `Errno::AGAIN` from any operation means: nothing changed; a caller whose
/// description is blocking waits on the matching key and retries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

/// Result of every operation of the virtual kernel.
pub type Result<T> = core::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident = $value:ident,)*) => {
        #[allow(missing_docs)]
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$value);)*
        }
        impl fmt::Display for Errno {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $(libc::$value => out.write_str(stringify!($value)),)*
                    other => write!(out, "errno {other}"),
                }
            }
        }
    };
}

errnos! {
    PERM = EPERM,
    BADF = EBADF,
    AGAIN = EAGAIN,
    NOMEM = ENOMEM,
    BUSY = EBUSY,
    EXIST = EEXIST,
    NOENT = ENOENT,
    INVAL = EINVAL,
    NFILE = ENFILE,
    MFILE = EMFILE,
    NOTTY = ENOTTY,
    PIPE = EPIPE,
    LOOP = ELOOP,
    NOTSOCK = ENOTSOCK,
    DESTADDRREQ = EDESTADDRREQ,
    MSGSIZE = EMSGSIZE,
    PROTOTYPE = EPROTOTYPE,
    PROTONOSUPPORT = EPROTONOSUPPORT,
    SOCKTNOSUPPORT = ESOCKTNOSUPPORT,
    OPNOTSUPP = EOPNOTSUPP,
    AFNOSUPPORT = EAFNOSUPPORT,
    ADDRINUSE = EADDRINUSE,
    ADDRNOTAVAIL = EADDRNOTAVAIL,
    NETUNREACH = ENETUNREACH,
    CONNABORTED = ECONNABORTED,
    CONNRESET = ECONNRESET,
    NOBUFS = ENOBUFS,
    ISCONN = EISCONN,
    NOTCONN = ENOTCONN,
    CONNREFUSED = ECONNREFUSED,
    INPROGRESS = EINPROGRESS,
}
