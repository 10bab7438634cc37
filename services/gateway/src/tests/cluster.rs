//! A cluster of scripts: placement, rooms and nodes that do what a test says,
//! behind the real gRPC servers with the real credential.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_model::grants::Grants;
use headwater_proto::control::v1::placement_service_server::{
    PlacementService, PlacementServiceServer,
};
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest, PlaceParticipantResponse};
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_proto::node::v1::session_service_server::{SessionService, SessionServiceServer};
use headwater_proto::v1;
use headwater_proto::v1::room_service_server::{RoomService, RoomServiceServer};
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{ClusterCredential, KeyRing, Server, ServerConfig, TokenRequest};
use headwater_telemetry::{Metrics, Readiness};
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{Config, Dependencies, Running, start};

/// Nothing in these tests takes this long unless it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it should not take this long")
}

pub(super) fn keys() -> KeyRing {
    KeyRing::single("devkey", "secret").unwrap()
}

pub(super) fn credential() -> ClusterCredential {
    ClusterCredential::new(&SecretString::from("a secret of tests only")).unwrap()
}

/// Grants to join `lobby` as `ada`.
pub(super) fn ada() -> Grants {
    Grants {
        identity: "ada".into(),
        display_name: "Ada".into(),
        room: "lobby".into(),
        room_join: true,
        ..Default::default()
    }
}

pub(super) fn token(grants: &Grants) -> String {
    let request = TokenRequest { grants: grants.clone(), ttl: Duration::from_secs(3600) };
    keys().mint(&request, unix_seconds()).unwrap()
}

/// A gateway with one control plane and one node.
pub(super) struct Cluster {
    pub(super) gateway: Running,
    pub(super) metrics: Metrics,
    pub(super) readiness: Readiness,
    pub(super) control: ControlPlane,
    pub(super) node: Node,
    pub(super) shutdown: CancellationToken,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let node = Node::start().await;
        let control = ControlPlane::start(node.url()).await;
        let mut config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            control_plane_urls: vec![control.url.clone()],
            ..Config::default()
        };
        change(&mut config);
        let metrics = Metrics::new();
        let readiness = Readiness::new();
        let shutdown = CancellationToken::new();
        let dependencies = Dependencies {
            keys: Arc::new(keys()),
            credential: credential(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
        };
        let gateway = start(config, dependencies, shutdown.clone()).await.unwrap();
        Self { gateway, metrics, readiness, control, node, shutdown }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.address)
    }

    /// The value of a series in the metrics, by its text.
    pub(super) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// Answers of the control plane, in the order they are given; when there are
/// none left, everybody is admitted to the first node.
pub(super) struct ControlPlane {
    pub(super) url: String,
    pub(super) script: Arc<Script>,
    pub(super) shutdown: CancellationToken,
}

pub(super) struct Script {
    node_url: String,
    places: Mutex<VecDeque<Result<PlaceParticipantResponse, Status>>>,
    asked: Mutex<Vec<PlaceParticipantRequest>>,
    traceparents: Mutex<Vec<String>>,
    /// Calls of RoomService: method, bearer, request in words.
    pub(super) calls: Mutex<Vec<(String, String, String)>>,
    /// The next calls of RoomService fail so.
    pub(super) failures: Mutex<VecDeque<Status>>,
}

impl ControlPlane {
    pub(super) async fn start(node_url: String) -> Self {
        let script = Arc::new(Script {
            node_url,
            places: Mutex::default(),
            asked: Mutex::default(),
            traceparents: Mutex::default(),
            calls: Mutex::default(),
            failures: Mutex::default(),
        });
        let shutdown = CancellationToken::new();
        let server = Server::new(ServerConfig::default())
            .add_internal_service(PlacementServiceServer::from_arc(script.clone()), &credential())
            .add_service(RoomServiceServer::from_arc(script.clone()))
            .serve(shutdown.clone())
            .await
            .unwrap();
        Self { url: format!("http://{}", server.address()), script, shutdown }
    }

    /// Says the next answer.
    pub(super) fn answer(&self, place: Result<PlaceParticipantResponse, Status>) {
        self.script.places.lock().unwrap().push_back(place);
    }

    pub(super) fn admit(&self, node_id: &str, node_url: &str, epoch: u64) {
        self.answer(Ok(admitted("lobby", node_id, node_url, epoch)));
    }

    pub(super) fn refuse(&self, admission: Admission, retry_after_seconds: i64) {
        self.answer(Ok(PlaceParticipantResponse {
            admission: admission.into(),
            retry_after: Some(prost_types::Duration { seconds: retry_after_seconds, nanos: 0 }),
            reason: "the script says so".into(),
            ..Default::default()
        }));
    }

    /// What placement was asked for, so far.
    pub(super) fn asked(&self) -> Vec<PlaceParticipantRequest> {
        self.script.asked.lock().unwrap().clone()
    }

    /// Trace contexts that placement was asked in, so far.
    pub(super) fn traceparents(&self) -> Vec<String> {
        self.script.traceparents.lock().unwrap().clone()
    }

    /// What RoomService was asked for, so far.
    pub(super) fn calls(&self) -> Vec<(String, String, String)> {
        self.script.calls.lock().unwrap().clone()
    }

    pub(super) fn fail(&self, status: Status) {
        self.script.failures.lock().unwrap().push_back(status);
    }
}

pub(super) fn room(id: &str) -> v1::Room {
    v1::Room {
        name: format!("rooms/{id}"),
        uid: "RM_1".into(),
        metadata: "about".into(),
        participant_count: 1,
        create_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 }),
        ..Default::default()
    }
}

fn admitted(room_id: &str, node_id: &str, url: &str, epoch: u64) -> PlaceParticipantResponse {
    PlaceParticipantResponse {
        admission: Admission::Admitted.into(),
        room: Some(room(room_id)),
        node_id: node_id.into(),
        node_url: url.into(),
        shard: 3,
        epoch,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl PlacementService for Script {
    async fn place_participant(
        &self,
        request: Request<PlaceParticipantRequest>,
    ) -> Result<Response<PlaceParticipantResponse>, Status> {
        if let Some(traceparent) = request.metadata().get("traceparent") {
            let traceparent = traceparent.to_str().unwrap().to_owned();
            self.traceparents.lock().unwrap().push(traceparent);
        }
        let request = request.into_inner();
        let room_id = request.room_id.clone();
        self.asked.lock().unwrap().push(request);
        let scripted = self.places.lock().unwrap().pop_front();
        scripted
            .unwrap_or_else(|| Ok(admitted(&room_id, "node-1", &self.node_url, 7)))
            .map(Response::new)
    }
}

impl Script {
    fn note<T: std::fmt::Debug>(&self, method: &str, request: Request<T>) -> Result<T, Status> {
        let bearer = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let request = request.into_inner();
        let words = format!("{request:?}");
        self.calls.lock().unwrap().push((method.to_owned(), bearer, words));
        match self.failures.lock().unwrap().pop_front() {
            Some(status) => Err(status),
            None => Ok(request),
        }
    }
}

pub(super) fn participant(identity: &str) -> v1::Participant {
    v1::Participant {
        name: format!("rooms/lobby/participants/{identity}"),
        uid: format!("PA_{identity}"),
        identity: identity.into(),
        display_name: "Somebody".into(),
        state: v1::ParticipantState::Active.into(),
        tracks: vec![v1_track()],
        ..Default::default()
    }
}

fn v1_track() -> v1::Track {
    v1::Track {
        uid: "TR_VC1".into(),
        kind: v1::TrackKind::Video.into(),
        source: v1::TrackSource::Camera.into(),
        mime_type: "video/VP8".into(),
        ..Default::default()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RoomService for Script {
    async fn create_room(
        &self,
        r: Request<v1::CreateRoomRequest>,
    ) -> Answer<v1::CreateRoomResponse> {
        let request = self.note("CreateRoom", r)?;
        let room = v1::Room { name: format!("rooms/{}", request.room_id), ..request.room.unwrap() };
        Ok(Response::new(v1::CreateRoomResponse { room: Some(room) }))
    }

    async fn get_room(&self, r: Request<v1::GetRoomRequest>) -> Answer<v1::GetRoomResponse> {
        let request = self.note("GetRoom", r)?;
        let room = v1::Room { name: request.name, ..room("") };
        Ok(Response::new(v1::GetRoomResponse { room: Some(room) }))
    }

    async fn list_rooms(&self, r: Request<v1::ListRoomsRequest>) -> Answer<v1::ListRoomsResponse> {
        let request = self.note("ListRooms", r)?;
        let (id, next) = if request.page_token.is_empty() { ("a", "2") } else { ("b", "") };
        let rooms = vec![room(id)];
        Ok(Response::new(v1::ListRoomsResponse { rooms, next_page_token: next.into() }))
    }

    async fn update_room(
        &self,
        r: Request<v1::UpdateRoomRequest>,
    ) -> Answer<v1::UpdateRoomResponse> {
        let request = self.note("UpdateRoom", r)?;
        Ok(Response::new(v1::UpdateRoomResponse { room: request.room }))
    }

    async fn delete_room(
        &self,
        r: Request<v1::DeleteRoomRequest>,
    ) -> Answer<v1::DeleteRoomResponse> {
        self.note("DeleteRoom", r)?;
        Ok(Response::new(v1::DeleteRoomResponse {}))
    }

    async fn issue_token(
        &self,
        r: Request<v1::IssueTokenRequest>,
    ) -> Answer<v1::IssueTokenResponse> {
        self.note("IssueToken", r)?;
        Err(Status::unimplemented("no Twirp method needs it"))
    }

    async fn list_participants(
        &self,
        r: Request<v1::ListParticipantsRequest>,
    ) -> Answer<v1::ListParticipantsResponse> {
        let request = self.note("ListParticipants", r)?;
        let (who, next) = if request.page_token.is_empty() { ("ada", "2") } else { ("bob", "") };
        Ok(Response::new(v1::ListParticipantsResponse {
            participants: vec![participant(who)],
            next_page_token: next.into(),
        }))
    }

    async fn get_participant(
        &self,
        r: Request<v1::GetParticipantRequest>,
    ) -> Answer<v1::GetParticipantResponse> {
        self.note("GetParticipant", r)?;
        let participant = Some(participant("ada"));
        Ok(Response::new(v1::GetParticipantResponse { participant }))
    }

    async fn update_participant(
        &self,
        r: Request<v1::UpdateParticipantRequest>,
    ) -> Answer<v1::UpdateParticipantResponse> {
        let request = self.note("UpdateParticipant", r)?;
        let participant = request.participant;
        Ok(Response::new(v1::UpdateParticipantResponse { participant }))
    }

    async fn remove_participant(
        &self,
        r: Request<v1::RemoveParticipantRequest>,
    ) -> Answer<v1::RemoveParticipantResponse> {
        self.note("RemoveParticipant", r)?;
        Ok(Response::new(v1::RemoveParticipantResponse {}))
    }

    async fn mute_track(&self, r: Request<v1::MuteTrackRequest>) -> Answer<v1::MuteTrackResponse> {
        let request = self.note("MuteTrack", r)?;
        let track = Some(v1::Track { muted: request.muted, ..v1_track() });
        Ok(Response::new(v1::MuteTrackResponse { track }))
    }

    async fn update_subscriptions(
        &self,
        r: Request<v1::UpdateSubscriptionsRequest>,
    ) -> Answer<v1::UpdateSubscriptionsResponse> {
        self.note("UpdateSubscriptions", r)?;
        Ok(Response::new(v1::UpdateSubscriptionsResponse {}))
    }

    async fn send_data(&self, r: Request<v1::SendDataRequest>) -> Answer<v1::SendDataResponse> {
        self.note("SendData", r)?;
        Ok(Response::new(v1::SendDataResponse {}))
    }
}

/// A node whose sessions are played by the test.
pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    attached: tokio::sync::Mutex<mpsc::Receiver<Attached>>,
}

struct Sessions {
    attached: mpsc::Sender<Attached>,
}

/// One session stream, from the node's side.
pub(super) struct Attached {
    pub(super) join: node::Join,
    requests: Streaming<node::AttachRequest>,
    events: mpsc::Sender<Result<node::AttachResponse, Status>>,
}

impl Node {
    pub(super) async fn start() -> Self {
        let (attached, receiver) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let config = ServerConfig { shutdown_grace_seconds: 0, ..ServerConfig::default() };
        let server = Server::new(config)
            .add_internal_service(SessionServiceServer::new(Sessions { attached }), &credential())
            .serve(shutdown.clone())
            .await
            .unwrap();
        Self { address: server.address(), shutdown, attached: tokio::sync::Mutex::new(receiver) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next session that a gateway opens.
    pub(super) async fn attached(&self) -> Attached {
        soon(async { self.attached.lock().await.recv().await }).await.unwrap()
    }

    /// Whether a session was opened that no test took.
    pub(super) async fn is_idle(&self) -> bool {
        self.attached.lock().await.try_recv().is_err()
    }
}

#[tonic::async_trait]
impl SessionService for Sessions {
    type AttachStream = ReceiverStream<Result<node::AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<node::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let (events, stream) = mpsc::channel(4096);
        let attached = self.attached.clone();
        tokio::spawn(async move {
            let first = requests.message().await.unwrap().unwrap();
            let Some(ToNode::Join(join)) = first.request else { panic!("the first is a join") };
            let _ = attached.send(Attached { join, requests, events }).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Attached {
    pub(super) async fn send(&self, event: Event) {
        let event = node::AttachResponse { event: Some(event) };
        self.events.send(Ok(event)).await.unwrap();
    }

    /// The participant as this session's join makes it.
    pub(super) fn own(&self) -> node::Participant {
        node::Participant {
            uid: "PA_own".into(),
            identity: self.join.identity.clone(),
            display_name: self.join.display_name.clone(),
            metadata: self.join.metadata.clone(),
            attributes: self.join.attributes.clone(),
            phase: node::ParticipantPhase::Joined.into(),
            permission: self.join.permission.clone(),
            door_payload: self.join.door_payload.clone(),
            version: 1,
            ..Default::default()
        }
    }

    pub(super) async fn send_joined(&self) {
        self.send(Event::Joined(node::Joined {
            room: Some(room("lobby")),
            participant: Some(self.own()),
            resumed: !self.join.resume_participant_uid.is_empty(),
            ..Default::default()
        }))
        .await;
    }

    pub(super) async fn send_closed(&self, reason: node::CloseReason, action: node::CloseAction) {
        self.send(Event::Closed(node::Closed {
            reason: reason.into(),
            action: action.into(),
            message: String::new(),
        }))
        .await;
    }

    /// The next request; `None` when the gateway has ended the stream.
    pub(super) async fn request(&mut self) -> Option<ToNode> {
        match soon(self.requests.message()).await {
            Ok(Some(request)) => Some(request.request.unwrap()),
            Ok(None) | Err(_) => None,
        }
    }

    /// Ends the stream with an error.
    pub(super) async fn fail(self, status: Status) {
        self.events.send(Err(status)).await.unwrap();
    }

    /// Ends the stream without a word, as a dying node does.
    pub(super) fn break_off(self) {
        drop(self.events);
    }
}
