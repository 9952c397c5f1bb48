//! The hashes of recent epochs, and their comparison between replicas.
//!
//! Replicas that execute the same log must come to the same hashes. Each tells
//! the others its newest ones now and then; where a pair differs, both send all
//! they remember, so that the first epoch that differs can be named.

use crane_channel::output::EpochDone;
use std::collections::VecDeque;

/// Epochs remembered.
pub const REMEMBERED: usize = 4096;
/// Epochs in an ordinary report.
const REPORTED: usize = 8;
/// Epochs in a report of news, at the most.
const NEWS: usize = 64;
const RECORD: usize = 32;

/// This replica's recent epochs, in order.
#[derive(Default)]
pub struct History {
    epochs: VecDeque<EpochDone>,
}

/// Two replicas came to different results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The earliest epoch known to differ.
    pub epoch: u64,
    /// The other replica.
    pub peer: u8,
    /// Whether what clients got differs (else only the schedule does).
    pub output: bool,
}

impl History {
    /// Remembers an epoch.
    pub fn add(&mut self, done: EpochDone) {
        if self.epochs.len() == REMEMBERED {
            self.epochs.pop_front();
        }
        self.epochs.push_back(done);
    }

    /// The newest epoch.
    pub fn newest(&self) -> Option<EpochDone> {
        self.epochs.back().copied()
    }

    /// The epochs from the newest back.
    pub fn newest_first(&self) -> impl Iterator<Item = &EpochDone> {
        self.epochs.iter().rev()
    }

    /// The epochs from `epoch` on.
    pub fn since(&self, epoch: u64) -> impl Iterator<Item = EpochDone> + '_ {
        let at = self.epochs.partition_point(|done| done.epoch < epoch);
        self.epochs.range(at..).copied()
    }

    /// The last epoch before `epoch` that is remembered.
    pub fn before(&self, epoch: u64) -> Option<EpochDone> {
        let at = self.epochs.partition_point(|done| done.epoch < epoch);
        self.epochs.get(at.checked_sub(1)?).copied()
    }

    /// A report of the newest epochs, or of all.
    pub fn report(&self, all: bool) -> Report {
        let count = if all { REMEMBERED } else { REPORTED };
        Report {
            all,
            epochs: self.last(count),
        }
    }

    /// A report of the epochs after `epoch`, not more than a few dozen.
    pub fn report_after(&self, epoch: u64) -> Report {
        let news = self.epochs.len() - self.epochs.partition_point(|done| done.epoch <= epoch);
        Report {
            all: false,
            epochs: self.last(news.clamp(1, NEWS)),
        }
    }

    fn last(&self, count: usize) -> Vec<EpochDone> {
        let from = self.epochs.len().saturating_sub(count);
        self.epochs.range(from..).copied().collect()
    }

    /// What this replica came to in an epoch, if that is remembered.
    pub fn find(&self, epoch: u64) -> Option<&EpochDone> {
        let at = self.epochs.binary_search_by_key(&epoch, |d| d.epoch).ok()?;
        self.epochs.get(at)
    }

    /// Compares a report with what this replica came to.
    pub fn compare(&self, peer: u8, report: &Report) -> Comparison {
        let newest = self.newest().map_or(0, |d| d.epoch);
        let mut result = Comparison::Nothing;
        for theirs in &report.epochs {
            if theirs.epoch > newest {
                return match result {
                    Comparison::Nothing => Comparison::Later,
                    other => other,
                };
            }
            match self.find(theirs.epoch) {
                Some(ours) if ours == theirs => result = Comparison::Same,
                Some(ours) => {
                    return Comparison::Differs(Disagreement {
                        epoch: theirs.epoch,
                        peer,
                        output: ours.output_hash != theirs.output_hash,
                    });
                }
                None => {}
            }
        }
        result
    }
}

/// What comparing a report came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// No epoch in common that is still remembered.
    Nothing,
    /// This replica has not come so far; compare again later.
    Later,
    /// All in common are the same.
    Same,
    /// Some differ.
    Differs(Disagreement),
}

/// A report of another replica.
#[derive(Clone, Debug)]
pub struct Report {
    /// All that the replica remembers, not only its newest.
    pub all: bool,
    /// The epochs in their order.
    pub epochs: Vec<EpochDone>,
}

impl Report {
    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.epochs.len() * RECORD);
        out.push(u8::from(self.all));
        for done in &self.epochs {
            for word in [done.epoch, done.clock, done.output_hash, done.schedule_hash] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out
    }

    /// Reads one; `None` when it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&all, records) = bytes.split_first()?;
        let (records, rest) = records.as_chunks::<RECORD>();
        if all > 1 || !rest.is_empty() || records.len() > REMEMBERED {
            return None;
        }
        let epochs = records.iter().map(|record| {
            let (words, _) = record.as_chunks::<8>();
            EpochDone {
                epoch: u64::from_le_bytes(words[0]),
                clock: u64::from_le_bytes(words[1]),
                output_hash: u64::from_le_bytes(words[2]),
                schedule_hash: u64::from_le_bytes(words[3]),
            }
        });
        Some(Self {
            all: all == 1,
            epochs: epochs.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(epochs: std::ops::Range<u64>, wrong_from: u64) -> History {
        let mut history = History::default();
        for epoch in epochs {
            history.add(EpochDone {
                epoch,
                clock: epoch * 10,
                output_hash: 7,
                schedule_hash: u64::from(epoch >= wrong_from),
            });
        }
        history
    }

    fn compare(ours: &History, theirs: &History, all: bool) -> Comparison {
        ours.compare(2, &Report::decode(&theirs.report(all).encode()).unwrap())
    }

    #[test]
    fn equal_histories_agree_as_far_as_both_go() {
        let (long, short) = (history(1..100, 1000), history(1..95, 1000));
        assert_eq!(compare(&long, &short, false), Comparison::Same);
        assert_eq!(compare(&short, &long, false), Comparison::Same);
        let far = history(200..300, 1000);
        assert_eq!(compare(&short, &far, false), Comparison::Later);
        assert_eq!(compare(&far, &short, false), Comparison::Nothing);
    }

    #[test]
    fn full_histories_name_the_first_epoch_that_differs() {
        let (ours, theirs) = (history(1..5000, 9000), history(1..5000, 3000));
        let Comparison::Differs(late) = compare(&ours, &theirs, false) else {
            panic!("must differ");
        };
        assert_eq!(late.epoch, 4992);
        let Comparison::Differs(first) = compare(&ours, &theirs, true) else {
            panic!("must differ");
        };
        assert_eq!((first.epoch, first.output), (3000, false));
    }

    #[test]
    fn strange_reports_are_refused() {
        assert!(Report::decode(&[]).is_none());
        assert!(Report::decode(&[2]).is_none());
        assert!(Report::decode(&[0; 34]).is_none());
    }
}
