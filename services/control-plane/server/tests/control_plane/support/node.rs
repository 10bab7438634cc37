//! A media node as the control plane sees it: a real gRPC server that keeps the
//! rules of `NodeService` and remembers what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use headwater_model::NodeId;
use headwater_proto::node::v1::command_participant_request::Command;
use headwater_proto::node::v1::control_request::Request as Order;
use headwater_proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use headwater_proto::node::v1::{
    AssignRoom, CloseReason, CommandParticipantRequest, CommandParticipantResponse, ControlRequest,
    ControlResponse, ListParticipantsRequest, ListParticipantsResponse, Participant,
    ParticipantPhase, ReleaseRoom, RoomReport, SendDataRequest, SendDataResponse, Track,
    UpdateSubscription,
};
use headwater_proto::v1;
use headwater_registry::record::{NodeRecord, Record as _, ShardAddresses};
use headwater_registry::{Operation, Store, Transaction, schema};
use headwater_rpc::{ClusterCredential, Server, ServerConfig, status};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Nodes report every second; tests need not wait that long.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);

/// One room as the node carries it.
#[derive(Debug, Clone)]
pub struct Carried {
    pub room: v1::Room,
    pub shard: u32,
    pub epoch: u64,
    pub participants: Vec<Participant>,
    pub empty_since: Instant,
    pub ever_joined: bool,
}

/// What a node knows and remembers.
#[derive(Debug, Default)]
pub struct Memory {
    pub rooms: BTreeMap<String, Carried>,
    pub assigned: Vec<AssignRoom>,
    pub released: Vec<ReleaseRoom>,
    pub data: Vec<SendDataRequest>,
    pub subscriptions: Vec<(String, UpdateSubscription)>,
    pub removed: Vec<(String, CloseReason)>,
    pub busiest_shard: f32,
    /// Where it says that it takes relay links.
    pub relay_address: Option<SocketAddr>,
    /// It says that it is about to stop.
    pub leaving: bool,
    /// Nodes whose relay links it says went silent.
    pub lost: Vec<String>,
    /// Nodes to which it says a relay link is up.
    pub linked: Vec<String>,
    /// `traceparent` of every call that listed participants.
    pub traceparents: Vec<String>,
}

impl Memory {
    fn obey(&mut self, order: Order) {
        match order {
            Order::AssignRoom(assign) => {
                let room = assign.room.clone().expect("a room comes with its order");
                let epoch = room.plan.as_ref().map_or(0, |plan| plan.epoch);
                self.assigned.push(assign.clone());
                let known = self.rooms.get(&assign.room_id);
                if known.is_some_and(|known| known.epoch > epoch) {
                    return;
                }
                let carried = Carried {
                    room,
                    shard: assign.shard,
                    epoch,
                    participants: known.map_or_else(Vec::new, |known| known.participants.clone()),
                    empty_since: known.map_or_else(Instant::now, |known| known.empty_since),
                    ever_joined: known.is_some_and(|known| known.ever_joined),
                };
                self.rooms.insert(assign.room_id, carried);
            }
            Order::ReleaseRoom(release) => {
                if self.rooms.get(&release.room_id).is_some_and(|it| it.epoch <= release.epoch) {
                    self.rooms.remove(&release.room_id);
                }
                self.released.push(release);
            }
        }
    }

    fn report(&self, boot_id: &str) -> ControlResponse {
        let rooms = self.rooms.iter().map(|(id, carried)| RoomReport {
            room_id: id.clone(),
            room_uid: carried.room.uid.clone(),
            epoch: carried.epoch,
            shard: carried.shard,
            participant_count: count(carried.participants.len()),
            publisher_count: count(
                carried.participants.iter().filter(|it| !it.tracks.is_empty()).count(),
            ),
            empty_millis: if carried.participants.is_empty() {
                carried.empty_since.elapsed().as_millis().max(1).try_into().unwrap()
            } else {
                0
            },
            ever_joined: carried.ever_joined,
            ..RoomReport::default()
        });
        let participants = self.rooms.values().map(|carried| carried.participants.len()).sum();
        ControlResponse {
            boot_id: boot_id.to_owned(),
            load: Some(v1::NodeLoad {
                room_count: count(self.rooms.len()),
                participant_count: count(participants),
                busiest_shard_ratio: self.busiest_shard,
                ..v1::NodeLoad::default()
            }),
            rooms: rooms.collect(),
            leaving: self.leaving,
            lost_node_ids: self.lost.clone(),
            linked_node_ids: self.linked.clone(),
        }
    }
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap()
}

/// A node at work.
pub struct TestNode {
    pub id: NodeId,
    pub boot_id: String,
    pub address: SocketAddr,
    memory: Arc<Mutex<Memory>>,
    stop: CancellationToken,
}

impl TestNode {
    /// Starts a node and registers it.
    pub async fn start(id: &str, credential: &ClusterCredential, store: &dyn Store) -> Self {
        Self::start_with(id, credential, store, Memory::default()).await
    }

    /// Starts a node that has something in its memory already.
    pub async fn start_with(
        id: &str,
        credential: &ClusterCredential,
        store: &dyn Store,
        memory: Memory,
    ) -> Self {
        let memory = Arc::new(Mutex::new(memory));
        let stop = CancellationToken::new();
        let boot_id = format!("{id}-{:x}", rand::random::<u64>());
        let service = Service { memory: memory.clone(), boot_id: boot_id.clone() };
        // Without grace, cancelling it is like killing it.
        let config = ServerConfig { shutdown_grace_seconds: 0, ..ServerConfig::default() };
        let server = Server::new(config)
            .add_internal_service(NodeServiceServer::new(service), credential)
            .serve(stop.clone())
            .await
            .unwrap();
        server.set_serving().await;
        let address = server.address();
        tokio::spawn(server.join());
        let node = Self { id: NodeId::new(id).unwrap(), boot_id, address, memory, stop };
        node.register(store).await;
        node
    }

    pub async fn register(&self, store: &dyn Store) {
        self.register_as(store, &self.id, &self.boot_id).await;
    }

    /// Registers its address as that of some process of some node.
    pub async fn register_as(&self, store: &dyn Store, id: &NodeId, boot_id: &str) {
        let shard = |port| ShardAddresses {
            udp: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            tcp: Vec::new(),
        };
        let record = NodeRecord {
            node_id: id.clone(),
            boot_id: boot_id.to_owned(),
            incarnation: 1,
            rpc_url: format!("http://{}", self.address),
            shards: vec![shard(40_000), shard(40_001)],
            zone: "zone-1".to_owned(),
            region: "region-1".to_owned(),
            participant_capacity: 0,
            relay_address: self.memory().relay_address,
            build: "test".to_owned(),
            start_time: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        };
        let put = Transaction::new().put(schema::node(id), record.encode());
        assert!(store.commit(put).await.unwrap().succeeded);
    }

    /// Takes the registration away, as the end of its lease does.
    pub async fn unregister(&self, store: &dyn Store) {
        let delete = Transaction::new().then(Operation::Delete(schema::node(&self.id)));
        assert!(store.commit(delete).await.unwrap().succeeded);
    }

    /// Ends the process without a word.
    pub fn kill(&self) {
        self.stop.cancel();
    }

    pub fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    pub fn carries(&self, room: &str) -> bool {
        self.memory().rooms.contains_key(room)
    }

    pub fn epoch_of(&self, room: &str) -> Option<u64> {
        self.memory().rooms.get(room).map(|carried| carried.epoch)
    }

    /// Lets somebody into a room.
    pub fn join(&self, room: &str, identity: &str, tracks: &[&str]) {
        let mut memory = self.memory();
        let carried = memory.rooms.get_mut(room).expect("the room is carried");
        carried.ever_joined = true;
        carried.participants.push(participant(identity, tracks));
    }

    /// Lets everybody out of a room.
    pub fn empty(&self, room: &str) {
        let mut memory = self.memory();
        let carried = memory.rooms.get_mut(room).expect("the room is carried");
        carried.participants.clear();
        carried.empty_since = Instant::now();
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn participant(identity: &str, tracks: &[&str]) -> Participant {
    let track = |uid: &&str| Track {
        track: Some(v1::Track {
            uid: (*uid).to_owned(),
            kind: v1::TrackKind::Audio.into(),
            ..v1::Track::default()
        }),
        ..Track::default()
    };
    Participant {
        uid: format!("PA_{identity}"),
        identity: identity.to_owned(),
        phase: ParticipantPhase::Active.into(),
        permission: Some(v1::ParticipantPermission {
            can_subscribe: true,
            ..v1::ParticipantPermission::default()
        }),
        tracks: tracks.iter().map(track).collect(),
        ..Participant::default()
    }
}

struct Service {
    memory: Arc<Mutex<Memory>>,
    boot_id: String,
}

#[tonic::async_trait]
impl NodeService for Service {
    type ControlStream =
        Pin<Box<dyn Stream<Item = Result<ControlResponse, Status>> + Send + 'static>>;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let mut orders = request.into_inner();
        let memory = self.memory.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = orders.message().await {
                memory.lock().unwrap().obey(request.request.expect("an order"));
            }
        });
        let (memory, boot_id) = (self.memory.clone(), self.boot_id.clone());
        let ticks = tokio::time::interval(REPORT_INTERVAL);
        let reports = futures::stream::unfold(ticks, move |mut ticks| {
            let (memory, boot_id) = (memory.clone(), boot_id.clone());
            async move {
                ticks.tick().await;
                let report = memory.lock().unwrap().report(&boot_id);
                Some((Ok(report), ticks))
            }
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let traceparent = request.metadata().get("traceparent").map(|it| it.to_str().unwrap());
        let traceparent = traceparent.unwrap_or_default().to_owned();
        let room = request.into_inner().room_id;
        let mut memory = self.memory.lock().unwrap();
        memory.traceparents.push(traceparent);
        let carried = memory.rooms.get(&room).ok_or_else(|| status::not_found("room", &room))?;
        Ok(Response::new(ListParticipantsResponse { participants: carried.participants.clone() }))
    }

    async fn command_participant(
        &self,
        request: Request<CommandParticipantRequest>,
    ) -> Result<Response<CommandParticipantResponse>, Status> {
        let CommandParticipantRequest { room_id, identity, command } = request.into_inner();
        let mut memory = self.memory.lock().unwrap();
        let carried =
            memory.rooms.get_mut(&room_id).ok_or_else(|| status::not_found("room", &room_id))?;
        let index = carried
            .participants
            .iter()
            .position(|it| it.identity == identity)
            .ok_or_else(|| status::not_found("participant", &identity))?;
        let participant = &mut carried.participants[index];
        match command.expect("a command") {
            Command::Remove(remove) => {
                let participant = carried.participants.remove(index);
                memory.removed.push((identity, remove.reason()));
                let participant = Some(participant);
                return Ok(Response::new(CommandParticipantResponse { participant }));
            }
            Command::MuteTrack(mute) => {
                let track = participant
                    .tracks
                    .iter_mut()
                    .filter_map(|track| track.track.as_mut())
                    .find(|track| track.uid == mute.track_uid)
                    .ok_or_else(|| status::not_found("track", &mute.track_uid))?;
                track.muted = mute.muted;
            }
            Command::Update(update) => {
                if let Some(name) = update.display_name {
                    participant.display_name = name;
                }
                if let Some(metadata) = update.metadata {
                    participant.metadata = metadata;
                }
                for (key, value) in update.attributes {
                    if value.is_empty() {
                        participant.attributes.remove(&key);
                    } else {
                        participant.attributes.insert(key, value);
                    }
                }
                if update.permission.is_some() {
                    participant.permission = update.permission;
                }
            }
            Command::UpdateSubscription(update) => {
                let participant = Some(participant.clone());
                memory.subscriptions.push((identity, update));
                return Ok(Response::new(CommandParticipantResponse { participant }));
            }
        }
        let participant = Some(participant.clone());
        Ok(Response::new(CommandParticipantResponse { participant }))
    }

    async fn send_data(
        &self,
        request: Request<SendDataRequest>,
    ) -> Result<Response<SendDataResponse>, Status> {
        self.memory.lock().unwrap().data.push(request.into_inner());
        Ok(Response::new(SendDataResponse {}))
    }
}
