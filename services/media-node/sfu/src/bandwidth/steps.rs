//! What can be chosen of a track: its layers as they arrive now, each with what it costs
//! and what it is worth.

use arrayvec::ArrayVec;
use headwater_model::media::{Encoding, Prominence, SubscriptionTarget};

use super::allocate::{STEPS_MAX, Step};
use crate::ingress::stream::Stream;
use crate::ingress::track::Track;

/// Pixels of a picture that counts as of ordinary size.
const PIXELS_PLAIN: f32 = 640.0 * 360.0;
/// What a track of each priority counts more than one that has none.
const PRIORITY_WEIGHTS: [f32; 4] = [1.0, 8.0, 4.0, 2.0];
/// What is seen of a picture with only the lower of some temporal layers. With a quarter of
/// the frames a picture is worth less than the whole of one half as large.
const PARTS: [&[f32]; 5] = [&[], &[1.0], &[0.65, 1.0], &[0.4, 0.65, 1.0], &[0.25, 0.4, 0.65, 1.0]];

/// What a simulcast encoding of each spatial layer is taken to cost until it was measured,
/// if the publisher did not say, in bits per second: those of LiveKit's 720p preset.
const GUESSED: [u64; 3] = [150_000, 500_000, 1_700_000];

/// Steps of a track up to a target, rising in cost and worth. Encodings cost what was
/// declared until they were measured. Empty if nothing is wanted, or if spatial layers are
/// inside one encoding and nothing was measured yet.
pub(crate) fn steps(
    track: &Track,
    target: SubscriptionTarget,
    prominence: Prominence,
) -> ArrayVec<Step, STEPS_MAX> {
    let mut list = ArrayVec::new();
    let SubscriptionTarget::UpTo { spatial: highest, temporal } = target else {
        return list;
    };
    let weight = weight(prominence);
    if track.is_scalable() {
        if let Some(stream) = track.streams.first() {
            for spatial in 0..=stream.max_spatial().min(highest) {
                push(&mut list, stream, (spatial, spatial), temporal, weight);
            }
        }
        return list;
    }
    let encodings = track.publication.encodings.iter().zip(&track.streams).enumerate();
    let alive = encodings.filter(|(index, _)| track.alive >> index & 1 == 1);
    for (_, (encoding, stream)) in alive {
        // The lowest that arrives is sent although it is above the target.
        if encoding.spatial > highest && !list.is_empty() {
            continue;
        }
        if stream.rates.is_measured() {
            push(&mut list, stream, (encoding.spatial, u8::MAX), temporal, weight);
        } else {
            push_declared(&mut list, encoding, weight);
        }
    }
    list
}

/// Adds an encoding that begins to arrive, by what it is said to cost.
fn push_declared(list: &mut ArrayVec<Step, STEPS_MAX>, encoding: &Encoding, weight: f32) {
    let spatial = encoding.spatial;
    let guessed = GUESSED.get(usize::from(spatial)).or(GUESSED.last()).copied().unwrap_or(0);
    let bps = match u64::from(encoding.bitrate) {
        0 => guessed,
        declared => declared,
    };
    let value = weight * f32::from(1_u16 << spatial.min(7));
    let is_choice = list.last().is_none_or(|last| last.value < value && last.bps < bps);
    if is_choice {
        // There are fewer encodings than steps.
        let _ = list.try_push(Step { spatial, temporal: u8::MAX, bps, full_bps: bps, value });
    }
}

/// Adds the temporal layers of a spatial one, which is named one way among the steps and
/// another way inside its encoding.
fn push(
    list: &mut ArrayVec<Step, STEPS_MAX>,
    stream: &Stream,
    (spatial, inside): (u8, u8),
    temporal: u8,
    weight: f32,
) {
    let rates = &stream.rates;
    let layers: ArrayVec<u8, 4> =
        rates.temporal_layers(inside).filter(|layer| *layer <= temporal).collect();
    let parts = PARTS.get(layers.len()).copied().unwrap_or_default();
    // Four times the pixels are worth twice as much.
    let worth = weight * f32::from(1_u16 << spatial.min(7));
    for (position, (layer, part)) in layers.iter().zip(parts).enumerate() {
        let is_top = position + 1 == layers.len();
        let Some(bps) = rates.up_to(inside, *layer) else { return };
        let step = Step {
            spatial,
            temporal: if is_top { u8::MAX } else { *layer },
            bps,
            full_bps: rates.up_to(inside, u8::MAX).unwrap_or(bps),
            value: worth * part,
        };
        // What costs more and is worth less is no choice.
        if list.last().is_some_and(|last| last.value >= step.value && last.bps <= step.bps) {
            continue;
        }
        while list.last().is_some_and(|last| last.bps >= step.bps) {
            list.pop();
        }
        if list.try_push(step).is_err() {
            return;
        }
    }
}

fn weight(prominence: Prominence) -> f32 {
    let priority = PRIORITY_WEIGHTS.get(prominence.priority as usize).copied().unwrap_or(1.0);
    if prominence.pixels == 0 {
        return priority;
    }
    priority * (prominence.pixels as f32 / PIXELS_PLAIN).sqrt().clamp(0.5, 3.0)
}
