//! What LiveKit clients are told of rooms, participants and tracks, put together
//! from what the node says and what this door stored with it. Pure.

use headwater_proto::node::v1 as node;
use headwater_proto::v1;
use livekit_protocol as lk;

use super::leave::disconnect_reason;
use super::payload::{read_data_track, read_participant, read_track};

/// The last segment of a resource name `rooms/{room}`.
pub(crate) fn room_id(name: &str) -> &str {
    name.strip_prefix("rooms/").unwrap_or(name)
}

/// The room, with the codecs that may be published in it.
pub(crate) fn room(room: &v1::Room, codecs: &[String]) -> lk::Room {
    let created = room.create_time.unwrap_or_default();
    lk::Room {
        sid: room.uid.clone(),
        name: room_id(&room.name).to_owned(),
        // Absent means the control plane's defaults, as room.proto says.
        empty_timeout: room.empty_timeout.map_or(300, seconds),
        departure_timeout: room.departure_timeout.map_or(20, seconds),
        max_participants: room.max_participants,
        creation_time: created.seconds,
        creation_time_ms: millis(&created),
        enabled_codecs: enabled_codecs(codecs),
        metadata: room.metadata.clone(),
        num_participants: room.participant_count,
        num_publishers: room.publisher_count,
        ..Default::default()
    }
}

fn seconds(duration: prost_types::Duration) -> u32 {
    u32::try_from(duration.seconds.max(0)).unwrap_or(u32::MAX)
}

fn millis(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

/// Codecs in LiveKit's shape.
pub(crate) fn enabled_codecs(mime_types: &[String]) -> Vec<lk::Codec> {
    mime_types
        .iter()
        .map(|mime| lk::Codec { mime: mime.clone(), fmtp_line: String::new() })
        .collect()
}

/// Whether clients can bear a participant: some take the prefix for granted and
/// crash without it.
pub(crate) fn is_participant_uid(uid: &str) -> bool {
    uid.starts_with("PA_")
}

/// A participant as others, and it itself, see it.
pub(crate) fn participant(participant: &node::Participant) -> lk::ParticipantInfo {
    let stored = read_participant(&participant.door_payload);
    let joined = participant.join_time.unwrap_or_default();
    let state = match participant.phase() {
        node::ParticipantPhase::Unspecified => lk::participant_info::State::Joining,
        node::ParticipantPhase::Joined => lk::participant_info::State::Joined,
        node::ParticipantPhase::Active => lk::participant_info::State::Active,
        node::ParticipantPhase::Left => lk::participant_info::State::Disconnected,
    };
    lk::ParticipantInfo {
        sid: participant.uid.clone(),
        identity: participant.identity.clone(),
        state: i32::from(state),
        tracks: participant.tracks.iter().map(track).collect(),
        metadata: participant.metadata.clone(),
        joined_at: joined.seconds,
        joined_at_ms: millis(&joined),
        name: participant.display_name.clone(),
        version: participant.version,
        permission: Some(permission(
            &participant.permission.clone().unwrap_or_default(),
            stored.permission.clone().unwrap_or_default(),
        )),
        is_publisher: !participant.tracks.is_empty() || !participant.data_tracks.is_empty(),
        attributes: participant.attributes.clone().into_iter().collect(),
        disconnect_reason: i32::from(disconnect_reason(participant.close_reason())),
        data_tracks: participant.data_tracks.iter().map(data_track).collect(),
        ..stored
    }
}

/// A permission in LiveKit's shape; `stored` has the flags the node does not know.
pub(crate) fn permission(
    permission: &v1::ParticipantPermission,
    stored: lk::ParticipantPermission,
) -> lk::ParticipantPermission {
    lk::ParticipantPermission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        // The numbers are the same in both vocabularies.
        can_publish_sources: permission.can_publish_sources.clone(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
        ..stored
    }
}

/// A track as everybody sees it.
#[expect(deprecated, reason = "clients in use read the older fields too")]
pub(crate) fn track(track: &node::Track) -> lk::TrackInfo {
    let stored = read_track(&track.door_payload);
    let seen = track.track.clone().unwrap_or_default();
    let layers: Vec<lk::VideoLayer> =
        track.layers.iter().enumerate().map(|(index, layer)| video_layer(layer, index)).collect();
    let codecs = codecs(track, &seen, &stored, &layers);
    lk::TrackInfo {
        sid: seen.uid.clone(),
        r#type: i32::from(track_type(seen.kind())),
        name: seen.display_name.clone(),
        muted: seen.muted,
        width: seen.width,
        height: seen.height,
        simulcast: seen.simulcast,
        disable_dtx: track.disable_dtx,
        source: seen.source,
        layers,
        mime_type: seen.mime_type.clone(),
        mid: track.mid.clone(),
        codecs,
        stereo: track.stereo,
        disable_red: track.disable_red,
        stream: stream(track, seen.source()),
        ..stored
    }
}

fn track_type(kind: v1::TrackKind) -> lk::TrackType {
    match kind {
        v1::TrackKind::Unspecified | v1::TrackKind::Audio => lk::TrackType::Audio,
        v1::TrackKind::Video => lk::TrackType::Video,
    }
}

/// Tracks of one stream are played in step.
fn stream(track: &node::Track, source: v1::TrackSource) -> String {
    if !track.stream.is_empty() {
        return track.stream.clone();
    }
    match source {
        v1::TrackSource::Camera | v1::TrackSource::Microphone => "camera".to_owned(),
        v1::TrackSource::ScreenShare | v1::TrackSource::ScreenShareAudio => "screen".to_owned(),
        v1::TrackSource::Unspecified => String::new(),
    }
}

fn video_layer(layer: &node::VideoLayer, index: usize) -> lk::VideoLayer {
    lk::VideoLayer {
        quality: i32::try_from(layer.quality).unwrap_or(0).min(2),
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate,
        spatial_layer: i32::try_from(index).unwrap_or(0),
        rid: layer.rid.clone(),
        ..Default::default()
    }
}

/// Clients read the first codec of a track, so there is one even if the
/// publisher named none.
fn codecs(
    track: &node::Track,
    seen: &v1::Track,
    stored: &lk::TrackInfo,
    layers: &[lk::VideoLayer],
) -> Vec<lk::SimulcastCodecInfo> {
    let declared = |mime_type: &str| {
        stored.codecs.iter().find(|codec| codec.mime_type.eq_ignore_ascii_case(mime_type))
    };
    let describe = |mime_type: &str, cid: &str, mid: &str| {
        let own = declared(mime_type);
        let own_layers = own.map(|codec| codec.layers.clone()).unwrap_or_default();
        lk::SimulcastCodecInfo {
            mime_type: mime_type.to_owned(),
            mid: mid.to_owned(),
            cid: cid.to_owned(),
            layers: if own_layers.is_empty() { layers.to_vec() } else { own_layers },
            video_layer_mode: layer_mode(own, mime_type, seen.kind()),
            sdp_cid: String::new(),
        }
    };
    if track.codecs.is_empty() {
        return vec![describe(&seen.mime_type, &track.client_track_id, &track.mid)];
    }
    track
        .codecs
        .iter()
        .enumerate()
        .map(|(index, codec)| {
            let mid = if index == 0 { track.mid.as_str() } else { "" };
            describe(&codec.mime_type, &codec.client_track_id, mid)
        })
        .collect()
}

/// VP9 and AV1 carry all layers in one stream unless the client said otherwise.
fn layer_mode(
    declared: Option<&lk::SimulcastCodecInfo>,
    mime_type: &str,
    kind: v1::TrackKind,
) -> i32 {
    use lk::video_layer::Mode;
    let declared = declared.map_or(0, |codec| codec.video_layer_mode);
    if declared != 0 {
        return declared;
    }
    let mode = match kind {
        v1::TrackKind::Unspecified | v1::TrackKind::Audio => Mode::Unused,
        v1::TrackKind::Video => match super::codec::short_name(mime_type).as_str() {
            "vp9" | "av1" => Mode::MultipleSpatialLayersPerStream,
            _ => Mode::OneSpatialLayerPerStream,
        },
    };
    i32::from(mode)
}

/// A data track as everybody sees it.
pub(crate) fn data_track(track: &node::DataTrack) -> lk::DataTrackInfo {
    lk::DataTrackInfo {
        pub_handle: track.handle,
        sid: track.uid.clone(),
        name: track.display_name.clone(),
        ..read_data_track(&track.door_payload)
    }
}
