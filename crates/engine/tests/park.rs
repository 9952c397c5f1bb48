//! A program that stands still for a checkpoint, and logs that are cut behind it.

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use support::{Cluster, Options, wait};

fn echo(client: &mut std::net::TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

/// The next event of this kind.
fn event(cluster: &Cluster, id: u8, kind: &str) -> Value {
    let mut found = None;
    wait(kind, || {
        while let Some(text) = cluster.engine(id).next_event() {
            let event: Value = serde_json::from_str(&text).unwrap();
            if event["kind"] == kind {
                found = Some(event);
                return true;
            }
        }
        false
    });
    found.unwrap()
}

#[test]
fn a_follower_stands_still_while_the_others_serve() {
    let cluster = Cluster::start(Options::new(3));
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let mut client = cluster.connect(leader);
    echo(&mut client, b"before");
    cluster.wait_same();
    cluster.engine(follower).park();
    let share = event(&cluster, follower, "parked")["share"].clone();
    assert_eq!(cluster.status(follower)["parked"], true);
    for round in 0..50 {
        echo(&mut client, format!("meanwhile {round}").as_bytes());
    }
    let status = cluster.status(follower);
    assert_eq!(status["applied"], share["index"]);
    assert!(status["commit"].as_u64() > share["index"].as_u64());
    let saved = cluster.segment("saved");
    cluster.engine(follower).save_segment(&saved).unwrap();
    assert!(cluster.engine(follower).unpark());
    assert!(!cluster.engine(follower).unpark());
    cluster.wait_same();
    assert!(cluster.engine(follower).save_segment(&saved).is_err());
    // A leader's program is needed.
    cluster.engine(leader).park();
    let refused = event(&cluster, leader, "unparked");
    assert!(refused["message"].as_str().unwrap().contains("leads"));
    echo(&mut client, b"after");
}

#[test]
fn a_parked_replica_that_becomes_the_leader_goes_on() {
    let mut cluster = Cluster::start(Options::new(3));
    let leader = cluster.leader();
    let others: Vec<u8> = cluster
        .ids()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    for &id in &others {
        cluster.engine(id).park();
        event(&cluster, id, "parked");
    }
    cluster.kill(leader);
    wait("another leader", || {
        others
            .iter()
            .any(|id| cluster.status(*id)["role"] == "leader")
    });
    let new = cluster.leader();
    assert!(!cluster.engine(new).unpark());
    let mut client = cluster.connect(new);
    echo(&mut client, b"served");
}

#[test]
fn a_log_is_cut_behind_a_checkpoint_and_asks_for_one_then() {
    let mut cluster = Cluster::start(Options::new(3));
    let follower = cluster.follower();
    let mut client = cluster.connect(cluster.leader());
    for round in 0..24u8 {
        echo(&mut client, &vec![round; 1 << 20]);
    }
    cluster.wait_same();
    cluster.engine(follower).park();
    let share = event(&cluster, follower, "parked")["share"].clone();
    cluster.engine(follower).unpark();
    let index = share["index"].as_u64().unwrap();
    let whole = cluster.status(follower)["log_bytes"].as_u64().unwrap();
    cluster.engine(follower).checkpointed(index);
    cluster.engine(follower).cut(u64::MAX);
    wait("a shorter log", || {
        cluster.status(follower)["log_base"].as_u64() > Some(0)
    });
    let status = cluster.status(follower);
    assert!(status["log_bytes"].as_u64().unwrap() < whole);
    assert!(status["log_base"].as_u64().unwrap() <= index);
    assert_eq!(status["checkpoint"], index);
    echo(&mut client, b"and on it goes");
    cluster.stop(follower);
    cluster.start_one(follower);
    let wanted = event(&cluster, follower, "needs_checkpoint")["index"].as_u64();
    assert!(wanted > Some(0) && wanted <= Some(index));
    // It counts for what is agreed, but its program gets nothing.
    echo(&mut client, b"without its program");
    assert_eq!(cluster.status(follower)["applied"], 0);
}
