//! Envelopes against LiveKit's own message types.

use livekit_protocol::data_packet::Value as LiveKitValue;
use livekit_protocol::{ChatMessage, DataPacket, RpcRequest, UserPacket};
use proptest::prelude::*;
use prost::Message;

use super::*;

const ADA: Stamp<'static> = Stamp { reliable: true, uid: "PA_ada", identity: Some("ada") };

fn user_packet() -> DataPacket {
    #[expect(deprecated, reason = "old clients write these fields")]
    DataPacket {
        kind: 1,
        participant_identity: "mallory".to_owned(),
        destination_identities: vec![],
        sequence: 300,
        participant_sid: "PA_mallory".to_owned(),
        value: Some(LiveKitValue::User(UserPacket {
            participant_sid: "PA_mallory".to_owned(),
            participant_identity: "mallory".to_owned(),
            payload: vec![1, 2, 3],
            destination_sids: vec!["PA_bob".to_owned()],
            topic: Some("chat".to_owned()),
            nonce: vec![9; 16],
            ..UserPacket::default()
        })),
    }
}

#[test]
#[expect(deprecated, reason = "old clients read these fields")]
fn the_sender_cannot_be_forged() {
    let bytes = user_packet().encode_to_vec();
    let envelope = read(&bytes).unwrap();
    assert_eq!(envelope.sequence, 300);
    assert_eq!(envelope.content, Content::User);
    assert_eq!(envelope.destinations, Destinations::Uids(vec!["PA_bob"]));
    let stamped = DataPacket::decode(&stamp(&bytes, &envelope, ADA)[..]).unwrap();
    assert_eq!(stamped.participant_identity, "ada");
    assert_eq!(stamped.participant_sid, "PA_ada");
    assert_eq!(stamped.kind, 0, "as it arrived");
    assert_eq!(stamped.sequence, 300);
    let Some(LiveKitValue::User(user)) = stamped.value else { panic!() };
    assert_eq!(user.participant_sid, "PA_ada");
    assert_eq!(user.participant_identity, "ada");
    assert_eq!(user.payload, [1, 2, 3]);
    assert_eq!(user.topic.as_deref(), Some("chat"));
    assert_eq!(user.nonce, [9; 16]);
}

#[test]
fn hidden_senders_are_blank() {
    let bytes = user_packet().encode_to_vec();
    let envelope = read(&bytes).unwrap();
    let blank = Stamp { reliable: false, uid: "", identity: Some("") };
    let stamped = DataPacket::decode(&stamp(&bytes, &envelope, blank)[..]).unwrap();
    assert_eq!(stamped.participant_identity, "");
    assert_eq!(stamped.participant_sid, "");
}

#[test]
fn destinations_of_the_envelope_come_before_those_inside() {
    let mut packet = user_packet();
    packet.destination_identities = vec!["bob".to_owned(), "cyd".to_owned()];
    let bytes = packet.encode_to_vec();
    let envelope = read(&bytes).unwrap();
    assert_eq!(envelope.destinations, Destinations::Identities(vec!["bob", "cyd"]));
}

#[test]
fn what_is_not_known_goes_through_unchanged() {
    let rpc = DataPacket {
        value: Some(LiveKitValue::RpcRequest(RpcRequest {
            id: "1".to_owned(),
            method: "m".to_owned(),
            payload: "p".to_owned(),
            response_timeout_ms: 5,
            version: 1,
            ..RpcRequest::default()
        })),
        ..DataPacket::default()
    };
    let mut bytes = rpc.encode_to_vec();
    // A later member of the oneof: field 200 with two bytes, and a fixed field.
    bytes.extend_from_slice(&[0xc2, 0x0c, 2, 0xaa, 0xbb, 0xd5, 0x0c, 1, 2, 3, 4]);
    let envelope = read(&bytes).unwrap();
    assert_eq!(envelope.content, Content::Opaque);
    let stamped = stamp(&bytes, &envelope, ADA);
    assert_eq!(stamped[..bytes.len()], bytes);
    assert_eq!(DataPacket::decode(&stamped[..]).unwrap().participant_sid, "PA_ada");
}

#[test]
fn of_two_values_the_last_counts() {
    let chat = DataPacket {
        value: Some(LiveKitValue::ChatMessage(ChatMessage::default())),
        ..DataPacket::default()
    };
    let mut bytes = user_packet().encode_to_vec();
    bytes.extend_from_slice(&chat.encode_to_vec());
    let envelope = read(&bytes).unwrap();
    assert_eq!(envelope.content, Content::Spoken);
    assert_eq!(envelope.destinations, Destinations::Everybody);
    let stamped = DataPacket::decode(&stamp(&bytes, &envelope, ADA)[..]).unwrap();
    assert!(matches!(stamped.value, Some(LiveKitValue::ChatMessage(_))));
}

#[test]
fn bytes_without_an_envelope_get_one() {
    let packet = wrap(b"raw", "topic", ADA);
    let packet = DataPacket::decode(&packet[..]).unwrap();
    assert_eq!(packet.participant_identity, "ada");
    let Some(LiveKitValue::User(user)) = packet.value else { panic!() };
    assert_eq!((&user.payload[..], user.topic.as_deref()), (&b"raw"[..], Some("topic")));
    let bare = DataPacket::decode(&wrap(b"", "", ADA)[..]).unwrap();
    let Some(LiveKitValue::User(user)) = bare.value else { panic!() };
    assert_eq!(user.topic, None);
}

#[test]
fn what_is_no_packet_is_refused() {
    assert_eq!(read(&[]), Err(EnvelopeError::Empty));
    assert_eq!(read(&[0x12, 5, 1]), Err(EnvelopeError::Truncated));
    assert_eq!(read(&[0x13]), Err(EnvelopeError::WireType));
    assert_eq!(read(&[0xff; 11]), Err(EnvelopeError::Truncated));
    assert_eq!(read(&[0x2a, 1, 0xff]), Err(EnvelopeError::Text));
    let many = [0x2a, 0].repeat(DESTINATIONS_MAX + 1);
    assert_eq!(read(&many), Err(EnvelopeError::TooManyDestinations));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(envelope) = read(&bytes) {
            stamp(&bytes, &envelope, ADA);
        }
    }

    /// Whatever LiveKit's library can read, it reads with the right sender
    /// after the stamp, and with nothing else changed.
    #[test]
    fn mutated_packets_keep_their_meaning(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = user_packet().encode_to_vec();
        for (place, byte) in edits {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        let before = DataPacket::decode(&bytes[..]);
        if let (Ok(envelope), Ok(before)) = (read(&bytes), before) {
            let after = DataPacket::decode(&stamp(&bytes, &envelope, ADA)[..]).unwrap();
            prop_assert_eq!(&after.participant_sid, "PA_ada");
            prop_assert_eq!(&after.participant_identity, "ada");
            prop_assert_eq!(after.sequence, before.sequence);
            prop_assert_eq!(after.destination_identities, before.destination_identities);
            match (before.value, after.value) {
                (Some(LiveKitValue::User(before)), Some(LiveKitValue::User(after))) => {
                    prop_assert_eq!(before.payload, after.payload);
                    prop_assert_eq!(before.topic, after.topic);
                }
                (before, after) => prop_assert_eq!(before, after),
            }
        }
    }
}
