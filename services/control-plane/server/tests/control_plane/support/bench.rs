//! A bench: replicas of the control plane and nodes on one store.

use std::sync::Arc;
use std::time::Duration;

use headwater_control_plane::{Config, Dependencies, Running, start};
use headwater_model::Grants;
use headwater_proto::control::v1::placement_service_client::PlacementServiceClient;
use headwater_proto::control::v1::{PlaceParticipantRequest, PlaceParticipantResponse};
use headwater_proto::v1::cluster_service_client::ClusterServiceClient;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_proto::v1::{
    CreateRoomRequest, DeleteRoomRequest, GetRoomRequest, ListNodesRequest, NodeState, Room,
};
use headwater_rpc::{ClientTls, ClusterCredential, Connection, KeyRing, TokenRequest, connect};
use headwater_telemetry::{Metrics, Readiness};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::eventually;
use super::node::TestNode;
use super::store::RemovableStore;

/// One replica, with clients to it.
pub struct Replica {
    pub rooms: RoomServiceClient<Connection>,
    pub cluster: ClusterServiceClient<Connection>,
    pub placement: PlacementServiceClient<Connection>,
    pub url: String,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub running: Running,
    pub stop: CancellationToken,
}

pub struct Bench {
    pub store: Arc<RemovableStore>,
    pub keys: Arc<KeyRing>,
    pub credential: ClusterCredential,
    pub replicas: Vec<Replica>,
    pub nodes: Vec<TestNode>,
}

impl Bench {
    /// So many replicas and these nodes, all of them having met.
    pub async fn start(replicas: usize, nodes: &[&str]) -> Self {
        let mut bench = Self {
            store: RemovableStore::new(),
            keys: Arc::new(KeyRing::single("devkey", "secret").unwrap()),
            credential: ClusterCredential::new(&SecretString::from("a secret of the cluster"))
                .unwrap(),
            replicas: Vec::new(),
            nodes: Vec::new(),
        };
        for _ in 0..replicas {
            bench.add_replica(Config::default()).await;
        }
        for node in nodes {
            let node = TestNode::start(node, &bench.credential, &*bench.store).await;
            bench.nodes.push(node);
        }
        bench.all_met().await;
        bench
    }

    pub async fn add_replica(&mut self, config: Config) {
        let stop = CancellationToken::new();
        let (readiness, metrics) = (Readiness::new(), Metrics::new());
        let dependencies = Dependencies {
            store: self.store.clone(),
            keys: self.keys.clone(),
            credential: self.credential.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
        };
        let running = start(config, dependencies, stop.clone()).await.unwrap();
        let url = format!("http://{}", running.address);
        let open = || connect(&url, &ClientTls::default(), None).unwrap();
        let internal = connect(&url, &ClientTls::default(), Some(self.credential.clone())).unwrap();
        self.replicas.push(Replica {
            rooms: RoomServiceClient::new(open()),
            cluster: ClusterServiceClient::new(open()),
            placement: PlacementServiceClient::new(internal),
            url: url.clone(),
            readiness,
            metrics,
            running,
            stop,
        });
    }

    /// Waits until every replica has a stream to every node.
    pub async fn all_met(&self) {
        for replica in &self.replicas {
            eventually("every replica meets every node", || async {
                let request = self.with(self.everything(), ListNodesRequest::default());
                let Ok(answer) = replica.cluster.clone().list_nodes(request).await else {
                    return false;
                };
                let nodes = answer.into_inner().nodes;
                let met = nodes
                    .iter()
                    .filter(|it| it.load.is_some() && it.state() == NodeState::Serving)
                    .count();
                met == self.nodes.len()
            })
            .await;
        }
    }

    pub fn node(&self, id: &str) -> &TestNode {
        self.nodes.iter().find(|node| node.id.as_str() == id).expect("a node of the bench")
    }

    /// Grants of a platform's backend.
    pub fn everything(&self) -> Grants {
        Grants { room_create: true, room_list: true, ..Grants::default() }
    }

    /// Grants of a room's administrator.
    pub fn admin(&self, room: &str) -> Grants {
        Grants { room: room.to_owned(), room_admin: true, ..Grants::default() }
    }

    pub fn token(&self, grants: Grants) -> String {
        let now = headwater_rpc::token::unix_seconds();
        let ttl = Duration::from_secs(600);
        self.keys.mint(&TokenRequest { grants, ttl }, now).unwrap()
    }

    /// A request with a token.
    pub fn with<T>(&self, grants: Grants, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.token(grants));
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        request
    }

    pub async fn create(&self, replica: usize, room: &str) -> Result<Room, Status> {
        let request = CreateRoomRequest { room_id: room.to_owned(), ..Default::default() };
        self.create_as(replica, request).await
    }

    pub async fn create_as(
        &self,
        replica: usize,
        request: CreateRoomRequest,
    ) -> Result<Room, Status> {
        let request = self.with(self.everything(), request);
        let answer = self.replicas[replica].rooms.clone().create_room(request).await?;
        Ok(answer.into_inner().room.expect("a room"))
    }

    pub async fn get(&self, replica: usize, room: &str) -> Result<Room, Status> {
        let request = GetRoomRequest { name: format!("rooms/{room}") };
        let request = self.with(self.everything(), request);
        let answer = self.replicas[replica].rooms.clone().get_room(request).await?;
        Ok(answer.into_inner().room.expect("a room"))
    }

    pub async fn delete(&self, replica: usize, room: &str) -> Result<(), Status> {
        let request =
            DeleteRoomRequest { name: format!("rooms/{room}"), request_id: String::new() };
        let request = self.with(self.everything(), request);
        self.replicas[replica].rooms.clone().delete_room(request).await.map(drop)
    }

    pub async fn place_as(
        &self,
        replica: usize,
        request: PlaceParticipantRequest,
    ) -> PlaceParticipantResponse {
        let mut placement = self.replicas[replica].placement.clone();
        placement.place_participant(request).await.unwrap().into_inner()
    }

    /// Places a participant who may create the room.
    pub async fn place(&self, replica: usize, room: &str) -> PlaceParticipantResponse {
        self.place_as(replica, place_request(room)).await
    }
}

pub fn place_request(room: &str) -> PlaceParticipantRequest {
    PlaceParticipantRequest {
        room_id: room.to_owned(),
        identity: "ada".to_owned(),
        may_create: true,
        ..PlaceParticipantRequest::default()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for replica in &self.replicas {
            replica.stop.cancel();
        }
    }
}
