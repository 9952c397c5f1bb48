//! Replicas whose programs come to different results: who is right, and what the
//! clients of the others see.

mod support;

use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::server::Habits;
use support::{Cluster, Options, wait};

fn options(vote: bool) -> Options {
    let options = Options::new(3).habits(Habits {
        obeys: true,
        ..Habits::default()
    });
    Options { vote, ..options }
}

/// What a client gets for what it sends; `None`: its connection ended instead.
fn ask(client: &mut TcpStream, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut answer = vec![0; bytes.len()];
    client.write_all(bytes).ok()?;
    match client.read_exact(&mut answer) {
        Ok(()) => Some(answer),
        Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("no answer"),
        Err(_) => None,
    }
}

fn is_right(client: &mut TcpStream) {
    assert_eq!(ask(client, b"right?").as_deref(), Some(&b"right?"[..]));
}

fn event(cluster: &Cluster, id: u8, kind: &str) -> Value {
    let mut found = Value::Null;
    wait(kind, || {
        let mut events = cluster.events(id);
        if let Some(at) = events.iter().position(|e| e["kind"] == kind) {
            found = events.swap_remove(at);
        }
        !found.is_null()
    });
    found
}

fn others(wrong: u8) -> Vec<u8> {
    (1..=3).filter(|&id| id != wrong).collect()
}

/// `wrong` lies: it is found with all details, and the others serve on.
fn the_liar_is_found(cluster: &Cluster, wrong: u8, what: &str) {
    let right = others(wrong);
    let mut clients: Vec<TcpStream> = right.iter().map(|&id| cluster.connect(id)).collect();
    let mut deceived = cluster.connect(wrong);
    is_right(&mut deceived);
    clients.iter_mut().for_each(is_right);
    let last = cluster.wait_same()[0].as_u64().unwrap();
    let begin = Instant::now();
    let said = format!("{what} {wrong}");
    assert_eq!(
        ask(&mut clients[0], said.as_bytes()).unwrap(),
        said.as_bytes()
    );
    let told = event(cluster, wrong, "diverged");
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(told["others"], json!(right));
    assert_eq!(told["exact"], true);
    let epoch = told["epoch"].as_u64().unwrap();
    assert!(epoch > last && epoch < last + 4, "{epoch} {last}");
    let first = &told["first"];
    if what == "lie" {
        assert_eq!(
            (&first["what"], &told["output"]),
            (&json!("output"), &json!(true))
        );
        let own = format!("{}.", right[0]);
        assert!(first["connection"].as_str().unwrap().starts_with(&own));
    } else {
        assert_eq!(first["what"], "operation");
        assert_eq!(
            (&first["ours"]["operation"], &first["theirs"]["operation"]),
            (&json!(8), &json!(2))
        );
    }
    assert_eq!(first["ours"]["thread"], 1);
    for &id in &right {
        let seen = event(cluster, id, "other_diverged");
        assert_eq!(
            (&seen["others"], &seen["epoch"]),
            (&json!([wrong]), &told["epoch"])
        );
        assert_eq!(seen["first"]["clock"], first["clock"]);
    }
    // Nobody gets another answer of it, and nobody comes in.
    let mut rest = Vec::new();
    let _ = deceived.read_to_end(&mut rest);
    assert_eq!(ask(&mut deceived, b"are you there?"), None);
    wait("closed ports", || {
        cluster.status(wrong)["listening"] == json!([])
    });
    wait("another leader", || {
        cluster.status(wrong)["role"] != "leader"
    });
    for client in &mut clients {
        is_right(client);
    }
    for id in right {
        let status = cluster.status(id);
        assert_eq!(
            (&status["agrees"], &status["suspended"]),
            (&json!(true), &Value::Null)
        );
    }
    assert_eq!(cluster.status(wrong)["agrees"], false);
}

#[test]
fn a_follower_with_other_answers_is_outvoted() {
    let cluster = Cluster::start(options(false));
    the_liar_is_found(&cluster, cluster.follower(), "lie");
}

#[test]
fn a_leader_with_another_schedule_hands_over() {
    let cluster = Cluster::start(options(false));
    the_liar_is_found(&cluster, cluster.leader(), "stray");
}

#[test]
fn without_a_majority_nobody_serves() {
    let cluster = Cluster::start(options(false));
    let mut client = cluster.connect(1);
    is_right(&mut client);
    let _ = ask(&mut client, b"lie 12");
    for id in cluster.ids() {
        let told = event(&cluster, id, "undecided");
        assert_eq!(told["exact"], true);
        wait("closed ports", || {
            cluster.status(id)["listening"] == json!([])
        });
        assert!(
            cluster.status(id)["suspended"]
                .as_str()
                .unwrap()
                .contains("majority")
        );
    }
}

#[test]
fn two_that_differ_wait_for_the_third() {
    let mut cluster = Cluster::start(options(false));
    let third = cluster.follower();
    let pair = others(third);
    cluster.kill(third);
    let leader = cluster.leader();
    let wrong = pair.iter().copied().find(|&id| id != leader).unwrap();
    let mut client = cluster.connect(leader);
    is_right(&mut client);
    let _ = ask(&mut client, format!("lie {wrong}").as_bytes());
    for &id in &pair {
        event(&cluster, id, "undecided");
        wait("closed ports", || {
            cluster.status(id)["listening"] == json!([])
        });
    }
    cluster.start_one(third);
    event(&cluster, wrong, "diverged");
    cluster.wait_listening(leader);
    cluster.wait_listening(third);
    is_right(&mut cluster.connect(leader));
    is_right(&mut cluster.connect(third));
    assert_eq!(cluster.status(wrong)["listening"], json!([]));
}

#[test]
fn with_votes_every_answer_is_right() {
    let cluster = Cluster::start(options(true));
    let wrong = cluster.leader();
    let mut clients: Vec<TcpStream> = cluster
        .ids()
        .iter()
        .map(|&id| cluster.connect(id))
        .collect();
    for _ in 0..50 {
        clients.iter_mut().for_each(is_right);
    }
    let large = vec![b'x'; 3 << 20];
    let mut writer = clients[0].try_clone().unwrap();
    let sent = large.clone();
    let writing = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut answer = vec![0; large.len()];
    clients[0].read_exact(&mut answer).unwrap();
    writing.join().unwrap();
    assert!(answer == large);
    // Its own client gets no wrong answer either.
    let said = format!("lie {wrong}");
    let at = usize::from(wrong - 1);
    assert_eq!(ask(&mut clients[at], said.as_bytes()), None);
    event(&cluster, wrong, "diverged");
    for id in others(wrong) {
        is_right(&mut clients[usize::from(id - 1)]);
    }
}
