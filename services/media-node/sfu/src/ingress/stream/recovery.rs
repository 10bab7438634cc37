//! Packet path: no allocation. Packets that were lost and came again inside a later one
//! (RED, RFC 2198): they take their own places in the ring, as packets of the codec
//! without redundancy. Every subscriber gets them: one that takes RED has the same sound
//! from the later packet, but would ask for the missing number, which costs more.

use headwater_rtp::red::{REDUNDANT_MAX, RedPayload};
use headwater_rtp::sequence::timestamp_distance;

use super::super::ring::Ring;
use super::{Accepted, Incoming, Stream};
use crate::Stats;

/// Numbers looked at on either side to see whether the time of a block fits its number.
const NEIGHBOURS: u64 = REDUNDANT_MAX as u64 + 1;

/// Numbers of packets that were recovered.
pub(crate) type Recovered = arrayvec::ArrayVec<u64, REDUNDANT_MAX>;

/// How packets of a payload type hold packets of its codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RedForm {
    /// Payload type of the blocks.
    pub(crate) block_type: u8,
    /// Index of that payload type in the publication.
    pub(crate) codec_index: u8,
}

impl Stream {
    /// Stores what is missing and is in the redundant blocks of a packet, before that is
    /// stored itself. Blocks do not name sequence numbers: senders put the last packets
    /// in, one behind the other, so that the n-th from the end is n numbers back. Where
    /// its timestamp says otherwise it is left alone.
    pub(super) fn recover(&mut self, incoming: &Incoming<'_>, sequence: u64, stats: &mut Stats) {
        let Some(form) = incoming.red.filter(|_| !self.missing.is_empty()) else {
            return;
        };
        let Ok(red) = RedPayload::parse(incoming.payload) else {
            return;
        };
        let blocks = red.redundant();
        let backs = (1..=blocks.len() as u64).rev();
        for (back, block) in backs.zip(blocks) {
            let Some(sequence) = sequence.checked_sub(back) else { continue };
            let offset = u32::from(block.timestamp_offset);
            let timestamp = incoming.timestamp.wrapping_sub(offset);
            let good =
                !block.payload.is_empty() && offset > 0 && block.payload_type == form.block_type;
            if !good || !self.missing.contains(sequence) || !self.fits(sequence, timestamp) {
                continue;
            }
            let packet = Incoming {
                timestamp,
                marker: false,
                payload: block.payload,
                extensions: &[],
                codec_index: form.codec_index,
                red: None,
                ..*incoming
            };
            let late = self.newest().is_some_and(|newest| {
                self.renumber.number(sequence).is_some_and(|number| number < newest)
            });
            if let Accepted::Stored(number) = self.store(&packet, sequence, late, stats) {
                // It did not come by being asked for: this is no round trip.
                let _ = self.missing.found(sequence);
                stats.recovered += 1;
                // There is room for every block of one packet.
                let _ = self.recovered.try_push(number);
            }
        }
    }

    /// A timestamp lies between those of the packets around a number.
    fn fits(&self, sequence: u64, timestamp: u32) -> bool {
        let (Some(ring), Some(number)) = (&self.ring, self.renumber.number(sequence)) else {
            return false;
        };
        let later = |a: u32, b: u32| timestamp_distance(a, b) > 0;
        let stored = |ring: &Ring, number| ring.get(number).map(|packet| packet.timestamp);
        let before = (1..=NEIGHBOURS).find_map(|n| stored(ring, number.checked_sub(n)?));
        let after = (1..=NEIGHBOURS).find_map(|n| stored(ring, number + n));
        before.is_none_or(|before| later(timestamp, before))
            && after.is_none_or(|after| later(after, timestamp))
    }
}
