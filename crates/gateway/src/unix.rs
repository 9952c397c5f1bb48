//! Unix sockets of the server that clients outside may reach: a real one below
//! the replica's state directory for each path that the server listens on.

use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::net::SocketFlags;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// The token of a listening socket is `UNIX_TOKENS` and the low half of its id.
pub const UNIX_TOKENS: usize = 1 << 23;
/// Bytes of a raw address before its path.
const FAMILY: usize = 2;
/// Longest path of a socket.
const LONGEST: usize = 107;

struct Announced {
    /// Raw sockaddr bytes, as the server bound it.
    address: Vec<u8>,
    real: Option<(UnixListener, PathBuf)>,
}

/// The server's listening Unix sockets and the real ones behind them.
pub struct UnixListeners {
    directory: PathBuf,
    announced: BTreeMap<u32, Announced>,
    enabled: bool,
}

/// The listener's id, if `token` is that of a Unix socket.
pub fn is_unix(token: Token) -> bool {
    (UNIX_TOKENS..UNIX_TOKENS + (1 << 16)).contains(&token.0)
}

/// The path in a raw Unix address, `None` for an abstract name or none.
pub fn path_of(address: &[u8]) -> Option<&str> {
    let family = u16::from_ne_bytes([*address.first()?, *address.get(1)?]);
    let name = address.get(FAMILY..)?.split(|b| *b == 0).next()?;
    let is_path = family == rustix::net::AddressFamily::UNIX.as_raw() && !name.is_empty();
    is_path.then(|| std::str::from_utf8(name).ok())?
}

impl UnixListeners {
    /// None yet. Real ones will be in `directory`, which is made and emptied.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            announced: BTreeMap::new(),
            enabled: false,
        }
    }

    /// The server listens on a path. Returns the real one if it was opened.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn announce(
        &mut self,
        listener: u32,
        address: Vec<u8>,
        registry: &Registry,
    ) -> Result<Option<PathBuf>, String> {
        let one = Announced {
            address,
            real: None,
        };
        self.announced.insert(listener, one);
        self.open(listener, registry)
    }

    /// The server's listening sockets and their raw addresses.
    pub fn announced(&self) -> impl Iterator<Item = (u32, &[u8])> + '_ {
        self.announced
            .iter()
            .map(|(&id, one)| (id, &one.address[..]))
    }

    /// From now on real ones are opened. Returns those opened now, each with
    /// the server's path, and why others could not be.
    pub fn enable(&mut self, registry: &Registry) -> Vec<Result<PathBuf, String>> {
        self.enabled = true;
        // What an earlier start left.
        if let Ok(old) = std::fs::read_dir(&self.directory) {
            for entry in old.flatten() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let ids: Vec<u32> = self.announced.keys().copied().collect();
        ids.into_iter()
            .filter_map(|id| self.open(id, registry).transpose())
            .collect()
    }

    fn open(&mut self, listener: u32, registry: &Registry) -> Result<Option<PathBuf>, String> {
        let Some(one) = self.announced.get_mut(&listener).filter(|_| self.enabled) else {
            return Ok(None);
        };
        let path = path_of(&one.address).unwrap_or_default();
        let name = path.trim_matches('/').replace('/', "-");
        let place = self.directory.join(name);
        let failed = |error: io::Error| {
            format!(
                "cannot listen on {} for the server's socket {path}: {error}; choose a shorter \
                 state directory that this user may write to",
                place.display()
            )
        };
        if place.as_os_str().len() > LONGEST {
            return Err(failed(io::ErrorKind::InvalidFilename.into()));
        }
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let _ = std::fs::remove_file(&place);
        let real = UnixListener::bind(&place).map_err(failed)?;
        real.set_nonblocking(true).map_err(failed)?;
        let token = Token(UNIX_TOKENS + (listener & 0xffff) as usize);
        registry
            .register(&mut SourceFd(&real.as_raw_fd()), token, Interest::READABLE)
            .map_err(failed)?;
        one.real = Some((real, place.clone()));
        Ok(Some(place))
    }

    /// The server closed a listening socket. Whether it was one of these.
    pub fn withdraw(&mut self, listener: u32) -> bool {
        let Some(one) = self.announced.remove(&listener) else {
            return false;
        };
        if let Some((_, place)) = one.real {
            remove(&place);
        }
        true
    }

    /// Closes all real ones.
    pub fn close(&mut self) {
        self.enabled = false;
        for one in self.announced.values_mut() {
            if let Some((_, place)) = one.real.take() {
                remove(&place);
            }
        }
    }

    /// The next client that waits at the socket of `token`: its connection, the
    /// listener's id and the server's address.
    ///
    /// # Errors
    /// `EAGAIN` when none waits, and others of accept(2).
    pub fn accept(&self, token: Token) -> rustix::io::Result<(TcpStream, u32, &[u8])> {
        let low = (token.0 - UNIX_TOKENS) as u32;
        let Some((id, one, (real, _))) = self.by_low(low) else {
            return Err(rustix::io::Errno::AGAIN);
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::accept_with(real, flags)?;
        // A stream is a stream: only its bytes and its end matter from here on.
        let stream = TcpStream::from_std(std::net::TcpStream::from(fd));
        Ok((stream, id, &one.address))
    }

    fn by_low(&self, low: u32) -> Option<(u32, &Announced, &(UnixListener, PathBuf))> {
        self.announced
            .iter()
            .filter(|(id, _)| **id & 0xffff == low)
            .find_map(|(&id, one)| Some((id, one, one.real.as_ref()?)))
    }
}

fn remove(place: &Path) {
    let _ = std::fs::remove_file(place);
}

impl Drop for UnixListeners {
    fn drop(&mut self) {
        self.close();
    }
}
