//! Twirp's JSON: names as in the `.proto` and every field written, default or
//! not. What serde writes is proto3 JSON with neither, so it is completed here
//! from the shapes of the few messages that are answered.

use serde_json::{Map, Value};

/// What an absent field is written as.
#[derive(Debug, Clone, Copy)]
enum Absent {
    Text,
    Number,
    /// 64-bit integers are texts in JSON.
    BigNumber,
    False,
    /// The name of the enum's zero.
    Name(&'static str),
    /// A message.
    Null(&'static Shape),
    /// A list of messages.
    Messages(&'static Shape),
    /// A list of anything else.
    List,
    /// A map of texts, whose keys are nobody's to change.
    Texts,
}

/// The fields of a message.
#[derive(Debug)]
pub(crate) struct Shape(&'static [(&'static str, Absent)]);

use Absent::{BigNumber, False, List, Messages, Name, Null, Number, Text, Texts};

/// Messages without fields.
pub(crate) static EMPTY: Shape = Shape(&[]);

static CODEC: Shape = Shape(&[("mime", Text), ("fmtp_line", Text)]);

static VERSION: Shape = Shape(&[("unix_micro", BigNumber), ("ticks", Number)]);

pub(crate) static ROOM: Shape = Shape(&[
    ("sid", Text),
    ("name", Text),
    ("empty_timeout", Number),
    ("departure_timeout", Number),
    ("max_participants", Number),
    ("creation_time", BigNumber),
    ("creation_time_ms", BigNumber),
    ("turn_password", Text),
    ("enabled_codecs", Messages(&CODEC)),
    ("metadata", Text),
    ("num_participants", Number),
    ("num_publishers", Number),
    ("active_recording", False),
    ("version", Null(&VERSION)),
]);

pub(crate) static ROOMS: Shape = Shape(&[("rooms", Messages(&ROOM))]);

static LAYER: Shape = Shape(&[
    ("quality", Name("LOW")),
    ("width", Number),
    ("height", Number),
    ("bitrate", Number),
    ("ssrc", Number),
    ("spatial_layer", Number),
    ("rid", Text),
    ("repair_ssrc", Number),
]);

static TRACK_CODEC: Shape = Shape(&[
    ("mime_type", Text),
    ("mid", Text),
    ("cid", Text),
    ("layers", Messages(&LAYER)),
    ("video_layer_mode", Name("MODE_UNUSED")),
    ("sdp_cid", Text),
]);

static TRACK: Shape = Shape(&[
    ("sid", Text),
    ("type", Name("AUDIO")),
    ("name", Text),
    ("muted", False),
    ("width", Number),
    ("height", Number),
    ("simulcast", False),
    ("disable_dtx", False),
    ("source", Name("UNKNOWN")),
    ("layers", Messages(&LAYER)),
    ("mime_type", Text),
    ("mid", Text),
    ("codecs", Messages(&TRACK_CODEC)),
    ("stereo", False),
    ("disable_red", False),
    ("encryption", Name("NONE")),
    ("stream", Text),
    ("version", Null(&VERSION)),
    ("audio_features", List),
    ("backup_codec_policy", Name("PREFER_REGRESSION")),
    ("packet_trailer_features", List),
]);

pub(crate) static MUTED_TRACK: Shape = Shape(&[("track", Null(&TRACK))]);

static PERMISSION: Shape = Shape(&[
    ("can_subscribe", False),
    ("can_publish", False),
    ("can_publish_data", False),
    ("can_publish_sources", List),
    ("hidden", False),
    ("recorder", False),
    ("can_update_metadata", False),
    ("agent", False),
    ("can_subscribe_metrics", False),
    ("can_manage_agent_session", False),
]);

pub(crate) static PARTICIPANT: Shape = Shape(&[
    ("sid", Text),
    ("identity", Text),
    ("state", Name("JOINING")),
    ("tracks", Messages(&TRACK)),
    ("metadata", Text),
    ("joined_at", BigNumber),
    ("joined_at_ms", BigNumber),
    ("name", Text),
    ("version", Number),
    ("permission", Null(&PERMISSION)),
    ("region", Text),
    ("is_publisher", False),
    ("kind", Name("STANDARD")),
    ("attributes", Texts),
    ("disconnect_reason", Name("UNKNOWN_REASON")),
    ("kind_details", List),
    ("data_tracks", List),
    ("client_protocol", Number),
    ("capabilities", List),
]);

pub(crate) static PARTICIPANTS: Shape = Shape(&[("participants", Messages(&PARTICIPANT))]);

/// Completes a message that serde wrote. A field the shape does not know, which
/// a newer protocol may bring, is kept.
pub(crate) fn complete(value: Value, shape: &Shape) -> Value {
    let Value::Object(mut written) = value else {
        return value;
    };
    let mut complete = Map::new();
    for (name, absent) in shape.0 {
        let value = match (written.remove(&camel_case(name)), absent) {
            (Some(value), Null(inner)) => self::complete(value, inner),
            (Some(Value::Array(values)), Messages(inner)) => {
                values.into_iter().map(|value| self::complete(value, inner)).collect()
            }
            (Some(value), _) => value,
            (None, absent) => absent.value(),
        };
        complete.insert((*name).to_owned(), value);
    }
    complete.extend(written.into_iter().map(|(name, value)| (snake_case(&name), value)));
    Value::Object(complete)
}

impl Absent {
    fn value(self) -> Value {
        match self {
            Text => Value::from(""),
            Number => Value::from(0),
            BigNumber => Value::from("0"),
            False => Value::from(false),
            Name(name) => Value::from(name),
            Null(_) => Value::Null,
            Messages(_) | List => Value::Array(Vec::new()),
            Texts => Value::Object(Map::new()),
        }
    }
}

fn camel_case(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    let mut raise = false;
    for char in name.chars() {
        match char {
            '_' => raise = true,
            char if raise => {
                camel.push(char.to_ascii_uppercase());
                raise = false;
            }
            char => camel.push(char),
        }
    }
    camel
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use livekit_protocol as lk;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_those_of_the_proto_and_defaults_are_written() {
        let room = lk::Room {
            name: "lobby".into(),
            creation_time_ms: 5,
            enabled_codecs: vec![lk::Codec { mime: "video/VP8".into(), ..Default::default() }],
            ..Default::default()
        };
        let json = complete(serde_json::to_value(room).unwrap(), &ROOM);
        assert_eq!(json["name"], "lobby");
        assert_eq!(json["creation_time_ms"], "5");
        assert_eq!(json["num_participants"], 0);
        assert_eq!(json["enabled_codecs"], json!([{"mime": "video/VP8", "fmtp_line": ""}]));
        assert_eq!(json["version"], Value::Null);
    }

    #[test]
    fn keys_of_maps_are_left_alone() {
        let participant = lk::ParticipantInfo {
            attributes: [("camelCase_key".to_owned(), "v".to_owned())].into(),
            permission: Some(lk::ParticipantPermission::default()),
            ..Default::default()
        };
        let json = complete(serde_json::to_value(participant).unwrap(), &PARTICIPANT);
        assert_eq!(json["attributes"], json!({"camelCase_key": "v"}));
        assert_eq!(json["permission"]["can_publish"], false);
        assert_eq!(json["state"], "JOINING");
    }

    #[test]
    fn every_field_that_serde_knows_is_in_its_shape() {
        // What serde writes for messages with every field set must vanish from
        // `written`, or a field of the protocol has been forgotten here.
        let known =
            |shape: &Shape| shape.0.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
        #[expect(deprecated, reason = "they are fields all the same")]
        let track = lk::TrackInfo {
            sid: "x".into(),
            r#type: 1,
            name: "x".into(),
            muted: true,
            width: 1,
            height: 1,
            simulcast: true,
            disable_dtx: true,
            source: 1,
            layers: vec![lk::VideoLayer::default()],
            mime_type: "x".into(),
            mid: "x".into(),
            codecs: vec![lk::SimulcastCodecInfo::default()],
            stereo: true,
            disable_red: true,
            encryption: 1,
            stream: "x".into(),
            version: Some(lk::TimedVersion::default()),
            audio_features: vec![1],
            backup_codec_policy: 1,
            packet_trailer_features: vec![1],
        };
        let json = complete(serde_json::to_value(track).unwrap(), &TRACK);
        let written: Vec<String> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(written.len(), known(&TRACK).len(), "{written:?}");
    }
}
