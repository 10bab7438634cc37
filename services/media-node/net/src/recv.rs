//! Packet path: no allocation. Receives batches of datagrams into reused buffers and
//! splits what the kernel joined.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::UdpSocket;
use crate::sys::{self, Incoming};

/// What the kernel may join into one message.
const TRAIN_LEN: usize = 65_536;
/// Without receive offload a message is one datagram, and ours are below 1,500 bytes.
const SINGLE_LEN: usize = 2_048;

/// What was received since the batch was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecvCounters {
    /// System calls that brought something.
    pub calls: u64,
    /// Messages: datagrams, or trains that the kernel joined.
    pub messages: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Messages thrown away because they did not fit a buffer.
    pub truncated: u64,
    /// Datagrams that the kernel dropped because its buffer was full, as far as it
    /// told: the number comes with the next datagram.
    pub kernel_drops: u64,
}

/// Reused buffers for received datagrams. With receive offload a buffer has 64 KiB, of
/// which only what comes is touched.
pub struct RecvBatch {
    buffers: Box<[u8]>,
    buffer_len: usize,
    incoming: Box<[Incoming]>,
    received: usize,
    kernel_drops_seen: u32,
    counters: RecvCounters,
}

impl RecvBatch {
    /// For a socket, with room for 1 to 64 messages per call; other numbers are
    /// brought into this range. 32 are enough: more gain nothing.
    #[must_use]
    pub fn new(socket: &UdpSocket, messages: usize) -> Self {
        let messages = messages.clamp(1, sys::MESSAGES_MAX - 1);
        let buffer_len = if socket.has_receive_offload() { TRAIN_LEN } else { SINGLE_LEN };
        Self {
            buffers: vec![0; messages * buffer_len].into_boxed_slice(),
            buffer_len,
            incoming: vec![Incoming::EMPTY; messages].into_boxed_slice(),
            received: 0,
            kernel_drops_seen: 0,
            counters: RecvCounters::default(),
        }
    }

    /// Receives what is there, in place of what was received before. Returns the
    /// number of messages; 0 means that nothing is there. If the batch is full more
    /// may be: the poller will say so.
    ///
    /// # Errors
    /// What the socket reports. Errors of single datagrams that ICMP reports do not
    /// come here, because the socket is not connected.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received = 0;
        let result = sys::receive_messages(
            socket.as_fd(),
            &mut self.buffers,
            self.buffer_len,
            &mut self.incoming,
        );
        self.received = match result {
            Ok(received) => received,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(0),
                _ => return Err(error),
            },
        };
        self.count();
        Ok(self.received)
    }

    /// The received batch was full, so there may be more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.received == self.incoming.len()
    }

    /// The datagrams of the last [`RecvBatch::receive`], in the order of the socket,
    /// each with its sender. Truncated ones are left out.
    pub fn datagrams(&mut self) -> Datagrams<'_> {
        Datagrams {
            messages: self
                .buffers
                .chunks_exact_mut(self.buffer_len)
                .zip(self.incoming[..self.received].iter()),
            rest: &mut [],
            segment: 0,
            from: None,
        }
    }

    /// What was received so far.
    #[must_use]
    pub fn counters(&self) -> RecvCounters {
        self.counters
    }

    fn count(&mut self) {
        let counters = &mut self.counters;
        counters.calls += u64::from(self.received > 0);
        counters.messages += self.received as u64;
        for message in &self.incoming[..self.received] {
            if let Some(dropped) = message.dropped {
                let step = dropped.wrapping_sub(self.kernel_drops_seen);
                counters.kernel_drops += u64::from(step);
                self.kernel_drops_seen = dropped;
            }
            if message.truncated {
                counters.truncated += 1;
                continue;
            }
            let segment = if message.segment == 0 { message.len } else { message.segment };
            counters.datagrams += message.len.div_ceil(segment.max(1)).max(1) as u64;
            counters.bytes += message.len as u64;
        }
    }
}

/// Iterates over received datagrams. The bytes may be changed in place.
pub struct Datagrams<'a> {
    messages: std::iter::Zip<std::slice::ChunksExactMut<'a, u8>, std::slice::Iter<'a, Incoming>>,
    rest: &'a mut [u8],
    segment: usize,
    from: Option<SocketAddr>,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = (SocketAddr, &'a mut [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(from) = self.from {
                let rest = std::mem::take(&mut self.rest);
                let (datagram, rest) = rest.split_at_mut(self.segment.min(rest.len()));
                self.from = (!rest.is_empty()).then_some(from);
                self.rest = rest;
                return Some((from, datagram));
            }
            let (buffer, message) = self.messages.next()?;
            if message.truncated {
                continue;
            }
            self.from = message.address.decode();
            self.rest = &mut buffer[..message.len];
            self.segment = if message.segment == 0 { message.len } else { message.segment };
        }
    }
}
