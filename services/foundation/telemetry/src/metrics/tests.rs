//! What every metric must have: a help text, a unit, a closed set of labels.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;

use super::*;

/// Gauges that count things have no unit: what they count is their name.
const COUNTED: [&str; 17] = [
    "headwater_agent_streams",
    "headwater_build_info",
    "headwater_cluster_nodes",
    "headwater_cluster_participants",
    "headwater_cluster_rooms",
    "headwater_relay_links",
    "headwater_elected",
    "headwater_node_state",
    "headwater_participants",
    "headwater_rooms",
    "headwater_session_streams",
    "headwater_signal_connections",
    "headwater_subscriptions",
    "headwater_tasks",
    "headwater_tracks",
    "headwater_transports",
    "process_threads",
];

fn all_groups() -> Metrics {
    let metrics = Metrics::new();
    let _ = (metrics.shared(), metrics.control_plane(), metrics.gateway(), metrics.node());
    metrics
}

/// Families of a scrape: type and help by name, and how many series each has.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    help: BTreeMap<String, String>,
    series: usize,
}

fn scrape(metrics: &Metrics) -> Scrape {
    let mut scrape = Scrape::default();
    for line in metrics.render().unwrap().lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                let before = scrape.help.insert(name.to_owned(), help.to_owned());
                assert_eq!(before, None, "{name} is shown twice");
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                scrape.types.insert(name.to_owned(), kind.to_owned());
            }
            _ => scrape.series += 1,
        }
    }
    scrape
}

#[test]
fn every_family_has_help_and_a_name_that_tells_its_unit() {
    let scrape = scrape(&all_groups());
    assert!(scrape.types.len() > 50, "{} families", scrape.types.len());
    for (name, kind) in &scrape.types {
        let help = scrape.help.get(name).unwrap_or_else(|| panic!("{name} has no help"));
        assert!(help.len() > 10, "the help of {name} says nothing");
        assert!(name.starts_with("headwater_") || name.starts_with("process_"), "{name}");
        let has_unit = ["_seconds", "_bytes", "_ratio", "_fds"].iter().any(|it| name.ends_with(it));
        let is_fine = match kind.as_str() {
            "counter" => name.ends_with("_total"),
            "histogram" => has_unit,
            "gauge" => has_unit || COUNTED.contains(&name.as_str()),
            _ => false,
        };
        assert!(is_fine, "{kind} {name} does not tell its unit");
        let small_unit = ["_ms", "_us", "_millis", "_percent"].iter().any(|it| name.contains(it));
        assert!(!small_unit, "{name} is not in a base unit");
    }
}

#[test]
fn all_roles_together_stay_below_a_thousand_series() {
    let scrape = scrape(&all_groups());
    assert!(scrape.series < 1000, "{} series", scrape.series);
}

#[test]
fn a_role_shows_only_what_it_asked_for() {
    let metrics = Metrics::new();
    metrics.gateway().join_attempts.get(JoinOutcome::Joined).inc();
    let text = metrics.render().unwrap();
    assert!(
        text.contains(r#"headwater_join_attempts_total{reason="none",result="ok"} 1"#),
        "{text}"
    );
    assert!(!text.contains("headwater_rooms"));
    assert!(text.contains("headwater_build_info{version="));
}

#[test]
fn asking_for_a_group_again_gives_the_same_one() {
    let metrics = Metrics::new();
    metrics.node().rooms.set(3);
    assert_eq!(metrics.clone().node().rooms.get(), 3);
}

#[test]
fn a_total_follows_its_integer_and_survives_a_restart_of_it() {
    let metrics = Metrics::new();
    let packets = metrics.node().rtp_packets.get(MediaDirection::In);
    packets.set(10);
    packets.set(25);
    assert_eq!(packets.get(), 25);
    packets.set(4);
    packets.set(6);
    assert_eq!(packets.get(), 27, "a fall counts nothing, and what comes after it does");
}

#[test]
fn each_member_of_a_label_set_has_its_own_series() {
    fn check<L: LabelSet + PartialEq + std::fmt::Debug>() {
        let mut seen = std::collections::BTreeSet::new();
        for (index, member) in L::ALL.iter().enumerate() {
            assert_eq!(member.index(), index);
            assert_eq!(member.values().len(), L::NAMES.len());
            assert!(seen.insert(member.values()), "{member:?} has the values of another");
        }
        assert!(seen.len() <= 16, "{:?} is not a small set", L::NAMES);
    }
    check::<AuthFailure>();
    check::<DropReason>();
    check::<DtlsResult>();
    check::<IceResult>();
    check::<JoinOutcome>();
    check::<JoinPhase>();
    check::<NodeLifecycle>();
    check::<NodeState>();
    check::<PlacementResult>();
    check::<PlanReason>();
    check::<RefusedRetransmission>();
    check::<RelayDrop>();
    check::<RelayFlow>();
    check::<RelayLink>();
    check::<RegistryOperation>();
    check::<RoomEnd>();
    check::<SessionEnd>();
    check::<TwirpResult>();
}

#[test]
fn the_state_of_a_node_is_one_of_them() {
    let metrics = Metrics::new();
    metrics.node().set_state(NodeLifecycle::Serving);
    metrics.node().set_state(NodeLifecycle::Draining);
    let state = &metrics.node().state;
    let all: Vec<i64> = NodeLifecycle::ALL.iter().map(|it| state.get(*it).get()).collect();
    assert_eq!(all, [0, 0, 1]);
}

#[test]
fn a_refused_token_finds_its_series_by_reason() {
    assert_eq!(AuthFailure::from_reason("token_expired"), Some(AuthFailure::TokenExpired));
    assert_eq!(AuthFailure::from_reason("else"), None);
}

#[test]
fn meters_of_opentelemetry_show_up_in_the_same_scrape() {
    let metrics = all_groups();
    let provider = metrics.bridge_meters(Resource::builder_empty().build()).unwrap();
    let histogram = provider
        .meter("headwater")
        .f64_histogram("rpc.server.call.duration")
        .with_unit("s")
        .with_description("How long calls took that we served.")
        .build();
    histogram.record(0.2, &[KeyValue::new("rpc.method", "a.B/C")]);
    let text = metrics.render().unwrap();
    let series = r#"rpc_server_call_duration_seconds_count{rpc_method="a.B/C"} 1"#;
    assert!(text.contains(series), "{text}");
    assert!(text.contains("# HELP rpc_server_call_duration_seconds How long"));
    assert!(text.contains("headwater_rooms "));
}
