//! Saying no: what the interposer cannot do is named, never silent.

use crate::raw::{self, Line, line};
use crate::turn;
use crate::world::header;
use core::ffi::c_int;
use core::sync::atomic::Ordering;

/// Calls that are let through, or answered with an error, because they are not
/// virtual; counted in the segment's header and shown by `crane status`.
#[repr(usize)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsupported {
    /// connect(2) to an address outside of the replicated group.
    OutboundConnect = 0,
    /// A raw or packet socket: its input is not in the log.
    RawSocket = 1,
    /// A system call by number, or by an instruction of the program, that no wrapper knows.
    RawSystemCall = 3,
    /// A child process that was made without fork(2).
    Spawn = 4,
    /// io_uring, refused with ENOSYS.
    IoUring = 5,
    /// A socket of another family than IPv4, IPv6 or Unix.
    SocketFamily = 6,
    /// A descriptor passed to a client outside over a Unix socket (SCM_RIGHTS).
    DescriptorPassing = 7,
    /// A thread that was made behind the interposer's back.
    Thread = 9,
    /// A program that was not started, because the interposer would not be in it.
    Image = 20,
    /// A signal from outside of the replica: it is dropped.
    OutsideSignal = 22,
    /// A descriptor taken out of another process (pidfd_getfd(2)), refused with ENOSYS.
    ProcessDescriptor = 24,
    /// Asynchronous I/O of POSIX (aio_read(3)) or Linux (io_setup(2)), refused with ENOSYS.
    AsynchronousIo = 25,
    /// A named pipe (FIFO) that is opened: EOPNOTSUPP.
    NamedPipe = 26,
}

/// Counts one use.
pub(crate) fn count(what: Unsupported) {
    header().unsupported[what as usize].fetch_add(1, Ordering::Relaxed);
}

/// Counts one use and fails as a kernel that does not know the call.
pub(crate) fn unknown(what: Unsupported) -> c_int {
    count(what);
    raw::fail(libc::ENOSYS)
}

/// Ends the server with one clear line.
pub(crate) fn fatal(text: Line) -> ! {
    turn::report(true, &text);
    header().state.store(
        crane_channel::layout::State::Refused as u32,
        Ordering::SeqCst,
    );
    raw::exit_group(70)
}

/// A thread that the scheduler does not know would have to wait.
pub(crate) fn unscheduled_wait() -> ! {
    count(Unsupported::Thread);
    fatal(line!(
        "thread {} was started behind the interposer's back (not by pthread_create) and has to wait: it cannot be kept in step",
        raw::gettid()
    ))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    raw::write_stderr(line!("crane: the interposer broke an invariant: {info}\n").as_bytes());
    raw::exit_group(70)
}
