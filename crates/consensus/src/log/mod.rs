//! The durable log.
//!
//! # Why a segmented log of our own
//!
//! A consensus log is appended at its end, synced once a turn of the loop, and
//! read back in order after a start. Measured on the development machine (one
//! 100-byte entry, made durable, median): a bare `fdatasync` of a preallocated
//! overwrite 125 us; `redb` (a copy-on-write tree, the best library for it)
//! 183 us, and 327 us against about 125 for 64 entries in one commit. `raft-engine` is made for
//! thousands of logs in one store, compresses and rewrites them, and brings a C
//! library, metrics and a second protobuf; its releases stopped in 2024. The
//! difference is the larger part of a replicated write, and the file format
//! here is one kind of record: so this crate has its own, tested by crashing it
//! at every write.
//!
//! # The files
//!
//! `meta` says whose directory it is; `log-00000001.seg` and so on hold records
//! ([`record`]); entries and hard state are one stream, entries first, so that
//! a commit index never precedes its entry. `spare.tmp` is the next segment in
//! the making. Whole segments behind a checkpoint are dropped ([`cut`]).

pub(crate) mod cut;
pub(crate) mod index;
mod members;
pub(crate) mod meta;
pub(crate) mod record;
mod recover;
pub(crate) mod segment;
mod storage;

use std::cell::RefCell;

use raft::eraftpb::{Entry, HardState};

use self::index::Index;
use self::members::Memberships;
use self::meta::{Base, Meta};
use self::record::{Encoder, Position};
use self::segment::Spare;
use crate::config::{Checkpoint, Config, Durability};
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::membership::Membership;
use crate::node::Standing;

/// What [`LogStore::open`] needs to know.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Must match the directory's.
    pub cluster_id: [u8; 16],
    /// Must match the directory's.
    pub replica: u64,
    /// See [`Config::peers`]; for an empty directory.
    pub peers: Vec<u64>,
    /// See [`Config::join`].
    pub join: bool,
    /// Whether [`LogStore::write`] syncs.
    pub durability: Durability,
    /// See [`Config::new_cluster`].
    pub new_cluster: bool,
    /// See [`Config::accept_memory_loss`].
    pub accept_memory_loss: bool,
    /// See [`Config::checkpoint`].
    pub checkpoint: Option<Checkpoint>,
    /// See [`Config::membership`].
    pub membership: Option<Membership>,
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory.
    pub cache_bytes: usize,
}

impl From<&Config> for StoreConfig {
    fn from(config: &Config) -> Self {
        Self {
            cluster_id: config.cluster_id,
            replica: config.id,
            peers: config.peers.clone(),
            join: config.join,
            durability: config.durability,
            new_cluster: config.new_cluster,
            accept_memory_loss: config.accept_memory_loss,
            checkpoint: config.checkpoint,
            membership: config.membership.clone(),
            segment_bytes: config.segment_bytes,
            cache_bytes: config.cache_bytes,
        }
    }
}

impl StoreConfig {
    /// The settings with which the log on `disk` can be opened for reading,
    /// whosever it is and whatever its end may have lost.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no log, and what reading its `meta` file
    /// comes to.
    pub fn found_on<D: Disk>(disk: &D) -> Result<Self, Error> {
        let Some(meta) = Meta::load(disk)? else {
            return Err(Error::Refused(format!(
                "{} is not a log directory: give the `log` directory of a replica",
                disk.path_of("")
            )));
        };
        let mut config = Config::new(meta.replica, Vec::new(), meta.cluster_id);
        config.accept_memory_loss = true;
        Ok(Self::from(&config))
    }
}

/// What was found when the log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The directory was empty: a new replica, or one that lost its log.
    pub fresh: bool,
    /// Entries in the log.
    pub entries: u64,
    /// Bytes of a torn write that were cut off the end.
    pub truncated_bytes: u64,
    /// File and byte offset of the cut.
    pub truncated_at: Option<(String, u64)>,
    /// How often the directory has been opened, this time included.
    pub incarnation: u32,
}

/// The log of one replica on one disk. Not thread-safe; may move to another
/// thread.
#[derive(Debug)]
pub struct LogStore<D: Disk> {
    disk: D,
    meta: Meta,
    durability: Durability,
    segment_bytes: u64,
    file: D::File,
    number: u32,
    /// Bytes of the current segment file, and where the next record goes.
    size: u64,
    offset: u64,
    prev: u32,
    /// Where the last record ended: `offset`, except in a segment that is
    /// still without its first record.
    end: Position,
    /// Everything before this position is known to be synced.
    synced: Position,
    spare: Spare<D::File>,
    /// What was known at the start of each segment, from the first on.
    starts: Vec<Base>,
    checkpoint: Option<Checkpoint>,
    memberships: Memberships,
    index: Index,
    hard: HardState,
    buffer: Vec<u8>,
    /// Nothing may be written after a failed write or sync.
    failed: bool,
    /// The segment that old entries are being read from.
    reading: RefCell<Option<(u32, D::File)>>,
    /// The core cannot pass a reading error on; it is kept here.
    read_error: RefCell<Option<Error>>,
}

impl<D: Disk> LogStore<D> {
    /// Opens the log on `disk`, making it if the disk is empty.
    ///
    /// # Errors
    /// [`Error::Refused`] for a directory of another replica or cluster,
    /// [`Error::Corrupt`] for a damaged one, [`Error::Io`].
    pub fn open(mut disk: D, config: &StoreConfig) -> Result<(Self, Recovery), Error> {
        let names = disk
            .list()
            .map_err(|e| Error::io("list", disk.path_of(""), e))?;
        let last = names.iter().filter_map(|n| segment::number(n)).max();
        let mut recovery = Recovery::default();
        let mut meta = match Meta::load(&disk)? {
            Some(meta) => {
                check(&meta, config, &disk)?;
                meta
            }
            None if last.is_some() => {
                return Err(Error::Corrupt {
                    path: disk.path_of(meta::NAME),
                    offset: 0,
                    reason: "the file is missing although there is a log".into(),
                });
            }
            None => {
                let meta = new_meta(config, &mut disk);
                meta.save(&mut disk)?;
                meta
            }
        };
        let mut spare = Spare::new(&mut disk, &names)?;
        let mut index = Index::new(config.cache_bytes);
        if meta.creating {
            recovery.fresh = true;
            create_first(&mut disk, &mut spare, &meta, &names, config.segment_bytes)?;
        }
        let last = last.unwrap_or(1);
        let last = if meta.creating { 1 } else { last };
        cut::remove_leftovers(&mut disk, &names, meta.base.segment)?;
        let (seed, base) = (meta.seed, meta.base);
        let tail = recover::recover(&mut disk, seed, &base, last, &mut index, &mut recovery)?;
        meta.creating = false;
        meta.incarnation = meta.incarnation.checked_add(1).ok_or_else(|| {
            Error::Refused("this state directory was opened too often: remove it".into())
        })?;
        meta.boot = disk.boot_id();
        meta.unsynced = config.durability == Durability::Memory;
        meta.save(&mut disk)?;
        recovery.entries = index.last() - index.base();
        recovery.incarnation = meta.incarnation;
        let meta_membership = meta.membership.clone();
        let mut store = Self {
            meta,
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            synced: Position::new(tail.number, tail.offset),
            file: tail.file,
            number: tail.number,
            size: tail.size,
            offset: tail.offset,
            prev: tail.prev,
            end: tail.end,
            spare,
            starts: tail.starts,
            checkpoint: None,
            memberships: Memberships::new(meta_membership),
            index,
            hard: tail.hard,
            buffer: Vec::new(),
            failed: false,
            reading: RefCell::new(None),
            read_error: RefCell::new(None),
            disk,
        };
        store.begin_from(config.checkpoint, config.membership.as_ref())?;
        store.find_memberships()?;
        Ok((store, recovery))
    }

    /// Appends entries (the first may replace existing ones) and then the hard
    /// state in one write; with `sync`, and [`Durability::Disk`], they are
    /// durable when this returns.
    ///
    /// # Errors
    /// [`Error::Fatal`]: what is on the disk is not known any more, and every
    /// later call fails too. A sync is never tried again: the system may have
    /// dropped what it could not write.
    pub fn write(
        &mut self,
        entries: Vec<Entry>,
        hard: Option<&HardState>,
        sync: bool,
    ) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Fatal(
                "the log failed before and cannot be written any more: restart the replica".into(),
            ));
        }
        let result = self.try_write(entries, hard, sync);
        result.map_err(|e| {
            self.failed = true;
            e.fatal()
        })
    }

    fn try_write(
        &mut self,
        entries: Vec<Entry>,
        hard: Option<&HardState>,
        sync: bool,
    ) -> Result<(), Error> {
        let mut size: usize = entries.iter().map(record::entry_size).sum();
        if hard.is_some() {
            size += record::HARD_SIZE;
        }
        if size > 0 {
            self.buffer.clear();
            if self.offset == 0 {
                size += record::START_SIZE;
            }
            if self.offset + size as u64 > self.size {
                self.roll(size + record::START_SIZE)?;
            }
            let mut encoder = Encoder {
                out: &mut self.buffer,
                seed: self.meta.seed,
                prev: self.prev,
                at: Position::new(self.number, self.offset),
                synced: self.synced,
            };
            // Also when an earlier run ended while it began this segment.
            if self.offset == 0 {
                encoder.start(meta::VERSION, self.end.0);
            }
            let mut places = Vec::with_capacity(entries.len());
            for entry in &entries {
                places.push(encoder.at);
                encoder.entry(entry);
            }
            if let Some(hard) = hard {
                encoder.hard(hard);
            }
            let (prev, end) = (encoder.prev, encoder.at);
            self.file
                .write_at(self.offset, &self.buffer)
                .map_err(|e| Error::io("write", self.path(), e))?;
            self.prev = prev;
            self.offset = end.offset();
            self.end = end;
            for (entry, at) in entries.into_iter().zip(places) {
                self.index.push(entry, at);
            }
            if let Some(hard) = hard {
                self.hard = hard.clone();
            }
            // One huge batch must not keep its buffer for ever.
            if self.buffer.capacity() > 4 << 20 {
                self.buffer = Vec::new();
            }
        }
        if sync && self.durability == Durability::Disk {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        if self.synced < self.position() {
            self.file
                .sync()
                .map_err(|e| Error::io("sync", self.path(), e))?;
            self.synced = self.position();
        }
        Ok(())
    }

    /// Goes on in a new segment with room for `needed` bytes.
    fn roll(&mut self, needed: usize) -> Result<(), Error> {
        // A segment that is not the last is taken to be whole when it is read.
        self.sync()?;
        let number = self.number + 1;
        let size = self.segment_bytes.max(needed as u64);
        let (file, size) = self.spare.take(&mut self.disk, number, size)?;
        self.file = file;
        self.number = number;
        self.size = size;
        self.offset = 0;
        self.starts.push(Base {
            segment: number,
            index: self.index.last(),
            index_term: self.index.last_term(),
            prev: self.prev,
            end: self.end.0,
            term: self.hard.term,
            vote: self.hard.vote,
            commit: self.hard.commit,
        });
        Ok(())
    }

    /// Prepares the next segment a little, when this one is half full. Called
    /// once a tick.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails. A full disk is an error only when
    /// the space is needed.
    pub fn housekeep(&mut self) -> Result<(), Error> {
        if self.failed || self.offset < self.size / 2 || self.spare.is_filled(self.segment_bytes) {
            return Ok(());
        }
        let result = match self.spare.fill(&mut self.disk, self.segment_bytes) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                self.spare.discard(&mut self.disk)
            }
            other => other,
        };
        result.map_err(|e| {
            self.failed = true;
            e.fatal()
        })
    }

    /// Ends the use of the log in order: everything is synced, and a start
    /// after a power cut needs no doubt.
    ///
    /// # Errors
    /// [`Error::Fatal`] if the disk fails.
    pub fn close(mut self) -> Result<(), Error> {
        if self.failed {
            return Ok(());
        }
        self.sync().map_err(Error::fatal)?;
        if self.meta.unsynced {
            self.meta.unsynced = false;
            self.save_meta()?;
        }
        Ok(())
    }

    fn save_meta(&mut self) -> Result<(), Error> {
        self.meta.save(&mut self.disk).map_err(|e| {
            self.failed = true;
            e.fatal()
        })
    }

    fn position(&self) -> Position {
        Position::new(self.number, self.offset)
    }

    fn path(&self) -> String {
        self.disk.path_of(&segment::name(self.number))
    }

    /// The index of the last entry, 0 if there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.index.last()
    }

    /// The term of the last entry, 0 if there is none.
    #[must_use]
    pub fn last_term(&self) -> u64 {
        self.index.last_term()
    }

    /// The term of entry `index`, which may be the one before the first (0 and 0
    /// in a log that was never cut); `None` outside.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.index.term(index)
    }

    /// The hard state as last written.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard
    }

    /// How often the directory has been opened, this time included.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.meta.incarnation
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Changes what the replica may do, durably.
    pub(crate) fn set_standing(&mut self, standing: Standing, floor: u64) -> Result<(), Error> {
        self.meta.standing = standing;
        self.meta.floor_term = self.meta.floor_term.max(floor);
        self.save_meta()
    }

    /// Begins a life of which the others have not heard, durably.
    pub(crate) fn set_life(&mut self, life: u64) -> Result<(), Error> {
        self.meta.life = life;
        self.save_meta()
    }
}

fn new_meta<D: Disk>(config: &StoreConfig, disk: &mut D) -> Meta {
    let membership = if config.join {
        Membership::default()
    } else {
        Membership::initial(config.peers.iter().copied())
    };
    let life = disk.new_life();
    let seed = crc32c::crc32c_append(crc32c::crc32c(&config.cluster_id), &life.to_le_bytes());
    // One replica alone has nobody to ask, and nobody it could have misled.
    let standing = if !config.join && (config.new_cluster || config.peers.len() == 1) {
        Standing::Voter
    } else {
        Standing::Asking
    };
    Meta {
        cluster_id: config.cluster_id,
        replica: config.replica,
        membership,
        incarnation: 0,
        life,
        seed,
        standing,
        floor_term: 0,
        creating: true,
        unsynced: false,
        boot: disk.boot_id(),
        base: Base::whole(seed),
    }
}

/// Makes the first segment; anything there is from an interrupted attempt.
fn create_first<D: Disk>(
    disk: &mut D,
    spare: &mut Spare<D::File>,
    meta: &Meta,
    names: &[String],
    size: u64,
) -> Result<(), Error> {
    for name in names.iter().filter(|n| segment::number(n).is_some()) {
        disk.remove(name)
            .map_err(|e| Error::io("remove", disk.path_of(name), e))?;
    }
    let (file, _) = spare.take(disk, 1, size)?;
    let mut out = Vec::new();
    let mut encoder = Encoder {
        out: &mut out,
        seed: meta.seed,
        prev: meta.seed,
        at: Position::new(1, 0),
        synced: Position(0),
    };
    encoder.start(meta::VERSION, 0);
    file.write_at(0, &out)
        .and_then(|()| file.sync())
        .map_err(|e| Error::io("write", disk.path_of(&segment::name(1)), e))
}

/// Refuses a directory that is not this replica's, or must not be used.
fn check<D: Disk>(meta: &Meta, config: &StoreConfig, disk: &D) -> Result<(), Error> {
    let path = disk.path_of(meta::NAME);
    if meta.cluster_id != config.cluster_id {
        return Err(Error::Refused(format!(
            "{path} belongs to cluster {:032x}, not to {:032x}: give this replica its own state directory",
            u128::from_be_bytes(meta.cluster_id),
            u128::from_be_bytes(config.cluster_id)
        )));
    }
    if meta.replica != config.replica {
        return Err(Error::Refused(format!(
            "{path} belongs to replica {}, not to replica {}: give each replica its own state directory",
            meta.replica, config.replica
        )));
    }
    if meta.unsynced && meta.boot != disk.boot_id() && !config.accept_memory_loss {
        return Err(Error::Refused(format!(
            "{path} says that the log was kept in memory when the machine went down, so its end may be lost: remove this replica's `log` directory and restart it, it will catch up from the leader"
        )));
    }
    Ok(())
}
