//! Participants, tracks and rooms as they are shown on the wire.

use headwater_model::media::Codec;
use headwater_proto::node::v1 as wire;
use headwater_proto::v1;
use headwater_room::{
    CloseReason, DataTrackView, LayerQuality, ParticipantPhase, ParticipantView, RoomView,
    TrackView, VideoLayer,
};

use super::{close_reason_to, kind_to, permission_to, source_to};

/// A participant for gateways and the control plane.
#[must_use]
pub fn participant(view: &ParticipantView) -> wire::Participant {
    let (phase, reason) = match view.phase {
        ParticipantPhase::Joined => (wire::ParticipantPhase::Joined, CloseReason::Unspecified),
        ParticipantPhase::Active => (wire::ParticipantPhase::Active, CloseReason::Unspecified),
        ParticipantPhase::Left(reason) => (wire::ParticipantPhase::Left, reason),
    };
    wire::Participant {
        uid: view.uid.to_string(),
        identity: view.identity.as_str().to_owned(),
        display_name: view.display_name.clone(),
        metadata: view.metadata.clone(),
        attributes: view.attributes.clone().into_iter().collect(),
        phase: phase.into(),
        join_time: Some(timestamp(view.join_millis)),
        version: view.version,
        permission: Some(permission_to(&view.permission)),
        tracks: view.tracks.iter().map(track).collect(),
        door_payload: view.door_payload.to_vec(),
        close_reason: close_reason_to(reason).into(),
        data_tracks: view.data_tracks.iter().map(data_track).collect(),
        uncounted: view.uncounted,
    }
}

/// A track.
#[must_use]
pub fn track(view: &TrackView) -> wire::Track {
    wire::Track {
        track: Some(v1::Track {
            uid: view.uid.to_string(),
            display_name: view.display_name.clone(),
            kind: kind_to(view.kind).into(),
            source: source_to(view.source).into(),
            muted: view.muted,
            mime_type: view.codec.map(Codec::mime_type).unwrap_or_default().to_owned(),
            width: view.width,
            height: view.height,
            simulcast: view.simulcast,
        }),
        layers: view.layers.iter().map(layer).collect(),
        codecs: view
            .codecs
            .iter()
            .map(|codec| wire::TrackCodec {
                mime_type: codec.mime_type.clone(),
                client_track_id: codec.client_track_id.clone(),
            })
            .collect(),
        stereo: view.stereo,
        disable_red: view.disable_red,
        disable_dtx: view.disable_dtx,
        encrypted: view.encrypted,
        stream: view.stream.clone(),
        mid: view.mid.clone(),
        door_payload: view.door_payload.to_vec(),
        client_track_id: view.client_track_id.clone().unwrap_or_default(),
    }
}

fn layer(layer: &VideoLayer) -> wire::VideoLayer {
    wire::VideoLayer {
        quality: quality(layer.quality),
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate,
        rid: layer.rid.clone(),
    }
}

/// A quality as its number.
#[must_use]
pub const fn quality(quality: LayerQuality) -> u32 {
    match quality {
        LayerQuality::Low => 0,
        LayerQuality::Medium => 1,
        LayerQuality::High => 2,
    }
}

/// A data track.
#[must_use]
pub fn data_track(view: &DataTrackView) -> wire::DataTrack {
    wire::DataTrack {
        handle: view.handle.into(),
        uid: view.uid.to_string(),
        display_name: view.display_name.clone(),
        door_payload: view.door_payload.to_vec(),
    }
}

/// A room.
#[must_use]
pub fn room(view: &RoomView) -> v1::Room {
    let properties = &view.properties;
    v1::Room {
        name: format!("rooms/{}", view.id),
        uid: properties.uid.to_string(),
        metadata: properties.metadata.clone(),
        max_participants: properties.max_participants,
        empty_timeout: prost_types::Duration::try_from(properties.empty_timeout).ok(),
        departure_timeout: prost_types::Duration::try_from(properties.departure_timeout).ok(),
        create_time: Some(timestamp(properties.create_millis)),
        etag: properties.etag.clone(),
        participant_count: view.participant_count,
        publisher_count: view.publisher_count,
        plan: Some(v1::RoomPlan { epoch: view.epoch.0, shards: Vec::new() }),
    }
}

/// A time given in milliseconds since the Unix epoch.
fn timestamp(millis: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(millis / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}
