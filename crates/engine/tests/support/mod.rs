//! Clusters of engines in one process, with servers that play the interposer.
#![allow(dead_code, reason = "every test and example uses its own part")]

pub mod certificates;
pub mod server;

use certificates::Authority;
use crane_engine::Engine;
use serde_json::{Value, json};
use server::{Habits, PORT, Server};
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of a cluster.
#[derive(Clone)]
pub struct Options {
    pub replicas: u8,
    pub durability: &'static str,
    /// Whether the replicas' connections are encrypted.
    pub tls: bool,
    pub habits: BTreeMap<u8, Habits>,
    pub vote: bool,
}

impl Options {
    pub fn new(replicas: u8) -> Self {
        Self {
            replicas,
            durability: "memory",
            tls: true,
            habits: BTreeMap::new(),
            vote: false,
        }
    }

    pub fn disk(self) -> Self {
        Self {
            durability: "disk",
            ..self
        }
    }

    pub fn habits(mut self, habits: Habits) -> Self {
        for id in 1..=self.replicas {
            self.habits.insert(id, habits);
        }
        self
    }
}

struct Replica {
    server: Option<Server>,
    engine: Option<Engine>,
    peer_port: u16,
    client_port: u16,
}

/// A cluster whose replicas can be killed and started again.
pub struct Cluster {
    dir: PathBuf,
    shm: PathBuf,
    pub options: Options,
    pub authority: Authority,
    /// Ports through which a replica reaches another: who, whom, port.
    pub detours: Vec<(u8, u8, u16)>,
    replicas: BTreeMap<u8, Replica>,
    pub cluster_id: String,
}

/// Ports that nothing uses now, below those that the system gives to clients:
/// one of these could be taken while a replica is being restarted.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    let candidate = || {
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        (12_000 + begin.wrapping_add(number) % 20_000) as u16
    };
    std::iter::repeat_with(candidate)
        .filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .take(count)
        .collect()
}

impl Cluster {
    /// A cluster that is not started.
    pub fn prepare(options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("crane-engine-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(&name);
        let shm = PathBuf::from("/dev/shm");
        let shm = if shm.is_dir() {
            shm.join(&name)
        } else {
            dir.clone()
        };
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(&shm).unwrap();
        let ports = free_ports(2 * usize::from(options.replicas));
        let replicas = (1..=options.replicas)
            .map(|id| {
                let at = 2 * usize::from(id - 1);
                let replica = Replica {
                    server: None,
                    engine: None,
                    peer_port: ports[at],
                    client_port: ports[at + 1],
                };
                (id, replica)
            })
            .collect();
        Self {
            dir,
            shm,
            options,
            authority: Authority::new(),
            detours: Vec::new(),
            replicas,
            cluster_id: format!(
                "{:032x}",
                u128::from(std::process::id()) << 32 | u128::from(number)
            ),
        }
    }

    /// A cluster of which every replica takes clients.
    pub fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options);
        for id in cluster.ids() {
            cluster.start_one(id);
        }
        for id in cluster.ids() {
            cluster.wait_listening(id);
        }
        cluster
    }

    pub fn ids(&self) -> Vec<u8> {
        self.replicas.keys().copied().collect()
    }

    pub fn log_dir(&self, id: u8) -> PathBuf {
        self.dir.join(format!("log-{id}"))
    }

    pub fn segment(&self, name: &str) -> PathBuf {
        self.shm.join(format!("seg-{name}"))
    }

    pub fn client_port(&self, id: u8) -> u16 {
        self.replicas[&id].client_port
    }

    pub fn peer_port(&self, id: u8) -> u16 {
        self.replicas[&id].peer_port
    }

    pub fn config(&self, id: u8) -> Value {
        // One that is added knows one that takes part, and itself.
        let joins = id > self.options.replicas;
        let seed = self.running().next();
        let known = |other: u8| match joins {
            true => Some(other) == seed || other == id,
            false => other <= self.options.replicas,
        };
        let mut peers: BTreeMap<String, String> = self
            .replicas
            .iter()
            .filter(|(other, _)| known(**other))
            .map(|(id, r)| (id.to_string(), format!("127.0.0.1:{}", r.peer_port)))
            .collect();
        for (_, whom, port) in self.detours.iter().filter(|(who, ..)| *who == id) {
            peers.insert(whom.to_string(), format!("127.0.0.1:{port}"));
        }
        std::fs::create_dir_all(self.log_dir(id)).unwrap();
        let tls = self.dir.join(format!("tls-{id}"));
        let tls = match self.options.tls {
            true => self.authority.write(&tls, &self.cluster_id, id, 100),
            false => Value::Null,
        };
        json!({
            "tls": tls,
            "cluster_id": self.cluster_id,
            "name": "test",
            "id": id,
            "peers": peers,
            "join": joins,
            "listen_host": "127.0.0.1",
            "port_map": { PORT.to_string(): self.client_port(id) },
            "log_dir": self.log_dir(id),
            "segment": self.segment(&id.to_string()),
            "durability": self.options.durability,
            "vote": self.options.vote,
        })
    }

    /// Makes room for a replica that is added later.
    pub fn prepare_one(&mut self, id: u8) {
        let ports = free_ports(2);
        let replica = Replica {
            server: None,
            engine: None,
            peer_port: ports[0],
            client_port: ports[1],
        };
        self.replicas.insert(id, replica);
    }

    /// What a replica says when its leader is asked.
    pub fn ask(&self, id: u8, question: &Value) -> Value {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = u64::from(NUMBER.fetch_add(1, Ordering::SeqCst));
        self.engine(id).ask(number, &question.to_string());
        let mut answer = Value::Null;
        wait("an answer", || {
            let events = self.events(id);
            let found = events
                .iter()
                .find(|e| e["kind"] == "answer" && e["number"] == number);
            if let Some(found) = found {
                answer = serde_json::from_str(found["answer"].as_str().unwrap()).unwrap();
            }
            found.is_some()
        });
        answer
    }

    /// Asks until the leader does it.
    pub fn change(&self, id: u8, question: &Value) {
        wait("a change", || {
            let answer = self.ask(id, question);
            let again = answer["again"] == true
                || answer["error"]
                    .as_str()
                    .is_some_and(|e| e.contains("try again"));
            assert!(
                again || answer.get("error").is_none(),
                "{question}: {answer}"
            );
            !again
        });
    }

    /// Starts a replica and its server.
    pub fn start_one(&mut self, id: u8) {
        let engine = Engine::open(&self.config(id).to_string()).unwrap();
        engine.start().unwrap();
        let habits = self.options.habits.get(&id).copied().unwrap_or_default();
        let server = Server::start(&self.segment(&id.to_string()), habits);
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.engine = Some(engine);
        replica.server = Some(server);
    }

    /// Kills a replica without any farewell.
    pub fn kill(&mut self, id: u8) {
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.engine.take().unwrap().kill();
        replica.server = None;
    }

    /// Stops a replica in order.
    pub fn stop(&mut self, id: u8) {
        let replica = self.replicas.get_mut(&id).unwrap();
        replica.engine.take().unwrap().stop();
        replica.server = None;
    }

    pub fn engine(&self, id: u8) -> &Engine {
        self.replicas[&id].engine.as_ref().unwrap()
    }

    pub fn status(&self, id: u8) -> Value {
        serde_json::from_str(&self.engine(id).status()).unwrap()
    }

    /// All events so far that were not fetched.
    pub fn events(&self, id: u8) -> Vec<Value> {
        std::iter::from_fn(|| self.engine(id).next_event())
            .map(|text| serde_json::from_str(&text).unwrap())
            .collect()
    }

    fn running(&self) -> impl Iterator<Item = u8> + '_ {
        let running = |(&id, r): (&u8, &Replica)| r.engine.is_some().then_some(id);
        self.replicas.iter().filter_map(running)
    }

    pub fn wait_listening(&self, id: u8) {
        wait("a listening replica", || {
            let status = self.status(id);
            assert_eq!(status["fatal"], Value::Null);
            !status["listening"].as_array().unwrap().is_empty()
        });
    }

    /// The leader that all running replicas follow.
    pub fn leader(&self) -> u8 {
        let mut leader = 0;
        wait("a leader", || {
            let said: Vec<_> = self
                .running()
                .map(|id| self.status(id)["leader"].clone())
                .collect();
            leader = said[0].as_u64().unwrap_or(0) as u8;
            let up = leader != 0 && self.replicas[&leader].engine.is_some();
            up && said.iter().all(|l| *l == said[0]) && self.status(leader)["role"] == "leader"
        });
        leader
    }

    /// A replica that is not the leader.
    pub fn follower(&self) -> u8 {
        let leader = self.leader();
        self.running().find(|&id| id != leader).unwrap()
    }

    /// A client of replica `id`.
    pub fn connect(&self, id: u8) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.client_port(id))).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Waits until all running replicas have done the whole log, to the same
    /// result: epoch, clock, output hash and schedule hash.
    pub fn wait_same(&self) -> Value {
        let mut last = Value::Null;
        wait("equal replicas", || {
            let of = |id| {
                let s = self.status(id);
                json!([s["epoch"], s["clock"], s["output_hash"], s["schedule_hash"]])
            };
            let done = |id| {
                let s = self.status(id);
                s["applied"] == s["last_index"] && s["epoch"] == s["published"]
            };
            let all: Vec<_> = self.running().map(of).collect();
            last = all[0].clone();
            all.iter().all(|s| *s == last) && self.running().all(done)
        });
        last
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Engines first: a server may wait for room in the output ring.
        for replica in self.replicas.values_mut() {
            replica.server = None;
            replica.engine = None;
        }
        let _ = std::fs::remove_dir_all(&self.dir);
        let _ = std::fs::remove_dir_all(&self.shm);
    }
}

/// Waits until `ready`, looking often.
pub fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
