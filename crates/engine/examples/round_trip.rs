//! Measures the round trip of a request through three engines on this machine:
//! `cargo run --release -p crane-engine --example round_trip [seconds]`.
//!
//! The servers echo from memory, so what is measured is the way of the bytes:
//! client, gateway, log (with its disk), ring, server, ring, client.

#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::{Cluster, Options};

const REQUEST: usize = 64;

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok());
    let time = Duration::from_secs_f64(seconds.unwrap_or(3.0));
    println!("durability  clients at  connections  requests/s     p50 us     p99 us");
    for durability in ["memory", "disk"] {
        let mut options = Options::new(3);
        options.durability = durability;
        let cluster = Cluster::start(options);
        let leader = cluster.leader();
        for (place, id) in [("leader", leader), ("follower", cluster.follower())] {
            for connections in [1, 50] {
                let mut clients: Vec<_> = (0..connections).map(|_| cluster.connect(id)).collect();
                run(&mut clients, Duration::from_millis(300));
                let before = epochs(&cluster, leader);
                let mut times = run(&mut clients, time);
                let epochs = epochs(&cluster, leader) - before;
                times.sort_unstable();
                let at = |share: f64| {
                    let nth = ((times.len() - 1) as f64 * share) as usize;
                    times[nth].as_secs_f64() * 1e6
                };
                println!(
                    "{durability:10}  {place:10}  {connections:11}  {:10.0}  {:9.0}  {:9.0}   {:.1} requests/epoch",
                    times.len() as f64 / time.as_secs_f64(),
                    at(0.5),
                    at(0.99),
                    times.len() as f64 / epochs.max(1) as f64,
                );
            }
        }
    }
    // The same exchange without replication.
    for connections in [1, 50] {
        let mut clients: Vec<_> = (0..connections).map(|_| plain_echo()).collect();
        let mut times = run(&mut clients, time);
        times.sort_unstable();
        println!(
            "none        threads     {connections:11}  {:10.0}  {:9.0}",
            times.len() as f64 / time.as_secs_f64(),
            times[times.len() / 2].as_secs_f64() * 1e6
        );
    }
}

fn epochs(cluster: &Cluster, leader: u8) -> u64 {
    cluster.status(leader)["epochs_proposed"].as_u64().unwrap()
}

fn plain_echo() -> TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_nodelay(true).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; REQUEST];
        while server.read_exact(&mut buffer).is_ok() && server.write_all(&buffer).is_ok() {}
    });
    client
}

/// One thread drives all connections, so that the clients cost little beside
/// what is measured: it answers each reply with the next request.
fn run(clients: &mut [TcpStream], time: Duration) -> Vec<Duration> {
    use mio::{Events, Interest, Poll, Token};
    use std::os::fd::AsRawFd;
    let mut poll = Poll::new().unwrap();
    let mut sent = vec![Instant::now(); clients.len()];
    let mut buffer = [0; REQUEST];
    for (n, client) in clients.iter_mut().enumerate() {
        let fd = client.as_raw_fd();
        poll.registry()
            .register(&mut mio::unix::SourceFd(&fd), Token(n), Interest::READABLE)
            .unwrap();
        sent[n] = Instant::now();
        client.write_all(&[n as u8; REQUEST]).unwrap();
    }
    let mut times = Vec::new();
    let end = Instant::now() + time;
    let mut events = Events::with_capacity(64);
    let mut open = clients.len();
    while open > 0 {
        poll.poll(&mut events, Some(Duration::from_secs(20)))
            .unwrap();
        assert!(!events.is_empty(), "no reply for 20 s");
        for event in &events {
            let Token(n) = event.token();
            clients[n].read_exact(&mut buffer).unwrap();
            assert_eq!(buffer, [n as u8; REQUEST]);
            times.push(sent[n].elapsed());
            sent[n] = Instant::now();
            if sent[n] < end {
                clients[n].write_all(&buffer).unwrap();
            } else {
                open -= 1;
            }
        }
    }
    times
}
