//! Timers in virtual time.

mod support;

use crane_vkernel::{DescId, Dir, Errno, TimerSetting};
use support::{Call, Random, Recorder, World};

fn timer(world: &mut World) -> DescId {
    world.timerfd(libc::CLOCK_MONOTONIC, 0).unwrap()
}

fn set(value: u64, interval: u64) -> TimerSetting {
    TimerSetting { value, interval }
}

#[test]
fn timers_fire_in_deadline_order_and_ties_in_creation_order() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let timers: Vec<DescId> = (0..4).map(|_| timer(&mut world)).collect();
    for (at, value) in [(3, 50), (2, 20), (1, 50), (0, 90)] {
        world
            .timerfd_settime(&mut host, timers[at], 100, false, set(value, 0))
            .unwrap();
        host.block(timers[at], Dir::Read);
    }
    assert_eq!(world.next_deadline(), Some(120));
    host.take();
    assert_eq!(world.advance(&mut host, 119), 0);
    assert_eq!(world.advance(&mut host, 150), 3);
    let woken =
        [2, 1, 3].map(|at: usize| Call::WakeAll(crane_vkernel::wait_key(timers[at], Dir::Read)));
    assert_eq!(host.take(), woken);
    assert_eq!(world.next_deadline(), Some(190));
    assert_eq!(world.timerfd_read(timers[2], 150), Ok(1));
    assert_eq!(world.timerfd_read(timers[2], 150), Err(Errno::AGAIN));
}

#[test]
fn a_periodic_timer_counts_missed_periods_and_sleeps_until_it_is_read() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let desc = timer(&mut world);
    world
        .timerfd_settime(&mut host, desc, 0, false, set(10, 5))
        .unwrap();
    world.advance(&mut host, 10);
    assert_eq!(world.next_deadline(), None, "no use in firing again unread");
    world.advance(&mut host, 23);
    let mut count = [0; 8];
    assert_eq!(
        world.read(&mut host, desc, &mut count[..4]),
        Err(Errno::INVAL)
    );
    assert_eq!(world.read(&mut host, desc, &mut count), Ok(8));
    assert_eq!(u64::from_ne_bytes(count), 3, "at 10, 15 and 20");
    assert_eq!(world.next_deadline(), Some(25));
    assert_eq!(world.timerfd_gettime(desc, 23), Ok(set(2, 5)));
}

#[test]
fn settime_returns_the_old_setting_and_zero_disarms() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let desc = timer(&mut world);
    let old = world.timerfd_settime(&mut host, desc, 100, true, set(150, 7));
    assert_eq!(old, Ok(set(0, 0)));
    let old = world.timerfd_settime(&mut host, desc, 120, false, set(0, 0));
    assert_eq!(old, Ok(set(30, 7)));
    assert_eq!(world.next_deadline(), None);
    world
        .timerfd_settime(&mut host, desc, 200, true, set(150, 0))
        .unwrap();
    assert_eq!(world.readiness(desc), Ok(libc::EPOLLIN as u32), "long past");
    world.desc_release(&mut host, desc).unwrap();
    assert_eq!(world.counters().timers, 0);
}

#[test]
fn many_timers_agree_with_a_sorted_list() {
    let (mut world, mut host) = (World::new(), Recorder::default());
    let mut random = Random(11);
    let timers: Vec<DescId> = (0..100).map(|_| timer(&mut world)).collect();
    let mut model = vec![None; 100];
    for _ in 0..20_000 {
        let at = random.below(100);
        let value = random.below(1000) as u64;
        world
            .timerfd_settime(&mut host, timers[at], 0, false, set(value, 0))
            .unwrap();
        model[at] = (value > 0).then_some(value);
        assert_eq!(world.next_deadline(), model.iter().flatten().min().copied());
    }
}
