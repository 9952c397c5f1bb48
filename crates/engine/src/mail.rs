//! What the owners of two replicas say to each other, over the connection that
//! their engines have.
//!
//! Mail may be lost: with a connection, and where the receiver's owner does not
//! fetch it. Whoever asks for something asks again.

use crate::shared::lock;
use std::collections::VecDeque;
use std::sync::Mutex;

/// Bytes that wait to be fetched, at most.
const LIMIT: usize = 32 << 20;
/// The largest piece of mail in bytes.
pub const LARGEST: usize = 1 << 20;

/// Mail that arrived. Any thread may add and fetch.
#[derive(Default)]
pub struct Mail {
    inner: Mutex<Letters>,
}

#[derive(Default)]
struct Letters {
    letters: VecDeque<(u8, Vec<u8>)>,
    bytes: usize,
}

impl Mail {
    /// Adds mail of replica `from`; false when there is no room, and it is lost.
    pub fn put(&self, from: u8, bytes: Vec<u8>) -> bool {
        let mut inner = lock(&self.inner);
        if inner.bytes + bytes.len() > LIMIT || bytes.len() > LARGEST {
            return false;
        }
        inner.bytes += bytes.len();
        inner.letters.push_back((from, bytes));
        true
    }

    /// The oldest piece, and whose it is.
    pub fn next(&self) -> Option<(u8, Vec<u8>)> {
        let mut inner = lock(&self.inner);
        let (from, bytes) = inner.letters.pop_front()?;
        inner.bytes -= bytes.len();
        Some((from, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_is_fetched_in_order_and_bounded() {
        let mail = Mail::default();
        assert!(mail.put(2, vec![1]));
        assert!(mail.put(3, vec![2; LARGEST]));
        assert!(!mail.put(3, vec![2; LARGEST + 1]));
        let more = std::iter::repeat_with(|| mail.put(3, vec![0; LARGEST]));
        assert!(more.take_while(|put| *put).count() < LIMIT / LARGEST);
        assert_eq!(mail.next(), Some((2, vec![1])));
        assert_eq!(
            mail.next().map(|(from, bytes)| (from, bytes.len())),
            Some((3, LARGEST))
        );
        assert!(mail.put(2, vec![7; LARGEST]));
    }
}
