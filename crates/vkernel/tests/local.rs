//! Binding, listening and connecting inside the group.

mod support;

use crane_vkernel::{DescId, Dir, Errno, Route, SockOption};
use support::{Recorder, World, unix, v4, v6};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn tcp(world: &mut World) -> DescId {
    world
        .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
        .unwrap()
}

fn tcp6(world: &mut World) -> DescId {
    world
        .socket(libc::AF_INET6, libc::SOCK_STREAM, 0, 0)
        .unwrap()
}

fn listener(world: &mut World, host: &mut Recorder, addr: &[u8]) -> DescId {
    let desc = if addr.len() == 28 {
        tcp6(world)
    } else {
        tcp(world)
    };
    world.bind(desc, addr).unwrap();
    world.listen(host, desc, 5).unwrap();
    desc
}

#[test]
fn raw_sockets_are_left_to_the_caller() {
    let mut world = World::new();
    let made = |world: &mut World, domain, kind| world.socket(domain, kind, 0, 0).err();
    assert_eq!(
        made(&mut world, libc::AF_INET, libc::SOCK_RAW),
        Some(Errno::SOCKTNOSUPPORT)
    );
    assert_eq!(
        made(&mut world, libc::AF_NETLINK, libc::SOCK_RAW),
        Some(Errno::AFNOSUPPORT)
    );
    let udp = world.socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_UDP, 0);
    assert_eq!(udp, Err(Errno::PROTONOSUPPORT));
}

#[test]
fn ports_chosen_by_the_kernel_count_up_from_32768() {
    let mut world = World::new();
    for port in 32768..32772 {
        let desc = tcp(&mut world);
        world.bind(desc, &v4(LOOPBACK, 0)).unwrap();
        let name = world.getsockname(desc).unwrap();
        assert_eq!(name.as_bytes(), v4(LOOPBACK, port));
    }
}

#[test]
fn binding_twice_is_einval_and_a_taken_address_is_eaddrinuse() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let first = listener(&mut world, &mut host, &v4(LOOPBACK, 80));
    assert_eq!(world.bind(first, &v4(LOOPBACK, 81)), Err(Errno::INVAL));
    let second = tcp(&mut world);
    assert_eq!(world.bind(second, &v4(LOOPBACK, 80)), Err(Errno::ADDRINUSE));
    assert_eq!(world.bind(second, &v4([0; 4], 80)), Err(Errno::ADDRINUSE));
    world.bind(second, &v4([127, 0, 0, 2], 80)).unwrap();
    let wrong = tcp(&mut world);
    assert_eq!(world.bind(wrong, &v6([0; 16], 80)), Err(Errno::AFNOSUPPORT));
    assert_eq!(world.bind(wrong, &[2]), Err(Errno::INVAL));
}

#[test]
fn reuseaddr_allows_binding_beside_a_socket_that_does_not_listen() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (a, b) = (tcp(&mut world), tcp(&mut world));
    for desc in [a, b] {
        world.set_option(desc, SockOption::ReuseAddr, 1).unwrap();
        world.bind(desc, &v4(LOOPBACK, 80)).unwrap();
    }
    world.listen(&mut host, a, 1).unwrap();
    assert_eq!(world.listen(&mut host, b, 1), Err(Errno::ADDRINUSE));
    let c = tcp(&mut world);
    world.set_option(c, SockOption::ReuseAddr, 1).unwrap();
    assert_eq!(world.bind(c, &v4(LOOPBACK, 80)), Err(Errno::ADDRINUSE));
    world.desc_release(&mut host, a).unwrap();
    world.listen(&mut host, b, 1).unwrap();
}

#[test]
fn reuseport_listeners_take_turns() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let desc = tcp(&mut world);
        world.set_option(desc, SockOption::ReusePort, 1).unwrap();
        world.bind(desc, &v4([0; 4], 80)).unwrap();
        world.listen(&mut host, desc, 5).unwrap();
        listeners.push(desc);
    }
    for _ in 0..4 {
        let client = tcp(&mut world);
        world.connect(&mut host, client, &v4(LOOPBACK, 80)).unwrap();
    }
    for desc in listeners {
        assert_eq!(world.accept_queue_len(desc), Ok(2));
    }
}

#[test]
fn a_dual_stack_listener_conflicts_with_and_answers_ipv4() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = listener(&mut world, &mut host, &v6([0; 16], 80));
    let other = tcp(&mut world);
    assert_eq!(world.bind(other, &v4([0; 4], 80)), Err(Errno::ADDRINUSE));
    let client = tcp(&mut world);
    world.connect(&mut host, client, &v4(LOOPBACK, 80)).unwrap();
    let accepted = world.accept(&mut host, server, 0).unwrap();
    let mut mapped = [0; 16];
    mapped[10..12].fill(0xff);
    mapped[12..].copy_from_slice(&LOOPBACK);
    assert_eq!(
        world.getpeername(accepted).unwrap().as_bytes(),
        v6(mapped, 32768)
    );
    assert_eq!(
        world.getsockname(client).unwrap().as_bytes(),
        v4(LOOPBACK, 32768)
    );
}

#[test]
fn v6only_separates_the_families() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let six = tcp6(&mut world);
    world.set_option(six, SockOption::V6Only, 1).unwrap();
    world.bind(six, &v6([0; 16], 80)).unwrap();
    world.listen(&mut host, six, 1).unwrap();
    let four = listener(&mut world, &mut host, &v4([0; 4], 80));
    assert_eq!(world.route(&v4(LOOPBACK, 80)), Ok(Route::Listener(four)));
    let mut loopback = [0; 16];
    loopback[15] = 1;
    assert_eq!(world.route(&v6(loopback, 80)), Ok(Route::Listener(six)));
}

#[test]
fn connect_finds_the_group_refuses_its_silence_and_leaves_the_rest() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let own = [10, 0, 0, 1];
    listener(&mut world, &mut host, &v4(own, 80));
    let any = listener(&mut world, &mut host, &v4([0; 4], 81));
    assert_eq!(world.route(&v4(LOOPBACK, 80)), Ok(Route::Refused));
    assert_eq!(world.route(&v4(own, 81)), Ok(Route::Listener(any)));
    assert_eq!(world.route(&v4(own, 82)), Ok(Route::Refused));
    assert_eq!(world.route(&v4([0; 4], 81)), Ok(Route::Listener(any)));
    assert_eq!(world.route(&v4([8, 8, 8, 8], 81)), Ok(Route::Outside));
    let client = tcp(&mut world);
    assert_eq!(
        world.connect(&mut host, client, &v4([8, 8, 8, 8], 53)),
        Err(Errno::NETUNREACH)
    );
    assert_eq!(
        world.connect(&mut host, client, &v4(LOOPBACK, 9)),
        Err(Errno::CONNREFUSED)
    );
    world.connect(&mut host, client, &v4(own, 81)).unwrap();
    assert_eq!(
        world.connect(&mut host, client, &v4(own, 81)),
        Err(Errno::ISCONN)
    );
}

#[test]
fn a_nonblocking_tcp_connect_is_in_progress_then_done() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    listener(&mut world, &mut host, &v4(LOOPBACK, 80));
    let client = tcp(&mut world);
    world.set_flags(client, libc::O_NONBLOCK as u32).unwrap();
    let to = v4(LOOPBACK, 80);
    assert_eq!(
        world.connect(&mut host, client, &to),
        Err(Errno::INPROGRESS)
    );
    let ready = world.readiness(client).unwrap();
    assert_eq!(ready, (libc::EPOLLOUT | libc::EPOLLWRNORM) as u32);
    assert_eq!(world.take_error(client), Ok(0));
    assert_eq!(world.connect(&mut host, client, &to), Ok(()));
    assert_eq!(world.connect(&mut host, client, &to), Err(Errno::ISCONN));
    let other = tcp(&mut world);
    world.set_flags(other, libc::O_NONBLOCK as u32).unwrap();
    let nobody = v4(LOOPBACK, 81);
    assert_eq!(
        world.connect(&mut host, other, &nobody),
        Err(Errno::INPROGRESS)
    );
    assert_ne!(world.readiness(other).unwrap() & libc::EPOLLERR as u32, 0);
    assert_eq!(world.take_error(other), Ok(libc::ECONNREFUSED));
}

#[test]
fn an_unconnected_tcp_socket_fails_as_on_linux() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let desc = tcp(&mut world);
    let mut buf = [0; 4];
    assert_eq!(world.recv(&mut host, desc, &mut buf), Err(Errno::NOTCONN));
    assert_eq!(world.send(&mut host, desc, b"x"), Err(Errno::PIPE));
    assert_eq!(world.shutdown(&mut host, desc, 2), Err(Errno::NOTCONN));
    assert_eq!(world.accept(&mut host, desc, 0), Err(Errno::INVAL));
    assert_eq!(world.getpeername(desc).err(), Some(Errno::NOTCONN));
    assert_eq!(world.getsockname(desc).unwrap().as_bytes(), v4([0; 4], 0));
    let fresh = tcp(&mut world);
    let hup_out = libc::EPOLLHUP | libc::EPOLLOUT | libc::EPOLLWRNORM;
    assert_eq!(world.readiness(fresh), Ok(hup_out as u32));
    let epoll = world.epoll_create().unwrap();
    assert_eq!(world.recv(&mut host, epoll, &mut buf), Err(Errno::NOTSOCK));
    let gone = DescId::from_raw(400);
    assert_eq!(world.recv(&mut host, gone, &mut buf), Err(Errno::BADF));
}

#[test]
fn shutting_down_a_listener_ends_listening_and_keeps_the_port() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = listener(&mut world, &mut host, &v4(LOOPBACK, 80));
    let client = tcp(&mut world);
    world.connect(&mut host, client, &v4(LOOPBACK, 80)).unwrap();
    host.block(server, Dir::Read);
    world.shutdown(&mut host, server, libc::SHUT_RD).unwrap();
    assert!(!host.is_blocked(server, Dir::Read));
    assert_eq!(world.accept(&mut host, server, 0), Err(Errno::INVAL));
    assert_eq!(
        world.recv(&mut host, client, &mut [0; 1]),
        Err(Errno::CONNRESET)
    );
    assert_eq!(world.route(&v4(LOOPBACK, 80)), Ok(Route::Refused));
    world.listen(&mut host, server, 1).unwrap();
    assert_eq!(world.route(&v4(LOOPBACK, 80)), Ok(Route::Listener(server)));
}

#[test]
fn unix_sockets_connect_by_path_and_by_abstract_name() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    for name in ["/run/app.sock", "\0app"] {
        let make = |world: &mut World| world.socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0);
        let server = make(&mut world).unwrap();
        assert_eq!(world.listen(&mut host, server, 1), Err(Errno::INVAL));
        world.bind(server, &unix(name)).unwrap();
        let client = make(&mut world).unwrap();
        assert_eq!(
            world.connect(&mut host, client, &unix(name)),
            Err(Errno::CONNREFUSED),
            "bound but not listening"
        );
        world.listen(&mut host, server, 0).unwrap();
        world.connect(&mut host, client, &unix(name)).unwrap();
        let late = make(&mut world).unwrap();
        assert_eq!(
            world.connect(&mut host, late, &unix(name)),
            Err(Errno::AGAIN),
            "queue is full"
        );
        host.block(late, Dir::Write);
        let accepted = world.accept(&mut host, server, 0).unwrap();
        assert!(!host.is_blocked(late, Dir::Write));
        world.connect(&mut host, late, &unix(name)).unwrap();
        assert_eq!(world.getpeername(accepted).unwrap().as_bytes().len(), 2);
        let shown = world.getpeername(client).unwrap();
        assert_eq!(&shown.as_bytes()[2..2 + name.len()], name.as_bytes());
        world.send(&mut host, client, b"hi").unwrap();
        assert_eq!(world.available(accepted), Ok(2));
        for desc in [client, late, accepted, server] {
            world.desc_release(&mut host, desc).unwrap();
        }
    }
    assert_eq!(world.counters().descs, 0);
    assert_eq!(world.counters().chunks, 0);
}

#[test]
fn an_abstract_name_is_taken_once_and_can_be_chosen() {
    let mut world = World::new();
    let mut make = || {
        world
            .socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0)
            .unwrap()
    };
    let (a, b, c) = (make(), make(), make());
    world.bind(a, &unix("\0x")).unwrap();
    assert_eq!(world.bind(b, &unix("\0x")), Err(Errno::ADDRINUSE));
    world.bind(b, &unix("")).unwrap();
    assert_eq!(world.getsockname(b).unwrap().as_bytes(), unix("\x0000000"));
    world.bind(c, &unix("")).unwrap();
    assert_eq!(world.getsockname(c).unwrap().as_bytes(), unix("\x0000001"));
}

#[test]
fn a_path_may_have_several_names_by_its_key() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = world
        .socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    world.bind_keyed(server, &unix("s.sock"), Some(42)).unwrap();
    world.listen(&mut host, server, 5).unwrap();
    let client = world
        .socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    world
        .connect_keyed(&mut host, client, &unix("/srv/s.sock"), Some(42))
        .unwrap();
    let packet = world
        .socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, 0)
        .unwrap();
    assert_eq!(
        world.connect_keyed(&mut host, packet, &unix("s.sock"), Some(42)),
        Err(Errno::PROTOTYPE)
    );
}

#[test]
fn a_writer_that_filled_a_connection_is_woken_when_a_good_part_is_free() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (a, b) = world
        .socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    let capacity = world.limits().local_capacity as usize;
    let data = vec![1; capacity + 10];
    assert_eq!(world.send(&mut host, a, &data), Ok(capacity));
    assert_eq!(world.send(&mut host, a, &data), Err(Errno::AGAIN));
    host.block(a, Dir::Write);
    let mut buf = vec![0; capacity / 2];
    world.recv(&mut host, b, &mut buf).unwrap();
    assert!(host.is_blocked(a, Dir::Write));
    world.recv(&mut host, b, &mut buf).unwrap();
    assert!(!host.is_blocked(a, Dir::Write));
}
