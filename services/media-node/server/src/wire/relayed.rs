//! What shards tell each other of participants and data, as bytes. The relay carries
//! them without looking inside. Every value is a protobuf message, so that nodes of
//! two versions understand each other while one replaces the other.

use std::sync::Arc;

use headwater_model::{Identity, ParticipantUid, RoomId, TrackUid};
use headwater_proto::node::v1 as wire;
use headwater_proto::node::v1::command_participant_request::Command;
use headwater_room::{
    AllowedTracks, ControlAction, ControlCommand, DataTrackView, ParticipantPhase, ParticipantView,
    RelayedMessage, RemoteParticipant, SubscriptionPermission, TrackView,
};
use prost::Message as _;

use super::control::control_command;
use super::inbound::{subscription_permission, track_codec, video_layers};
use super::view::participant;
use super::{
    WireError, bounded, close_reason_from, close_reason_to, kind_from, permission_from,
    permission_to, source_from,
};

/// Value of an entry of kind participant.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    participant: Option<wire::Participant>,
    #[prost(message, optional, tag = "2")]
    subscription_permission: Option<wire::SubscriptionPermission>,
}

/// Payload of a data message between shards.
#[derive(Clone, PartialEq, prost::Message)]
struct Post {
    #[prost(oneof = "Content", tags = "1, 2, 3, 4, 5")]
    content: Option<Content>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Content {
    /// A reliable packet.
    #[prost(bytes = "vec", tag = "1")]
    Reliable(Vec<u8>),
    /// A lossy packet.
    #[prost(bytes = "vec", tag = "2")]
    Lossy(Vec<u8>),
    /// A frame of a data track.
    #[prost(message, tag = "3")]
    Frame(Frame),
    /// Something that the platform wants with a participant.
    #[prost(message, tag = "4")]
    Command(wire::CommandParticipantRequest),
    /// An identity is here, of which nothing else is told.
    #[prost(message, tag = "5")]
    Claim(Claim),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claim {
    #[prost(string, tag = "1")]
    identity: String,
    #[prost(string, tag = "2")]
    participant_uid: String,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(string, tag = "1")]
    track_uid: String,
    #[prost(bytes = "vec", tag = "2")]
    frame: Vec<u8>,
}

/// What a post of another shard is.
#[derive(Debug, Clone, PartialEq)]
pub enum Relayed {
    /// A packet, reliable or not.
    Packet(bool, Arc<[u8]>),
    /// A frame of a data track.
    Frame(TrackUid, Arc<[u8]>),
    /// Something that the platform wants with a participant.
    Control(Box<ControlCommand>),
    /// Who is there, its stay, and how often that identity stayed.
    Claim(Identity, ParticipantUid, u64),
}

/// Writes a participant.
#[must_use]
pub fn entry(remote: &RemoteParticipant) -> Vec<u8> {
    let entry = Entry {
        participant: Some(participant(&remote.view)),
        subscription_permission: Some(allowed(&remote.allow)),
    };
    entry.encode_to_vec()
}

/// Reads a participant.
///
/// # Errors
/// What is missing or malformed.
pub fn entry_from(bytes: &[u8], incarnation: u64) -> Result<RemoteParticipant, WireError> {
    let malformed = |_| WireError::Missing("relayed participant");
    let entry = Entry::decode(bytes).map_err(malformed)?;
    let participant = entry.participant.ok_or(WireError::Missing("participant"))?;
    let allow = match entry.subscription_permission {
        Some(permission) => subscription_permission(permission)?,
        None => SubscriptionPermission::Everybody,
    };
    Ok(RemoteParticipant { view: Arc::new(participant_from(participant)?), allow, incarnation })
}

/// Writes a data message.
#[must_use]
pub fn packet(message: &RelayedMessage) -> Vec<u8> {
    let packet = message.packet.to_vec();
    let content = if message.reliable { Content::Reliable(packet) } else { Content::Lossy(packet) };
    Post { content: Some(content) }.encode_to_vec()
}

/// Writes a frame of a data track.
#[must_use]
pub fn frame(track: &TrackUid, frame: &[u8]) -> Vec<u8> {
    let frame = Frame { track_uid: track.to_string(), frame: frame.to_vec() };
    Post { content: Some(Content::Frame(frame)) }.encode_to_vec()
}

/// Writes what the platform wants.
#[must_use]
pub fn command(command: ControlCommand) -> Vec<u8> {
    let wanted = match command.action {
        ControlAction::Remove { reason } => {
            Command::Remove(wire::RemoveCommand { reason: close_reason_to(reason).into() })
        }
        ControlAction::MuteTrack { track, muted } => {
            Command::MuteTrack(wire::MuteTrack { track_uid: track.to_string(), muted })
        }
        ControlAction::Update(update) => Command::Update(wire::UpdateCommand {
            display_name: update.display_name,
            metadata: update.metadata,
            attributes: update.attributes.into_iter().collect(),
            permission: update.permission.as_ref().map(permission_to),
        }),
        ControlAction::UpdateSubscription(update) => {
            Command::UpdateSubscription(wire::UpdateSubscription {
                track_uids: update.tracks.iter().map(TrackUid::to_string).collect(),
                subscribe: update.subscribe,
            })
        }
    };
    let request = wire::CommandParticipantRequest {
        room_id: command.room.into_string(),
        identity: command.identity.into_string(),
        command: Some(wanted),
    };
    Post { content: Some(Content::Command(request)) }.encode_to_vec()
}

/// Writes that an identity is here.
#[must_use]
pub fn claim(identity: &Identity, uid: &ParticipantUid, incarnation: u64) -> Vec<u8> {
    let (identity, participant_uid) = (identity.as_str().to_owned(), uid.to_string());
    let claim = Claim { identity, participant_uid, incarnation };
    Post { content: Some(Content::Claim(claim)) }.encode_to_vec()
}

/// Reads what another shard posted.
///
/// # Errors
/// What is missing or malformed.
pub fn post_from(bytes: &[u8], room: &RoomId) -> Result<Relayed, WireError> {
    let malformed = |_| WireError::Missing("relayed post");
    let post = Post::decode(bytes).map_err(malformed)?;
    Ok(match post.content.ok_or(WireError::Missing("content"))? {
        Content::Reliable(packet) => Relayed::Packet(true, packet.into()),
        Content::Lossy(packet) => Relayed::Packet(false, packet.into()),
        Content::Frame(frame) => {
            Relayed::Frame(TrackUid::from_raw(frame.track_uid), frame.frame.into())
        }
        Content::Command(request) => {
            let mut command = control_command(request)?;
            // A shard speaks for the room of its link only.
            command.room.clone_from(room);
            Relayed::Control(Box::new(command))
        }
        Content::Claim(claim) => {
            let identity = Identity::new(claim.identity)
                .map_err(|source| WireError::Id { field: "identity", source })?;
            let uid = ParticipantUid::from_raw(claim.participant_uid);
            Relayed::Claim(identity, uid, claim.incarnation)
        }
    })
}

fn allowed(permission: &SubscriptionPermission) -> wire::SubscriptionPermission {
    let entries = match permission {
        SubscriptionPermission::Everybody => {
            return wire::SubscriptionPermission { everybody: true, allowed: Vec::new() };
        }
        SubscriptionPermission::Only(entries) => entries,
    };
    let entry = |entry: &headwater_room::TrackPermission| wire::TrackPermission {
        participant_uid: entry.participant.as_ref().map(ToString::to_string).unwrap_or_default(),
        identity: entry.identity.clone().unwrap_or_default(),
        all_tracks: entry.tracks == AllowedTracks::All,
        track_uids: match &entry.tracks {
            AllowedTracks::All => Vec::new(),
            AllowedTracks::These(tracks) => tracks.iter().map(TrackUid::to_string).collect(),
        },
    };
    wire::SubscriptionPermission { everybody: false, allowed: entries.iter().map(entry).collect() }
}

fn participant_from(from: wire::Participant) -> Result<ParticipantView, WireError> {
    let identity = Identity::new(from.identity)
        .map_err(|source| WireError::Id { field: "identity", source })?;
    let phase = match wire::ParticipantPhase::try_from(from.phase).unwrap_or_default() {
        wire::ParticipantPhase::Unspecified | wire::ParticipantPhase::Joined => {
            ParticipantPhase::Joined
        }
        wire::ParticipantPhase::Active => ParticipantPhase::Active,
        wire::ParticipantPhase::Left => {
            ParticipantPhase::Left(close_reason_from(from.close_reason))
        }
    };
    let time = from.join_time.unwrap_or_default();
    let join_millis = u64::try_from(time.seconds).unwrap_or(0).saturating_mul(1000)
        + u64::try_from(time.nanos / 1_000_000).unwrap_or(0);
    let tracks = bounded("tracks", from.tracks)?.into_iter().filter_map(track_from);
    let data_tracks = bounded("data_tracks", from.data_tracks)?.into_iter().map(data_track_from);
    Ok(ParticipantView {
        uid: ParticipantUid::from_raw(from.uid),
        identity,
        display_name: from.display_name,
        metadata: from.metadata,
        attributes: from.attributes.into_iter().collect(),
        phase,
        join_millis,
        version: from.version,
        permission: permission_from(from.permission.ok_or(WireError::Missing("permission"))?),
        tracks: tracks.collect::<Result<_, _>>()?,
        door_payload: from.door_payload.into(),
        data_tracks: data_tracks.collect(),
        uncounted: from.uncounted,
    })
}

/// A track of a kind that a later version knows is left out.
fn track_from(from: wire::Track) -> Option<Result<TrackView, WireError>> {
    let public = from.track?;
    let kind = kind_from(public.kind)?;
    let layers = match video_layers(from.layers) {
        Ok(layers) => layers,
        Err(error) => return Some(Err(error)),
    };
    Some(Ok(TrackView {
        uid: TrackUid::from_raw(public.uid),
        display_name: public.display_name,
        kind,
        source: source_from(public.source),
        muted: public.muted,
        codec: headwater_model::media::Codec::from_mime_type(&public.mime_type),
        width: public.width,
        height: public.height,
        simulcast: public.simulcast,
        layers,
        codecs: from.codecs.into_iter().map(track_codec).collect(),
        stereo: from.stereo,
        disable_red: from.disable_red,
        disable_dtx: from.disable_dtx,
        encrypted: from.encrypted,
        stream: from.stream,
        mid: from.mid,
        door_payload: from.door_payload.into(),
        client_track_id: None,
    }))
}

fn data_track_from(from: wire::DataTrack) -> DataTrackView {
    DataTrackView {
        handle: u16::try_from(from.handle).unwrap_or_default(),
        uid: TrackUid::from_raw(from.uid),
        display_name: from.display_name,
        door_payload: from.door_payload.into(),
    }
}
