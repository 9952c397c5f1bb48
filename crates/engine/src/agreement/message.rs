//! What replicas say to each other about their results, inside frames of hashes.

use super::evidence::Side;
use super::history::Report;

/// A message of the comparison.
#[derive(Clone, Debug)]
pub enum Compare {
    /// The sender's results.
    Report(Report),
    /// The sender wants all results from this epoch on, as soon as there are any.
    Ask(u64),
    /// The sender wants the operations and outputs of these logical clocks.
    AskOperations {
        /// The epoch that is in dispute.
        epoch: u64,
        /// First logical clock.
        from: u64,
        /// Last logical clock.
        to: u64,
    },
    /// The sender's program ended by its own fault, in this life of it.
    Crashed(u32),
    /// The answer.
    Operations {
        /// The epoch that is in dispute.
        epoch: u64,
        /// What the sender's program did.
        side: Side,
    },
}

// 0 and 1 begin a report.
const ASK: u8 = 2;
const ASK_OPERATIONS: u8 = 3;
const OPERATIONS: u8 = 4;
const CRASHED: u8 = 5;

impl Compare {
    /// Reads a frame's payload; `None` when it is something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        if kind < ASK {
            return Report::decode(bytes).map(Self::Report);
        }
        let word = |at: usize| {
            let bytes = rest.get(at * 8..at * 8 + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        match (kind, rest.len()) {
            (ASK, 8) => Some(Self::Ask(word(0)?)),
            (ASK_OPERATIONS, 24) => Some(Self::AskOperations {
                epoch: word(0)?,
                from: word(1)?,
                to: word(2)?,
            }),
            (CRASHED, 8) => Some(Self::Crashed(u32::try_from(word(0)?).ok()?)),
            (OPERATIONS, 8..) => Some(Self::Operations {
                epoch: word(0)?,
                side: Side::decode(&rest[8..])?,
            }),
            _ => None,
        }
    }

    /// The payload of a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Report(report) => report.encode(),
            Self::Ask(epoch) => words(ASK, &[*epoch]),
            Self::AskOperations { epoch, from, to } => words(ASK_OPERATIONS, &[*epoch, *from, *to]),
            Self::Crashed(life) => words(CRASHED, &[u64::from(*life)]),
            Self::Operations { epoch, side } => {
                let mut out = words(OPERATIONS, &[*epoch]);
                side.encode(&mut out);
                out
            }
        }
    }
}

fn words(kind: u8, words: &[u64]) -> Vec<u8> {
    let mut out = vec![kind];
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crane_channel::recent::{Operation, Sent};

    #[test]
    fn messages_survive_the_round_trip() {
        let side = Side {
            first: 9,
            operations: vec![Operation::new(1, 2, 0x30), Operation::new(4, 5, 0)],
            outputs: vec![Sent {
                clock: 10,
                conn: 1 << 56,
                hash: u64::MAX,
                what: 1,
                len: 5,
            }],
            whole: true,
        };
        for message in [
            Compare::Ask(7),
            Compare::Crashed(3),
            Compare::AskOperations {
                epoch: 7,
                from: 8,
                to: u64::MAX,
            },
            Compare::Operations { epoch: 7, side },
        ] {
            let bytes = message.encode();
            let again = Compare::decode(&bytes).unwrap();
            assert_eq!(format!("{again:?}"), format!("{message:?}"));
            for end in 0..bytes.len() {
                assert!(Compare::decode(&bytes[..end]).is_none());
            }
        }
    }

    #[test]
    fn strange_messages_are_refused() {
        assert!(Compare::decode(&[]).is_none());
        assert!(Compare::decode(&[9; 9]).is_none());
        let mut huge = words(OPERATIONS, &[1, 2]);
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(Compare::decode(&huge).is_none());
    }
}
