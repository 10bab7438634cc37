//! Many native clients: nothing is left behind, everybody receives, whoever comes late
//! sees something at once, and strangers disturb nobody.

use std::path::Path;
use std::time::{Duration, Instant};

use headwater_e2e::dev::Dev;
use headwater_loadtest::client::Video;
use headwater_loadtest::crowd;
use headwater_loadtest::outcome::Outcome;
use headwater_loadtest::run::{Broadcast, Server, broadcast, churn};
use headwater_loadtest::scenario::Scenario;
use headwater_rpc::token::KeyRing;
use headwater_testkit::process::{http_get, metric};

fn server(dev: &Dev) -> Server {
    Server {
        url: dev.target.url.clone(),
        keys: KeyRing::single("devkey", "secret").unwrap(),
        pid: Some(dev.process.pid()),
        metrics: Some(format!("http://127.0.0.1:{}/metrics", dev.admin_port)),
    }
}

fn gauge(dev: &Dev, name: &str) -> f64 {
    let (_, body) = http_get(dev.admin_port, "/metrics").unwrap();
    metric(&body, name).unwrap_or_else(|| panic!("no metric {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_subscribers_receive_everything() {
    let dev = Dev::start(&[]).unwrap();
    let plan = Broadcast {
        room: "everything".to_owned(),
        subscribers: 50,
        video: Video { frame_rate: 30.0, packets_per_frame: 3, payload_bytes: 1160, layers: 1 },
        audio: true,
        duration: Duration::from_secs(5),
        joins_per_second: 20.0,
    };
    let report = broadcast(&server(&dev), &plan).await.unwrap();
    println!("{:#}", report.to_json());
    assert_eq!(report.receiving, 50);
    assert_eq!(report.first_keyframe_ms.len(), 50, "everybody got a keyframe");
    // Loopback loses nothing unless a buffer overflows; 1 % is far beyond that.
    assert!(report.lost * 100 <= report.packets, "{} of {} lost", report.lost, report.packets);
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_joins_and_leaves_leave_nothing_behind() {
    let dev = Dev::start(&[]).unwrap();
    let server = server(&dev);
    // Pools and caches fill once; what grows after that is a leak.
    churn(&server, "churn", 200, 10).await.unwrap();
    settle(&dev).await;
    let (memory, descriptors) =
        (dev.process.resident_kib().unwrap(), dev.process.descriptors().unwrap());
    let seconds = churn(&server, "churn", 1000, 10).await.unwrap();
    settle(&dev).await;
    let (memory_after, descriptors_after) =
        (dev.process.resident_kib().unwrap(), dev.process.descriptors().unwrap());
    println!(
        "1000 joins and leaves in {seconds:.1} s; memory {memory} KiB before, {memory_after} KiB after; \
         descriptors {descriptors} before, {descriptors_after} after"
    );
    // A leaked session costs tens of KiB: a thousand would be far above this.
    assert!(memory_after < memory + 16 * 1024, "memory grew from {memory} to {memory_after} KiB");
    assert!(
        descriptors_after <= descriptors + 4,
        "descriptors grew from {descriptors} to {descriptors_after}"
    );
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_with_churn_leaves_memory_tasks_descriptors_and_series_flat() {
    let dev = Dev::start(&[]).unwrap();
    let mut scenario = shipped("soak-short");
    (scenario.warm_up_seconds, scenario.duration_seconds) = (10.0, 30.0);
    let outcome = run(&dev, &scenario).await;
    let server = outcome.server.as_ref().unwrap();
    let (first, last) = server.scrapes.unwrap();
    println!(
        "{} joins; memory {} to {} KiB, descriptors {} to {}, threads {} to {}, tasks {:?} to {:?}, \
         series {} to {}",
        outcome.joins.begun,
        server.begin.memory_kib,
        server.end.memory_kib,
        server.begin.descriptors,
        server.end.descriptors,
        server.begin.threads,
        server.end.threads,
        first.tasks,
        last.tasks,
        first.series,
        last.series
    );
    for name in [
        "memory_growth_kib_max",
        "descriptors_growth_max",
        "tasks_growth_max",
        "series_growth_max",
        "failures_max",
    ] {
        assert_holds(&outcome, name);
    }
    assert!(outcome.joins.begun >= 70, "{} joins", outcome.joins.begun);
    assert!(outcome.packets > 10_000, "{} packets", outcome.packets);
    settle(&dev).await;
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_among_a_hundred_sees_a_kept_keyframe_and_asks_nobody() {
    let dev = Dev::start(&[]).unwrap();
    let mut scenario = shipped("late-joiner");
    // What is kept counts for a second; twice that often leaves room for a busy machine.
    scenario.publishers[0].video.as_mut().unwrap().keyframe_seconds = Some(0.5);
    (scenario.duration_seconds, scenario.load.decrypt_every) = (8.0, 8);
    let outcome = run(&dev, &scenario).await;
    let late = outcome.joins.late_first_keyframe.unwrap();
    println!(
        "{} late joiners among 100, first picture p50 {:.0} ms, p95 {:.0} ms, longest {:.0} ms; \
         {} asked for a keyframe, {} requests reached the publisher",
        late.count, late.p50, late.p95, late.max, outcome.video.plis, outcome.keyframe_requests
    );
    assert!(late.count >= 20, "only {} came late and saw something", late.count);
    // Without a kept keyframe each second of joins asks for one, so eight at least.
    assert_eq!(outcome.keyframe_requests, 0, "requests that reached the publisher");
    assert!(gauge(&dev, "headwater_keyframes_replayed_total") >= 20.0);
    // 300 ms is what is wanted; a busy machine may take longer, a second keyframe interval
    // would show that nothing was kept.
    assert!(late.p50 < 900.0, "{} ms", late.p50);
    assert_holds(&outcome, "failures_max");
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_from_strangers_costs_nobody_media_and_leaves_no_state() {
    let dev = Dev::start(&[]).unwrap();
    let mut scenario = shipped("flood");
    scenario.duration_seconds = 8.0;
    let outcome = run(&dev, &scenario).await;
    let (flood, server) = (outcome.flood.unwrap(), outcome.server.as_ref().unwrap());
    let (first, last) = server.scrapes.unwrap();
    println!(
        "{} datagrams of strangers, {:.0} a second; {:.3} % of {} media packets lost; memory {} to \
         {} KiB, descriptors {} to {}, tasks {:?} to {:?}, series {} to {}; server {:.2} CPU-seconds \
         of {:.1} s",
        flood.sent,
        flood.per_second,
        outcome.lost_percent(),
        outcome.packets,
        server.begin.memory_kib,
        server.end.memory_kib,
        server.begin.descriptors,
        server.end.descriptors,
        first.tasks,
        last.tasks,
        first.series,
        last.series,
        server.cpu_seconds,
        outcome.seconds
    );
    assert!(flood.sent > 100_000, "only {} were sent", flood.sent);
    assert!(outcome.packets > 10_000, "{} packets", outcome.packets);
    for name in ["lost_percent_max", "failures_max", "memory_growth_kib_max"] {
        assert_holds(&outcome, name);
    }
    assert_holds(&outcome, "descriptors_growth_max");
    // Nobody of them became a participant, a transport or a session.
    settle(&dev).await;
    assert_eq!(gauge(&dev, "headwater_transports"), 0.0);
    assert_eq!(dev.complaints(), Vec::<String>::new());
}

/// A scenario as it is shipped.
fn shipped(name: &str) -> Scenario {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../loadtest/scenarios");
    Scenario::read(&folder.join(format!("{name}.toml"))).unwrap()
}

async fn run(dev: &Dev, scenario: &Scenario) -> Outcome {
    crowd::run(&server(dev), scenario, |_| {}).await.unwrap()
}

fn assert_holds(outcome: &Outcome, name: &str) {
    let check = outcome.checks.iter().find(|check| check.name == name).unwrap();
    let reasons = (&outcome.invalid_because, &outcome.joins.failure_reasons);
    assert!(check.passed, "{check:?} {reasons:?}");
}

/// Waits until the node holds nobody.
async fn settle(dev: &Dev) {
    let deadline = Instant::now() + Duration::from_secs(45);
    for name in ["headwater_participants", "headwater_subscriptions", "headwater_session_streams"] {
        while gauge(dev, name) != 0.0 {
            assert!(Instant::now() < deadline, "{name} is still {}", gauge(dev, name));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
