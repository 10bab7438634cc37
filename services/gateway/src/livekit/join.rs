//! The first message of a session: JoinResponse for who comes new,
//! ReconnectResponse and what it missed for who comes back. Pure.

use headwater_proto::node::v1 as node;
use livekit_protocol as lk;
use lk::signal_response::Message;

use super::{event, info};
use crate::config::IceServer;

/// What is told as the server's version. SDKs parse it as semver, refuse less
/// than 1.8.0, and above this one publish VP9 and AV1 in ways the node does not take.
pub(crate) const SERVER_VERSION: &str = "1.13.6";

/// Protocol number of this door. From 18 on, clients expect negotiated data channels.
pub(crate) const SERVER_PROTOCOL: i32 = 16;

/// How often clients ping, in seconds.
const PING_INTERVAL_SECONDS: i32 = 5;

/// How long clients wait for anything to arrive before they resume, in seconds.
const PING_TIMEOUT_SECONDS: i32 = 15;

/// Bytes of the mark on frames that the server injects into encrypted tracks.
pub(crate) const SIF_TRAILER_BYTES: usize = 24;

/// What the first message says besides what the node said.
#[derive(Debug, Clone)]
pub(crate) struct Welcome<'a> {
    pub(crate) mode: node::TransportMode,
    /// Codecs this client may publish.
    pub(crate) codecs: &'a [String],
    pub(crate) ice_servers: &'a [IceServer],
    pub(crate) region: &'a str,
    pub(crate) node_id: &'a str,
    /// Random.
    pub(crate) sif_trailer: [u8; SIF_TRAILER_BYTES],
}

/// For a fresh session. `None` if the node left out the room or the participant,
/// which clients do not survive.
pub(crate) fn join_response(welcome: &Welcome<'_>, joined: &node::Joined) -> Option<Message> {
    let own = joined.participant.as_ref().filter(|own| info::is_participant_uid(&own.uid))?;
    let room = info::room(joined.room.as_ref()?, welcome.codecs);
    let permission = own.permission.clone().unwrap_or_default();
    let others = joined.others.iter().filter(|other| info::is_participant_uid(&other.uid));
    Some(Message::Join(lk::JoinResponse {
        room: Some(room),
        participant: Some(info::participant(own)),
        other_participants: others.map(info::participant).collect(),
        server_version: SERVER_VERSION.to_owned(),
        ice_servers: ice_servers(welcome.ice_servers),
        subscriber_primary: match welcome.mode {
            node::TransportMode::Dual => permission.can_subscribe,
            node::TransportMode::Single | node::TransportMode::Unspecified => false,
        },
        alternative_url: String::new(),
        client_configuration: None,
        server_region: welcome.region.to_owned(),
        ping_timeout: PING_TIMEOUT_SECONDS,
        ping_interval: PING_INTERVAL_SECONDS,
        server_info: Some(server_info(welcome)),
        sif_trailer: welcome.sif_trailer.to_vec(),
        enabled_publish_codecs: info::enabled_codecs(welcome.codecs),
        fast_publish: permission.can_publish,
    }))
}

/// For a resumed session: the reconnect first, then who left, then everybody
/// with oneself, then the room.
pub(crate) fn reconnect_responses(welcome: &Welcome<'_>, joined: &node::Joined) -> Vec<Message> {
    let reconnect = lk::ReconnectResponse {
        ice_servers: ice_servers(welcome.ice_servers),
        client_configuration: None,
        server_info: Some(server_info(welcome)),
        last_message_seq: joined.last_data_sequence,
    };
    let departed = event::participant_updates(&joined.departed);
    let present = event::participant_updates(joined.participant.iter().chain(&joined.others));
    let room = joined.room.as_ref().map(|room| info::room(room, welcome.codecs));
    std::iter::once(Message::Reconnect(reconnect))
        .chain(departed.into_iter().chain(present).map(Message::Update))
        .chain(room.map(|room| Message::RoomUpdate(lk::RoomUpdate { room: Some(room) })))
        .collect()
}

fn server_info(welcome: &Welcome<'_>) -> lk::ServerInfo {
    lk::ServerInfo {
        edition: i32::from(lk::server_info::Edition::Standard),
        version: SERVER_VERSION.to_owned(),
        protocol: SERVER_PROTOCOL,
        region: welcome.region.to_owned(),
        node_id: welcome.node_id.to_owned(),
        debug_info: String::new(),
        agent_protocol: 0,
    }
}

fn ice_servers(configured: &[IceServer]) -> Vec<lk::IceServer> {
    configured
        .iter()
        .map(|server| lk::IceServer {
            urls: server.urls.clone(),
            username: server.username.clone(),
            credential: server.credential().to_owned(),
        })
        .collect()
}
