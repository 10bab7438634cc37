//! Plain translation of LiveKit's request messages into those of the session
//! protocol. Pure, and without memory: what needs some is in [`super::interpreter`].

use std::collections::{BTreeMap, HashMap};

use headwater_proto::node::v1 as node;
use headwater_proto::v1;
use livekit_protocol as lk;

use super::codec::mime_type;
use super::payload::{data_track_payload, track_payload};

/// Most layers of a track that are told to the node: three are all that mean anything.
const LAYERS_MAX: usize = 3;

/// Most codecs of a track that are told to the node.
const CODECS_MAX: usize = 8;

pub(crate) fn offer(description: lk::SessionDescription) -> node::SessionDescription {
    node::SessionDescription {
        transport: node::TransportKind::Publisher.into(),
        sdp: description.sdp,
        offer_id: description.id,
        track_uid_by_mid: HashMap::new(),
    }
}

pub(crate) fn answer(description: lk::SessionDescription) -> node::SessionDescription {
    node::SessionDescription {
        transport: node::TransportKind::Subscriber.into(),
        sdp: description.sdp,
        offer_id: description.id,
        track_uid_by_mid: HashMap::new(),
    }
}

/// `None` if it is no kind of track that has media.
#[expect(deprecated, reason = "clients in use write the older fields")]
pub(crate) fn add_track(request: &lk::AddTrackRequest) -> Option<node::AddTrack> {
    let kind = match lk::TrackType::try_from(request.r#type) {
        Ok(lk::TrackType::Audio) => v1::TrackKind::Audio,
        Ok(lk::TrackType::Video) => v1::TrackKind::Video,
        Ok(lk::TrackType::Data) | Err(_) => return None,
    };
    let has = |feature: lk::AudioTrackFeature| request.audio_features.contains(&i32::from(feature));
    // Newer clients declare layers by codec; the first codec is the one sent first.
    let layers = match request.simulcast_codecs.first() {
        Some(codec) if request.layers.is_empty() => &codec.layers,
        Some(_) | None => &request.layers,
    };
    Some(node::AddTrack {
        client_track_id: request.cid.clone(),
        kind: kind.into(),
        source: track_source(request.source).into(),
        display_name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        layers: video_layers(layers),
        codecs: request
            .simulcast_codecs
            .iter()
            .take(CODECS_MAX)
            .map(|codec| node::TrackCodec {
                mime_type: mime_type(&codec.codec, request.r#type),
                client_track_id: codec.cid.clone(),
            })
            .collect(),
        stereo: request.stereo || has(lk::AudioTrackFeature::TfStereo),
        disable_red: request.disable_red,
        disable_dtx: request.disable_dtx || has(lk::AudioTrackFeature::TfNoDtx),
        track_uid: request.sid.clone(),
        encrypted: request.encryption != i32::from(lk::encryption::Type::None),
        stream: request.stream.clone(),
        door_payload: track_payload(request),
    })
}

/// The two vocabularies agree; what a newer client adds is unknown to us.
pub(crate) fn track_source(source: i32) -> v1::TrackSource {
    v1::TrackSource::try_from(source).unwrap_or(v1::TrackSource::Unspecified)
}

/// Lowest first, as LiveKit sorts them too.
fn video_layers(layers: &[lk::VideoLayer]) -> Vec<node::VideoLayer> {
    let mut layers: Vec<node::VideoLayer> = layers
        .iter()
        .filter_map(|layer| {
            Some(node::VideoLayer {
                quality: quality(layer.quality)?,
                width: layer.width,
                height: layer.height,
                bitrate: layer.bitrate,
                rid: layer.rid.clone(),
            })
        })
        .take(LAYERS_MAX)
        .collect();
    layers.sort_by_key(|layer| layer.quality);
    layers
}

/// `None` for OFF and for what is not known.
fn quality(quality: i32) -> Option<u32> {
    u32::try_from(quality).ok().filter(|quality| *quality <= 2)
}

pub(crate) fn mute(request: lk::MuteTrackRequest) -> node::MuteTrack {
    node::MuteTrack { track_uid: request.sid, muted: request.muted }
}

pub(crate) fn subscription(request: lk::UpdateSubscription) -> node::UpdateSubscription {
    let by_participant =
        request.participant_tracks.into_iter().flat_map(|tracks| tracks.track_sids);
    node::UpdateSubscription {
        track_uids: request.track_sids.into_iter().chain(by_participant).collect(),
        subscribe: request.subscribe,
    }
}

pub(crate) fn track_settings(request: lk::UpdateTrackSettings) -> node::UpdateTrackSettings {
    node::UpdateTrackSettings {
        track_uids: request.track_sids,
        disabled: request.disabled || request.quality == i32::from(lk::VideoQuality::Off),
        quality: quality(request.quality).unwrap_or(2),
        width: request.width,
        height: request.height,
        frame_rate: request.fps,
        priority: request.priority,
    }
}

pub(crate) fn update_layers(request: &lk::UpdateVideoLayers) -> node::UpdateTrack {
    node::UpdateTrack {
        track_uid: request.track_sid.clone(),
        layers: video_layers(&request.layers),
        ..Default::default()
    }
}

pub(crate) fn update_video(request: lk::UpdateLocalVideoTrack) -> node::UpdateTrack {
    node::UpdateTrack {
        track_uid: request.track_sid,
        width: request.width,
        height: request.height,
        ..Default::default()
    }
}

pub(crate) fn subscription_permission(
    request: lk::SubscriptionPermission,
) -> node::SubscriptionPermission {
    node::SubscriptionPermission {
        everybody: request.all_participants,
        allowed: request
            .track_permissions
            .into_iter()
            .map(|permission| node::TrackPermission {
                participant_uid: permission.participant_sid,
                identity: permission.participant_identity,
                all_tracks: permission.all_tracks,
                track_uids: permission.track_sids,
            })
            .collect(),
    }
}

pub(crate) fn update_self(request: &lk::UpdateParticipantMetadata) -> node::UpdateSelf {
    node::UpdateSelf {
        request_id: request.request_id,
        display_name: request.name.clone(),
        metadata: request.metadata.clone(),
        attributes: request.attributes.clone().into_iter().collect(),
    }
}

pub(crate) fn sync_state(state: lk::SyncState) -> node::SyncState {
    let mut published = HashMap::new();
    let mut has_unacknowledged_tracks = false;
    for publication in state.publish_tracks {
        match publication.track {
            Some(track) if !track.sid.is_empty() => {
                published.insert(publication.cid, track.sid);
            }
            Some(_) | None => has_unacknowledged_tracks = true,
        }
    }
    node::SyncState {
        published_track_uids: published.into_iter().collect(),
        subscription: state.subscription.map(subscription),
        disabled_track_uids: state.track_sids_disabled,
        last_data_sequence_by_sender: state
            .datachannel_receive_states
            .into_iter()
            .map(|state| (state.publisher_sid, state.last_seq))
            .collect(),
        data_tracks: state
            .publish_data_tracks
            .into_iter()
            .filter_map(|track| track.info)
            .map(|info| node::PublishDataTrack {
                handle: info.pub_handle,
                display_name: info.name.clone(),
                door_payload: data_track_payload(&lk::PublishDataTrackRequest {
                    pub_handle: info.pub_handle,
                    name: info.name,
                    encryption: info.encryption,
                    frame_encoding: info.frame_encoding,
                    schema: info.schema,
                }),
            })
            .collect(),
        has_unacknowledged_tracks,
    }
}

pub(crate) fn publish_data_track(request: &lk::PublishDataTrackRequest) -> node::PublishDataTrack {
    node::PublishDataTrack {
        handle: request.pub_handle,
        display_name: request.name.clone(),
        door_payload: data_track_payload(request),
    }
}

/// One message for what is wanted and one for what is not, each only if needed.
pub(crate) fn data_subscription(
    request: lk::UpdateDataSubscription,
) -> impl Iterator<Item = node::UpdateDataSubscription> {
    let mut by_wish: BTreeMap<bool, Vec<String>> = BTreeMap::new();
    for update in request.updates {
        by_wish.entry(update.subscribe).or_default().push(update.track_sid);
    }
    by_wish
        .into_iter()
        .map(|(subscribe, track_uids)| node::UpdateDataSubscription { track_uids, subscribe })
}
