//! What a replay shows of every connection: the bytes that came in, in the order of
//! the log, and the bytes that the server answered.
//!
//! A file of records: kind (`u8`), connection (`u64`), log index (`u64`, of what came
//! in), length (`u32`), bytes; all little endian.

use crate::error::EngineError;
use crane_channel::epoch::{Entry, Event};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// A client connected; its address as raw sockaddr bytes.
const CONNECTED: u8 = 1;
/// Bytes from the client.
const CAME: u8 = 2;
/// Bytes for the client.
const SENT: u8 = 3;

/// The file.
pub struct Witness {
    file: BufWriter<File>,
}

impl Witness {
    /// Makes the file.
    ///
    /// # Errors
    /// As the file system does.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::new(File::create(path)?),
        })
    }

    /// Notes what came in with an entry, as the server is given it.
    ///
    /// # Errors
    /// When it cannot be written. An entry that cannot be read has nothing to note:
    /// the server refuses it.
    pub fn entry(&mut self, index: u64, entry: &[u8]) -> Result<(), EngineError> {
        let Ok(entry) = Entry::decode(entry) else {
            return Ok(());
        };
        for batch in entry.batches().filter_map(Result::ok) {
            for event in batch.events().filter_map(Result::ok) {
                match event {
                    Event::Connect { conn, peer, .. } => {
                        self.note(CONNECTED, conn.0, index, peer)?;
                    }
                    Event::Data { conn, bytes } => self.note(CAME, conn.0, index, bytes)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Notes what the server sent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sent(&mut self, conn: u64, bytes: &[u8]) -> Result<(), EngineError> {
        self.note(SENT, conn, 0, bytes)
    }

    /// Has everything in the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&mut self) -> Result<(), EngineError> {
        self.file.flush().map_err(|e| failed(&e))
    }

    fn note(&mut self, kind: u8, conn: u64, index: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let mut head = [0; 21];
        head[0] = kind;
        head[1..9].copy_from_slice(&conn.to_le_bytes());
        head[9..17].copy_from_slice(&index.to_le_bytes());
        head[17..].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let written = self.file.write_all(&head);
        let written = written.and_then(|()| self.file.write_all(bytes));
        written.map_err(|e| failed(&e))
    }
}

fn failed(e: &io::Error) -> EngineError {
    EngineError::new(format!(
        "what the connections carried cannot be written: {e}; free some space"
    ))
}
