//! Descriptor tables, timers, poll, and what must hold for the region.

mod support;

use crane_vkernel::{
    AttachError, DescId, Dir, EpollEvent, Errno, Kind, Limits, TimerSetting, VKernel,
};
use support::{Call, Random, Recorder, World, small_limits, v4};

#[test]
fn the_default_limits_fit_in_a_gigabyte() {
    assert!(VKernel::required_size(&Limits::default()) <= 1 << 30);
}

#[test]
fn a_region_is_refused_when_it_is_short_foreign_or_absurd() {
    let limits = small_limits();
    let size = VKernel::required_size(&limits);
    let mut memory = vec![0u8; size + 4096];
    let at = memory.as_ptr().align_offset(4096);
    let region = memory[at..].as_mut_ptr();
    // SAFETY: the memory is zeroed and at least as long as said.
    unsafe {
        let short = VKernel::init(region, size - 1, &limits);
        assert_eq!(short.err(), Some(AttachError::Size));
        let many = Limits {
            descs: 70_000,
            ..limits
        };
        let absurd = VKernel::init(region, size, &many);
        assert_eq!(absurd.err(), Some(AttachError::Limits));
        assert_eq!(
            VKernel::attach(region, size).err(),
            Some(AttachError::Magic)
        );
        assert!(VKernel::init(region, size, &limits).is_ok());
        assert!(VKernel::attach(region, size).is_ok());
    }
}

#[test]
fn another_process_sees_the_same_objects() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (reader, writer) = world.pipe(0).unwrap();
    world.write(&mut host, writer, b"shared").unwrap();
    let mut other = world.attach();
    let mut buf = [0; 16];
    assert_eq!(other.read(&mut host, reader, &mut buf), Ok(6));
    assert_eq!(world.read(&mut host, reader, &mut buf), Err(Errno::AGAIN));
}

#[test]
fn the_last_of_dup_and_fork_closes_the_object() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (reader, writer) = world.pipe(0).unwrap();
    world.fd_install(&mut host, 0, 3, reader, false).unwrap();
    world.fd_install(&mut host, 0, 4, writer, true).unwrap();
    world.fd_dup(&mut host, 0, 4, 7, false).unwrap();
    world.fork(0, 1).unwrap();
    assert_eq!(world.fork(0, 1), Err(Errno::EXIST));
    assert_eq!(world.refs(writer), Ok(4));
    assert_eq!(world.fd_cloexec(1, 4), Ok(true));
    assert_eq!(world.fd_cloexec(1, 7), Ok(false));
    let mut closed = Vec::new();
    world.exec(&mut host, 1, |fd| closed.push(fd)).unwrap();
    assert_eq!(closed, [4]);
    world.exit(&mut host, 1).unwrap();
    assert_eq!((world.fd_count(1), world.fd_next(1, 0)), (0, None));
    world.fd_close(&mut host, 0, 4).unwrap();
    host.block(reader, Dir::Read);
    let mut buf = [0; 1];
    assert_eq!(world.read(&mut host, reader, &mut buf), Err(Errno::AGAIN));
    world.fd_close(&mut host, 0, 7).unwrap();
    assert!(!host.is_blocked(reader, Dir::Read), "end of file wakes");
    assert_eq!(world.read(&mut host, reader, &mut buf), Ok(0));
    assert_eq!(world.fd_close(&mut host, 0, 7), Err(Errno::BADF));
    assert_eq!(world.fd_next(0, 0), Some(3));
}

#[test]
fn descriptor_numbers_out_of_range_are_refused() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let desc = world.eventfd(0, false, 0).unwrap();
    let far = world.limits().fds_per_proc as i32;
    for fd in [-1, far] {
        let done = world.fd_install(&mut host, 0, fd, desc, false);
        assert_eq!(done, Err(Errno::MFILE));
        assert_eq!(world.fd_get(0, fd), None);
    }
    assert_eq!(world.refs(desc), Ok(1));
    world
        .fd_install(&mut host, 0, far - 1, desc, false)
        .unwrap();
    let again = world.eventfd(0, false, 0).unwrap();
    world
        .fd_install(&mut host, 0, far - 1, again, false)
        .unwrap();
    assert_eq!(world.kind(desc), Err(Errno::BADF), "replaced and closed");
}

#[test]
fn a_description_that_is_held_survives_close() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let desc = world.eventfd(3, false, 0).unwrap();
    world.fd_install(&mut host, 0, 5, desc, false).unwrap();
    world.desc_hold(desc).unwrap();
    world.fd_close(&mut host, 0, 5).unwrap();
    assert_eq!(world.eventfd_read(&mut host, desc), Ok(3));
    world.desc_release(&mut host, desc).unwrap();
    assert_eq!(world.kind(desc), Err(Errno::BADF));
}

#[test]
fn a_poller_is_woken_once_by_any_of_its_descriptions() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (reader, writer) = world.pipe(0).unwrap();
    let event = world.eventfd(0, false, 0).unwrap();
    for desc in [reader, event] {
        world.poll_register(3, desc, libc::POLLIN as u32).unwrap();
    }
    world.poll_register(4, event, libc::POLLOUT as u32).unwrap();
    world.write(&mut host, writer, b"x").unwrap();
    world.eventfd_write(&mut host, event, 1).unwrap();
    assert_eq!(host.take(), [Call::WakeThread(3)]);
    world.poll_unregister_all(3);
    world.eventfd_write(&mut host, event, 1).unwrap();
    assert_eq!(host.take(), []);
    assert_eq!(world.counters().watches, 1);
    world.desc_release(&mut host, event).unwrap();
    assert_eq!(host.take(), [Call::WakeThread(4)], "closed under a poller");
    world.poll_unregister_all(4);
    assert_eq!(world.counters().watches, 0);
    let out_of_range = world.limits().threads;
    assert_eq!(
        world.poll_register(out_of_range, reader, 1),
        Err(Errno::INVAL)
    );
}

#[test]
fn a_poller_of_an_epoll_instance_hears_of_what_that_watches() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let epoll = world.epoll_create().unwrap();
    let event = world.eventfd(0, false, 0).unwrap();
    let wanted = EpollEvent {
        events: libc::EPOLLIN as u32,
        data: 9,
    };
    world
        .epoll_ctl(&mut host, epoll, libc::EPOLL_CTL_ADD, 5, event, wanted)
        .unwrap();
    world.poll_register(1, epoll, libc::POLLIN as u32).unwrap();
    world.eventfd_write(&mut host, event, 1).unwrap();
    assert_eq!(host.take(), [Call::WakeThread(1)]);
    assert_ne!(world.readiness(epoll).unwrap() & libc::EPOLLIN as u32, 0);
}

#[test]
fn epoll_instances_in_a_circle_or_too_deep_are_eloop() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let epolls: Vec<DescId> = (0..6).map(|_| world.epoll_create().unwrap()).collect();
    let event = EpollEvent {
        events: libc::EPOLLIN as u32,
        data: 0,
    };
    let mut add = |at: usize, target: usize| {
        let (ep, target) = (epolls[at], epolls[target]);
        world.epoll_ctl(&mut host, ep, libc::EPOLL_CTL_ADD, 9, target, event)
    };
    for at in 0..4 {
        assert_eq!(add(at, at + 1), Ok(()));
    }
    assert_eq!(add(4, 5), Err(Errno::LOOP));
    assert_eq!(add(2, 0), Err(Errno::LOOP));
    assert_eq!(add(0, 0), Err(Errno::INVAL));
}

#[test]
fn the_callers_own_objects_can_be_watched() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let epoll = world.epoll_create().unwrap();
    let signals = world.pollable(77, 0).unwrap();
    assert_eq!(world.pollable_tag(signals), Ok(77));
    assert_eq!(world.kind(signals), Ok(Kind::Pollable));
    let event = EpollEvent {
        events: libc::EPOLLIN as u32,
        data: 1,
    };
    world
        .epoll_ctl(&mut host, epoll, libc::EPOLL_CTL_ADD, 4, signals, event)
        .unwrap();
    let mut out = [EpollEvent::default(); 4];
    assert_eq!(world.epoll_collect(&mut host, epoll, &mut out), Ok(0));
    world
        .pollable_set(&mut host, signals, libc::EPOLLIN as u32)
        .unwrap();
    assert_eq!(world.epoll_collect(&mut host, epoll, &mut out), Ok(1));
    world.pollable_set(&mut host, signals, 0).unwrap();
    assert_eq!(world.epoll_collect(&mut host, epoll, &mut out), Ok(0));
}

#[test]
fn one_write_wakes_one_reader_who_passes_the_rest_on() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let (reader, writer) = world.pipe(0).unwrap();
    host.block(reader, Dir::Read);
    host.block(reader, Dir::Read);
    world.write(&mut host, writer, b"ab").unwrap();
    assert!(host.is_blocked(reader, Dir::Read));
    world.read(&mut host, reader, &mut [0; 1]).unwrap();
    assert!(!host.is_blocked(reader, Dir::Read));
}

#[test]
fn a_full_table_says_enfile_and_recovers() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let mut all = Vec::new();
    while let Ok(desc) = world.eventfd(0, false, 0) {
        all.push(desc);
    }
    assert_eq!(all.len() as u32, world.limits().descs - 1);
    assert_eq!(world.pipe(0), Err(Errno::NFILE));
    let pair = world.socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, 0);
    assert_eq!(pair, Err(Errno::NFILE));
    for desc in all.drain(..) {
        world.desc_release(&mut host, desc).unwrap();
    }
    assert!(world.pipe(0).is_ok());
}

/// Uses everything in a random order that depends on `seed` alone.
fn busy(world: &mut World, host: &mut Recorder, seed: u64) {
    let mut random = Random(seed);
    let listener = world
        .socket(libc::AF_INET, libc::SOCK_STREAM, 0, 0)
        .unwrap();
    world.bind(listener, &v4([0; 4], 80)).unwrap();
    world.listen(host, listener, 100).unwrap();
    let id = world.listener_id(listener);
    let epoll = world.epoll_create().unwrap();
    let mut open = vec![listener, epoll];
    let (mut next_conn, mut now) = (1, 0);
    let mut buf = vec![0; 9000];
    for _ in 0..5000 {
        let desc = random.pick(&open);
        match random.below(16) {
            0 => {
                next_conn += 1;
                let addr = v4([192, 0, 2, 1], 9);
                world.apply_connect(host, next_conn, id, &addr, &addr);
            }
            1..=3 => {
                let conn = 1 + random.below(next_conn as usize) as u64;
                let len = random.below(9000);
                world.apply_data(host, conn, &buf[..len]);
            }
            4 => open.extend(world.accept(host, listener, 0)),
            5 | 6 => _ = world.read(host, desc, &mut buf),
            7 | 8 => _ = world.write(host, desc, &[1; 700]),
            9 if open.len() < 100 => {
                let (a, b) = world.pipe(0).unwrap();
                let timer = world.timerfd(0, 0).unwrap();
                let value = 1 + random.below(100) as u64;
                world
                    .timerfd_settime(host, timer, now, false, TimerSetting { value, interval: 3 })
                    .unwrap();
                open.extend([a, b, timer]);
            }
            10 => {
                now += 10;
                world.advance(host, now);
            }
            11 => {
                let event = EpollEvent {
                    events: libc::EPOLLIN as u32,
                    data: 1,
                };
                let add = libc::EPOLL_CTL_ADD;
                _ = world.epoll_ctl(host, epoll, add, 1, desc, event);
            }
            12 => _ = world.epoll_collect(host, epoll, &mut [EpollEvent::default(); 3]),
            13 => _ = world.poll_register(random.below(16) as u32, desc, 1),
            14 => world.poll_unregister_all(random.below(16) as u32),
            _ if desc != listener && desc != epoll => {
                open.retain(|other| *other != desc);
                world.desc_release(host, desc).unwrap();
            }
            _ => {}
        }
    }
    // Close in an order of its own.
    while !open.is_empty() {
        let desc = open.swap_remove(random.below(open.len()));
        world.desc_release(host, desc).unwrap();
    }
    for thread in 0..16 {
        world.poll_unregister_all(thread);
    }
}

#[test]
fn equal_operations_leave_equal_bytes_and_calls_and_nothing_leaks() {
    for seed in 1..8 {
        let (mut a, mut b) = (World::new(), World::new());
        let (mut host_a, mut host_b) = (Recorder::default(), Recorder::default());
        busy(&mut a, &mut host_a, seed);
        busy(&mut b, &mut host_b, seed);
        assert_eq!(host_a.take(), host_b.take());
        assert!(a.bytes() == b.bytes(), "regions differ for seed {seed}");
        let left = a.counters();
        assert_eq!(
            (
                left.descs,
                left.conns,
                left.chunks,
                left.watches,
                left.timers
            ),
            (0, 0, 0, 0, 0)
        );
        assert!(left.chunks_peak > 0 && left.descs_peak > 10);
    }
}
