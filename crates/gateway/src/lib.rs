//! Client sockets to numbered log events, and server outputs to client sockets.
//!
//! Every replica is a gateway: it accepts clients on the ports that its server
//! listens on, numbers what they do (connections, bytes, ends) and offers it to
//! the log; what its own server answers goes back to the sockets.
//!
//! * [`stream`]: this gateway's events, numbered, kept until they are in the log;
//! * [`filter`]: which events of a committed entry count, from the log alone;
//! * [`entry`]: batches of several gateways to one log entry;
//! * [`listeners`]: which real port stands for which listening socket of the server;
//! * [`socket`]: what the gateway does with a client's socket;
//! * [`connection`]: one client's socket and the output waiting for it;
//! * [`clients`]: all of them, their reading side and their windows;
//! * [`datagrams`]: the real UDP sockets behind those of the server;
//! * [`moves`]: connections that can go on at another gateway, as the log has them;
//! * [`tails`]: the output of these that their clients may lack;
//! * [`tcp`]: the state of a client's TCP socket, taken and restored;
//! * [`hold_back`]: their input is acknowledged only when it is agreed;
//! * [`unix`]: the real Unix sockets behind those of the server.
//!
//! Nothing here knows consensus; nothing blocks.

pub mod address;
pub mod clients;
pub mod connection;
pub mod datagrams;
pub mod entry;
pub mod filter;
pub mod hold_back;
pub mod listeners;
pub mod moves;
pub mod socket;
pub mod stream;
pub mod tails;
pub mod tcp;
pub mod unix;

/// Bytes read from a client at a time, and so the longest `Data` event.
pub const READ_CHUNK: usize = 64 << 10;
/// Bytes of a client's input that may wait for the server to read them, at the
/// most.
pub const INPUT_WINDOW: u64 = 1 << 20;
/// What may wait so however much others have: twice what the server's side reads
/// without telling.
pub const INPUT_FLOOR: u64 = 64 << 10;
/// Bytes in flight in the server above which clients get no more than the floor;
/// the rest of what it can hold is for what is on its way, and for the floors.
pub const INPUT_LIMIT: u64 = 256 << 20;
/// Output bytes after which a gateway tells the server's side that they left.
/// Less than half of the smallest window that the server's side gives.
pub const DRAIN_STEP: u64 = 64 << 10;
/// Output of all clients together that a gateway holds, at the most.
pub const OUTPUT_LIMIT: usize = 1 << 30;
/// Bytes of output that may wait for one client; kept by the server's side.
pub const SEND_WINDOW: u64 = 4 << 20;
/// Encoded events that may wait to be committed before clients are not read. Who
/// asks something small waits behind them.
pub const UNACKNOWLEDGED_LIMIT: usize = 8 << 20;
/// Bytes read in one round of all clients that have more, about.
pub const READ_ROUND: usize = 4 << 20;
/// What each may have read in it at least.
pub const READ_LEAST: usize = 4 << 10;
