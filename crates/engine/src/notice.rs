//! What the engine tells its owner: a queue with a descriptor to wait on.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

/// Notices kept when nobody fetches them; the oldest go first.
const LIMIT: usize = 10_000;

/// The queue. Any thread may add and fetch.
pub struct Notices {
    queue: Mutex<VecDeque<String>>,
    ready: OwnedFd,
}

impl Notices {
    /// An empty queue.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::new(VecDeque::new()),
            ready: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Adds a notice of `kind` with the fields of the object `fields`.
    pub fn add(&self, kind: &str, fields: Value) {
        let mut object = json!({ "kind": kind });
        if let (Value::Object(object), Value::Object(fields)) = (&mut object, fields) {
            object.extend(fields);
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() == LIMIT {
            queue.pop_front();
        }
        queue.push_back(object.to_string());
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.ready, &1u64.to_ne_bytes());
    }

    /// Adds a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.add("warning", json!({ "message": message.into() }));
    }

    /// The oldest notice; when there is none the descriptor becomes unreadable.
    pub fn next(&self) -> Option<String> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queue.pop_front();
        if queue.is_empty() && next.is_none() {
            let _ = rustix::io::read(&self.ready, &mut [0u8; 8]);
        }
        next
    }

    /// Readable while there are notices.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}
