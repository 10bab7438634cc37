//! A server's transport against a client's: set-up, media, restarts and ends.

mod support;

use std::time::Duration;

use headwater_transport::{
    CONSENT_EXPIRY, FailReason, RemoteError, RemoteParameters, SETUP_TIMEOUT, SrtpError,
    SrtpPreference, SrtpProfile, TransportEvent,
};
use support::{
    Pair, Side, Weather, client_path, credentials, identity, pattern, rtp, server_path, udp,
};

const SOON: Duration = Duration::from_secs(5);

fn profile_of(pair: &Pair, side: Side) -> Option<SrtpProfile> {
    pair.events_of(side).find_map(|event| match event {
        TransportEvent::Connected { profile, .. } => Some(*profile),
        _ => None,
    })
}

fn agreed(server: SrtpPreference, client: SrtpPreference) -> Option<SrtpProfile> {
    let mut pair = Pair::with_configs(
        Weather::default(),
        |config| config.srtp = server,
        |config| config.srtp = client,
    );
    pair.run_for(SOON);
    assert_eq!(profile_of(&pair, Side::Server), profile_of(&pair, Side::Client));
    profile_of(&pair, Side::Server)
}

#[test]
fn a_transport_may_move_to_another_thread() {
    fn assert_send<T: Send>() {}
    assert_send::<headwater_transport::Transport>();
    assert_send::<headwater_transport::SrtpSession>();
}

#[test]
fn a_client_connects_and_both_select_the_path() {
    let pair = Pair::connected();
    assert_eq!(pair.server.selected_path(), Some(client_path()));
    assert_eq!(pair.client.selected_path(), Some(server_path()));
    assert_eq!(
        pair.events_of(Side::Server).next(),
        Some(&TransportEvent::PathSelected(client_path()))
    );
}

#[test]
fn gcm_is_agreed_on_whenever_the_client_offers_it() {
    use SrtpPreference::{CmOnly, GcmOnly, GcmPreferred};
    assert_eq!(agreed(GcmPreferred, GcmPreferred), Some(SrtpProfile::AeadAes128Gcm));
    assert_eq!(agreed(GcmPreferred, GcmOnly), Some(SrtpProfile::AeadAes128Gcm));
    assert_eq!(agreed(GcmPreferred, CmOnly), Some(SrtpProfile::AesCm128HmacSha1_80));
    assert_eq!(agreed(CmOnly, GcmPreferred), Some(SrtpProfile::AesCm128HmacSha1_80));
    assert_eq!(agreed(GcmOnly, CmOnly), None);
}

#[test]
fn a_client_without_a_common_profile_times_out_with_the_reason() {
    let mut pair = Pair::with_configs(
        Weather::default(),
        |config| config.srtp = SrtpPreference::GcmOnly,
        |config| config.srtp = SrtpPreference::CmOnly,
    );
    pair.run_for(SETUP_TIMEOUT + SOON);
    let reason = pair.events_of(Side::Server).find_map(|event| match event {
        TransportEvent::Failed(reason) => Some(*reason),
        _ => None,
    });
    let problem = headwater_transport::DtlsProblem::NoCommonProfile;
    assert_eq!(reason, Some(FailReason::SetupTimeout(Some(problem))));
}

#[test]
fn connections_survive_loss_repetition_and_reordering() {
    for seed in 0..60 {
        let weather = Weather { seed, lost: 10, repeated: 15, jitter: Duration::from_millis(40) };
        let mut pair = Pair::new(weather);
        pair.run_until(SETUP_TIMEOUT, Pair::is_connected);
    }
}

#[test]
fn a_handshake_in_fragments_out_of_order_and_twice_connects() {
    for length in [1, 7, 60, 120] {
        let mut pair = Pair::new(Weather { seed: 1, repeated: 50, ..Weather::default() });
        pair.fragment = Some(length);
        pair.run_until(SOON, Pair::is_connected);
    }
}

#[test]
fn media_flows_both_ways_in_every_profile() {
    for preference in [SrtpPreference::GcmPreferred, SrtpPreference::CmOnly] {
        let mut pair =
            Pair::with_configs(Weather::default(), |config| config.srtp = preference, |_| {});
        pair.run_until(SOON, Pair::is_connected);
        let sent: Vec<_> = (0..72)
            .map(|sequence| rtp(0x1234, 65_500u16.wrapping_add(sequence), &pattern(1000)))
            .collect();
        for packet in sent.iter().take(72) {
            pair.send_rtp(Side::Client, packet);
            pair.send_rtp(Side::Server, packet);
        }
        pair.run_for(Duration::from_secs(1));
        for side in [Side::Server, Side::Client] {
            let received: Vec<_> = pair
                .plain_rtp
                .iter()
                .filter(|(to, _)| *to == side)
                .map(|(_, packet)| packet)
                .collect();
            assert!(received.iter().copied().eq(sent.iter().take(72)));
        }
    }
}

#[test]
fn packets_are_refused_before_the_keys_are_there() {
    let mut pair = Pair::new(Weather::default());
    let mut packet = rtp(1, 1, &[0; 100]);
    assert_eq!(pair.server.unprotect_rtp(pair.now, &mut packet), Err(SrtpError::NotConnected));
    assert_eq!(pair.server.protect_rtp(&mut packet, 12, 50), Err(SrtpError::NotConnected));
}

#[test]
fn keys_are_used_only_after_the_fingerprint_is_signalled() {
    let mut pair = Pair::without_signalling(Weather::default(), |_| {}, |_| {});
    let remote = pair.client_remote.clone();
    pair.client.set_remote(pair.now, remote).unwrap();
    pair.client.set_remote_candidate(pair.now, server_path());
    pair.run_for(Duration::from_millis(500));
    assert!(profile_of(&pair, Side::Client).is_some());
    assert!(
        profile_of(&pair, Side::Server).is_none(),
        "the handshake is done, the certificate is not known"
    );
    let remote = pair.server_remote.clone();
    pair.server.set_remote(pair.now, remote).unwrap();
    pair.run_until(SOON, Pair::is_connected);
    let id = pair
        .client
        .open_channel(pair.now, "x", headwater_transport::ChannelReliability::RELIABLE)
        .unwrap();
    pair.run_until(Duration::from_millis(500), |pair| {
        pair.events_of(Side::Client).any(
            |event| matches!(event, TransportEvent::ChannelOpen { id: open, .. } if *open == id),
        )
    });
}

#[test]
fn a_certificate_that_was_not_signalled_fails_the_transport() {
    let mut pair = Pair::without_signalling(Weather::default(), |_| {}, |_| {});
    let wrong = RemoteParameters {
        fingerprint_sha256: identity().fingerprint().to_owned(),
        ..pair.server_remote.clone()
    };
    pair.server.set_remote(pair.now, wrong).unwrap();
    let remote = pair.client_remote.clone();
    pair.client.set_remote(pair.now, remote).unwrap();
    pair.client.set_remote_candidate(pair.now, server_path());
    pair.run_for(SOON);
    let failed = TransportEvent::Failed(FailReason::FingerprintMismatch);
    assert!(pair.events_of(Side::Server).any(|event| *event == failed));
    assert!(profile_of(&pair, Side::Server).is_none());
    assert!(pair.events_of(Side::Client).any(|event| *event == TransportEvent::Closed));
    let mut packet = rtp(1, 1, &[0; 100]);
    assert_eq!(pair.server.protect_rtp(&mut packet, 12, 50), Err(SrtpError::NotConnected));
}

#[test]
fn a_fingerprint_does_not_change_on_a_live_transport() {
    let mut pair = Pair::connected();
    let changed = RemoteParameters {
        fingerprint_sha256: identity().fingerprint().to_owned(),
        ..pair.server_remote.clone()
    };
    assert_eq!(pair.server.set_remote(pair.now, changed), Err(RemoteError::FingerprintChanged));
    let same = pair.server_remote.clone();
    assert_eq!(pair.server.set_remote(pair.now, same), Ok(()));
}

#[test]
fn closing_tells_the_peer_and_ends_both() {
    let mut pair = Pair::connected();
    pair.client.close(pair.now);
    pair.run_for(Duration::from_secs(1));
    assert!(pair.events_of(Side::Server).any(|event| *event == TransportEvent::Closed));
    assert!(pair.events_of(Side::Client).all(|event| *event != TransportEvent::Closed));
    assert_eq!((pair.server.poll_timeout(), pair.client.poll_timeout()), (None, None));
    let now = pair.now;
    let replay = pair.sent.clone();
    for flying in &replay {
        pair.deliver(flying);
    }
    pair.collect();
    assert_eq!(pair.now, now);
    let ends = pair
        .events_of(Side::Server)
        .filter(|event| matches!(event, TransportEvent::Closed | TransportEvent::Failed(_)));
    assert_eq!(ends.count(), 1, "an ended transport stays ended");
}

#[test]
fn a_half_open_transport_fails_after_the_set_up_time() {
    let mut pair = Pair::new(Weather::default());
    pair.run_until(SOON, |pair| pair.server.selected_path().is_some());
    let started = pair.now;
    pair.weather.lost = 100;
    pair.run_until(SETUP_TIMEOUT + SOON, |pair| {
        pair.events_of(Side::Server).any(|event| matches!(event, TransportEvent::Failed(_)))
    });
    assert_eq!(pair.now, started + SETUP_TIMEOUT);
}

#[test]
fn a_silent_peer_loses_consent_after_thirty_seconds() {
    let mut pair = Pair::connected();
    pair.run_for(Duration::from_secs(120));
    assert!(
        !pair.events.iter().any(|(_, event)| matches!(event, TransportEvent::Failed(_))),
        "consent is kept"
    );
    pair.weather.lost = 100;
    pair.run_for(CONSENT_EXPIRY + Duration::from_secs(1));
    let failed = TransportEvent::Failed(FailReason::ConsentExpired);
    assert!(pair.events_of(Side::Server).any(|event| *event == failed));
    assert!(pair.events_of(Side::Client).any(|event| *event == failed));
}

#[test]
fn an_ice_restart_keeps_the_session() {
    let mut pair = Pair::connected();
    pair.server.restart_ice(pair.now, credentials("again"));
    assert_eq!(pair.server.local_ufrags().collect::<Vec<_>>(), ["serverFrag", "againFrag"]);
    pair.run_for(Duration::from_secs(40));
    assert_eq!(pair.server.local_ufrags().count(), 2, "the old credentials are in use");
    let remote = RemoteParameters {
        ufrag: "againFrag".into(),
        pwd: credentials("again").pwd,
        ..pair.client_remote.clone()
    };
    pair.client.restart_ice(pair.now, credentials("clientAgain"));
    pair.client.set_remote(pair.now, remote).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.server.local_ufrags().collect::<Vec<_>>(), ["againFrag"]);
    pair.send_rtp(Side::Client, &rtp(5, 1, b"after the restart"));
    pair.run_for(Duration::from_secs(40));
    assert_eq!(pair.plain_rtp.len(), 1);
    assert!(!pair.events.iter().any(|(_, event)| matches!(event, TransportEvent::Failed(_))));
}

#[test]
fn a_tcp_path_is_like_any_other() {
    let mut pair = Pair::connected();
    let tcp =
        headwater_transport::Path { protocol: headwater_transport::Protocol::Tcp, ..client_path() };
    assert!(!pair.server.is_valid_path(tcp));
    let check = pair.sent.iter().find(|flying| flying.to == Side::Server).unwrap().datagram.clone();
    pair.server.handle_stun(pair.now, tcp, &check).unwrap();
    assert_eq!(pair.server.selected_path(), Some(tcp), "the latest nomination");
    assert!(pair.server.is_valid_path(client_path()) && pair.server.is_valid_path(tcp));
    assert!(!pair.server.is_valid_path(udp("203.0.113.9:1")));
}
