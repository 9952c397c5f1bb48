//! What replicas and their owners say of who takes part.
//!
//! Between replicas it is part of the greeting, so that one that slept through
//! changes, or was just added, learns where the others are. It is not what
//! counts: that is in the log.

use crane_consensus::Membership;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Who takes part as far as a replica knows, and where it reaches them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roster {
    /// As it is agreed.
    pub members: Membership,
    /// The addresses that are known, also of members that began the cluster.
    pub addresses: BTreeMap<u8, SocketAddr>,
}

impl Roster {
    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        // Maps and numbers: nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one; `None` when it makes no sense.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let found: Self = serde_json::from_slice(bytes).ok()?;
        found.members.check().ok()?;
        Some(found)
    }
}

/// What an owner asks the leader.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Question {
    /// Who takes part and how far everybody is.
    Members {},
    /// A new replica shall get the log.
    Add {
        /// Its id.
        id: u8,
        /// Where the others reach it.
        address: SocketAddr,
    },
    /// A learner shall decide.
    Promote {
        /// Its id.
        id: u8,
    },
    /// A member shall be none any more.
    Remove {
        /// Its id.
        id: u8,
    },
    /// A learner shall decide in place of a voter.
    Replace {
        /// Who goes.
        old: u8,
        /// Who comes.
        new: u8,
    },
    /// Another replica shall lead: this one, or whichever is furthest.
    Transfer {
        /// Its id.
        to: Option<u8>,
    },
}

impl Question {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, as part of a line.
    pub fn decode(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("the question is not understood: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replicas_say_comes_back() {
        let mut roster = Roster {
            members: Membership::initial([1, 2]),
            ..Roster::default()
        };
        roster
            .addresses
            .insert(2, "192.0.2.2:7000".parse().unwrap());
        assert_eq!(Roster::decode(&roster.encode()), Some(roster.clone()));
        roster.members.learners.insert(2);
        assert_eq!(Roster::decode(&roster.encode()), None);
        assert_eq!(Roster::decode(b"{}"), None);
    }

    #[test]
    fn questions_are_read_strictly() {
        let add = r#"{"ask": "add", "id": 4, "address": "192.0.2.4:7000"}"#;
        assert!(matches!(
            Question::decode(add),
            Ok(Question::Add { id: 4, .. })
        ));
        assert_eq!(
            Question::decode(r#"{"ask": "members"}"#),
            Ok(Question::Members {})
        );
        for wrong in [
            r#"{"ask": "all"}"#,
            r#"{"ask": "promote"}"#,
            "1",
            r#"{"ask": "promote", "id": 300}"#,
        ] {
            assert!(Question::decode(wrong).is_err(), "{wrong}");
        }
    }
}
