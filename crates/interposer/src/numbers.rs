//! syscall(2): calls by number, answered by the same functions as by name. Those
//! of the program's own instructions come here, too (see `trap`).

use crate::raw::{self, fail, sys};
use crate::refuse::{self, Unsupported};
use crate::{
    actions, clock, clone, control, exec, fatal, fds, files, futex, ids, inotify, kill, locks,
    machine, masks, messages, options, outside, pidfds, polling, priorities, process, random,
    signalfd, sigwait, sockets, splice, sysv, threads, timers, times, transfer, wait,
};
use core::ffi::{c_int, c_long, c_uint, c_ulong};
use syscalls::Sysno;

/// Dispatches by number; what has no wrapper goes to the kernel, counted when
/// it could bring in something that is not in the log.
pub(crate) unsafe fn syscall(number: c_long, a: [c_ulong; 6]) -> c_long {
    let Some(call) = Sysno::new(number as usize) else {
        return fail(libc::ENOSYS).into();
    };
    let int = |i: usize| a[i] as c_int;
    let uint = |i: usize| a[i] as c_uint;
    macro_rules! ptr {
        ($i:expr) => {
            a[$i] as *mut _
        };
    }
    // SAFETY: the caller keeps the contract of the system call, which is that
    // of the function.
    unsafe {
        match call {
            Sysno::futex => futex::futex(a),
            Sysno::clock_gettime => clock::clock_gettime(int(0), ptr!(1)).into(),
            Sysno::gettimeofday => clock::gettimeofday(ptr!(0), ptr!(1)).into(),
            Sysno::time => clock::time(ptr!(0)),
            Sysno::nanosleep => clock::errno_result(clock::nanosleep(ptr!(0), ptr!(1))).into(),
            Sysno::getrandom => {
                random::fill(core::slice::from_raw_parts_mut(ptr!(0), a[1] as usize));
                a[1] as c_long
            }
            Sysno::clock_nanosleep => {
                let code = clock::clock_nanosleep(int(0), int(1), ptr!(2), ptr!(3));
                if code == 0 { 0 } else { fail(code).into() }
            }
            Sysno::times => clock::times(ptr!(0)),
            Sysno::getrusage => clock::getrusage(int(0), ptr!(1)).into(),
            Sysno::readv => transfer::readv(int(0), ptr!(1), int(2)) as c_long,
            Sysno::writev => transfer::writev(int(0), ptr!(1), int(2)) as c_long,
            Sysno::preadv => transfer::preadv(int(0), ptr!(1), int(2), a[3] as i64, 0) as c_long,
            Sysno::pwritev => transfer::pwritev(int(0), ptr!(1), int(2), a[3] as i64, 0) as c_long,
            Sysno::pwrite64 => {
                transfer::pwrite(int(0), ptr!(1), a[2] as usize, a[3] as i64) as c_long
            }
            Sysno::ftruncate => transfer::ftruncate(int(0), a[1] as i64).into(),
            Sysno::read => transfer::read(int(0), ptr!(1), a[2] as usize) as c_long,
            Sysno::write => transfer::write(int(0), ptr!(1), a[2] as usize) as c_long,
            Sysno::close => fds::close(int(0)).into(),
            Sysno::dup => fds::dup(int(0)).into(),
            Sysno::dup2 => fds::dup3(int(0), int(1), 0, true).into(),
            Sysno::dup3 => fds::dup3(int(0), int(1), int(2), false).into(),
            Sysno::fcntl => control::fcntl(int(0), int(1), a[2]).into(),
            Sysno::ioctl => control::ioctl(int(0), a[1], a[2]).into(),
            Sysno::pipe => fds::pipe(ptr!(0), 0).into(),
            Sysno::pipe2 => fds::pipe(ptr!(0), int(1)).into(),
            Sysno::eventfd => fds::eventfd(uint(0), 0).into(),
            Sysno::eventfd2 => fds::eventfd(uint(0), int(1)).into(),
            Sysno::close_range => fds::close_range(uint(0), uint(1), int(2)).into(),
            Sysno::open => files::open(libc::AT_FDCWD, ptr!(0), int(1), uint(2)).into(),
            Sysno::openat => files::open(int(0), ptr!(1), int(2), uint(3)).into(),
            Sysno::creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                files::open(libc::AT_FDCWD, ptr!(0), flags, uint(1)).into()
            }
            Sysno::lstat => {
                let flags = libc::AT_SYMLINK_NOFOLLOW;
                files::stat(libc::AT_FDCWD, ptr!(0), ptr!(1), flags).into()
            }
            Sysno::utime => times::utime(ptr!(0), ptr!(1)).into(),
            Sysno::utimes => times::utimes(libc::AT_FDCWD, ptr!(0), ptr!(1), 0).into(),
            Sysno::futimesat => times::utimes(int(0), ptr!(1), ptr!(2), 0).into(),
            Sysno::stat => files::stat(libc::AT_FDCWD, ptr!(0), ptr!(1), 0).into(),
            Sysno::fstat => files::fstat(int(0), ptr!(1)).into(),
            Sysno::newfstatat => files::stat(int(0), ptr!(1), ptr!(2), int(3)).into(),
            Sysno::statx => files::statx(int(0), ptr!(1), int(2), uint(3), ptr!(4)).into(),
            Sysno::socket => sockets::socket(int(0), int(1), int(2)).into(),
            Sysno::bind => sockets::bind(int(0), ptr!(1), uint(2)).into(),
            Sysno::listen => sockets::listen(int(0), int(1)).into(),
            Sysno::accept => sockets::accept(int(0), ptr!(1), ptr!(2), 0).into(),
            Sysno::accept4 => sockets::accept(int(0), ptr!(1), ptr!(2), int(3)).into(),
            Sysno::connect => sockets::connect(int(0), ptr!(1), uint(2)).into(),
            Sysno::sendto => {
                messages::sendto(int(0), ptr!(1), a[2] as usize, int(3), ptr!(4), uint(5)) as c_long
            }
            Sysno::recvfrom => {
                messages::recvfrom(int(0), ptr!(1), a[2] as usize, int(3), ptr!(4), ptr!(5))
                    as c_long
            }
            Sysno::sendmsg => messages::sendmsg(int(0), ptr!(1), int(2)) as c_long,
            Sysno::recvmsg => messages::recvmsg(int(0), ptr!(1), int(2)) as c_long,
            Sysno::sendmmsg => messages::sendmmsg(int(0), ptr!(1), uint(2), int(3)).into(),
            Sysno::recvmmsg => messages::recvmmsg(int(0), ptr!(1), uint(2), int(3), ptr!(4)).into(),
            Sysno::shutdown => sockets::shutdown(int(0), int(1)).into(),
            Sysno::socketpair => sockets::socketpair(int(0), int(1), int(2), ptr!(3)).into(),
            Sysno::getsockname => sockets::name(int(0), ptr!(1), ptr!(2), false).into(),
            Sysno::getpeername => sockets::name(int(0), ptr!(1), ptr!(2), true).into(),
            Sysno::setsockopt => {
                options::setsockopt(int(0), int(1), int(2), ptr!(3), uint(4)).into()
            }
            Sysno::getsockopt => {
                options::getsockopt(int(0), int(1), int(2), ptr!(3), ptr!(4)).into()
            }
            Sysno::setitimer => timers::setitimer(int(0), ptr!(1), ptr!(2)).into(),
            Sysno::getitimer => timers::getitimer(int(0), ptr!(1)).into(),
            Sysno::alarm => timers::alarm(uint(0)).into(),
            Sysno::timerfd_create => timers::timerfd_create(int(0), int(1)).into(),
            Sysno::timerfd_settime => {
                timers::timerfd_settime(int(0), int(1), ptr!(2), ptr!(3)).into()
            }
            Sysno::timerfd_gettime => timers::timerfd_gettime(int(0), ptr!(1)).into(),
            Sysno::signalfd => signalfd::signalfd(int(0), ptr!(1), 0).into(),
            Sysno::signalfd4 => signalfd::signalfd(int(0), ptr!(1), int(3)).into(),
            // The kernel's ids are ints, the C library's are words.
            Sysno::timer_create => {
                let mut id: libc::timer_t = core::ptr::null_mut();
                let code = timers::timer_create(int(0), ptr!(1), &raw mut id);
                if code == 0 {
                    (a[2] as *mut c_int).write(id as usize as c_int);
                }
                code.into()
            }
            Sysno::timer_settime => timers::timer_settime(ptr!(0), int(1), ptr!(2), ptr!(3)).into(),
            Sysno::timer_gettime => timers::timer_gettime(ptr!(0), ptr!(1)).into(),
            Sysno::timer_getoverrun => timers::timer_getoverrun(ptr!(0)).into(),
            Sysno::timer_delete => timers::timer_delete(ptr!(0)).into(),
            Sysno::sysinfo => machine::sysinfo(ptr!(0)).into(),
            Sysno::statfs => machine::statfs(ptr!(0), ptr!(1)).into(),
            Sysno::fstatfs => machine::fstatfs(int(0), ptr!(1)).into(),
            Sysno::epoll_pwait2 => {
                polling::epoll_pwait2(int(0), ptr!(1), int(2), ptr!(3), ptr!(4)).into()
            }
            Sysno::poll => polling::poll(ptr!(0), a[1], clock::deadline_ms(int(2))).into(),
            Sysno::select => polling::select(int(0), ptr!(1), ptr!(2), ptr!(3), ptr!(4)).into(),
            Sysno::pselect6 => {
                // The mask comes with its length, in a structure.
                let mask = if a[5] == 0 {
                    core::ptr::null()
                } else {
                    *(a[5] as *const *const _)
                };
                polling::pselect(int(0), ptr!(1), ptr!(2), ptr!(3), ptr!(4), mask).into()
            }
            Sysno::epoll_create => polling::epoll_create(int(0)).into(),
            Sysno::inotify_init => inotify::init(0).into(),
            Sysno::ppoll => polling::ppoll(ptr!(0), a[1], ptr!(2), ptr!(3)).into(),
            Sysno::preadv2 => {
                transfer::preadv(int(0), ptr!(1), int(2), a[3] as i64, int(5)) as c_long
            }
            Sysno::pwritev2 => {
                transfer::pwritev(int(0), ptr!(1), int(2), a[3] as i64, int(5)) as c_long
            }
            Sysno::splice => {
                splice::splice(int(0), ptr!(1), int(2), ptr!(3), a[4] as usize, uint(5)) as c_long
            }
            Sysno::tee => splice::tee(int(0), int(1), a[2] as usize, uint(3)) as c_long,
            Sysno::vmsplice => splice::vmsplice(int(0), ptr!(1), a[2] as usize, uint(3)) as c_long,
            Sysno::sendfile => splice::sendfile(int(0), int(1), ptr!(2), a[3] as usize) as c_long,
            Sysno::copy_file_range => {
                splice::copy_file_range(int(0), ptr!(1), int(2), ptr!(3), a[4] as usize, uint(5))
                    as c_long
            }
            Sysno::inotify_init1 => inotify::init(int(0)).into(),
            Sysno::epoll_create1 => polling::epoll_create1(int(0)).into(),
            Sysno::epoll_ctl => polling::epoll_ctl(int(0), int(1), int(2), ptr!(3)).into(),
            Sysno::epoll_wait => {
                polling::epoll_wait(int(0), ptr!(1), int(2), int(3), core::ptr::null()).into()
            }
            Sysno::epoll_pwait => {
                polling::epoll_wait(int(0), ptr!(1), int(2), int(3), ptr!(4)).into()
            }
            Sysno::fsync | Sysno::fdatasync | Sysno::syncfs => outside::sync(call, int(0)).into(),
            Sysno::sync_file_range => {
                outside::sync_range(int(0), a[1] as i64, a[2] as i64, uint(3)).into()
            }
            Sysno::sync => {
                outside::sync_all();
                0
            }
            Sysno::msync => outside::msync(ptr!(0), a[1] as usize, int(2)).into(),
            Sysno::utimensat => times::utimensat(int(0), ptr!(1), ptr!(2), int(3)).into(),
            Sysno::sched_yield => threads::sched_yield().into(),
            // By number it tells how many bytes the kernel's mask has.
            Sysno::sched_getaffinity => match threads::getaffinity(a[1] as usize, ptr!(2)) {
                0 => size_of::<c_ulong>() as c_long,
                failed => failed.into(),
            },
            Sysno::sched_setaffinity => 0,
            Sysno::sched_setscheduler => priorities::set_of(int(0), int(1), ptr!(2)).into(),
            Sysno::sched_getscheduler => priorities::policy_of(int(0)).into(),
            Sysno::sched_setparam => priorities::set_priority_of(int(0), ptr!(1)).into(),
            Sysno::sched_getparam => priorities::priority_of(int(0), ptr!(1)).into(),
            Sysno::getcpu => {
                for place in a.iter().take(2).filter(|place| **place != 0) {
                    (*place as *mut c_uint).write(0);
                }
                0
            }
            Sysno::execve => exec::execve(ptr!(0), ptr!(1), ptr!(2)).into(),
            Sysno::execveat => exec::execveat(int(0), ptr!(1), ptr!(2), ptr!(3), int(4)).into(),
            Sysno::kill => kill::kill(int(0), int(1)).into(),
            Sysno::tgkill => kill::tgkill(uint(0), int(1), int(2)).into(),
            Sysno::tkill => kill::tgkill(0, int(0), int(1)).into(),
            Sysno::rt_sigaction => actions::by_number(int(0), ptr!(1), ptr!(2)).into(),
            Sysno::rt_sigprocmask => masks::by_number(int(0), ptr!(1), ptr!(2)).into(),
            Sysno::rt_sigpending => masks::pending_by_number(ptr!(0)).into(),
            Sysno::rt_sigtimedwait => sigwait::sigtimedwait(ptr!(0), ptr!(1), ptr!(2)).into(),
            Sysno::rt_sigsuspend => sigwait::sigsuspend(ptr!(0)).into(),
            Sysno::sigaltstack => fatal::sigaltstack(ptr!(0), ptr!(1)).into(),
            Sysno::pause => sigwait::pause().into(),
            Sysno::wait4 => wait::wait4(int(0), ptr!(1), int(2), ptr!(3)).into(),
            Sysno::waitid => wait::waitid(uint(0), uint(1), ptr!(2), int(3)).into(),
            Sysno::getppid => ids::getppid().into(),
            Sysno::getpgid => ids::getpgid(int(0)).into(),
            Sysno::getpgrp => ids::getpgid(0).into(),
            Sysno::getsid => ids::getsid(int(0)).into(),
            Sysno::setpgid => ids::setpgid(int(0), int(1)).into(),
            Sysno::setsid => ids::setsid().into(),
            Sysno::prctl => ids::prctl(int(0), [a[1], a[2], a[3], a[4]]).into(),
            Sysno::clone => clone::by_number(a[0], a[1]).into(),
            Sysno::clone3 => clone::by_structure(ptr!(0)).into(),
            Sysno::fork => process::fork().into(),
            Sysno::vfork => process::vfork().into(),
            Sysno::flock => locks::flock(int(0), int(1)).into(),
            Sysno::semop => sysv::semop(int(0), ptr!(1), a[2] as usize, core::ptr::null()).into(),
            Sysno::semtimedop => sysv::semop(int(0), ptr!(1), a[2] as usize, ptr!(3)).into(),
            Sysno::semctl => sysv::semctl(int(0), int(1), int(2), a[3]).into(),
            Sysno::msgsnd => sysv::msgsnd(int(0), ptr!(1), a[2] as usize, int(3)).into(),
            Sysno::msgrcv => {
                sysv::msgrcv(int(0), ptr!(1), a[2] as usize, a[3] as c_long, int(4)) as c_long
            }
            Sysno::msgctl => sysv::msgctl(int(0), int(1), ptr!(2)).into(),
            Sysno::shmctl => sysv::shmctl(int(0), int(1), ptr!(2)).into(),
            Sysno::exit => threads::exit_by_number(int(0)),
            Sysno::exit_group => process::exit_now(int(0)),
            Sysno::futex_waitv | Sysno::futex_wake | Sysno::futex_wait | Sysno::futex_requeue => {
                refuse::count(Unsupported::RawSystemCall);
                fail(libc::ENOSYS).into()
            }
            Sysno::pidfd_open => pidfds::open(int(0), uint(1)).into(),
            Sysno::pidfd_send_signal => {
                pidfds::send_signal(int(0), int(1), ptr!(2), uint(3)).into()
            }
            Sysno::pidfd_getfd => refuse::unknown(Unsupported::ProcessDescriptor).into(),
            Sysno::io_setup
            | Sysno::io_submit
            | Sysno::io_getevents
            | Sysno::io_destroy
            | Sysno::io_cancel => refuse::unknown(Unsupported::AsynchronousIo).into(),
            Sysno::io_uring_setup | Sysno::io_uring_enter | Sysno::io_uring_register => {
                refuse::count(Unsupported::IoUring);
                fail(libc::ENOSYS).into()
            }
            _ => {
                if brings_input(call) {
                    refuse::count(Unsupported::RawSystemCall);
                }
                raw::ret(sys!(call, a[0], a[1], a[2], a[3], a[4], a[5])) as c_long
            }
        }
    }
}

/// Calls whose result could differ between replicas and that are not virtual.
fn brings_input(call: Sysno) -> bool {
    matches!(call, Sysno::perf_event_open | Sysno::userfaultfd)
}
