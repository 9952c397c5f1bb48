//! The segment of a program that stands still, as a file of a checkpoint.
//!
//! A program that has come to the end of what is in the log ring sleeps, each of
//! its threads in an untimed futex wait on the segment: it is *parked*. Then the
//! segment is saved here, and its processes elsewhere; after both were restored
//! the program goes on with the next epoch that the node publishes.
//!
//! The file holds [`MAGIC`], the layout's version (`u32`), and extents (offset
//! `u64`, length `u64`, bytes) of what is not zero, in ascending order; one of
//! length 0 ends it. All integers are little endian. The rings are empty when a
//! segment is saved, so only their positions are kept.

use crate::layout::{
    LOG_RING_OFFSET, MAGIC as SEGMENT_MAGIC, RingControl, SEGMENT_LEN, State, VERSION, WORLD_OFFSET,
};
use crate::segment::{Segment, Settings};
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"CRANESG1";
/// Longest extent in the file.
const EXTENT: usize = 1 << 20;
const PAGE: usize = 4096;

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Whether an extent lies in the parts that are saved.
fn is_kept(offset: u64, length: u64) -> bool {
    let within = |from: usize, to: usize| {
        offset >= from as u64
            && offset
                .checked_add(length)
                .is_some_and(|end| end <= to as u64)
    };
    within(0, LOG_RING_OFFSET) || within(WORLD_OFFSET, SEGMENT_LEN)
}

impl Segment {
    /// Whether the program has done the epoch with this log index, sleeps at its
    /// end, and nothing that it said is unread. It goes on when another epoch is
    /// published, not before.
    ///
    /// A thread in a call outside the schedule counts as long as the call has not
    /// returned. Ask for [`Header::eager`](crate::layout::Header::eager) first, or
    /// the program need not tell of its boundaries.
    pub fn is_parked(&self, epoch: u64) -> bool {
        let header = self.header();
        let empty = |ring: &RingControl| {
            ring.head.load(Ordering::SeqCst) == ring.tail.load(Ordering::SeqCst)
        };
        // The mark before all that it covers.
        header.log.waiting.load(Ordering::SeqCst) == 1
            && header.epoch.load(Ordering::SeqCst) == epoch
            && self.is_at_a_boundary()
            && empty(&header.log)
            && empty(&header.output)
            && self.cards().iter().all(|card| {
                let outside = card.outside.load(Ordering::SeqCst);
                outside == 0 || card.returned.load(Ordering::SeqCst) == outside
            })
    }

    fn is_at_a_boundary(&self) -> bool {
        let state = State::from_raw(self.header().state.load(Ordering::SeqCst));
        matches!(state, State::Quiescent | State::NeedsBudget)
    }

    /// Saves the segment of a parked program to a new file.
    ///
    /// # Errors
    /// Any error of reading the segment or writing the file.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(EXTENT, File::create_new(path)?);
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        for (from, to) in [(0, LOG_RING_OFFSET), (WORLD_OFFSET, SEGMENT_LEN)] {
            self.save_range(from as u64, to as u64, &mut out)?;
        }
        out.write_all(&[0; 16])?;
        out.into_inner()?.sync_all()
    }

    fn save_range(&self, mut at: u64, end: u64, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = vec![0u8; EXTENT];
        while at < end {
            let data = match rustix::fs::seek(self.file(), SeekFrom::Data(at)) {
                Ok(data) => data.max(at),
                Err(rustix::io::Errno::NXIO) => break,
                Err(e) => return Err(e.into()),
            };
            if data >= end {
                break;
            }
            let hole = rustix::fs::seek(self.file(), SeekFrom::Hole(data))?;
            let length = (hole.min(end) - data).min(EXTENT as u64);
            let bytes = &mut buffer[..length as usize];
            self.read(data, bytes)?;
            // Pages that were touched and hold nothing are most of the tables.
            let is_zero = |page: &[u8]| page.iter().all(|&byte| byte == 0);
            let mut offset = data;
            let pages: Vec<&[u8]> = bytes.chunks(PAGE).collect();
            for run in pages.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
                let length: u64 = run.iter().map(|page| page.len() as u64).sum();
                if !is_zero(run[0]) {
                    out.write_all(&offset.to_le_bytes())?;
                    out.write_all(&length.to_le_bytes())?;
                    run.iter().try_for_each(|page| out.write_all(page))?;
                }
                offset += length;
            }
            at = data + length;
        }
        Ok(())
    }

    /// Makes the segment at `path` as it was when it was saved in `saved`, for
    /// processes that are to be restored with it. What differs between replicas
    /// comes from `settings`.
    ///
    /// # Errors
    /// Those of [`Segment::create`]; `InvalidData` with the reason when the file
    /// is not a saved segment that this version can use.
    pub fn load(path: &Path, saved: &Path, settings: Settings) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(EXTENT, File::open(saved)?);
        let mut magic = [0; 8];
        input.read_exact(&mut magic)?;
        if &magic != MAGIC {
            return Err(refused("it does not begin as a saved segment does"));
        }
        let mut version = [0; 4];
        input.read_exact(&mut version)?;
        let version = u32::from_le_bytes(version);
        if version != VERSION {
            return Err(refused(format!(
                "it is of layout {version}, this version of Crane has {VERSION}"
            )));
        }
        let file = Self::new_file(path)?;
        fill(&file, &mut input)?;
        let segment = Self::map(file)?;
        segment.wake_up(settings)?;
        Ok(segment)
    }

    /// Checks a loaded segment and makes it one of a new life.
    fn wake_up(&self, settings: Settings) -> io::Result<()> {
        let header = self.header();
        let quantum = header.quantum.load(Ordering::Relaxed);
        if header.magic.load(Ordering::Relaxed) != SEGMENT_MAGIC
            || header.version.load(Ordering::Relaxed) != VERSION
        {
            return Err(refused("its header is damaged"));
        }
        if quantum != settings.quantum.max(1) {
            return Err(refused(format!(
                "it was made with quantum {quantum}, not {}",
                settings.quantum
            )));
        }
        if !self.is_parked(header.epoch.load(Ordering::Relaxed)) {
            return Err(refused("its program was not standing still"));
        }
        self.set(settings);
        header.output.waiting.store(0, Ordering::Relaxed);
        header.output.space_wanted.store(0, Ordering::Relaxed);
        header.log.space_wanted.store(0, Ordering::Relaxed);
        header.generation.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes the extents of a saved segment to an empty one.
fn fill(file: &File, input: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0u8; EXTENT];
    let mut reached = 0;
    loop {
        let mut word = [0; 8];
        input.read_exact(&mut word)?;
        let offset = u64::from_le_bytes(word);
        input.read_exact(&mut word)?;
        let length = u64::from_le_bytes(word);
        if length == 0 {
            break;
        }
        if offset < reached || length > EXTENT as u64 || !is_kept(offset, length) {
            return Err(refused(format!("the extent at {offset} is out of place")));
        }
        let bytes = &mut buffer[..length as usize];
        input.read_exact(bytes)?;
        file.write_all_at(bytes, offset)?;
        reached = offset + length;
    }
    if input.read(&mut [0])? != 0 {
        return Err(refused("something follows its end"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const SETTINGS: Settings = Settings {
        replica: 2,
        quantum: 100,
        trace: false,
        objects: false,
        preempt: true,
        vote: false,
    };

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("crane-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A segment as a program leaves it that sleeps at the end of epoch 7.
    fn parked(dir: &Path) -> Segment {
        let segment = Segment::create(&dir.join("seg"), SETTINGS).unwrap();
        let header = segment.header();
        header.epoch.store(7, Ordering::SeqCst);
        header
            .state
            .store(State::Quiescent as u32, Ordering::SeqCst);
        header.log.waiting.store(1, Ordering::SeqCst);
        for ring in [&header.log, &header.output] {
            ring.head.store(4096, Ordering::SeqCst);
            ring.tail.store(4096, Ordering::SeqCst);
        }
        segment
    }

    #[test]
    fn a_saved_segment_comes_back_as_it_was_for_another_replica() {
        let dir = directory("saved");
        let segment = parked(&dir);
        assert!(segment.is_parked(7) && !segment.is_parked(8));
        let places = [WORLD_OFFSET as u64 + 5, SEGMENT_LEN as u64 - 3];
        for at in places {
            segment.file().write_all_at(b"xyz", at).unwrap();
        }
        let saved = dir.join("saved");
        segment.save(&saved).unwrap();
        assert!(std::fs::metadata(&saved).unwrap().len() < 1 << 20);
        let other = Settings {
            replica: 3,
            ..SETTINGS
        };
        let again = Segment::load(&dir.join("again"), &saved, other).unwrap();
        for at in places {
            let mut bytes = [0; 3];
            again.read(at, &mut bytes).unwrap();
            assert_eq!(&bytes, b"xyz");
        }
        let header = again.header();
        assert_eq!(header.replica.load(Ordering::SeqCst), 3);
        assert_eq!(header.log.head.load(Ordering::SeqCst), 4096);
        assert_eq!(header.generation.load(Ordering::SeqCst), 1);
        assert!(again.is_parked(7));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_program_with_something_under_way_is_not_parked() {
        let dir = directory("busy");
        let segment = parked(&dir);
        let card = &segment.cards()[5];
        card.outside.store(1, Ordering::SeqCst);
        assert!(!segment.is_parked(7));
        card.returned.store(1, Ordering::SeqCst);
        assert!(segment.is_parked(7));
        segment.header().output.head.store(8192, Ordering::SeqCst);
        assert!(!segment.is_parked(7));
        let saved = dir.join("saved");
        segment.save(&saved).unwrap();
        let load = |settings| Segment::load(&dir.join("again"), &saved, settings);
        assert!(load(SETTINGS).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn damage_of_any_byte_is_refused_or_harmless() {
        let dir = directory("damaged");
        let segment = parked(&dir);
        let saved = dir.join("saved");
        segment.save(&saved).unwrap();
        let whole = std::fs::read(&saved).unwrap();
        let load = |bytes: &[u8]| {
            std::fs::write(&saved, bytes).unwrap();
            Segment::load(&dir.join("again"), &saved, SETTINGS)
        };
        for cut in (0..whole.len()).step_by(97) {
            assert!(load(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..64.min(whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            let _ = load(&bytes);
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(load(&longer).is_err());
        assert!(load(&whole).is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
