//! Packet path: no allocation. Collects datagrams in one reused scratch and sends them
//! with few system calls: consecutive ones of equal length to one peer become a train
//! that the kernel cuts again (`UDP_SEGMENT`), and many trains go in one `sendmmsg`.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use thiserror::Error;

use crate::UdpSocket;
use crate::address::{Family, RawAddress};
use crate::sys::{self, Outgoing};

/// Longest datagram, in bytes of UDP payload. Ours are 1,200 and some; a longer one is
/// a mistake.
pub const MAX_DATAGRAM_LEN: usize = 2_048;

/// Messages of one `sendmmsg`. One more is held when the last train is still open.
const MESSAGES_MAX: usize = sys::MESSAGES_MAX - 1;
/// Datagrams of a train: `UDP_MAX_SEGMENTS` of kernels before 6.9.
const SEGMENTS_MAX: usize = 64;
/// Bytes of a train: with IP and UDP headers it stays an IP packet of 64 KiB.
const TRAIN_BYTES_MAX: usize = 65_000;
/// Stays in a processor's own cache; 64 trains of three datagrams of 1,200 bytes.
const SCRATCH_LEN: usize = 256 << 10;
/// Trains refused in a row, while their datagrams are taken one by one, after which
/// no more trains are tried. One refusal may be a matter of one route.
const REFUSALS_MAX: u32 = 16;

/// A datagram would be longer than [`MAX_DATAGRAM_LEN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("datagram of {len} bytes is longer than {MAX_DATAGRAM_LEN}")]
pub struct Oversize {
    /// Bytes asked for.
    pub len: usize,
}

/// What was sent since the batch was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendCounters {
    /// System calls.
    pub calls: u64,
    /// Messages that the kernel took: single datagrams and trains.
    pub messages: u64,
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Bytes of UDP payload that the kernel took.
    pub bytes: u64,
    /// Datagrams dropped because the socket's buffer was full.
    pub dropped: u64,
    /// Datagrams that the kernel refused: no route, a forbidden address, too long for
    /// the link.
    pub refused: u64,
    /// Trains that the kernel refused and that were sent one by one.
    pub trains_refused: u64,
}

/// A message in the scratch: one datagram or a train.
#[derive(Clone, Copy)]
struct Message {
    destination: SocketAddr,
    /// Each but the last datagram has this length.
    segment: usize,
    start: usize,
    end: usize,
    segments: usize,
}

impl Message {
    /// Whether a datagram of this length to this peer can be its next.
    fn takes(&self, destination: SocketAddr, len: usize) -> bool {
        let full_so_far = self.end - self.start == self.segment * self.segments;
        full_so_far
            && self.destination == destination
            && len <= self.segment
            && self.segments < SEGMENTS_MAX
            && self.end - self.start + len <= TRAIN_BYTES_MAX
    }
}

/// Collects and sends datagrams. For each one: [`SendBatch::begin`], write into the
/// slice, [`SendBatch::commit`]; at the end of the wake-up [`SendBatch::flush`].
pub struct SendBatch {
    scratch: Box<[u8]>,
    used: usize,
    messages: Vec<Message>,
    addresses: Box<[RawAddress]>,
    begun: Option<SocketAddr>,
    family: Family,
    trains: bool,
    refusals: u32,
    counters: SendCounters,
}

impl SendBatch {
    /// An empty batch for a socket.
    #[must_use]
    pub fn new(socket: &UdpSocket) -> Self {
        Self {
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
            used: 0,
            messages: Vec::with_capacity(sys::MESSAGES_MAX),
            addresses: vec![RawAddress::EMPTY; sys::MESSAGES_MAX].into_boxed_slice(),
            begun: None,
            family: socket.family(),
            trains: socket.has_segmentation_offload(),
            refusals: 0,
            counters: SendCounters::default(),
        }
    }

    /// Room for a datagram of at most `len_max` bytes, to be filled and committed. Its
    /// content is undefined. Sends what was collected if there is no room. A datagram
    /// that was begun before and not committed is forgotten.
    ///
    /// # Errors
    /// [`Oversize`] if `len_max` is more than [`MAX_DATAGRAM_LEN`].
    pub fn begin(
        &mut self,
        socket: &UdpSocket,
        destination: SocketAddr,
        len_max: usize,
    ) -> Result<&mut [u8], Oversize> {
        if len_max > MAX_DATAGRAM_LEN {
            return Err(Oversize { len: len_max });
        }
        let open = self.messages.last().is_some_and(|last| last.takes(destination, 0));
        // A train at the end may grow over the limit by one message, not by two.
        let limit = MESSAGES_MAX + usize::from(open && self.trains);
        if self.messages.len() >= limit.min(sys::MESSAGES_MAX)
            || self.used + len_max > self.scratch.len()
        {
            self.flush(socket);
        }
        self.begun = Some(destination);
        Ok(&mut self.scratch[self.used..self.used + len_max])
    }

    /// Takes the first `len` bytes of the slice that [`SendBatch::begin`] gave. Without
    /// a begun datagram, or with no bytes, nothing happens.
    pub fn commit(&mut self, len: usize) {
        let Some(destination) = self.begun.take() else {
            return;
        };
        let start = self.used;
        let end = start + len;
        if len == 0 || len > MAX_DATAGRAM_LEN || end > self.scratch.len() {
            return;
        }
        self.used = end;
        if self.trains
            && let Some(last) = self.messages.last_mut()
            && last.takes(destination, len)
        {
            last.end = end;
            last.segments += 1;
            return;
        }
        let Some(address) = RawAddress::encode(destination, self.family) else {
            self.used = start;
            self.counters.refused += 1;
            return;
        };
        self.addresses[self.messages.len()] = address;
        self.messages.push(Message { destination, segment: len, start, end, segments: 1 });
    }

    /// Length of the datagrams of the train that is being collected for a peer, if the
    /// next datagram can join it: one of this length leaves it open, a shorter one is its
    /// last.
    #[must_use]
    pub fn open_train(&self, destination: SocketAddr) -> Option<usize> {
        let last = self.messages.last()?;
        (self.trains && last.takes(destination, last.segment)).then_some(last.segment)
    }

    /// Copies a datagram into the batch: [`SendBatch::begin`] and
    /// [`SendBatch::commit`] in one, for what is not on the packet path.
    ///
    /// # Errors
    /// [`Oversize`] if it is longer than [`MAX_DATAGRAM_LEN`].
    pub fn push(
        &mut self,
        socket: &UdpSocket,
        destination: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Oversize> {
        self.begin(socket, destination, datagram.len())?.copy_from_slice(datagram);
        self.commit(datagram.len());
        Ok(())
    }

    /// Sends all that was collected. What does not fit the socket's buffer is dropped
    /// and counted: late media is worse than lost media, and all protocols above
    /// repeat what they need.
    pub fn flush(&mut self, socket: &UdpSocket) {
        self.begun = None;
        let mut at = 0;
        while at < self.messages.len() {
            self.counters.calls += 1;
            match sys::send_messages(socket.as_fd(), self.outgoing(at)) {
                Ok(sent) if sent > 0 => {
                    self.count_sent(at, sent);
                    at += sent;
                }
                Ok(_) => at = self.drop_from(at),
                Err(error) => at = self.handle_error(socket, at, &error),
            }
        }
        self.messages.clear();
        self.used = 0;
    }

    /// Trains are being sent. False if the kernel has none, or refused them again and
    /// again.
    #[must_use]
    pub fn sends_trains(&self) -> bool {
        self.trains
    }

    /// What was sent so far.
    #[must_use]
    pub fn counters(&self) -> SendCounters {
        self.counters
    }

    fn outgoing(&self, from: usize) -> impl Iterator<Item = Outgoing<'_>> {
        self.messages[from..].iter().zip(&self.addresses[from..]).map(|(message, address)| {
            Outgoing {
                bytes: &self.scratch[message.start..message.end],
                address,
                segment: if message.segments > 1 { message.segment as u16 } else { 0 },
            }
        })
    }

    fn count_sent(&mut self, at: usize, sent: usize) {
        for message in &self.messages[at..at + sent] {
            self.counters.messages += 1;
            self.counters.datagrams += message.segments as u64;
            self.counters.bytes += (message.end - message.start) as u64;
            if message.segments > 1 {
                self.refusals = 0;
            }
        }
    }

    /// Deals with the message at which the kernel stopped and returns where to go on.
    fn handle_error(&mut self, socket: &UdpSocket, at: usize, error: &io::Error) -> usize {
        match error.raw_os_error() {
            Some(libc::EINTR) => at,
            Some(libc::EAGAIN | libc::ENOBUFS) => self.drop_from(at),
            // EIO: the device cannot checksum, or the route is encrypted (IPsec).
            // EINVAL: the segments are longer than the MTU of the route. EOPNOTSUPP and
            // EMSGSIZE: drivers and tunnels that know better.
            Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
                if self.messages[at].segments > 1 =>
            {
                self.send_singly(socket, at);
                at + 1
            }
            _ => {
                self.counters.refused += self.messages[at].segments as u64;
                at + 1
            }
        }
    }

    /// The socket's buffer is full: what is left would only come later than late.
    fn drop_from(&mut self, at: usize) -> usize {
        let rest = self.messages[at..].iter();
        self.counters.dropped += rest.map(|message| message.segments as u64).sum::<u64>();
        self.messages.len()
    }

    /// Sends the datagrams of a refused train one by one.
    fn send_singly(&mut self, socket: &UdpSocket, at: usize) {
        let Message { segment, start, end, .. } = self.messages[at];
        self.counters.trains_refused += 1;
        let mut taken = false;
        for bytes in self.scratch[start..end].chunks(segment) {
            let one = Outgoing { bytes, address: &self.addresses[at], segment: 0 };
            self.counters.calls += 1;
            match sys::send_messages(socket.as_fd(), std::iter::once(one)) {
                Ok(_) => {
                    taken = true;
                    self.counters.messages += 1;
                    self.counters.datagrams += 1;
                    self.counters.bytes += bytes.len() as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.counters.dropped += 1;
                }
                Err(_) => self.counters.refused += 1,
            }
        }
        if taken {
            self.refusals += 1;
            self.trains &= self.refusals < REFUSALS_MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::UdpOptions;

    fn socket() -> UdpSocket {
        UdpSocket::bind("127.0.0.1:0".parse().unwrap(), &UdpOptions::default()).unwrap()
    }

    fn receiver() -> std::net::UdpSocket {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        receiver
    }

    #[test]
    fn refused_trains_go_one_by_one_and_after_a_while_are_no_longer_tried() {
        let sender = socket();
        if !sender.has_segmentation_offload() {
            return;
        }
        // Without UDP checksums the kernel refuses to segment (EINVAL), as it does on
        // devices that cannot (EIO).
        sys::set_option(sender.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        let receiver = receiver();
        let to = receiver.local_addr().unwrap();
        let mut batch = SendBatch::new(&sender);
        let rounds = u64::from(REFUSALS_MAX) + 4;
        for round in 0..rounds {
            assert_eq!(batch.sends_trains(), round < u64::from(REFUSALS_MAX));
            for (fill, len) in [(1_u8, 50), (2, 50), (3, 20)] {
                batch.push(&sender, to, &[fill; 64][..len]).unwrap();
            }
            batch.flush(&sender);
            for (fill, len) in [(1_u8, 50), (2, 50), (3, 20)] {
                let mut bytes = [0; 64];
                let received = receiver.recv(&mut bytes).unwrap();
                assert_eq!(bytes[..received], [fill; 64][..len]);
            }
        }
        let counters = batch.counters();
        assert_eq!(counters.trains_refused, u64::from(REFUSALS_MAX));
        assert_eq!((counters.datagrams, counters.refused, counters.dropped), (rounds * 3, 0, 0));
    }

    #[test]
    fn a_full_socket_drops_what_is_left_and_counts_it() {
        let sender = socket();
        let receiver = receiver();
        let mut batch = SendBatch::new(&sender);
        for len in [30, 30, 40, 50] {
            batch.push(&sender, receiver.local_addr().unwrap(), &[1; 64][..len]).unwrap();
        }
        for full in [libc::EAGAIN, libc::ENOBUFS] {
            let dropped = batch.counters().dropped;
            let next = batch.handle_error(&sender, 1, &io::Error::from_raw_os_error(full));
            assert_eq!(next, batch.messages.len());
            let left: usize = batch.messages[1..].iter().map(|message| message.segments).sum();
            assert_eq!(batch.counters().dropped, dropped + left as u64);
        }
    }

    #[test]
    fn an_interrupted_send_is_tried_again() {
        let sender = socket();
        let mut batch = SendBatch::new(&sender);
        batch.push(&sender, sender.local_addr(), &[1]).unwrap();
        let error = io::Error::from_raw_os_error(libc::EINTR);
        assert_eq!(batch.handle_error(&sender, 0, &error), 0);
        assert_eq!(batch.counters().dropped + batch.counters().refused, 0);
    }
}
