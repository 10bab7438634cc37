//! The claims of a token as they stand in its JSON, and how they become
//! grants: every absent claim is decided here and nowhere else.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use headwater_model::grants::ParticipantKind;
use headwater_model::media::TrackSource;
use headwater_model::{Grants, Permission};
use serde::de::MapAccess;
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize};

/// The first part of a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(default, skip_serializing)]
    crit: Option<serde_json::Value>,
    #[serde(default, skip_serializing)]
    b64: Option<serde_json::Value>,
}

impl Header {
    pub(super) fn hs256() -> Self {
        Self { alg: "HS256".to_owned(), typ: Some("JWT".to_owned()), crit: None, b64: None }
    }

    /// HS256 and no extension that changes what is signed (RFC 7515 4.1.11, RFC 7797).
    pub(super) fn is_plain_hs256(&self) -> bool {
        self.alg == "HS256" && self.crit.is_none() && self.b64.is_none()
    }
}

/// The one claim that is read before the signature is checked.
#[derive(Debug, Deserialize)]
pub(super) struct Issuer {
    #[serde(default)]
    pub(super) iss: Option<String>,
}

/// Seconds since the Unix epoch; some SDKs write fractions, which are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct NumericDate(pub(super) u64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let seconds = number.as_u64().or_else(|| {
            // A cast from a float saturates: before 1970 is 0, far away is the end of time.
            number.as_f64().map(|seconds| seconds as u64)
        });
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("not a time"))
    }
}

/// The second part of a token. Claims not named here are not ours to judge.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exp: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<NumericDate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind_details: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attributes: Option<UniqueMap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    video: Option<Object<VideoGrant>>,
}

/// LiveKit's video grant. Absent, null and (for flags that default to no) false are one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VideoGrant {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_join: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_create: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_list: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_admin: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_record: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_publish_data: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_publish_sources: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorder: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<bool>,
}

impl Claims {
    pub(super) fn from_grants(grants: &Grants, key: &str, now: u64, ttl: Duration) -> Self {
        Self {
            exp: Some(NumericDate(now.saturating_add(ttl.as_secs()))),
            nbf: Some(NumericDate(now)),
            iat: None,
            iss: Some(key.to_owned()),
            sub: text(&grants.identity),
            jti: None,
            name: text(&grants.display_name),
            kind: kind_name(grants.kind).map(str::to_owned),
            kind_details: list(grants.kind_details.clone()),
            metadata: text(&grants.metadata),
            attributes: (!grants.attributes.is_empty())
                .then(|| UniqueMap(grants.attributes.clone())),
            sha256: text(&grants.sha256),
            video: Some(Object(VideoGrant::from_grants(grants))),
        }
    }

    pub(super) fn into_grants(self) -> Grants {
        let video = self.video.map(|grant| grant.0).unwrap_or_default();
        let identity = self.sub.filter(|sub| !sub.is_empty()).or(self.jti).unwrap_or_default();
        Grants {
            api_key: self.iss.unwrap_or_default(),
            identity,
            display_name: self.name.unwrap_or_default(),
            metadata: self.metadata.unwrap_or_default(),
            attributes: self.attributes.map(|map| map.0).unwrap_or_default(),
            kind: self.kind.as_deref().map(kind_of).unwrap_or_default(),
            kind_details: self.kind_details.unwrap_or_default(),
            sha256: self.sha256.unwrap_or_default(),
            permission: video.permission(),
            room: video.room.unwrap_or_default(),
            room_join: video.room_join.unwrap_or_default(),
            room_create: video.room_create.unwrap_or_default(),
            room_list: video.room_list.unwrap_or_default(),
            room_admin: video.room_admin.unwrap_or_default(),
            room_record: video.room_record.unwrap_or_default(),
            recorder: video.recorder.unwrap_or_default(),
            agent: video.agent.unwrap_or_default(),
            expires_at: self.exp.map_or(0, |time| time.0),
        }
    }
}

impl VideoGrant {
    fn from_grants(grants: &Grants) -> Self {
        let permission = &grants.permission;
        let sources: Vec<String> = permission
            .can_publish_sources
            .iter()
            .copied()
            .map(source_name)
            .map(str::to_owned)
            .collect();
        Self {
            room: text(&grants.room),
            room_join: flag(grants.room_join),
            room_create: flag(grants.room_create),
            room_list: flag(grants.room_list),
            room_admin: flag(grants.room_admin),
            room_record: flag(grants.room_record),
            can_publish: Some(permission.can_publish),
            can_subscribe: Some(permission.can_subscribe),
            can_publish_data: Some(permission.can_publish_data),
            can_publish_sources: list(sources),
            can_update_own_metadata: flag(permission.can_update_metadata),
            hidden: flag(permission.hidden),
            recorder: flag(grants.recorder),
            agent: flag(grants.agent),
        }
    }

    fn permission(&self) -> Permission {
        let can_publish = self.can_publish.unwrap_or(true);
        let named = self.can_publish_sources.as_deref().unwrap_or_default();
        let sources: Vec<TrackSource> = named.iter().filter_map(|name| source_of(name)).collect();
        // An empty list of ours means every source, so a list in which we know
        // no name must take the right to publish away instead of widening it.
        let names_nothing_known = !named.is_empty() && sources.is_empty();
        Permission {
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish: can_publish && !names_nothing_known,
            can_publish_data: self.can_publish_data.unwrap_or(can_publish),
            can_publish_sources: sources,
            hidden: self.hidden.unwrap_or_default(),
            can_update_metadata: self.can_update_own_metadata.unwrap_or_default(),
        }
    }
}

/// A struct that must be written as a JSON object: serde by itself also takes a
/// list of its fields in order.
#[derive(Debug, Serialize)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(access)).map(Object)
            }
        }
        deserializer.deserialize_map(Visitor(PhantomData))
    }
}

/// A map of texts in which a key may stand only once.
#[derive(Debug, Serialize)]
struct UniqueMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = UniqueMap;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<UniqueMap, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((key, value)) = access.next_entry::<String, String>()? {
                    if map.insert(key, value).is_some() {
                        return Err(serde::de::Error::custom("an attribute came twice"));
                    }
                }
                Ok(UniqueMap(map))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn list(values: Vec<String>) -> Option<Vec<String>> {
    (!values.is_empty()).then_some(values)
}

fn flag(value: bool) -> Option<bool> {
    value.then_some(true)
}

const SOURCES: [(TrackSource, &str); 5] = [
    (TrackSource::Unknown, "unknown"),
    (TrackSource::Camera, "camera"),
    (TrackSource::Microphone, "microphone"),
    (TrackSource::ScreenShare, "screen_share"),
    (TrackSource::ScreenShareAudio, "screen_share_audio"),
];

fn source_of(name: &str) -> Option<TrackSource> {
    SOURCES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(source, _)| *source)
}

fn source_name(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Unknown => "unknown",
        TrackSource::Camera => "camera",
        TrackSource::Microphone => "microphone",
        TrackSource::ScreenShare => "screen_share",
        TrackSource::ScreenShareAudio => "screen_share_audio",
    }
}

/// A kind we do not know is a person's client, as LiveKit's server has it.
fn kind_of(name: &str) -> ParticipantKind {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "ingress" => ParticipantKind::Ingress,
        "egress" => ParticipantKind::Egress,
        "sip" => ParticipantKind::Sip,
        "agent" => ParticipantKind::Agent,
        "connector" => ParticipantKind::Connector,
        "bridge" => ParticipantKind::Bridge,
        _ => ParticipantKind::Standard,
    }
}

fn kind_name(kind: ParticipantKind) -> Option<&'static str> {
    match kind {
        ParticipantKind::Standard => None,
        ParticipantKind::Ingress => Some("ingress"),
        ParticipantKind::Egress => Some("egress"),
        ParticipantKind::Sip => Some("sip"),
        ParticipantKind::Agent => Some("agent"),
        ParticipantKind::Connector => Some("connector"),
        ParticipantKind::Bridge => Some("bridge"),
    }
}
