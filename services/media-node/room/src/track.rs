//! A track: what its publisher declared, what was negotiated, who receives it,
//! and which layer a subscriber's wish means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use headwater_model::TrackUid;
use headwater_model::media::{
    Codec, Encoding, MediaKind, Publication, SubscriptionTarget, TrackKey, TrackSource,
};

use crate::directory::ParticipantKey;
use crate::quality::Measure;
use crate::session::{AddTrack, TrackSettings};
use crate::transport::OfferedMedia;
use crate::view::{LayerQuality, TrackCodec, TrackView, VideoLayer};

#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) key: TrackKey,
    pub(crate) uid: TrackUid,
    pub(crate) publisher: ParticipantKey,
    pub(crate) kind: MediaKind,
    /// As asked for, with what was changed since.
    pub(crate) declared: AddTrack,
    /// The codec: the declared one, then the one that arrives.
    pub(crate) codec: Option<Codec>,
    /// None until the SDP binds it to a section.
    pub(crate) published: Option<Published>,
    pub(crate) subscribers: BTreeSet<ParticipantKey>,
    /// Its publisher was told of the first subscriber.
    pub(crate) was_subscribed: bool,
    /// 0 to 1.
    pub(crate) level: f32,
    pub(crate) is_heard: bool,
    pub(crate) quality: Option<Measure>,
    pub(crate) demand: Demand,
    /// Highest quality that other shards want. None if they want nothing.
    pub(crate) wanted_elsewhere: Option<LayerQuality>,
}

/// What was negotiated for a track.
#[derive(Debug)]
pub(crate) struct Published {
    /// Codecs its publisher may send.
    pub(crate) codecs: Vec<Codec>,
    pub(crate) publication: Publication,
}

/// Which qualities its publisher was asked for.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Highest quality asked for; none is nothing. Absent until something was asked.
    pub(crate) told: Option<Option<LayerQuality>>,
    /// When less is to be asked.
    pub(crate) lower_at: Option<Instant>,
}

impl Track {
    pub(crate) fn new(
        key: TrackKey,
        uid: TrackUid,
        publisher: ParticipantKey,
        kind: MediaKind,
        declared: AddTrack,
    ) -> Self {
        let codec =
            declared.codecs.first().and_then(|codec| Codec::from_mime_type(&codec.mime_type));
        Self {
            key,
            uid,
            publisher,
            kind,
            declared,
            codec,
            published: None,
            subscribers: BTreeSet::new(),
            was_subscribed: false,
            level: 0.0,
            is_heard: false,
            quality: None,
            demand: Demand::default(),
            wanted_elsewhere: None,
        }
    }

    /// Whether the client knows this track's media by this id.
    pub(crate) fn has_client_id(&self, id: &str) -> bool {
        !id.is_empty()
            && (self.declared.client_track_id == id
                || self.declared.codecs.iter().any(|codec| codec.client_track_id == id))
    }

    pub(crate) fn view(&self) -> TrackView {
        let declared = &self.declared;
        TrackView {
            uid: self.uid.clone(),
            display_name: declared.display_name.clone(),
            kind: self.kind,
            source: declared.source,
            muted: declared.muted,
            codec: self.codec,
            width: declared.width,
            height: declared.height,
            simulcast: self.is_simulcast(),
            layers: declared.layers.clone(),
            codecs: self.codecs(),
            stereo: declared.stereo,
            disable_red: declared.disable_red,
            disable_dtx: declared.disable_dtx,
            encrypted: declared.encrypted,
            stream: self.stream(),
            mid: self
                .published
                .as_ref()
                .map(|published| published.publication.mid.clone())
                .unwrap_or_default(),
            door_payload: Arc::clone(&declared.door_payload),
            client_track_id: None,
        }
    }

    /// As its publisher sees it.
    pub(crate) fn view_of_publisher(&self) -> TrackView {
        TrackView { client_track_id: Some(self.declared.client_track_id.clone()), ..self.view() }
    }

    fn is_simulcast(&self) -> bool {
        match &self.published {
            Some(published) => published.publication.encodings.len() > 1,
            None => {
                self.kind == MediaKind::Video
                    && self.declared.layers.len() > 1
                    && !matches!(self.codec, Some(Codec::Vp9 | Codec::Av1))
            }
        }
    }

    fn codecs(&self) -> Vec<TrackCodec> {
        match (self.declared.codecs.is_empty(), self.codec) {
            (true, Some(codec)) => vec![TrackCodec {
                mime_type: codec.mime_type().to_owned(),
                client_track_id: self.declared.client_track_id.clone(),
            }],
            _ => self.declared.codecs.clone(),
        }
    }

    fn stream(&self) -> String {
        if !self.declared.stream.is_empty() {
            return self.declared.stream.clone();
        }
        match self.declared.source {
            TrackSource::Camera | TrackSource::Microphone => "camera".to_owned(),
            TrackSource::ScreenShare | TrackSource::ScreenShareAudio => "screen".to_owned(),
            TrackSource::Unknown => String::new(),
        }
    }

    /// What the forwarding core is told of its media.
    pub(crate) fn publication(&self, media: &OfferedMedia) -> Publication {
        let order = spatial_order(media, &self.declared.layers);
        let encodings = order
            .into_iter()
            .enumerate()
            .map(|(spatial, index)| {
                let sent = &media.encodings[index];
                let layer = self.declared.layers.get(spatial);
                Encoding {
                    spatial: u8::try_from(spatial).unwrap_or(u8::MAX),
                    rid: sent.rid.clone(),
                    ssrc: sent.ssrc,
                    rtx_ssrc: sent.rtx_ssrc,
                    width: layer.map_or(0, |layer| layer.width),
                    height: layer.map_or(0, |layer| layer.height),
                    bitrate: layer.map_or(0, |layer| layer.bitrate),
                }
            })
            .collect();
        Publication {
            kind: media.kind,
            mid: media.mid.clone(),
            codecs: media.negotiated.codecs.clone(),
            extensions: media.negotiated.extensions,
            encodings,
        }
    }

    /// The layers a subscriber's settings mean, for the forwarding core.
    pub(crate) fn target(&self, settings: &TrackSettings) -> SubscriptionTarget {
        if settings.disabled {
            return SubscriptionTarget::Paused;
        }
        if self.kind == MediaKind::Audio {
            return SubscriptionTarget::BEST;
        }
        let quality = self.wanted_quality(settings);
        // The i-th declared encoding is spatial layer i, whatever it is called.
        let spatial = match quality {
            LayerQuality::High => u8::MAX,
            LayerQuality::Low | LayerQuality::Medium => {
                let within =
                    self.declared.layers.iter().filter(|layer| layer.quality <= quality).count();
                u8::try_from(within.saturating_sub(1)).unwrap_or(u8::MAX)
            }
        };
        SubscriptionTarget::UpTo { spatial, temporal: temporal_layer(settings.frame_rate) }
    }

    /// The least quality that has the pixels a subscriber shows, or the quality
    /// it names.
    pub(crate) fn wanted_quality(&self, settings: &TrackSettings) -> LayerQuality {
        if settings.width == 0 || settings.height == 0 {
            return settings.quality;
        }
        // A tenth less is not seen, and spares the next larger layer.
        let shown = settings.width.min(settings.height) / 10 * 9;
        self.declared
            .layers
            .iter()
            .find(|layer| layer.width.min(layer.height) >= shown && layer.width > 0)
            .map_or(LayerQuality::High, |layer| layer.quality)
    }
}

/// Three temporal layers halve the frame rate each: of 30 frames per second the
/// lowest has 7.5 and the lower two 15.
const fn temporal_layer(frame_rate: u32) -> u8 {
    match frame_rate {
        1..=8 => 0,
        9..=15 => 1,
        _ => u8::MAX,
    }
}

/// Indices of the encodings, smallest first. Declared RIDs rule; then the names
/// that LiveKit's clients use; then the order of the SDP.
fn spatial_order(media: &OfferedMedia, layers: &[VideoLayer]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..media.encodings.len()).collect();
    let rid = |index: usize| media.encodings[index].rid.as_deref().unwrap_or_default();
    let declared = |index: usize| {
        layers.iter().position(|layer| !layer.rid.is_empty() && layer.rid == rid(index))
    };
    let named = |index: usize| ["q", "h", "f"].iter().position(|name| *name == rid(index));
    let numbered = |index: usize| ["2", "1", "0"].iter().position(|name| *name == rid(index));
    for rank in [&declared as &dyn Fn(usize) -> Option<usize>, &named, &numbered] {
        if order.iter().all(|index| rank(*index).is_some()) {
            order.sort_by_key(|index| rank(*index));
            break;
        }
    }
    order
}
