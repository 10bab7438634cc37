//! One room on three nodes of two shards each, with an audience on all of them:
//! everybody receives everything, and each relay link carries each packet once.
//!
//! The audience is as large as `HEADWATER_E2E_AUDIENCE` says, 300 for the figures in the
//! documentation; without it as many as a busy machine of two cores can carry.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, Role, wait};
use headwater_e2e::placements::{LOG_FILTER, placements};
use headwater_loadtest::crowd;
use headwater_loadtest::crowd::Phase;
use headwater_loadtest::run::Server;
use headwater_loadtest::scenario::Scenario;
use headwater_rpc::token::KeyRing;

const NODES: usize = 3;
const SHARDS: u16 = 2;
const LINKS: f64 = NODES as f64 * SHARDS as f64 - 1.0;

/// Two people who speak and are seen, in two sizes each, of which the audience takes
/// the larger; nobody asks for the smaller.
fn scenario(audience: usize) -> Scenario {
    let seconds = if audience > 100 { 30 } else { 8 };
    let text = format!(
        "name = \"spread\"\nduration_seconds = {seconds}\njoin_rate = 25\n\
         [[publishers]]\ncount = 2\n[publishers.audio]\n[publishers.video]\nkeyframe_factor = 4\n\
         layers = [{{ width = 320, height = 180, frame_rate = 15, bitrate_kbps = 80 }}, \
                   {{ width = 640, height = 360, frame_rate = 15, bitrate_kbps = 250 }}]\n\
         [[subscribers]]\ncount = {audience}\n\
         [load]\ndecrypt_every = 8\n[pass]\nfailures_max = 0\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spread.toml");
    std::fs::write(&file, text).unwrap();
    Scenario::read(&file).unwrap()
}

/// What all relay links together took in: packets, bytes.
fn relayed(cluster: &Cluster) -> (f64, f64) {
    let sum = |name: &str| {
        let of = |role: &Role, link: &str| {
            role.series(&format!("{name}{{direction=\"in\",link=\"{link}\"}}")).unwrap_or(0.0)
        };
        let both = |role: &Role| of(role, "in_process") + of(role, "between_nodes");
        cluster.media_nodes.iter().map(both).sum::<f64>()
    };
    (sum("headwater_relay_packets_total"), sum("headwater_relay_bytes_total"))
}

/// Mean of a histogram over all nodes, in milliseconds.
fn mean_ms(cluster: &Cluster, name: &str, link: &str) -> f64 {
    let sum = |part: &str| {
        let series = format!("{name}_{part}{{link=\"{link}\"}}");
        cluster.media_nodes.iter().map(|role| role.series(&series).unwrap()).sum::<f64>()
    };
    sum("sum") * 1000.0 / sum("count").max(1.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_on_six_shards_receives_everything_and_each_link_carries_it_once() {
    let audience = std::env::var("HEADWATER_E2E_AUDIENCE").ok();
    let audience = audience.map_or(60, |count| count.parse::<usize>().unwrap());
    let options = Options {
        etcd_members: 1,
        replicas: 1,
        media_nodes: NODES,
        shards: SHARDS,
        log_filter: LOG_FILTER,
        // A little less than a sixth of the audience, so that all shards are needed.
        shard_participants: Some(u32::try_from(audience / 7).unwrap()),
        ..Options::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let server = Server {
        url: cluster.gateways[0].signal_url(),
        keys: KeyRing::single(API_KEY, API_SECRET).unwrap(),
        pid: None,
        metrics: None,
    };
    let on = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0);
    let mut measured: Vec<(Instant, f64, f64)> = Vec::new();
    let mut people = Vec::new();
    let outcome = crowd::run(&server, &scenario(audience), |moment| {
        if moment.phase == Phase::Measured {
            let (packets, bytes) = relayed(&cluster);
            measured.push((Instant::now(), packets, bytes));
            people = cluster.media_nodes.iter().map(on).collect();
        }
    })
    .await
    .unwrap();

    let mut shards: BTreeMap<(String, String), usize> = BTreeMap::new();
    for place in placements(&cluster) {
        *shards.entry((place.node, place.shard)).or_default() += 1;
    }
    let (first, last) = (measured[0], measured[measured.len() - 1]);
    let seconds = (last.0 - first.0).as_secs_f64();
    let (packets, bytes) = ((last.1 - first.1) / seconds, (last.2 - first.2) / seconds);
    // Of two sizes of each picture the audience wants one: what it receives of both
    // publishers is what one copy of everything wanted is.
    let received = outcome.packets as f64 / outcome.seconds / audience as f64;
    let copies = packets / received / LINKS;
    println!(
        "{audience} people on {people:?}, by shard {shards:?}\n\
         {} packets received, {} lost; {received:.1} packets/s each\n\
         all {LINKS} links: {packets:.1} packets/s, {:.1} kbit/s; {copies:.3} copies a link",
        outcome.packets,
        outcome.video.lost + outcome.audio.lost,
        bytes * 8.0 / 1000.0,
    );
    for link in ["in_process", "between_nodes"] {
        println!(
            "{link}: media takes {:.2} ms, a round trip {:.2} ms",
            mean_ms(&cluster, "headwater_relay_hop_seconds", link),
            mean_ms(&cluster, "headwater_relay_rtt_seconds", link),
        );
    }
    println!("video {:?}\naudio {:?}", outcome.video.latency, outcome.audio.latency);
    println!("joins {:?}", outcome.joins.connected);

    assert_eq!(shards.len(), NODES * usize::from(SHARDS), "{shards:?}");
    assert!(people.iter().all(|count| *count > 0.0), "{people:?}");
    assert_eq!(outcome.joins.failures, 0, "{:?}", outcome.joins.failure_reasons);
    let receiving: usize = outcome.groups.iter().map(|group| group.receiving).sum();
    assert!(receiving >= audience, "{receiving} receive");
    // Loopback loses nothing unless a buffer overflows; 1 % is far beyond that.
    assert!(outcome.lost_percent() < 1.0, "{} %", outcome.lost_percent());
    // The gauges are a second old at most at both ends, which is a part of the whole.
    assert!((0.7..1.4).contains(&copies), "{copies} copies of each packet on each link");

    wait("everybody has left everywhere", Duration::from_secs(10), || {
        let people: f64 = cluster.media_nodes.iter().map(on).sum();
        (people == 0.0, format!("{people}"))
    })
    .unwrap();
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
