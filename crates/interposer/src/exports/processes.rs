//! Processes, signals, what processes share, and calls by number.

use crate::refuse::{self, Unsupported};
use crate::stack::clean as leave;
use crate::{
    actions, exec, fatal, ids, kill, locks, masks, pidfds, process, sigwait, spawn, sysv, threads,
    wait,
};
use core::ffi::{c_char, c_int, c_long, c_uint, c_ulong, c_void};
use core::ptr::null;
use libc::{off_t, pid_t, pthread_t, size_t, ssize_t, timespec};

interposed! {
    processes {
        /// Ready where the process ends in the order.
        fn pidfd_open(pid: pid_t, flags: c_uint) -> c_int { pidfds::open(pid, flags) }
        /// Programs do without.
        fn pidfd_getfd(_pidfd: c_int, _fd: c_int, _flags: c_uint) -> c_int { refuse::unknown(Unsupported::ProcessDescriptor) }
        /// In logical order.
        fn pidfd_send_signal(pidfd: c_int, signal: c_int, info: *const libc::siginfo_t, flags: c_uint) -> c_int { pidfds::send_signal(pidfd, signal, info, flags) }
        /// As fork.
        fn __fork() -> pid_t { process::fork() }
        /// As vfork.
        fn __vfork() -> pid_t { process::vfork() }
        /// As wait.
        fn __wait(status: *mut c_int) -> pid_t { wait::wait4(-1, status, 0, core::ptr::null_mut()) }
        /// As waitpid.
        fn __waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t { wait::wait4(pid, status, options, core::ptr::null_mut()) }
        /// As sysconf.
        fn __sysconf(name: c_int) -> c_long { crate::machine::sysconf(name) }
        /// The child waits for its first turn.
        fn fork() -> pid_t { process::fork() }
        /// As fork: the child gets memory of its own; the parent waits until it has called exec or ended.
        fn vfork() -> pid_t { process::vfork() }
        /// As fork; fork handlers run too.
        fn _Fork() -> pid_t { process::fork() }
        /// Others' fork handlers run in the schedule.
        fn __register_atfork(prepare: Option<unsafe extern "C" fn()>, parent: Option<unsafe extern "C" fn()>, child: Option<unsafe extern "C" fn()>, dso: *mut c_void) -> c_int {
            crate::world::ensure_attached();
            (crate::real::real().register_atfork)(prepare, parent, child, dso)
        }
        /// The new image goes on with the turn, and always has the interposer in it.
        fn execve(path: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::execve(path, argv, envp) }
        /// As execve.
        fn execv(path: *const c_char, argv: *const *const c_char) -> c_int { exec::execve(path, argv, process::environment()) }
        /// As execve, after looking the file up in PATH.
        fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int { exec::execvpe(file, argv, process::environment()) }
        /// As execvp.
        fn execvpe(file: *const c_char, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::execvpe(file, argv, envp) }
        /// As execve.
        fn execveat(dir: c_int, path: *const c_char, argv: *const *const c_char, envp: *const *const c_char, flags: c_int) -> c_int { exec::execveat(dir, path, argv, envp, flags) }
        /// As execve.
        fn fexecve(fd: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int { exec::fexecve(fd, argv, envp) }
        /// An ordered event.
        fn _exit(status: c_int) { process::exit_now(status) }
        /// An ordered event.
        fn _Exit(status: c_int) { process::exit_now(status) }
        /// An ordered event, after its own handlers.
        fn quick_exit(status: c_int) {
            crate::world::ensure_attached();
            process::note_quick_exit(status);
            (crate::real::real().quick_exit)(status)
        }
        /// An ordered end by SIGABRT.
        fn abort() { sigwait::abort() }
        /// Over fork and exec; file actions and attributes as in the C library.
        fn posix_spawn(pid: *mut pid_t, path: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attr: *const libc::posix_spawnattr_t, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
            spawn::posix_spawn(pid, path, actions, attr, argv, envp, false)
        }
        /// As posix_spawn, after looking the file up in PATH.
        fn posix_spawnp(pid: *mut pid_t, file: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attr: *const libc::posix_spawnattr_t, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
            spawn::posix_spawn(pid, file, actions, attr, argv, envp, true)
        }
        /// A shell in the schedule.
        fn system(command: *const c_char) -> c_int { spawn::system(command) }
        /// A shell in the schedule, on a virtual pipe.
        fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE { spawn::popen(command, mode) }
        /// Waits in logical order.
        fn pclose(file: *mut libc::FILE) -> c_int { spawn::pclose(file) }
        /// Over fork, in the schedule.
        fn daemon(nochdir: c_int, noclose: c_int) -> c_int { ids::daemon(nochdir, noclose) }
        /// In logical order.
        fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t { wait::wait4(pid, status, options, core::ptr::null_mut()) }
        /// In logical order.
        fn wait4(pid: pid_t, status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> pid_t { wait::wait4(pid, status, options, usage) }
        /// In logical order.
        fn wait3(status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> pid_t { wait::wait4(-1, status, options, usage) }
        /// In logical order.
        fn wait(status: *mut c_int) -> pid_t { wait::wait4(-1, status, 0, core::ptr::null_mut()) }
        /// In logical order.
        fn waitid(kind: c_uint, id: c_uint, info: *mut libc::siginfo_t, options: c_int) -> c_int { wait::waitid(kind, id, info, options) }
        /// The parent as the order has it; 1 for an orphan.
        fn getppid() -> pid_t { ids::getppid() }
        /// As the order has it.
        fn getpgid(pid: pid_t) -> pid_t { ids::getpgid(pid) }
        /// As getpgid.
        fn __getpgid(pid: pid_t) -> pid_t { ids::getpgid(pid) }
        /// As getpgid.
        fn getpgrp() -> pid_t { ids::getpgid(0) }
        /// As the order has it.
        fn getsid(pid: pid_t) -> pid_t { ids::getsid(pid) }
        /// As the order has it.
        fn setpgid(pid: pid_t, group: pid_t) -> c_int { ids::setpgid(pid, group) }
        /// As setpgid.
        fn __setpgid(pid: pid_t, group: pid_t) -> c_int { ids::setpgid(pid, group) }
        /// As setpgid.
        fn setpgrp() -> c_int { ids::setpgid(0, 0) }
        /// As the order has it.
        fn setsid() -> pid_t { ids::setsid() }
        /// PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER in the order; others are the kernel's.
        fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int { ids::prctl(option, [a, b, c, d]) }
    }
    signals {
        /// In logical order, also to groups; SIGKILL included.
        fn kill(pid: pid_t, signal: c_int) -> c_int { kill::kill(pid, signal) }
        /// As kill.
        fn killpg(group: pid_t, signal: c_int) -> c_int { kill::killpg(group, signal) }
        /// As kill, with a value.
        fn sigqueue(pid: pid_t, signal: c_int, value: u64) -> c_int { kill::sigqueue(pid, signal, value) }
        /// In logical order.
        fn tgkill(group: pid_t, tid: pid_t, signal: c_int) -> c_int { kill::tgkill(group as c_uint, tid, signal) }
        /// At once.
        fn raise(signal: c_int) -> c_int { sigwait::raise(signal) }
        /// As raise.
        fn gsignal(signal: c_int) -> c_int { sigwait::raise(signal) }
        /// As pthread_kill, with a value.
        fn pthread_sigqueue(thread: pthread_t, signal: c_int, value: u64) -> c_int { threads::sigqueue(thread, signal, value) }
        /// Handlers run when their thread has the turn.
        fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { actions::sigaction(signal, new, old) }
        /// As sigaction.
        fn __sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int { actions::sigaction(signal, new, old) }
        /// As sigaction.
        fn signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal.
        fn bsd_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal.
        fn ssignal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESTART) }
        /// As signal; the handler serves once.
        fn sysv_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER) }
        /// As sysv_signal.
        fn __sysv_signal(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { actions::signal(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER) }
        /// As signal, and holds or lets through.
        fn sigset(signal: c_int, handler: libc::sighandler_t) -> libc::sighandler_t { masks::sigset(signal, handler) }
        /// As signal with SIG_IGN.
        fn sigignore(signal: c_int) -> c_int { if actions::signal(signal, libc::SIG_IGN, 0) == libc::SIG_ERR { -1 } else { 0 } }
        /// Of the action that is set.
        fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int { actions::siginterrupt(signal, interrupt) }
        /// A stack of the interposer's does not show.
        fn sigaltstack(new: *const libc::stack_t, old: *mut libc::stack_t) -> c_int { fatal::sigaltstack(new, old) }
        /// What is let through is taken at once.
        fn pthread_sigmask(how: c_int, new: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int { masks::pthread_sigmask(how, new, old) }
        /// As pthread_sigmask.
        fn sigprocmask(how: c_int, new: *const libc::sigset_t, old: *mut libc::sigset_t) -> c_int { masks::sigprocmask(how, new, old) }
        /// As sigprocmask.
        fn sighold(signal: c_int) -> c_int { masks::hold(signal, true) }
        /// As sigprocmask.
        fn sigrelse(signal: c_int) -> c_int { masks::hold(signal, false) }
        /// As sigprocmask.
        fn sigblock(set: c_int) -> c_int { masks::old_style(set, true) }
        /// As sigprocmask.
        fn sigsetmask(set: c_int) -> c_int { masks::old_style(set, false) }
        /// As sigprocmask.
        fn siggetmask() -> c_int { masks::get_old_style() }
        /// In logical order.
        fn sigpending(set: *mut libc::sigset_t) -> c_int { masks::sigpending(set) }
        /// Blocks in the schedule until a handler has run.
        fn pause() -> c_int { sigwait::pause() }
        /// As pause.
        fn sigsuspend(mask: *const libc::sigset_t) -> c_int { sigwait::sigsuspend(mask) }
        /// As sigsuspend.
        fn __sigsuspend(mask: *const libc::sigset_t) -> c_int { sigwait::sigsuspend(mask) }
        /// As sigsuspend.
        fn __xpg_sigpause(signal: c_int) -> c_int { sigwait::sigpause(signal) }
        /// As sigsuspend, with the first 32 signals in an int.
        fn sigpause(mask: c_int) -> c_int { sigwait::sigpause_mask(mask) }
        /// As sigpause, or as __xpg_sigpause.
        fn __sigpause(what: c_int, is_signal: c_int) -> c_int {
            if is_signal != 0 { sigwait::sigpause(what) } else { sigwait::sigpause_mask(what) }
        }
        /// Blocks in the schedule.
        fn sigwait(set: *const libc::sigset_t, signal: *mut c_int) -> c_int { sigwait::sigwait(set, signal) }
        /// Blocks in the schedule.
        fn sigwaitinfo(set: *const libc::sigset_t, info: *mut libc::siginfo_t) -> c_int { sigwait::sigtimedwait(set, info, null()) }
        /// Until a virtual time.
        fn sigtimedwait(set: *const libc::sigset_t, info: *mut libc::siginfo_t, length: *const timespec) -> c_int { sigwait::sigtimedwait(set, info, length) }
    }
    file_locks {
        /// Waits in the schedule.
        fn flock(fd: c_int, operation: c_int) -> c_int { locks::flock(fd, operation) }
        /// As fcntl with F_SETLKW and F_SETLK.
        fn lockf(fd: c_int, command: c_int, length: off_t) -> c_int { locks::lockf(fd, command, length) }
        /// As lockf.
        fn lockf64(fd: c_int, command: c_int, length: off_t) -> c_int { locks::lockf(fd, command, length) }
    }
    system_v {
        /// Waits in the schedule.
        fn semop(id: c_int, operations: *mut libc::sembuf, count: size_t) -> c_int { sysv::semop(id, operations, count, null()) }
        /// Until a virtual time.
        fn semtimedop(id: c_int, operations: *mut libc::sembuf, count: size_t, length: *const timespec) -> c_int { sysv::semop(id, operations, count, length) }
        /// Times do not show.
        fn semctl(id: c_int, number: c_int, command: c_int, argument: c_ulong) -> c_int { sysv::semctl(id, number, command, argument) }
        /// Waits in the schedule.
        fn msgsnd(id: c_int, message: *const c_void, size: size_t, flags: c_int) -> c_int { sysv::msgsnd(id, message, size, flags) }
        /// Waits in the schedule.
        fn msgrcv(id: c_int, message: *mut c_void, size: size_t, kind: c_long, flags: c_int) -> ssize_t { sysv::msgrcv(id, message, size, kind, flags) }
        /// Times do not show.
        fn msgctl(id: c_int, command: c_int, argument: *mut libc::msqid_ds) -> c_int { sysv::msgctl(id, command, argument) }
        /// Times do not show.
        fn shmctl(id: c_int, command: c_int, argument: *mut libc::shmid_ds) -> c_int { sysv::shmctl(id, command, argument) }
    }
    linking {
        /// System calls by number, as the functions of the same name.
        fn syscall(number: c_long, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong, e: c_ulong, f: c_ulong) -> c_long {
            crate::numbers::syscall(number, [a, b, c, d, e, f])
        }
    }
}
