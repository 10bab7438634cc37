//! Data channels between a server's and a client's transport.

mod support;

use std::time::Duration;

use headwater_transport::{
    CHANNELS_MAX, ChannelId, ChannelReliability, MESSAGE_MAX, MessageKind, OpenChannelError,
    RemoteParameters, Retransmission, SendError, TransportEvent,
};
use support::{Pair, Random, Side, Weather, pattern};

const SOON: Duration = Duration::from_secs(5);

fn opened(pair: &Pair, side: Side, label: &str) -> Option<ChannelId> {
    pair.events_of(side).find_map(|event| match event {
        TransportEvent::ChannelOpen { id, label: name, .. } if name == label => Some(*id),
        _ => None,
    })
}

fn messages(pair: &Pair, side: Side) -> Vec<(ChannelId, MessageKind, Vec<u8>)> {
    pair.events_of(side)
        .filter_map(|event| match event {
            TransportEvent::Message { id, kind, data } => Some((*id, *kind, data.clone())),
            _ => None,
        })
        .collect()
}

/// Opens a channel from one side and waits until both have it.
fn open(pair: &mut Pair, from: Side, label: &str, reliability: ChannelReliability) -> ChannelId {
    let now = pair.now;
    let id = pair.side(from).open_channel(now, label, reliability).expect("an open transport");
    pair.run_until(Duration::from_secs(60), |pair| {
        [Side::Server, Side::Client].iter().all(|side| opened(pair, *side, label) == Some(id))
    });
    id
}

fn send(
    pair: &mut Pair,
    from: Side,
    id: ChannelId,
    kind: MessageKind,
    data: &[u8],
) -> Result<(), SendError> {
    let now = pair.now;
    pair.side(from).send_message(now, id, kind, data)
}

#[test]
fn either_side_opens_channels_with_ids_of_its_parity() {
    let mut pair = Pair::connected();
    let by_client = open(&mut pair, Side::Client, "from the client", ChannelReliability::RELIABLE);
    let by_server = open(&mut pair, Side::Server, "from the server", ChannelReliability::LOSSY);
    assert_eq!((by_client.0 % 2, by_server.0 % 2), (0, 1));
    let at_client = pair
        .events_of(Side::Client)
        .find(|event| matches!(event, TransportEvent::ChannelOpen { id, .. } if *id == by_server));
    let expected = TransportEvent::ChannelOpen {
        id: by_server,
        label: "from the server".into(),
        reliability: ChannelReliability::LOSSY,
        negotiated_by_us: false,
    };
    assert_eq!(at_client, Some(&expected));
}

#[test]
fn channels_asked_for_before_the_connection_open_with_it() {
    let mut pair = Pair::new(Weather::default());
    let limited = ChannelReliability {
        ordered: true,
        retransmission: Retransmission::For(Duration::from_millis(250)),
    };
    let id = pair.server.open_channel(pair.now, "early", limited).unwrap();
    assert_eq!(
        pair.server.send_message(pair.now, id, MessageKind::Text, b"x"),
        Err(SendError::NotOpen)
    );
    pair.run_until(SOON, |pair| opened(pair, Side::Client, "early").is_some());
    assert!(pair.events_of(Side::Client).any(|event| {
        matches!(event, TransportEvent::ChannelOpen { reliability, .. } if *reliability == limited)
    }));
}

#[test]
fn messages_of_every_size_arrive_both_ways() {
    let mut pair = Pair::connected();
    let id = open(&mut pair, Side::Client, "sizes", ChannelReliability::RELIABLE);
    let sizes = [0, 1, 1000, 16 * 1024, 65_535, MESSAGE_MAX];
    for from in [Side::Client, Side::Server] {
        for size in sizes {
            for kind in [MessageKind::Text, MessageKind::Binary] {
                send(&mut pair, from, id, kind, &pattern(size)).unwrap();
                let before = messages(&pair, from.other()).len();
                pair.run_until(SOON, |pair| messages(pair, from.other()).len() > before);
                assert_eq!(messages(&pair, from.other()).pop(), Some((id, kind, pattern(size))));
            }
        }
    }
}

#[test]
fn reliable_messages_survive_loss_repetition_and_reordering() {
    for seed in 0..8 {
        let weather = Weather { seed, lost: 5, repeated: 10, jitter: Duration::from_millis(30) };
        let mut pair = Pair::new(weather);
        pair.run_until(Duration::from_secs(15), Pair::is_connected);
        let ordered = open(&mut pair, Side::Client, "ordered", ChannelReliability::RELIABLE);
        let unordered =
            ChannelReliability { ordered: false, retransmission: Retransmission::Unlimited };
        let unordered = open(&mut pair, Side::Server, "unordered", unordered);
        let sizes = [0, 1, 16 * 1024, MESSAGE_MAX, 300];
        for from in [Side::Client, Side::Server] {
            for size in sizes {
                send(&mut pair, from, ordered, MessageKind::Binary, &pattern(size)).unwrap();
            }
            send(&mut pair, from, unordered, MessageKind::Binary, &pattern(20_000)).unwrap();
        }
        let limit = Duration::from_secs(120);
        pair.run_until(limit, |pair| {
            [Side::Server, Side::Client].iter().all(|side| messages(pair, *side).len() == 6)
        });
        for side in [Side::Server, Side::Client] {
            let received = messages(&pair, side);
            let in_order: Vec<_> = received
                .iter()
                .filter(|(id, ..)| *id == ordered)
                .map(|(_, _, data)| data.len())
                .collect();
            assert_eq!(in_order, sizes, "seed {seed}");
            assert!(
                received.iter().all(|(_, _, data)| *data == pattern(data.len())),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn lossy_messages_are_sent_once_and_the_rest_goes_on() {
    let mut pair = Pair::connected();
    let lossy = open(&mut pair, Side::Server, "_lossy", ChannelReliability::LOSSY);
    let reliable = open(&mut pair, Side::Server, "_reliable", ChannelReliability::RELIABLE);
    pair.weather = Weather { seed: 3, lost: 30, ..Weather::default() };
    for number in 0..200u32 {
        send(&mut pair, Side::Server, lossy, MessageKind::Binary, &number.to_be_bytes()).unwrap();
        pair.run_for(Duration::from_millis(20));
    }
    send(&mut pair, Side::Server, reliable, MessageKind::Binary, b"done").unwrap();
    pair.run_for(Duration::from_secs(30));
    let received = messages(&pair, Side::Client);
    let lossy_count = received.iter().filter(|(id, ..)| *id == lossy).count();
    assert!((80..190).contains(&lossy_count), "{lossy_count} of 200 at 30 % loss");
    assert!(received.contains(&(reliable, MessageKind::Binary, b"done".to_vec())));
    pair.weather = Weather::default();
    for number in 0..2000u32 {
        send(&mut pair, Side::Server, lossy, MessageKind::Binary, &number.to_be_bytes()).unwrap();
        pair.run_for(Duration::from_millis(5));
    }
    pair.run_for(Duration::from_secs(1));
    let later = messages(&pair, Side::Client).len() - received.len();
    assert_eq!(later, 2000, "nothing is left of the losses");
}

#[test]
fn preset_channels_need_no_announcement() {
    let mut pair = Pair::connected();
    let id = ChannelId(100);
    for side in [Side::Server, Side::Client] {
        let now = pair.now;
        assert_eq!(
            pair.side(side).open_negotiated_channel(
                now,
                id,
                "preset",
                ChannelReliability::RELIABLE
            ),
            Ok(id)
        );
    }
    pair.run_until(SOON, |pair| {
        opened(pair, Side::Server, "preset").is_some()
            && opened(pair, Side::Client, "preset").is_some()
    });
    send(&mut pair, Side::Client, id, MessageKind::Text, b"hello").unwrap();
    pair.run_until(SOON, |pair| messages(pair, Side::Server).len() == 1);
    let taken =
        pair.server.open_negotiated_channel(pair.now, id, "again", ChannelReliability::RELIABLE);
    assert_eq!(taken, Err(OpenChannelError::IdUnavailable));
}

#[test]
fn closing_a_channel_closes_it_at_both_ends() {
    let mut pair = Pair::connected();
    let kept = open(&mut pair, Side::Client, "kept", ChannelReliability::RELIABLE);
    for from in [Side::Client, Side::Server] {
        let id =
            open(&mut pair, from, &format!("closed by {from:?}"), ChannelReliability::RELIABLE);
        send(&mut pair, from, id, MessageKind::Text, b"last words").unwrap();
        let now = pair.now;
        pair.side(from).close_channel(now, id);
        pair.run_for(Duration::from_secs(2));
        for side in [Side::Server, Side::Client] {
            let closed = pair
                .events_of(side)
                .filter(|event| **event == TransportEvent::ChannelClosed { id })
                .count();
            assert_eq!(closed, 1, "{side:?}");
        }
        assert!(messages(&pair, from.other()).contains(&(
            id,
            MessageKind::Text,
            b"last words".to_vec()
        )));
        assert_eq!(
            send(&mut pair, from, id, MessageKind::Text, b"x"),
            Err(SendError::UnknownChannel)
        );
        assert_eq!(
            send(&mut pair, from.other(), id, MessageKind::Text, b"x"),
            Err(SendError::UnknownChannel)
        );
    }
    send(&mut pair, Side::Server, kept, MessageKind::Text, b"still here").unwrap();
    pair.run_until(SOON, |pair| messages(pair, Side::Client).iter().any(|(id, ..)| *id == kept));
}

#[test]
fn the_buffer_is_bounded_and_drains() {
    let mut pair = Pair::connected();
    let id = open(&mut pair, Side::Server, "full", ChannelReliability::RELIABLE);
    let mut accepted = 0;
    let refused = loop {
        match send(&mut pair, Side::Server, id, MessageKind::Binary, &pattern(100_000)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused, accepted), (SendError::Full, 10), "1 MiB by default");
    pair.run_until(Duration::from_secs(60), |pair| messages(pair, Side::Client).len() == 10);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(send(&mut pair, Side::Server, id, MessageKind::Binary, &pattern(100_000)), Ok(()));
}

#[test]
fn the_peers_message_limit_is_kept() {
    let mut pair = Pair::connected();
    let id = open(&mut pair, Side::Server, "limit", ChannelReliability::RELIABLE);
    for (announced, max) in
        [(Some(1000), 1000), (None, 65_536), (Some(0), MESSAGE_MAX), (Some(1 << 40), MESSAGE_MAX)]
    {
        let remote = RemoteParameters { max_message_size: announced, ..pair.server_remote.clone() };
        pair.server.set_remote(pair.now, remote).unwrap();
        let too_large = send(&mut pair, Side::Server, id, MessageKind::Text, &pattern(max + 1));
        assert_eq!(too_large, Err(SendError::TooLarge { max }));
        assert_eq!(send(&mut pair, Side::Server, id, MessageKind::Text, &pattern(max)), Ok(()));
    }
}

#[test]
fn channels_and_labels_are_bounded() {
    let mut pair = Pair::connected();
    let now = pair.now;
    let long = "x".repeat(headwater_transport::LABEL_MAX + 1);
    assert_eq!(
        pair.server.open_channel(now, &long, ChannelReliability::RELIABLE),
        Err(OpenChannelError::LabelTooLong)
    );
    for _ in 0..CHANNELS_MAX {
        pair.server.open_channel(now, "many", ChannelReliability::RELIABLE).unwrap();
    }
    assert_eq!(
        pair.server.open_channel(now, "one more", ChannelReliability::RELIABLE),
        Err(OpenChannelError::TooMany)
    );
    pair.run_until(SOON, |pair| {
        pair.events_of(Side::Client)
            .filter(|event| matches!(event, TransportEvent::ChannelOpen { .. }))
            .count()
            == CHANNELS_MAX
    });
    pair.server.close(now);
    assert_eq!(
        pair.server.open_channel(now, "late", ChannelReliability::RELIABLE),
        Err(OpenChannelError::Closed)
    );
}

#[test]
fn many_channels_come_and_go() {
    let mut pair = Pair::connected();
    let mut random = Random(5);
    for round in 0..120 {
        let from = if random.below(2) == 0 { Side::Server } else { Side::Client };
        let id = open(&mut pair, from, &format!("round {round}"), ChannelReliability::RELIABLE);
        send(&mut pair, from, id, MessageKind::Binary, &pattern(round)).unwrap();
        pair.run_for(Duration::from_millis(200));
        let now = pair.now;
        pair.side(from).close_channel(now, id);
        pair.run_for(Duration::from_millis(400));
    }
    assert_eq!(messages(&pair, Side::Server).len() + messages(&pair, Side::Client).len(), 120);
}
