//! Simulated clients: they send requests in pieces, wait or do not, read slowly,
//! and see answers.

use super::checker::Checker;
use super::host::{Pipe, SimSocket};
use super::program::MESSAGE;
use crane_channel::epoch::ConnId;
use crane_gateway::clients::Readiness;
use mio::Token;
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::{Arc, Mutex};

/// A client and its connection.
pub struct Client {
    /// The replica it is connected to, and which start of it.
    pub replica: u8,
    pub life: u64,
    pub conn: ConnId,
    token: Token,
    pipe: Arc<Mutex<Pipe>>,
    /// Requests sent, all but what is in `unsent`.
    pub sent: u32,
    unsent: Vec<u8>,
    pub answered: u32,
    answer: Vec<u8>,
    /// Reads at most so many bytes at a time; 0 for all.
    slow: usize,
    /// It will send no more.
    pub ending: bool,
    /// It broke off.
    pub broken: bool,
    /// Its end was seen.
    pub over: bool,
}

impl Client {
    /// A client that connects; `enter` gives its socket to the gateway and says
    /// which connection it became.
    pub fn connect(
        rng: &mut SmallRng,
        (replica, life): (u8, u64),
        enter: impl FnOnce(SimSocket) -> (ConnId, Token),
    ) -> Self {
        let pipe = Arc::new(Mutex::new(Pipe {
            room: 1 << 20,
            ..Pipe::default()
        }));
        let (conn, token) = enter(SimSocket(pipe.clone()));
        let slow = if rng.random_bool(0.2) { 20 } else { 0 };
        if slow > 0 {
            pipe.lock().expect("one thread").room = slow;
        }
        Self {
            replica,
            life,
            conn,
            token,
            pipe,
            sent: 0,
            unsent: Vec::new(),
            answered: 0,
            answer: Vec::new(),
            slow,
            ending: false,
            broken: false,
            over: false,
        }
    }

    fn pipe(&self) -> std::sync::MutexGuard<'_, Pipe> {
        self.pipe.lock().expect("one thread")
    }

    /// Whether it waits for nothing.
    pub fn is_satisfied(&self) -> bool {
        self.unsent.is_empty() && self.answered == self.sent
    }

    /// Makes requests, and sends a piece of them, or all. Returns what the
    /// gateway's system reports.
    pub fn send(
        &mut self,
        rng: &mut SmallRng,
        requests: u32,
        all: bool,
    ) -> Option<(Token, Readiness)> {
        if self.over || self.broken || self.pipe().eof {
            return None;
        }
        if !self.ending {
            for _ in 0..requests {
                self.unsent.extend(self.conn.0.to_be_bytes()[4..].iter());
                self.unsent.extend(self.sent.to_le_bytes());
                let rest: [u8; MESSAGE - 8] = rng.random();
                self.unsent.extend(rest);
                self.sent += 1;
            }
        }
        let n = if all {
            self.unsent.len()
        } else {
            rng.random_range(0..=self.unsent.len())
        };
        let ends = self.ending && n == self.unsent.len();
        let piece: Vec<u8> = self.unsent.drain(..n).collect();
        let mut pipe = self.pipe();
        pipe.input.extend(piece);
        pipe.eof |= ends;
        let now = Readiness {
            readable: n > 0,
            read_closed: ends,
            ..Readiness::default()
        };
        drop(pipe);
        (now != Readiness::default()).then_some((self.token, now))
    }

    /// Goes without a word.
    pub fn break_off(&mut self) -> (Token, Readiness) {
        self.broken = true;
        self.pipe().broken = true;
        let now = Readiness {
            error: true,
            ..Readiness::default()
        };
        (self.token, now)
    }

    /// Reads what there is. Returns what the gateway's system reports: that
    /// there is room again.
    pub fn read(&mut self, checker: &mut Checker) -> Option<(Token, Readiness)> {
        let mut pipe = self.pipe.lock().expect("one thread");
        let bytes: Vec<u8> = pipe.output.drain(..).collect();
        if self.slow > 0 {
            pipe.room = self.slow;
        } else {
            pipe.room = 1 << 20;
        }
        let blocked = std::mem::take(&mut pipe.blocked);
        let over = pipe.dropped || pipe.ended;
        drop(pipe);
        for byte in bytes {
            self.answer.push(byte);
            if self.answer.len() == MESSAGE {
                let whole = std::mem::take(&mut self.answer);
                let whole: [u8; MESSAGE] = whole.try_into().expect("so many");
                checker.answer(self.conn, self.answered, &whole);
                self.answered += 1;
            }
        }
        self.over = over;
        let now = Readiness {
            writable: true,
            ..Readiness::default()
        };
        blocked.then_some((self.token, now))
    }
}
