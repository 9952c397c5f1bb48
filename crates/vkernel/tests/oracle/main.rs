//! The real kernel as oracle: the same random operations on real descriptors
//! and on virtual ones must give the same results, errors and readiness.

mod calls;
mod pair;
#[path = "../support/mod.rs"]
mod support;

use crane_vkernel::{DescId, Dir};
use pair::{Class, Pair};

impl Pair {
    fn step(&mut self, classes: &[Class]) {
        if self.fds.len() < 4 || (self.fds.len() < 30 && self.random.below(30) == 0) {
            self.create(classes);
            return;
        }
        let index = self.random.below(self.fds.len());
        let at = self.fds[index];
        match self.random.below(20) {
            0..=3 => self.read(at),
            4..=7 => self.write(at),
            8 | 9 => self.poll(at),
            10 => self.close(index),
            11 | 12 => self.epoll_ctl(at),
            13 | 14 => self.epoll_wait(),
            15 => self.shutdown(at),
            16 => self.peek(at),
            17 => self.sock_error(at),
            18 => {
                self.available(at);
                self.set_capacity(at);
            }
            _ => {
                if self.random.below(4) == 0 {
                    self.dup(at);
                }
            }
        }
    }

    /// Closes everything and demands that nothing is left.
    fn finish(mut self) -> usize {
        for at in std::mem::take(&mut self.fds) {
            // SAFETY: the descriptor is ours and used no more.
            unsafe { libc::close(at.fd) };
            self.world.fd_close(&mut self.host, 0, at.fd).unwrap();
        }
        let counters = self.world.counters();
        assert_eq!(
            (counters.descs, counters.chunks, counters.watches),
            (0, 0, 0)
        );
        assert_eq!(self.world.fd_count(0), 0);
        self.ops
    }
}

/// Numbers of descriptors are shared by the whole test program.
static REAL_DESCRIPTORS: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn run(classes: &[Class], edges: bool, seeds: u64, steps: usize) {
    let _alone = REAL_DESCRIPTORS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // SAFETY: ignoring a signal touches no memory.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // More seeds for a long search: CRANE_ORACLE_SEEDS=1000.
    let seeds = std::env::var("CRANE_ORACLE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(seeds);
    let (mut ops, mut overtaken) = (0, 0);
    for seed in 1..=seeds {
        eprintln!("seed {seed}");
        let mut pair = Pair::new(seed, edges);
        for _ in 0..steps {
            if pair.overtaken {
                overtaken += 1;
                break;
            }
            pair.step(classes);
        }
        ops += pair.finish();
    }
    assert!(overtaken <= seeds / 4, "{overtaken} runs ended early");
    println!("{ops} operations agreed with Linux");
}

#[test]
fn pipes_behave_as_linux() {
    run(&[Class::PipeRead], false, 25, 2000);
}

#[test]
fn eventfds_behave_as_linux() {
    run(&[Class::Event], false, 30, 1000);
}

#[test]
fn unix_stream_pairs_behave_as_linux() {
    run(&[Class::Unix], false, 25, 1500);
}

#[test]
fn unix_packet_pairs_behave_as_linux() {
    run(&[Class::Packet], false, 25, 1500);
}

#[test]
fn tcp_connections_in_the_group_behave_as_linux_on_loopback() {
    run(&[Class::Tcp], false, 25, 1500);
}

#[test]
fn level_triggered_epoll_behaves_as_linux() {
    let classes = [
        Class::PipeRead,
        Class::Unix,
        Class::Packet,
        Class::Tcp,
        Class::Event,
        Class::Epoll,
        Class::Epoll,
    ];
    run(&classes, false, 25, 2500);
}

#[test]
fn edge_triggered_epoll_behaves_as_linux() {
    let classes = [
        Class::PipeRead,
        Class::Unix,
        Class::Event,
        Class::Epoll,
        Class::Epoll,
    ];
    run(&classes, true, 25, 2500);
}

#[test]
fn wait_keys_of_directions_and_descriptions_differ() {
    let (a, b) = (DescId::from_raw(1), DescId::from_raw(2));
    let keys = [
        crane_vkernel::wait_key(a, Dir::Read),
        crane_vkernel::wait_key(a, Dir::Write),
        crane_vkernel::wait_key(b, Dir::Read),
    ];
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}
