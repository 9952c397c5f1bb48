//! The data plane's part in datagrams.

use super::DataPlane;
use crane_gateway::datagrams::{Sender, gateway_word};
use mio::Token;
use serde_json::json;
use std::net::SocketAddr;

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

    fn note_datagrams(&self, port: u16, real: SocketAddr) {
        self.shared.notices.add(
            "datagrams",
            json!({ "port": port, "address": real.to_string() }),
        );
    }
}
