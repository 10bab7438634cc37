//! Datagrams that nobody should have sent: nothing panics, nothing is
//! disturbed, and nothing is said to strangers.

mod support;

use std::time::Duration;

use headwater_transport::{
    BindingRequest, ChannelReliability, MessageKind, Path, SrtpError, StunError, TransportEvent,
    classify,
};
use proptest::prelude::*;
use support::{
    Flying, Pair, Random, SETUP, Side, Weather, client_path, credentials, pattern, rtp,
    server_path, udp,
};

const SOON: Duration = Duration::from_secs(5);

fn stranger() -> Path {
    udp("203.0.113.66:6666")
}

fn check(ufrag: &str, pwd: &str, use_candidate: bool) -> Vec<u8> {
    BindingRequest {
        transaction: [3; 12],
        remote_ufrag: ufrag,
        local_ufrag: "clientFrag",
        remote_pwd: pwd,
        priority: 1,
        tie_breaker: 1,
        use_candidate,
    }
    .encode()
}

/// Everything a client sent on its way to a connection with data and media.
fn recorded() -> Vec<Flying> {
    let mut pair = Pair::connected();
    let id = pair
        .client
        .open_channel(pair.now, "x", ChannelReliability::RELIABLE)
        .expect("an open transport");
    pair.run_for(Duration::from_secs(1));
    pair.client.send_message(pair.now, id, MessageKind::Text, b"text").expect("an open transport");
    pair.send_rtp(Side::Client, &rtp(1, 1, &pattern(100)));
    pair.run_for(Duration::from_secs(1));
    pair.sent.into_iter().filter(|flying| flying.to == Side::Server).collect()
}

/// Media and a message still pass in both directions.
fn assert_alive(pair: &mut Pair) {
    let id = pair
        .client
        .open_channel(pair.now, "alive", ChannelReliability::RELIABLE)
        .expect("an open transport");
    pair.run_until(SOON, |pair| {
        pair.events_of(Side::Client).any(
            |event| matches!(event, TransportEvent::ChannelOpen { id: open, .. } if *open == id),
        )
    });
    pair.server.send_message(pair.now, id, MessageKind::Text, b"down").expect("an open transport");
    pair.client.send_message(pair.now, id, MessageKind::Text, b"up").expect("an open transport");
    pair.send_rtp(Side::Client, &rtp(77, 1, b"up"));
    pair.send_rtp(Side::Server, &rtp(77, 1, b"down"));
    pair.run_for(Duration::from_secs(3));
    for side in [Side::Server, Side::Client] {
        assert!(
            pair.events_of(side)
                .any(|event| matches!(event, TransportEvent::Message { id: on, .. } if *on == id))
        );
        assert!(
            pair.plain_rtp
                .iter()
                .any(|(to, packet)| *to == side && packet[8..12] == 77u32.to_be_bytes())
        );
    }
    assert!(
        !pair
            .events
            .iter()
            .any(|(_, event)| matches!(event, TransportEvent::Failed(_) | TransportEvent::Closed))
    );
}

#[test]
fn forged_stun_changes_nothing_and_gets_no_answer() {
    let mut pair = Pair::connected();
    let now = pair.now;
    let forged = [
        (check("serverFrag", "wrong password, long enough", true), StunError::NotAuthentic),
        (check("otherFrag", &credentials("server").pwd, true), StunError::UnknownUsername),
        (check("", &credentials("server").pwd, true), StunError::UnknownUsername),
    ];
    for (datagram, expected) in forged {
        assert_eq!(pair.server.handle_stun(now, stranger(), &datagram), Err(expected));
        assert!(pair.server.poll_output().is_none());
    }
    let answer =
        pair.sent.iter().find(|flying| flying.to == Side::Client).unwrap().datagram.clone();
    assert_eq!(pair.server.handle_stun(now, stranger(), &answer), Err(StunError::UnexpectedType));
    assert!(!pair.server.is_valid_path(stranger()));
    assert_eq!(pair.server.selected_path(), Some(client_path()));
    assert_eq!(pair.server.stats().stun_refused, 4);
    assert_alive(&mut pair);
}

#[test]
fn dtls_and_media_from_a_stranger_are_dropped() {
    for flying in recorded() {
        let mut pair = Pair::new(Weather::default());
        pair.deliver(&Flying { from: stranger(), ..flying.clone() });
        if classify(&flying.datagram) == headwater_transport::PacketClass::Dtls {
            assert_eq!(pair.server.stats().dtls_from_strangers, 1);
            assert!(pair.server.poll_output().is_none());
        }
    }
    let mut pair = Pair::connected();
    for flying in recorded() {
        if classify(&flying.datagram) == headwater_transport::PacketClass::Dtls {
            pair.deliver(&Flying { from: stranger(), ..flying });
        }
    }
    assert_alive(&mut pair);
}

#[test]
fn a_plain_alert_or_close_notify_ends_nothing() {
    let mut pair = Pair::new(Weather::default());
    let alerts = [[2u8, 40], [1, 0], [2, 80], [1, 90]];
    let mut sent = 0;
    while !pair.is_connected() {
        for alert in alerts {
            let mut record = vec![21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, sent, 0, 2];
            record.extend_from_slice(&alert);
            sent = sent.wrapping_add(1);
            pair.deliver(&Flying {
                to: Side::Server,
                from: client_path(),
                datagram: record.clone(),
            });
            pair.deliver(&Flying { to: Side::Client, from: server_path(), datagram: record });
        }
        pair.run_for(Duration::from_millis(5));
        assert!(pair.now < support::origin() + SOON, "{:?}", pair.events);
    }
    assert!(pair.server.stats().dtls_records_discarded > 0);
    assert_alive(&mut pair);
}

#[test]
fn forged_first_hellos_do_not_keep_the_client_out() {
    let mut pair = Pair::new(Weather::default());
    let hello = recorded().into_iter().find(|flying| flying.datagram[0] == 22).unwrap();
    let mut random = Random(1);
    let mut forged = 0u32;
    while !pair.is_connected() {
        // A hello with another random, from a spoofed source on the same path.
        let mut datagram = hello.datagram.clone();
        datagram[27..59].fill_with(|| random.next() as u8);
        pair.deliver(&Flying { datagram, ..hello.clone() });
        forged += 1;
        pair.run_for(Duration::from_millis(12));
        assert!(pair.now < support::origin() + SETUP, "{forged} forged; {:?}", pair.events);
    }
    assert_alive(&mut pair);
}

#[test]
fn a_handshake_message_in_one_byte_pieces_is_taken_or_dropped_in_bounds() {
    let mut pair = Pair::new(Weather::default());
    pair.run_until(SOON, |pair| pair.server.selected_path().is_some());
    for offset in 0..20_000u32 {
        let mut record =
            vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, (offset >> 8) as u8, offset as u8, 0, 13];
        record.extend_from_slice(&[11, 0, 0x40, 0, 0, 2, 0]);
        record.extend_from_slice(&(offset * 2 % 0x4000).to_be_bytes()[2..]);
        record.extend_from_slice(&[0, 0, 1, 7]);
        pair.deliver(&Flying { to: Side::Server, from: client_path(), datagram: record });
    }
    pair.run_until(SETUP, Pair::is_connected);
    assert_alive(&mut pair);
}

#[test]
fn repeated_handshake_datagrams_after_the_fact_are_harmless() {
    let mut pair = Pair::connected();
    let handshake: Vec<_> = pair.sent.clone();
    for _ in 0..200 {
        for flying in &handshake {
            pair.deliver(flying);
        }
        pair.now += Duration::from_millis(50);
        pair.collect();
    }
    let answered = pair.sent.len() - handshake.len();
    assert!(answered < 200 * 2 + 200, "answers are bounded: {answered}");
    assert_alive(&mut pair);
}

#[test]
fn a_replayed_or_tampered_media_packet_is_refused() {
    let mut pair = Pair::connected();
    pair.send_rtp(Side::Client, &rtp(9, 5, &pattern(200)));
    let packet = pair.sent.last().unwrap().datagram.clone();
    pair.run_for(Duration::from_millis(50));
    assert_eq!(pair.plain_rtp.len(), 1);
    let now = pair.now;
    assert_eq!(pair.server.unprotect_rtp(now, &mut packet.clone()), Err(SrtpError::Replayed));
    let mut tampered = packet;
    tampered[2] ^= 1;
    assert_eq!(pair.server.unprotect_rtp(now, &mut tampered), Err(SrtpError::NotAuthentic));
}

/// A datagram that a real one turned into.
fn mangle(random: &mut Random, datagram: &[u8]) -> Vec<u8> {
    let mut mangled = datagram.to_vec();
    match random.below(5) {
        0 => mangled.truncate(random.below(datagram.len() as u64) as usize),
        1 => {
            for _ in 0..=random.below(4) {
                let at = random.below(mangled.len() as u64) as usize;
                mangled[at] = random.next() as u8;
            }
        }
        2 => mangled.extend((0..random.below(60)).map(|_| random.next() as u8)),
        3 => mangled.iter_mut().skip(13).for_each(|byte| *byte = random.next() as u8),
        _ => mangled.iter_mut().for_each(|byte| *byte = random.next() as u8),
    }
    mangled
}

#[test]
fn mangled_copies_from_a_valid_path_do_not_disturb_the_connection() {
    for seed in 0..40 {
        let mut random = Random(seed + 1000);
        let mut pair = Pair::new(Weather { seed, ..Weather::default() });
        let (mut mangled, mut arrived) = (0, 0);
        while !pair.is_connected() {
            pair.run_for(Duration::from_millis(11));
            // What was sent a round ago has arrived; now come copies of what it
            // could have been.
            let sent: Vec<_> = pair.sent[mangled..arrived].to_vec();
            (mangled, arrived) = (arrived, pair.sent.len());
            for flying in sent.iter().filter(|flying| {
                classify(&flying.datagram) == headwater_transport::PacketClass::Dtls
            }) {
                if pair.side(flying.to).is_valid_path(flying.from) {
                    let datagram = mangle(&mut random, &flying.datagram);
                    pair.deliver(&Flying { datagram, ..flying.clone() });
                }
            }
            assert!(pair.now < support::origin() + SETUP, "seed {seed}: {:?}", pair.events);
        }
        let sent = pair.sent.clone();
        for _ in 0..20 {
            for flying in &sent {
                let datagram = mangle(&mut random, &flying.datagram);
                pair.deliver(&Flying { datagram, ..flying.clone() });
            }
        }
        assert_alive(&mut pair);
    }
}

proptest! {
    #[test]
    fn arbitrary_datagrams_never_panic_at_any_stage(
        stage in 0u64..200,
        datagrams in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200), 0u8..4), 1..20),
    ) {
        let mut pair = Pair::new(Weather::default());
        pair.run_for(Duration::from_millis(stage));
        for (to_server, mut datagram, shape) in datagrams {
            if let Some(first) = datagram.first_mut() {
                *first = [22, 20, 23, 0x80][usize::from(shape)];
            }
            if datagram.len() > 13 && shape < 3 {
                let length = datagram.len() as u16 - 13;
                datagram[1..3].copy_from_slice(&[0xfe, 0xfd]);
                datagram[3] = 0;
                datagram[4] &= 1;
                datagram[11..13].copy_from_slice(&length.to_be_bytes());
            }
            let flying = if to_server {
                Flying { to: Side::Server, from: client_path(), datagram }
            } else {
                Flying { to: Side::Client, from: server_path(), datagram }
            };
            pair.deliver(&flying);
            pair.collect();
        }
        pair.run_for(Duration::from_secs(20));
    }
}

/// A plain handshake message with a body of the test's choice.
fn message(kind: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let mut record = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1];
    record.extend_from_slice(&(body.len() as u16 + 12).to_be_bytes());
    record.push(kind);
    record.extend_from_slice(&length[1..]);
    record.extend_from_slice(&sequence.to_be_bytes());
    record.extend_from_slice(&[0; 3]);
    record.extend_from_slice(&length[1..]);
    record.extend_from_slice(body);
    record
}

/// Bodies of all plain handshake messages of a real connection.
fn real_messages() -> Vec<(u8, Vec<u8>)> {
    let sent = Pair::connected().sent;
    let datagrams = sent.iter().filter(|flying| flying.datagram[0] == 22);
    let pieces = datagrams.flat_map(|flying| support::cut_handshake(&flying.datagram, 1 << 16));
    let plain = pieces.filter(|piece| piece[0] == 22 && piece[4] == 0);
    plain.map(|piece| (piece[13], piece[25..].to_vec())).collect()
}

proptest! {
    #[test]
    fn whole_handshake_messages_of_any_content_never_panic(
        stage in 0u64..60,
        messages in prop::collection::vec(
            (any::<bool>(), any::<u8>(), 0u16..8, prop::collection::vec((any::<u16>(), any::<u8>()), 0..6), prop::option::of(prop::collection::vec(any::<u8>(), 0..80))),
            1..12,
        ),
    ) {
        let real = real_messages();
        let mut pair = Pair::new(Weather::default());
        pair.run_for(Duration::from_millis(stage));
        for (to_server, which, sequence, edits, replacement) in messages {
            let (kind, mut body) = real[usize::from(which) % real.len()].clone();
            for (at, value) in edits {
                let length = body.len().max(1);
                if let Some(byte) = body.get_mut(usize::from(at) % length) {
                    *byte = value;
                }
            }
            let datagram = message(kind, sequence, &replacement.unwrap_or(body));
            let (to, from) = if to_server { (Side::Server, client_path()) } else { (Side::Client, server_path()) };
            pair.deliver(&Flying { to, from, datagram });
            pair.collect();
        }
        pair.run_for(Duration::from_secs(1));
        prop_assert_eq!(pair.server.stats().library_panics + pair.client.stats().library_panics, 0);
    }
}
