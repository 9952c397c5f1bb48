//! Engines that come and go while clients are served.

mod support;

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Cluster, Options, wait};

fn echo(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
    let mut got = vec![0; text.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, text.as_bytes());
}

/// Adds a replica as a learner and makes it a voter.
fn add(cluster: &mut Cluster, id: u8) {
    cluster.prepare_one(id);
    let address = format!("127.0.0.1:{}", cluster.peer_port(id));
    let asked = cluster.ids()[0];
    cluster.change(
        asked,
        &json!({ "ask": "add", "id": id, "address": address }),
    );
    cluster.start_one(id);
    cluster.change(asked, &json!({ "ask": "promote", "id": id }));
    cluster.wait_listening(id);
}

fn voters(cluster: &Cluster, id: u8) -> Value {
    cluster.status(id)["members"]["voters"].clone()
}

fn wait_voters(cluster: &Cluster, id: u8, expected: &Value) {
    wait("the new members", || voters(cluster, id) == *expected);
}

#[test]
fn three_become_five_and_three_again() {
    let mut cluster = Cluster::start(Options::new(3).disk());
    let mut client = cluster.connect(1);
    echo(&mut client, "before");
    for id in [4, 5] {
        add(&mut cluster, id);
        echo(&mut client, &format!("with {id}"));
        echo(&mut cluster.connect(id), "through the new one");
    }
    wait_voters(&cluster, 5, &json!([1, 2, 3, 4, 5]));
    cluster.wait_same();
    // Five bear the loss of two.
    cluster.kill(4);
    cluster.kill(5);
    echo(&mut client, "two are down");
    for id in [4, 5] {
        cluster.change(1, &json!({ "ask": "remove", "id": id }));
    }
    wait_voters(&cluster, 3, &json!([1, 2, 3]));
    echo(&mut client, "three again");
    // Its id is used for good, and it is told so when it comes back.
    let again = json!({ "ask": "add", "id": 4, "address": "127.0.0.1:9" });
    let mut refused = Value::Null;
    wait("a refusal", || {
        refused = cluster.ask(1, &again);
        refused["again"] != true
    });
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("never given again"),
        "{refused}"
    );
    cluster.start_one(4);
    wait("a replica that was removed", || {
        let fatal = cluster.status(4)["fatal"].clone();
        fatal
            .as_str()
            .is_some_and(|why| why.contains("was removed"))
    });
    cluster.kill(4);
    echo(&mut client, "nobody minds");
    cluster.wait_same();
}

#[test]
fn a_replica_takes_the_place_of_a_dead_one_and_all_may_be_replaced() {
    let mut cluster = Cluster::start(Options::new(3));
    let mut client = cluster.connect(2);
    echo(&mut client, "before");
    cluster.kill(1);
    for (old, new) in [(1, 4), (3, 5)] {
        cluster.prepare_one(new);
        let address = format!("127.0.0.1:{}", cluster.peer_port(new));
        cluster.change(2, &json!({ "ask": "add", "id": new, "address": address }));
        cluster.start_one(new);
        cluster.change(2, &json!({ "ask": "replace", "old": old, "new": new }));
        cluster.wait_listening(new);
        echo(&mut client, &format!("{new} for {old}"));
    }
    wait_voters(&cluster, 2, &json!([2, 4, 5]));
    // The one that left while it ran was told.
    wait("the end of the one that left", || {
        let fatal = cluster.status(3)["fatal"].clone();
        fatal
            .as_str()
            .is_some_and(|why| why.contains("was removed"))
    });
    cluster.kill(3);
    // The new ones keep what they know, and do without the first.
    cluster.kill(5);
    cluster.start_one(5);
    cluster.wait_listening(5);
    drop(client);
    cluster.kill(2);
    let mut client = cluster.connect(4);
    echo(&mut client, "only new ones");
    cluster.wait_same();
}

#[test]
fn the_leadership_goes_where_it_is_asked_to() {
    let mut cluster = Cluster::start(Options::new(3));
    let leader = cluster.leader();
    let other = cluster.follower();
    let answer = cluster.ask(other, &json!({ "ask": "transfer", "to": other }));
    assert!(answer.get("error").is_none(), "{answer}");
    wait("the new leader", || {
        cluster.status(other)["role"] == "leader"
    });
    assert_eq!(cluster.leader(), other);
    let nobody = cluster.ask(other, &json!({ "ask": "transfer", "to": 9 }));
    assert_eq!(nobody["error"], "replica 9 is not a member");
    // The leader is removed by the next one.
    cluster.change(leader, &json!({ "ask": "remove", "id": other }));
    wait_voters(
        &cluster,
        leader,
        &json!(
            [1, 2, 3]
                .iter()
                .filter(|id| **id != other)
                .collect::<Vec<_>>()
        ),
    );
    cluster.kill(other);
    echo(&mut cluster.connect(leader), "two");
    let last = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader && *id != other)
        .unwrap();
    cluster.kill(last);
    wait("no leader", || cluster.status(leader)["role"] != "leader");
    let alone = cluster.ask(leader, &json!({ "ask": "members" }));
    assert!(
        alone["error"].as_str().unwrap().contains("majority"),
        "{alone}"
    );
}
