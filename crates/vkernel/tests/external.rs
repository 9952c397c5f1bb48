//! Connections of clients outside, as the log drives them.

mod support;

use crane_vkernel::{
    DescId, Dir, EpollEvent, Errno, Gather, Limits, Scatter, SockOption, StreamPeer, wait_key,
};
use support::{Call, Recorder, World, small_limits, unix, v4, v6};

const CLIENT: [u8; 4] = [192, 0, 2, 7];

/// A number as a gateway makes it.
fn conn(gateway: u64, incarnation: u64, counter: u64) -> u64 {
    (gateway << 56) | (incarnation << 32) | counter
}

struct Server {
    world: World,
    host: Recorder,
    listener: DescId,
    id: u32,
}

impl Server {
    fn new() -> Server {
        Server::with_limits(&small_limits())
    }

    fn with_limits(limits: &Limits) -> Server {
        let mut world = World::with_limits(limits);
        let mut host = Recorder::default();
        let listener = world
            .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
            .unwrap();
        world.bind(listener, &v4([0; 4], 6379)).unwrap();
        world.listen(&mut host, listener, 128).unwrap();
        let id = world.listener_id(listener);
        Server {
            world,
            host,
            listener,
            id,
        }
    }

    fn connect(&mut self, conn: u64) -> bool {
        let (local, peer) = (v4([192, 0, 2, 1], 6379), v4(CLIENT, 5000));
        self.world
            .apply_connect(&mut self.host, conn, self.id, &local, &peer)
    }

    fn accepted(&mut self, conn: u64) -> DescId {
        assert!(self.connect(conn));
        self.world.accept(&mut self.host, self.listener, 0).unwrap()
    }
}

#[test]
fn listening_is_announced_with_the_address_and_the_backlog() {
    let mut server = Server::new();
    assert_eq!(
        server.host.take(),
        [Call::Listen(server.id, v4([0; 4], 6379), 128)]
    );
    assert_eq!(server.world.listener_desc(server.id), Some(server.listener));
    server
        .world
        .desc_release(&mut server.host, server.listener)
        .unwrap();
    assert_eq!(server.host.take(), [Call::Unlisten(server.id)]);
    assert_eq!(server.world.listener_desc(server.id), None);
}

#[test]
fn accept_takes_connections_in_order_and_wakes_one_acceptor_each() {
    let mut server = Server::new();
    let listener = server.listener;
    assert_eq!(
        server.world.accept(&mut server.host, listener, 0),
        Err(Errno::AGAIN)
    );
    server.host.block(listener, Dir::Read);
    server.host.block(listener, Dir::Read);
    server.connect(1);
    assert!(server.host.is_blocked(listener, Dir::Read));
    server.connect(2);
    assert!(!server.host.is_blocked(listener, Dir::Read));
    let first = server
        .world
        .accept(&mut server.host, listener, libc::O_NONBLOCK as u32)
        .unwrap();
    assert_eq!(server.world.flags(first), Ok(libc::O_NONBLOCK as u32));
    assert_eq!(server.world.conn_desc(1), Some(first));
    assert_eq!(
        server.world.getpeername(first).unwrap().as_bytes(),
        v4(CLIENT, 5000)
    );
    assert_eq!(
        server.world.getsockname(first).unwrap().as_bytes(),
        v4([192, 0, 2, 1], 6379)
    );
    assert_eq!(server.world.accept_queue_len(listener), Ok(1));
}

#[test]
fn a_connection_for_a_listener_that_is_gone_is_reset_even_if_its_index_was_reused() {
    let mut server = Server::new();
    let old = server.id;
    server
        .world
        .desc_release(&mut server.host, server.listener)
        .unwrap();
    let again = server
        .world
        .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    assert_eq!(again, server.listener);
    server.world.bind(again, &v4([0; 4], 1)).unwrap();
    server.world.listen(&mut server.host, again, 1).unwrap();
    assert_ne!(server.world.listener_id(again), old);
    server.host.take();
    assert!(!server.connect(9));
    assert_eq!(server.host.take(), [Call::Close(9, true)]);
    assert_eq!(server.world.counters().conns, 0);
}

#[test]
fn data_that_arrives_before_accept_is_kept_and_read_in_parts() {
    let mut server = Server::new();
    server.connect(5);
    assert!(server.world.apply_data(&mut server.host, 5, b"hello "));
    assert!(server.world.apply_data(&mut server.host, 5, b"world"));
    let (world, host) = (&mut server.world, &mut server.host);
    let desc = world.accept(host, server.listener, 0).unwrap();
    let mut buf = [0; 8];
    assert_eq!(world.peek(host, desc, &mut buf), Ok(8));
    assert_eq!(&buf, b"hello wo");
    assert_eq!(world.available(desc), Ok(11));
    assert_eq!(world.recv(host, desc, &mut buf), Ok(8));
    assert_eq!(world.recv(host, desc, &mut buf), Ok(3));
    assert_eq!(world.recv(host, desc, &mut buf), Err(Errno::AGAIN));
    assert_eq!(world.counters().chunks, 0);
    assert_eq!(world.counters().bytes_in, 11);
}

#[test]
fn end_of_stream_comes_after_the_data_and_sending_still_works() {
    let mut server = Server::new();
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    host.block(desc, Dir::Read);
    world.apply_data(host, 5, b"x");
    assert!(!host.is_blocked(desc, Dir::Read));
    world.apply_eof(host, 5);
    let ready = world.readiness(desc).unwrap();
    let rdhup = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLOUT;
    assert_eq!(ready & rdhup as u32, rdhup as u32);
    assert_eq!(ready & libc::EPOLLHUP as u32, 0);
    let mut buf = [0; 4];
    assert_eq!(world.recv(host, desc, &mut buf), Ok(1));
    assert_eq!(world.recv(host, desc, &mut buf), Ok(0));
    assert_eq!(world.send(host, desc, b"bye"), Ok(3));
    host.take();
    world.shutdown(host, desc, libc::SHUT_WR).unwrap();
    assert_eq!(host.take(), [Call::ShutdownWrite(5)]);
    assert_eq!(world.send(host, desc, b"more"), Err(Errno::PIPE));
    assert_ne!(world.readiness(desc).unwrap() & libc::EPOLLHUP as u32, 0);
    world.desc_release(host, desc).unwrap();
    assert_eq!(host.take(), [Call::Close(5, false)]);
    assert!(!world.apply_data(host, 5, b"late"));
}

#[test]
fn a_reset_leaves_data_readable_then_fails_once_then_reads_as_end() {
    let mut server = Server::new();
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    world.apply_data(host, 5, b"abc");
    world.apply_reset(host, 5);
    let mut buf = [0; 8];
    assert_ne!(world.readiness(desc).unwrap() & libc::EPOLLERR as u32, 0);
    assert_eq!(world.recv(host, desc, &mut buf), Ok(3));
    assert_eq!(world.recv(host, desc, &mut buf), Err(Errno::CONNRESET));
    assert_eq!(world.recv(host, desc, &mut buf), Ok(0));
    assert_eq!(world.send(host, desc, b"x"), Err(Errno::PIPE));
    assert_eq!(world.getpeername(desc).err(), Some(Errno::NOTCONN));
    assert_eq!(world.stream_info(desc).unwrap().peer, StreamPeer::Gone);
    host.take();
    world.desc_release(host, desc).unwrap();
    assert_eq!(host.take(), [], "the gateway knows already");
}

#[test]
fn sending_after_a_reset_fails_with_the_reason_first() {
    let mut server = Server::new();
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    world.apply_reset(host, 5);
    assert_eq!(world.send(host, desc, b"x"), Err(Errno::CONNRESET));
    assert_eq!(world.send(host, desc, b"x"), Err(Errno::PIPE));
    assert_eq!(world.take_error(desc), Ok(0));
}

#[test]
fn closing_with_unread_data_or_zero_linger_resets() {
    let mut server = Server::new();
    let (a, b) = (server.accepted(1), server.accepted(2));
    let (world, host) = (&mut server.world, &mut server.host);
    world.apply_data(host, 1, b"unread");
    world.set_option(b, SockOption::ResetOnClose, 1).unwrap();
    host.take();
    world.desc_release(host, a).unwrap();
    world.desc_release(host, b).unwrap();
    assert_eq!(host.take(), [Call::Close(1, true), Call::Close(2, true)]);
}

#[test]
fn closing_a_listener_resets_what_was_not_accepted() {
    let mut server = Server::new();
    server.connect(1);
    server.connect(2);
    server.host.take();
    server
        .world
        .desc_release(&mut server.host, server.listener)
        .unwrap();
    assert_eq!(
        server.host.take(),
        [
            Call::Unlisten(server.id),
            Call::Close(1, true),
            Call::Close(2, true)
        ]
    );
    assert_eq!(server.world.counters().descs, 0);
}

#[test]
fn the_send_window_fills_and_only_draining_opens_it() {
    let mut server = Server::with_limits(&Limits {
        send_window: 1000,
        ..small_limits()
    });
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    let data = [7; 1500];
    assert_eq!(world.send(host, desc, &data), Ok(1000));
    assert_eq!(world.send(host, desc, &data), Err(Errno::AGAIN));
    assert_eq!(world.readiness(desc).unwrap() & libc::EPOLLOUT as u32, 0);
    assert_eq!(world.unsent(desc), Ok(1000));
    host.block(desc, Dir::Write);
    assert!(world.apply_drained(host, 5, 100));
    assert!(host.is_blocked(desc, Dir::Write), "not worth a wake-up yet");
    assert!(world.apply_drained(host, 5, 900));
    assert!(!host.is_blocked(desc, Dir::Write));
    assert_eq!(world.send(host, desc, &data), Ok(900));
    assert!(!world.apply_drained(host, 5, 5), "offsets never go back");
    assert!(!world.apply_drained(host, 5, 99_999));
    assert_eq!(host.output_of(5).len(), 1900);
}

#[test]
fn vectored_sends_reach_the_gateway_in_order_and_may_end_early() {
    let mut server = Server::with_limits(&Limits {
        send_window: 8,
        ..small_limits()
    });
    let desc = server.accepted(5);
    let mut parts: Vec<libc::iovec> = Vec::new();
    for part in ["abc", "", "defg", "hijk"] {
        parts.push(libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
    }
    // SAFETY: the parts are string constants.
    let data = unsafe { Gather::from_iovecs(&parts) }.unwrap();
    let sent = server.world.send_iov(&mut server.host, desc, data);
    assert_eq!(sent, Ok(8));
    assert_eq!(server.host.output_of(5), b"abcdefgh");
    server.world.apply_data(&mut server.host, 5, b"0123456789");
    let (mut a, mut b) = ([0u8; 4], [0u8; 4]);
    let parts = [&mut a, &mut b].map(|part| libc::iovec {
        iov_base: part.as_mut_ptr().cast(),
        iov_len: 4,
    });
    // SAFETY: the parts are arrays that live to the end of the test.
    let to = unsafe { Scatter::from_iovecs(&parts) }.unwrap();
    let got = server.world.recv_iov(&mut server.host, desc, to, false);
    assert_eq!(got.unwrap().len, 8);
    assert_eq!((&a, &b), (b"0123", b"4567"));
}

#[test]
fn consumption_is_reported_once_per_step() {
    let mut server = Server::with_limits(&Limits {
        consumed_step: 1000,
        ..small_limits()
    });
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    host.take();
    let mut buf = [0; 600];
    for _ in 0..4 {
        world.apply_data(host, 5, &[1; 600]);
        assert_eq!(world.recv(host, desc, &mut buf), Ok(600));
    }
    assert_eq!(
        host.take(),
        [Call::Consumed(5, 1200), Call::Consumed(5, 2400)]
    );
}

#[test]
fn a_lost_gateway_resets_its_own_connections_in_order_of_creation() {
    let mut server = Server::new();
    let lost = [conn(3, 7, 9), conn(3, 7, 2)];
    let kept = [conn(3, 8, 9), conn(4, 7, 9)];
    for id in [lost[0], kept[0], lost[1], kept[1]] {
        let desc = server.accepted(id);
        server.host.block(desc, Dir::Read);
    }
    let order: Vec<u64> = lost
        .iter()
        .map(|id| wait_key(server.world.conn_desc(*id).unwrap(), Dir::Read))
        .collect();
    server.host.take();
    let count = server.world.apply_gateway_down(&mut server.host, 3, 7);
    assert_eq!(count, 2);
    assert_eq!(
        server.host.take(),
        [Call::WakeAll(order[0]), Call::WakeAll(order[1])]
    );
    let mut left = Vec::new();
    server.world.for_each_conn(|conn, _| left.push(conn));
    assert_eq!(left, kept);
}

#[test]
fn when_chunks_run_out_the_connection_is_reset_and_nothing_leaks() {
    let mut server = Server::with_limits(&Limits {
        chunks: 4,
        ..small_limits()
    });
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    world.apply_data(host, 5, &[0; 8192]);
    host.take();
    world.apply_data(host, 5, &[0; 8192]);
    assert_eq!(host.take(), [Call::Close(5, true)]);
    assert_eq!(world.counters().conns_overrun, 1);
    world.desc_release(host, desc).unwrap();
    assert_eq!((world.counters().chunks, world.counters().conns), (0, 0));
}

#[test]
fn data_after_a_shutdown_of_both_directions_resets() {
    let mut server = Server::new();
    let desc = server.accepted(5);
    let (world, host) = (&mut server.world, &mut server.host);
    world.shutdown(host, desc, libc::SHUT_RDWR).unwrap();
    host.take();
    world.apply_data(host, 5, b"too late");
    assert_eq!(host.take(), [Call::Close(5, true)]);
}

#[test]
fn clients_of_unix_and_ipv6_listeners_work_alike() {
    let mut world = World::new();
    let mut host = Recorder::default();
    for (domain, addr) in [
        (libc::AF_UNIX, unix("/run/db.sock")),
        (libc::AF_INET6, v6([0; 16], 80)),
    ] {
        let listener = world.socket(domain, libc::SOCK_STREAM, 0, 0).unwrap();
        world.bind(listener, &addr).unwrap();
        world.listen(&mut host, listener, 1).unwrap();
        let id = world.listener_id(listener);
        assert!(world.apply_connect(&mut host, 77, id, &addr, &addr));
        let desc = world.accept(&mut host, listener, 0).unwrap();
        world.apply_data(&mut host, 77, b"q");
        assert_eq!(world.read(&mut host, desc, &mut [0; 4]), Ok(1));
        assert_eq!(world.domain(desc), Ok(domain));
        world.desc_release(&mut host, desc).unwrap();
        world.desc_release(&mut host, listener).unwrap();
    }
    assert_eq!(world.counters().descs, 0);
}

#[test]
fn an_exclusive_watch_wakes_one_instance_that_really_waits() {
    let mut server = Server::new();
    let (world, host) = (&mut server.world, &mut server.host);
    let epolls: Vec<DescId> = (0..3).map(|_| world.epoll_create().unwrap()).collect();
    for epoll in &epolls {
        let event = EpollEvent {
            events: (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32,
            data: 1,
        };
        world
            .epoll_ctl(host, *epoll, libc::EPOLL_CTL_ADD, 3, server.listener, event)
            .unwrap();
    }
    host.block(epolls[1], Dir::Read);
    host.block(epolls[2], Dir::Read);
    server.connect(1);
    let (world, host) = (&mut server.world, &mut server.host);
    assert!(!host.is_blocked(epolls[1], Dir::Read));
    assert!(host.is_blocked(epolls[2], Dir::Read));
    let mut out = [EpollEvent::default(); 2];
    assert_eq!(world.epoll_collect(host, epolls[1], &mut out), Ok(1));
    world.accept(host, server.listener, 0).unwrap();
    assert_eq!(world.epoll_collect(host, epolls[1], &mut out), Ok(0));
    assert_eq!(world.epoll_collect(host, epolls[2], &mut out), Ok(0));
}
