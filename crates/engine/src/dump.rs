//! The committed entries of a log directory, and files of them.
//!
//! A file holds [`MAGIC`], then for each epoch its length (`u32`), its log index
//! (`u64`) and the entry, all little endian.

use crate::error::EngineError;
use crane_consensus::{Entry, EntryType, LogStore, RealDisk, StoreConfig};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

/// First bytes of a file of epochs.
const MAGIC: &[u8; 8] = b"CRANEEP1";
/// Bytes read from a log at a time.
const PAGE: u64 = 4 << 20;
/// Longest entry in a file.
const LONGEST: usize = 64 << 20;

/// Where entries come from.
pub enum Source {
    /// A log directory that no node uses.
    Log {
        /// The open log.
        store: Box<LogStore<RealDisk>>,
        /// Index of the next entry to read.
        next: u64,
        /// Index of the last committed entry.
        commit: u64,
        /// Entries read.
        page: VecDeque<Entry>,
    },
    /// A file of epochs.
    File {
        /// The file behind its magic.
        file: BufReader<File>,
        /// Its name, for messages.
        name: String,
    },
}

impl Source {
    /// Opens a log directory or a file.
    ///
    /// # Errors
    /// When it is neither, is in use, or is damaged.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        if path.is_dir() {
            let refuse = |e: crane_consensus::Error| EngineError::new(e.to_string());
            let disk = RealDisk::open(path).map_err(refuse)?;
            let config = StoreConfig::found_on(&disk).map_err(refuse)?;
            let (store, _) = LogStore::open(disk, &config).map_err(refuse)?;
            if store.base() > 0 {
                return Err(EngineError::new(format!(
                    "{name} begins after entry {}, because it was cut behind a checkpoint: it \
                     cannot be executed from the beginning any more",
                    store.base()
                )));
            }
            let commit = store.hard_state().commit;
            return Ok(Self::Log {
                store: Box::new(store),
                next: 1,
                commit,
                page: VecDeque::new(),
            });
        }
        let file = File::open(path).map_err(|e| {
            EngineError::new(format!(
                "cannot open {name}: {e}; give a log directory or a file of epochs"
            ))
        })?;
        let mut file = BufReader::new(file);
        let mut magic = [0; 8];
        if file.read_exact(&mut magic).is_err() || &magic != MAGIC {
            return Err(EngineError::new(format!(
                "{name} is not a file of epochs; make one with dump_log"
            )));
        }
        Ok(Self::File { file, name })
    }

    /// The next epoch: its log index and its entry.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, EngineError> {
        match self {
            Self::Log {
                store,
                next,
                commit,
                page,
            } => loop {
                if *next > *commit {
                    return Ok(None);
                }
                if page.is_empty() {
                    let entries = store.read(*next, *commit + 1, PAGE);
                    *page = entries.map_err(|e| EngineError::new(e.to_string()))?.into();
                }
                let Some(entry) = page.pop_front() else {
                    return Ok(None);
                };
                *next = entry.index + 1;
                // An entry without data only begins a leader's term, and others
                // change the members.
                let epoch = entry.entry_type() == EntryType::EntryNormal;
                if epoch && !entry.data.is_empty() {
                    return Ok(Some((entry.index, entry.data)));
                }
            },
            Self::File { file, name } => {
                let damaged = |what: &str| {
                    EngineError::new(format!(
                        "{name} is damaged: {what}; make it again with dump_log"
                    ))
                };
                let mut head = [0; 12];
                match file.read(&mut head[..1]) {
                    Ok(0) => return Ok(None),
                    Ok(_) => {}
                    Err(e) => return Err(damaged(&e.to_string())),
                }
                let cut = |_| damaged("it ends within an epoch");
                file.read_exact(&mut head[1..]).map_err(cut)?;
                let (len, index) = head.split_at(4);
                let len = u32::from_le_bytes(len.try_into().unwrap_or_default()) as usize;
                let index = u64::from_le_bytes(index.try_into().unwrap_or_default());
                if len > LONGEST {
                    return Err(damaged("an epoch is longer than any can be"));
                }
                let mut entry = vec![0; len];
                file.read_exact(&mut entry).map_err(cut)?;
                Ok(Some((index, entry)))
            }
        }
    }
}

/// Writes the committed epochs of the log in `log_dir`, which no node may be
/// using, to the file `out`. Returns their number.
///
/// # Errors
/// When the log cannot be read or the file not be written.
pub fn dump_log(log_dir: &Path, out: &Path) -> Result<u64, EngineError> {
    let mut source = Source::open(log_dir)?;
    let failed = |e: std::io::Error| {
        EngineError::new(format!(
            "cannot write {}: {e}; free some space",
            out.display()
        ))
    };
    let mut file = BufWriter::new(File::create(out).map_err(failed)?);
    file.write_all(MAGIC).map_err(failed)?;
    let mut count = 0;
    while let Some((index, entry)) = source.next()? {
        file.write_all(&(entry.len() as u32).to_le_bytes())
            .and_then(|()| file.write_all(&index.to_le_bytes()))
            .and_then(|()| file.write_all(&entry))
            .map_err(failed)?;
        count += 1;
    }
    file.flush().map_err(failed)?;
    Ok(count)
}
