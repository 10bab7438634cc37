//! Many native clients: nothing is left behind, and everybody receives.

use std::time::{Duration, Instant};

use headwater_e2e::dev::Dev;
use headwater_loadtest::client::Video;
use headwater_loadtest::run::{Broadcast, Server, broadcast, churn};
use headwater_rpc::token::KeyRing;
use headwater_testkit::process::{http_get, metric};

fn server(dev: &Dev) -> Server {
    Server {
        url: dev.target.url.clone(),
        keys: KeyRing::single("devkey", "secret").unwrap(),
        pid: Some(dev.process.pid()),
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
