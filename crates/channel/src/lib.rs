//! The shared memory segment between a node and the server it runs.
//!
//! One file on a tmpfs, mapped by the node's engine and, at the fixed address
//! [`layout::SEGMENT_ADDRESS`], by every process of the server. It holds
//!
//! * a [`layout::Header`] with the settings both sides must agree on and the
//!   server's published state,
//! * the **log ring** (node to server): committed epochs, see [`epoch`],
//! * the **output ring** (server to node): what the server did, see [`output`],
//! * the last operations and outputs of the server, see [`recent`],
//! * the **world**: the interposer's own state (scheduler, virtual kernel),
//!   opaque to the node.
//!
//! Rings are single producer, single consumer. On the server's side "single"
//! means the holder of the turn, whichever thread or process that is. Nothing
//! here allocates, and nothing calls libc, so the interposer may use all of it
//! from any context. Waiting is by futex on words of the segment, because no
//! descriptor may be shared across a checkpoint.

#![cfg_attr(not(any(feature = "std", test)), no_std)]

pub mod epoch;
pub mod futex;
pub mod layout;
pub mod output;
pub mod recent;
pub mod ring;
#[cfg(feature = "std")]
pub mod saved;
#[cfg(feature = "std")]
pub mod segment;
