//! What the tests share: a region in ordinary memory and a host that records.
#![allow(dead_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use crane_vkernel::{DescId, Dir, Gather, Host, Limits, VKernel, wait_key};

/// Limits that make a region of a few megabytes.
pub fn small_limits() -> Limits {
    Limits {
        descs: 512,
        procs: 4,
        fds_per_proc: 1024,
        chunks: 4096,
        watches: 1024,
        threads: 16,
        reserve: 0,
        ..Limits::default()
    }
}

/// A virtual kernel in memory of its own.
pub struct World {
    kernel: VKernel,
    memory: *mut u8,
    layout: Layout,
}

impl World {
    pub fn new() -> World {
        World::with_limits(&small_limits())
    }

    pub fn with_limits(limits: &Limits) -> World {
        let size = VKernel::required_size(limits);
        let layout = Layout::from_size_align(size, 4096).unwrap();
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        assert!(!memory.is_null());
        // SAFETY: zeroed, aligned, of the required size, and ours alone.
        let kernel = unsafe { VKernel::init(memory, size, limits) }.unwrap();
        World {
            kernel,
            memory,
            layout,
        }
    }

    /// A second handle, as another process would make it.
    pub fn attach(&self) -> VKernel {
        // SAFETY: the memory lives as long as the world; the tests use one
        // handle at a time.
        unsafe { VKernel::attach(self.memory, self.layout.size()) }.unwrap()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation has this size and is initialised.
        unsafe { std::slice::from_raw_parts(self.memory, self.layout.size()) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_limits` with this layout.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

impl Deref for World {
    type Target = VKernel;
    fn deref(&self) -> &VKernel {
        &self.kernel
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut VKernel {
        &mut self.kernel
    }
}

/// One call from the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    WakeOne(u64),
    WakeAll(u64),
    WakeThread(u32),
    Output(u64, Vec<u8>),
    ShutdownWrite(u64),
    Close(u64, bool),
    Consumed(u64, u64),
    Listen(u32, Vec<u8>, u32),
    Unlisten(u32),
    DatagramOpen(u32, Vec<u8>),
    DatagramGroup(u32, [u8; 16], bool),
    DatagramSend(u32, u32, Vec<u8>, Vec<u8>),
    DatagramClose(u32),
}

/// Records calls; wake-ups by key only where a thread is said to wait.
#[derive(Default)]
pub struct Recorder {
    pub calls: Vec<Call>,
    /// Number of threads blocked per key.
    pub waiting: BTreeMap<u64, usize>,
}

impl Recorder {
    pub fn block(&mut self, desc: DescId, dir: Dir) {
        *self.waiting.entry(wait_key(desc, dir)).or_default() += 1;
    }

    pub fn is_blocked(&self, desc: DescId, dir: Dir) -> bool {
        self.waiting.contains_key(&wait_key(desc, dir))
    }

    pub fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Bytes output on `conn` so far.
    pub fn output_of(&self, conn: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for call in &self.calls {
            if let Call::Output(at, bytes) = call
                && *at == conn
            {
                all.extend_from_slice(bytes);
            }
        }
        all
    }
}

impl Host for Recorder {
    fn wake_one(&mut self, key: u64) -> bool {
        let Some(count) = self.waiting.get_mut(&key) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.waiting.remove(&key);
        }
        self.calls.push(Call::WakeOne(key));
        true
    }
    fn wake_all(&mut self, key: u64) {
        if self.waiting.remove(&key).is_some() {
            self.calls.push(Call::WakeAll(key));
        }
    }
    fn wake_thread(&mut self, thread: u32) {
        self.calls.push(Call::WakeThread(thread));
    }
    fn output(&mut self, conn: u64, bytes: &[u8]) {
        self.calls.push(Call::Output(conn, bytes.to_vec()));
    }
    fn conn_shutdown_write(&mut self, conn: u64) {
        self.calls.push(Call::ShutdownWrite(conn));
    }
    fn conn_close(&mut self, conn: u64, reset: bool) {
        self.calls.push(Call::Close(conn, reset));
    }
    fn conn_consumed(&mut self, conn: u64, total: u64) {
        self.calls.push(Call::Consumed(conn, total));
    }
    fn listen(&mut self, listener: u32, addr: &[u8], backlog: u32) {
        self.calls
            .push(Call::Listen(listener, addr.to_vec(), backlog));
    }
    fn datagram_open(&mut self, socket: u32, addr: &[u8]) {
        self.calls.push(Call::DatagramOpen(socket, addr.to_vec()));
    }
    fn datagram_group(&mut self, socket: u32, group: &[u8; 16], join: bool) {
        self.calls.push(Call::DatagramGroup(socket, *group, join));
    }
    fn datagram_send(&mut self, gateway: u32, socket: u32, to: &[u8], mut data: Gather<'_>) {
        let mut bytes = vec![0; data.len()];
        data.copy_to(&mut bytes);
        self.calls
            .push(Call::DatagramSend(gateway, socket, to.to_vec(), bytes));
    }
    fn datagram_close(&mut self, socket: u32) {
        self.calls.push(Call::DatagramClose(socket));
    }
    fn unlisten(&mut self, listener: u32) {
        self.calls.push(Call::Unlisten(listener));
    }
}

/// A small generator, so that a failing seed can be run again for ever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Raw `sockaddr_in`.
pub fn v4(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut raw = vec![0u8; 16];
    raw[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
    raw[2..4].copy_from_slice(&port.to_be_bytes());
    raw[4..8].copy_from_slice(&ip);
    raw
}

/// Raw `sockaddr_in6`.
pub fn v6(ip: [u8; 16], port: u16) -> Vec<u8> {
    let mut raw = vec![0u8; 28];
    raw[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    raw[2..4].copy_from_slice(&port.to_be_bytes());
    raw[8..24].copy_from_slice(&ip);
    raw
}

/// Raw `sockaddr_un`; a name that begins with NUL is abstract.
pub fn unix(name: &str) -> Vec<u8> {
    let mut raw = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    raw.extend_from_slice(name.as_bytes());
    raw
}
