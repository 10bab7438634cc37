//! What a client asks for when it connects, checked once: the token, and either
//! the v0 query or the v1 join request. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use headwater_model::grants::Grants;
use headwater_model::ids::{IdError, Identity, NAME_BYTES_MAX, RoomId};
use headwater_proto::node::v1::TransportMode;
use headwater_rpc::KeyRing;
use headwater_rpc::token::from_authorization;
use http::{HeaderMap, header};
use livekit_protocol as lk;

use super::client::{client_info, complete_from_user_agent};
use super::join_request::decode_join_request;
use super::query::Query;
use super::rejection::Rejection;

/// Longest metadata of a participant, in bytes.
const METADATA_BYTES_MAX: usize = 512 * 1024;

/// All attributes of a participant together, in bytes.
const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;

/// Which signalling a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `/rtc`: two transports, unless a join request is given.
    V0,
    /// `/rtc/v1`: one transport, join request required.
    V1,
}

/// Everything that a connecting client said, checked.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    /// The room it may join.
    pub(crate) room: RoomId,
    /// Who it is.
    pub(crate) identity: Identity,
    /// Its token, with what the request may add to it.
    pub(crate) grants: Grants,
    /// The client.
    pub(crate) client: lk::ClientInfo,
    /// How many transports it uses.
    pub(crate) mode: TransportMode,
    /// It wants every track without asking for each.
    pub(crate) auto_subscribe: bool,
    /// It will tell sizes.
    pub(crate) adaptive_stream: bool,
    /// It comes back as this participant. The uid may be empty or false.
    pub(crate) resume_uid: Option<String>,
    /// What it asks for together with the join, in this order.
    pub(crate) sync_state: Option<lk::SyncState>,
    pub(crate) add_tracks: Vec<lk::AddTrackRequest>,
    pub(crate) offer: Option<lk::SessionDescription>,
    /// It has no signalling connection and negotiates once.
    pub(crate) solo: Option<Solo>,
}

/// How a client takes part that offers once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Solo {
    /// Whose tracks it wants. Empty means everybody's.
    pub(crate) followed: Vec<String>,
    /// Tracks it wants, by uid, instead.
    pub(crate) tracks: Vec<String>,
}

/// A client that says nothing but its token and an offer.
pub(crate) fn bare_connect(
    grants: Grants,
    auto_subscribe: bool,
    solo: Solo,
) -> Result<Connect, Rejection> {
    let asked = Asked::nothing();
    let (room, identity, grants) = admit(grants, &asked)?;
    Ok(Connect {
        room,
        identity,
        grants,
        client: asked.client,
        mode: asked.mode,
        auto_subscribe,
        adaptive_stream: false,
        resume_uid: None,
        sync_state: None,
        add_tracks: Vec::new(),
        offer: None,
        solo: Some(solo),
    })
}

/// The token of a request: the header first, then the query.
pub(crate) fn token(headers: &HeaderMap, query: &Query) -> Result<Option<String>, Rejection> {
    match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let value = value.to_str().map_err(|_| Rejection::NotBearer)?;
            let token = from_authorization(value).ok_or(Rejection::NotBearer)?;
            Ok((!token.is_empty()).then(|| token.to_owned()))
        }
        None => Ok(query.get("access_token").map(str::to_owned)),
    }
}

/// What a request's token allows. `None` if it has none.
pub(crate) fn authenticate(
    headers: &HeaderMap,
    query: &Query,
    keys: &KeyRing,
    now_unix_seconds: u64,
) -> Result<Option<Grants>, Rejection> {
    match token(headers, query)? {
        Some(token) => Ok(Some(keys.verify(&token, now_unix_seconds)?)),
        None => Ok(None),
    }
}

/// Checks everything that can be checked without asking anybody.
pub(crate) fn connect(
    door: Door,
    grants: Option<Grants>,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Connect, Rejection> {
    let grants = grants.ok_or(Rejection::NoToken)?;
    let mut asked = match query.get("join_request") {
        Some(text) => from_join_request(decode_join_request(text)?),
        None if door == Door::V1 => return Err(Rejection::NoJoinRequest),
        None => from_query(query)?,
    };
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    complete_from_user_agent(&mut asked.client, user_agent.unwrap_or_default());
    let (room, identity, grants) = admit(grants, &asked)?;
    Ok(Connect {
        room,
        identity,
        grants,
        client: asked.client,
        mode: asked.mode,
        auto_subscribe: asked.auto_subscribe,
        adaptive_stream: asked.adaptive_stream,
        resume_uid: asked.resume_uid,
        sync_state: asked.sync_state,
        add_tracks: asked.add_tracks,
        offer: asked.offer,
        solo: None,
    })
}

/// What a request says besides its token.
struct Asked {
    client: lk::ClientInfo,
    mode: TransportMode,
    auto_subscribe: bool,
    adaptive_stream: bool,
    resume_uid: Option<String>,
    /// A companion that only publishes, known by this suffix.
    publish: String,
    metadata: String,
    attributes: BTreeMap<String, String>,
    sync_state: Option<lk::SyncState>,
    add_tracks: Vec<lk::AddTrackRequest>,
    offer: Option<lk::SessionDescription>,
}

impl Asked {
    /// Nothing but one transport.
    fn nothing() -> Self {
        Self {
            client: lk::ClientInfo::default(),
            mode: TransportMode::Single,
            auto_subscribe: false,
            adaptive_stream: false,
            resume_uid: None,
            publish: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            sync_state: None,
            add_tracks: Vec::new(),
            offer: None,
        }
    }
}

fn from_query(query: &Query) -> Result<Asked, Rejection> {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let attributes = match query.get("attributes") {
        Some(text) => decode_attributes(text).ok_or(Rejection::Attributes)?,
        None => BTreeMap::new(),
    };
    Ok(Asked {
        client: client_info(query),
        mode: TransportMode::Dual,
        auto_subscribe: query.flag_or("auto_subscribe", true),
        adaptive_stream: query.flag("adaptive_stream"),
        resume_uid: query.flag("reconnect").then(|| text("sid")),
        publish: text("publish"),
        metadata: String::new(),
        attributes,
        sync_state: None,
        add_tracks: Vec::new(),
        offer: None,
    })
}

/// Absent booleans are false here, the opposite of the query.
fn from_join_request(request: lk::JoinRequest) -> Asked {
    let settings = request.connection_settings.unwrap_or_default();
    Asked {
        client: request.client_info.unwrap_or_default(),
        mode: TransportMode::Single,
        auto_subscribe: settings.auto_subscribe,
        adaptive_stream: settings.adaptive_stream,
        resume_uid: request.reconnect.then_some(request.participant_sid),
        publish: String::new(),
        metadata: request.metadata,
        attributes: request.participant_attributes.into_iter().collect(),
        sync_state: request.sync_state,
        add_tracks: request.add_track_requests,
        offer: request.publisher_offer,
    }
}

/// base64url of a JSON map.
fn decode_attributes(text: &str) -> Option<BTreeMap<String, String>> {
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
}

/// What the token lets the request do, and the names it gives.
fn admit(mut grants: Grants, asked: &Asked) -> Result<(RoomId, Identity, Grants), Rejection> {
    if !grants.room_join {
        return Err(Rejection::NoRoomJoin);
    }
    if grants.identity.is_empty() {
        return Err(Rejection::NoIdentity);
    }
    let room = RoomId::new(grants.room.clone()).map_err(|error| match error {
        IdError::Empty => Rejection::NoRoom,
        IdError::TooLong => Rejection::RoomNameTooLong,
        IdError::BadCharacter => Rejection::RoomNameMalformed,
    })?;
    if !asked.publish.is_empty() {
        if !grants.permission.can_publish {
            return Err(Rejection::NoPermission);
        }
        grants.permission.can_subscribe = false;
        grants.identity = format!("{}#{}", grants.identity, asked.publish);
    }
    let identity = Identity::new(grants.identity.clone()).map_err(|error| match error {
        IdError::Empty => Rejection::NoIdentity,
        IdError::TooLong => Rejection::IdentityTooLong,
        IdError::BadCharacter => Rejection::IdentityMalformed,
    })?;
    let changes_itself = !asked.metadata.is_empty() || !asked.attributes.is_empty();
    if changes_itself && !grants.permission.can_update_metadata {
        return Err(Rejection::NoPermission);
    }
    if !asked.metadata.is_empty() {
        grants.metadata.clone_from(&asked.metadata);
    }
    for (key, value) in &asked.attributes {
        // The request may add and change, not take away.
        if !value.is_empty() {
            grants.attributes.insert(key.clone(), value.clone());
        }
    }
    if grants.display_name.len() > NAME_BYTES_MAX {
        return Err(Rejection::NameTooLong);
    }
    if grants.metadata.len() > METADATA_BYTES_MAX {
        return Err(Rejection::MetadataTooLarge);
    }
    let attributes_bytes: usize =
        grants.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if attributes_bytes > ATTRIBUTES_BYTES_MAX {
        return Err(Rejection::AttributesTooLarge);
    }
    Ok((room, identity, grants))
}
