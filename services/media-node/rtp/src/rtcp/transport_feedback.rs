//! Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01,
//! section 3.1): reading the arrival of each packet, and building it from arrivals.

use core::time::Duration;

use super::read_u32;

/// Unit of arrival deltas.
pub const DELTA_TICK: Duration = Duration::from_micros(250);
/// Unit of the reference time.
pub const REFERENCE_TICK: Duration = Duration::from_millis(64);
/// Delta ticks in a reference tick.
const TICKS_PER_REFERENCE: i64 = 256;
const HEAD_LEN: usize = 16;
const RUN_LENGTH_MAX: u16 = 0x1fff;

/// One packet of the status list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketStatus {
    /// Transport-wide sequence number.
    pub sequence: u16,
    /// When it came, in [`DELTA_TICK`]s on the receiver's clock (from the same zero as
    /// the reference time, which wraps after 12 days); `None` if it did not come.
    pub arrival: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Symbol {
    NotReceived,
    SmallDelta,
    LargeDelta,
}

impl Symbol {
    fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            0 => Some(Self::NotReceived),
            1 => Some(Self::SmallDelta),
            2 => Some(Self::LargeDelta),
            _ => None,
        }
    }

    fn delta_len(self) -> usize {
        match self {
            Self::NotReceived => 0,
            Self::SmallDelta => 1,
            Self::LargeDelta => 2,
        }
    }
}

/// A transport-wide feedback packet whose chunks and deltas were checked.
#[derive(Debug, Clone, Copy)]
pub struct TransportFeedback<'a> {
    /// Who reports.
    pub sender_ssrc: u32,
    /// A source of the transport; the report is for all of them.
    pub media_ssrc: u32,
    /// First sequence number of the list.
    pub base_sequence: u16,
    /// Number of packets in the list.
    pub status_count: u16,
    /// In [`REFERENCE_TICK`]s; 24 bits, signed.
    pub reference_time: i32,
    /// Counts feedback packets and wraps.
    pub feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let counts = read_u32(body, 8)?;
        let time = read_u32(body, 12)?;
        let status_count = counts as u16;
        let rest = body.get(HEAD_LEN..)?;
        let mut symbols = Symbols { chunks: rest, left: status_count, chunk: Chunk::EMPTY };
        let mut delta_len = 0;
        for _ in 0..status_count {
            delta_len += symbols.next_checked()?.delta_len();
        }
        let chunk_len = rest.len() - symbols.chunks.len();
        let (chunks, deltas) = rest.split_at(chunk_len);
        Some(Self {
            sender_ssrc: read_u32(body, 0)?,
            media_ssrc: read_u32(body, 4)?,
            base_sequence: (counts >> 16) as u16,
            status_count,
            reference_time: time.cast_signed() >> 8,
            feedback_count: time as u8,
            chunks,
            deltas: deltas.get(..delta_len)?,
        })
    }

    /// Every packet of the list, in sequence order, at most 65,535.
    #[must_use]
    pub fn packets(&self) -> PacketStatuses<'a> {
        PacketStatuses {
            symbols: Symbols { chunks: self.chunks, left: self.status_count, chunk: Chunk::EMPTY },
            deltas: self.deltas,
            sequence: self.base_sequence,
            arrival: i64::from(self.reference_time) * TICKS_PER_REFERENCE,
        }
    }
}

/// Iterates over the packets of a feedback.
#[derive(Debug, Clone)]
pub struct PacketStatuses<'a> {
    symbols: Symbols<'a>,
    deltas: &'a [u8],
    sequence: u16,
    arrival: i64,
}

impl Iterator for PacketStatuses<'_> {
    type Item = PacketStatus;

    fn next(&mut self) -> Option<PacketStatus> {
        let symbol = self.symbols.next_checked()?;
        let delta = match symbol {
            Symbol::NotReceived => None,
            Symbol::SmallDelta => {
                let (delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                Some(i64::from(*delta))
            }
            Symbol::LargeDelta => {
                let (delta, rest) = self.deltas.split_first_chunk()?;
                self.deltas = rest;
                Some(i64::from(i16::from_be_bytes(*delta)))
            }
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.arrival += delta.unwrap_or(0);
        Some(PacketStatus { sequence, arrival: delta.map(|_| self.arrival) })
    }
}

/// What is left of the current chunk.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    bits: u16,
    /// Symbols left.
    left: u16,
    kind: ChunkKind,
}

#[derive(Debug, Clone, Copy)]
enum ChunkKind {
    Run,
    OneBit,
    TwoBit,
}

impl Chunk {
    const EMPTY: Self = Self { bits: 0, left: 0, kind: ChunkKind::Run };

    fn read(bits: u16) -> Self {
        match bits >> 14 {
            0 | 1 => {
                Self { bits: bits >> 13 & 0x03, left: bits & RUN_LENGTH_MAX, kind: ChunkKind::Run }
            }
            2 => Self { bits, left: 14, kind: ChunkKind::OneBit },
            _ => Self { bits, left: 7, kind: ChunkKind::TwoBit },
        }
    }

    fn next(&mut self) -> Option<Symbol> {
        self.left -= 1;
        Symbol::from_bits(match self.kind {
            ChunkKind::Run => self.bits,
            ChunkKind::OneBit => self.bits >> self.left & 0x01,
            ChunkKind::TwoBit => self.bits >> (2 * self.left) & 0x03,
        })
    }
}

#[derive(Debug, Clone)]
struct Symbols<'a> {
    chunks: &'a [u8],
    left: u16,
    chunk: Chunk,
}

impl Symbols<'_> {
    /// `None` at the end, and where a chunk is missing or has a reserved symbol.
    fn next_checked(&mut self) -> Option<Symbol> {
        self.left = self.left.checked_sub(1)?;
        while self.chunk.left == 0 {
            let (bits, rest) = self.chunks.split_first_chunk()?;
            self.chunks = rest;
            self.chunk = Chunk::read(u16::from_be_bytes(*bits));
        }
        self.chunk.next()
    }
}

/// A packet that came, for [`super::CompoundWriter::transport_feedback`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Unwrapped transport-wide sequence number.
    pub sequence: u64,
    /// When it came, since any fixed moment of the receiver's monotonic clock.
    pub at: Duration,
}

/// The fixed part of a feedback to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransportFeedbackHead {
    /// Who reports.
    pub sender_ssrc: u32,
    /// A source of the transport.
    pub media_ssrc: u32,
    /// Counts feedback packets and wraps.
    pub feedback_count: u8,
    /// First sequence number of the list: packets from here to the first arrival are
    /// reported as not received. At most the sequence of the first arrival.
    pub base_sequence: u64,
}

/// Writes the body of a feedback. Returns its length, padding included, the bytes of
/// padding and how many of the arrivals it holds; `None` if not even one fits.
pub(super) fn write_body(
    head: &TransportFeedbackHead,
    arrivals: &[Arrival],
    out: &mut [u8],
) -> Option<Body> {
    let first = arrivals.first()?;
    let reference = ticks(first.at) / TICKS_PER_REFERENCE;
    let plan = plan(head, arrivals, reference * TICKS_PER_REFERENCE, out.len())?;
    let delta_start = HEAD_LEN + 2 * plan.chunks;
    let end = delta_start + plan.delta_bytes;
    let len = end.next_multiple_of(4);
    let counts = u32::from(head.base_sequence as u16) << 16 | u32::from(plan.status_count);
    let time = (reference as u32) << 8 | u32::from(head.feedback_count);
    out[0..4].copy_from_slice(&head.sender_ssrc.to_be_bytes());
    out[4..8].copy_from_slice(&head.media_ssrc.to_be_bytes());
    out[8..12].copy_from_slice(&counts.to_be_bytes());
    out[12..16].copy_from_slice(&time.to_be_bytes());

    let (chunks, deltas) = out[HEAD_LEN..len].split_at_mut(2 * plan.chunks);
    let mut chunks = chunks.chunks_exact_mut(2);
    let mut emit = |chunk: u16| {
        if let Some(slot) = chunks.next() {
            slot.copy_from_slice(&chunk.to_be_bytes());
        }
    };
    let mut encoder = ChunkEncoder::default();
    let mut expected = head.base_sequence;
    let mut time = reference * TICKS_PER_REFERENCE;
    let mut at = 0;
    for arrival in &arrivals[..plan.arrivals] {
        let delta = ticks(arrival.at) - time;
        let symbol = symbol_of(delta)?;
        encoder.add_run(Symbol::NotReceived, arrival.sequence - expected, &mut emit);
        encoder.add(symbol, &mut emit);
        match symbol {
            Symbol::SmallDelta => deltas[at] = delta as u8,
            Symbol::NotReceived | Symbol::LargeDelta => {
                deltas[at..at + 2].copy_from_slice(&(delta as i16).to_be_bytes());
            }
        }
        at += symbol.delta_len();
        time += delta;
        expected = arrival.sequence + 1;
    }
    encoder.finish(&mut emit);
    let padding = len - end;
    deltas[at..].fill(0);
    if padding > 0 {
        out[len - 1] = padding as u8;
    }
    Some(Body { len, padding, arrivals: plan.arrivals })
}

/// What [`write_body`] wrote.
pub(super) struct Body {
    pub(super) len: usize,
    pub(super) padding: usize,
    pub(super) arrivals: usize,
}

struct Plan {
    arrivals: usize,
    chunks: usize,
    delta_bytes: usize,
    status_count: u16,
}

/// How many arrivals fit: the list ends where the room does, where a delta has no
/// code, where sequence numbers do not rise or where the count field is full.
fn plan(
    head: &TransportFeedbackHead,
    arrivals: &[Arrival],
    reference: i64,
    room: usize,
) -> Option<Plan> {
    let mut plan = Plan { arrivals: 0, chunks: 0, delta_bytes: 0, status_count: 0 };
    let mut encoder = ChunkEncoder::default();
    let mut emitted = 0;
    let mut expected = head.base_sequence;
    let mut time = reference;
    for arrival in arrivals {
        let delta = ticks(arrival.at) - time;
        let Some(symbol) = symbol_of(delta) else {
            break;
        };
        let Some(gap) = arrival.sequence.checked_sub(expected) else {
            break;
        };
        let Ok(status_count) = u16::try_from(arrival.sequence - head.base_sequence + 1) else {
            break;
        };
        let mut count = |_| emitted += 1;
        encoder.add_run(Symbol::NotReceived, gap, &mut count);
        encoder.add(symbol, &mut count);
        let chunks = emitted + usize::from(!encoder.is_empty());
        let delta_bytes = plan.delta_bytes + symbol.delta_len();
        if (HEAD_LEN + 2 * chunks + delta_bytes).next_multiple_of(4) > room {
            break;
        }
        plan = Plan { arrivals: plan.arrivals + 1, chunks, delta_bytes, status_count };
        time += delta;
        expected = arrival.sequence + 1;
    }
    (plan.arrivals > 0).then_some(plan)
}

fn ticks(at: Duration) -> i64 {
    // Far beyond any uptime: 2^63 ticks are 73 million years.
    i64::try_from(at.as_micros() / DELTA_TICK.as_micros()).unwrap_or(i64::MAX / 2)
}

fn symbol_of(delta: i64) -> Option<Symbol> {
    if (0..=0xff).contains(&delta) {
        return Some(Symbol::SmallDelta);
    }
    i16::try_from(delta).ok().map(|_| Symbol::LargeDelta)
}

/// Packs symbols into chunks: a run as long as they are equal, else 14 of one bit or
/// 7 of two bits.
#[derive(Debug, Clone)]
struct ChunkEncoder {
    symbols: [Symbol; 14],
    len: u16,
    all_same: bool,
    has_large: bool,
}

impl Default for ChunkEncoder {
    fn default() -> Self {
        Self { symbols: [Symbol::NotReceived; 14], len: 0, all_same: true, has_large: false }
    }
}

impl ChunkEncoder {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn add_run(&mut self, symbol: Symbol, count: u64, emit: &mut impl FnMut(u16)) {
        for _ in 0..count.min(u64::from(u16::MAX)) {
            self.add(symbol, emit);
        }
    }

    fn add(&mut self, symbol: Symbol, emit: &mut impl FnMut(u16)) {
        while !self.takes(symbol) {
            self.emit_one(emit);
        }
        if let Some(slot) = self.symbols.get_mut(usize::from(self.len)) {
            *slot = symbol;
        }
        self.all_same &= symbol == self.symbols[0];
        self.has_large |= symbol == Symbol::LargeDelta;
        self.len += 1;
    }

    fn takes(&self, symbol: Symbol) -> bool {
        if self.len < 7 {
            return true;
        }
        let run = self.all_same && symbol == self.symbols[0] && self.len < RUN_LENGTH_MAX;
        let one_bit = self.len < 14 && !self.has_large && symbol != Symbol::LargeDelta;
        run || one_bit
    }

    fn emit_one(&mut self, emit: &mut impl FnMut(u16)) {
        if self.all_same {
            emit((self.symbols[0] as u16) << 13 | self.len);
            *self = Self::default();
        } else if self.len == 14 && !self.has_large {
            emit(self.one_bit());
            *self = Self::default();
        } else {
            emit(self.two_bit());
            let rest = self.symbols;
            let len = usize::from(self.len);
            *self = Self::default();
            for symbol in rest.iter().take(len).skip(7) {
                self.add(*symbol, emit);
            }
        }
    }

    fn finish(&mut self, emit: &mut impl FnMut(u16)) {
        if self.len == 0 {
            return;
        }
        if self.all_same {
            emit((self.symbols[0] as u16) << 13 | self.len);
        } else if self.len <= 7 {
            emit(self.two_bit());
        } else {
            emit(self.one_bit());
        }
        *self = Self::default();
    }

    fn one_bit(&self) -> u16 {
        (0..14).fold(0x8000, |bits, index| bits | (self.symbols[index] as u16) << (13 - index))
    }

    fn two_bit(&self) -> u16 {
        (0..7).fold(0xc000, |bits, index| bits | (self.symbols[index] as u16) << (2 * (6 - index)))
    }
}
