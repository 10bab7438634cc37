//! Packet path: no allocation. How many bits a second each layer of an encoding has, as
//! they arrive: what forwarding it costs.

use crate::clock::Micros;

/// Spatial and temporal layers that are told apart; those above count as the highest.
pub(crate) const SPATIAL_MAX: usize = 4;
pub(crate) const TEMPORAL_MAX: usize = 4;
/// Header and extensions of a packet, which are not in the ring but on the wire.
const HEADER_BYTES: u32 = 32;
/// A first measure takes this long; the keyframe it begins with is left out of it.
const FIRST_SPAN: Micros = Micros::from_millis(400);
/// A measure takes at least this long.
const SPAN: Micros = Micros::from_millis(200);
/// Weight of the past: a second and a half, in which keyframes are one of many frames.
const PAST: u64 = 3;
const ALL: u64 = 4;

/// Rates of one encoding.
#[derive(Debug, Default)]
pub(crate) struct LayerRates {
    bytes: [[u32; TEMPORAL_MAX]; SPATIAL_MAX],
    bps: [[u64; TEMPORAL_MAX]; SPATIAL_MAX],
    since: Option<Micros>,
    measured: bool,
}

impl LayerRates {
    /// A packet arrived.
    #[inline]
    pub(crate) fn count(&mut self, spatial: u8, temporal: u8, payload_len: usize) {
        let spatial = usize::from(spatial).min(SPATIAL_MAX - 1);
        let temporal = usize::from(temporal).min(TEMPORAL_MAX - 1);
        let bytes = &mut self.bytes[spatial][temporal];
        *bytes = bytes.saturating_add(payload_len as u32 + HEADER_BYTES);
    }

    /// Measures what arrived since the last time, if that is long enough ago.
    pub(crate) fn measure(&mut self, now: Micros) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        let span = now.since(since);
        if span < if self.measured { SPAN } else { FIRST_SPAN } {
            return;
        }
        self.since = Some(now);
        let first = !std::mem::replace(&mut self.measured, true);
        let layers = self.bytes.iter_mut().flatten().zip(self.bps.iter_mut().flatten());
        for (bytes, bps) in layers {
            let sample = u64::from(std::mem::take(bytes)) * 8_000_000 / span.0;
            *bps = if first { sample } else { (*bps * PAST + sample) / ALL };
        }
    }

    /// What arrives next has nothing to do with what was measured.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What is told rests on what arrived.
    pub(crate) fn is_measured(&self) -> bool {
        self.measured
    }

    /// Bits per second up to a spatial and a temporal layer; `None` until measured.
    pub(crate) fn up_to(&self, spatial: u8, temporal: u8) -> Option<u64> {
        let rows = self.bps.iter().take(usize::from(spatial) + 1);
        let sum = rows.flat_map(|row| row.iter().take(usize::from(temporal) + 1)).sum();
        self.measured.then_some(sum)
    }

    /// Temporal layers up to a spatial one that have anything in them, lowest first.
    pub(crate) fn temporal_layers(&self, spatial: u8) -> impl Iterator<Item = u8> + '_ {
        let rows = usize::from(spatial) + 1;
        (0..TEMPORAL_MAX)
            .filter(move |layer| self.bps.iter().take(rows).any(|row| row[*layer] > 0))
            .map(|layer| layer as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_measured_apart_and_summed_up() {
        let mut rates = LayerRates::default();
        assert_eq!(rates.up_to(0, 0), None);
        let mut now = Micros::from_millis(1_000);
        rates.measure(now);
        for _ in 0..20 {
            for _ in 0..25 {
                rates.count(0, 0, 468);
                rates.count(0, 2, 218);
                rates.count(1, 0, 968);
            }
            now = now.plus(Micros::from_millis(500));
            rates.measure(now);
        }
        assert_eq!(rates.up_to(0, 0), Some(200_000));
        assert_eq!(rates.up_to(0, 2), Some(300_000));
        assert_eq!(rates.up_to(7, 7), Some(700_000));
        assert_eq!(rates.temporal_layers(0).collect::<Vec<_>>(), [0, 2]);
        rates.forget();
        assert_eq!(rates.up_to(0, 0), None);
    }

    #[test]
    fn a_keyframe_moves_a_rate_by_less_than_half() {
        let mut rates = LayerRates::default();
        let mut now = Micros::from_millis(1_000);
        rates.measure(now);
        for interval in 0..40 {
            rates.count(0, 0, if interval == 30 { 5 * 12_500 } else { 12_500 });
            now = now.plus(Micros::from_millis(250));
            rates.measure(now);
            if interval > 1 {
                assert!(rates.up_to(0, 0).is_some_and(|bps| bps < 850_000));
            }
        }
    }
}
