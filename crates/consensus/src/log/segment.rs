//! Segment files: their names, and making them ahead of time.

use crate::disk::{Disk, DiskFile};
use crate::error::Error;

const SPARE: &str = "spare.tmp";
/// Bytes that are made ready at once.
const PIECE: usize = 1 << 20;
static ZEROS: [u8; 4096] = [0; 4096];

pub(crate) fn name(number: u32) -> String {
    format!("log-{number:08x}.seg")
}

pub(crate) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    if digits.len() != 8 {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// The next segment in the making: a file of zeros.
///
/// A sync of an overwrite costs 100 us where one that has to change the file's
/// extents costs 140 to 190, so a segment is written once with zeros before it
/// is used. That is done piece by piece while the current one fills, so that
/// the data path never waits for 16 MiB of zeros.
#[derive(Debug)]
pub(crate) struct Spare<F> {
    file: Option<F>,
    filled: u64,
}

impl<F: DiskFile> Spare<F> {
    /// Begins without one; a half-made spare of an earlier run is removed.
    pub(crate) fn new<D: Disk<File = F>>(disk: &mut D, names: &[String]) -> Result<Self, Error> {
        if names.iter().any(|n| n == SPARE) {
            disk.remove(SPARE)
                .map_err(|e| Error::io("remove", disk.path_of(SPARE), e))?;
        }
        Ok(Self {
            file: None,
            filled: 0,
        })
    }

    pub(crate) fn is_filled(&self, size: u64) -> bool {
        self.filled >= size
    }

    /// Writes and syncs one more piece; does nothing once `size` is reached.
    pub(crate) fn fill<D: Disk<File = F>>(&mut self, disk: &mut D, size: u64) -> Result<(), Error> {
        if self.is_filled(size) {
            return Ok(());
        }
        let failed = |disk: &D, e| Error::io("prepare", disk.path_of(SPARE), e);
        if self.file.is_none() {
            self.file = Some(disk.create(SPARE).map_err(|e| failed(disk, e))?);
        }
        if let Some(file) = &self.file {
            let len = (size - self.filled).min(PIECE as u64);
            // Page by page: the page cache would keep what comes in one write in
            // large pieces, which every small write later walks through.
            let end = self.filled + len;
            let mut pages = (self.filled..end).step_by(ZEROS.len());
            pages
                .try_for_each(|at| {
                    file.write_at(at, &ZEROS[..ZEROS.len().min((end - at) as usize)])
                })
                .and_then(|()| file.sync())
                .map_err(|e| failed(disk, e))?;
            self.filled += len;
        }
        Ok(())
    }

    /// Gives up the unfinished file, to give its space back.
    pub(crate) fn discard<D: Disk<File = F>>(&mut self, disk: &mut D) -> Result<(), Error> {
        self.filled = 0;
        if self.file.take().is_some() {
            disk.remove(SPARE)
                .map_err(|e| Error::io("remove", disk.path_of(SPARE), e))?;
        }
        Ok(())
    }

    /// Makes it segment `number` with at least `size` bytes.
    pub(crate) fn take<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        number: u32,
        size: u64,
    ) -> Result<(F, u64), Error> {
        while !self.is_filled(size) {
            self.fill(disk, size)?;
        }
        let name = name(number);
        disk.rename(SPARE, &name)
            .map_err(|e| Error::io("create", disk.path_of(&name), e))?;
        let size = std::mem::take(&mut self.filled);
        let file = match self.file.take() {
            Some(file) => file,
            None => disk
                .open(&name)
                .map_err(|e| Error::io("open", disk.path_of(&name), e))?,
        };
        Ok((file, size))
    }
}
