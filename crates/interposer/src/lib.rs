//! The library that Crane preloads into a server.
//!
//! It stands at the C library's interfaces to everything that could bring in
//! what is not in the log: sockets, threads and locks, clocks, randomness,
//! descriptors, processes and signals. [`exports`] is the one table of what is
//! interposed; each family has a file; [`turn`] makes calls operations of the
//! schedule; [`boundary`] applies the log and tells the node; [`world`] is the
//! state, in the shared segment.
//!
//! Rules inside: no allocation, no locks, no libc below the surface except for
//! the few calls that have no other way (their list is `real` and the `extern`
//! blocks), no unwinding, no output that was not asked for. x86-64 and glibc.

#![no_std]
// This library is private to the product: its exports are the C library's.
#![allow(missing_docs)]

mod actions;
mod ancillary;
mod barrier;
mod boundary;
mod c11;
mod callsite;
mod cancel;
mod clock;
mod clone;
mod condvar;
mod control;
mod datagrams;
mod directories;
mod dprintf;
mod dynamic;
mod exec;
mod exports;
mod fatal;
mod fds;
mod files;
mod futex;
mod holds;
mod ids;
mod image;
mod inodes;
mod inotify;
mod instruction;
mod interfaces;
mod jumps;
mod kill;
mod locks;
mod machine;
mod masks;
mod memory;
mod messages;
mod mutex;
mod network;
mod numbers;
mod objects;
mod once;
mod operations;
mod options;
mod outside;
mod pidfds;
mod polling;
mod priorities;
mod process;
mod random;
mod raw;
mod real;
mod recent;
mod refuse;
mod restored;
mod rwlock;
mod semaphore;
mod signalfd;
mod signals;
mod sigwait;
mod sockets;
mod spawn;
mod spin;
mod spinlock;
mod splice;
mod stack;
mod stdio;
mod stops;
mod sysv;
mod temporary;
mod threads;
mod timers;
mod times;
mod tls;
mod trace;
mod transfer;
mod trap;
mod tsc;
mod turn;
mod unix;
mod wait;
mod world;
