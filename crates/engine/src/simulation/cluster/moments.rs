//! From one moment at which something happens to the next.

use super::*;

impl Cluster<'_> {
    /// Everything that happens up to the next moment at which something does.
    pub(super) fn advance(&mut self) {
        let next = self.next_moment().max(self.now() + 1);
        self.clock.set(next);
        let now = self.now();
        if now >= self.next_fault {
            self.next_fault = now + 2 * MILLISECOND;
            self.chores();
            if !self.calm {
                self.fault();
            }
        }
        let mut awake = vec![false; self.replicas.len()];
        loop {
            let reads = |id: u8| {
                let replica = &self.replicas[usize::from(id) - 1];
                replica.running.is_some() && now >= replica.paused_until
            };
            let Some((from, to, conn, packet)) = self.network.arriving(now, reads) else {
                break;
            };
            let at = usize::from(to) - 1;
            awake[at] = true;
            if let Some(running) = &mut self.replicas[at].running
                && !running.links().arrive(from, conn, packet)
            {
                self.network.send(&mut self.rng, now, to, conn, Packet::End);
            }
        }
        if now >= self.next_client {
            self.next_client = now + self.rng.random_range(200..10 * MILLISECOND);
            self.client_acts();
        }
        for (at, awake) in awake.iter().enumerate() {
            let replica = &self.replicas[at];
            if now < replica.paused_until {
                continue;
            }
            if let Some(running) = &replica.running {
                let program = running
                    .program
                    .busy_until()
                    .is_some_and(|until| now >= until);
                let alarm = running.alarm_in(now) == Some(0);
                if *awake
                    || program
                    || alarm
                    || now >= running.wake_at
                    || !running.ready.is_empty()
                    || running.shared.inbox.is_woken()
                {
                    self.turn_with_program(at);
                }
            }
        }
        self.clients_read();
    }

    pub(super) fn turn_with_program(&mut self, at: usize) {
        let now = self.now();
        // The program and the output thread do not wait for the data plane.
        if let Some(running) = &mut self.replicas[at].running {
            running.step_program(now, &mut self.checker);
        }
        self.turn(at);
    }

    pub(super) fn next_moment(&self) -> u64 {
        let now = self.now();
        let reads = |id: u8| {
            let replica = &self.replicas[usize::from(id) - 1];
            replica.running.is_some() && now >= replica.paused_until
        };
        let mut next = self.next_fault.min(self.next_client);
        if let Some(at) = self.network.next(reads) {
            next = next.min(at);
        }
        for replica in &self.replicas {
            let Some(running) = &replica.running else {
                continue;
            };
            if now < replica.paused_until {
                next = next.min(replica.paused_until);
                continue;
            }
            next = next.min(running.wake_at);
            if let Some(until) = running.program.busy_until() {
                next = next.min(until);
            }
            if let Some(at) = running.alarm_in(now) {
                next = next.min(now + at);
            }
        }
        next
    }

    /// What the system, and whoever looks after the replicas, does.
    pub(super) fn chores(&mut self) {
        let now = self.now();
        for (side, other, conn) in self.network.give_up(&mut self.rng, now) {
            self.lose(side, other, conn);
        }
        for a in self.ids() {
            for b in 1..a {
                let ready = |id: u8| {
                    let replica = &self.replicas[usize::from(id) - 1];
                    replica.running.is_some() && now >= replica.paused_until
                };
                let Some(to) = self.replicas[usize::from(b) - 1].running.as_ref() else {
                    continue;
                };
                let answer = Packet::Hello(to.incarnation, to.members().clone());
                if !ready(a) || self.network.is_between(a, b) {
                    continue;
                }
                if let Some(running) = &mut self.replicas[usize::from(a) - 1].running {
                    let hello = Packet::Hello(running.incarnation, running.members().clone());
                    let Some(end) = running.links().ends.get_mut(&b) else {
                        continue;
                    };
                    if end.conn.is_none() && now >= end.dial_at {
                        end.dial_at = now + end.back_off;
                        end.back_off = (2 * end.back_off).min(500_000);
                        self.network
                            .dial(&mut self.rng, now, (a, b), [hello, answer]);
                    }
                }
            }
        }
        for at in 0..self.replicas.len() {
            self.fetch(at);
            let id = at as u8 + 1;
            let lost = |r: &mut Replica| {
                let running = r.running.as_mut()?;
                running.links().lost_at(id)
            };
            let longest = self.replicas.iter_mut().filter_map(lost).min();
            let isolated =
                longest.is_some_and(|since| now >= since + DOWN_AFTER - 10 * MILLISECOND);
            if isolated {
                self.replicas[at].isolated_at = Some(now);
            }
        }
    }

    pub(super) fn lose(&mut self, side: u8, other: u8, conn: u64) {
        if let Some(running) = &mut self.replicas[usize::from(side) - 1].running {
            running.links().arrive(other, conn, Packet::End);
            running.wake_at = 0;
        }
    }

    pub(super) fn client_acts(&mut self) {
        let id = self.rng.random_range(1..=self.replicas.len() as u8);
        let at = usize::from(id) - 1;
        self.clients.retain(|c| !c.over);
        let mine: Vec<usize> = (0..self.clients.len())
            .filter(|&n| self.clients[n].replica == id)
            .collect();
        let replica = &mut self.replicas[at];
        let Some(running) = &mut replica.running else {
            return;
        };
        let host = &running.data_plane.host;
        if mine.len() < 2 || (mine.len() < 5 && self.rng.random_bool(0.05)) {
            if host.is_open && host.listening {
                let life = (id, replica.life);
                let gateway = &mut running.data_plane.clients;
                self.figures.clients += 1;
                let client = Client::connect(&mut self.rng, life, |socket| {
                    let mut known = Token(0);
                    let address = [2, 0, 0, 1, 127, 0, 0, 1];
                    let conn = gateway.enter(1, &address, &address, |token| {
                        known = token;
                        Ok(Box::new(socket))
                    });
                    (conn.expect("it was let in"), known)
                });
                running.wake_at = 0;
                self.clients.push(client);
            }
            return;
        }
        let client = &mut self.clients[mine[self.rng.random_range(0..mine.len())]];
        let report = match self.rng.random_range(0..100) {
            0 if !self.calm => Some(client.break_off()),
            1 if !self.calm => {
                client.ending = true;
                client.send(&mut self.rng, 0, true)
            }
            2..40 => {
                let requests = self.rng.random_range(1..6);
                client.send(&mut self.rng, requests, false)
            }
            _ if client.is_satisfied() => client.send(&mut self.rng, 1, true),
            _ => client.send(&mut self.rng, 0, true),
        };
        running.ready.extend(report);
    }

    pub(super) fn clients_read(&mut self) {
        for client in &mut self.clients {
            let at = usize::from(client.replica) - 1;
            let replica = &mut self.replicas[at];
            if client.over || replica.life != client.life {
                continue;
            }
            let report = client.read(&mut self.checker);
            if let Some(running) = &mut replica.running {
                running.ready.extend(report);
            }
            let asked = client.ending || client.broken;
            let down = (client.conn.gateway(), client.conn.incarnation());
            assert!(
                !client.over || asked || self.checker.downs.contains(&down),
                "safety: {:?} was closed although its replica lives",
                client.conn
            );
        }
    }
}
