//! The network interfaces that a program is shown: `lo`, and one other with
//! the address of [`crate::network`].

use crate::network::{LOOPBACK, OTHER, address};
use crate::raw::fail;
use crate::turn::{Op, begin};
use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use libc::{ifaddrs, sockaddr_in};

/// What is shown of an interface.
struct Interface {
    index: c_int,
    name: &'static CStr,
    flags: c_int,
    mtu: c_int,
    hardware: u16,
    station: [u8; 6],
}

const INTERFACES: [Interface; 2] = [
    Interface {
        index: LOOPBACK,
        name: c"lo",
        flags: libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING,
        mtu: 65536,
        hardware: libc::ARPHRD_LOOPBACK,
        station: [0; 6],
    },
    Interface {
        index: OTHER,
        name: c"eth0",
        flags: libc::IFF_UP | libc::IFF_BROADCAST | libc::IFF_RUNNING | libc::IFF_MULTICAST,
        mtu: 1500,
        hardware: libc::ARPHRD_ETHER,
        // Administered locally, nobody's.
        station: [2, 0, 0xc0, 0, 2, 1],
    },
];

impl Interface {
    fn is_loopback(&self) -> bool {
        self.index == LOOPBACK
    }

    fn address(&self) -> [u8; 4] {
        if self.is_loopback() {
            [127, 0, 0, 1]
        } else {
            address()
        }
    }

    fn mask(&self) -> [u8; 4] {
        if self.is_loopback() {
            [255, 0, 0, 0]
        } else {
            [255, 255, 255, 0]
        }
    }

    fn broadcast(&self) -> [u8; 4] {
        let [a, b, c, _] = self.address();
        if self.is_loopback() {
            self.address()
        } else {
            [a, b, c, 255]
        }
    }
}

fn named(name: &[u8]) -> Option<&'static Interface> {
    INTERFACES
        .iter()
        .find(|one| one.name.to_bytes() == name.split(|b| *b == 0).next().unwrap_or(name))
}

fn v4(ip: [u8; 4]) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip),
        },
        sin_zero: [0; 8],
    }
}

/// struct ifreq: a name and what is asked of it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: [u8; 24],
}

impl Request {
    fn put(&mut self, bytes: &[u8]) {
        self.value[..bytes.len()].copy_from_slice(bytes);
    }

    fn put_address(&mut self, ip: [u8; 4]) {
        self.value = [0; 24];
        self.put(&(libc::AF_INET as u16).to_ne_bytes());
        self.value[4..8].copy_from_slice(&ip);
    }
}

/// struct ifconf.
#[repr(C)]
struct List {
    len: c_int,
    requests: *mut Request,
}

unsafe fn list(list: *mut List) -> c_int {
    // SAFETY: the caller passes a list with room for `len` bytes, or null.
    unsafe {
        let list = &mut *list;
        if list.requests.is_null() {
            list.len = (INTERFACES.len() * size_of::<Request>()) as c_int;
            return 0;
        }
        let room = list.len.max(0) as usize / size_of::<Request>();
        let mut stored = 0;
        for one in INTERFACES.iter().take(room) {
            let mut request = Request {
                name: [0; 16],
                value: [0; 24],
            };
            let name = one.name.to_bytes();
            request.name[..name.len()].copy_from_slice(name);
            request.put_address(one.address());
            list.requests.add(stored).write_unaligned(request);
            stored += 1;
        }
        list.len = (stored * size_of::<Request>()) as c_int;
    }
    0
}

/// The ioctls that ask about interfaces; `None` for another one.
pub(crate) unsafe fn ioctl(request: c_ulong, argument: c_ulong) -> Option<c_int> {
    const SIOCGIFNAME: c_ulong = 0x8910;
    const SIOCGIFTXQLEN: c_ulong = 0x8942;
    if !(SIOCGIFNAME..=SIOCGIFTXQLEN).contains(&request) {
        return None;
    }
    if request == libc::SIOCGIFCONF {
        // SAFETY: the caller passes a list.
        return Some(unsafe { list(argument as *mut List) });
    }
    // SAFETY: the caller passes a request.
    let asked = unsafe { &mut *(argument as *mut Request) };
    if request == SIOCGIFNAME {
        let index = c_int::from_ne_bytes([
            asked.value[0],
            asked.value[1],
            asked.value[2],
            asked.value[3],
        ]);
        let Some(one) = INTERFACES.iter().find(|one| one.index == index) else {
            return Some(fail(libc::ENODEV));
        };
        asked.name = [0; 16];
        asked.name[..one.name.count_bytes()].copy_from_slice(one.name.to_bytes());
        return Some(0);
    }
    let Some(one) = named(&asked.name) else {
        return Some(fail(libc::ENODEV));
    };
    match request {
        libc::SIOCGIFFLAGS => asked.put(&(one.flags as u16).to_ne_bytes()),
        libc::SIOCGIFADDR => asked.put_address(one.address()),
        libc::SIOCGIFDSTADDR => asked.put_address(one.address()),
        libc::SIOCGIFBRDADDR => asked.put_address(one.broadcast()),
        libc::SIOCGIFNETMASK => asked.put_address(one.mask()),
        libc::SIOCGIFMETRIC => asked.put(&0u32.to_ne_bytes()),
        libc::SIOCGIFMTU => asked.put(&one.mtu.to_ne_bytes()),
        libc::SIOCGIFINDEX => asked.put(&one.index.to_ne_bytes()),
        libc::SIOCGIFHWADDR => {
            asked.value = [0; 24];
            asked.put(&one.hardware.to_ne_bytes());
            asked.value[2..8].copy_from_slice(&one.station);
        }
        SIOCGIFTXQLEN => asked.put(&1000u32.to_ne_bytes()),
        // To change an interface is not for the program.
        _ => return Some(fail(libc::EPERM)),
    }
    Some(0)
}

/// Entries of getifaddrs: a link and an address for each interface, and the
/// loopback one's IPv6 address.
const ENTRIES: usize = 5;

/// One allocation for all, so that freeifaddrs is free.
#[repr(C)]
struct Block {
    entries: [ifaddrs; ENTRIES],
    addresses: [[libc::sockaddr_storage; 3]; ENTRIES],
}

/// getifaddrs(3).
pub(crate) unsafe fn getifaddrs(to: *mut *mut ifaddrs) -> c_int {
    begin(Op::Option);
    // SAFETY: plain allocation of zeroed memory, which is valid for a Block
    // (null pointers and integers).
    let block = unsafe { libc::calloc(1, size_of::<Block>()).cast::<Block>() };
    if block.is_null() {
        return fail(libc::ENOMEM);
    }
    // SAFETY: just allocated.
    let block = unsafe { &mut *block };
    let first = block.entries.as_mut_ptr();
    for (at, (entry, room)) in block
        .entries
        .iter_mut()
        .zip(&mut block.addresses)
        .enumerate()
    {
        let one = &INTERFACES[at % 2];
        entry.ifa_name = one.name.as_ptr().cast_mut();
        entry.ifa_flags = one.flags as c_uint;
        let [address, mask, broadcast] = room;
        let (address, mask, broadcast) = (&raw mut *address, &raw mut *mask, &raw mut *broadcast);
        // SAFETY: each place has room for any address; the next entry is in
        // the same block.
        unsafe {
            if at + 1 < ENTRIES {
                entry.ifa_next = first.add(at + 1);
            }
            entry.ifa_addr = address.cast();
            match at {
                0 | 1 => {
                    let link = address.cast::<libc::sockaddr_ll>();
                    (*link).sll_family = libc::AF_PACKET as u16;
                    (*link).sll_ifindex = one.index;
                    (*link).sll_hatype = one.hardware;
                    (*link).sll_halen = 6;
                    (&mut (*link).sll_addr)[..6].copy_from_slice(&one.station);
                }
                2 | 3 => {
                    *address.cast() = v4(one.address());
                    *mask.cast() = v4(one.mask());
                    *broadcast.cast() = v4(one.broadcast());
                    entry.ifa_netmask = mask.cast();
                    entry.ifa_ifu = broadcast.cast();
                }
                _ => {
                    for (place, ip) in [
                        (address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
                        (mask, [255; 16]),
                    ] {
                        let six = place.cast::<libc::sockaddr_in6>();
                        (*six).sin6_family = libc::AF_INET6 as u16;
                        (*six).sin6_addr.s6_addr = ip;
                    }
                    entry.ifa_netmask = mask.cast();
                }
            }
        }
    }
    // SAFETY: the caller passes a place for a pointer.
    unsafe { *to = first };
    0
}

/// freeifaddrs(3), freeifnameindex(3).
pub(crate) unsafe fn release(block: *mut c_void) {
    // SAFETY: one allocation, see `getifaddrs` and `names`.
    unsafe { libc::free(block) };
}

/// if_nametoindex(3).
pub(crate) unsafe fn index_of(name: *const c_char) -> c_uint {
    begin(Op::Option);
    // SAFETY: the caller passes a C string.
    match named(unsafe { CStr::from_ptr(name) }.to_bytes()) {
        Some(one) => one.index as c_uint,
        None => {
            fail(libc::ENODEV);
            0
        }
    }
}

/// if_indextoname(3).
pub(crate) unsafe fn name_of(index: c_uint, to: *mut c_char) -> *mut c_char {
    begin(Op::Option);
    let Some(one) = INTERFACES.iter().find(|one| one.index as c_uint == index) else {
        fail(libc::ENXIO);
        return core::ptr::null_mut();
    };
    let name = one.name.to_bytes_with_nul();
    // SAFETY: the caller passes room for IF_NAMESIZE bytes.
    unsafe { core::ptr::copy_nonoverlapping(name.as_ptr(), to.cast(), name.len()) };
    to
}

/// if_nameindex(3).
pub(crate) unsafe fn names() -> *mut libc::if_nameindex {
    begin(Op::Option);
    let size = (INTERFACES.len() + 1) * size_of::<libc::if_nameindex>();
    // SAFETY: plain allocation of zeroed memory; the last entry stays zero.
    unsafe {
        let list = libc::calloc(1, size).cast::<libc::if_nameindex>();
        if list.is_null() {
            fail(libc::ENOBUFS);
            return list;
        }
        for (at, one) in INTERFACES.iter().enumerate() {
            (*list.add(at)).if_index = one.index as c_uint;
            (*list.add(at)).if_name = one.name.as_ptr().cast_mut();
        }
        list
    }
}
