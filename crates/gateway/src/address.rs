//! Socket addresses as the server sees them: raw `struct sockaddr` bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

const AF_INET: u16 = rustix::net::AddressFamily::INET.as_raw();
const AF_INET6: u16 = rustix::net::AddressFamily::INET6.as_raw();

/// Raw sockaddr bytes: 16 for IPv4, 28 for IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawAddress {
    bytes: [u8; 28],
    len: u8,
}

impl RawAddress {
    /// The bytes, in the native layout of `struct sockaddr_in` or `sockaddr_in6`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> Self {
        let mut bytes = [0; 28];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let len = match address {
            SocketAddr::V4(v4) => {
                bytes[0..2].copy_from_slice(&AF_INET.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                16
            }
            SocketAddr::V6(v6) => {
                bytes[0..2].copy_from_slice(&AF_INET6.to_ne_bytes());
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                28
            }
        };
        Self { bytes, len }
    }
}

/// Reads raw sockaddr bytes; `None` when they are not an internet address.
pub fn parse(raw: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes([*raw.first()?, *raw.get(1)?]);
    let port = u16::from_be_bytes([*raw.get(2)?, *raw.get(3)?]);
    let word = |at: usize| Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?));
    if family == AF_INET {
        let ip: [u8; 4] = raw.get(4..8)?.try_into().ok()?;
        Some(SocketAddr::from((ip, port)))
    } else if family == AF_INET6 {
        let ip: [u8; 16] = raw.get(8..24)?.try_into().ok()?;
        let v6 = SocketAddrV6::new(Ipv6Addr::from(ip), port, word(4)?, word(24)?);
        Some(SocketAddr::V6(v6))
    } else {
        None
    }
}

/// The address as an IPv6 socket reports it: IPv4 ones are mapped.
pub fn to_v6(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["127.0.0.1:6379", "[::1]:80", "[fe80::1%3]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::from(address);
            assert_eq!(parse(raw.as_bytes()), Some(address));
        }
        assert_eq!(parse(&[1, 0, 47, 116]), None);
        assert_eq!(parse(&[]), None);
    }
}
