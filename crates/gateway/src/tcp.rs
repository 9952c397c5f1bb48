//! The state of a client's TCP socket: taken when it is accepted, and put into a
//! new socket on another machine (`TCP_REPAIR`, see tcp(7) and CRIU).

use mio::net::TcpStream;
use rustix::net::sockopt;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_TIMESTAMP: i32 = 24;
/// Leaves repair without a probe of the other side's window.
const REPAIR_OFF_QUIETLY: i32 = -1;
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;

const OPTION_MSS: u32 = 2;
const OPTION_SCALES: u32 = 3;
const OPTION_SACK: u32 = 4;
const OPTION_TIMESTAMPS: u32 = 8;

/// As the kernel counts them in `tcpi_options`.
const HAS_TIMESTAMPS: u8 = 1;
const HAS_SACK: u8 = 2;
const HAS_SCALES: u8 = 4;
const ESTABLISHED: u8 = 1;

/// How far a moved connection's time stamps are ahead of what they can have been,
/// milliseconds. The client takes none that go back; and from an echo that is more
/// than 36 minutes old the kernel does not take the time of a round trip. It would
/// otherwise take the time since the last packet from elsewhere, and wait as long
/// before it sends anything again.
const STAMP_MARGIN: u64 = 3_600_000;
/// In a stamp as the kernel tells it: the unit is a microsecond, not a millisecond.
const IN_MICROSECONDS: u32 = 1;
/// Bytes of an encoded state.
const ENCODED: usize = 31;
/// How often a look at a socket is tried again that was disturbed by input.
const LOOKS: u32 = 100;

/// What another machine needs to know of a client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tcp {
    /// The virtual address, with the real port.
    pub local: SocketAddrV4,
    /// The client.
    pub peer: SocketAddrV4,
    /// Sequence number of the first byte of output.
    pub send_base: u32,
    /// Sequence number of the first byte of input.
    pub receive_base: u32,
    /// The clock of the time stamps.
    stamp: u32,
    /// The longest segment.
    mss: u16,
    send_scale: u8,
    receive_scale: u8,
    options: u8,
}

/// What a look at a fresh socket found.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Its state.
    pub tcp: Tcp,
    /// Bytes of input that have arrived, and may have been acknowledged.
    pub arrived: u64,
}

impl Tcp {
    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> [u8; ENCODED] {
        let mut out = [0; ENCODED];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        for address in [self.local, self.peer] {
            put(&address.ip().octets());
            put(&address.port().to_le_bytes());
        }
        for number in [self.send_base, self.receive_base, self.stamp] {
            put(&number.to_le_bytes());
        }
        put(&self.mss.to_le_bytes());
        put(&[self.send_scale, self.receive_scale, self.options]);
        put(&[0, 0]);
        out
    }

    /// Reads it; `None` when it cannot be one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ENCODED] = bytes.try_into().ok()?;
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let address = |at: usize| {
            let ip: [u8; 4] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
            SocketAddrV4::new(Ipv4Addr::from(ip), short(at + 4))
        };
        Some(Self {
            local: address(0),
            peer: address(6),
            send_base: long(12),
            receive_base: long(16),
            stamp: long(20),
            mss: short(24),
            send_scale: bytes[26],
            receive_scale: bytes[27],
            options: bytes[28],
        })
    }

    /// The sequence number behind `received` bytes of input, and their end.
    pub fn receive_next(&self, received: u64, ended: bool) -> u32 {
        // Numbers wrap.
        self.receive_base
            .wrapping_add(received as u32)
            .wrapping_add(ended.into())
    }

    /// The time stamps go on from what they can be at `now` at the most, when these
    /// were of `then`. Both are the log's time, which is slower than a clock by a
    /// sixteenth at the most.
    pub(crate) fn age(&mut self, then: u64, now: u64) {
        let passed = now.saturating_sub(then) / 1_000_000;
        let ahead = passed + passed / 8 + STAMP_MARGIN;
        // The lowest bit tells the kernel that the unit is another one.
        self.stamp = self.stamp.wrapping_add(ahead as u32) & !IN_MICROSECONDS;
    }

    /// Looks at the socket of a client that has just come, of which nothing was read
    /// and to which nothing was written. `None`: it is none that could be moved.
    ///
    /// # Errors
    /// The system's, above all when this process may not.
    pub fn look(socket: &TcpStream) -> io::Result<Option<Snapshot>> {
        let (SocketAddr::V4(local), SocketAddr::V4(peer)) =
            (plain(socket.local_addr()?), plain(socket.peer_addr()?))
        else {
            return Ok(None);
        };
        let fd = socket.as_raw_fd();
        set(fd, libc::TCP_REPAIR, &1)?;
        let found = look_in_repair(fd, local, peer);
        set(fd, libc::TCP_REPAIR, &REPAIR_OFF_QUIETLY)?;
        // Repair forgets it; without it the port cannot be listened on again.
        let _ = sockopt::set_socket_reuseaddr(socket, true);
        found
    }
}

fn look_in_repair(
    fd: RawFd,
    local: SocketAddrV4,
    peer: SocketAddrV4,
) -> io::Result<Option<Snapshot>> {
    let sequence = |queue: i32| -> io::Result<u32> {
        set(fd, libc::TCP_REPAIR_QUEUE, &queue)?;
        get::<u32>(fd, libc::TCP_QUEUE_SEQ)
    };
    let send_base = sequence(SEND_QUEUE)?;
    let mut looks = 0;
    let (next, arrived) = loop {
        let before = sequence(RECEIVE_QUEUE)?;
        let waiting = ask(fd, libc::FIONREAD)?;
        if sequence(RECEIVE_QUEUE)? == before {
            break (before, waiting);
        }
        looks += 1;
        if looks > LOOKS {
            return Ok(None);
        }
    };
    set(fd, libc::TCP_REPAIR_QUEUE, &0)?;
    let info = info(fd)?;
    if info.tcpi_state != ESTABLISHED {
        // Its end has come, which counts as a byte.
        return Ok(None);
    }
    let mss = get::<u32>(fd, libc::TCP_MAXSEG)?;
    let stamp = get::<u32>(fd, TCP_TIMESTAMP)?;
    if stamp & IN_MICROSECONDS != 0 {
        return Ok(None);
    }
    let tcp = Tcp {
        local,
        peer,
        send_base,
        receive_base: next.wrapping_sub(arrived),
        stamp,
        mss: u16::try_from(mss).unwrap_or(u16::MAX),
        send_scale: info.scales & 15,
        receive_scale: info.scales >> 4,
        options: info.tcpi_options & (HAS_TIMESTAMPS | HAS_SACK | HAS_SCALES),
    };
    let arrived = arrived.into();
    Ok(Some(Snapshot { tcp, arrived }))
}

/// Makes the socket of a connection that goes on here, `received` bytes of whose
/// input (and its end) were agreed, whose client has `drained` bytes of output and
/// may lack `tail`, which follows them. The machine need not have the address yet.
///
/// # Errors
/// The system's.
pub fn restore(
    tcp: &Tcp,
    received: u64,
    ended: bool,
    drained: u64,
    tail: &[u8],
) -> io::Result<TcpStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let socket = TcpStream::from_std(unsafe { OwnedFd::from_raw_fd(fd) }.into());
    // The address is not here yet: bind and connect anyway.
    set_at(fd, libc::SOL_IP, libc::IP_FREEBIND, &1)?;
    set_at(fd, libc::SOL_IP, libc::IP_TRANSPARENT, &1)?;
    set(fd, libc::TCP_REPAIR, &1)?;
    // When it fails, the socket is in repair and closed without a word.
    fill(fd, tcp, tcp.receive_next(received, ended), drained, tail)?;
    set(fd, libc::TCP_REPAIR, &0)?;
    set_at(fd, libc::SOL_IP, libc::IP_TRANSPARENT, &0)?;
    let _ = sockopt::set_socket_reuseaddr(&socket, true);
    Ok(socket)
}

fn fill(fd: RawFd, tcp: &Tcp, receive: u32, drained: u64, tail: &[u8]) -> io::Result<()> {
    let sequence = |queue: i32, number: u32| -> io::Result<()> {
        set(fd, libc::TCP_REPAIR_QUEUE, &queue)?;
        set(fd, libc::TCP_QUEUE_SEQ, &number)
    };
    sequence(SEND_QUEUE, tcp.send_base.wrapping_add(drained as u32))?;
    sequence(RECEIVE_QUEUE, receive)?;
    set(fd, libc::TCP_REPAIR_QUEUE, &0)?;
    let (local, peer) = (raw(tcp.local), raw(tcp.peer));
    let len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address is a valid one of the length given.
    done(unsafe { libc::bind(fd, (&raw const local).cast(), len) })?;
    // SAFETY: as above.
    done(unsafe { libc::connect(fd, (&raw const peer).cast(), len) })?;
    let mut options = vec![(OPTION_MSS, u32::from(tcp.mss))];
    if tcp.options & HAS_SCALES != 0 {
        let scales = u32::from(tcp.send_scale) | u32::from(tcp.receive_scale) << 16;
        options.push((OPTION_SCALES, scales));
    }
    if tcp.options & HAS_SACK != 0 {
        options.push((OPTION_SACK, 0));
    }
    if tcp.options & HAS_TIMESTAMPS != 0 {
        options.push((OPTION_TIMESTAMPS, 0));
    }
    let options: Vec<[u32; 2]> = options.into_iter().map(|(code, of)| [code, of]).collect();
    let bytes = options.len() * size_of::<[u32; 2]>();
    // SAFETY: the kernel reads as many bytes as the vector has.
    done(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_TCP,
            TCP_REPAIR_OPTIONS,
            options.as_ptr().cast(),
            bytes as libc::socklen_t,
        )
    })?;
    if tcp.options & HAS_TIMESTAMPS != 0 {
        set(fd, TCP_TIMESTAMP, &tcp.stamp)?;
    }
    if tail.is_empty() {
        return Ok(());
    }
    // All of it must be in the queue: what the client has of it, it acknowledges,
    // and an acknowledgement of what was never sent is not taken.
    let room = i32::try_from(2 * tail.len() + (4 << 20)).unwrap_or(i32::MAX);
    set_at(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &room)?;
    set(fd, libc::TCP_REPAIR_QUEUE, &SEND_QUEUE)?;
    let mut left = tail;
    while !left.is_empty() {
        // In pieces: one must fit into what the kernel allocates at once.
        let piece = &left[..left.len().min(32 << 10)];
        // SAFETY: the bytes are readable for the length given.
        let sent = unsafe { libc::send(fd, piece.as_ptr().cast(), piece.len(), 0) };
        match usize::try_from(sent) {
            Ok(n) if n > 0 => left = &left[n..],
            _ => return Err(io::Error::last_os_error()),
        }
    }
    set(fd, libc::TCP_REPAIR_QUEUE, &0)
}

/// Has the other side say where it is: what it has and how much it takes.
pub(crate) fn probe(fd: RawFd) -> io::Result<()> {
    set(fd, libc::TCP_REPAIR, &1)?;
    set(fd, libc::TCP_REPAIR, &0)?;
    set_at(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1)
}

/// From now on the drop of the socket is not noticed by the other side.
pub(crate) fn vanish(fd: RawFd) -> io::Result<()> {
    set(fd, libc::TCP_REPAIR, &1)
}

/// Bytes written that the other side has not acknowledged; its end counts as one.
pub(crate) fn unacknowledged(fd: RawFd) -> io::Result<u64> {
    Ok(ask(fd, libc::TIOCOUTQ)?.into())
}

/// Has the system ask now and then whether the client's machine is still there.
pub(crate) fn keep_alive(socket: &TcpStream, after: Duration) {
    // Each only makes it better; without them it works.
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, after);
    let _ = sockopt::set_tcp_keepintvl(socket, after / 6);
    let _ = sockopt::set_tcp_keepcnt(socket, 6);
}

/// The beginning of `struct tcp_info`; bit fields as bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Info {
    tcpi_state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    tcpi_options: u8,
    scales: u8,
    flags: u8,
}

fn info(fd: RawFd) -> io::Result<Info> {
    get(fd, libc::TCP_INFO)
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn raw(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set<T: Copy>(fd: RawFd, option: i32, value: &T) -> io::Result<()> {
    set_at(fd, libc::SOL_TCP, option, value)
}

fn set_at<T: Copy>(fd: RawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the value.
    done(unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(value).cast(), len) })
}

fn get<T: Copy + Default>(fd: RawFd, option: i32) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into the value, which is of
    // integers alone.
    done(unsafe {
        let place = (&raw mut value).cast();
        libc::getsockopt(fd, libc::SOL_TCP, option, place, &raw mut len)
    })?;
    Ok(value)
}

fn ask(fd: RawFd, what: libc::c_ulong) -> io::Result<u32> {
    let mut count: libc::c_int = 0;
    // SAFETY: both questions asked here write one integer.
    done(unsafe { libc::ioctl(fd, what, &raw mut count) })?;
    Ok(count.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_as_it_was() {
        let tcp = Tcp {
            local: "192.0.2.10:6379".parse().unwrap(),
            peer: "192.0.2.1:50000".parse().unwrap(),
            send_base: u32::MAX,
            receive_base: 7,
            stamp: 1 << 31,
            mss: 1460,
            send_scale: 7,
            receive_scale: 14,
            options: 7,
        };
        assert_eq!(Tcp::decode(&tcp.encode()), Some(tcp));
        assert_eq!(Tcp::decode(b"short"), None);
        assert_eq!(tcp.receive_next(u64::from(u32::MAX), true), 7);
    }
}
