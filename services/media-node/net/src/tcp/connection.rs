//! One framed connection: what is left of a partial frame, and what waits for the
//! reader.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::CloseReason;
use crate::framing::LENGTH_LEN;
use crate::poller::{Interest, Poller, Token};

pub(super) struct Connection {
    stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) opened: Instant,
    pub(super) last_heard: Instant,
    pub(super) confirmed: bool,
    /// It is to be closed with the next flush.
    pub(super) doomed: bool,
    /// It is in the list of those to be written.
    pub(super) dirty: bool,
    /// The kernel's buffer is full and the poller says when it is not.
    pub(super) waits_for_room: bool,
    /// The beginning of a frame; shorter than a frame with its length.
    partial: Vec<u8>,
    /// Bounded by the caller's limit.
    output: VecDeque<u8>,
}

/// What reading brought.
pub(super) enum Fill {
    /// The buffer has `filled` bytes, of which the last `fresh` are new.
    Bytes {
        filled: usize,
        fresh: usize,
    },
    Nothing,
    Over(CloseReason),
}

/// What writing left.
pub(super) enum Flushed {
    All,
    Part,
    Failed,
}

impl Connection {
    pub(super) fn new(
        poller: &Poller,
        stream: TcpStream,
        remote: SocketAddr,
        token: Token,
        now: Instant,
    ) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        poller.add(&stream, token, Interest::Read)?;
        Ok(Self {
            stream,
            remote,
            opened: now,
            last_heard: now,
            confirmed: false,
            doomed: false,
            dirty: false,
            waits_for_room: false,
            partial: Vec::new(),
            output: VecDeque::new(),
        })
    }

    /// Puts the partial frame and then at most `len` fresh bytes into the buffer,
    /// which has room for both.
    pub(super) fn fill(&mut self, buffer: &mut [u8], len: usize) -> Fill {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        match self.stream.read(&mut buffer[kept..kept + len]) {
            Ok(0) => Fill::Over(CloseReason::Peer),
            Ok(fresh) => Fill::Bytes { filled: kept + fresh, fresh },
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Fill::Nothing,
                _ => Fill::Over(CloseReason::Failed),
            },
        }
    }

    /// Keeps the beginning of a frame for the next fill.
    pub(super) fn keep(&mut self, partial: &[u8]) {
        self.partial.clear();
        self.partial.extend_from_slice(partial);
    }

    /// Queues a frame if it fits the limit.
    pub(super) fn queue(&mut self, frame: &[u8], limit: usize) -> bool {
        if self.output.len() + LENGTH_LEN + frame.len() > limit {
            return false;
        }
        // The caller has checked that it is at most FRAME_LEN_MAX.
        self.output.extend((frame.len() as u16).to_be_bytes());
        self.output.extend(frame);
        true
    }

    /// Writes what the kernel takes. Returns how much that was and what is left.
    pub(super) fn flush(&mut self) -> (usize, Flushed) {
        self.dirty = false;
        let mut total = 0;
        while !self.output.is_empty() {
            let (first, second) = self.output.as_slices();
            match self.stream.write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(0) => return (total, Flushed::Failed),
                Ok(written) => {
                    self.output.drain(..written);
                    total += written;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return (total, Flushed::Part),
                    _ => return (total, Flushed::Failed),
                },
            }
        }
        (total, Flushed::All)
    }

    /// Tells the poller whether there is something to write, if that has changed.
    pub(super) fn set_interest(
        &mut self,
        poller: &Poller,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let waits = interest == Interest::ReadWrite;
        if waits == self.waits_for_room {
            return Ok(());
        }
        self.waits_for_room = waits;
        poller.set_interest(&self.stream, token, interest)
    }
}
