//! The roles apart on a real etcd: rooms spread, any gateway serves any room,
//! and what is killed touches no media that does not pass through it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_e2e::audience::{Audience, Report, all_hear};
use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, Role, wait};
use headwater_loadtest::client::{Client, ClientConfig, Receive};
use headwater_loadtest::run::Server;
use headwater_rpc::token::KeyRing;

/// Media of a participant is interrupted if nothing comes for longer.
const GAP_LIMIT: Duration = Duration::from_secs(1);

fn server(url: &str) -> Server {
    Server {
        url: url.to_owned(),
        keys: KeyRing::single(API_KEY, API_SECRET).unwrap(),
        pid: None,
        metrics: None,
    }
}

/// Joins, publishes audio, and receives that of one other.
async fn join(url: &str, room: &str, identity: &str) -> anyhow::Result<Client> {
    let server = server(url);
    let client = Client::join(ClientConfig {
        url: server.url.clone(),
        token: server.token(room, identity)?,
        video: None,
        audio: true,
        receive: Receive { audio: 1, video: 0 },
    })
    .await?;
    client.connected(Duration::from_secs(10)).await?;
    Ok(client)
}

/// Two in each of these rooms, who talk to each other.
struct Crowd {
    clients: Vec<(String, Client)>,
}

impl Crowd {
    /// Everybody joins, each through the next of these addresses.
    async fn join(urls: &[String], prefix: &str, rooms: usize) -> Self {
        let mut clients = Vec::new();
        for room in 0..rooms {
            for identity in ["ada", "bob"] {
                // In every other room the first comes through another gateway.
                let url = &urls[(clients.len() + room) % urls.len()];
                let name = format!("{prefix}-{room}");
                let client = join(url, &name, identity).await.unwrap();
                clients.push((format!("{name}/{identity}"), client));
            }
        }
        let crowd = Self { clients };
        crowd.everybody_hears().await;
        crowd
    }

    /// Waits until everybody received something new.
    async fn everybody_hears(&self) {
        self.reset();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let deaf: Vec<&str> = self
                .clients
                .iter()
                .filter(|(_, client)| client.observed().sink.packets() < 10)
                .map(|(name, _)| name.as_str())
                .collect();
            if deaf.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "they hear nothing: {deaf:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn reset(&self) {
        for (_, client) in &self.clients {
            client.reset();
        }
    }

    /// The longest time since the last reset in which somebody received nothing,
    /// the packets lost, and those received. Everybody must still be there, and
    /// have received until now.
    async fn check(&self) -> Undisturbed {
        // A stream that stopped shows no gap until its next packet.
        let before: Vec<u64> = self.packets();
        tokio::time::sleep(GAP_LIMIT).await;
        let mut seen = Undisturbed::default();
        for ((name, client), before) in self.clients.iter().zip(before) {
            assert!(client.is_running(), "{name} was disconnected");
            let observed = client.observed();
            assert!(observed.sink.packets() > before, "{name} hears nothing any more");
            seen.lost += observed.sink.lost();
            seen.packets += observed.sink.packets();
            for stream in observed.sink.streams().values() {
                seen.gap = seen.gap.max(Duration::from_micros(stream.gap_max_micros));
            }
        }
        assert!(seen.gap < GAP_LIMIT, "media was interrupted: {seen:?}");
        seen
    }

    fn packets(&self) -> Vec<u64> {
        self.clients.iter().map(|(_, client)| client.observed().sink.packets()).collect()
    }

    async fn leave(self) {
        for (_, client) in self.clients {
            client.leave().await.unwrap();
        }
    }
}

#[derive(Debug, Default)]
struct Undisturbed {
    gap: Duration,
    lost: u64,
    packets: u64,
}

impl std::fmt::Display for Undisturbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "longest gap {} ms, {} of {} packets lost",
            self.gap.as_millis(),
            self.lost,
            self.packets
        )
    }
}

fn gateway_urls(cluster: &Cluster) -> Vec<String> {
    cluster.gateways.iter().map(Role::signal_url).collect()
}

fn on_each<'a>(roles: impl IntoIterator<Item = &'a Role>, name: &str) -> Vec<f64> {
    roles.into_iter().map(|role| role.metric(name).unwrap()).collect()
}

fn assert_no_complaints(cluster: &Cluster) {
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_rooms_spread_over_both_nodes_and_every_gateway_serves_them() {
    let cluster = Cluster::start(&Options::default()).unwrap();
    let urls = gateway_urls(&cluster);
    let begun = Instant::now();
    let crowd = Crowd::join(&urls, "spread", 20).await;
    println!(
        "20 rooms, 40 participants joined one after the other and heard each other in {:?}",
        begun.elapsed()
    );
    wait_for_people(&cluster, 40.0, Duration::from_secs(5));
    let rooms = on_each(&cluster.media_nodes, "headwater_rooms");
    let participants = on_each(&cluster.media_nodes, "headwater_participants");
    let sessions = on_each(&cluster.gateways, "headwater_signal_connections");
    println!(
        "rooms per node {rooms:?}, participants per node {participants:?}, sessions per gateway {sessions:?}"
    );
    assert_eq!(rooms.iter().sum::<f64>(), 20.0);
    assert_eq!(participants.iter().sum::<f64>(), 40.0);
    let mean = 10.0;
    assert!(rooms.iter().all(|count| count / mean <= 1.3), "{rooms:?}");
    assert!(sessions.iter().all(|count| *count >= 10.0), "{sessions:?}");
    // One of each room came through either gateway, so both reach both nodes.
    crowd.reset();
    let seen = crowd.check().await;
    println!("1 s of audio: {seen}");
    assert_eq!(seen.lost, 0);
    crowd.leave().await;
    wait_for_people(&cluster, 0.0, Duration::from_secs(10));
    assert_no_complaints(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_control_plane_does_not_touch_media() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    let urls = gateway_urls(&cluster);
    let crowd = Crowd::join(&urls, "live", 4).await;

    crowd.reset();
    cluster.control_planes[0].kill().unwrap();
    for url in &urls {
        let begun = Instant::now();
        let (one, other) =
            (join(url, "new", "ada").await.unwrap(), join(url, "live-0", "eve").await.unwrap());
        println!(
            "a join to a new room and one to a live room, one control plane gone: {:?}",
            begun.elapsed()
        );
        one.leave().await.unwrap();
        other.leave().await.unwrap();
    }
    println!("one control plane killed: {}", crowd.check().await);

    crowd.reset();
    cluster.control_planes[1].kill().unwrap();
    for role in cluster.media_nodes.iter().chain(&cluster.gateways) {
        assert_eq!(role.status("/healthz"), 200, "{}", role.name);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("both control planes gone for 3 s: {}", crowd.check().await);
    let refused = join(&urls[0], "impossible", "ada").await;
    println!("a new room meanwhile: {:#}", refused.err().unwrap());

    crowd.reset();
    let begun = Instant::now();
    for control_plane in &mut cluster.control_planes {
        control_plane.restart().unwrap();
    }
    cluster.wait_serving(2).unwrap();
    println!("both are back and know both nodes after {:?}", begun.elapsed());
    for (index, url) in urls.iter().enumerate() {
        join(url, &format!("after-{index}"), "ada").await.unwrap().leave().await.unwrap();
        join(url, "live-1", "eve").await.unwrap().leave().await.unwrap();
    }
    println!("after both came back: {}", crowd.check().await);
    crowd.leave().await;
    assert_no_complaints(&cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_gone_for_thirty_seconds_does_not_touch_media() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    let urls = gateway_urls(&cluster);
    let crowd = Crowd::join(&urls, "live", 4).await;

    crowd.reset();
    cluster.etcd.stop_all().unwrap();
    let gone = Instant::now();
    let mut unready: BTreeMap<String, u128> = BTreeMap::new();
    let mut joins = 0;
    let mut slowest = Duration::ZERO;
    while gone.elapsed() < Duration::from_secs(30) {
        for role in cluster.roles() {
            assert_eq!(role.status("/healthz"), 200, "{} after {:?}", role.name, gone.elapsed());
            if role.status("/readyz") == 503 {
                unready.entry(role.name.clone()).or_insert(gone.elapsed().as_millis());
            }
        }
        let begun = Instant::now();
        let url = &urls[joins % urls.len()];
        let room = format!("live-{}", joins % 4);
        join(url, &room, "eve").await.unwrap().leave().await.unwrap();
        slowest = slowest.max(begun.elapsed());
        joins += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!(
        "etcd gone: not ready after ms {unready:?}; {joins} joins to live rooms, the slowest took {slowest:?}"
    );
    for role in cluster.control_planes.iter().chain(&cluster.media_nodes) {
        assert!(unready.contains_key(&role.name), "{} stayed ready: {unready:?}", role.name);
    }
    let refused = join(&urls[0], "impossible", "ada").await;
    println!("a new room meanwhile: {:#}", refused.err().unwrap());
    println!("etcd gone for {:?}: {}", gone.elapsed(), crowd.check().await);

    crowd.reset();
    cluster.etcd.start_all().unwrap();
    let back = Instant::now();
    wait("everybody is ready again", Duration::from_secs(30), || {
        let not: Vec<&str> = cluster
            .roles()
            .filter(|role| role.status("/readyz") != 200)
            .map(|role| role.name.as_str())
            .collect();
        (not.is_empty(), format!("{not:?}"))
    })
    .unwrap();
    cluster.wait_serving(2).unwrap();
    println!("etcd back: everybody ready after {:?}", back.elapsed());
    for (index, url) in urls.iter().enumerate() {
        join(url, &format!("after-{index}"), "ada").await.unwrap().leave().await.unwrap();
    }
    println!("after etcd came back: {}", crowd.check().await);
    crowd.leave().await;
    assert_no_complaints(&cluster);
}

/// Waits until the nodes show this many people; their gauges are brought up to
/// date once a second.
fn wait_for_people(cluster: &Cluster, people: f64, limit: Duration) {
    wait("the people on the nodes", limit, || {
        let shown = on_each(&cluster.media_nodes, "headwater_participants");
        (shown.iter().sum::<f64>() == people, format!("{shown:?} instead of {people}"))
    })
    .unwrap();
}

fn signal_connections(cluster: &Cluster) -> Vec<f64> {
    cluster
        .gateways
        .iter()
        .map(|gateway| gateway.metric("headwater_signal_connections").unwrap_or(0.0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_nobody_for_good() {
    let mut cluster = Cluster::start(&Options::default()).unwrap();
    let mut audience = Audience::join(&cluster.target, 4, "audience").unwrap();
    let before = signal_connections(&cluster);
    println!("8 people; signalling connections per gateway {before:?}");
    assert_eq!(before.iter().sum::<f64>(), 8.0);
    wait_for_people(&cluster, 8.0, Duration::from_secs(5));
    assert!(before[0] > 0.0, "the gateway to be killed serves nobody");

    cluster.gateways[0].kill().unwrap();
    let killed = Instant::now();
    wait("everybody signals through the other gateway", Duration::from_secs(20), || {
        let seen = signal_connections(&cluster);
        (seen[1] >= 8.0, format!("{seen:?}"))
    })
    .unwrap();
    println!("everybody signals again after {:?}", killed.elapsed());
    let moved = before[0] as u64;
    let reconnects = |report: &[Report]| -> u64 { report.iter().map(|one| one.reconnects).sum() };
    let report = audience
        .until("all are back", Duration::from_secs(30), |report| {
            all_hear(report) && reconnects(report) >= moved
        })
        .unwrap();
    // The tone goes on while the SDK signals anew. The beats of those who moved do
    // not: the SDK keeps data messages back until it has resumed. Those of the
    // others do, also to the ones who moved.
    let from_unmoved: Vec<u64> = (0..report.len())
        .filter(|index| report[index ^ 1].reconnects == 0)
        .map(|index| audience.silences()[index].gap_ms)
        .collect();
    println!(
        "one gateway killed: {moved} people moved, {} reconnects; longest without the tone {} ms, without a beat \
         {} ms, without a beat of somebody who did not move {from_unmoved:?} ms",
        reconnects(&report),
        audience.worst_quiet(),
        audience.worst_gap(),
    );
    assert!(audience.worst_quiet() < 1000, "no tone for {} ms", audience.worst_quiet());
    assert!(from_unmoved.iter().all(|gap| *gap < 1000), "{from_unmoved:?}");

    // Signalling works for those who moved: they learn who joins and leaves.
    let url = cluster.gateways[1].signal_url();
    let mut guests = Vec::new();
    for room in 0..4 {
        guests.push(join(&url, &format!("audience-{room}"), "eve").await.unwrap());
    }
    let know = |report: &[Report], others| report.iter().all(|one| one.others == others);
    audience
        .until("all know the guests", Duration::from_secs(10), |report| know(report, 2))
        .unwrap();
    for guest in guests {
        assert!(guest.observed().sink.packets() > 0, "a guest hears nobody");
        guest.leave().await.unwrap();
    }
    audience
        .until("all know that they left", Duration::from_secs(10), |report| know(report, 1))
        .unwrap();

    cluster.gateways[0].restart().unwrap();
    let url = cluster.gateways[0].signal_url();
    for room in ["audience-1", "after"] {
        join(&url, room, "eve").await.unwrap().leave().await.unwrap();
    }
    // A node gives up a participant whose gateway is gone after 30 s; not one who
    // came back through another.
    audience.forget();
    audience
        .until("all are there after 35 s", Duration::from_secs(60), |report| {
            killed.elapsed() > Duration::from_secs(35) && all_hear(report) && know(report, 1)
        })
        .unwrap();
    wait_for_people(&cluster, 8.0, Duration::from_secs(3));
    println!(
        "until 35 s after: longest without the tone {} ms, without a beat {} ms",
        audience.worst_quiet(),
        audience.worst_gap()
    );
    drop(audience);
    wait_for_people(&cluster, 0.0, Duration::from_secs(60));
    assert_no_complaints(&cluster);
}
