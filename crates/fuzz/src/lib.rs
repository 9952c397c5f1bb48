//! Everything that reads what others wrote, given what nobody would write.
//!
//! Each [target](TARGETS) takes bytes and must come back: no panic, no endless
//! loop, no access outside of what it was given. With the feature `libfuzzer`
//! the program `crane-fuzz` looks for bytes with which one does not
//! (`make fuzz`); what was found, and a choice of what was tried, is in `corpus`
//! and tried again by every run of the tests.

mod checkpoint;
mod consensus;
mod entries;
mod frames;
mod log;
mod ring;
mod segment;

/// A target: its name, which is also that of its folder in the corpus, and what
/// it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("frames", frames::run),
    ("consensus", consensus::run),
    ("entries", entries::run),
    ("log", log::run),
    ("checkpoint", checkpoint::run),
    ("ring", ring::run),
    ("segment", segment::run),
];

/// Takes numbers from the front of bytes; 0 behind their end.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
