//! What gateways say: `AttachRequest` into joins and commands.

use std::sync::Arc;

use headwater_model::media::Codec;
use headwater_model::{Bitrate, Epoch, Identity, ParticipantUid, RoomId, TrackUid};
use headwater_proto::node::v1 as wire;
use headwater_proto::node::v1::attach_request::Request;
use headwater_room::{
    AddTrack, AllowedTracks, Command, JoinRequest, LayerQuality, PublishDataTrack, Scenario,
    SessionDescription, SubscriptionPermission, SubscriptionUpdate, SyncState, TrackCodec,
    TrackPermission, TrackSettings, TransportKind, TransportMode, UpdateSelf, UpdateTrack,
    VideoLayer,
};
use headwater_sdp::{CandidateProtocol, IceCredentials};

use super::{
    WireError, bounded, close_reason_from, control, kind_from, permission_from, source_from,
    track_uids,
};

/// One message of a gateway.
pub enum Inbound {
    /// The first.
    Join(Box<wire::Join>),
    /// All others.
    Command(Command),
}

/// Tells a join from a command and reads the command.
///
/// # Errors
/// What is missing or malformed.
pub fn command(message: wire::AttachRequest) -> Result<Inbound, WireError> {
    let command = match message.request.ok_or(WireError::Missing("request"))? {
        Request::Join(join) => return Ok(Inbound::Join(Box::new(join))),
        Request::Offer(description) => Command::Offer(session_description(description)),
        Request::Answer(description) => Command::Answer(session_description(description)),
        Request::AddTrack(add) => Command::AddTrack(add_track(add)?),
        Request::MuteTrack(mute) => {
            Command::MuteTrack { track: TrackUid::from_raw(mute.track_uid), muted: mute.muted }
        }
        Request::UpdateTrack(update) => Command::UpdateTrack(update_track(update)?),
        Request::UpdateSubscription(update) => {
            Command::UpdateSubscription(subscription_update(update)?)
        }
        Request::UpdateTrackSettings(settings) => Command::UpdateTrackSettings {
            settings: track_settings(&settings),
            tracks: track_uids(settings.track_uids)?,
        },
        Request::SubscriptionPermission(permission) => {
            Command::SubscriptionPermission(subscription_permission(permission)?)
        }
        Request::UpdateSelf(update) => Command::UpdateSelf(UpdateSelf {
            request_id: update.request_id,
            display_name: update.display_name,
            metadata: update.metadata,
            attributes: update.attributes.into_iter().collect(),
        }),
        Request::SyncState(state) => Command::SyncState(sync_state(state)?),
        Request::PublishDataTrack(publish) => Command::PublishDataTrack(data_track(publish)),
        Request::UnpublishDataTrack(unpublish) => {
            Command::UnpublishDataTrack { handle: unpublish.handle }
        }
        Request::UpdateDataSubscription(update) => {
            Command::UpdateDataSubscription(SubscriptionUpdate {
                tracks: track_uids(update.track_uids)?,
                subscribe: update.subscribe,
            })
        }
        Request::Leave(leave) => Command::Leave { reason: close_reason_from(leave.reason) },
        Request::Simulate(simulate) => Command::Simulate(scenario(simulate)?),
        Request::RestartIce(restart) => Command::RestartIce(ice_credentials(restart)?),
    };
    Ok(Inbound::Command(command))
}

/// Reads a join. `now_millis` is the wall clock since the Unix epoch.
///
/// # Errors
/// What is missing or malformed.
pub fn join(join: wire::Join, now_millis: u64) -> Result<JoinRequest, WireError> {
    let room =
        RoomId::new(join.room_id).map_err(|source| WireError::Id { field: "room_id", source })?;
    let identity = Identity::new(join.identity)
        .map_err(|source| WireError::Id { field: "identity", source })?;
    let mode = match wire::TransportMode::try_from(join.transport_mode).unwrap_or_default() {
        wire::TransportMode::Unspecified | wire::TransportMode::Single => TransportMode::Single,
        wire::TransportMode::Dual => TransportMode::Dual,
    };
    let resume = (!join.resume_participant_uid.is_empty())
        .then(|| ParticipantUid::from_raw(join.resume_participant_uid));
    Ok(JoinRequest {
        room,
        epoch: Epoch(join.epoch),
        identity,
        display_name: join.display_name,
        metadata: join.metadata,
        attributes: join.attributes.into_iter().collect(),
        permission: permission_from(join.permission.ok_or(WireError::Missing("permission"))?),
        door_payload: Arc::from(join.door_payload),
        auto_subscribe: join.auto_subscribe,
        adaptive_stream: join.adaptive_stream,
        transport_mode: mode,
        resume,
        uncounted: join.uncounted,
        protocols: join.media_protocols.into_iter().filter_map(protocol).collect(),
        properties: join.room.map(control::properties).transpose()?,
        publish_codecs: join
            .publish_codecs
            .iter()
            .filter_map(|mime| Codec::from_mime_type(mime))
            .collect(),
        join_millis: now_millis,
        fixed_sections: join.fixed_sections,
        outlives_signalling: join.outlives_signalling,
        followed: bounded("followed_identities", join.followed_identities)?
            .into_iter()
            .map(|identity| {
                Identity::new(identity)
                    .map_err(|source| WireError::Id { field: "followed_identities", source })
            })
            .collect::<Result<_, _>>()?,
    })
}

/// RFC 8839 5.4: 4 to 256 and 22 to 256 characters of ICE's own alphabet.
fn ice_credentials(restart: wire::RestartIce) -> Result<IceCredentials, WireError> {
    let fits = |text: &str, least: usize| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        (least..=256).contains(&text.len()) && text.bytes().all(known)
    };
    if !fits(&restart.ufrag, 4) || !fits(&restart.pwd, 22) {
        return Err(WireError::Missing("restart_ice"));
    }
    Ok(IceCredentials { ufrag: restart.ufrag, pwd: restart.pwd })
}

fn protocol(protocol: i32) -> Option<CandidateProtocol> {
    match wire::MediaProtocol::try_from(protocol).unwrap_or_default() {
        wire::MediaProtocol::Unspecified => None,
        wire::MediaProtocol::Udp => Some(CandidateProtocol::Udp),
        wire::MediaProtocol::Tcp => Some(CandidateProtocol::Tcp),
    }
}

fn session_description(description: wire::SessionDescription) -> SessionDescription {
    let transport = match wire::TransportKind::try_from(description.transport).unwrap_or_default() {
        wire::TransportKind::Unspecified | wire::TransportKind::Publisher => {
            TransportKind::Publisher
        }
        wire::TransportKind::Subscriber => TransportKind::Subscriber,
    };
    SessionDescription {
        transport,
        sdp: description.sdp,
        offer_id: description.offer_id,
        track_uid_by_mid: description
            .track_uid_by_mid
            .into_iter()
            .map(|(mid, uid)| (mid, TrackUid::from_raw(uid)))
            .collect(),
    }
}

fn add_track(add: wire::AddTrack) -> Result<AddTrack, WireError> {
    Ok(AddTrack {
        client_track_id: add.client_track_id,
        kind: kind_from(add.kind),
        source: source_from(add.source),
        display_name: add.display_name,
        muted: add.muted,
        width: add.width,
        height: add.height,
        layers: video_layers(add.layers)?,
        codecs: bounded("codecs", add.codecs)?.into_iter().map(track_codec).collect(),
        stereo: add.stereo,
        disable_red: add.disable_red,
        disable_dtx: add.disable_dtx,
        track: (!add.track_uid.is_empty()).then(|| TrackUid::from_raw(add.track_uid)),
        encrypted: add.encrypted,
        stream: add.stream,
        door_payload: Arc::from(add.door_payload),
    })
}

pub(super) fn video_layers(layers: Vec<wire::VideoLayer>) -> Result<Vec<VideoLayer>, WireError> {
    Ok(bounded("layers", layers)?
        .into_iter()
        .map(|layer| VideoLayer {
            quality: quality(layer.quality),
            width: layer.width,
            height: layer.height,
            bitrate: layer.bitrate,
            rid: layer.rid,
        })
        .collect())
}

pub(super) fn track_codec(codec: wire::TrackCodec) -> TrackCodec {
    TrackCodec { mime_type: codec.mime_type, client_track_id: codec.client_track_id }
}

const fn quality(quality: u32) -> LayerQuality {
    match quality {
        0 => LayerQuality::Low,
        1 => LayerQuality::Medium,
        _ => LayerQuality::High,
    }
}

fn update_track(update: wire::UpdateTrack) -> Result<UpdateTrack, WireError> {
    Ok(UpdateTrack {
        track: TrackUid::from_raw(update.track_uid),
        width: update.width,
        height: update.height,
        layers: video_layers(update.layers)?,
        door_payload: Arc::from(update.door_payload),
    })
}

/// Reads a wish about tracks.
///
/// # Errors
/// If it names too many.
pub fn subscription_update(
    update: wire::UpdateSubscription,
) -> Result<SubscriptionUpdate, WireError> {
    Ok(SubscriptionUpdate { tracks: track_uids(update.track_uids)?, subscribe: update.subscribe })
}

fn track_settings(settings: &wire::UpdateTrackSettings) -> TrackSettings {
    TrackSettings {
        disabled: settings.disabled,
        quality: quality(settings.quality),
        width: settings.width,
        height: settings.height,
        frame_rate: settings.frame_rate,
        priority: settings.priority,
    }
}

pub(super) fn subscription_permission(
    permission: wire::SubscriptionPermission,
) -> Result<SubscriptionPermission, WireError> {
    if permission.everybody {
        return Ok(SubscriptionPermission::Everybody);
    }
    let allowed = bounded("allowed", permission.allowed)?;
    let allowed: Result<Vec<_>, _> = allowed.into_iter().map(track_permission).collect();
    Ok(SubscriptionPermission::Only(allowed?))
}

fn track_permission(permission: wire::TrackPermission) -> Result<TrackPermission, WireError> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(TrackPermission {
        participant: some(permission.participant_uid).map(ParticipantUid::from_raw),
        identity: some(permission.identity),
        tracks: if permission.all_tracks {
            AllowedTracks::All
        } else {
            AllowedTracks::These(track_uids(permission.track_uids)?)
        },
    })
}

fn sync_state(state: wire::SyncState) -> Result<SyncState, WireError> {
    let data_tracks = bounded("data_tracks", state.data_tracks)?;
    Ok(SyncState {
        published: state
            .published_track_uids
            .into_iter()
            .map(|(client, uid)| (client, TrackUid::from_raw(uid)))
            .collect(),
        subscription: state.subscription.map(subscription_update).transpose()?,
        disabled: track_uids(state.disabled_track_uids)?,
        last_data_sequences: state
            .last_data_sequence_by_sender
            .into_iter()
            .map(|(sender, sequence)| (ParticipantUid::from_raw(sender), sequence))
            .collect(),
        data_tracks: data_tracks.into_iter().map(data_track).collect(),
        has_unacknowledged_tracks: state.has_unacknowledged_tracks,
    })
}

fn data_track(publish: wire::PublishDataTrack) -> PublishDataTrack {
    PublishDataTrack {
        handle: publish.handle,
        display_name: publish.display_name,
        door_payload: Arc::from(publish.door_payload),
    }
}

fn scenario(simulate: wire::Simulate) -> Result<Scenario, WireError> {
    use wire::simulate::Scenario as Wire;
    Ok(match simulate.scenario.ok_or(WireError::Missing("scenario"))? {
        Wire::SpeakSeconds(seconds) => Scenario::Speak { seconds },
        Wire::NodeFailure(_) => Scenario::NodeFailure,
        Wire::ServerLeave(_) => Scenario::ServerLeave,
        Wire::FullReconnect(_) => Scenario::FullReconnect,
        Wire::MediaProtocol(wanted) => {
            Scenario::OnlyProtocol(protocol(wanted).ok_or(WireError::Missing("media_protocol"))?)
        }
        Wire::SubscriberBandwidth(bits) => {
            Scenario::SubscriberBandwidth((bits > 0).then_some(Bitrate(bits)))
        }
    })
}
