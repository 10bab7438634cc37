//! More people come at once than a room admits, on three nodes: exactly so many get in,
//! with media, and the others hear why and when to come again.
//!
//! `HEADWATER_E2E_STORM` says how many come, five eighths of whom are admitted.

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, Role, wait};
use headwater_loadtest::client::{Client, ClientConfig, Receive};
use headwater_loadtest::run::Server;
use headwater_model::Grants;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_proto::v1::{CreateRoomRequest, Room};
use headwater_rpc::client::ClientTls;
use headwater_rpc::connect;
use headwater_rpc::token::{KeyRing, TokenRequest, unix_seconds};

const ROOM: &str = "launch";

async fn create(cluster: &Cluster, max_participants: u32) {
    let url = format!("http://127.0.0.1:{}", cluster.control_planes[0].port);
    let grants = Grants { room: ROOM.to_owned(), room_create: true, ..Grants::default() };
    let request = TokenRequest { grants, ttl: Duration::from_secs(60) };
    let token = KeyRing::single(API_KEY, API_SECRET).unwrap().mint(&request, unix_seconds());
    let connection = connect(&url, &ClientTls::default(), None).unwrap();
    let mut request = tonic::Request::new(CreateRoomRequest {
        room: Some(Room { max_participants, ..Room::default() }),
        room_id: ROOM.to_owned(),
        ..CreateRoomRequest::default()
    });
    let bearer = format!("Bearer {}", token.unwrap());
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    RoomServiceClient::new(connection).create_room(request).await.unwrap();
}

async fn join(server: &Server, identity: String) -> (anyhow::Result<Client>, Duration) {
    let begun = Instant::now();
    let config = ClientConfig {
        url: server.url.clone(),
        token: server.token(ROOM, &identity).unwrap(),
        video: None,
        audio: true,
        receive: Receive::default(),
    };
    (Client::join(config).await, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_on_a_limited_room_admits_exactly_its_limit() {
    let coming = std::env::var("HEADWATER_E2E_STORM").ok();
    let coming = coming.map_or(40, |count| count.parse::<usize>().unwrap());
    let limit = coming * 5 / 8;
    let options = Options { etcd_members: 1, media_nodes: 3, ..Options::default() };
    let cluster = Cluster::start(&options).unwrap();
    create(&cluster, u32::try_from(limit).unwrap()).await;
    let server = Server {
        url: cluster.gateways[0].signal_url(),
        keys: KeyRing::single(API_KEY, API_SECRET).unwrap(),
        pid: None,
        metrics: None,
    };
    let begun = Instant::now();
    let storm = join_all((0..coming).map(|number| join(&server, format!("person-{number}"))));
    let (mut admitted, mut refused, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for (outcome, time) in storm.await {
        match outcome {
            Ok(client) => {
                times.push(time);
                admitted.push(client);
            }
            Err(error) => refused.push(format!("{error:#}")),
        }
    }
    times.sort();
    println!(
        "{coming} joins in {:?}: {} admitted, half of them within {:?}, all within {:?}",
        begun.elapsed(),
        admitted.len(),
        times[times.len() / 2],
        times[times.len() - 1],
    );
    assert_eq!(admitted.len(), limit, "{refused:?}");
    for reason in &refused {
        assert!(reason.contains("max participants") && reason.contains("again in"), "{reason}");
    }
    for client in &admitted {
        client.connected(Duration::from_secs(10)).await.unwrap();
    }
    let on = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0);
    wait("all who were admitted are there", Duration::from_secs(10), || {
        let people: f64 = cluster.media_nodes.iter().map(on).sum();
        (people == limit as f64, format!("{people}"))
    })
    .unwrap();
    // One leaves, and one more gets in.
    admitted.pop().unwrap().leave().await.unwrap();
    let late = join(&server, "late".to_owned()).await.0.unwrap();
    late.connected(Duration::from_secs(10)).await.unwrap();
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
