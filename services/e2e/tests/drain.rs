//! Nodes that are taken out while people are on them: everybody is moved, hears
//! again by itself, and nobody is lost; what is written meanwhile names nobody.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater_e2e::api::nodes_of;
use headwater_e2e::audience::{Audience, Report, all_hear};
use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, Role, wait};
use headwater_loadtest::client::{Client, ClientConfig, Receive, Video};
use headwater_loadtest::run::Server;
use headwater_model::Grants;
use headwater_proto::v1::cluster_service_client::ClusterServiceClient;
use headwater_proto::v1::{DrainNodeRequest, GetNodeRequest, Node, NodeState, UncordonNodeRequest};
use headwater_rpc::client::ClientTls;
use headwater_rpc::token::{KeyRing, TokenRequest, unix_seconds};
use headwater_rpc::{Connection, connect};
use headwater_testkit::process::signal;

/// Rooms of two, with SDKs that reconnect as they were written to.
const ROOMS: usize = 4;
/// Those who are not moved hear a pause no longer than this: the machine's noise.
const UNTOUCHED_MAX: u64 = 1_000;
/// Well above what is measured, and below what an SDK needs that has to find out.
const MOVED_MAX: u64 = 10_000;

/// An operator with a token.
struct Operator {
    api: ClusterServiceClient<Connection>,
    token: String,
    /// When the last drain was ordered.
    ordered: Instant,
}

impl Operator {
    fn of(cluster: &Cluster) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}", cluster.control_planes[0].port);
        let grants = Grants { room_create: true, room_list: true, ..Grants::default() };
        let request = TokenRequest { grants, ttl: Duration::from_secs(600) };
        let token = KeyRing::single(API_KEY, API_SECRET)?.mint(&request, unix_seconds())?;
        let api = ClusterServiceClient::new(connect(&url, &ClientTls::default(), None)?);
        Ok(Self { api, token: format!("Bearer {token}"), ordered: Instant::now() })
    }

    fn with<T>(&self, message: T) -> Result<tonic::Request<T>> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.token.parse()?);
        Ok(request)
    }

    async fn drain(&mut self, node: &str, limit: Duration) -> Result<Node> {
        let request = self.with(DrainNodeRequest {
            name: format!("nodes/{node}"),
            reason: "a test".to_owned(),
            timeout: Some(prost_types::Duration::try_from(limit)?),
        })?;
        self.ordered = Instant::now();
        self.api.drain_node(request).await?.into_inner().node.context("no node")
    }

    async fn uncordon(&mut self, node: &str) -> Result<Node> {
        let request = self.with(UncordonNodeRequest { name: format!("nodes/{node}") })?;
        self.api.uncordon_node(request).await?.into_inner().node.context("no node")
    }

    async fn node(&mut self, node: &str) -> Result<Node> {
        let request = self.with(GetNodeRequest { name: format!("nodes/{node}") })?;
        self.api.get_node(request).await?.into_inner().node.context("no node")
    }

    /// Waits until the drain of a node is done; answers with how long that took
    /// and with the numbers of those who were left at each look.
    async fn drained(&mut self, node: &str, limit: Duration) -> Result<(Duration, Vec<u32>)> {
        let begun = self.ordered;
        let mut left = Vec::new();
        loop {
            let drain = self.node(node).await?.drain.context("the node is not drained")?;
            if left.last() != Some(&drain.participants_left) {
                left.push(drain.participants_left);
            }
            anyhow::ensure!(!drain.overdue && drain.rooms_stuck == 0, "{drain:?}");
            if drain.done {
                return Ok((begun.elapsed(), left));
            }
            anyhow::ensure!(begun.elapsed() < limit, "not done in {limit:?}: {drain:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn participants(role: &Role) -> f64 {
    role.metric("headwater_participants").unwrap_or(f64::NAN)
}

/// Waits until so many people are on the nodes, none of them twice.
fn wait_for_people(cluster: &Cluster, people: usize) {
    wait("everybody is on one node", Duration::from_secs(40), || {
        let on: Vec<f64> = cluster.media_nodes.iter().map(participants).collect();
        (on.iter().sum::<f64>() == people as f64, format!("{on:?}"))
    })
    .unwrap();
}

fn busiest(cluster: &Cluster) -> usize {
    let count = |index: &usize| participants(&cluster.media_nodes[*index]) as u64;
    (0..cluster.media_nodes.len()).max_by_key(count).unwrap()
}

/// Which of the audience are in a room on this node, in the order of the reports.
fn on_node(cluster: &Cluster, prefix: &str, node: &str) -> Vec<bool> {
    let nodes = |room| nodes_of(cluster, &format!("{prefix}-{room}")).unwrap();
    (0..ROOMS).flat_map(|room| [nodes(room).iter().any(|it| it == node); 2]).collect()
}

/// Reads reports until one fits that was not made before this call: one that had
/// to be waited for. Those before it wait in line while a test does other things.
fn catch_up(audience: &mut Audience, fits: impl Fn(&[Report]) -> bool) -> Result<Vec<Report>> {
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let reports = audience.until("a report", Duration::from_secs(10), |_| true)?;
        if asked.elapsed() > Duration::from_millis(300) && fits(&reports) {
            return Ok(reports);
        }
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(40), "seen last: {reports:?}");
    }
}

/// Everybody hears the other, and knows of nobody else.
fn all_is_well(reports: &[Report]) -> bool {
    all_hear(reports) && reports.iter().all(|one| one.others == 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_drained_node_hear_each_other_again_on_another() {
    let cluster = Cluster::start(&Options { media_nodes: 3, ..Options::default() }).unwrap();
    let mut operator = Operator::of(&cluster).unwrap();
    let mut audience = Audience::join(&cluster.target, ROOMS, "drain").unwrap();
    wait_for_people(&cluster, ROOMS * 2);
    let role = &cluster.media_nodes[busiest(&cluster)];
    let node = role.node_id();
    let moved = on_node(&cluster, "drain", &node);
    let count = u32::try_from(moved.iter().filter(|moved| **moved).count()).unwrap();
    assert!(count > 0, "nobody is on the busiest node");

    catch_up(&mut audience, all_is_well).unwrap();
    audience.forget();
    let ordered = operator.drain(&node, Duration::from_secs(30)).await.unwrap();
    assert_eq!(ordered.state(), NodeState::Draining);
    assert_eq!(ordered.drain.unwrap().participants_at_order, count);
    let (took, left) = operator.drained(&node, Duration::from_secs(30)).await.unwrap();
    let reports = catch_up(&mut audience, all_is_well).unwrap();
    for (one, moved) in reports.iter().zip(&moved) {
        assert_eq!(one.reconnects > 0, *moved, "{one:?}");
    }
    let quiet = |which: bool| -> Vec<u64> {
        let all = audience.silences().iter().zip(&moved);
        all.filter(|(_, moved)| **moved == which).map(|(it, _)| it.quiet_ms).collect()
    };
    println!(
        "drain of a node with {count} people: done in {took:?}, left {left:?}; quiet for ms: moved {:?}, others {:?}",
        quiet(true),
        quiet(false)
    );
    assert!(quiet(true).iter().all(|ms| *ms < MOVED_MAX), "{:?}", quiet(true));
    assert!(quiet(false).iter().all(|ms| *ms < UNTOUCHED_MAX), "{:?}", quiet(false));
    assert!(on_node(&cluster, "drain", &node).iter().all(|there| !there));
    wait_for_people(&cluster, ROOMS * 2);
    assert_eq!(participants(role), 0.0);

    let back = operator.uncordon(&node).await.unwrap();
    assert_eq!((back.state(), back.order), (NodeState::Serving, None));
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_nodes_loses_nobody() {
    let options = Options { media_nodes: 3, ..Options::default() };
    let mut cluster = Cluster::start(&options).unwrap();
    let mut audience = Audience::join(&cluster.target, ROOMS, "roll").unwrap();
    wait_for_people(&cluster, ROOMS * 2);
    let revision = revision(&cluster).unwrap();
    let begun = Instant::now();
    for place in 0..3 {
        catch_up(&mut audience, all_is_well).unwrap();
        audience.forget();
        let people = participants(&cluster.media_nodes[place]);
        let asked = Instant::now();
        signal(cluster.media_nodes[place].process().pid(), "TERM").unwrap();
        cluster.media_nodes[place].wait_end(Duration::from_secs(25)).unwrap();
        let ended = asked.elapsed();
        cluster.media_nodes[place].restart().unwrap();
        cluster.wait_serving(3).unwrap();
        catch_up(&mut audience, all_is_well).unwrap();
        println!(
            "node {place} with {people} people ended after {ended:?}; longest without the tone {} ms",
            audience.worst_quiet()
        );
        assert!(audience.worst_quiet() < MOVED_MAX);
        wait_for_people(&cluster, ROOMS * 2);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let writes = kept_without_people(&cluster).unwrap() - revision;
    println!("{seconds:.0} s: {writes} writes, {:.2} a second", writes as f64 / seconds);
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_viewers_and_a_speaker_are_moved_within_a_minute() {
    const VIEWERS: usize = 100;
    let cluster = Cluster::start(&Options::default()).unwrap();
    let mut operator = Operator::of(&cluster).unwrap();
    let url = cluster.target.url.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let mut people = vec![tokio::spawn(stay(url.clone(), "speaker".to_owned(), stop.clone()))];
    wait_for_people(&cluster, 1);
    for number in 0..VIEWERS {
        people.push(tokio::spawn(stay(url.clone(), format!("viewer-{number:03}"), stop.clone())));
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    wait_for_people(&cluster, VIEWERS + 1);
    tokio::time::sleep(Duration::from_secs(3)).await;

    let before = revision(&cluster).unwrap();
    let role = &cluster.media_nodes[busiest(&cluster)];
    operator.drain(&role.node_id(), Duration::from_secs(60)).await.unwrap();
    let (took, left) = operator.drained(&role.node_id(), Duration::from_secs(60)).await.unwrap();
    wait_for_people(&cluster, VIEWERS + 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let writes = kept_without_people(&cluster).unwrap() - before;
    stop.store(true, Ordering::Relaxed);
    let mut gaps = Vec::new();
    let mut joins = 0;
    for person in people.drain(1..) {
        let stayed = person.await.unwrap().unwrap();
        joins += stayed.joins;
        gaps.push(stayed.gap);
    }
    gaps.sort_unstable();
    let at = |share: usize| gaps[(gaps.len() - 1) * share / 100];
    println!(
        "drain of {VIEWERS} viewers and a speaker: done in {took:?}, left {left:?}, {writes} writes; \
         gap p50 {:?}, p95 {:?}, max {:?}",
        at(50),
        at(95),
        at(100)
    );
    assert_eq!(joins, VIEWERS * 2, "everybody joined twice, nobody more often");
    assert!(took < Duration::from_secs(60));
    assert!(at(100) < Duration::from_millis(MOVED_MAX));
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

/// How somebody fared who came back whenever it was told to.
struct Stayed {
    joins: usize,
    /// Longest time without any media, exact to a fiftieth of a second.
    gap: Duration,
}

/// Stays in the room until told to stop: joins again at once when its session
/// ends, as an SDK does. The speaker publishes, everybody else receives.
async fn stay(url: String, identity: String, stop: Arc<AtomicBool>) -> Result<Stayed> {
    let speaks = identity == "speaker";
    let keys = KeyRing::single(API_KEY, API_SECRET)?;
    let server = Server { url, keys, pid: None, metrics: None };
    let video = Video { frame_rate: 25.0, packets_per_frame: 2, payload_bytes: 900, layers: 1 };
    let mut stayed = Stayed { joins: 0, gap: Duration::ZERO };
    let mut heard: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let config = ClientConfig {
            url: server.url.clone(),
            token: server.token("hall", &identity)?,
            video: speaks.then_some(video),
            audio: speaks,
            receive: Receive { audio: usize::from(!speaks), video: usize::from(!speaks) },
        };
        let client = Client::join(config).await.with_context(|| identity.clone())?;
        stayed.joins += 1;
        let mut packets = 0;
        while client.is_running() && !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = client.observed().sink.packets();
            if now > packets {
                packets = now;
                let before = heard.replace(Instant::now());
                stayed.gap = stayed.gap.max(before.map_or(Duration::ZERO, |it| it.elapsed()));
            }
        }
        if client.is_running() {
            client.leave().await?;
        }
    }
    Ok(stayed)
}

/// Asks etcd something by its JSON gateway.
fn ask_etcd(cluster: &Cluster, path: &str, body: &str) -> Result<serde_json::Value> {
    let endpoint = cluster.etcd.endpoints().into_iter().next().context("no etcd")?;
    let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://"))?;
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer of etcd")?;
    Ok(serde_json::from_str(body)?)
}

/// Everything in etcd: nothing of it names a person or tells of load. Answers
/// with the revision, which rises by one with each write.
fn kept_without_people(cluster: &Cluster) -> Result<i64> {
    let every_key = r#"{"key":"AA==","range_end":"AA=="}"#;
    let answer = ask_etcd(cluster, "/v3/kv/range", every_key)?;
    let entries = answer["kvs"].as_array().context("etcd is empty")?;
    let mut keys = Vec::new();
    for entry in entries {
        let text = |field: &str| -> Result<String> {
            let bytes = BASE64_STANDARD.decode(entry[field].as_str().unwrap_or_default())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let (key, value) = (text("key")?, text("value")?);
        for word in ["\"ada\"", "\"bob\"", "viewer", "speaker", "egress", "busiest", "subscri"] {
            anyhow::ensure!(!key.contains(word) && !value.contains(word), "{key}: {value}");
        }
        keys.push(key);
    }
    println!("etcd holds {keys:?}");
    let known = ["/nodes/", "/lifecycle/", "/rooms/", "/elections/"];
    let strange = keys.iter().find(|key| !known.iter().any(|folder| key.contains(folder)));
    anyhow::ensure!(strange.is_none(), "{strange:?} is no key of ours");
    revision_of(&answer)
}

fn revision(cluster: &Cluster) -> Result<i64> {
    revision_of(&ask_etcd(cluster, "/v3/kv/range", r#"{"key":"AA=="}"#)?)
}

fn revision_of(answer: &serde_json::Value) -> Result<i64> {
    Ok(answer["header"]["revision"].as_str().context("no revision")?.parse()?)
}
