//! Socket addresses: the raw form that callers see and the form used to
//! compare them.

use crate::table::record;
use crate::{Errno, Result};

const AF_UNSPEC: u16 = libc::AF_UNSPEC as u16;
const AF_UNIX: u16 = libc::AF_UNIX as u16;
const AF_INET: u16 = libc::AF_INET as u16;
const AF_INET6: u16 = libc::AF_INET6 as u16;

/// Most bytes of a raw socket address (`sizeof(struct sockaddr_storage)`).
const MAX: usize = 128;
const V4_LEN: usize = 16;
const V6_LEN: usize = 28;
/// Linux accepts a `sockaddr_in6` without the scope (RFC 2133).
const V6_MIN_LEN: usize = 24;
const UNIX_PATH_MAX: usize = 108;

record! {
    /// A raw socket address as `getsockname` returns it.
    pub struct SockAddr {
        len: u32,
        raw: [u8; MAX],
    }
}

impl SockAddr {
    pub(crate) const EMPTY: SockAddr = SockAddr {
        len: 0,
        raw: [0; MAX],
    };

    /// The bytes of the address; empty if there is none.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw[..(self.len as usize).min(MAX)]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<SockAddr> {
        if bytes.len() > MAX {
            return Err(Errno::INVAL);
        }
        let mut addr = SockAddr::EMPTY;
        addr.raw[..bytes.len()].copy_from_slice(bytes);
        addr.len = bytes.len() as u32;
        Ok(addr)
    }

    /// The address of a socket of `domain` that has none.
    pub(crate) fn unnamed(domain: u16) -> SockAddr {
        let mut addr = SockAddr::EMPTY;
        addr.raw[..2].copy_from_slice(&domain.to_ne_bytes());
        addr.len = match domain {
            AF_INET => V4_LEN as u32,
            AF_INET6 => V6_LEN as u32,
            _ => 2,
        };
        addr
    }

    /// `"\0xxxxx"`: the name Linux gives to a Unix socket bound without one.
    pub(crate) fn unix_auto(number: u32) -> SockAddr {
        let mut addr = SockAddr::unnamed(AF_UNIX);
        for digit in 0..5 {
            let nibble = (number >> (4 * (4 - digit))) & 0xf;
            addr.raw[3 + digit as usize] = b"0123456789abcdef"[nibble as usize];
        }
        addr.len = 8;
        addr
    }
}

/// Family of a raw address.
pub(crate) fn family(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]))
}

record! {
    /// An Internet address; IPv4 is kept in its IPv6-mapped form.
    pub(crate) struct Endpoint {
        pub(crate) ip: [u8; 16],
        pub(crate) port: u16,
        pad: [u8; 6],
    }
}

const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Endpoint {
    pub(crate) fn new(ip: [u8; 16], port: u16) -> Endpoint {
        Endpoint {
            ip,
            port,
            pad: [0; 6],
        }
    }

    fn v4(ip: [u8; 4], port: u16) -> Endpoint {
        let mut mapped = [0; 16];
        mapped[..12].copy_from_slice(&V4_PREFIX);
        mapped[12..].copy_from_slice(&ip);
        Endpoint::new(mapped, port)
    }

    /// 127.0.0.1 or ::1.
    pub(crate) fn loopback(v4: bool, port: u16) -> Endpoint {
        if v4 {
            return Endpoint::v4([127, 0, 0, 1], port);
        }
        let mut ip = [0; 16];
        ip[15] = 1;
        Endpoint::new(ip, port)
    }

    pub(crate) fn wildcard(v4: bool, port: u16) -> Endpoint {
        if v4 {
            Endpoint::v4([0; 4], port)
        } else {
            Endpoint::new([0; 16], port)
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.ip[..12] == V4_PREFIX
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.ip == [0; 16] || (self.is_v4() && self.ip[12..] == [0; 4])
    }

    pub(crate) fn is_loopback(&self) -> bool {
        (self.is_v4() && self.ip[12] == 127) || self.ip == Endpoint::loopback(false, 0).ip
    }

    /// Reads a raw address for a socket of `domain`, which must be AF_INET or
    /// AF_INET6.
    pub(crate) fn parse(domain: u16, bytes: &[u8]) -> Result<Endpoint> {
        let least = if domain == AF_INET {
            V4_LEN
        } else {
            V6_MIN_LEN
        };
        let family = family(bytes).ok_or(Errno::INVAL)?;
        if bytes.len() < least {
            return Err(Errno::INVAL);
        }
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        if domain == AF_INET {
            let ip = [bytes[4], bytes[5], bytes[6], bytes[7]];
            // Linux takes AF_UNSPEC for the wildcard, for old programs' sake.
            if family != AF_INET && !(family == AF_UNSPEC && ip == [0; 4]) {
                return Err(Errno::AFNOSUPPORT);
            }
            return Ok(Endpoint::v4(ip, port));
        }
        if family != AF_INET6 {
            return Err(Errno::AFNOSUPPORT);
        }
        let mut ip = [0; 16];
        ip.copy_from_slice(&bytes[8..24]);
        Ok(Endpoint::new(ip, port))
    }

    /// The raw address as a socket of `domain` shows it.
    pub(crate) fn to_raw(self, domain: u16) -> SockAddr {
        let mut addr = SockAddr::unnamed(domain);
        addr.raw[2..4].copy_from_slice(&self.port.to_be_bytes());
        if domain == AF_INET {
            addr.raw[4..8].copy_from_slice(&self.ip[12..]);
        } else {
            addr.raw[8..24].copy_from_slice(&self.ip);
        }
        addr
    }
}

/// A checked Unix address and the key under which it is looked up.
pub(crate) struct UnixName {
    pub(crate) addr: SockAddr,
    pub(crate) key: u64,
    pub(crate) is_abstract: bool,
}

impl UnixName {
    /// Reads a raw Unix address that names something. A path ends at its
    /// first NUL, whatever length the caller gave; abstract names do not.
    pub(crate) fn parse(bytes: &[u8]) -> Result<UnixName> {
        if bytes.len() <= 2 || bytes.len() > 2 + UNIX_PATH_MAX || family(bytes) != Some(AF_UNIX) {
            return Err(Errno::INVAL);
        }
        let name = &bytes[2..];
        let is_abstract = name[0] == 0;
        let mut addr = SockAddr::unnamed(AF_UNIX);
        let used = if is_abstract {
            name
        } else {
            name.split(|byte| *byte == 0).next().unwrap_or(name)
        };
        addr.raw[2..2 + used.len()].copy_from_slice(used);
        // A path is shown with its terminating NUL.
        addr.len = (2 + used.len() + usize::from(!is_abstract)) as u32;
        Ok(UnixName {
            addr,
            key: fnv(used),
            is_abstract,
        })
    }
}

/// FNV-1a: equal on every replica, unlike the standard library's hashes.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_addresses_survive_the_mapped_form() {
        let mut raw = [0u8; 16];
        raw[..2].copy_from_slice(&AF_INET.to_ne_bytes());
        raw[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 1]);
        let endpoint = Endpoint::parse(AF_INET, &raw).unwrap();
        assert!(endpoint.is_v4() && endpoint.is_loopback() && endpoint.port == 8080);
        assert_eq!(endpoint.to_raw(AF_INET).as_bytes(), raw);
        assert_eq!(endpoint.to_raw(AF_INET6).as_bytes().len(), 28);
        assert_eq!(
            Endpoint::parse(AF_INET, &raw[..8]).err(),
            Some(Errno::INVAL)
        );
        assert_eq!(
            Endpoint::parse(AF_INET6, &[raw, raw].concat()).err(),
            Some(Errno::AFNOSUPPORT)
        );
    }

    #[test]
    fn a_unix_path_ends_at_its_first_nul_and_is_shown_with_one() {
        let name = UnixName::parse(b"\x01\x00/run/s\0junk").unwrap();
        assert_eq!(name.addr.as_bytes(), b"\x01\x00/run/s\0");
        assert!(!name.is_abstract);
        let name = UnixName::parse(b"\x01\x00\0abc\0").unwrap();
        assert_eq!(name.addr.as_bytes(), b"\x01\x00\0abc\0");
        assert!(name.is_abstract);
        assert_eq!(SockAddr::unix_auto(0xa1).as_bytes(), b"\x01\x00\x00000a1");
    }
}
