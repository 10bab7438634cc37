//! Sums, validity and criteria of made-up runs.

use super::*;

fn scenario(pass: &str) -> Scenario {
    let text = format!(
        "name = \"made-up\"\nduration_seconds = 10\n[[publishers]]\n[publishers.video]\n\
         layers = [{{ width = 2, height = 2, frame_rate = 30, bitrate_kbps = 100 }}]\n\
         [[subscribers]]\ncount = 1\n[pass]\n{pass}"
    );
    Scenario::parse(&text).unwrap()
}

fn measured(lost: u64, late: u64) -> Measured {
    let usage = |cpu_seconds, memory_kib| Usage { cpu_seconds, memory_kib, ..Usage::default() };
    let mut latencies = Histogram::default();
    (0..1000).for_each(|_| latencies.add(2_000));
    let video =
        Counts { received: 1000 - lost, lost, freeze_max_micros: 40_000, ..Counts::default() };
    let viewer = PeerReport {
        label: 1,
        connected_ms: Some(8.0),
        first_keyframe_ms: Some(30.0),
        packets: 1000 - lost,
        decrypted: 1000 - lost,
        bytes: 1_250_000,
        video,
        latencies,
        ..PeerReport::default()
    };
    let publisher = PeerReport {
        connected_ms: Some(5.0),
        frames: (300, late, 0),
        keyframe_requests: 2,
        ..PeerReport::default()
    };
    Measured {
        seconds: 10.0,
        before: Some(usage(0.0, 1000)),
        server_begin: Some(usage(1.0, 1100)),
        server_end: Some(usage(1.5, 1200)),
        own_cpu_seconds: 1.0,
        cores: 2,
        labels: vec!["publishers".to_owned(), "viewers".to_owned()],
        peers: vec![publisher, viewer],
        joined: 2,
        ..Measured::default()
    }
}

fn outcome(lost: u64, late: u64, pass: &str) -> Outcome {
    Outcome::new(scenario(pass), measured(lost, late), Vec::new())
}

#[test]
fn packets_per_second_of_the_servers_processor_are_counted() {
    let outcome = outcome(0, 0, "");
    let server = outcome.server.unwrap();
    assert_eq!(server.packets_per_cpu_second, 2000.0);
    assert_eq!(server.memory_per_client_kib, Some(100.0));
    assert_eq!(outcome.groups[1].kbps_per_client, 1000.0);
}

#[test]
fn a_load_that_fell_behind_makes_the_run_invalid() {
    assert!(outcome(0, 6, "").valid);
    let late = outcome(0, 7, "");
    assert!(!late.valid);
    assert!(late.invalid_because[0].contains("late"), "{:?}", late.invalid_because);
    for change in [
        (|run: &mut Measured| run.busiest_thread = 0.99) as fn(&mut Measured),
        |run| run.own_cpu_seconds = 19.9,
        |run| run.socket_drops = 2,
        |run| run.peers[0].frames.2 = 1,
    ] {
        let mut run = measured(0, 0);
        change(&mut run);
        assert_eq!(Outcome::new(scenario(""), run, Vec::new()).invalid_because.len(), 1);
    }
}

#[test]
fn criteria_hold_or_are_named() {
    let good =
        outcome(5, 0, "lost_percent_max = 0.5\nlatency_p99_ms_max = 2.1\nfreeze_ms_max = 40");
    assert!(good.passed, "{:?}", good.checks);
    let bad = outcome(6, 0, "lost_percent_max = 0.5\nkeyframe_requests_max = 1");
    let names: Vec<&str> =
        bad.checks.iter().filter(|check| !check.passed).map(|check| check.name).collect();
    assert_eq!(names, ["lost_percent_max", "keyframe_requests_max"]);
}

#[test]
fn what_could_not_be_measured_does_not_pass() {
    let mut run = measured(0, 0);
    run.server_end = None;
    let outcome = Outcome::new(scenario("memory_growth_kib_max = 100000"), run, Vec::new());
    assert!(!outcome.passed);
    assert_eq!(outcome.checks[0].value, None);
}
