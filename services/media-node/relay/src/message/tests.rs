//! Messages are read as they were written, and nothing that is read panics.

use std::collections::BTreeMap;

use headwater_model::media::{Codec, Encoding, ExtensionIds, PayloadMapping, Publication};
use headwater_model::{ParticipantUid, TrackUid};
use proptest::prelude::*;

use super::*;
use crate::plan::ShardTag;
use crate::state::{Audience, Change, Entry, EntryKey, EntryKind, Operation, Owner, Post, Request};

fn hello() -> Hello {
    let address =
        |node: &str| ShardAddress { node: NodeId::new(node).unwrap(), shard: ShardIndex(3) };
    Hello {
        version: PROTOCOL_VERSION,
        from: address("here"),
        to: address("there"),
        boot: 77,
        room: RoomId::new("hall").unwrap(),
        epoch: Epoch(5),
        rank: 9,
    }
}

fn info() -> TrackInfo {
    let mapping = PayloadMapping {
        codec: Codec::H264,
        payload_type: 102,
        rtx_payload_type: None,
        format: "profile-level-id=42e01f".to_owned(),
        nack: true,
        pli: true,
        transport_cc: false,
        red_of: None,
    };
    let encoding = |spatial, rid: &str| Encoding {
        spatial,
        rid: Some(rid.to_owned()),
        width: 640,
        height: 360,
        bitrate: 500_000,
        ..Encoding::default()
    };
    TrackInfo {
        track: TrackUid::from_raw("TR_1"),
        participant: ParticipantUid::from_raw("PA_1"),
        epoch: 4,
        publication: Publication {
            kind: Codec::H264.kind(),
            mid: "1".to_owned(),
            codecs: vec![mapping],
            extensions: ExtensionIds::default(),
            encodings: vec![encoding(0, "q"), encoding(1, "h")],
        },
    }
}

fn state_messages() -> Vec<StateMessage> {
    let owner = Owner { shard: ShardTag(1), boot: 2 };
    let key = || EntryKey::new(EntryKind::Participant, "ada");
    let entry = || Entry { owner, incarnation: 8, value: [1, 2, 3][..].into() };
    let post = || Post {
        sender: "ada".into(),
        destinations: vec!["bob".into()],
        payload: [9; 30][..].into(),
    };
    let request = |operation| StateMessage::Request(Request { owner, number: 7, operation });
    let mut audience = Audience::default();
    audience.add("ada", true);
    let tallies = BTreeMap::from([("clap".into(), 5)]);
    let changes = vec![
        Change::Put(key(), entry()),
        Change::Remove(EntryKey::new(EntryKind::Track, "TR_1")),
        Change::Post(owner, post()),
    ];
    let entries = vec![(key(), entry())];
    let claimed = vec![(EntryKey::new(EntryKind::Other, "x"), 3, [4][..].into())];
    vec![
        StateMessage::Follow { epoch: Epoch(1), version: 2 },
        StateMessage::Snapshot { epoch: Epoch(1), version: 2, first: true, last: false, entries },
        StateMessage::Changes { epoch: Epoch(1), version: 2, changes },
        request(Operation::Put { key: key(), incarnation: 1, value: [5][..].into() }),
        request(Operation::Remove(key())),
        request(Operation::Post(post())),
        StateMessage::Claim { owner, number: 4, first: false, last: true, entries: claimed },
        StateMessage::Ack { owner, number: 9 },
        StateMessage::ClaimWanted(owner),
        StateMessage::Alive(owner),
        StateMessage::Flood { owner, number: 1, hops_left: 3, post: post() },
        StateMessage::Census(audience.clone()),
        StateMessage::Audience(audience),
        StateMessage::Tally(tallies.clone()),
        StateMessage::Totals(tallies),
    ]
}

fn all() -> Vec<Message> {
    let path = Path::from_origin(ShardTag(1)).extended(ShardTag(2)).unwrap();
    let mut list = vec![
        Message::Hello(hello()),
        Message::Welcome(hello()),
        Message::Moved(Epoch(6), 2),
        Message::Announce { handle: 3, info: Box::new(info()), path },
        Message::Withdraw(3),
        Message::Announced,
        Message::Interest(vec![(3, 0b101), (4, 0)]),
        Message::Keyframe(3, 2),
        Message::Repeat(Repeat { handle: 3, encoding: 1, life: 2, sequences: vec![5, 1 << 40] }),
        Message::LongFrame(vec![1; 1_500]),
    ];
    list.extend(REFUSALS.map(|reason| Message::Goodbye(reason, Epoch(8))));
    list.extend(state_messages().into_iter().map(Message::State));
    list
}

#[test]
fn every_message_is_read_as_it_was_written() {
    let mut bytes = Vec::new();
    let messages = all();
    messages.iter().for_each(|message| message.write(&mut bytes));
    let mut rest = &bytes[..];
    for message in messages {
        let (kind, len) = Message::head(rest).unwrap().unwrap();
        let (body, behind) = rest[MESSAGE_HEAD..].split_at(len);
        assert_eq!(Message::parse(kind, body), Ok(Some(message)));
        rest = behind;
    }
    assert!(rest.is_empty());
}

#[test]
fn what_a_later_version_appends_or_adds_does_no_harm() {
    for message in all() {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes.extend([1, 2, 3]);
        if matches!(message, Message::LongFrame(_)) {
            continue;
        }
        assert_eq!(Message::parse(bytes[0], &bytes[MESSAGE_HEAD..]), Ok(Some(message)));
    }
    assert_eq!(Message::parse(200, &[1, 2, 3]), Ok(None));
}

#[test]
fn false_lengths_are_refused() {
    assert!(Message::head(&[1, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert_eq!(Message::head(&[1, 0, 0]), Ok(None));
    // Two thousand million entries of interest.
    assert!(Message::parse(8, &[0x7f, 0xff, 0xff, 0xff]).is_err());
    assert!(Message::parse(9, &[0, 0, 0, 1, 8]).is_err(), "there are eight encodings");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic(
        kind in 0_u8..20,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = Message::parse(kind, &body);
    }

    #[test]
    fn a_message_with_a_broken_byte_is_refused_or_read_and_never_panics(
        index in 0_usize..34,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let messages = all();
        let mut bytes = Vec::new();
        messages[index % messages.len()].write(&mut bytes);
        if bytes.len() > MESSAGE_HEAD {
            let at = MESSAGE_HEAD + at.index(bytes.len() - MESSAGE_HEAD);
            bytes[at] = byte;
            let _ = Message::parse(bytes[0], &bytes[MESSAGE_HEAD..]);
        }
    }
}
