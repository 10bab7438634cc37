//! Records: written, read again, and refused.

use std::time::UNIX_EPOCH;

use headwater_model::{Epoch, ShardIndex};
use proptest::prelude::*;

use super::*;

fn node() -> NodeRecord {
    NodeRecord {
        node_id: NodeId::new("sfu-1").unwrap(),
        boot_id: "b1".to_owned(),
        incarnation: 2,
        rpc_url: "http://10.0.0.7:7900".to_owned(),
        shards: vec![ShardAddresses {
            udp: vec!["192.0.2.1:7882".parse().unwrap(), "[2001:db8::1]:7882".parse().unwrap()],
            tcp: vec!["192.0.2.1:7881".parse().unwrap()],
        }],
        zone: "a".to_owned(),
        region: "eu".to_owned(),
        participant_capacity: 500,
        relay_address: Some("192.0.2.1:7890".parse().unwrap()),
        build: "0.1.0".to_owned(),
        start_time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
    }
}

fn room() -> RoomRecord {
    RoomRecord {
        room_id: RoomId::new("Zürich am See").unwrap(),
        uid: RoomUid::from_raw("RM_1"),
        metadata: "{\"topic\":\"\\u0000\"}".to_owned(),
        max_participants: 12,
        empty_timeout: Duration::from_secs(300),
        departure_timeout: Duration::from_secs(20),
        create_time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        create_request_id: "r1".to_owned(),
        update_request_id: String::new(),
    }
}

fn plan() -> PlanRecord {
    PlanRecord {
        room_uid: RoomUid::from_raw("RM_1"),
        epoch: Epoch(u64::MAX),
        shards: vec![PlannedShard {
            node_id: NodeId::new("sfu-1").unwrap(),
            shard: ShardIndex(3),
            parent: None,
            backups: Vec::new(),
            seats: None,
        }],
    }
}

#[test]
fn every_record_reads_back_as_it_was_written() {
    assert_eq!(NodeRecord::decode(&node().encode()).unwrap(), node());
    assert_eq!(RoomRecord::decode(&room().encode()).unwrap(), room());
    assert_eq!(PlanRecord::decode(&plan().encode()).unwrap(), plan());
    let order = LifecycleRecord {
        node_id: NodeId::new("sfu-1").unwrap(),
        lifecycle: Lifecycle::Drain,
        ordered_by: "ops".to_owned(),
        reason: "kernel".to_owned(),
        order_time: UNIX_EPOCH,
        timeout: Some(Duration::from_secs(60)),
        rooms_at_order: 3,
        participants_at_order: 40,
    };
    assert_eq!(LifecycleRecord::decode(&order.encode()).unwrap(), order);
}

#[test]
fn the_stored_form_is_fixed() {
    // What is in a registry outlives the software that wrote it: a change of
    // this text needs a new version and a reader for the old one.
    assert_eq!(
        std::str::from_utf8(&plan().encode()).unwrap(),
        r#"{"version":1,"room_uid":"RM_1","epoch":18446744073709551615,"shards":[{"node_id":"sfu-1","shard":3}]}"#
    );
    let text = String::from_utf8(node().encode().to_vec()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"version":1,"node_id":"sfu-1","boot_id":"b1","incarnation":2,"#,
            r#""rpc_url":"http://10.0.0.7:7900","#,
            r#""shards":[{"udp":["192.0.2.1:7882","[2001:db8::1]:7882"],"tcp":["192.0.2.1:7881"]}],"#,
            r#""zone":"a","region":"eu","participant_capacity":500,"#,
            r#""relay_address":"192.0.2.1:7890","build":"0.1.0","#,
            r#""start_time_millis":1700000000123}"#
        )
    );
}

#[test]
fn what_the_first_release_wrote_is_read() {
    let text = br#"{"version":1,"node_id":"sfu-1","boot_id":"b1","incarnation":2,
        "rpc_url":"http://10.0.0.7:7900",
        "shards":[{"udp":["192.0.2.1:7882","[2001:db8::1]:7882"],"tcp":["192.0.2.1:7881"]}],
        "zone":"a","region":"eu","participant_capacity":500,"build":"0.1.0",
        "start_time_millis":1700000000123}"#;
    let first = NodeRecord { relay_address: None, ..node() };
    assert_eq!(NodeRecord::decode(text).unwrap(), first);
    let text = br#"{"version":1,"room_uid":"RM_1","epoch":18446744073709551615,
        "shards":[{"node_id":"sfu-1","shard":3}]}"#;
    assert_eq!(PlanRecord::decode(text).unwrap(), plan());
    let text = br#"{"version":1,"room_uid":"RM_1","epoch":9,"shards":[]}"#;
    assert!(PlanRecord::decode(text).unwrap().shards.is_empty());
    let text = br#"{"version":1,"node_id":"sfu-1","lifecycle":"DRAIN","ordered_by":"ops",
        "reason":"kernel","order_time_millis":5}"#;
    let order = LifecycleRecord::decode(text).unwrap();
    assert_eq!((order.lifecycle, order.timeout), (Lifecycle::Drain, None));
    assert_eq!((order.rooms_at_order, order.participants_at_order), (0, 0));
}

#[test]
fn a_node_without_relay_is_written_as_the_first_release_wrote_it() {
    let text = NodeRecord { relay_address: None, ..node() }.encode();
    assert!(!String::from_utf8(text.to_vec()).unwrap().contains("relay"));
}

#[test]
fn fields_of_a_later_minor_version_are_skipped_and_absent_ones_filled_in() {
    let text = br#"{"version":1,"node_id":"n","boot_id":"b","rpc_url":"u","shards":[],
        "start_time_millis":0,"colour":"blue"}"#;
    let record = NodeRecord::decode(text).unwrap();
    assert_eq!(record.zone, "");
    assert_eq!(record.incarnation, 0);
    assert_eq!(record.shard_count(), 0);
}

#[test]
fn a_newer_version_is_refused_by_name() {
    let text = br#"{"version":3,"everything":"else"}"#;
    let error = PlanRecord::decode(text).unwrap_err();
    assert!(matches!(error, RecordError::TooNew { found: 3, known: 2, .. }), "{error}");
    let text = br#"{"version":2,"everything":"else"}"#;
    let error = NodeRecord::decode(text).unwrap_err();
    assert!(matches!(error, RecordError::TooNew { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn ids_are_checked_when_they_are_read() {
    let text =
        br#"{"version":1,"room_uid":"RM_1","epoch":1,"shards":[{"node_id":"a/b","shard":0}]}"#;
    assert!(matches!(PlanRecord::decode(text), Err(RecordError::Malformed { .. })));
}

#[test]
fn a_room_is_not_logged_with_its_metadata() {
    assert!(!format!("{:?}", room()).contains("topic"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = NodeRecord::decode(&bytes);
        let _ = RoomRecord::decode(&bytes);
        let _ = PlanRecord::decode(&bytes);
        let _ = LifecycleRecord::decode(&bytes);
    }

    #[test]
    fn damaged_records_never_panic(at in 0usize..400, byte in any::<u8>()) {
        for encoded in [node().encode(), room().encode(), plan().encode()] {
            let mut bytes = encoded.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = NodeRecord::decode(&bytes);
            let _ = RoomRecord::decode(&bytes);
            let _ = PlanRecord::decode(&bytes);
        }
    }
}
