//! What is told of those who are refused: each thing once in a while, and not
//! more things than somebody reads, however many strangers there are.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

const AGAIN: Duration = Duration::from_secs(60);
const MOST: usize = 256;

/// What was told lately.
#[derive(Default)]
pub struct Refusals {
    told: BTreeMap<String, Instant>,
}

impl Refusals {
    /// Whether to tell this now: it was not told lately.
    pub fn are_news(&mut self, text: String, now: Instant) -> bool {
        self.told.retain(|_, at| now < *at + AGAIN);
        let full = self.told.len() >= MOST;
        match self.told.entry(text) {
            Entry::Vacant(first) if !full => {
                first.insert(now);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_a_while_and_not_too_many() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.are_news("a".into(), now));
        assert!(!refusals.are_news("a".into(), now + AGAIN / 2));
        assert!(refusals.are_news("a".into(), now + AGAIN));
        let later = now + 3 * AGAIN;
        let told = (0..2 * MOST).filter(|n| refusals.are_news(n.to_string(), later));
        assert_eq!(told.count(), MOST);
    }
}
