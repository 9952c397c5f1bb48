//! posix_spawn(3) and system(3), over fork and exec of our own.
//!
//! The C library's own make the child by a clone that shares memory, out of
//! everybody's sight. Its lists of file actions are read as it lays them out;
//! that layout has not changed since glibc 2.29 but for actions that were added
//! at the end, and one that is not known fails the spawn.

use crate::process::{self, current};
use crate::raw::{self, fail, sys};
use crate::signals::{self, bit, set_of};
use crate::turn::{Op, begin};
use crate::world::world;
use crate::{actions, exec, fds, files, ids, tls, wait};
use core::ffi::{c_char, c_int, c_short, c_void};
use libc::{posix_spawn_file_actions_t, posix_spawnattr_t};
use syscalls::Sysno;

type Strings = *const *const c_char;

const SETSID: c_int = 0x80;

/// posix_spawn_file_actions_t.
#[repr(C)]
struct Actions {
    _allocated: c_int,
    used: c_int,
    first: *const FileAction,
}

/// One action: a tag, and the union of all actions' arguments.
#[repr(C)]
struct FileAction {
    tag: u32,
    _pad: u32,
    words: [u64; 3],
}

impl FileAction {
    /// The first two arguments of an action that has numbers.
    fn numbers(&self) -> (c_int, c_int) {
        (self.words[0] as c_int, (self.words[0] >> 32) as c_int)
    }
}

fn errno() -> c_int {
    // SAFETY: errno is the thread's own.
    unsafe { *libc::__errno_location() }
}

fn check(code: c_int) -> Result<(), c_int> {
    if code < 0 { Err(errno()) } else { Ok(()) }
}

/// Does one file action in the child.
unsafe fn act(action: *const FileAction) -> Result<(), c_int> {
    // SAFETY: an element of the program's list; see the layout above.
    unsafe {
        let action = &*action;
        let (fd, second) = action.numbers();
        match action.tag {
            // Closing what is not open is no error.
            0 => {
                fds::close(fd);
                Ok(())
            }
            1 => {
                if fd == second {
                    // The descriptor stays open across the exec.
                    let flags = crate::control::fcntl(fd, libc::F_GETFD, 0);
                    check(flags)?;
                    let flags = flags & !libc::FD_CLOEXEC;
                    return check(crate::control::fcntl(fd, libc::F_SETFD, flags as u64));
                }
                check(fds::dup3(fd, second, 0, true))
            }
            2 => {
                // open_action: the descriptor, then path, flags and mode.
                let path = action.words[1] as *const c_char;
                let (flags, mode) = (action.words[2] as c_int, (action.words[2] >> 32) as u32);
                fds::close(fd);
                let new = files::open(libc::AT_FDCWD, path, flags, mode);
                check(new)?;
                if new != fd {
                    let code = fds::dup3(new, fd, 0, true);
                    fds::close(new);
                    check(code)?;
                }
                Ok(())
            }
            3 => check(raw::ret(sys!(Sysno::chdir, action.words[0])) as c_int),
            4 => check(raw::ret(sys!(Sysno::fchdir, fd)) as c_int),
            5 => check(fds::close_range(fd.max(0) as u32, u32::MAX, 0)),
            // There are no terminals in a replica.
            6 => Err(libc::ENOTTY),
            _ => Err(libc::ENOSYS),
        }
    }
}

/// Sets the child's attributes, in the C library's order.
unsafe fn apply(attributes: *const posix_spawnattr_t) -> Result<(), c_int> {
    if attributes.is_null() {
        return Ok(());
    }
    let me = tls::slot();
    // SAFETY: valid attributes, read by the C library's own functions; all-zero
    // is a valid place for each.
    unsafe {
        let mut flags: c_short = 0;
        libc::posix_spawnattr_getflags(attributes, &mut flags);
        let flags = c_int::from(flags);
        if flags & libc::POSIX_SPAWN_SETSIGDEF != 0 {
            let mut set = core::mem::zeroed();
            libc::posix_spawnattr_getsigdefault(attributes, &mut set);
            let set = set_of(&set);
            for signal in 1..actions::COUNT as u32 {
                if set & bit(signal) != 0 {
                    actions::signal(signal as c_int, libc::SIG_DFL, 0);
                }
            }
        }
        if flags & libc::POSIX_SPAWN_SETSCHEDPARAM != 0
            || flags & libc::POSIX_SPAWN_SETSCHEDULER != 0
        {
            // Priorities do not change the order, which the turn decides.
        }
        if flags & SETSID != 0 {
            check(ids::setsid())?;
        }
        if flags & libc::POSIX_SPAWN_SETPGROUP != 0 {
            let mut group = 0;
            libc::posix_spawnattr_getpgroup(attributes, &mut group);
            check(ids::setpgid(0, group))?;
        }
        if flags & libc::POSIX_SPAWN_RESETIDS != 0 {
            check(raw::ret(sys!(Sysno::setuid, raw::getuid())) as c_int)?;
            check(raw::ret(sys!(Sysno::setgid, sys!(Sysno::getgid))) as c_int)?;
        }
        if flags & libc::POSIX_SPAWN_SETSIGMASK != 0 {
            let mut set = core::mem::zeroed();
            libc::posix_spawnattr_getsigmask(attributes, &mut set);
            signals::set_mask(me, set_of(&set));
        }
    }
    Ok(())
}

/// Makes a child that does `body`, which comes back only when it failed, and
/// waits until it has called exec. Returns its pid or the error.
pub(crate) fn child(body: impl FnOnce() -> c_int) -> Result<c_int, c_int> {
    let (pid, index) = process::make(true)?;
    if pid == 0 {
        let code = body();
        world().processes[current() as usize].spawn_error = code.max(1);
        process::exit_now(127);
    }
    process::await_child(index);
    process::spawn_failure(index).map_or(Ok(pid), Err)
}

/// posix_spawn(3), posix_spawnp(3): 0 or an error number.
pub(crate) unsafe fn posix_spawn(
    pid: *mut c_int,
    file: *const c_char,
    actions: *const posix_spawn_file_actions_t,
    attributes: *const posix_spawnattr_t,
    arguments: Strings,
    environment: Strings,
    search: bool,
) -> c_int {
    // SAFETY: same contract; the child has a copy of everything.
    let made = child(|| unsafe {
        let done = apply(attributes).and_then(|()| {
            if actions.is_null() {
                return Ok(());
            }
            let list = &*actions.cast::<Actions>();
            (0..list.used as usize).try_for_each(|i| act(list.first.add(i)))
        });
        if let Err(code) = done {
            return code;
        }
        if search {
            exec::execvpe(file, arguments, environment);
        } else {
            exec::execve(file, arguments, environment);
        }
        errno()
    });
    match made {
        Ok(child) => {
            if !pid.is_null() {
                // SAFETY: the caller passes a place for a pid.
                unsafe { *pid = child };
            }
            0
        }
        Err(code) => code,
    }
}

/// Becomes the shell with a command.
///
/// # Safety
///
/// `command` is a C string.
pub(crate) unsafe fn shell(command: *const c_char) -> c_int {
    let arguments = [c"sh".as_ptr(), c"-c".as_ptr(), command, core::ptr::null()];
    // SAFETY: a list that ends with null.
    unsafe {
        exec::execve(
            c"/bin/sh".as_ptr(),
            arguments.as_ptr(),
            process::environment(),
        )
    };
    errno()
}

/// system(3).
pub(crate) unsafe fn system(command: *const c_char) -> c_int {
    let me = begin(Op::Spawn);
    if command.is_null() {
        return 1;
    }
    if me == 0 {
        return fail(libc::ENOSYS);
    }
    let mask = world().threads[me as usize].mask;
    let before = [libc::SIGINT, libc::SIGQUIT].map(|signal| {
        let own = process::current() as usize;
        let action = world().processes[own].actions[signal as usize];
        actions::signal(signal, libc::SIG_IGN, 0);
        (signal, action)
    });
    signals::set_mask(me, mask | bit(libc::SIGCHLD as u32));
    let made = child(|| {
        for (signal, action) in before {
            actions::put_back(signal as u32, action);
        }
        signals::set_mask(tls::slot(), mask);
        // SAFETY: same contract.
        unsafe { shell(command) }
    });
    let mut status = 127 << 8;
    let code = match made {
        Ok(pid) => loop {
            // SAFETY: a place of our own.
            let code = unsafe { wait::wait4(pid, &mut status, 0, core::ptr::null_mut()) };
            if code >= 0 {
                break 0;
            }
            if errno() != libc::EINTR {
                break errno();
            }
        },
        // No shell could be started: as if it had ended with 127.
        Err(libc::EAGAIN | libc::ENOMEM) => libc::EAGAIN,
        Err(_) => 0,
    };
    for (signal, action) in before {
        actions::put_back(signal as u32, action);
    }
    signals::set_mask(me, mask);
    signals::deliver(me);
    if code == 0 { status } else { fail(code) }
}

/// What popen(3) remembers of a stream.
struct Piped {
    file: *mut c_void,
    pid: c_int,
}

/// Most streams of popen at a time.
const PIPES: usize = 256;

struct Table(core::cell::UnsafeCell<[Piped; PIPES]>);

// SAFETY: private to the process and used by the holder of the turn alone.
unsafe impl Sync for Table {}

static TABLE: Table = Table(core::cell::UnsafeCell::new(
    [const {
        Piped {
            file: core::ptr::null_mut(),
            pid: 0,
        }
    }; PIPES],
));

fn table() -> &'static mut [Piped; PIPES] {
    // SAFETY: see above; no reference is kept across a hand-over.
    unsafe { &mut *TABLE.0.get() }
}

/// popen(3).
pub(crate) unsafe fn popen(command: *const c_char, mode: *const c_char) -> *mut libc::FILE {
    begin(Op::Spawn);
    let none = core::ptr::null_mut();
    // SAFETY: the caller passes C strings.
    let letters = unsafe { core::ffi::CStr::from_ptr(mode) }.to_bytes();
    let reads = letters.contains(&b'r');
    if reads == letters.contains(&b'w') || letters.iter().any(|l| !b"rwe".contains(l)) {
        fail(libc::EINVAL);
        return none;
    }
    let Some(place) = table().iter().position(|one| one.file.is_null()) else {
        fail(libc::EMFILE);
        return none;
    };
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    if unsafe { fds::pipe(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return none;
    }
    let (own, theirs, number) = if reads {
        (ends[0], ends[1], 1)
    } else {
        (ends[1], ends[0], 0)
    };
    let made = child(|| {
        // Streams of earlier calls are not the child's, see popen(3).
        for one in table().iter().filter(|one| !one.file.is_null()) {
            // SAFETY: an open stream.
            fds::close(unsafe { libc::fileno(one.file.cast()) });
        }
        if theirs == number {
            crate::control::fcntl(theirs, libc::F_SETFD, 0);
        } else {
            fds::dup3(theirs, number, 0, true);
        }
        // SAFETY: same contract.
        unsafe { shell(command) }
    });
    fds::close(theirs);
    let pid = match made {
        Ok(pid) => pid,
        Err(code) => {
            fds::close(own);
            fail(code);
            return none;
        }
    };
    if !letters.contains(&b'e') {
        crate::control::fcntl(own, libc::F_SETFD, 0);
    }
    let mode = if reads { c"r" } else { c"w" };
    // SAFETY: a descriptor and a mode of our own.
    let file = unsafe { crate::stdio::fdopen(own, mode.as_ptr()) };
    if file.is_null() {
        fds::close(own);
    } else {
        table()[place] = Piped {
            file: file.cast(),
            pid,
        };
    }
    file
}

/// pclose(3).
pub(crate) unsafe fn pclose(file: *mut libc::FILE) -> c_int {
    begin(Op::Spawn);
    let Some(one) = table().iter_mut().find(|one| one.file == file.cast()) else {
        // SAFETY: an open stream that was not made by popen, as for fclose.
        unsafe { files::fclose(file) };
        return fail(libc::ECHILD);
    };
    let pid = one.pid;
    one.file = core::ptr::null_mut();
    let mut status = 0;
    // SAFETY: an open stream; a place of our own.
    unsafe {
        files::fclose(file);
        loop {
            let code = wait::wait4(pid, &mut status, 0, core::ptr::null_mut());
            if code >= 0 {
                return status;
            }
            if errno() != libc::EINTR {
                return -1;
            }
        }
    }
}
