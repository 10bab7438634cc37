//! The interpreter: every request and every event has its translation, and
//! nothing that a client can send makes it panic.

mod events;
mod requests;

use headwater_model::grants::Grants;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::v1;
use livekit_protocol as lk;
use lk::signal_request::Message as Request;
use lk::signal_response::Message as ToClient;
use proptest::prelude::*;
use prost::Message as _;

use super::info;
use super::interpreter::{Interpreter, Output, Speaker};

fn interpreter(protocol: i32, mode: node::TransportMode) -> Interpreter {
    let grants = Grants { identity: "ada".into(), ..Default::default() };
    let own =
        node::Participant { uid: "PA_ada".into(), identity: "ada".into(), ..Default::default() };
    Interpreter::new(Speaker { protocol, mode, codecs: Vec::new(), grants }, &own)
}

fn dual() -> Interpreter {
    interpreter(17, node::TransportMode::Dual)
}

fn outputs(interpreter: &mut Interpreter) -> Vec<Output> {
    std::iter::from_fn(|| interpreter.poll_output()).collect()
}

/// What one request becomes at the node.
fn asked(request: Request) -> Vec<ToNode> {
    let mut interpreter = dual();
    interpreter.handle_request(request, 0);
    outputs(&mut interpreter)
        .into_iter()
        .filter_map(|output| match output {
            Output::ToNode(request) => Some(request),
            _ => None,
        })
        .collect()
}

/// What one event becomes at the client.
fn told(interpreter: &mut Interpreter, event: Event) -> Vec<ToClient> {
    interpreter.handle_event(event);
    outputs(interpreter)
        .into_iter()
        .filter_map(|output| match output {
            Output::ToClient(message) => Some(message),
            _ => None,
        })
        .collect()
}

fn camera() -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width| lk::VideoLayer {
        quality: quality.into(),
        width,
        bitrate: 1000,
        ..Default::default()
    };
    lk::AddTrackRequest {
        cid: "cam".into(),
        name: "front".into(),
        r#type: lk::TrackType::Video.into(),
        source: lk::TrackSource::Camera.into(),
        width: 1280,
        height: 720,
        layers: vec![
            layer(lk::VideoQuality::High, 1280),
            layer(lk::VideoQuality::Low, 320),
            layer(lk::VideoQuality::Off, 1),
        ],
        simulcast_codecs: vec![
            lk::SimulcastCodec {
                codec: "vp9".into(),
                cid: "cam".into(),
                video_layer_mode: lk::video_layer::Mode::OneSpatialLayerPerStream.into(),
                ..Default::default()
            },
            lk::SimulcastCodec { codec: "vp8".into(), ..Default::default() },
        ],
        encryption: lk::encryption::Type::Gcm.into(),
        backup_codec_policy: lk::BackupCodecPolicy::Simulcast.into(),
        packet_trailer_features: vec![1],
        ..Default::default()
    }
}

/// The track that a node makes of a request.
fn published(add: &node::AddTrack, uid: &str) -> node::Track {
    node::Track {
        track: Some(v1::Track {
            uid: uid.into(),
            display_name: add.display_name.clone(),
            kind: add.kind,
            source: add.source,
            width: add.width,
            height: add.height,
            mime_type: "video/VP9".into(),
            ..Default::default()
        }),
        layers: add.layers.clone(),
        codecs: add.codecs.clone(),
        encrypted: add.encrypted,
        door_payload: add.door_payload.clone(),
        mid: "2".into(),
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn no_request_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), single: bool) {
        let mode = if single { node::TransportMode::Single } else { node::TransportMode::Dual };
        let mut interpreter = interpreter(17, mode);
        if let Ok(lk::SignalRequest { message: Some(message) }) =
            lk::SignalRequest::decode(bytes.as_slice())
        {
            interpreter.handle_request(message, 0);
            outputs(&mut interpreter);
        }
    }

    #[test]
    fn no_mutated_request_panics(at in 0..400usize, with: u8, numbers: [i32; 4]) {
        let add = lk::AddTrackRequest {
            r#type: numbers[0],
            source: numbers[1],
            encryption: numbers[2],
            audio_features: numbers.to_vec(),
            backup_codec_policy: numbers[3],
            ..camera()
        };
        let request = lk::SignalRequest { message: Some(Request::AddTrack(add)) };
        let mut bytes = request.encode_to_vec();
        let at = at % bytes.len();
        bytes[at] ^= with;
        let mut interpreter = dual();
        if let Ok(lk::SignalRequest { message: Some(message) }) =
            lk::SignalRequest::decode(bytes.as_slice())
        {
            interpreter.handle_request(message, 0);
            if let Some(Output::ToNode(ToNode::AddTrack(add))) = interpreter.poll_output() {
                let track = info::track(&published(&add, "TR_1"));
                prop_assert!(!track.codecs.is_empty());
            }
        }
    }

    #[test]
    fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..128)) {
        let track = node::Track { door_payload: payload.clone(), ..Default::default() };
        info::track(&track);
        info::participant(&node::Participant { door_payload: payload.clone(), ..Default::default() });
        info::data_track(&node::DataTrack { door_payload: payload, ..Default::default() });
    }
}
