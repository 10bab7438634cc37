//! Data messages and frames of a client, sent into a room with a second
//! participant: nothing panics, and what comes out is a packet again.

#![no_main]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_model::media::TransportKey;
use headwater_model::{Epoch, Identity, Permission, RoomId, RoomUid};
use headwater_room::{
    ChannelKey, ChannelReliability, Command, JoinRequest, Limits, MediaCommand, MediaEvent, Output,
    PublishDataTrack, RoomProperties, Rooms, RoomsConfig, SessionKey, Timers, TransportMode,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (channel, payload) = input;
    let now = Instant::now();
    let config = RoomsConfig {
        candidates: Vec::new(),
        fingerprint: ["AB"; 32].join(":"),
        limits: Limits::default(),
        timers: Timers::default(),
    };
    let mut rooms = Rooms::new(config, [1; 32], now);
    let mut transports = Vec::new();
    for (number, name) in [(1, "ada"), (2, "bob")] {
        rooms.join(now, SessionKey(number), join(name));
        transports.extend(opened(&mut rooms));
    }
    for transport in &transports {
        open_channels(&mut rooms, now, *transport);
    }
    let publish = PublishDataTrack {
        handle: 1,
        display_name: "frames".to_owned(),
        door_payload: (&b""[..]).into(),
    };
    rooms.handle_command(now, SessionKey(1), Command::PublishDataTrack(publish));
    while rooms.poll_output().is_some() {}
    let channel = ChannelKey(u32::from(channel % 4));
    let transport = transports[0];
    for (to, payload) in passed_on(&mut rooms, now, transport, channel, payload) {
        // Passed on, it is read like any other.
        let _ = passed_on(&mut rooms, now, to, ChannelKey(1), payload);
    }
});

/// Sends a message and tells who gets what.
fn passed_on(
    rooms: &mut Rooms,
    now: Instant,
    transport: TransportKey,
    channel: ChannelKey,
    payload: Vec<u8>,
) -> Vec<(TransportKey, Vec<u8>)> {
    rooms.handle_media(now, MediaEvent::ChannelMessage { transport, channel, payload });
    let mut sent = Vec::new();
    while let Some(output) = rooms.poll_output() {
        if let Output::Media(MediaCommand::Send { transport: to, payload, .. }) = output {
            assert_ne!(to, transport, "nobody gets its own");
            sent.push((to, payload.to_vec()));
        }
    }
    sent
}

fn join(name: &str) -> JoinRequest {
    JoinRequest {
        room: RoomId::new("room").expect("a name"),
        epoch: Epoch(1),
        identity: Identity::new(name).expect("a name"),
        display_name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permission: Permission::default(),
        door_payload: (&b""[..]).into(),
        auto_subscribe: true,
        adaptive_stream: false,
        transport_mode: TransportMode::Dual,
        resume: None,
        uncounted: false,
        protocols: Vec::new(),
        properties: Some(RoomProperties {
            uid: RoomUid::from_raw("RM_1"),
            metadata: String::new(),
            max_participants: 0,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            create_millis: 0,
            etag: String::new(),
        }),
        publish_codecs: Vec::new(),
        join_millis: 0,
    }
}

fn opened(rooms: &mut Rooms) -> Vec<TransportKey> {
    std::iter::from_fn(|| rooms.poll_output())
        .filter_map(|output| match output {
            Output::Media(MediaCommand::OpenTransport { transport, .. }) => Some(transport),
            _ => None,
        })
        .collect()
}

fn open_channels(rooms: &mut Rooms, now: Instant, transport: TransportKey) {
    let labels = ["own", "_reliable", "_lossy", "_data_track"];
    for (number, label) in (0..).zip(labels) {
        rooms.handle_media(now, MediaEvent::ChannelOpen {
            transport,
            channel: ChannelKey(number),
            label: label.to_owned(),
            reliability: ChannelReliability::Reliable,
        });
    }
}
