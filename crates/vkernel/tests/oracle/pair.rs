//! A virtual kernel beside the real one, with the same objects in both.

use std::os::fd::{IntoRawFd, RawFd};

use crane_vkernel::{DescId, Errno, SockOption};

use crate::support::{Random, Recorder, World, v4};

/// Result of a call: a value or a negative error number.
pub type Outcome = i64;

pub fn real(result: i64) -> Outcome {
    if result >= 0 {
        return result;
    }
    -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap())
}

pub fn virt<T>(result: Result<T, Errno>, value: impl FnOnce(T) -> i64) -> Outcome {
    match result {
        Ok(inner) => value(inner),
        Err(error) => -i64::from(error.0),
    }
}

/// A short stand-in for a buffer's content.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    PipeRead,
    PipeWrite,
    Unix,
    Packet,
    Tcp,
    Event,
    Epoll,
}

#[derive(Clone, Copy, Debug)]
pub struct Fd {
    pub fd: RawFd,
    pub class: Class,
}

pub struct Pair {
    pub world: World,
    pub host: Recorder,
    pub random: Random,
    pub fds: Vec<Fd>,
    pub trace: Vec<String>,
    pub byte: u8,
    /// Edge-triggered watches wanted.
    pub edges: bool,
    pub ops: usize,
    /// Linux reported the same objects in another order: loopback TCP delivers on
    /// a processor and at a moment of its own, so its wake-ups may overtake
    /// others. From there on the two ready lists differ.
    pub overtaken: bool,
}

impl Pair {
    pub fn new(seed: u64, edges: bool) -> Pair {
        Pair {
            world: World::new(),
            host: Recorder::default(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            fds: Vec::new(),
            trace: Vec::new(),
            byte: 0,
            edges,
            ops: 0,
            overtaken: false,
        }
    }

    pub fn desc(&self, fd: RawFd) -> DescId {
        self.world.fd_get(0, fd).unwrap()
    }

    pub fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: String, real: T, virt: T) {
        self.ops += 1;
        self.trace.push(format!("{what} -> {real:?}"));
        if real != virt {
            let tail = self.trace.len().saturating_sub(4000);
            for line in &self.trace[tail..] {
                eprintln!("{line}");
            }
            panic!("{what}: Linux gave {real:?}, the virtual kernel {virt:?}");
        }
    }

    pub fn add(&mut self, fd: RawFd, class: Class, desc: DescId) {
        assert!(fd >= 0);
        self.world
            .fd_install(&mut self.host, 0, fd, desc, false)
            .unwrap();
        self.fds.push(Fd { fd, class });
        self.trace.push(format!("create {class:?} as {fd}"));
    }

    pub fn create(&mut self, classes: &[Class]) {
        let mut pair = [0; 2];
        match self.random.pick(classes) {
            Class::PipeRead | Class::PipeWrite => {
                // SAFETY: `pair` has room for two descriptors.
                let made = unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_NONBLOCK) };
                assert_eq!(made, 0);
                let (reader, writer) = self.world.pipe(libc::O_NONBLOCK as u32).unwrap();
                self.add(pair[0], Class::PipeRead, reader);
                self.add(pair[1], Class::PipeWrite, writer);
            }
            class @ (Class::Unix | Class::Packet) => {
                let kind = match class {
                    Class::Unix => libc::SOCK_STREAM,
                    _ => self.random.pick(&[libc::SOCK_SEQPACKET, libc::SOCK_DGRAM]),
                };
                let flags = kind | libc::SOCK_NONBLOCK;
                // SAFETY: as above.
                let made = unsafe { libc::socketpair(libc::AF_UNIX, flags, 0, pair.as_mut_ptr()) };
                assert_eq!(made, 0);
                let (a, b) = self
                    .world
                    .socketpair(libc::AF_UNIX, flags, 0, libc::O_NONBLOCK as u32)
                    .unwrap();
                self.add(pair[0], class, a);
                self.add(pair[1], class, b);
            }
            Class::Tcp => self.create_tcp(),
            Class::Event => {
                let semaphore = self.random.below(2) == 0;
                let initial = self.random.below(3) as u32;
                let flags = libc::EFD_NONBLOCK | if semaphore { libc::EFD_SEMAPHORE } else { 0 };
                // SAFETY: no pointers are passed.
                let fd = unsafe { libc::eventfd(initial, flags) };
                let desc = self
                    .world
                    .eventfd(initial, semaphore, libc::O_NONBLOCK as u32)
                    .unwrap();
                self.add(fd, Class::Event, desc);
            }
            // Linux limits the number of paths through nested instances (to 10
            // of the longest), which the virtual kernel does not: have few.
            Class::Epoll if self.count(Class::Epoll) > 4 => {}
            Class::Epoll => {
                // SAFETY: no pointers are passed.
                let fd = unsafe { libc::epoll_create1(0) };
                let desc = self.world.epoll_create().unwrap();
                self.add(fd, Class::Epoll, desc);
            }
        }
    }

    pub fn create_tcp(&mut self) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            // Without this Nagle's algorithm would make arrival times depend
            // on delayed acknowledgements.
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
        }
        let (world, host) = (&mut self.world, &mut self.host);
        let flags = libc::O_NONBLOCK as u32;
        let listen = world
            .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
            .unwrap();
        world.set_option(listen, SockOption::ReuseAddr, 1).unwrap();
        world.bind(listen, &v4([127, 0, 0, 1], 7000)).unwrap();
        world.listen(host, listen, 5).unwrap();
        let a = world
            .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
            .unwrap();
        world.connect(host, a, &v4([127, 0, 0, 1], 7000)).unwrap();
        world.set_flags(a, flags).unwrap();
        let b = world.accept(host, listen, flags).unwrap();
        world.desc_release(host, listen).unwrap();
        self.add(client.into_raw_fd(), Class::Tcp, a);
        self.add(server.into_raw_fd(), Class::Tcp, b);
    }
}
