//! Framed TCP (RFC 4571) for passive ICE-TCP candidates: a listener and its
//! connections, each with bounded buffers, driven by a [`Poller`].

mod connection;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::canonical;
use crate::framing::{FRAME_LEN_MAX, FrameTooLong, Frames, LENGTH_LEN};
use crate::poller::{Interest, Poller, Ready, Token};
use connection::{Connection, Fill, Flushed};

/// Read from one connection per wake-up.
const READ_LEN: usize = 64 << 10;
/// Connections taken from the kernel's queue per wake-up.
const ACCEPTS_PER_READY: usize = 32;
const TAG_SHIFT: u32 = 56;
const LISTENER: u64 = (1 << TAG_SHIFT) - 1;
/// Slots fit the lower half of a token, so no more connections than this.
const CONNECTIONS_MAX: usize = 1 << 20;

/// Limits of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpOptions {
    /// Connections at a time. When there are as many, a new one takes the place of the
    /// oldest that is not confirmed; if all are confirmed it is closed at once.
    pub connections_max: usize,
    /// A connection that is not confirmed by then is closed.
    pub confirm_timeout: Duration,
    /// A connection on which nothing came for so long is closed.
    pub idle_timeout: Duration,
    /// Bytes that wait for a slow reader at most. Media is dropped when three quarters
    /// are taken; a connection whose control data does not fit the rest is closed.
    pub output_bytes_max: usize,
}

impl Default for TcpOptions {
    /// 1,024 connections, confirmed in 10 s, idle for 60 s, 256 KiB (1 s at 2 Mbit/s).
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            confirm_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            output_bytes_max: 256 << 10,
        }
    }
}

/// What was done since the listener was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpCounters {
    /// Connections taken.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections closed, for whatever reason.
    pub closed: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes received, length fields included.
    pub bytes_in: u64,
    /// Frames that were sent or queued.
    pub frames_out: u64,
    /// Bytes that the kernel took, length fields included.
    pub bytes_out: u64,
    /// Media frames dropped because the reader is slow.
    pub frames_dropped: u64,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it.
    Peer,
    /// The connection failed.
    Failed,
    /// A frame was longer than 4,096 bytes.
    Oversize,
    /// It was not confirmed in time.
    NotConfirmed,
    /// It gave way to a newer one.
    Displaced,
    /// Nothing came for too long.
    Idle,
    /// Control data did not fit the output buffer.
    SlowReader,
    /// The caller closed it.
    Local,
}

/// What came of a ready socket or of time.
#[derive(Debug)]
pub enum TcpEvent<'a> {
    /// A frame came. Its bytes may be changed in place.
    Frame {
        /// The peer.
        remote: SocketAddr,
        /// Never empty.
        frame: &'a mut [u8],
    },
    /// A connection ended; its address means nothing any more.
    Closed {
        /// The peer.
        remote: SocketAddr,
        /// Why.
        reason: CloseReason,
    },
}

/// What may happen to a frame when the reader is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// It may be dropped: RTP.
    Media,
    /// Without it the session makes no sense: STUN, DTLS. The connection is closed if
    /// it has no place.
    Control,
}

/// What became of a frame to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// It waits for [`FramedTcp::flush`] or for the reader.
    Queued,
    /// It was media and the reader is slow, or it is empty or longer than 4,096 bytes.
    Dropped,
    /// There is no such connection, or it is being closed because of this frame: the
    /// event comes with the next [`FramedTcp::flush`].
    Closed,
}

/// A passive listener and its connections, named by the address of the peer.
///
/// Frames that are sent are collected and written by [`FramedTcp::flush`], so that a
/// video frame's packets go in one system call. [`FramedTcp::handle_timeout`] closes
/// what is idle, not confirmed in time or failed; [`FramedTcp::poll_timeout`] says when.
pub struct FramedTcp {
    listener: TcpListener,
    options: TcpOptions,
    tag: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_remote: HashMap<SocketAddr, usize>,
    /// Slots with something to write that the kernel was not asked to take yet, each
    /// once, and some that were closed since.
    dirty: Vec<usize>,
    /// Slots to close with the next flush.
    doomed: Vec<(usize, CloseReason)>,
    read_buffer: Box<[u8]>,
    spare: Option<File>,
    counters: TcpCounters,
}

/// A descriptor kept for the hour when there are no others: see [`FramedTcp::shed`].
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// A place for a connection. The generation tells a late event of the last owner.
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl FramedTcp {
    /// Listens on an address (port 0 lets the kernel choose) and registers with the
    /// poller. `tag` (1 to 127) keeps the tokens of several listeners on one poller
    /// apart; all of them are 2^56 and above.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(
        poller: &Poller,
        address: SocketAddr,
        options: TcpOptions,
        tag: u8,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        socket.bind(&address.into())?;
        socket.listen(1_024)?;
        let listener = TcpListener::from(socket);
        let tag = u64::from(tag.clamp(1, 127)) << TAG_SHIFT;
        poller.add(&listener, Token(tag | LISTENER), Interest::Read)?;
        let connections_max = options.connections_max.clamp(1, CONNECTIONS_MAX);
        Ok(Self {
            listener,
            options: TcpOptions { connections_max, ..options },
            tag,
            slots: Vec::new(),
            free: Vec::new(),
            by_remote: HashMap::new(),
            dirty: Vec::new(),
            doomed: Vec::new(),
            read_buffer: vec![0; READ_LEN + FRAME_LEN_MAX + LENGTH_LEN].into_boxed_slice(),
            spare: spare(),
            counters: TcpCounters::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What `getsockname` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr().map(canonical)
    }

    /// A ready token is one of this listener or of its connections.
    #[must_use]
    pub fn owns(&self, token: Token) -> bool {
        token.0 >> TAG_SHIFT == self.tag >> TAG_SHIFT
    }

    /// Takes connections, reads frames and writes what waits, as far as `ready` says.
    /// Events of tokens that are not owned, or that are late, do nothing.
    pub fn handle_ready(
        &mut self,
        poller: &Poller,
        now: Instant,
        ready: Ready,
        mut on_event: impl FnMut(TcpEvent<'_>),
    ) {
        if !self.owns(ready.token) {
            return;
        }
        if ready.token.0 == self.tag | LISTENER {
            self.accept(poller, now, &mut on_event);
            return;
        }
        let Some(slot) = self.slot_of(ready.token) else {
            return;
        };
        if ready.readable
            && let Some(reason) = self.read(slot, now, &mut on_event)
        {
            self.close_slot(slot, reason, &mut on_event);
            return;
        }
        if ready.writable {
            self.write(poller, slot, &mut on_event);
        }
    }

    /// The peer has proved who it is: the connection is no longer closed for want of
    /// that, nor displaced by others.
    pub fn confirm(&mut self, remote: SocketAddr) {
        if let Some(connection) = self.connection_mut(remote) {
            connection.confirmed = true;
        }
    }

    /// Queues a frame for a peer.
    pub fn send(&mut self, remote: SocketAddr, priority: Priority, frame: &[u8]) -> SendOutcome {
        if frame.is_empty() || frame.len() > FRAME_LEN_MAX {
            return SendOutcome::Dropped;
        }
        let limit = match priority {
            Priority::Media => self.options.output_bytes_max / 4 * 3,
            Priority::Control => self.options.output_bytes_max,
        };
        let Some(slot) = self.by_remote.get(&remote).copied() else {
            return SendOutcome::Closed;
        };
        let Some(connection) = self.slots[slot].connection.as_mut() else {
            return SendOutcome::Closed;
        };
        if connection.doomed {
            return SendOutcome::Closed;
        }
        if connection.queue(frame, limit) {
            self.counters.frames_out += 1;
            if !connection.waits_for_room && !std::mem::replace(&mut connection.dirty, true) {
                self.dirty.push(slot);
            }
            return SendOutcome::Queued;
        }
        match priority {
            Priority::Media => {
                self.counters.frames_dropped += 1;
                SendOutcome::Dropped
            }
            Priority::Control => {
                connection.doomed = true;
                self.doomed.push((slot, CloseReason::SlowReader));
                SendOutcome::Closed
            }
        }
    }

    /// Writes what was queued since the last flush, and closes connections whose
    /// control data had no place.
    pub fn flush(&mut self, poller: &Poller, mut on_event: impl FnMut(TcpEvent<'_>)) {
        for at in 0..self.dirty.len() {
            self.write(poller, self.dirty[at], &mut on_event);
        }
        self.dirty.clear();
        while let Some((slot, reason)) = self.doomed.pop() {
            self.close_slot(slot, reason, &mut on_event);
        }
    }

    /// Closes a connection. What is queued is lost. There is no event for it.
    pub fn close(&mut self, remote: SocketAddr) {
        if let Some(slot) = self.by_remote.get(&remote).copied() {
            self.close_slot(slot, CloseReason::Local, &mut |_| {});
        }
    }

    /// Closes connections whose time is over.
    pub fn handle_timeout(&mut self, now: Instant, mut on_event: impl FnMut(TcpEvent<'_>)) {
        for slot in 0..self.slots.len() {
            let Some(connection) = self.slots[slot].connection.as_ref() else {
                continue;
            };
            if let Some((deadline, reason)) = self.deadline(connection)
                && deadline <= now
            {
                self.close_slot(slot, reason, &mut on_event);
            }
        }
    }

    /// When [`FramedTcp::handle_timeout`] has something to do; it may be called
    /// earlier. Looks at every connection: ask once a second, not once a packet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections.filter_map(|connection| self.deadline(connection)).map(|(at, _)| at).min()
    }

    /// Connections at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.by_remote.len()
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> TcpCounters {
        self.counters
    }

    fn deadline(&self, connection: &Connection) -> Option<(Instant, CloseReason)> {
        let idle = connection.last_heard.checked_add(self.options.idle_timeout)?;
        let confirm = connection.opened.checked_add(self.options.confirm_timeout)?;
        if !connection.confirmed && confirm < idle {
            return Some((confirm, CloseReason::NotConfirmed));
        }
        Some((idle, CloseReason::Idle))
    }

    fn accept(&mut self, poller: &Poller, now: Instant, on_event: &mut impl FnMut(TcpEvent<'_>)) {
        for _ in 0..ACCEPTS_PER_READY {
            let (stream, remote) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return self.shed(&error),
            };
            if self.connections() >= self.options.connections_max && !self.displace(on_event) {
                self.counters.refused += 1;
                continue;
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot { generation: 0, connection: None });
                self.slots.len() - 1
            });
            let remote = canonical(remote);
            let token = self.token(slot);
            match Connection::new(poller, stream, remote, token, now) {
                Ok(connection) => {
                    self.slots[slot].connection = Some(connection);
                    self.by_remote.insert(remote, slot);
                    self.counters.accepted += 1;
                }
                Err(_) => self.free.push(slot),
            }
        }
    }

    /// When the process has no descriptors left, a waiting connection keeps the
    /// listener ready for ever and the shard would spin: it is taken with the spare
    /// descriptor and closed. Other errors are of one connection that is gone already.
    fn shed(&mut self, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            self.spare = None;
            self.counters.refused += u64::from(self.listener.accept().is_ok());
        }
        if self.spare.is_none() {
            self.spare = spare();
        }
    }

    /// Closes the oldest connection that is not confirmed.
    fn displace(&mut self, on_event: &mut impl FnMut(TcpEvent<'_>)) -> bool {
        let unconfirmed = self.slots.iter().enumerate().filter_map(|(slot, place)| {
            let connection = place.connection.as_ref().filter(|one| !one.confirmed)?;
            Some((connection.opened, slot))
        });
        let Some((_, slot)) = unconfirmed.min() else {
            return false;
        };
        self.close_slot(slot, CloseReason::Displaced, on_event);
        true
    }

    /// Reads once and hands out whole frames. Returns why the connection is over, if
    /// it is.
    fn read(
        &mut self,
        slot: usize,
        now: Instant,
        on_event: &mut impl FnMut(TcpEvent<'_>),
    ) -> Option<CloseReason> {
        let connection = self.slots[slot].connection.as_mut()?;
        let (filled, fresh) = match connection.fill(&mut self.read_buffer, READ_LEN) {
            Fill::Bytes { filled, fresh } => (filled, fresh),
            Fill::Nothing => return None,
            Fill::Over(reason) => return Some(reason),
        };
        connection.last_heard = now;
        self.counters.bytes_in += fresh as u64;
        let remote = connection.remote;
        let mut frames = Frames::new(&mut self.read_buffer[..filled]);
        for frame in frames.by_ref() {
            self.counters.frames_in += 1;
            on_event(TcpEvent::Frame { remote, frame });
        }
        match frames.finish() {
            Ok(rest) => {
                connection.keep(rest);
                None
            }
            Err(FrameTooLong) => Some(CloseReason::Oversize),
        }
    }

    fn write(&mut self, poller: &Poller, slot: usize, on_event: &mut impl FnMut(TcpEvent<'_>)) {
        let token = self.token(slot);
        let Some(connection) = self.slots[slot].connection.as_mut() else {
            return;
        };
        let (written, outcome) = connection.flush();
        self.counters.bytes_out += written as u64;
        let interest = match outcome {
            Flushed::All => Interest::Read,
            Flushed::Part => Interest::ReadWrite,
            Flushed::Failed => return self.close_slot(slot, CloseReason::Failed, on_event),
        };
        if connection.set_interest(poller, token, interest).is_err() {
            self.close_slot(slot, CloseReason::Failed, on_event);
        }
    }

    fn close_slot(
        &mut self,
        slot: usize,
        reason: CloseReason,
        on_event: &mut impl FnMut(TcpEvent<'_>),
    ) {
        let place = &mut self.slots[slot];
        // Dropping the stream closes it, and epoll forgets it with that.
        let Some(connection) = place.connection.take() else {
            return;
        };
        place.generation = place.generation.wrapping_add(1) & 0xff_ffff;
        self.free.push(slot);
        // The list of the dirty may still have the slot: writing finds nothing to do.
        self.doomed.retain(|(doomed, _)| *doomed != slot);
        self.by_remote.remove(&connection.remote);
        self.counters.closed += 1;
        if reason != CloseReason::Local {
            on_event(TcpEvent::Closed { remote: connection.remote, reason });
        }
    }

    fn connection_mut(&mut self, remote: SocketAddr) -> Option<&mut Connection> {
        let slot = *self.by_remote.get(&remote)?;
        self.slots[slot].connection.as_mut()
    }

    fn token(&self, slot: usize) -> Token {
        Token(self.tag | u64::from(self.slots[slot].generation) << 32 | slot as u64)
    }

    fn slot_of(&self, token: Token) -> Option<usize> {
        let slot = (token.0 & 0xffff_ffff) as usize;
        (slot < self.slots.len() && self.token(slot) == token).then_some(slot)
    }
}
