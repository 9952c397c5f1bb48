//! The data plane's part in datagrams and Unix sockets.

use super::DataPlane;
use crane_gateway::datagrams::{Sender, gateway_word};
use mio::Token;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a server may take to open its TCP port after others.
const BESIDES_AFTER: Duration = Duration::from_secs(2);

impl DataPlane<'_> {
    /// Reads what arrived at a socket.
    pub(super) fn datagrams_ready(&mut self, token: Token) {
        let leads = self.node.is_leader();
        let stream = self.clients.stream();
        self.datagrams.receive(token, stream, self.config.id, leads);
    }

    /// Reads what was left over.
    pub(super) fn datagrams_go_on(&mut self) {
        let leads = self.node.is_leader();
        self.datagrams
            .go_on(self.clients.stream(), self.config.id, leads);
    }

    pub(super) fn datagram_open(&mut self, socket: u32, address: SocketAddr) {
        let registry = self.poll.registry();
        match self.datagrams.announce(socket, address, registry) {
            Ok(Some(real)) => self.note_datagrams(address.port(), real),
            Ok(None) => {}
            // A program that cannot be reached by datagrams goes on without.
            Err(e) => self.shared.notices.warn(e.to_string()),
        }
    }

    pub(super) fn datagram_group(&mut self, socket: u32, group: [u8; 16], join: bool) {
        let registry = self.poll.registry();
        if let Err(e) = self.datagrams.group(socket, group, join, registry) {
            self.shared.notices.warn(e.to_string());
        }
    }

    pub(super) fn datagram_send(&mut self, route: u32, socket: u32, to: &[u8], bytes: &[u8]) {
        let incarnation = self.clients.stream_ref().incarnation();
        let sender = Sender {
            gateway: gateway_word(self.config.id, incarnation),
            leads: self.node.is_leader(),
        };
        self.datagrams.send(route, socket, to, bytes, sender);
    }

    /// From now on datagrams come in and go out.
    pub(super) fn enable_datagrams(&mut self) {
        let (opened, failed) = self.datagrams.enable(self.poll.registry());
        for (port, real) in opened {
            self.note_datagrams(port, real);
        }
        for error in failed {
            self.shared.notices.warn(error.to_string());
        }
    }

    pub(super) fn listen_unix(&mut self, listener: u32, address: Vec<u8>) {
        let opened = self.unix.announce(listener, address, self.poll.registry());
        self.note_unix(opened.transpose());
    }

    /// From now on clients reach the server's Unix sockets.
    pub(super) fn enable_unix(&mut self) {
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
    pub(super) fn tell_besides(&mut self, now: Instant) {
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
