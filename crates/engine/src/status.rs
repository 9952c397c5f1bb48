//! The engine's state for its owner.

use crate::config::Config;
use crate::shared::{Shared, lock};
use crate::watch::holder;
use crane_channel::layout::{NO_DEADLINE, State};
use crane_channel::output::EpochDone;
use serde_json::{Map, Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How long to wait for what the server left untold, and how often: a running
/// server is always a little ahead.
const HEARING: Duration = Duration::from_micros(500);
const HEARING_TRIES: u32 = 4;

/// The state as a JSON object.
pub fn status(config: &Config, shared: &Shared) -> Value {
    let header = shared.segment.header();
    let figures = lock(&shared.figures).clone();
    for _ in 0..HEARING_TRIES {
        if shared.has_heard_all() {
            break;
        }
        std::thread::sleep(HEARING);
    }
    // Written by the server at different moments; the last finished epoch is
    // one moment.
    let newest = lock(&shared.history).newest().unwrap_or(EpochDone {
        epoch: header.epoch.load(Relaxed),
        clock: header.clock.load(Relaxed),
        output_hash: header.output_hash.load(Relaxed),
        schedule_hash: header.schedule_hash.load(Relaxed),
    });
    let agreement = lock(&shared.agreement).clone();
    let state = if shared.server_gone.load(Relaxed) {
        State::Exited
    } else {
        State::from_raw(header.state.load(Relaxed))
    };
    let deadline = header.deadline.load(Relaxed);
    let unsupported: Map<String, Value> = header
        .unsupported
        .iter()
        .enumerate()
        .map(|(slot, count)| (slot.to_string(), count.load(Relaxed)))
        .filter(|(_, count)| *count > 0)
        .map(|(slot, count)| (slot, count.into()))
        .collect();
    let listening: Vec<Value> = figures
        .listening
        .iter()
        .map(|(port, real)| json!({ "port": port, "address": real.to_string() }))
        .collect();
    let disagreement = agreement
        .disagreement
        .map(|d| json!({ "epoch": d.epoch, "peer": d.peer, "output": d.output }));
    let stuck = lock(&shared.stuck_since).map(|since| since.elapsed().as_secs_f64());
    let members = json!({
        "index": figures.members_index,
        "voters": figures.voters,
        "learners": figures.learners,
        "peers": figures.peers,
    });
    let mut status = json!({
        "id": config.id,
        "role": figures.role,
        "term": figures.term,
        "leader": (figures.leader != 0).then_some(figures.leader),
        "commit": figures.commit,
        "applied": figures.applied,
        "last_index": figures.last_index,
        "caught_up": figures.caught_up,
        "published": figures.published,
        "epoch": newest.epoch,
        "clock": newest.clock,
        "now_ns": header.now.load(Relaxed),
        "connections": figures.connections,
        "server_connections": header.connections.load(Relaxed),
        "output_hash": hex(newest.output_hash),
        "schedule_hash": hex(newest.schedule_hash),
        "agrees": agreement.agrees,
        "disagreement": disagreement,
        "divergence": agreement.divergence,
        "suspended": agreement.suspended,
        "state": state_name(state),
        "deadline_ns": (deadline != NO_DEADLINE).then_some(deadline),
        "attached": shared.attached.load(Relaxed),
        "listening": listening,
        "unsupported": unsupported,
        "fatal": *lock(&shared.fatal),
        "incarnation": figures.incarnation,
        "log_base": figures.log_base,
        "log_bytes": figures.log_bytes,
        "log_behind": figures.log_behind,
        "checkpoint": (figures.checkpoint != 0).then_some(figures.checkpoint),
        "parked": shared.parked.load(Relaxed),
        "threads": header.threads.load(Relaxed),
        "processes": header.processes.load(Relaxed),
        "handovers": header.handovers.load(Relaxed),
        "ticks": header.ticks.load(Relaxed),
        "holder": holder(header),
        "stuck_seconds": stuck,
        "spins": header.spins.load(Relaxed),
        "epochs_proposed": figures.epochs_proposed,
        "bubbles_proposed": figures.bubbles_proposed,
    });
    // The macro takes only so much at once.
    status["members"] = members;
    status
}

/// Hashes are written as 16 hexadecimal digits: JSON numbers are not exact.
pub fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Absent => "absent",
        State::Running => "running",
        State::Quiescent => "quiescent",
        State::NeedsBudget => "needs_budget",
        State::Exited => "exited",
        State::Refused => "refused",
    }
}
