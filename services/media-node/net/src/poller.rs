//! Readiness of sockets by epoll, and waking from another thread.
//!
//! Level-triggered: a shard takes a bounded batch from each ready socket per wake-up
//! and comes back for the rest, which with edges it would have to remember. The price
//! is one look at the ready list per wake-up; a socket is asked for writability only
//! while it has something queued.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys;

/// Names a registered socket. The highest number is taken by the [`Waker`], and those
/// of 2^56 and above by [`crate::FramedTcp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

const WAKER_TOKEN: u64 = u64::MAX;

/// What to wait for on a socket. Errors and hang-ups are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
}

impl Interest {
    fn events(self) -> u32 {
        let read = libc::EPOLLIN | libc::EPOLLRDHUP;
        let events = match self {
            Self::Read => read,
            Self::ReadWrite => read | libc::EPOLLOUT,
        };
        events.cast_unsigned()
    }
}

/// A socket that is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Which.
    pub token: Token,
    /// It can be read, has failed or was closed: reading tells which.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
}

/// Where [`Poller::wait`] puts what is ready. Made once, used again.
pub struct ReadyList {
    events: Box<[libc::epoll_event]>,
    len: usize,
    woken: bool,
}

impl ReadyList {
    /// With room for `capacity` sockets, at least 2. More that are ready come with the
    /// next wait; the kernel hands them out in turns.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let empty = libc::epoll_event { events: 0, u64: 0 };
        Self { events: vec![empty; capacity.max(2)].into_boxed_slice(), len: 0, woken: false }
    }

    /// The sockets that are ready.
    pub fn iter(&self) -> impl Iterator<Item = Ready> + '_ {
        self.events[..self.len].iter().filter(|event| event.u64 != WAKER_TOKEN).map(|event| {
            let has = |flags: i32| event.events & flags.cast_unsigned() != 0;
            Ready {
                token: Token(event.u64),
                readable: has(libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR),
                writable: has(libc::EPOLLOUT),
            }
        })
    }

    /// A [`Waker`] was used since the wait before.
    #[must_use]
    pub fn woken(&self) -> bool {
        self.woken
    }
}

/// Wakes the thread that waits on a [`Poller`]. Wakes that come before the wait count
/// too; several count as one.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Ends the current or the next [`Poller::wait`]. Never blocks.
    pub fn wake(&self) {
        sys::event_signal(self.event.as_fd());
    }
}

/// A set of sockets to wait on. Used by one thread.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        let event = Arc::new(sys::event_create()?);
        let events = Interest::Read.events();
        sys::epoll_control(epoll.as_fd(), libc::EPOLL_CTL_ADD, event.as_fd(), events, WAKER_TOKEN)?;
        Ok(Self { epoll, waker: Waker { event } })
    }

    /// A handle for other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Registers a socket. It leaves the set when its last descriptor is closed.
    ///
    /// # Errors
    /// If it is registered already or the kernel has no room.
    pub fn add(&self, socket: &impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
    }

    /// Changes what a registered socket is waited for.
    ///
    /// # Errors
    /// If it is not registered.
    pub fn set_interest(
        &self,
        socket: &impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
    }

    /// Takes a socket out of the set.
    ///
    /// # Errors
    /// If it is not registered.
    pub fn remove(&self, socket: &impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket, Token(0), Interest::Read)
    }

    /// Waits until a socket is ready, a waker was used or the timeout is over (`None`
    /// waits for ever). A signal ends it early, with an empty list.
    ///
    /// # Errors
    /// Only by a broken invariant of ours, such as a closed descriptor.
    pub fn wait(&self, ready: &mut ReadyList, timeout: Option<Duration>) -> io::Result<()> {
        ready.len = 0;
        ready.woken = false;
        ready.len = match sys::epoll_wait(self.epoll.as_fd(), &mut ready.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        if ready.events[..ready.len].iter().any(|event| event.u64 == WAKER_TOKEN) {
            sys::event_clear(self.waker.event.as_fd());
            ready.woken = true;
        }
        Ok(())
    }

    fn control(
        &self,
        operation: i32,
        socket: &impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let events = interest.events();
        sys::epoll_control(self.epoll.as_fd(), operation, socket.as_fd(), events, token.0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wake_before_the_wait_counts_once() {
        let poller = Poller::new().unwrap();
        let mut ready = ReadyList::new(8);
        let waker = poller.waker();
        std::thread::spawn(move || {
            waker.wake();
            waker.wake();
        })
        .join()
        .unwrap();
        poller.wait(&mut ready, None).unwrap();
        assert!(ready.woken());
        assert_eq!(ready.iter().count(), 0);
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(!ready.woken());
    }

    #[test]
    fn a_socket_stays_ready_until_it_is_read() {
        let poller = Poller::new().unwrap();
        let mut ready = ReadyList::new(8);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        poller.add(&socket, Token(7), Interest::Read).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let expected = Ready { token: Token(7), readable: true, writable: false };
        for _ in 0..2 {
            poller.wait(&mut ready, Some(Duration::from_secs(5))).unwrap();
            assert_eq!(ready.iter().collect::<Vec<_>>(), [expected]);
        }
        socket.recv(&mut [0; 8]).unwrap();
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready.iter().count(), 0);

        poller.set_interest(&socket, Token(8), Interest::ReadWrite).unwrap();
        poller.wait(&mut ready, None).unwrap();
        let expected = Ready { token: Token(8), readable: false, writable: true };
        assert_eq!(ready.iter().collect::<Vec<_>>(), [expected]);
        poller.remove(&socket).unwrap();
        poller.wait(&mut ready, Some(Duration::ZERO)).unwrap();
        assert_eq!(ready.iter().count(), 0);
    }

    #[test]
    fn a_timeout_below_a_millisecond_neither_spins_nor_rounds_to_zero() {
        let poller = Poller::new().unwrap();
        let mut ready = ReadyList::new(8);
        let start = Instant::now();
        poller.wait(&mut ready, Some(Duration::from_micros(300))).unwrap();
        assert!(start.elapsed() >= Duration::from_micros(300));
    }
}
