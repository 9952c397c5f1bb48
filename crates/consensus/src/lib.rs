//! The replicated log of Crane.
//!
//! This crate is the driver around the [`raft`] state machine: its durable log
//! ([`LogStore`]), the loop that keeps messages, disk and committed entries in
//! the right order ([`Node`]), and the framing of what peers say to each other
//! ([`wire`]). It has no threads, no async runtime and reads no clock: the
//! engine's data-plane thread steps it, and the simulation in
//! `tests/simulation.rs` steps the very same code over a simulated disk and a
//! simulated network.
//!
//! # What a panic means
//!
//! `raft` panics when one of its invariants is broken (about thirty places; all
//! of them mean that this replica's state can no longer be trusted, most often
//! because a disk lost what it had acknowledged). This crate does not catch
//! such a panic: **the process ends**, and the release profile of the workspace
//! aborts. Going on with a broken replica could lose acknowledged inputs; the
//! other replicas go on without it.
//!
//! # A replica that lost its log
//!
//! A replica answers for what it promised: votes it gave and entries it
//! acknowledged. If its state directory was removed, or a new disk was put in,
//! it has forgotten those promises, and counting its vote or its
//! acknowledgement as if nothing had happened can lose committed entries. So an
//! empty state directory does not take part at once. It first asks the other
//! replicas what they know, adopts a term that covers anything it may have
//! voted in, and does not vote or stand for election until its log again
//! contains everything it may ever have acknowledged. The rule and the argument
//! for it are in [`Standing`]. A new cluster is the same case with the answer
//! "nobody has anything": it starts when all replicas are there.

#![forbid(unsafe_code)]

mod config;
pub mod disk;
mod error;
mod log;
mod membership;
mod node;
mod prng;
pub mod wire;

pub use config::{Checkpoint, Config, Durability};
pub use disk::{Disk, DiskFile, RealDisk, SimDisk};
pub use error::{Error, ProposeError};
pub use log::{LogStore, Recovery, StoreConfig};
pub use membership::{Change, ChangeError, Membership, Voters};
pub use node::{Node, Output, PeerProgress, Role, Standing};

pub use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType};
