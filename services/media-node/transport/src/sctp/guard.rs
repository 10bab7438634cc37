//! Keeps what an authenticated but hostile peer sends from costing `rtc-sctp`
//! unbounded time or memory. The library bounds received bytes; this bounds
//! chunks, jumps in the sequence space and stream resets.

use std::time::{Duration, Instant};

const PACKET_HEADER: usize = 12;
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const RECONFIG: u8 = 130;
const FORWARD_TSN: u8 = 192;
const PARAMETER_OUTGOING_RESET: u16 = 13;

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
    /// The TSN before the first missing one; none before INIT.
    base: Option<u32>,
    /// Which of the TSNs behind `base` have come: bit `tsn % WINDOW`.
    seen: Box<[u64; WINDOW_WORDS]>,
    waiting_chunks: f64,
    resets: f64,
    resets_total: u32,
    updated_at: Option<Instant>,
}

impl Guard {
    pub fn new() -> Self {
        Self {
            base: None,
            seen: Box::new([0; WINDOW_WORDS]),
            waiting_chunks: 0.0,
            resets: 0.0,
            resets_total: 0,
            updated_at: None,
        }
    }

    /// Whether the packet may go on. A refused one is as if lost: an honest
    /// sender repeats it.
    pub fn admit(&mut self, now: Instant, packet: &[u8]) -> bool {
        self.recover(now);
        packet.get(PACKET_HEADER..).is_some_and(|body| {
            chunks(body).all(|chunk| chunk.is_some_and(|chunk| self.take(chunk)))
        })
    }

    /// A message of this many chunks came out of the library.
    pub fn delivered(&mut self, chunks: usize) {
        self.waiting_chunks = (self.waiting_chunks - chunks as f64).max(0.0);
    }

    fn recover(&mut self, now: Instant) {
        let elapsed = self
            .updated_at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.updated_at = Some(now);
        self.waiting_chunks =
            (self.waiting_chunks - elapsed.as_secs_f64() * WRITE_OFF_RATE).max(0.0);
        self.resets = (self.resets - elapsed.as_secs_f64() * RESET_RATE).max(0.0);
    }

    fn take(&mut self, chunk: Chunk<'_>) -> bool {
        match chunk.kind {
            INIT | INIT_ACK => {
                let Some(initial) = u32_at(chunk.value, 12) else {
                    return false;
                };
                self.base = Some(initial.wrapping_sub(1));
                self.seen.fill(0);
                true
            }
            DATA => self.take_data(chunk.value),
            FORWARD_TSN => self.take_forward(chunk.value),
            RECONFIG => self.take_reset(chunk.value),
            _ => true,
        }
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

    fn take_reset(&mut self, value: &[u8]) -> bool {
        let kind = value
            .get(..2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        if kind == Some(PARAMETER_OUTGOING_RESET) {
            let (Some(last), Some(base)) = (u32_at(value, 12), self.base) else {
                return false;
            };
            if ahead(last, base) > WINDOW {
                return false;
            }
        }
        if self.resets + 1.0 > RESETS_MAX || self.resets_total == RESETS_TOTAL_MAX {
            return false;
        }
        self.resets += 1.0;
        self.resets_total += 1;
        true
    }

    /// Moves `base` over everything that has come behind it.
    fn advance(&mut self) {
        while let Some(next) = self
            .base
            .map(|base| base.wrapping_add(1))
            .filter(|next| self.is_seen(*next))
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
        *word = if seen {
            *word | (1 << (bit % 64))
        } else {
            *word & !(1 << (bit % 64))
        };
    }
}

/// How far `tsn` lies ahead of `of` in serial arithmetic; 0 if not ahead.
fn ahead(tsn: u32, of: u32) -> u32 {
    let distance = tsn.wrapping_sub(of);
    if distance < 1 << 31 { distance } else { 0 }
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    kind: u8,
    value: &'a [u8],
}

/// The chunks of a packet's body; `None` for a malformed one, which is the last.
fn chunks(body: &[u8]) -> impl Iterator<Item = Option<Chunk<'_>>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let header = match rest {
            [] => return None,
            [kind, _, high, low, ..] => {
                Some((*kind, usize::from(u16::from_be_bytes([*high, *low]))))
            }
            [..] => None,
        };
        let chunk = header.and_then(|(kind, length)| {
            rest.get(4..length)
                .map(|value| (Chunk { kind, value }, length))
        });
        let Some((chunk, length)) = chunk else {
            rest = &[];
            return Some(None);
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Some(chunk))
    })
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests;
