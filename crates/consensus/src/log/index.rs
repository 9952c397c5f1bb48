//! Where every entry is, and the recent ones themselves.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use raft::eraftpb::Entry;

use super::record::{self, Position};
use crate::membership::is_change;

/// Positions of all entries (eight bytes each), terms as runs, and a bounded
/// window of the newest entries.
#[derive(Debug)]
pub(crate) struct Index {
    /// The entry before the first one, and its term; 0 and 0 in a log that was
    /// never cut.
    base: (u64, u64),
    /// `positions[i]` is the record of entry `base.0 + i + 1`.
    positions: Vec<Position>,
    /// First index of each run of entries with the same term; a first run with
    /// the term of the base is left out.
    terms: Vec<(u64, u64)>,
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    limit: usize,
    /// Entries that change the members; they are few.
    changes: BTreeMap<u64, Entry>,
}

impl Index {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            base: (0, 0),
            positions: Vec::new(),
            terms: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            limit,
            changes: BTreeMap::new(),
        }
    }

    /// Begins after entry `base` of term `term`, without entries.
    pub(crate) fn begin_after(&mut self, base: u64, term: u64) {
        *self = Self::new(self.limit);
        self.base = (base, term);
    }

    /// The entry before the first one.
    pub(crate) fn base(&self) -> u64 {
        self.base.0
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.positions.len() as u64
    }

    pub(crate) fn last_term(&self) -> u64 {
        self.terms.last().map_or(self.base.1, |run| run.1)
    }

    /// The term of entry `index`, which may be the one before the first;
    /// `None` outside.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        if index < self.base.0 || index > self.last() {
            return None;
        }
        let run = self.terms.partition_point(|run| run.0 <= index);
        // Before the first run, entries have the term of the one before them.
        Some(
            run.checked_sub(1)
                .map_or(self.base.1, |run| self.terms[run].1),
        )
    }

    pub(crate) fn position(&self, index: u64) -> Option<Position> {
        let at = index.checked_sub(self.base.0)?.checked_sub(1)?;
        self.positions.get(usize::try_from(at).ok()?).copied()
    }

    /// Drops everything up to `base`, which is in the log or the entry before
    /// its first.
    pub(crate) fn drop_until(&mut self, base: u64) {
        let Some(term) = self.term(base) else { return };
        self.positions.drain(..(base - self.base.0) as usize);
        let ended = self.terms.partition_point(|run| run.0 <= base);
        self.terms.drain(..ended);
        self.changes = self.changes.split_off(&(base + 1));
        self.base = (base, term);
        while self.recent.front().is_some_and(|e| e.index <= base) {
            if let Some(old) = self.recent.pop_front() {
                self.recent_bytes -= record::entry_size(&old);
            }
        }
    }

    /// The entries behind `index` that change the members, in order.
    pub(crate) fn changes_after(&self, index: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        let behind = (Bound::Excluded(index), Bound::Unbounded);
        self.changes.range(behind).map(|(_, entry)| entry)
    }

    /// The entry, if it is among the recent ones.
    pub(crate) fn recent(&self, index: u64) -> Option<&Entry> {
        let first = self.recent.front()?.index;
        self.recent
            .get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Takes an entry, which replaces everything at and after its index; the
    /// caller has checked that it follows or replaces one.
    pub(crate) fn push(&mut self, entry: Entry, at: Position) {
        debug_assert!(entry.index > self.base.0 && entry.index <= self.last() + 1);
        if entry.index <= self.last() {
            self.cut(entry.index);
        }
        if self.last_term() != entry.term {
            self.terms.push((entry.index, entry.term));
        }
        self.positions.push(at);
        if is_change(&entry) {
            self.changes.insert(entry.index, entry.clone());
        }
        self.recent_bytes += record::entry_size(&entry);
        self.recent.push_back(entry);
        // One is always kept: the core looks at the newest all the time.
        while self.recent_bytes > self.limit && self.recent.len() > 1 {
            if let Some(old) = self.recent.pop_front() {
                self.recent_bytes -= record::entry_size(&old);
            }
        }
    }

    /// Drops everything at and after `index`.
    fn cut(&mut self, index: u64) {
        self.positions.truncate((index - 1 - self.base.0) as usize);
        self.terms.retain(|run| run.0 < index);
        self.changes.split_off(&index);
        while self.recent.back().is_some_and(|e| e.index >= index) {
            if let Some(old) = self.recent.pop_back() {
                self.recent_bytes -= record::entry_size(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 100],
            ..Entry::default()
        }
    }

    #[test]
    fn replacing_an_entry_drops_what_followed() {
        let mut index = Index::new(1000);
        for i in 1..=20 {
            index.push(entry(i, 1 + i / 10), Position::new(1, i * 8));
        }
        assert_eq!(index.term(9), Some(1));
        assert_eq!(index.term(10), Some(2));
        assert_eq!(index.term(20), Some(3));
        assert_eq!(index.term(21), None);
        assert!(index.recent(1).is_none() && index.recent(20).is_some());
        index.push(entry(12, 5), Position::new(1, 800));
        assert_eq!(index.last(), 12);
        assert_eq!(index.term(11), Some(2));
        assert_eq!(index.term(12), Some(5));
        assert_eq!(index.recent(12).map(|e| e.term), Some(5));
        assert!(index.recent(13).is_none());
        assert_eq!(index.position(12), Some(Position::new(1, 800)));
        index.push(entry(13, 5), Position::new(1, 900));
        assert_eq!(index.recent(13).map(|e| e.index), Some(13));
        index.push(entry(1, 6), Position::new(1, 1000));
        assert_eq!((index.last(), index.last_term()), (1, 6));
    }

    #[test]
    fn entries_before_a_cut_are_gone_and_the_rest_is_found() {
        let mut index = Index::new(100_000);
        for i in 1..=20 {
            index.push(entry(i, 1 + i / 10), Position::new(1, i * 8));
        }
        index.drop_until(12);
        assert_eq!((index.base(), index.last()), (12, 20));
        assert_eq!(index.term(11), None);
        assert_eq!(index.term(12), Some(2));
        assert_eq!((index.term(13), index.term(20)), (Some(2), Some(3)));
        assert_eq!(index.position(12), None);
        assert_eq!(index.position(13), Some(Position::new(1, 104)));
        assert!(index.recent(12).is_none() && index.recent(13).is_some());
        index.push(entry(14, 7), Position::new(2, 8));
        assert_eq!(
            (index.last(), index.term(13), index.term(14)),
            (14, Some(2), Some(7))
        );
        index.drop_until(14);
        assert_eq!((index.last(), index.last_term()), (14, 7));
        index.push(entry(15, 7), Position::new(2, 16));
        assert_eq!(index.term(15), Some(7));
        index.begin_after(90, 8);
        assert_eq!(
            (index.last(), index.term(90), index.term(89)),
            (90, Some(8), None)
        );
    }
}
