//! The real host: sockets of clients and the system's clocks.

use crate::clock::wall_clock;
use crate::config::Config;
use crate::data_plane::DataPlane;
use crate::host::Host;
use crate::peers::{LINK_TOKENS, PEER_LISTENER, Peers};
use crate::share::{Membership, Share};
use crate::shared::{Shared, Work, lock};
use crane_consensus::RealDisk;
use crane_gateway::clients::{self, Accepted, Arrived, Clients, Readiness};
use crane_gateway::connection::Effects;
use crane_gateway::datagrams::{self, Datagrams, Sender, gateway_word};
use crane_gateway::listeners::{Door, Listeners};
use crane_gateway::unix::{self, UnixListeners};
use mio::event::Event;
use mio::{Events, Poll, Token};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The token of the inbox's waker.
pub const WAKER: Token = Token(0);
/// The token of the alarm.
pub const ALARM: Token = Token(1);
const EVENTS_AT_ONCE: usize = 1024;
/// How long a server may take to open its TCP port after others.
const BESIDES_AFTER: Duration = Duration::from_secs(2);
/// How often it is told that clients find no descriptors.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// Where clients come in, and everything else that waits in epoll.
pub struct Sockets<'a> {
    shared: &'a Shared,
    replica: u8,
    poll: Poll,
    listeners: Listeners,
    datagrams: Datagrams,
    unix: UnixListeners,
    /// Where else clients reach the server, and since when, until it is told
    /// because the server opens no TCP port.
    besides: Option<(Instant, String)>,
    /// When it was told that there are no descriptors for more clients.
    starved_since: Option<Instant>,
    /// Clients wait for want of descriptors.
    pressed: bool,
}

impl<'a> Sockets<'a> {
    /// No sockets yet.
    pub fn new(shared: &'a Shared, config: &Config, poll: Poll) -> Self {
        Self {
            shared,
            replica: config.id,
            poll,
            listeners: Listeners::new(config.listen_host, config.port_map.clone())
                .at_virtual(config.virtual_host),
            datagrams: Datagrams::new(config.listen_host, config.port_map.clone()),
            unix: UnixListeners::new(config.log_dir.with_file_name("sockets")),
            besides: None,
            starved_since: None,
            pressed: false,
        }
    }

    fn note_accepted(&mut self, accepted: Accepted) {
        self.pressed |= accepted == Accepted::NoDescriptors;
        if accepted == Accepted::NoDescriptors && self.starved_since.is_none() {
            self.starved_since = Some(Instant::now());
            self.shared.notices.warn(
                "no file descriptors are left for more clients; raise the limit of open files \
                 (ulimit -n) of this replica",
            );
        }
    }

    fn note_listening(&self, port: u16, real: SocketAddr) {
        self.shared.notices.add(
            "listening",
            json!({ "port": port, "address": real.to_string() }),
        );
        self.figure_listening();
    }

    fn figure_listening(&self) {
        lock(&self.shared.figures).listening = self.listeners.addresses().collect();
    }

    fn unlisten(&mut self, listener: u32) {
        if !self.unix.withdraw(listener) && self.listeners.withdraw(listener) {
            self.figure_listening();
        }
    }

    fn datagram_open(&mut self, socket: u32, address: SocketAddr) {
        let registry = self.poll.registry();
        match self.datagrams.announce(socket, address, registry) {
            Ok(Some(real)) => self.note_datagrams(address.port(), real),
            Ok(None) => {}
            // A program that cannot be reached by datagrams goes on without.
            Err(e) => self.shared.notices.warn(e.to_string()),
        }
    }

    fn datagram_group(&mut self, socket: u32, group: [u8; 16], join: bool) {
        let registry = self.poll.registry();
        if let Err(e) = self.datagrams.group(socket, group, join, registry) {
            self.shared.notices.warn(e.to_string());
        }
    }

    /// From now on datagrams come in and go out.
    fn enable_datagrams(&mut self) {
        let (opened, failed) = self.datagrams.enable(self.poll.registry());
        for (port, real) in opened {
            self.note_datagrams(port, real);
        }
        for error in failed {
            self.shared.notices.warn(error.to_string());
        }
    }

    fn listen_unix(&mut self, listener: u32, address: Vec<u8>) {
        let opened = self.unix.announce(listener, address, self.poll.registry());
        self.note_unix(opened.transpose());
    }

    /// From now on clients reach the server's Unix sockets.
    fn enable_unix(&mut self) {
        for opened in self.unix.enable(self.poll.registry()) {
            self.note_unix(Some(opened));
        }
    }

    fn note_unix(&mut self, opened: Option<Result<PathBuf, String>>) {
        match opened {
            Some(Ok(path)) => {
                let path = path.display().to_string();
                self.besides
                    .get_or_insert_with(|| (Instant::now(), path.clone()));
                self.shared.notices.add("unix", json!({ "path": path }));
            }
            Some(Err(why)) => self.shared.notices.warn(why),
            None => {}
        }
    }

    /// A server without a TCP port serves where it listens otherwise.
    fn tell_besides(&mut self, now: Instant) {
        let due = |(since, _): &mut (Instant, String)| now > *since + BESIDES_AFTER;
        if let Some((_, address)) = self.besides.take_if(due)
            && self.listeners.addresses().next().is_none()
        {
            let told = json!({ "port": 0, "address": address });
            self.shared.notices.add("listening", told);
        }
    }

    fn note_datagrams(&mut self, port: u16, real: SocketAddr) {
        self.besides
            .get_or_insert_with(|| (Instant::now(), format!("{real}/udp")));
        self.shared.notices.add(
            "datagrams",
            json!({ "port": port, "address": real.to_string() }),
        );
    }
}

impl Host for Sockets<'_> {
    type Disk = RealDisk;
    type Links = Peers;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_clock(&self) -> u64 {
        wall_clock()
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        let mut filled = 0;
        while filled < seed.len() {
            // Fails only when interrupted, before the system has collected enough.
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut seed[filled..], flags).unwrap_or(0);
        }
        seed
    }

    fn carry_out(&mut self, work: Work, clients: &Clients, leads: bool) -> Result<(), String> {
        match work {
            Work::Listen { listener, address } => {
                let registry = self.poll.registry();
                let opened = self.listeners.announce(listener, address, registry);
                if let Some(real) = opened.map_err(|e| e.to_string())? {
                    self.note_listening(address.port(), real);
                }
            }
            Work::ListenUnix { listener, address } => self.listen_unix(listener, address),
            Work::DatagramOpen { socket, address } => self.datagram_open(socket, address),
            Work::DatagramGroup {
                socket,
                group,
                join,
            } => self.datagram_group(socket, group, join),
            Work::DatagramSend {
                route,
                socket,
                to,
                bytes,
            } => {
                let incarnation = clients.stream_ref().incarnation();
                let sender = Sender {
                    gateway: gateway_word(self.replica, incarnation),
                    leads,
                };
                self.datagrams.send(route, socket, &to, &bytes, sender);
            }
            Work::DatagramClose(socket) => self.datagrams.withdraw(socket),
            Work::Unlisten(listener) => self.unlisten(listener),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), String> {
        let opened = self.listeners.enable(self.poll.registry());
        let opened = opened.map_err(|e| e.to_string())?;
        for (port, real) in self.listeners.addresses() {
            if opened.contains(&real) {
                self.note_listening(port, real);
            }
        }
        self.enable_datagrams();
        self.enable_unix();
        Ok(())
    }

    fn close(&mut self) {
        self.listeners.close();
        self.datagrams.close();
        self.unix.close();
        self.figure_listening();
    }

    fn announce(&mut self, share: &Share) {
        // Nothing real is opened before the replica has caught up.
        let registry = self.poll.registry();
        for &(listener, address) in &share.listeners {
            let _ = self.listeners.announce(listener, address, registry);
        }
        for (listener, address) in &share.unix {
            let _ = self.unix.announce(*listener, address.clone(), registry);
        }
        for &(socket, address) in &share.datagrams {
            let _ = self.datagrams.announce(socket, address, registry);
        }
        for &Membership { socket, group } in &share.groups {
            let _ = self.datagrams.group(socket, group, true, registry);
        }
    }

    fn announced(&self, share: &mut Share) {
        share.listeners = self.listeners.announced().collect();
        let unix = self.unix.announced();
        share.unix = unix.map(|(id, address)| (id, address.to_vec())).collect();
        share.datagrams = self.datagrams.announced().collect();
        let joined = self.datagrams.joined();
        share.groups = joined
            .map(|(socket, group)| Membership { socket, group })
            .collect();
    }

    fn adopt(&mut self, clients: &mut Clients, arrived: &Arrived<'_>) -> Option<(Token, Effects)> {
        clients.adopt(arrived, self.poll.registry())
    }

    fn chores(&mut self, links: &mut Peers, clients: &mut Clients) {
        let now = Instant::now();
        links.tick(self.poll.registry(), &self.shared.notices);
        self.tell_besides(now);
        if clients.is_starved() {
            clients.retry_starved(&self.unix, self.poll.registry());
        }
        self.pressed = clients.is_starved();
        if self.starved_since.is_some_and(|at| now > at + TELL_AGAIN) {
            self.starved_since = None;
        }
    }

    fn is_pressed(&self) -> bool {
        self.pressed
    }
}

impl DataPlane<'_, Sockets<'_>> {
    /// Runs until the engine stops or cannot go on.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        while !self.shared.stopping() {
            let waiting = self.clients.has_more()
                || self.host.datagrams.has_more()
                || self.core.peers.has_more();
            let timeout = if waiting {
                Duration::ZERO
            } else {
                self.sleep_until().saturating_duration_since(Instant::now())
            };
            match self.host.poll.poll(&mut events, Some(timeout)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    self.shared.fail(format!(
                        "waiting for events failed: {e}; restart this replica"
                    ));
                    return;
                }
                _ => {}
            }
            self.count_sleep();
            self.take(&events);
            if let Err(why) = self.turn() {
                self.shared.fail(why);
            }
            if lock(&self.shared.fatal).is_some() {
                // Everything is closed by the drop, so that clients and the
                // other replicas notice at once.
                return;
            }
        }
        self.finish();
    }

    /// Takes in what the system reported, and what was left over.
    fn take(&mut self, events: &Events) {
        for event in events {
            self.dispatch(event);
        }
        self.core.peers.go_on(&self.shared.notices);
        let host = &mut self.host;
        let accepted = self
            .clients
            .go_on(&mut host.listeners, host.poll.registry());
        host.note_accepted(accepted);
        let leads = self.node.is_leader();
        let stream = self.clients.stream();
        host.datagrams.go_on(stream, host.replica, leads);
    }

    fn dispatch(&mut self, event: &Event) {
        let token = event.token();
        let host = &mut self.host;
        if clients::is_client(token) {
            self.clients.ready(token, Readiness::from(event));
        } else if let Some(door) = Door::of(token) {
            let registry = host.poll.registry();
            let accepted = self.clients.accept(door, &mut host.listeners, registry);
            host.note_accepted(accepted);
        } else if token == ALARM {
            self.shared.alarm.fired();
        } else if datagrams::is_datagram(token) {
            let leads = self.node.is_leader();
            let stream = self.clients.stream();
            host.datagrams.receive(token, stream, host.replica, leads);
        } else if unix::is_unix(token) {
            let registry = host.poll.registry();
            let accepted = self.clients.accept_unix(token, &host.unix, registry);
            host.note_accepted(accepted);
        } else if token == PEER_LISTENER {
            self.core
                .peers
                .accept(host.poll.registry(), &self.shared.notices);
        } else if token.0 >= LINK_TOKENS {
            self.core.peers.ready(token, event, &self.shared.notices);
        }
    }
}
