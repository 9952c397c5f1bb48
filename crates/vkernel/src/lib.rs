//! The virtual kernel: the objects that a replicated server gets instead of
//! the real kernel's.
//!
//! Open file descriptions, per-process descriptor tables, TCP, UDP and Unix
//! sockets (driven by the replicated log or connected inside the group of
//! processes), pipes, eventfds, timerfds and epoll instances live in one
//! shared memory region. Operations are pure state changes: no allocation, no
//! system calls, no locks, no clocks. Equal operations leave equal bytes in
//! the region, on every replica.
//!
//! # Use
//!
//! One process makes the region with [`VKernel::init`]; all processes of the
//! group use [`VKernel::attach`]. Whoever calls a method holds the global
//! turn, so there is never more than one call at a time.
//!
//! Operations never block. [`Errno::AGAIN`] says that the caller, if its
//! description is blocking, waits on [`wait_key`] and retries. While it waits
//! it should keep the description alive with [`VKernel::desc_hold`], as Linux
//! does for the duration of a system call.
//!
//! # What is not here
//!
//! Raw sockets (`ESOCKTNOSUPPORT`: pass them through), pipes in packet mode
//! (`O_DIRECT`), urgent data, and socket options other than those in
//! [`SockOption`].

#![no_std]

#[cfg(test)]
extern crate std;

mod addr;
mod ancillary;
mod bind;
mod buffer;
mod closing;
mod connmap;
mod datagram;
mod datagram_queue;
mod desc;
mod epoll;
mod errno;
mod eventfd;
mod external;
mod fds;
mod host;
mod io;
mod iov;
mod listener;
mod local;
mod multicast;
mod packet;
mod pipe;
mod poll;
mod readiness;
mod region;
mod signal;
mod socket;
mod splice;
mod stream;
mod table;
mod timerfd;

pub use addr::SockAddr;
pub use ancillary::{AttachmentId, MAX_PASSED};
pub use bind::Route;
pub use buffer::CHUNK;
pub use datagram_queue::Source;
pub use desc::{DescId, Kind};
pub use epoll::EpollEvent;
pub use errno::{Errno, Result};
pub use external::conn_gateway;
pub use host::{Dir, Host, WAIT_KEY_TAG, wait_key};
pub use io::Received;
pub use iov::{Gather, Scatter};
pub use region::{AttachError, Counters, Limits, VKernel};
pub use socket::SockOption;
pub use splice::PIPE_PAGE;
pub use stream::{StreamInfo, StreamPeer};
pub use timerfd::TimerSetting;

/// Index of a process of the group, below [`Limits::procs`].
pub type ProcId = u32;
