//! The `meta` file: whose directory this is, and what its replica may do.
//!
//! It is tiny and replaced whole (written beside, synced, renamed), so there is
//! never half of one.

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::membership::Membership;
use crate::node::Standing;

/// The format of the whole directory.
pub(crate) const VERSION: u32 = 3;
/// No log will ever have more, and there is room for numbers behind.
const MOST_ENTRIES: u64 = u64::MAX >> 1;
pub(crate) const NAME: &str = "meta";
const TEMPORARY: &str = "meta.tmp";
const MAGIC: &[u8; 8] = b"CRANELOG";

/// Where the log begins: what was known when its first segment was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Base {
    /// The first segment.
    pub(crate) segment: u32,
    /// The entry before its first one, and that entry's term.
    pub(crate) index: u64,
    pub(crate) index_term: u64,
    /// Checksum of the record before, the chain's beginning.
    pub(crate) prev: u32,
    /// Where that record ended.
    pub(crate) end: u64,
    /// Hard state.
    pub(crate) term: u64,
    pub(crate) vote: u64,
    pub(crate) commit: u64,
}

impl Base {
    /// A log that was never cut.
    pub(crate) fn whole(seed: u32) -> Self {
        Self {
            segment: 1,
            index: 0,
            index_term: 0,
            prev: seed,
            end: 0,
            term: 0,
            vote: 0,
            commit: 0,
        }
    }
}

/// What the `meta` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) replica: u64,
    /// Who took part where the log begins.
    pub(crate) membership: Membership,
    /// How often the directory was opened.
    pub(crate) incarnation: u32,
    /// Grows when the replica begins again from an empty directory.
    pub(crate) life: u64,
    /// Makes the checksums of this directory's records its own.
    pub(crate) seed: u32,
    pub(crate) standing: Standing,
    /// The least term this replica may be in: it may have voted up to it.
    pub(crate) floor_term: u64,
    /// The segments are not yet made; the first opening was interrupted.
    pub(crate) creating: bool,
    /// Written without syncing since `boot`, and not closed properly.
    pub(crate) unsynced: bool,
    pub(crate) boot: [u8; 16],
    pub(crate) base: Base,
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.cluster_id);
        out.extend_from_slice(&self.replica.to_le_bytes());
        out.extend_from_slice(&self.life.to_le_bytes());
        out.extend_from_slice(&self.floor_term.to_le_bytes());
        let (standing, term, index) = match self.standing {
            Standing::Asking => (0u32, 0, 0),
            Standing::CatchingUp { term, index } => (1, term, index),
            Standing::Voter => (2, 0, 0),
        };
        out.extend_from_slice(&term.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&standing.to_le_bytes());
        let flags = u32::from(self.creating) | u32::from(self.unsynced) << 1;
        out.extend_from_slice(&flags.to_le_bytes());
        let base = &self.base;
        out.extend_from_slice(&base.segment.to_le_bytes());
        out.extend_from_slice(&base.prev.to_le_bytes());
        for word in [
            base.index,
            base.index_term,
            base.end,
            base.term,
            base.vote,
            base.commit,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let membership = self.membership.encode();
        out.extend_from_slice(&(membership.len() as u32).to_le_bytes());
        out.extend_from_slice(&membership);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        // The version comes first and stays there, so that an old program can
        // tell a new format from a damaged file.
        let mut fields = Fields(bytes);
        if &fields.take::<8>()? != MAGIC {
            return Err("it does not begin like a meta file".into());
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(format!(
                "it has format {version} and this program knows format {VERSION}"
            ));
        }
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
            return Err("it is too short".into());
        };
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("its checksum does not match".into());
        }
        let incarnation = fields.u32()?;
        let cluster_id = fields.take::<16>()?;
        let replica = fields.u64()?;
        let life = fields.u64()?;
        let floor_term = fields.u64()?;
        let (term, index) = (fields.u64()?, fields.u64()?);
        let boot = fields.take::<16>()?;
        let seed = fields.u32()?;
        let standing = match fields.u32()? {
            0 => Standing::Asking,
            1 => Standing::CatchingUp { term, index },
            2 => Standing::Voter,
            other => return Err(format!("it has an unknown standing {other}")),
        };
        let flags = fields.u32()?;
        let (segment, prev) = (fields.u32()?, fields.u32()?);
        let base = Base {
            segment,
            prev,
            index: fields.u64()?,
            index_term: fields.u64()?,
            end: fields.u64()?,
            term: fields.u64()?,
            vote: fields.u64()?,
            commit: fields.u64()?,
        };
        if base.index > MOST_ENTRIES {
            return Err(format!("its log begins after entry {}", base.index));
        }
        let len = fields.u32()? as usize;
        let membership = fields.0.get(..len).ok_or("it is too short")?;
        let membership = Membership::decode(membership)?;
        Ok(Self {
            cluster_id,
            replica,
            membership,
            incarnation,
            life,
            seed,
            standing,
            floor_term,
            creating: flags & 1 != 0,
            unsynced: flags & 2 != 0,
            boot,
            base,
        })
    }

    /// Reads the file, `None` if there is none.
    pub(crate) fn load<D: Disk>(disk: &D) -> Result<Option<Self>, Error> {
        let path = disk.path_of(NAME);
        let file = match disk.open(NAME) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("open", path, e)),
        };
        // Far larger than any real one, so that a strange file is not read whole.
        let mut bytes = vec![0; 64 << 10];
        let len = file
            .read_at(0, &mut bytes)
            .map_err(|e| Error::io("read", &path, e))?;
        Self::decode(&bytes[..len])
            .map(Some)
            .map_err(|reason| Error::Corrupt {
                path,
                offset: 0,
                reason,
            })
    }

    /// Replaces the file, durably.
    pub(crate) fn save<D: Disk>(&self, disk: &mut D) -> Result<(), Error> {
        let path = disk.path_of(TEMPORARY);
        let failed = |e| Error::io("write", &path, e);
        match disk.remove(TEMPORARY) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let file = disk.create(TEMPORARY).map_err(failed)?;
        file.write_at(0, &self.encode()).map_err(failed)?;
        file.sync().map_err(failed)?;
        disk.rename(TEMPORARY, NAME)
            .map_err(|e| Error::io("replace", disk.path_of(NAME), e))
    }
}

/// Takes fields off the front of a buffer.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else {
            return Err("it is too short".into());
        };
        self.0 = rest;
        Ok(*head)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }
}
