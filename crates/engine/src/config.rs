//! The engine's settings, given as JSON.

use crate::error::EngineError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// When an input counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the disks of a majority.
    Disk,
    /// In the memory of a majority.
    Memory,
}

/// Where a replica starts that does not replay its whole log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The node's share of the checkpoint, see [`crate::share`].
    pub share: PathBuf,
    /// The segment that was saved with it; none: the program begins anew there.
    #[serde(default)]
    pub segment: Option<PathBuf>,
}

/// The files of this replica's certificate, in PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificates of the cluster's authority: one, or several while it is
    /// being replaced.
    pub ca: PathBuf,
    /// This replica's certificate.
    pub certificate: PathBuf,
    /// Its private key, readable by its owner alone.
    pub key: PathBuf,
}

/// Settings of one replica's engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 32 hexadecimal digits that tell one cluster from another.
    #[serde(deserialize_with = "cluster_id")]
    pub cluster_id: [u8; 16],
    /// The cluster's name, for messages.
    pub name: String,
    /// This replica, 1 to 255.
    pub id: u8,
    /// The addresses at which the replicas that begin the cluster, this one
    /// included, hear each other. What was agreed later holds instead.
    pub peers: BTreeMap<u8, SocketAddr>,
    /// The replica was added to a cluster that exists; `peers` are then itself
    /// and those that it dials first.
    #[serde(default)]
    pub join: bool,
    /// The certificates; without them, the replicas' connections are plain.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// What all replicas must have in common: a line each, name and value
    /// separated by a tab. Replicas whose lines differ do not talk.
    #[serde(default)]
    pub agreed: String,
    /// The address on which clients are accepted.
    pub listen_host: IpAddr,
    /// An address of the cluster that the leader's machine has: clients are
    /// accepted there, too, while this replica leads.
    #[serde(default)]
    pub virtual_host: Option<IpAddr>,
    /// The server's ports that clients reach at other ones.
    #[serde(default)]
    pub port_map: BTreeMap<u16, u16>,
    /// The directory of the log.
    pub log_dir: PathBuf,
    /// Where the segment is made.
    pub segment: PathBuf,
    /// When an input counts as kept.
    #[serde(default = "disk")]
    pub durability: Durability,
    /// Operations a thread may do before the turn rotates.
    #[serde(default = "quantum")]
    pub quantum: u32,
    /// Logical clocks that an epoch may run.
    #[serde(default = "budget")]
    pub budget: u32,
    /// A thread that provably spins on memory passes the turn on.
    #[serde(default = "preempt")]
    pub preempt: bool,
    /// Release output to clients only when a majority of the replicas has come to
    /// the same.
    #[serde(default)]
    pub vote: bool,
    /// A program that ends by its own fault on a majority of the replicas begins
    /// anew, by way of the log, when the owner asks for it.
    #[serde(default)]
    pub restart: bool,
    /// Record every operation of the server.
    #[serde(default)]
    pub trace: bool,
    /// Have the addresses of locks and the like in the schedule's hash: a
    /// difference is found where it begins, and one that reaches no answer too.
    #[serde(default)]
    pub objects: bool,
    /// The operator vouches that the cluster is new, so that a replica without
    /// a log takes part at once.
    #[serde(default)]
    pub new_cluster: bool,
    /// The checkpoint from which this replica starts; none: from the beginning
    /// of its log.
    #[serde(default)]
    pub checkpoint: Option<Start>,
    /// Start although inputs may have been lost with the machine's memory.
    #[serde(default)]
    pub accept_memory_loss: bool,
}

fn disk() -> Durability {
    Durability::Disk
}

fn quantum() -> u32 {
    100
}

fn budget() -> u32 {
    100_000
}

fn preempt() -> bool {
    true
}

fn cluster_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u128::from_str_radix(&text, 16).ok().filter(|_| digits);
    let value =
        value.ok_or_else(|| serde::de::Error::custom("cluster_id is not 32 hexadecimal digits"))?;
    Ok(value.to_be_bytes())
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When the text is not JSON, a field is unknown, missing or wrong.
    pub fn from_json(text: &str) -> Result<Self, EngineError> {
        let config: Self = serde_json::from_str(text).map_err(|e| {
            EngineError::new(format!(
                "the engine's configuration is wrong: {e}; correct that field"
            ))
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), EngineError> {
        let wrong = if self.id == 0 || self.peers.contains_key(&0) {
            "a replica's id is 0; number the replicas from 1"
        } else if !self.peers.contains_key(&self.id) {
            "this replica is not among the peers; add its id and address"
        } else if self.quantum == 0 || self.budget == 0 {
            "quantum and budget must be at least 1; leave them out for the defaults"
        } else {
            return Ok(());
        };
        Err(EngineError::new(format!(
            "the engine's configuration is wrong: {wrong}"
        )))
    }

    /// The cluster's id in hexadecimal digits.
    pub fn cluster(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.cluster_id))
    }

    /// This replica's own peer address.
    pub fn own_address(&self) -> SocketAddr {
        self.peers[&self.id]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"cluster_id": "000102030405060708090a0b0c0d0e0f", "name": "t",
        "id": 2, "peers": {"1": "127.0.0.1:7001", "2": "127.0.0.1:7002"},
        "listen_host": "127.0.0.1", "port_map": {"6379": 16379},
        "log_dir": "/tmp/log", "segment": "/tmp/seg", "durability": "memory"}"#;

    #[test]
    fn settings_are_read_and_completed() {
        let config = Config::from_json(GOOD).unwrap();
        assert_eq!(config.cluster_id[15], 15);
        assert_eq!(config.own_address().port(), 7002);
        assert_eq!(config.port_map[&6379], 16379);
        assert_eq!((config.quantum, config.budget), (100, 100_000));
    }

    #[test]
    fn wrong_settings_are_refused_with_the_field() {
        for (good, bad, says) in [
            ("\"name\"", "\"nome\"", "nome"),
            ("000102", "00010g", "cluster_id"),
            ("\"id\": 2", "\"id\": 3", "peers"),
            ("127.0.0.1:7001", "localhost", "socket address"),
        ] {
            let error = Config::from_json(&GOOD.replace(good, bad)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
