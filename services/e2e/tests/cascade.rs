//! One room on several nodes: processes of their own, linked by QUIC with mutual
//! TLS, planned by the control plane as people come.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_e2e::api::nodes_of;
use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, Role, wait};
use headwater_loadtest::client::{Client, ClientConfig, Receive};
use headwater_loadtest::run::Server;
use headwater_rpc::token::KeyRing;
use headwater_testkit::script;

const ROOM: &str = "town-hall";
const PEOPLE: usize = 6;
/// Packets of 20 ms: what half a second of sound is at least.
const HEARD: u64 = 20;

/// Publishes audio and receives that of everybody else.
async fn join(url: &str, identity: &str) -> Client {
    let keys = KeyRing::single(API_KEY, API_SECRET).unwrap();
    let server = Server { url: url.to_owned(), keys, pid: None, metrics: None };
    let client = Client::join(ClientConfig {
        url: server.url.clone(),
        token: server.token(ROOM, identity).unwrap(),
        video: None,
        audio: true,
        receive: Receive { audio: PEOPLE - 1, video: 0 },
    })
    .await
    .unwrap();
    client.connected(Duration::from_secs(10)).await.unwrap();
    client
}

/// Streams that each of them hears.
fn heard(clients: &[Client]) -> Vec<usize> {
    let count = |client: &Client| {
        let observed = client.observed();
        observed.sink.streams().values().filter(|stream| stream.packets >= HEARD).count()
    };
    clients.iter().map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_on_three_nodes_is_one_room() {
    let options = Options { media_nodes: 3, shard_participants: Some(2), ..Options::default() };
    let cluster = Cluster::start(&options).unwrap();
    let mut clients = Vec::new();
    for number in 0..PEOPLE {
        let url = cluster.gateways[number % 2].signal_url();
        clients.push(join(&url, &format!("person-{number}")).await);
    }
    let nodes: BTreeSet<String> = nodes_of(&cluster, ROOM).unwrap().into_iter().collect();
    let on = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0);
    // Each shard is full with two, and a fresh node is better than a second shard.
    wait("two people on each node", Duration::from_secs(20), || {
        let people: Vec<f64> = cluster.media_nodes.iter().map(on).collect();
        (people == [2.0, 2.0, 2.0], format!("{people:?}"))
    })
    .unwrap();
    println!("{PEOPLE} people; the plan names {nodes:?}");
    assert_eq!(nodes.len(), 3, "{nodes:?}");

    wait("everybody hears everybody", Duration::from_secs(20), || {
        let heard = heard(&clients);
        (heard.iter().all(|count| *count == PEOPLE - 1), format!("{heard:?}"))
    })
    .unwrap();
    clients.iter().for_each(Client::reset);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut lost, mut packets) = (0, 0);
    for client in &clients {
        lost += client.observed().sink.lost();
        packets += client.observed().sink.packets();
    }
    println!("2 s of sound: {lost} of {packets} packets lost");
    assert_eq!(heard(&clients), vec![PEOPLE - 1; PEOPLE]);
    assert_eq!(lost, 0, "of {packets}");
    for client in clients {
        client.leave().await.unwrap();
    }
    wait("everybody has left everywhere", Duration::from_secs(10), || {
        let people: f64 = cluster.media_nodes.iter().map(on).sum();
        (people == 0.0, format!("{people}"))
    })
    .unwrap();
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

#[test]
fn two_pages_on_different_nodes_see_hear_and_message_each_other() {
    let options = Options { shard_participants: Some(1), ..Options::default() };
    let cluster = Cluster::start(&options).unwrap();
    let target = cluster.target.clone();
    let limit = Duration::from_secs(90);
    // These nodes are known by loopback addresses alone, which Chromium reaches by TCP.
    let pages =
        std::thread::spawn(move || script::run("two_pages.mjs", &["v1", "any"], &target, limit));
    let on = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0);
    wait("one page on each node", Duration::from_secs(60), || {
        let people: Vec<f64> = cluster.media_nodes.iter().map(on).collect();
        (people == [1.0, 1.0] || pages.is_finished(), format!("{people:?}"))
    })
    .unwrap();
    let apart = !pages.is_finished();
    println!("{}", pages.join().unwrap().unwrap());
    assert!(apart, "the pages were never on different nodes");
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
