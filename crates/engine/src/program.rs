//! The program's threads as the machine knows them, from outside their namespace.
//!
//! The segment names threads by their ids in the replica's pid namespace. The
//! machine's own ids, which signals need, are found in `/proc` (`NSpid` in
//! proc_pid_status(5)) and kept while they hold.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

/// A thread of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub pid: u32,
    /// Its own id.
    pub tid: u32,
}

impl Thread {
    fn read(self, what: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/task/{}/{what}", self.pid, self.tid)).ok()
    }

    /// Its id in its innermost pid namespace.
    fn inner(self) -> Option<u32> {
        let status = self.read("status")?;
        let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
        line.split_whitespace().next_back()?.parse().ok()
    }

    /// Whether it executes code of its own, not the kernel's.
    pub fn is_in_user_code(self) -> bool {
        self.read("syscall")
            .is_some_and(|text| text.starts_with("running"))
    }

    /// Sends it a signal. Returns whether it still exists.
    pub fn signal(self, number: i32) -> bool {
        // SAFETY: tgkill(2) takes numbers only.
        let code = unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                self.pid as libc::pid_t,
                self.tid as libc::pid_t,
                number,
            )
        };
        code == 0
    }
}

/// The threads of one program.
#[derive(Debug, Default)]
pub struct Program {
    /// The first process of the replica's pid namespace; 0: not known.
    init: u32,
    /// By the id within.
    known: HashMap<u32, Thread>,
}

impl Program {
    /// The program whose pid namespace `init` is the first process of, 0 for none.
    pub fn new(init: u32) -> Self {
        Self {
            init,
            known: HashMap::new(),
        }
    }

    /// The thread with this id within.
    pub fn find(&mut self, inner: u32) -> Option<Thread> {
        if let Some(&thread) = self.known.get(&inner)
            && thread.inner() == Some(inner)
        {
            return Some(thread);
        }
        self.search();
        self.known.get(&inner).copied()
    }

    fn search(&mut self) {
        self.known.clear();
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(ours) = (self.init != 0).then(|| namespace(self.init)).flatten() else {
            return;
        };
        for pid in numbers("/proc".into()) {
            if namespace(pid).as_ref() != Some(&ours) {
                continue;
            }
            for tid in numbers(format!("/proc/{pid}/task").into()) {
                let thread = Thread { pid, tid };
                if let Some(inner) = thread.inner() {
                    self.known.insert(inner, thread);
                }
            }
        }
    }
}

/// The entries of a directory that are numbers.
fn numbers(directory: PathBuf) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_found_by_their_inner_ids() {
        let own = std::process::id();
        let thread = Thread { pid: own, tid: own };
        let inner = thread.inner().unwrap();
        let mut program = Program::new(own);
        assert_eq!(program.find(inner), Some(thread));
        assert_eq!(program.find(0), None);
        assert!(thread.signal(0));
        assert_eq!(Program::default().find(inner), None);
    }
}
