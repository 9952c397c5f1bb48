//! The disk as the log sees it: a flat directory of files.
//!
//! Everything the log does to a disk goes through these two traits, so that the
//! code which runs on a real disk is the code which the simulation crashes.

mod real;
mod sim;

use std::io;

pub use real::{RealDisk, RealFile};
pub use sim::{SimDisk, SimFile};

/// One directory, held by one process.
///
/// `create`, `rename` and `remove` are durable when they return (the directory
/// is synced); the *content* of a file is durable only after
/// [`DiskFile::sync`]. Names are plain file names without separators.
pub trait Disk: Send {
    /// An open file.
    type File: DiskFile;

    /// Creates an empty file.
    ///
    /// # Errors
    /// The system's error; [`io::ErrorKind::AlreadyExists`] if there is one.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// The system's error; [`io::ErrorKind::NotFound`] if there is none.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Renames a file, replacing the target at once and whole.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's error.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// The system's error.
    fn list(&self) -> io::Result<Vec<String>>;

    /// How a message to the operator should name this file.
    fn path_of(&self, name: &str) -> String;

    /// A number for a state directory that is made new: almost surely larger
    /// than the one an earlier directory of the same replica had. It does not
    /// have to be (see [`Standing`](crate::Standing)), it is only quicker.
    fn new_life(&mut self) -> u64;

    /// Changes whenever the machine starts: tells a machine that went down from
    /// a process that died.
    fn boot_id(&self) -> [u8; 16];
}

/// One open file of a [`Disk`].
pub trait DiskFile: Send {
    /// Writes all of `data` at byte `offset`, extending the file if need be.
    ///
    /// # Errors
    /// The system's error; part of the data may have been written.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Reads at byte `offset`; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// The system's error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Makes everything written durable. After an error the file must not be
    /// used again: a second sync may report success for pages that are lost.
    ///
    /// # Errors
    /// The system's error.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// The system's error.
    fn size(&self) -> io::Result<u64>;
}
