//! What can go wrong, in sentences an operator can act on.

use std::fmt;
use std::io;

/// Why a node could not be opened, or has to stop.
#[derive(Debug)]
pub enum Error {
    /// The settings contradict themselves.
    Config(String),
    /// The state directory could not be read or prepared. Nothing was changed
    /// that a second attempt could not repeat.
    Io {
        /// What was attempted, for example `create`.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process has this state directory.
    Locked {
        /// The lock file.
        path: String,
    },
    /// The state directory does not belong to this replica of this cluster, or
    /// may not be used in its present condition.
    Refused(String),
    /// The log is damaged before its end.
    Corrupt {
        /// The damaged file.
        path: String,
        /// Byte offset of the first bad record in that file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The node must stop now: its durable state is no longer certain. The
    /// process may be started again once the cause is mended.
    Fatal(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(why) | Self::Refused(why) | Self::Fatal(why) => f.write_str(why),
            Self::Io {
                action,
                path,
                source,
            } => write!(f, "cannot {action} {path}: {source}"),
            Self::Locked { path } => write!(
                f,
                "{path} is locked: another process uses this state directory; stop it or give this replica its own directory"
            ),
            Self::Corrupt {
                path,
                offset,
                reason,
            } => write!(
                f,
                "{path} is damaged at byte {offset} ({reason}): check the disk, then remove this replica's `log` directory and restart it; it will catch up from the leader"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// Turns an error met while running into the reason to stop.
    pub(crate) fn fatal(self) -> Self {
        match self {
            Self::Fatal(_) | Self::Corrupt { .. } => self,
            Self::Io { path, source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Self::Fatal(format!(
                    "no space is left for {path}: the replica stops; free some space and restart it"
                ))
            }
            other => Self::Fatal(format!(
                "{other}: the replica stops, because its log may be incomplete; check the disk and restart it"
            )),
        }
    }
}

/// Why a proposal was not taken. It is then in no log, and may be tried again.
///
/// A proposal that *was* taken can still be lost when the leader changes, or
/// commit later under a new leader: its outcome is known only when it is handed
/// to [`Output::committed`](crate::Output::committed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProposeError {
    /// Only the leader takes proposals, and this replica does not forward them.
    NotLeader {
        /// The leader, if one is known.
        leader: Option<u64>,
    },
    /// Too much is proposed and not yet committed, or the leader is handing
    /// over. Stop reading from clients until entries commit.
    Busy,
    /// The entry is larger than
    /// [`Config::max_entry_bytes`](crate::Config::max_entry_bytes).
    TooLarge {
        /// Bytes of the refused entry.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader { leader: Some(id) } => {
                write!(f, "this replica is not the leader, replica {id} is")
            }
            Self::NotLeader { leader: None } => {
                f.write_str("this replica is not the leader and knows none at the moment")
            }
            Self::Busy => f.write_str("too many inputs wait to be committed: try again"),
            Self::TooLarge { len, max } => {
                write!(
                    f,
                    "an entry of {len} bytes is larger than the limit of {max}"
                )
            }
        }
    }
}

impl std::error::Error for ProposeError {}
