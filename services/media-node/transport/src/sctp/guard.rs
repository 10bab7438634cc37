//! Keeps what an authenticated but hostile peer sends from costing `rtc-sctp`
//! unbounded time or memory. The library bounds received bytes; this bounds
//! chunks, jumps in the sequence space and stream resets.

use std::time::{Duration, Instant};

use super::chunk::{Chunk, ChunkKind, PARAMETER_OUTGOING_RESET, chunks, parameters, u32_at};

const PACKET_HEADER: usize = 12;
/// Highest stream taken plus one, and what is announced to the peer.
pub(super) const STREAMS_MAX: u16 = 1024;
/// TSNs taken beyond the first missing one. The library walks a jump of
/// FORWARD-TSN step by step and keeps what lies behind a gap, so this bounds
/// its time per packet; a sender has far fewer chunks in flight.
const WINDOW: u32 = 8192;
const WINDOW_WORDS: usize = WINDOW as usize / 64;
/// Chunks that may wait in the library for the rest of their message. A full
/// receive buffer of MTU-sized chunks holds 900.
const WAITING_CHUNKS_MAX: f64 = 8192.0;
/// Received pieces of messages that the sender gave up never come out; they are
/// written off at this pace, per second.
const WRITE_OFF_RATE: f64 = 256.0;
/// Stream resets taken in a row and per second.
const RESETS_MAX: f64 = 64.0;
const RESET_RATE: f64 = 8.0;
/// Stream resets taken in an association's life; the library keeps some state
/// for each that its sender does not acknowledge.
const RESETS_TOTAL_MAX: u32 = 8192;

/// Looks at every packet before the library does.
#[derive(Debug)]
pub(super) struct Guard {
    is_client: bool,
    /// Our verification tag, once the association is up.
    tag: Option<u32>,
    /// The TSN before the first missing one; none before INIT.
    base: Option<u32>,
    /// Which of the TSNs behind `base` have come: bit `tsn % WINDOW`.
    seen: Box<[u64; WINDOW_WORDS]>,
    initial_tsn: Option<u32>,
    waiting_chunks: f64,
    resets: f64,
    resets_total: u32,
    updated_at: Option<Instant>,
}

impl Guard {
    pub fn new(is_client: bool) -> Self {
        Self {
            is_client,
            tag: None,
            base: None,
            seen: Box::new([0; WINDOW_WORDS]),
            initial_tsn: None,
            waiting_chunks: 0.0,
            resets: 0.0,
            resets_total: 0,
            updated_at: None,
        }
    }

    /// Whether the packet may go on. A refused one is as if lost: an honest
    /// sender repeats it.
    ///
    /// What is counted here must be what the library sees, or a packet that the
    /// library ignores could move the window: hence the tag, the one initial
    /// TSN, and chunks of canonical length only.
    pub fn admit(&mut self, now: Instant, packet: &[u8]) -> bool {
        self.recover(now);
        let (Some(tag), Some(body)) = (packet_tag(packet), packet.get(PACKET_HEADER..)) else {
            return false;
        };
        if self.tag.is_some_and(|ours| ours != tag) {
            return false;
        }
        let alone = chunks(body).count() == 1;
        chunks(body).all(|chunk| chunk.is_some_and(|chunk| self.take(chunk, alone)))
    }

    /// The association came up with this packet: its tag is the one from now on.
    pub fn established(&mut self, packet: &[u8]) {
        self.tag = packet_tag(packet);
    }

    /// A message of this many chunks came out of the library.
    pub fn delivered(&mut self, chunks: usize) {
        self.waiting_chunks = (self.waiting_chunks - chunks as f64).max(0.0);
    }

    fn recover(&mut self, now: Instant) {
        let elapsed =
            self.updated_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.updated_at = Some(now);
        self.waiting_chunks =
            (self.waiting_chunks - elapsed.as_secs_f64() * WRITE_OFF_RATE).max(0.0);
        self.resets = (self.resets - elapsed.as_secs_f64() * RESET_RATE).max(0.0);
    }

    fn take(&mut self, chunk: Chunk<'_>, alone: bool) -> bool {
        let is_up = self.tag.is_some();
        match chunk.kind {
            ChunkKind::Init => alone && !is_up && !self.is_client && self.take_initial(chunk.value),
            ChunkKind::InitAck => {
                alone && !is_up && self.is_client && self.take_initial(chunk.value)
            }
            ChunkKind::Data => self.take_data(chunk.value),
            ChunkKind::ForwardTsn => is_up && self.take_forward(chunk.value),
            ChunkKind::Reconfig => is_up && self.take_resets(chunk.value),
            ChunkKind::Sack
            | ChunkKind::Heartbeat
            | ChunkKind::Abort
            | ChunkKind::Shutdown
            | ChunkKind::ShutdownAck
            | ChunkKind::Error
            | ChunkKind::CookieEcho
            | ChunkKind::CookieAck
            | ChunkKind::ShutdownComplete => true,
        }
    }

    /// A repeated INIT is the same INIT.
    fn take_initial(&mut self, value: &[u8]) -> bool {
        let Some(initial) = u32_at(value, 12) else {
            return false;
        };
        if self.initial_tsn.is_some_and(|known| known != initial) {
            return false;
        }
        if self.initial_tsn.replace(initial).is_none() {
            self.base = Some(initial.wrapping_sub(1));
        }
        true
    }

    fn take_data(&mut self, value: &[u8]) -> bool {
        let (Some(tsn), Some(&[high, low]), Some(base)) =
            (u32_at(value, 0), value.get(4..6), self.base)
        else {
            return false;
        };
        // A chunk without data is a protocol violation (RFC 9260 §6.2).
        if value.len() <= 12 || u16::from_be_bytes([high, low]) >= STREAMS_MAX {
            return false;
        }
        match ahead(tsn, base) {
            0 => true,
            1..=WINDOW if self.is_seen(tsn) => true,
            1..=WINDOW if self.waiting_chunks < WAITING_CHUNKS_MAX => {
                self.waiting_chunks += 1.0;
                self.mark(tsn, true);
                self.advance();
                true
            }
            _ => false,
        }
    }

    fn take_forward(&mut self, value: &[u8]) -> bool {
        let (Some(tsn), Some(base)) = (u32_at(value, 0), self.base) else {
            return false;
        };
        let distance = ahead(tsn, base);
        if distance > WINDOW {
            return false;
        }
        for step in 1..=distance {
            self.mark(base.wrapping_add(step), true);
        }
        self.advance();
        true
    }

    fn take_resets(&mut self, value: &[u8]) -> bool {
        let Some(base) = self.base else { return false };
        let far = parameters(value).flatten().any(|(kind, value)| {
            kind == PARAMETER_OUTGOING_RESET
                && u32_at(value, 8).is_none_or(|last| ahead(last, base) > WINDOW)
        });
        if far || self.resets + 1.0 > RESETS_MAX || self.resets_total == RESETS_TOTAL_MAX {
            return false;
        }
        self.resets += 1.0;
        self.resets_total += 1;
        true
    }

    /// Moves `base` over everything that has come behind it.
    fn advance(&mut self) {
        while let Some(next) =
            self.base.map(|base| base.wrapping_add(1)).filter(|next| self.is_seen(*next))
        {
            self.mark(next, false);
            self.base = Some(next);
        }
    }

    fn is_seen(&self, tsn: u32) -> bool {
        let bit = tsn % WINDOW;
        self.seen[bit as usize / 64] & (1 << (bit % 64)) != 0
    }

    fn mark(&mut self, tsn: u32, seen: bool) {
        let bit = tsn % WINDOW;
        let word = &mut self.seen[bit as usize / 64];
        *word = if seen { *word | (1 << (bit % 64)) } else { *word & !(1 << (bit % 64)) };
    }
}

/// How far `tsn` lies ahead of `of` in serial arithmetic; 0 if not ahead.
fn ahead(tsn: u32, of: u32) -> u32 {
    let distance = tsn.wrapping_sub(of);
    if distance < 1 << 31 { distance } else { 0 }
}

fn packet_tag(packet: &[u8]) -> Option<u32> {
    u32_at(packet, 4)
}

#[cfg(test)]
mod tests;
