//! What this door stores in a node's opaque `door_payload`s: the parts of a
//! participant or a track that only LiveKit clients care for, as a partial
//! LiveKit message that [`super::info`] completes on the way out.

use headwater_model::grants::{Grants, ParticipantKind};
use livekit_protocol as lk;
use prost::Message;

/// Most entries of any list that a client declares and all others are told.
const LIST_MAX: usize = 16;

/// What others are told of a participant besides what the node knows.
pub(crate) fn participant_payload(
    grants: &Grants,
    client: &lk::ClientInfo,
    region: &str,
) -> Vec<u8> {
    #[expect(deprecated, reason = "older clients read the flags of the permission")]
    let permission = lk::ParticipantPermission {
        recorder: grants.recorder,
        agent: grants.agent,
        ..Default::default()
    };
    lk::ParticipantInfo {
        kind: kind_number(grants.kind),
        kind_details: grants
            .kind_details
            .iter()
            .filter_map(|name| kind_detail(name))
            .take(LIST_MAX)
            .map(i32::from)
            .collect(),
        client_protocol: client.client_protocol,
        capabilities: client.capabilities.iter().copied().take(LIST_MAX).collect(),
        permission: Some(permission),
        region: region.to_owned(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn kind_number(kind: ParticipantKind) -> i32 {
    use lk::participant_info::Kind;
    i32::from(match kind {
        ParticipantKind::Standard => Kind::Standard,
        ParticipantKind::Ingress => Kind::Ingress,
        ParticipantKind::Egress => Kind::Egress,
        ParticipantKind::Sip => Kind::Sip,
        ParticipantKind::Agent => Kind::Agent,
        ParticipantKind::Connector => Kind::Connector,
        ParticipantKind::Bridge => Kind::Bridge,
    })
}

/// Tokens write details in lower case, the enum in upper.
fn kind_detail(name: &str) -> Option<lk::participant_info::KindDetail> {
    lk::participant_info::KindDetail::from_str_name(&name.to_ascii_uppercase())
}

/// Whether a participant is left out of the room's count.
pub(crate) fn is_uncounted(grants: &Grants) -> bool {
    matches!(grants.kind, ParticipantKind::Agent | ParticipantKind::Egress)
        || grants.agent
        || grants.recorder
}

/// Reads a participant's payload. One of another door, or none, reads as nothing known.
pub(crate) fn read_participant(payload: &[u8]) -> lk::ParticipantInfo {
    let stored = lk::ParticipantInfo::decode(payload).unwrap_or_default();
    // Only what this door stores is taken; the rest is the node's to say.
    lk::ParticipantInfo {
        kind: stored.kind,
        kind_details: stored.kind_details,
        client_protocol: stored.client_protocol,
        capabilities: stored.capabilities,
        permission: stored.permission,
        region: stored.region,
        ..Default::default()
    }
}

/// What others are told of a track besides what the node knows.
pub(crate) fn track_payload(request: &lk::AddTrackRequest) -> Vec<u8> {
    lk::TrackInfo {
        encryption: request.encryption,
        audio_features: bounded(&request.audio_features),
        packet_trailer_features: bounded(&request.packet_trailer_features),
        backup_codec_policy: request.backup_codec_policy,
        codecs: request
            .simulcast_codecs
            .iter()
            .take(LIST_MAX)
            .map(|codec| lk::SimulcastCodecInfo {
                mime_type: super::codec::mime_type(&codec.codec, request.r#type),
                layers: codec.layers.iter().take(LIST_MAX).cloned().collect(),
                video_layer_mode: codec.video_layer_mode,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// A track's payload with other audio features.
pub(crate) fn with_audio_features(payload: &[u8], features: &[i32]) -> Vec<u8> {
    let mut stored = read_track(payload);
    stored.audio_features = bounded(features);
    stored.encode_to_vec()
}

/// Reads a track's payload. One of another door, or none, reads as nothing known.
pub(crate) fn read_track(payload: &[u8]) -> lk::TrackInfo {
    let stored = lk::TrackInfo::decode(payload).unwrap_or_default();
    lk::TrackInfo {
        encryption: stored.encryption,
        audio_features: stored.audio_features,
        packet_trailer_features: stored.packet_trailer_features,
        backup_codec_policy: stored.backup_codec_policy,
        codecs: stored.codecs,
        ..Default::default()
    }
}

/// What others are told of a data track besides what the node knows.
pub(crate) fn data_track_payload(request: &lk::PublishDataTrackRequest) -> Vec<u8> {
    lk::DataTrackInfo {
        encryption: request.encryption,
        frame_encoding: request.frame_encoding.clone(),
        schema: request.schema.clone(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Reads a data track's payload, as [`read_track`].
pub(crate) fn read_data_track(payload: &[u8]) -> lk::DataTrackInfo {
    let stored = lk::DataTrackInfo::decode(payload).unwrap_or_default();
    lk::DataTrackInfo {
        encryption: stored.encryption,
        frame_encoding: stored.frame_encoding,
        schema: stored.schema,
        ..Default::default()
    }
}

fn bounded(features: &[i32]) -> Vec<i32> {
    features.iter().copied().take(LIST_MAX).collect()
}
