//! The node's share of a checkpoint: what the engine knows from the log up to
//! the checkpoint's entry, and from what the program has said until then.
//!
//! JSON with strict fields, part of the checkpoint's manifest. Nothing in it is
//! this replica's own, so any replica can go on from it: connections of the
//! gateway that made it are as those of any other gateway to the one that
//! starts, which begins as a new incarnation.

use crane_channel::epoch::ConnId;
use crane_channel::output::EpochDone;
use crane_gateway::filter::{Filter, GatewayState};
use crane_gateway::moves::{Movable, Moves};
use crane_gateway::tcp::Tcp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the log says of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    id: u8,
    incarnation: u32,
    next: u64,
    down: bool,
    used: bool,
}

/// A connection that can go on at another gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MovableConnection {
    id: u64,
    holder: (u8, u32),
    received: u64,
    ended: bool,
    drained: u64,
    /// As [`Tcp::encode`] has it.
    socket: Option<Vec<u8>>,
    since: u64,
    moves: u32,
    arriving: bool,
}

impl MovableConnection {
    fn of((conn, one): (ConnId, Movable)) -> Self {
        Self {
            id: conn.0,
            holder: one.holder,
            received: one.received,
            ended: one.ended,
            drained: one.drained,
            socket: one.tcp.map(|tcp| tcp.encode().to_vec()),
            since: one.since,
            moves: one.moves,
            arriving: one.arriving,
        }
    }

    fn movable(&self) -> (ConnId, Movable) {
        let movable = Movable {
            holder: self.holder,
            received: self.received,
            ended: self.ended,
            drained: self.drained,
            tcp: self.socket.as_deref().and_then(Tcp::decode),
            since: self.since,
            moves: self.moves,
            arriving: self.arriving,
        };
        (ConnId(self.id), movable)
    }
}

/// A group that a datagram socket of the server has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The socket.
    pub socket: u32,
    /// The group's address.
    pub group: [u8; 16],
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The last entry applied, and its term.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The last epoch given to the server: a log index, at most `index`.
    pub epoch: u64,
    /// Logical clock at its end.
    pub clock: u64,
    /// Hash of all output until then.
    pub output_hash: u64,
    /// Hash of the schedule until then.
    pub schedule_hash: u64,
    epochs: u64,
    last_time: u64,
    seeded: bool,
    /// How often the program has begun anew.
    #[serde(default)]
    life: u32,
    gateways: Vec<Gateway>,
    /// Connections through the virtual address.
    #[serde(default)]
    movable: Vec<MovableConnection>,
    /// The cluster that made it, in hexadecimal digits: who takes part in another
    /// one, which began with it, is not `members`.
    pub cluster: String,
    /// Who took part at `index`.
    pub members: crane_consensus::Membership,
    /// Listening TCP sockets of the server.
    pub listeners: Vec<(u32, SocketAddr)>,
    /// Listening Unix sockets, with raw addresses.
    pub unix: Vec<(u32, Vec<u8>)>,
    /// Datagram sockets.
    pub datagrams: Vec<(u32, SocketAddr)>,
    /// The groups that they joined.
    pub groups: Vec<Membership>,
}

impl Share {
    /// The share at entry `at` (index and term), with no sockets yet.
    pub fn new(at: (u64, u64), done: EpochDone, filter: &Filter) -> Self {
        let gateway = |(id, state): (u8, GatewayState)| Gateway {
            id,
            incarnation: state.incarnation,
            next: state.next_seq,
            down: state.down,
            used: state.used,
        };
        Self {
            index: at.0,
            term: at.1,
            epoch: done.epoch,
            clock: done.clock,
            output_hash: done.output_hash,
            schedule_hash: done.schedule_hash,
            epochs: filter.epochs(),
            last_time: filter.last_time(),
            seeded: filter.seeded(),
            life: filter.life(),
            gateways: filter.gateways().map(gateway).collect(),
            movable: filter.moves.all().map(MovableConnection::of).collect(),
            cluster: String::new(),
            members: crane_consensus::Membership::default(),
            listeners: Vec::new(),
            unix: Vec::new(),
            datagrams: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, as part of a line.
    pub fn decode(text: &str) -> Result<Self, String> {
        let share: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let ids: Vec<u8> = share.gateways.iter().map(|one| one.id).collect();
        if ids.first() == Some(&0) || !ids.is_sorted_by(|a, b| a < b) {
            return Err("its gateways are out of order".into());
        }
        share.members.check()?;
        if share.members.index() > share.index {
            return Err("its members are of a later entry".into());
        }
        if share.epoch > share.index || share.epochs > share.index {
            return Err("it has more epochs than entries".into());
        }
        Ok(share)
    }

    /// The text that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// What the log says up to the checkpoint's entry.
    pub fn filter(&self) -> Filter {
        let gateways = self.gateways.iter().map(|one| {
            let state = GatewayState {
                incarnation: one.incarnation,
                next_seq: one.next,
                down: one.down,
                used: one.used,
            };
            (one.id, state)
        });
        let mut filter = Filter::at(
            gateways,
            self.epochs,
            self.last_time,
            self.seeded,
            self.life,
        );
        filter.moves = Moves::at(self.movable.iter().map(MovableConnection::movable));
        filter
    }

    /// The hashes at the checkpoint's epoch.
    pub fn done(&self) -> EpochDone {
        EpochDone {
            epoch: self.epoch,
            clock: self.clock,
            output_hash: self.output_hash,
            schedule_hash: self.schedule_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> Share {
        let gateways = [1, 3].map(|id| {
            let state = GatewayState {
                incarnation: 4,
                next_seq: u64::MAX - u64::from(id),
                down: id == 3,
                used: true,
            };
            (id, state)
        });
        let filter = Filter::at(gateways, 90, 1 << 60, true, 2);
        let done = EpochDone {
            epoch: 99,
            clock: 7,
            output_hash: u64::MAX,
            schedule_hash: 1,
        };
        let mut share = Share::new((100, 2), done, &filter);
        share.listeners.push((5, "0.0.0.0:6379".parse().unwrap()));
        share.unix.push((6, vec![1, 0, b'/']));
        share.members = crane_consensus::Membership::initial([1, 2, 3]);
        share
    }

    #[test]
    fn a_share_comes_back_as_it_was() {
        let share = share();
        let again = Share::decode(&share.encode().to_string()).unwrap();
        assert_eq!(again, share);
        let filter = again.filter();
        assert_eq!(filter.gateway(3).next_seq, u64::MAX - 3);
        assert!(filter.gateway(3).down && !filter.gateway(1).down);
        assert_eq!((filter.epochs(), filter.last_time()), (90, 1 << 60));
        assert_eq!(filter.life(), 2);
        assert_eq!(filter.gateways().count(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = share().encode();
        let wrong = |change: fn(&mut serde_json::Value)| {
            let mut value = good.clone();
            change(&mut value);
            Share::decode(&value.to_string()).unwrap_err()
        };
        assert!(wrong(|v| v["epoch"] = 101.into()).contains("more epochs"));
        assert!(wrong(|v| v["members"]["voters"]["index"] = 101.into()).contains("later entry"));
        assert!(wrong(|v| v["surprise"] = 1.into()).contains("unknown field"));
        assert!(wrong(|v| v["gateways"][1]["id"] = 1.into()).contains("out of order"));
        assert!(wrong(|v| v["gateways"][0]["id"] = 0.into()).contains("out of order"));
        assert!(wrong(|v| v["index"] = (-1).into()).contains("invalid"));
        assert!(wrong(|v| _ = v.as_object_mut().unwrap().remove("term")).contains("term"));
    }
}
