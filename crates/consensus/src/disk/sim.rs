//! A disk in memory whose power can be cut.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};
use crate::prng::Prng;

/// What a device writes at once; a cut of power keeps or loses whole sectors.
const SECTOR: usize = 512;

#[derive(Debug, Default, Clone)]
struct Content {
    /// What a reader sees.
    current: Vec<u8>,
    /// What survives a cut of power for sure.
    durable: Vec<u8>,
    /// Writes since the last sync, in order.
    pending: Vec<(usize, Vec<u8>)>,
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

#[derive(Debug, Default)]
struct State {
    /// Which content a name stands for: an open file follows a rename.
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    /// Grows with every crash; a handle of an earlier run is dead.
    run: u64,
    boot: u64,
    lives: u64,
    /// Changing operations so far.
    operations: u64,
    /// The operation at which the power goes.
    stop_at: Option<u64>,
    stopped: bool,
    lying: bool,
    full: bool,
    sync_fails: bool,
}

impl State {
    /// Counts a changing operation; false for the one in which the power goes.
    fn operate(&mut self, run: u64) -> io::Result<bool> {
        if self.stopped || run != self.run {
            return Err(io::Error::other("simulated power cut"));
        }
        self.operations += 1;
        if self.stop_at.is_some_and(|at| self.operations > at) {
            self.stopped = true;
            return Ok(false);
        }
        Ok(true)
    }

    fn add(&mut self, name: &str, content: Content) {
        self.next_file += 1;
        let number = self.next_file;
        if let Some(old) = self.names.insert(name.to_owned(), number) {
            self.files.remove(&old);
        }
        self.files.insert(number, content);
    }

    fn named(&mut self, name: &str) -> Option<&mut Content> {
        self.files.get_mut(self.names.get(name)?)
    }
}

/// A simulated disk. Clones are handles of the same disk, so that a test can
/// keep one to crash and damage what a node writes through another.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    run: u64,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves plain data behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle of the run that begins now; needed after [`crash`](Self::crash)
    /// or [`kill`](Self::kill).
    #[must_use]
    pub fn reopen(&self) -> Self {
        let run = self.lock().run;
        Self {
            state: Arc::clone(&self.state),
            run,
        }
    }

    /// Cuts the power: of everything not synced, each sector is kept or lost by
    /// chance. Open files are dead.
    pub fn crash(&self, seed: u64) {
        let mut rng = Prng::new(seed);
        let mut state = self.lock();
        // Losing everything and keeping everything must be common, not rare.
        let keep_of_four = rng.below(5);
        for content in state.files.values_mut() {
            for (offset, data) in std::mem::take(&mut content.pending) {
                let mut at = 0;
                while at < data.len() {
                    let end = data
                        .len()
                        .min((offset + at) / SECTOR * SECTOR + SECTOR - offset);
                    if rng.below(4) < keep_of_four {
                        put(&mut content.durable, offset + at, &data[at..end]);
                    }
                    at = end;
                }
            }
            content.current = content.durable.clone();
        }
        state.run += 1;
        state.boot += 1;
        state.stopped = false;
        state.stop_at = None;
    }

    /// Ends the process but not the machine: nothing written is lost.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.run += 1;
        state.stopped = false;
        state.stop_at = None;
    }

    /// Loses every file, as a replaced disk does.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.names.clear();
        state.files.clear();
        state.run += 1;
    }

    /// Makes `sync` report success without doing anything. No protocol can be
    /// safe on such a disk: tests use it to see that their checks can fail.
    pub fn set_lying(&self, lying: bool) {
        self.lock().lying = lying;
    }

    /// Makes everything that needs space fail with ENOSPC.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Makes every sync fail with EIO.
    pub fn set_sync_fails(&self, fails: bool) {
        self.lock().sync_fails = fails;
    }

    /// Lets `count` more changing operations through and cuts the power in the
    /// next one; everything fails from there to [`crash`](Self::crash).
    pub fn stop_after(&self, count: u64) {
        let mut state = self.lock();
        state.stop_at = Some(state.operations + count);
    }

    /// The changing operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Flips one bit of a file; false if the file is not that long.
    pub fn flip_bit(&self, name: &str, byte: usize, bit: u8) -> bool {
        let mut state = self.lock();
        let Some(content) = state.named(name) else {
            return false;
        };
        let mut done = false;
        for bytes in [&mut content.current, &mut content.durable] {
            if let Some(b) = bytes.get_mut(byte) {
                *b ^= 1 << (bit & 7);
                done = true;
            }
        }
        done
    }

    /// The content of a file as a reader sees it.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().named(name).map(|c| c.current.clone())
    }

    /// Replaces the content of a file, durably; makes the file if need be.
    pub fn set_content(&self, name: &str, bytes: &[u8]) {
        self.lock().add(
            name,
            Content {
                current: bytes.to_vec(),
                durable: bytes.to_vec(),
                pending: Vec::new(),
            },
        );
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.operate(self.run)? {
            Ok(state)
        } else {
            Err(io::Error::other("simulated power cut"))
        }
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create(&mut self, name: &str) -> io::Result<SimFile> {
        let mut state = self.changing()?;
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.add(name, Content::default());
        drop(state);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let number = self.lock().names.get(name).copied();
        Ok(SimFile {
            disk: self.clone(),
            number: number.ok_or(io::ErrorKind::NotFound)?,
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.changing()?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(old) = state.names.insert(to.to_owned(), number) {
            state.files.remove(&old);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.changing()?;
        let number = state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.files.remove(&number);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn path_of(&self, name: &str) -> String {
        format!("sim:{name}")
    }

    fn new_life(&mut self) -> u64 {
        let mut state = self.lock();
        state.lives += 1;
        // Every third disk has a clock that went backwards; no nanosecond comes
        // twice.
        if state.lives.is_multiple_of(3) {
            state.lives
        } else {
            state.lives * 1000
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        u128::from(self.lock().boot + 1).to_be_bytes()
    }
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    number: u64,
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.lock();
        let whole = state.operate(self.disk.run)?;
        let full = state.full;
        let content = state.files.get_mut(&self.number).ok_or_else(gone)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if full && offset + data.len() > content.current.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        // The write in which the power goes is still on its way to the disk:
        // the cut decides which of its sectors arrive.
        content.pending.push((offset, data.to_vec()));
        put(&mut content.current, offset, data);
        if whole {
            Ok(())
        } else {
            Err(io::Error::other("simulated power cut"))
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.lock();
        if state.run != self.disk.run {
            return Err(io::Error::other("simulated power cut"));
        }
        let content = state.files.get(&self.number).ok_or_else(gone)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let Some(rest) = content.current.get(offset..) else {
            return Ok(0);
        };
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.changing()?;
        if state.sync_fails {
            // EIO, as a failing device reports it.
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.lying {
            return Ok(());
        }
        let content = state.files.get_mut(&self.number).ok_or_else(gone)?;
        for (offset, data) in std::mem::take(&mut content.pending) {
            put(&mut content.durable, offset, &data);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        let content = state.files.get(&self.number).ok_or_else(gone)?;
        Ok(content.current.len() as u64)
    }
}
