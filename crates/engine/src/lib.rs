//! One replica's engine: consensus, gateway and the segment tied together.
//!
//! Two threads. The **data-plane thread** does everything that waits in epoll:
//! clients, other replicas, ticks, the log and its disk, and publishes committed
//! epochs to the server ([`data_plane`]). The **output thread** sleeps on the
//! server's output ring and writes replies to the clients' sockets itself
//! ([`server_output`]), so that a reply costs no hand-over between threads.
//! Neither polls; an idle engine wakes only for the ticks of consensus.

#![warn(missing_docs)]

mod agreement;
mod bubble;
mod budget;
mod clock;
mod commit;
pub mod config;
mod data_plane;
#[doc(hidden)]
pub mod decoders;
mod dump;
mod engine;
mod error;
mod gateways;
mod held;
mod hold;
mod host;
mod lead;
mod link;
mod mail;
mod manifest;
mod message;
mod notice;
mod pace;
mod peers;
mod program;
mod publish;
mod refusals;
mod replayer;
mod returns;
pub mod roster;
mod server_output;
pub mod share;
mod shared;
#[cfg(test)]
mod simulation;
mod sockets;
mod status;
mod stream;
mod threads;
mod timekeeper;
mod tls;
mod watch;
mod witness;

pub use config::Config;
pub use crane_channel::layout::SeenFile;
pub use dump::dump_log;
pub use engine::{Engine, begin_log};
pub use error::EngineError;
pub use hold::hold_back;
pub use replayer::{Replay, Replayer};
