//! Datagram sockets inside the group and to the outside, and descriptors
//! beside the bytes of Unix sockets.

mod support;

use crane_vkernel::{DescId, Errno, Gather, Kind, Scatter, SockOption};
use support::{Call, Recorder, World, unix, v4};

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const INTERFACE: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [10, 0, 0, 9];

fn mapped(ip: [u8; 4]) -> [u8; 16] {
    let mut all = [0; 16];
    all[10..12].fill(0xff);
    all[12..].copy_from_slice(&ip);
    all
}

fn udp(world: &mut World) -> DescId {
    world.set_interface(mapped(INTERFACE));
    world.socket(libc::AF_INET, libc::SOCK_DGRAM, 0, 0).unwrap()
}

fn bound(world: &mut World, ip: [u8; 4], port: u16) -> DescId {
    let desc = udp(world);
    world.bind(desc, &v4(ip, port)).unwrap();
    desc
}

fn receive(world: &mut World, host: &mut Recorder, desc: DescId) -> Option<(Vec<u8>, Vec<u8>)> {
    let source = world.next_source(desc)?;
    let mut bytes = [0; 256];
    let got = world
        .recv_iov(host, desc, Scatter::new(&mut bytes), false)
        .unwrap();
    Some((bytes[..got.len].to_vec(), source.from.as_bytes().to_vec()))
}

#[test]
fn messages_keep_their_boundaries_and_senders() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = bound(&mut world, [0; 4], 53);
    let client = udp(&mut world);
    for text in [&b"one"[..], b"", b"three"] {
        let sent = world.send_to(
            &mut host,
            client,
            Gather::new(text),
            &v4(LOOPBACK, 53),
            None,
        );
        assert_eq!(sent, Ok(text.len()));
    }
    let from = v4(LOOPBACK, 32768);
    assert_eq!(world.available(server), Ok(3));
    for text in [&b"one"[..], b"", b"three"] {
        let got = receive(&mut world, &mut host, server).unwrap();
        assert_eq!(got, (text.to_vec(), from.clone()));
    }
    let mut none = [0; 4];
    assert_eq!(world.recv(&mut host, server, &mut none), Err(Errno::AGAIN));
}

#[test]
fn a_cut_message_tells_its_length_and_leaves_the_next() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = bound(&mut world, [0; 4], 53);
    let client = udp(&mut world);
    world.connect(&mut host, client, &v4(LOOPBACK, 53)).unwrap();
    world.send(&mut host, client, b"longer").unwrap();
    world.send(&mut host, client, b"next").unwrap();
    let mut four = [0; 4];
    let peeked = world.recv_iov(&mut host, server, Scatter::new(&mut four), true);
    assert_eq!(peeked.unwrap().message, 6);
    let got = world
        .recv_iov(&mut host, server, Scatter::new(&mut four), false)
        .unwrap();
    assert_eq!((got.len, got.message, &four), (4, 6, b"long"));
    assert_eq!(receive(&mut world, &mut host, server).unwrap().0, b"next");
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = bound(&mut world, LOOPBACK, 53);
    let friend = bound(&mut world, LOOPBACK, 1000);
    let stranger = bound(&mut world, LOOPBACK, 1001);
    world
        .connect(&mut host, server, &v4(LOOPBACK, 1000))
        .unwrap();
    for from in [stranger, friend] {
        world
            .send_to(&mut host, from, Gather::new(b"x"), &v4(LOOPBACK, 53), None)
            .unwrap();
    }
    let got = receive(&mut world, &mut host, server).unwrap();
    assert_eq!(got.1, v4(LOOPBACK, 1000));
    assert!(receive(&mut world, &mut host, server).is_none());
    // Nobody at 53 takes what the stranger sends, and a connected one is told.
    world
        .connect(&mut host, stranger, &v4(LOOPBACK, 9))
        .unwrap();
    assert_eq!(world.send(&mut host, stranger, b"x"), Ok(1));
    assert_eq!(
        world.send(&mut host, stranger, b"x"),
        Err(Errno::CONNREFUSED)
    );
    let unspecified = [0u8; 16];
    world.connect(&mut host, server, &unspecified).unwrap();
    assert_eq!(world.getpeername(server).err(), Some(Errno::NOTCONN));
}

#[test]
fn an_answer_goes_out_where_the_question_came_in() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = bound(&mut world, [0; 4], 1900);
    world.datagram_bound(&mut host, server);
    let Some(Call::DatagramOpen(socket, at)) = host.take().pop() else {
        panic!("it was not announced");
    };
    assert_eq!(at, v4([0; 4], 1900));
    let client = v4(LOOPBACK, 40_000);
    let here = v4([127, 0, 0, 2], 1900);
    assert!(world.apply_datagram(&mut host, 0x0200_0007, socket, &here, &client, b"who?"));
    let got = receive(&mut world, &mut host, server).unwrap();
    assert_eq!(got, (b"who?".to_vec(), client.clone()));
    host.take();
    // A loopback address, but one that was heard outside.
    world
        .send_to(&mut host, server, Gather::new(b"me"), &client, None)
        .unwrap();
    let sent = Call::DatagramSend(0x0200_0007, socket, client.clone(), b"me".to_vec());
    assert_eq!(host.take(), [sent]);
    // Also from another socket, as discovery does.
    let other = udp(&mut world);
    world
        .send_to(&mut host, other, Gather::new(b"me too"), &client, None)
        .unwrap();
    let sent = host.take();
    assert!(
        matches!(
            &sent[..],
            [Call::DatagramOpen(..), Call::DatagramSend(0x0200_0007, ..)]
        ),
        "{sent:?}"
    );
    // One that never wrote is anybody's.
    world
        .send_to(&mut host, server, Gather::new(b"hi"), &v4(CLIENT, 5), None)
        .unwrap();
    let sent = Call::DatagramSend(0, socket, v4(CLIENT, 5), b"hi".to_vec());
    assert_eq!(host.take(), [sent]);
    world.desc_release(&mut host, server).unwrap();
    assert_eq!(host.take(), [Call::DatagramClose(socket)]);
    assert!(!world.apply_datagram(
        &mut host,
        0x0200_0007,
        socket,
        &here,
        &v4(CLIENT, 5),
        b"late"
    ));
}

#[test]
fn a_group_is_heard_by_its_members_and_sent_outside() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let group = [239, 255, 255, 250];
    let member = bound(&mut world, [0; 4], 1900);
    world
        .membership(&mut host, member, mapped(group), true)
        .unwrap();
    assert_eq!(
        world.membership(&mut host, member, mapped(group), true),
        Err(Errno::ADDRINUSE)
    );
    let sender = udp(&mut world);
    world
        .send_to(
            &mut host,
            sender,
            Gather::new(b"all"),
            &v4(group, 1900),
            None,
        )
        .unwrap();
    let from = receive(&mut world, &mut host, member).unwrap().1;
    assert_eq!(from, v4(INTERFACE, 32768));
    let outputs = host.take();
    assert!(
        outputs
            .iter()
            .any(|c| matches!(c, Call::DatagramSend(0, ..)))
    );
    world
        .set_option(sender, SockOption::NoMulticastLoop, 1)
        .unwrap();
    world
        .send_to(
            &mut host,
            sender,
            Gather::new(b"all"),
            &v4(group, 1900),
            None,
        )
        .unwrap();
    assert!(receive(&mut world, &mut host, member).is_none());
    let everybody = v4([255; 4], 1900);
    assert_eq!(
        world.send_to(&mut host, sender, Gather::new(b"x"), &everybody, None),
        Err(Errno(libc::EACCES))
    );
    world.set_option(sender, SockOption::Broadcast, 1).unwrap();
    world
        .send_to(&mut host, sender, Gather::new(b"x"), &everybody, None)
        .unwrap();
    assert!(receive(&mut world, &mut host, member).is_some());
}

#[test]
fn a_full_queue_drops_udp_and_holds_up_unix() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let server = bound(&mut world, [0; 4], 53);
    let client = udp(&mut world);
    world.connect(&mut host, client, &v4(LOOPBACK, 53)).unwrap();
    let most = world.limits().local_capacity as usize;
    for _ in 0..most / 1000 + 10 {
        assert_eq!(world.send(&mut host, client, &[7; 1000]), Ok(1000));
    }
    assert!(world.datagrams_dropped() > 0);
    world.desc_release(&mut host, server).unwrap();
    world.desc_release(&mut host, client).unwrap();

    let make = |world: &mut World| world.socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0, 0).unwrap();
    let (server, client) = (make(&mut world), make(&mut world));
    world.bind(server, &unix("\0log")).unwrap();
    world.connect(&mut host, client, &unix("\0log")).unwrap();
    let full = loop {
        if let Err(error) = world.send(&mut host, client, &[7; 1000]) {
            break error;
        }
    };
    assert_eq!(full, Errno::AGAIN);
    let out = libc::POLLOUT as u32;
    assert_eq!(world.readiness(client).unwrap() & out, 0);
    let mut bytes = [0; 2000];
    assert_eq!(world.recv(&mut host, server, &mut bytes), Ok(1000));
    assert_ne!(world.readiness(client).unwrap() & out, 0);
    assert_eq!(world.send(&mut host, client, &[7; 1000]), Ok(1000));
}

#[test]
fn descriptors_come_with_their_bytes_and_end_a_read() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (a, b) = world
        .socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    let (reader, writer) = world.pipe(0).unwrap();
    world.send(&mut host, a, b"ab").unwrap();
    assert!(world.can_attach(a, 2));
    world
        .send_attached(&mut host, a, Gather::new(b"cd"), &[reader.raw(), 0])
        .unwrap();
    world.send(&mut host, a, b"ef").unwrap();
    // Only the message holds the pipe's end now.
    world.desc_release(&mut host, reader).unwrap();
    assert_eq!(world.kind(reader), Ok(Kind::PipeRead));
    let mut bytes = [0; 16];
    let got = world
        .recv_iov(&mut host, b, Scatter::new(&mut bytes), false)
        .unwrap();
    assert_eq!((got.len, &bytes[..4]), (4, &b"abcd"[..]));
    let attachment = got.attached.unwrap();
    assert_eq!(world.attachment_len(attachment), 2);
    assert_eq!(world.attachment_desc(attachment, 0), Some(reader));
    assert_eq!(world.attachment_desc(attachment, 1), None);
    world.attachment_free(&mut host, attachment);
    assert_eq!(world.kind(reader), Err(Errno::BADF));
    assert_eq!(world.recv(&mut host, b, &mut bytes), Ok(2));
    // What nobody received goes with the socket.
    world
        .send_attached(&mut host, a, Gather::new(b"x"), &[writer.raw(), a.raw()])
        .unwrap();
    world.desc_release(&mut host, writer).unwrap();
    world.desc_release(&mut host, a).unwrap();
    world.desc_release(&mut host, b).unwrap();
    for gone in [writer, a, b] {
        assert_eq!(world.kind(gone), Err(Errno::BADF));
    }
    assert_eq!(world.counters().descs, 0);
}
