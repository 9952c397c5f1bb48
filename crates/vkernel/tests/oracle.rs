//! The real kernel as oracle: the same random operations on real descriptors
//! and on virtual ones must give the same results, errors and readiness.

mod support;

use std::os::fd::RawFd;

use crane_vkernel::{DescId, Dir, EpollEvent, Errno, Scatter, SockOption};
use support::{Random, Recorder, World, v4};

/// Result of a call: a value or a negative error number.
type Outcome = i64;

fn real(result: i64) -> Outcome {
    if result >= 0 {
        return result;
    }
    -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap())
}

fn virt<T>(result: Result<T, Errno>, value: impl FnOnce(T) -> i64) -> Outcome {
    match result {
        Ok(inner) => value(inner),
        Err(error) => -i64::from(error.0),
    }
}

/// A short stand-in for a buffer's content.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(*byte))
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    PipeRead,
    PipeWrite,
    Unix,
    Packet,
    Tcp,
    Event,
    Epoll,
}

#[derive(Clone, Copy, Debug)]
struct Fd {
    fd: RawFd,
    class: Class,
}

struct Pair {
    world: World,
    host: Recorder,
    random: Random,
    fds: Vec<Fd>,
    trace: Vec<String>,
    byte: u8,
    /// Edge-triggered watches wanted.
    edges: bool,
    ops: usize,
}

impl Pair {
    fn new(seed: u64, edges: bool) -> Pair {
        Pair {
            world: World::new(),
            host: Recorder::default(),
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            fds: Vec::new(),
            trace: Vec::new(),
            byte: 0,
            edges,
            ops: 0,
        }
    }

    fn desc(&self, fd: RawFd) -> DescId {
        self.world.fd_get(0, fd).unwrap()
    }

    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: String, real: T, virt: T) {
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

    fn add(&mut self, fd: RawFd, class: Class, desc: DescId) {
        assert!(fd >= 0);
        self.world
            .fd_install(&mut self.host, 0, fd, desc, false)
            .unwrap();
        self.fds.push(Fd { fd, class });
        self.trace.push(format!("create {class:?} as {fd}"));
    }

    fn create(&mut self, classes: &[Class]) {
        let mut pair = [0; 2];
        match self.random.pick(classes) {
            Class::PipeRead | Class::PipeWrite => {
                // SAFETY: `pair` has room for two descriptors.
                assert_eq!(
                    unsafe { libc::pipe2(pair.as_mut_ptr(), libc::O_NONBLOCK) },
                    0
                );
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

    fn create_tcp(&mut self) {
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
        use std::os::fd::IntoRawFd;
        self.add(client.into_raw_fd(), Class::Tcp, a);
        self.add(server.into_raw_fd(), Class::Tcp, b);
    }

    fn is_socket(class: Class) -> bool {
        matches!(class, Class::Unix | Class::Packet | Class::Tcp)
    }

    fn read(&mut self, at: Fd) {
        let sizes: &[usize] = match at.class {
            Class::Event => &[8, 4, 16],
            _ => &[0, 1, 7, 100, 1000, 4096, 5000, 20000, 70000],
        };
        let size = self.random.pick(sizes);
        let mut ours = vec![0u8; size];
        let mut theirs = vec![0u8; size];
        // SAFETY: the buffer has `size` bytes.
        let got = real(unsafe { libc::read(at.fd, theirs.as_mut_ptr().cast(), size) } as i64);
        let desc = self.desc(at.fd);
        let have = virt(self.world.read(&mut self.host, desc, &mut ours), |n| {
            n as i64
        });
        self.check(
            format!("read({at:?}, {size})"),
            (got, digest(&theirs)),
            (have, digest(&ours)),
        );
    }

    fn peek(&mut self, at: Fd) {
        if !Self::is_socket(at.class) {
            return;
        }
        let size = 1 + self.random.below(3000);
        let mut ours = vec![0u8; size];
        let mut theirs = vec![0u8; size];
        let flags = libc::MSG_PEEK | libc::MSG_TRUNC * i32::from(at.class == Class::Packet);
        // SAFETY: the buffer has `size` bytes.
        let got =
            real(unsafe { libc::recv(at.fd, theirs.as_mut_ptr().cast(), size, flags) } as i64);
        let desc = self.desc(at.fd);
        let to = Scatter::new(&mut ours);
        let have = virt(self.world.recv_iov(&mut self.host, desc, to, true), |got| {
            got.message as i64
        });
        self.check(
            format!("peek({at:?}, {size})"),
            (got, digest(&theirs)),
            (have, digest(&ours)),
        );
    }

    fn write(&mut self, at: Fd) {
        let desc = self.desc(at.fd);
        let size = match at.class {
            Class::Event => self.random.pick(&[8, 8, 8, 4]),
            Class::Unix | Class::Packet | Class::Tcp => 200 + self.random.below(400),
            _ => self
                .random
                .pick(&[0, 1, 9, 100, 3000, 4095, 4096, 4097, 9000, 30000, 70000]),
        };
        // Linux charges sockets for its own bookkeeping; stay far from where
        // that makes its buffers smaller than ours.
        if Self::is_socket(at.class) && self.world.unsent(desc).unwrap() > 6000 {
            return;
        }
        self.byte = self.byte.wrapping_add(1);
        let mut data = vec![self.byte; size];
        if at.class == Class::Event && size == 8 {
            let value = self
                .random
                .pick(&[0, 1, 2, 5, u64::MAX - 1, u64::MAX, u64::MAX / 2]);
            data.copy_from_slice(&value.to_ne_bytes());
        }
        // SAFETY: the buffer has `size` bytes.
        let got = real(unsafe { libc::write(at.fd, data.as_ptr().cast(), size) } as i64);
        let have = virt(self.world.write(&mut self.host, desc, &data), |n| n as i64);
        self.check(format!("write({at:?}, {size})"), got, have);
    }

    fn poll(&mut self, at: Fd) {
        let mut poll = libc::pollfd {
            fd: at.fd,
            events: !0,
            revents: 0,
        };
        // SAFETY: one entry is passed.
        unsafe { libc::poll(&mut poll, 1, 0) };
        let desc = self.desc(at.fd);
        let have = self.world.readiness(desc).unwrap();
        self.check(format!("poll({at:?})"), poll.revents as u16 as u32, have);
    }

    fn shutdown(&mut self, at: Fd) {
        if self.random.below(4) != 0 {
            return;
        }
        let how = self.random.below(4) as i32;
        // SAFETY: no pointers are passed.
        let got = real(i64::from(unsafe { libc::shutdown(at.fd, how) }));
        let desc = self.desc(at.fd);
        let have = if Self::is_socket(at.class) {
            virt(self.world.shutdown(&mut self.host, desc, how), |()| 0)
        } else {
            -i64::from(libc::ENOTSOCK)
        };
        self.check(format!("shutdown({at:?}, {how})"), got, have);
    }

    fn sock_error(&mut self, at: Fd) {
        if !Self::is_socket(at.class) {
            return;
        }
        let mut error = 0i32;
        let mut len = 4u32;
        // SAFETY: both pointers are to variables of the stated sizes.
        unsafe {
            libc::getsockopt(
                at.fd,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &mut len,
            );
        }
        let desc = self.desc(at.fd);
        let have = self.world.take_error(desc).unwrap();
        self.check(format!("SO_ERROR({at:?})"), error, have);
    }

    fn available(&mut self, at: Fd) {
        let desc = self.desc(at.fd);
        // Linux 6.18 says 0 for SOCK_SEQPACKET whatever is queued; before, it
        // was the sum of the messages, and so it is here.
        if at.class == Class::Packet && self.world.socket_type(desc) == Ok(libc::SOCK_SEQPACKET) {
            return;
        }
        let mut count = 0i32;
        // SAFETY: FIONREAD stores one int.
        let result = real(i64::from(unsafe {
            libc::ioctl(at.fd, libc::FIONREAD, &raw mut count)
        }));
        let have = virt(self.world.available(desc), |n| n as i64);
        let got = if result < 0 { result } else { i64::from(count) };
        self.check(format!("FIONREAD({at:?})"), got, have);
    }

    fn set_capacity(&mut self, at: Fd) {
        if !matches!(at.class, Class::PipeRead | Class::PipeWrite) {
            return;
        }
        let size = self
            .random
            .pick(&[1, 4096, 5000, 8192, 32768, 65536, 131_072]);
        // SAFETY: no pointers are passed.
        let got = real(i64::from(unsafe {
            libc::fcntl(at.fd, libc::F_SETPIPE_SZ, size)
        }));
        let desc = self.desc(at.fd);
        let have = virt(
            self.world
                .pipe_set_capacity(&mut self.host, desc, size as usize),
            |n| n as i64,
        );
        self.check(format!("F_SETPIPE_SZ({at:?}, {size})"), got, have);
    }

    fn close(&mut self, at: usize) {
        if self.random.below(6) != 0 {
            return;
        }
        let at = self.fds.swap_remove(at);
        // SAFETY: the descriptor is ours and used no more.
        assert_eq!(unsafe { libc::close(at.fd) }, 0);
        self.world.fd_close(&mut self.host, 0, at.fd).unwrap();
        self.trace.push(format!("close({at:?})"));
    }

    fn count(&self, class: Class) -> usize {
        self.fds.iter().filter(|fd| fd.class == class).count()
    }

    fn dup(&mut self, at: Fd) {
        if self.fds.len() > 40 || (at.class == Class::Epoll && self.count(Class::Epoll) > 4) {
            return;
        }
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::dup(at.fd) };
        self.world
            .fd_dup(&mut self.host, 0, at.fd, fd, false)
            .unwrap();
        self.fds.push(Fd { fd, ..at });
        self.trace.push(format!("dup({at:?}) -> {fd}"));
    }

    fn epoll_ctl(&mut self, target: Fd) {
        let Some(ep) = self.some_epoll() else {
            return;
        };
        let op = self.random.pick(&[
            libc::EPOLL_CTL_ADD,
            libc::EPOLL_CTL_ADD,
            libc::EPOLL_CTL_MOD,
            libc::EPOLL_CTL_DEL,
            7,
        ]);
        let mut events = self.random.pick(&[
            libc::EPOLLIN,
            libc::EPOLLIN | libc::EPOLLRDHUP,
            libc::EPOLLIN | libc::EPOLLOUT,
            libc::EPOLLOUT,
            0,
            libc::EPOLLIN | libc::EPOLLRDNORM | libc::EPOLLWRNORM,
        ]);
        if self.edges {
            if self.random.below(2) == 0 {
                events |= libc::EPOLLET;
            }
            // Our sockets tell of space at every read, Linux's at the last
            // read of each packet. An edge-triggered watch (or one on an epoll
            // instance that holds such a watch) may see either, so that there
            // is nothing to compare.
            if Self::is_socket(target.class) {
                events &= !(libc::EPOLLOUT | libc::EPOLLWRNORM);
            }
        }
        if self.random.below(5) == 0 {
            events |= libc::EPOLLONESHOT;
        }
        if self.random.below(10) == 0 {
            events |= libc::EPOLLEXCLUSIVE;
        }
        let data = self.random.next();
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: data,
        };
        // SAFETY: `event` outlives the call.
        let got = real(i64::from(unsafe {
            libc::epoll_ctl(ep, op, target.fd, &mut event)
        }));
        let (epoll, desc) = (self.desc(ep), self.desc(target.fd));
        let event = EpollEvent {
            events: events as u32,
            data,
        };
        let have = virt(
            self.world
                .epoll_ctl(&mut self.host, epoll, op, target.fd, desc, event),
            |()| 0,
        );
        self.check(
            format!("epoll_ctl({ep}, {op}, {target:?}, {events:x}, {data})"),
            got,
            have,
        );
    }

    fn some_epoll(&mut self) -> Option<RawFd> {
        let epolls: Vec<RawFd> = self
            .fds
            .iter()
            .filter(|fd| fd.class == Class::Epoll)
            .map(|fd| fd.fd)
            .collect();
        (!epolls.is_empty()).then(|| self.random.pick(&epolls))
    }

    fn epoll_wait(&mut self) {
        let Some(ep) = self.some_epoll() else {
            return;
        };
        let most = 1 + self.random.below(12);
        let mut theirs = [libc::epoll_event { events: 0, u64: 0 }; 12];
        // SAFETY: the array has at least `most` entries.
        let count = unsafe { libc::epoll_wait(ep, theirs.as_mut_ptr(), most as i32, 0) };
        let theirs: Vec<(u32, u64)> = theirs[..count as usize]
            .iter()
            .map(|event| (event.events, event.u64))
            .collect();
        let mut ours = [EpollEvent::default(); 12];
        let epoll = self.desc(ep);
        let count = self
            .world
            .epoll_collect(&mut self.host, epoll, &mut ours[..most])
            .unwrap();
        let ours = ours[..count]
            .iter()
            .map(|event| (event.events, event.data))
            .collect();
        self.check(format!("epoll_wait({ep}, {most})"), theirs, ours);
    }

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
    let mut ops = 0;
    for seed in 1..=seeds {
        eprintln!("seed {seed}");
        let mut pair = Pair::new(seed, edges);
        for _ in 0..steps {
            pair.step(classes);
        }
        ops += pair.finish();
    }
    println!("{ops} operations agreed with Linux");
}

#[test]
fn pipes_behave_as_linux() {
    run(&[Class::PipeRead], false, 60, 2000);
}

#[test]
fn eventfds_behave_as_linux() {
    run(&[Class::Event], false, 30, 1000);
}

#[test]
fn unix_stream_pairs_behave_as_linux() {
    run(&[Class::Unix], false, 60, 1500);
}

#[test]
fn unix_packet_pairs_behave_as_linux() {
    run(&[Class::Packet], false, 60, 1500);
}

#[test]
fn tcp_connections_in_the_group_behave_as_linux_on_loopback() {
    run(&[Class::Tcp], false, 60, 1500);
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
    run(&classes, false, 60, 2500);
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
    run(&classes, true, 60, 2500);
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
