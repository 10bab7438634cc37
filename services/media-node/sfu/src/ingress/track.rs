//! A published track: what was negotiated for it, its encodings, who gets it.

use headwater_model::media::{
    Codec, MediaKind, PayloadMapping, Publication, SubscriptionTarget, TrackKey,
};

use super::level::LevelMeter;
use super::stream::Stream;
use super::stream::recovery::RedForm;
use crate::clock::Micros;
use crate::forward::forwarder::Want;
use crate::forward::line::Layers;

/// Packets of one track between two drains. A shell drains after each batch it
/// receives, which is some hundred packets at most; what is above is stored (it can be
/// asked for again) and not forwarded.
pub(crate) const PENDING_MAX: usize = 1_024;
/// Packets there is room for from the start: a keyframe, or what comes in 50 ms.
const PENDING_FIRST: usize = 64;

/// An encoding is not sent any more if the others went on this long without it. A
/// frame every second (a shared screen at rest) is still alive.
const SILENCE_MAX: Micros = Micros::from_millis(1_500);

/// A packet that waits for the next drain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    pub(crate) number: u64,
    pub(crate) encoding: u8,
}

/// What a payload type means in a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PayloadType {
    /// Index among the publication's codecs.
    pub(crate) codec: u8,
    pub(crate) repeat: bool,
}

/// A published track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) key: TrackKey,
    /// Index of the publisher's link.
    pub(crate) link: u32,
    pub(crate) publication: Publication,
    payload_types: Box<[Option<PayloadType>; 128]>,
    pub(crate) streams: Vec<Stream>,
    /// Indices of deliveries.
    pub(crate) deliveries: Vec<u32>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) muted: bool,
    /// Among whose microphones it is counted.
    pub(crate) floor: Option<u64>,
    /// It is among the loudest of them.
    pub(crate) audible: bool,
    /// Loud packets in a row.
    pub(crate) loud: u8,
    /// Encodings that arrive now: bit `n` is encoding `n`.
    pub(crate) alive: u8,
    /// Encodings that ever arrived.
    pub(crate) seen: u8,
    /// Codec that arrives now.
    pub(crate) codec: Option<Codec>,
    /// Its index among the publication's codecs.
    pub(crate) codec_index: Option<u8>,
    pub(crate) meter: LevelMeter,
    /// Some subscriber may wait for a keyframe.
    pub(crate) unsettled: bool,
    /// It waits in the list of the next drain.
    pub(crate) queued: bool,
    pub(crate) metered: bool,
    pub(crate) nack_armed: bool,
    /// Keyframe requests are among what is due.
    pub(crate) keyframe_queued: bool,
    /// When it is looked for keyframe requests that came too early.
    pub(crate) keyframe_at: Option<Micros>,
    pub(crate) tick_armed: bool,
    /// Encodings that other shards want: bit `n` is encoding `n`.
    pub(crate) relay_demand: u8,
    /// When liveness was looked at.
    pub(crate) ticked: Micros,
}

impl Track {
    pub(crate) fn new(key: TrackKey, link: u32, publication: Publication) -> Self {
        let mut track = Self {
            key,
            link,
            publication: Publication { encodings: Vec::new(), ..publication.clone() },
            payload_types: Box::new([None; 128]),
            streams: Vec::new(),
            deliveries: Vec::new(),
            pending: Vec::with_capacity(PENDING_FIRST),
            muted: false,
            floor: None,
            audible: true,
            loud: 0,
            alive: 0,
            seen: 0,
            codec: None,
            codec_index: None,
            meter: LevelMeter::default(),
            unsettled: false,
            queued: false,
            metered: false,
            nack_armed: false,
            keyframe_queued: false,
            keyframe_at: None,
            tick_armed: false,
            relay_demand: 0,
            ticked: Micros::ZERO,
        };
        track.renegotiate(publication);
        track
    }

    /// Takes what was negotiated anew. Encodings keep their state as long as they keep
    /// their place and RID; returns how many of them do.
    pub(crate) fn renegotiate(&mut self, publication: Publication) -> usize {
        let kept = self
            .publication
            .encodings
            .iter()
            .zip(&publication.encodings)
            .take_while(|(old, new)| old.rid == new.rid)
            .count();
        self.streams.truncate(kept);
        let mask = if kept >= 8 { u8::MAX } else { (1 << kept) - 1 };
        self.alive &= mask;
        self.seen &= mask;
        // A lone encoding may carry all spatial layers; what was declared may be one's.
        let alone = publication.encodings.len() == 1;
        for (index, encoding) in publication.encodings.iter().enumerate().skip(kept) {
            let bitrate = if alone { 0 } else { encoding.bitrate };
            self.streams.push(Stream::new(index, publication.kind, bitrate));
        }
        let old = &self.publication.codecs;
        if publication.codecs.get(..old.len()) != Some(&old[..]) {
            // Stored packets name codecs by their old places.
            self.pending.clear();
            self.codec_index = None;
            for stream in &mut self.streams {
                stream.forget_group();
            }
        }
        self.payload_types.fill(None);
        for (index, mapping) in publication.codecs.iter().enumerate() {
            let codec = index as u8;
            self.map_payload_type(mapping.payload_type, PayloadType { codec, repeat: false });
            if let Some(rtx) = mapping.rtx_payload_type {
                self.map_payload_type(rtx, PayloadType { codec, repeat: true });
            }
        }
        self.publication = publication;
        kept
    }

    fn map_payload_type(&mut self, number: u8, meaning: PayloadType) {
        if let Some(slot) = self.payload_types.get_mut(usize::from(number)) {
            // The first codec that names a payload type has it.
            slot.get_or_insert(meaning);
        }
    }

    pub(crate) fn kind(&self) -> MediaKind {
        self.publication.kind
    }

    pub(crate) fn payload_type(&self, number: u8) -> Option<PayloadType> {
        self.payload_types.get(usize::from(number)).copied().flatten()
    }

    /// How packets of a codec of the publication hold those of another, if they do.
    /// `Err` if that one was not negotiated: then nobody could read them.
    pub(crate) fn red_form(&self, mapping: &PayloadMapping) -> Result<Option<RedForm>, ()> {
        let Some(block_type) = mapping.red_of else {
            return Ok(None);
        };
        let meaning = self.payload_type(block_type).filter(|meaning| !meaning.repeat);
        let index = meaning.map(|meaning| meaning.codec).ok_or(())?;
        let plain = &self.publication.codecs[usize::from(index)];
        if plain.codec != mapping.codec || plain.red_of.is_some() {
            return Err(());
        }
        Ok(Some(RedForm { block_type, codec_index: index }))
    }

    /// The encoding of a packet with this RID, or without one.
    pub(crate) fn encoding_of(&self, rid: Option<&[u8]>) -> Option<u8> {
        let encodings = &self.publication.encodings;
        let named = rid.and_then(|rid| {
            encodings
                .iter()
                .position(|encoding| encoding.rid.as_deref().is_some_and(|r| r.as_bytes() == rid))
        });
        match named {
            Some(index) => Some(index as u8),
            None => (encodings.len() == 1).then_some(0),
        }
    }

    /// Its spatial layers are inside one encoding.
    pub(crate) fn is_scalable(&self) -> bool {
        self.streams.len() == 1 && matches!(self.codec, Some(Codec::Vp9 | Codec::Av1))
    }

    /// What a target means now. `None` if nothing is wanted.
    pub(crate) fn want(&self, target: SubscriptionTarget) -> Option<Want> {
        let SubscriptionTarget::UpTo { spatial, temporal } = target else {
            return None;
        };
        if self.is_scalable() {
            return Some(Want { encoding: 0, layers: Layers { spatial, temporal } });
        }
        let layers = Layers { spatial: u8::MAX, temporal };
        Some(Want { encoding: self.encoding_up_to(spatial), layers })
    }

    /// The highest encoding that arrives and is not above the wanted one; else the
    /// lowest that arrives; else the one that is wanted.
    fn encoding_up_to(&self, spatial: u8) -> u8 {
        let encodings = &self.publication.encodings;
        let alive = |index: &usize| self.alive >> index & 1 == 1;
        let allowed = |index: &usize| encodings[*index].spatial <= spatial;
        let all = 0..encodings.len();
        let best = all.clone().rev().find(|index| alive(index) && allowed(index));
        let lowest = || all.clone().find(alive);
        let wanted = || all.clone().rev().find(allowed);
        best.or_else(lowest).or_else(wanted).unwrap_or(0) as u8
    }

    /// The spatial layer that a subscriber sees: of its encoding, or inside of it.
    pub(crate) fn spatial_of(&self, encoding: u8, spatial: u8) -> u8 {
        if self.is_scalable() {
            let highest = self.streams.first().map_or(0, Stream::max_spatial);
            return spatial.min(highest);
        }
        let encodings = &self.publication.encodings;
        encodings.get(usize::from(encoding)).map_or(0, |encoding| encoding.spatial)
    }

    /// Looks which encodings arrive. `true` if that changed.
    pub(crate) fn look_alive(&mut self) -> bool {
        let newest = self.streams.iter().filter_map(Stream::last_arrival).max();
        let Some(newest) = newest else { return false };
        let mut alive = 0;
        for (index, stream) in self.streams.iter().enumerate() {
            let recent = |at| newest.since(at) <= SILENCE_MAX;
            alive |= u8::from(stream.last_arrival().is_some_and(recent)) << index;
        }
        std::mem::replace(&mut self.alive, alive) != alive
    }

    /// Something arrived since a time.
    pub(crate) fn arrived_since(&self, since: Micros) -> bool {
        self.streams.iter().filter_map(Stream::last_arrival).any(|at| at >= since)
    }
}
