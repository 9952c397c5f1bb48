//! A directory of a real file system.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Disk, DiskFile};
use crate::error::Error;

/// The lock file, which holds no data.
const LOCK: &str = "LOCK";

/// A state directory on a real disk, held by an exclusive lock until dropped.
///
/// The directory is readable by its owner alone (0700, files 0600): the log
/// holds the bytes of clients.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    /// Kept for syncing renames, and opened once.
    handle: File,
    /// Holds the lock for as long as this value lives.
    _lock: File,
    boot: [u8; 16],
}

impl RealDisk {
    /// Takes `dir`, making it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it, [`Error::Io`] if it cannot
    /// be made or opened.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_path_buf();
        let shown = dir.display().to_string();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Error::io("create the directory", &shown, e))?;
        let handle = File::open(&dir).map_err(|e| Error::io("open", &shown, e))?;
        // A directory somebody made beforehand may be open to others.
        handle
            .set_permissions(Permissions::from_mode(0o700))
            .map_err(|e| Error::io("restrict the permissions of", &shown, e))?;
        let lock_path = dir.join(LOCK);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| Error::io("open", lock_path.display().to_string(), e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: lock_path.display().to_string(),
                });
            }
            Err(TryLockError::Error(e)) => {
                return Err(Error::io("lock", lock_path.display().to_string(), e));
            }
        }
        Ok(Self {
            dir,
            handle,
            _lock: lock,
            boot: read_boot_id(),
        })
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create(&mut self, name: &str) -> io::Result<RealFile> {
        let file = Self::options().create_new(true).open(self.dir.join(name))?;
        self.handle.sync_all()?;
        Ok(RealFile(file))
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        Self::options().open(self.dir.join(name)).map(RealFile)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))?;
        self.handle.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))?;
        self.handle.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn path_of(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn new_life(&mut self) -> u64 {
        // The only look at a clock, once in the life of a state directory.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|d| u64::try_from(d.as_nanos()).ok())
            .map_or(1, |nanos| nanos.max(1))
    }

    fn boot_id(&self) -> [u8; 16] {
        self.boot
    }
}

/// The kernel's number of this boot; zeros where there is none, which makes
/// every start look like the same boot.
fn read_boot_id() -> [u8; 16] {
    let mut id = [0; 16];
    if let Ok(text) = fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        if let Ok(value) = u128::from_str_radix(&digits, 16) {
            id = value.to_be_bytes();
        }
    }
    id
}

/// A file of a [`RealDisk`].
#[derive(Debug)]
pub struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
