//! Three engines on loopback, with echoing servers behind their segments.

mod support;

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use support::server::Habits;
use support::{Cluster, Options, wait};

fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
    let mut got = vec![0; bytes.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

/// Bytes that differ at every place, so that loss and repetition show.
fn pattern(len: usize) -> Vec<u8> {
    (0..len / 4)
        .flat_map(|n| (n as u32).wrapping_mul(0x9e37_79b1).to_le_bytes())
        .collect()
}

#[test]
fn every_replica_serves_clients_and_all_agree() {
    let cluster = Cluster::start(Options::new(3).disk());
    let mut clients: Vec<_> = cluster
        .ids()
        .iter()
        .map(|&id| cluster.connect(id))
        .collect();
    for round in 0..10 {
        for (n, client) in clients.iter_mut().enumerate() {
            echo(client, format!("hello {round} from {n}").as_bytes());
        }
    }
    cluster.wait_same();
    for id in cluster.ids() {
        wait("agreement", || {
            cluster.status(id)["agrees"] == Value::Bool(true)
        });
        assert_eq!(cluster.status(id)["server_connections"], 3);
        assert_eq!(cluster.status(id)["connections"], 1);
    }
}

#[test]
fn connections_through_followers_survive_the_leader() {
    let mut cluster = Cluster::start(Options::new(3));
    let leader = cluster.leader();
    let follower = cluster.follower();
    let client = cluster.connect(follower);
    let bytes = pattern(400_000);
    let sender = {
        let (mut client, bytes) = (client.try_clone().unwrap(), bytes.clone());
        std::thread::spawn(move || {
            for piece in bytes.chunks(500) {
                client.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_micros(500));
            }
        })
    };
    let mut reader = client;
    let mut got = vec![0; bytes.len()];
    let half = bytes.len() / 4;
    reader.read_exact(&mut got[..half]).unwrap();
    let killed = Instant::now();
    cluster.kill(leader);
    reader.read_exact(&mut got[half..]).unwrap();
    let whole = killed.elapsed();
    sender.join().unwrap();
    assert!(got == bytes, "the bytes are not the same");
    assert!(whole < Duration::from_secs(8), "{whole:?}");
    // Nothing comes twice afterwards either.
    echo(&mut reader, b"and on it goes");
    cluster.wait_same();
}

#[test]
fn servers_learn_that_a_gateway_is_down() {
    let mut cluster = Cluster::start(Options::new(3));
    let follower = cluster.follower();
    let leader = cluster.leader();
    let mut doomed = cluster.connect(follower);
    echo(&mut doomed, b"soon gone");
    let mut other = cluster.connect(leader);
    echo(&mut other, b"stays");
    cluster.wait_same();
    assert_eq!(cluster.status(leader)["server_connections"], 2);
    cluster.kill(follower);
    wait("the end of its connections", || {
        cluster.status(leader)["server_connections"] == 1
    });
    echo(&mut other, b"still here");
    // The replica comes back with a new incarnation and its own log.
    cluster.start_one(follower);
    cluster.wait_listening(follower);
    let mut again = cluster.connect(follower);
    echo(&mut again, b"back again");
    cluster.wait_same();
}

#[test]
fn a_quick_restart_ends_the_old_connections_too() {
    let mut cluster = Cluster::start(Options::new(3));
    let follower = cluster.follower();
    let mut doomed = cluster.connect(follower);
    echo(&mut doomed, b"soon gone");
    cluster.kill(follower);
    cluster.start_one(follower);
    cluster.wait_listening(follower);
    let leader = cluster.leader();
    wait("the end of its connections", || {
        cluster.status(leader)["server_connections"] == 0
    });
    cluster.wait_same();
}

#[test]
fn the_whole_cluster_comes_back_from_its_logs() {
    let mut cluster = Cluster::start(Options::new(3).disk());
    let mut client = cluster.connect(2);
    echo(&mut client, &pattern(300_000));
    let before = cluster.wait_same();
    for id in cluster.ids() {
        cluster.stop(id);
    }
    for id in cluster.ids() {
        cluster.start_one(id);
    }
    for id in cluster.ids() {
        cluster.wait_listening(id);
    }
    let after = cluster.wait_same();
    assert_eq!(before[2], after[2], "output differs after the replay");
    let mut client = cluster.connect(2);
    echo(&mut client, b"new life");
}

#[test]
fn a_log_longer_than_the_ring_is_replayed() {
    let habits = Habits {
        close_at_eof: true,
        ..Habits::default()
    };
    let mut cluster = Cluster::start(Options::new(1).habits(habits));
    let mut client = cluster.connect(1);
    let bytes = pattern(1 << 20);
    for _ in 0..48 {
        echo_large(&mut client, &bytes);
    }
    // Nothing about it may enter the log later.
    drop(client);
    wait("the client's end", || cluster.status(1)["connections"] == 0);
    let before = cluster.wait_same();
    cluster.stop(1);
    cluster.start_one(1);
    cluster.wait_listening(1);
    assert_eq!(before[2], cluster.wait_same()[2]);
}

/// As `echo`, for more than fits into the sockets' buffers.
fn echo_large(client: &mut TcpStream, bytes: &[u8]) {
    let mut reader = client.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut got = vec![0; bytes.len()];
            reader.read_exact(&mut got).unwrap();
            assert!(got == bytes, "the bytes are not the same");
        });
        client.write_all(bytes).unwrap();
    });
}

#[test]
fn a_client_that_does_not_read_is_held_back() {
    let cluster = Cluster::start(Options::new(3));
    let id = cluster.follower();
    let mut slow = cluster.connect(id);
    let bytes = pattern(32 << 20);
    let mut writer = slow.try_clone().unwrap();
    std::thread::scope(|scope| {
        let sender = {
            let bytes = &bytes;
            scope.spawn(move || writer.write_all(bytes).unwrap())
        };
        // It stops somewhere: then epochs stop too.
        let mut last = Value::Null;
        let mut since = Instant::now();
        wait("a standstill", || {
            let epoch = cluster.status(id)["epoch"].clone();
            if epoch != last {
                last = epoch;
                since = Instant::now();
            }
            since.elapsed() > Duration::from_millis(400)
        });
        assert!(!sender.is_finished(), "nothing held the client back");
        // Others are served meanwhile.
        let mut other = cluster.connect(id);
        echo(&mut other, b"not held back");
        let mut got = vec![0; bytes.len()];
        slow.read_exact(&mut got).unwrap();
        assert!(got == bytes, "the bytes are not the same");
    });
    cluster.wait_same();
}

#[test]
fn ends_and_resets_reach_the_server() {
    let habits = Habits {
        close_at_eof: true,
        ..Habits::default()
    };
    let cluster = Cluster::start(Options::new(3).habits(habits));
    let id = cluster.follower();
    let mut client = cluster.connect(id);
    client.write_all(b"last words").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "last words");
    // A client that goes without reading its answer resets the connection.
    let mut rude = cluster.connect(id);
    echo(&mut rude, b"hello");
    rude.write_all(b"unread").unwrap();
    rude.peek(&mut [0]).unwrap();
    drop(rude);
    wait("no connections", || {
        let status = cluster.status(id);
        status["connections"] == 0 && status["server_connections"] == 0
    });
}

#[test]
fn servers_get_budget_and_time_and_idle_ones_cost_nothing() {
    let habits = Habits {
        hungry: 5,
        sleep: 50_000_000,
        ..Habits::default()
    };
    let cluster = Cluster::start(Options::new(3).habits(habits));
    let leader = cluster.leader();
    let before = cluster.status(leader)["bubbles_proposed"].as_u64().unwrap();
    let mut client = cluster.connect(leader);
    echo(&mut client, b"work and sleep");
    // Five epochs of budget after the one with data, and one when it wakes.
    wait("bubbles", || {
        let status = cluster.status(leader);
        status["bubbles_proposed"].as_u64().unwrap() >= before + 6
            && status["deadline_ns"].is_null()
            && status["state"] == "quiescent"
    });
    let quiet = cluster.status(leader)["last_index"].clone();
    std::thread::sleep(Duration::from_millis(300));
    let status = cluster.status(leader);
    assert_eq!(status["last_index"], quiet);
    assert_eq!(status["bubbles_proposed"], before + 6);
}

#[test]
fn a_wrong_replica_is_found_with_its_first_wrong_epoch() {
    let mut options = Options::new(3);
    options.habits.insert(
        3,
        Habits {
            wrong: true,
            ..Habits::default()
        },
    );
    let cluster = Cluster::start(options);
    let mut client = cluster.connect(cluster.leader());
    let first = cluster.status(1)["epoch"].as_u64().unwrap();
    for _ in 0..20 {
        echo(&mut client, b"what do you make of this?");
    }
    let mut epochs = Vec::new();
    for id in cluster.ids() {
        wait("the disagreement", || {
            let found = &cluster.status(id)["disagreement"];
            found["peer"] == 3 || (id == 3 && !found.is_null())
        });
    }
    wait("its first epoch", || {
        epochs = cluster
            .ids()
            .iter()
            .map(|&id| {
                cluster.status(id)["disagreement"]["epoch"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        epochs.iter().all(|&e| e == epochs[0])
    });
    assert!(
        epochs[0] > first && epochs[0] < first + 5,
        "{epochs:?} {first}"
    );
    let told = cluster.events(1);
    assert!(told.iter().any(|e| e["kind"] == "disagreement"));
}

#[test]
fn strangers_are_refused_with_a_warning() {
    // Plain: the greeting alone has to tell.
    let mut options = Options::new(3);
    options.tls = false;
    let cluster = Cluster::start(options.clone());
    let mut stranger = Cluster::prepare(options);
    let mut config = stranger.config(3);
    for (id, port) in [("1", cluster.peer_port(1)), ("2", cluster.peer_port(2))] {
        config["peers"][id] = format!("127.0.0.1:{port}").into();
    }
    stranger.cluster_id = "f".repeat(32);
    config["cluster_id"] = stranger.cluster_id.clone().into();
    let engine = crane_engine::Engine::open(&config.to_string()).unwrap();
    engine.start().unwrap();
    wait("a warning", || {
        let events = cluster.events(1);
        let text = |e: &Value| {
            e["message"]
                .as_str()
                .unwrap_or("")
                .contains("another cluster")
        };
        events.iter().any(|e| e["kind"] == "warning" && text(e))
    });
    engine.stop();
    let mut client = cluster.connect(1);
    echo(&mut client, b"undisturbed");
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let mut cluster = Cluster::prepare(Options::new(1));
    let taken = TcpListener::bind(("127.0.0.1", cluster.client_port(1))).unwrap();
    cluster.start_one(1);
    wait("the error", || !cluster.status(1)["fatal"].is_null());
    let fatal = cluster.status(1)["fatal"].as_str().unwrap().to_owned();
    assert!(
        fatal.contains(&taken.local_addr().unwrap().to_string()),
        "{fatal}"
    );
    assert!(fatal.contains("port_map"), "{fatal}");
    let kinds: Vec<_> = cluster
        .events(1)
        .iter()
        .map(|e| e["kind"].clone())
        .collect();
    assert!(kinds.contains(&"fatal".into()), "{kinds:?}");
}

#[test]
fn a_log_in_use_is_refused() {
    let cluster = Cluster::start(Options::new(1));
    let second = crane_engine::Engine::open(&cluster.config(1).to_string());
    assert!(second.err().unwrap().to_string().contains("locked"));
}

#[test]
fn a_recording_is_replayed_to_the_same_hashes() {
    use crane_engine::{Replay, Replayer, dump_log};
    let mut cluster = Cluster::start(Options::new(3));
    let id = cluster.leader();
    let mut client = cluster.connect(id);
    for n in 0..50 {
        echo(&mut client, format!("number {n}").as_bytes());
    }
    let live = cluster.wait_same();
    cluster.stop(id);
    let recording = cluster.segment("recording");
    let epochs = dump_log(&cluster.log_dir(id), &recording).unwrap();
    let mut hashes = Vec::new();
    for (n, source) in [recording, cluster.log_dir(id)].into_iter().enumerate() {
        let replay = Replay {
            preempt: true,
            segment: cluster.segment("replay"),
            source,
            quantum: 100,
            trace: false,
            objects: false,
            hashes: Some(cluster.segment(&format!("hashes-{n}"))),
            park_after: None,
            witness: None,
        };
        let replayer = Replayer::start(&replay).unwrap();
        let _server = support::server::Server::start(&replay.segment, Habits::default());
        let result = replayer.wait(support::PATIENCE).unwrap().unwrap();
        let result: Value = serde_json::from_str(&result).unwrap();
        assert_eq!(result["epochs"], epochs);
        assert_eq!(result["output_hash"], live[2]);
        assert_eq!(result["schedule_hash"], live[3]);
        hashes.push(std::fs::read_to_string(replay.hashes.unwrap()).unwrap());
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_eq!(hashes[0].lines().count() as u64, epochs);
}
