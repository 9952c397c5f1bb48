//! The calls that are made on both kernels and compared.

use std::os::fd::RawFd;

use crane_vkernel::{EpollEvent, Scatter};

use crate::pair::{Class, Fd, Pair, digest, real, virt};

impl Pair {
    pub fn is_socket(class: Class) -> bool {
        matches!(class, Class::Unix | Class::Packet | Class::Tcp)
    }

    pub fn read(&mut self, at: Fd) {
        let sizes: &[usize] = match at.class {
            Class::Event => &[8, 4, 16],
            _ => &[0, 1, 7, 100, 1000, 4096, 5000, 20000, 70000],
        };
        let size = self.random.pick(sizes);
        let mut ours = vec![0u8; size];
        let mut theirs = vec![0u8; size];
        // SAFETY: the buffer has `size` bytes.
        let got = real(unsafe { libc::read(at.fd, theirs.as_mut_ptr().cast(), size) } as i64);
        let desc = self.desc(at.fd);
        let have = virt(self.world.read(&mut self.host, desc, &mut ours), |n| {
            n as i64
        });
        self.check(
            format!("read({at:?}, {size})"),
            (got, digest(&theirs)),
            (have, digest(&ours)),
        );
    }

    pub fn peek(&mut self, at: Fd) {
        if !Self::is_socket(at.class) {
            return;
        }
        let size = 1 + self.random.below(3000);
        let mut ours = vec![0u8; size];
        let mut theirs = vec![0u8; size];
        let flags = libc::MSG_PEEK | (libc::MSG_TRUNC * i32::from(at.class == Class::Packet));
        // SAFETY: the buffer has `size` bytes.
        let got =
            real(unsafe { libc::recv(at.fd, theirs.as_mut_ptr().cast(), size, flags) } as i64);
        let desc = self.desc(at.fd);
        let to = Scatter::new(&mut ours);
        let have = virt(self.world.recv_iov(&mut self.host, desc, to, true), |got| {
            got.message as i64
        });
        self.check(
            format!("peek({at:?}, {size})"),
            (got, digest(&theirs)),
            (have, digest(&ours)),
        );
    }

    pub fn write(&mut self, at: Fd) {
        let desc = self.desc(at.fd);
        let size = match at.class {
            Class::Event => self.random.pick(&[8, 8, 8, 4]),
            Class::Unix | Class::Packet | Class::Tcp => 200 + self.random.below(400),
            _ => self
                .random
                .pick(&[0, 1, 9, 100, 3000, 4095, 4096, 4097, 9000, 30000, 70000]),
        };
        // Linux charges sockets for its own bookkeeping; stay far from where
        // that makes its buffers smaller than ours.
        if Self::is_socket(at.class) && self.world.unsent(desc).unwrap() > 6000 {
            return;
        }
        self.byte = self.byte.wrapping_add(1);
        let mut data = vec![self.byte; size];
        if at.class == Class::Event && size == 8 {
            let value = self
                .random
                .pick(&[0, 1, 2, 5, u64::MAX - 1, u64::MAX, u64::MAX / 2]);
            data.copy_from_slice(&value.to_ne_bytes());
        }
        // SAFETY: the buffer has `size` bytes.
        let got = real(unsafe { libc::write(at.fd, data.as_ptr().cast(), size) } as i64);
        let have = virt(self.world.write(&mut self.host, desc, &data), |n| n as i64);
        self.check(format!("write({at:?}, {size})"), got, have);
    }

    pub fn poll(&mut self, at: Fd) {
        let mut poll = libc::pollfd {
            fd: at.fd,
            events: !0,
            revents: 0,
        };
        // SAFETY: one entry is passed.
        unsafe { libc::poll(&mut poll, 1, 0) };
        let desc = self.desc(at.fd);
        let have = self.world.readiness(desc).unwrap();
        self.check(format!("poll({at:?})"), poll.revents as u16 as u32, have);
    }

    pub fn shutdown(&mut self, at: Fd) {
        if self.random.below(4) != 0 {
            return;
        }
        let how = self.random.below(4) as i32;
        // SAFETY: no pointers are passed.
        let got = real(i64::from(unsafe { libc::shutdown(at.fd, how) }));
        let desc = self.desc(at.fd);
        let have = if Self::is_socket(at.class) {
            virt(self.world.shutdown(&mut self.host, desc, how), |()| 0)
        } else {
            -i64::from(libc::ENOTSOCK)
        };
        self.check(format!("shutdown({at:?}, {how})"), got, have);
    }

    pub fn sock_error(&mut self, at: Fd) {
        if !Self::is_socket(at.class) {
            return;
        }
        let mut error = 0i32;
        let mut len = 4u32;
        // SAFETY: both pointers are to variables of the stated sizes.
        unsafe {
            libc::getsockopt(
                at.fd,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &mut len,
            );
        }
        let desc = self.desc(at.fd);
        let have = self.world.take_error(desc).unwrap();
        self.check(format!("SO_ERROR({at:?})"), error, have);
    }

    pub fn available(&mut self, at: Fd) {
        let desc = self.desc(at.fd);
        // Linux 6.18 says 0 for SOCK_SEQPACKET whatever is queued; before, it
        // was the sum of the messages, and so it is here. An epoll instance
        // gives EINVAL since 6.9, and ENOTTY before.
        if at.class == Class::Epoll {
            return;
        }
        if at.class == Class::Packet && self.world.socket_type(desc) == Ok(libc::SOCK_SEQPACKET) {
            return;
        }
        let mut count = 0i32;
        // SAFETY: FIONREAD stores one int.
        let result = real(i64::from(unsafe {
            libc::ioctl(at.fd, libc::FIONREAD, &raw mut count)
        }));
        let have = virt(self.world.available(desc), |n| n as i64);
        let got = if result < 0 { result } else { i64::from(count) };
        self.check(format!("FIONREAD({at:?})"), got, have);
    }

    pub fn set_capacity(&mut self, at: Fd) {
        if !matches!(at.class, Class::PipeRead | Class::PipeWrite) {
            return;
        }
        let size = self
            .random
            .pick(&[1, 4096, 5000, 8192, 32768, 65536, 131_072]);
        // SAFETY: no pointers are passed.
        let got = real(i64::from(unsafe {
            libc::fcntl(at.fd, libc::F_SETPIPE_SZ, size)
        }));
        let desc = self.desc(at.fd);
        let have = virt(
            self.world
                .pipe_set_capacity(&mut self.host, desc, size as usize),
            |n| n as i64,
        );
        self.check(format!("F_SETPIPE_SZ({at:?}, {size})"), got, have);
    }

    pub fn close(&mut self, at: usize) {
        if self.random.below(6) != 0 {
            return;
        }
        let at = self.fds.swap_remove(at);
        // SAFETY: the descriptor is ours and used no more.
        assert_eq!(unsafe { libc::close(at.fd) }, 0);
        self.world.fd_close(&mut self.host, 0, at.fd).unwrap();
        self.trace.push(format!("close({at:?})"));
    }

    pub fn count(&self, class: Class) -> usize {
        self.fds.iter().filter(|fd| fd.class == class).count()
    }

    pub fn dup(&mut self, at: Fd) {
        if self.fds.len() > 40 || (at.class == Class::Epoll && self.count(Class::Epoll) > 4) {
            return;
        }
        // SAFETY: no pointers are passed.
        let fd = unsafe { libc::dup(at.fd) };
        self.world
            .fd_dup(&mut self.host, 0, at.fd, fd, false)
            .unwrap();
        self.fds.push(Fd { fd, ..at });
        self.trace.push(format!("dup({at:?}) -> {fd}"));
    }

    pub fn epoll_ctl(&mut self, target: Fd) {
        let Some(ep) = self.some_epoll() else {
            return;
        };
        let op = self.random.pick(&[
            libc::EPOLL_CTL_ADD,
            libc::EPOLL_CTL_ADD,
            libc::EPOLL_CTL_MOD,
            libc::EPOLL_CTL_DEL,
            7,
        ]);
        let mut events = self.random.pick(&[
            libc::EPOLLIN,
            libc::EPOLLIN | libc::EPOLLRDHUP,
            libc::EPOLLIN | libc::EPOLLOUT,
            libc::EPOLLOUT,
            0,
            libc::EPOLLIN | libc::EPOLLRDNORM | libc::EPOLLWRNORM,
        ]);
        if self.edges {
            if self.random.below(2) == 0 {
                events |= libc::EPOLLET;
            }
            // Our sockets tell of space at every read, Linux's at the last
            // read of each packet. An edge-triggered watch (or one on an epoll
            // instance that holds such a watch) may see either, so that there
            // is nothing to compare.
            if Self::is_socket(target.class) {
                events &= !(libc::EPOLLOUT | libc::EPOLLWRNORM);
            }
        }
        if self.random.below(5) == 0 {
            events |= libc::EPOLLONESHOT;
        }
        if self.random.below(10) == 0 {
            events |= libc::EPOLLEXCLUSIVE;
        }
        let data = self.random.next();
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: data,
        };
        // SAFETY: `event` outlives the call.
        let got = real(i64::from(unsafe {
            libc::epoll_ctl(ep, op, target.fd, &mut event)
        }));
        let (epoll, desc) = (self.desc(ep), self.desc(target.fd));
        let event = EpollEvent {
            events: events as u32,
            data,
        };
        let have = virt(
            self.world
                .epoll_ctl(&mut self.host, epoll, op, target.fd, desc, event),
            |()| 0,
        );
        self.check(
            format!("epoll_ctl({ep}, {op}, {target:?}, {events:x}, {data})"),
            got,
            have,
        );
    }

    pub fn some_epoll(&mut self) -> Option<RawFd> {
        let epolls: Vec<RawFd> = self
            .fds
            .iter()
            .filter(|fd| fd.class == Class::Epoll)
            .map(|fd| fd.fd)
            .collect();
        (!epolls.is_empty()).then(|| self.random.pick(&epolls))
    }

    pub fn epoll_wait(&mut self) {
        let Some(ep) = self.some_epoll() else {
            return;
        };
        let most = 1 + self.random.below(12);
        let mut theirs = [libc::epoll_event { events: 0, u64: 0 }; 12];
        // SAFETY: the array has at least `most` entries.
        let count = unsafe { libc::epoll_wait(ep, theirs.as_mut_ptr(), most as i32, 0) };
        let theirs: Vec<(u32, u64)> = theirs[..count as usize]
            .iter()
            .map(|event| (event.events, event.u64))
            .collect();
        let mut ours = [EpollEvent::default(); 12];
        let epoll = self.desc(ep);
        let count = self
            .world
            .epoll_collect(&mut self.host, epoll, &mut ours[..most])
            .unwrap();
        let ours: Vec<(u32, u64)> = ours[..count]
            .iter()
            .map(|event| (event.events, event.data))
            .collect();
        let sorted = |list: &[(u32, u64)]| {
            let mut list = list.to_vec();
            list.sort_unstable();
            list
        };
        let tcp = self.fds.iter().any(|at| at.class == Class::Tcp);
        if tcp && theirs != ours && sorted(&theirs) == sorted(&ours) {
            self.overtaken = true;
            return;
        }
        self.check(format!("epoll_wait({ep}, {most})"), theirs, ours);
    }
}
