//! The packet program of this process, if it has a virtual address.
//!
//! One for a process and not for an engine: it has to be there while an engine's
//! sockets are closed, and whoever looks after the node's end holds it, too.

use crate::error::EngineError;
use crate::shared::lock;
use crane_gateway::hold_back::HoldBack;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex};

static HOLD: Mutex<Option<(Ipv4Addr, Arc<HoldBack>)>> = Mutex::new(None);

/// Has connections through `address` on `interface` be such as can go on at another
/// replica. Returns the descriptor that keeps their last words back.
///
/// # Errors
/// Why they cannot.
pub fn hold_back(address: Ipv4Addr, interface: &str) -> Result<RawFd, EngineError> {
    let begun = HoldBack::begin(address, interface).map_err(|e| {
        EngineError::new(format!(
            "connections through {address} end with their leader: no packet program can be \
             attached to {interface}: {e}; it needs Linux 6.6 or newer, CAP_NET_ADMIN and CAP_BPF \
             or CAP_SYS_ADMIN"
        ))
    })?;
    let begun = Arc::new(begun);
    let descriptor = begun.descriptor().as_raw_fd();
    *lock(&HOLD) = Some((address, begun));
    Ok(descriptor)
}

/// What was begun for an address.
pub(crate) fn of(address: Option<IpAddr>) -> Option<Arc<HoldBack>> {
    let hold = lock(&HOLD);
    let (held, hold_back) = hold.as_ref()?;
    (address == Some(IpAddr::V4(*held))).then(|| hold_back.clone())
}
