//! The node service: what the control plane orders and asks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;
use headwater_model::{Epoch, NodeId, RoomId, ShardIndex};
use headwater_proto::node::v1::control_request::Request as Order;
use headwater_proto::node::v1::node_service_server::NodeService;
use headwater_proto::node::v1::{
    CommandParticipantRequest, CommandParticipantResponse, ControlRequest, ControlResponse,
    ListParticipantsRequest, ListParticipantsResponse, SendDataRequest, SendDataResponse,
};
use headwater_proto::v1::NodeLoad;
use headwater_room::{ControlCommand, ControlError, ParticipantView, RoomAssignment};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::departure::Departure;
use crate::neighbours::Neighbours;
use crate::shard::{ShardCommand, ShardHandle, ShardSnapshot, ShardStopped};
use crate::wire;

/// Between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Reports that wait for a control-plane replica that does not read. Then the
/// stream is cut; it comes back with a full one.
const REPORTS_MAX: usize = 8;

/// Orders and questions of the control plane.
pub struct Control {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Arc<[ShardHandle]>,
    boot_id: String,
    departure: Arc<Departure>,
    neighbours: Arc<Neighbours>,
    /// Which shards carry a room, and since which epoch. One entry per assigned
    /// room; released rooms leave.
    shards_of_room: Mutex<BTreeMap<RoomId, BTreeMap<ShardIndex, Epoch>>>,
}

impl Control {
    /// Over these shards, by index.
    pub fn new(
        shards: Arc<[ShardHandle]>,
        boot_id: String,
        departure: Arc<Departure>,
        neighbours: Arc<Neighbours>,
    ) -> Self {
        let inner =
            Inner { shards, boot_id, departure, neighbours, shards_of_room: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    async fn obey(&self, order: Order) -> Result<(), Status> {
        match order {
            Order::AssignRoom(assign) => {
                let wire::Assignment { shard: index, room, part } = wire::assignment(assign)?;
                let shard = self.shards.get(usize::from(index.0)).ok_or_else(|| {
                    Status::failed_precondition(format!("this node has no shard {index}"))
                })?;
                self.note_route(&room, index);
                let (room, part) = (Box::new(room), Box::new(part));
                shard.send(ShardCommand::Assign { room, part }).await.map_err(stopped)
            }
            Order::ReleaseRoom(release) => {
                let wire::Release { room, shard: index, epoch, reason } = wire::release(release)?;
                self.forget_route(&room, index, epoch);
                let told = |shard: &&ShardHandle| index.is_none_or(|it| it == shard.index);
                for shard in self.shards.iter().filter(told) {
                    let room = room.clone();
                    let order = ShardCommand::Release { room, epoch, reason };
                    shard.send(order).await.map_err(stopped)?;
                }
                Ok(())
            }
        }
    }

    fn note_route(&self, room: &RoomAssignment, shard: ShardIndex) {
        let mut routes = self.routes();
        let known = routes.entry(room.id.clone()).or_default().entry(shard).or_default();
        *known = room.epoch.max(*known);
    }

    /// A shard carries a room no more, or none does. Who is behind and releases
    /// what was assigned anew changes nothing, here as on the shards.
    fn forget_route(&self, room: &RoomId, shard: Option<ShardIndex>, epoch: Epoch) {
        let mut routes = self.routes();
        let Some(shards) = routes.get_mut(room) else { return };
        shards.retain(|index, known| shard.is_some_and(|it| it != *index) || *known > epoch);
        if shards.is_empty() {
            routes.remove(room);
        }
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, BTreeMap<RoomId, BTreeMap<ShardIndex, Epoch>>> {
        self.shards_of_room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards of a room, at least one; with one shard there is no doubt, and
    /// a room that a join brought before its assignment came is found too.
    fn shards_of(&self, room: &RoomId) -> Result<Vec<ShardHandle>, Status> {
        let shards: Vec<ShardHandle> = match self.shards.len() {
            1 => self.shards.to_vec(),
            _ => {
                let routes = self.routes();
                let indices = routes.get(room).into_iter().flat_map(BTreeMap::keys);
                let shards = indices.filter_map(|index| self.shards.get(usize::from(index.0)));
                shards.cloned().collect()
            }
        };
        match shards.is_empty() {
            true => Err(Status::not_found(format!("room {room} is not carried here"))),
            false => Ok(shards),
        }
    }

    /// Everybody on the shards of a room, each once, in order of identities.
    async fn list(&self, room: RoomId) -> Result<Vec<Arc<ParticipantView>>, Status> {
        let mut listed = BTreeMap::new();
        let mut absent = None;
        let mut carried = false;
        for shard in self.shards_of(&room)? {
            let room = room.clone();
            let answer = shard.ask(|answer| ShardCommand::List { room, answer }).await;
            match answer.map_err(stopped)? {
                // It has let go of it, or has not been told yet.
                Err(error @ ControlError::RoomNotFound(_)) => absent = Some(refused(&error)),
                Err(error) => return Err(refused(&error)),
                Ok(views) => {
                    carried = true;
                    for view in views {
                        listed.entry(view.identity.clone()).or_insert(view);
                    }
                }
            }
        }
        match absent.filter(|_| !carried) {
            Some(status) => Err(status),
            None => Ok(listed.into_values().collect()),
        }
    }

    /// Has the shard do it that has the participant.
    async fn command(&self, command: ControlCommand) -> Result<Arc<ParticipantView>, Status> {
        let mut absent = None;
        for shard in self.shards_of(&command.room)? {
            let command = Box::new(command.clone());
            let answer = shard.ask(|answer| ShardCommand::Control { command, answer }).await;
            match answer.map_err(stopped)? {
                Err(
                    error @ (ControlError::ParticipantNotFound(_) | ControlError::RoomNotFound(_)),
                ) => absent = Some(refused(&error)),
                answer => return answer.map_err(|error| refused(&error)),
            }
        }
        Err(absent.unwrap_or_else(|| Status::not_found("no shard carries the room")))
    }

    async fn report(&self) -> Result<ControlResponse, ShardStopped> {
        let mut rooms = Vec::new();
        for shard in self.shards.iter() {
            let reports = shard.ask(|answer| ShardCommand::Report { answer }).await?;
            rooms.extend(reports.into_iter().map(|report| wire::report(report, shard.index.0)));
        }
        let now = Instant::now();
        let (lost, linked) = (self.neighbours.lost_by(now), self.neighbours.linked_by(now));
        let snapshots: Vec<ShardSnapshot> = self.shards.iter().map(ShardHandle::snapshot).collect();
        Ok(ControlResponse {
            boot_id: self.boot_id.clone(),
            load: Some(load(&snapshots)),
            rooms,
            leaving: self.departure.is_asked(),
            lost_node_ids: lost.into_iter().map(NodeId::into_string).collect(),
            linked_node_ids: linked.into_iter().map(NodeId::into_string).collect(),
        })
    }
}

/// The load of the shards together.
pub fn load(shards: &[ShardSnapshot]) -> NodeLoad {
    let sum = |count: fn(&ShardSnapshot) -> usize| {
        u32::try_from(shards.iter().map(count).sum::<usize>()).unwrap_or(u32::MAX)
    };
    NodeLoad {
        room_count: sum(|shard| shard.rooms),
        participant_count: sum(|shard| shard.participants),
        subscription_count: sum(|shard| shard.subscriptions),
        egress_bits_per_second: shards.iter().map(|shard| shard.bits_per_second).sum(),
        egress_packets_per_second: shards.iter().map(|shard| shard.packets_per_second).sum(),
        busiest_shard_ratio: shards.iter().map(|shard| shard.busy_ratio).fold(0.0, f32::max),
        measure_time: Some(SystemTime::now().into()),
    }
}

fn stopped(error: ShardStopped) -> Status {
    Status::unavailable(error.to_string())
}

fn refused(error: &ControlError) -> Status {
    match error {
        ControlError::RoomNotFound(_)
        | ControlError::ParticipantNotFound(_)
        | ControlError::TrackNotFound(_) => Status::not_found(error.to_string()),
        ControlError::TooLong { .. } => Status::invalid_argument(error.to_string()),
    }
}

fn room_id(text: String) -> Result<RoomId, Status> {
    RoomId::new(text).map_err(|error| Status::invalid_argument(format!("room_id {error}")))
}

type Reports = Pin<Box<dyn Stream<Item = Result<ControlResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Control {
    type ControlStream = Reports;

    async fn control(
        &self,
        request: Request<Streaming<ControlRequest>>,
    ) -> Result<Response<Reports>, Status> {
        let orders = request.into_inner();
        let (reports, stream) = mpsc::channel(REPORTS_MAX);
        tokio::spawn(serve_agent(Arc::clone(&self.inner), orders, reports));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let room = room_id(request.into_inner().room_id)?;
        let listed = self.inner.list(room).await?;
        let participants = listed.iter().map(|view| wire::participant(view)).collect();
        Ok(Response::new(ListParticipantsResponse { participants }))
    }

    async fn command_participant(
        &self,
        request: Request<CommandParticipantRequest>,
    ) -> Result<Response<CommandParticipantResponse>, Status> {
        let view = self.inner.command(wire::control_command(request.into_inner())?).await?;
        let participant = Some(wire::participant(&view));
        Ok(Response::new(CommandParticipantResponse { participant }))
    }

    async fn send_data(
        &self,
        request: Request<SendDataRequest>,
    ) -> Result<Response<SendDataResponse>, Status> {
        let message = Box::new(wire::data_message(request.into_inner())?);
        // Shards pass on what is sent into a room, so one of them is enough.
        let shards = self.inner.shards_of(&message.room)?;
        let Some(shard) = shards.first() else { return Err(Status::not_found("no shard")) };
        shard
            .ask(|answer| ShardCommand::SendData { message, answer })
            .await
            .map_err(stopped)?
            .map_err(|error| refused(&error))?;
        Ok(Response::new(SendDataResponse {}))
    }
}

/// One agent stream: orders in, a report at once, then each second and whenever a
/// node is lost.
async fn serve_agent(
    inner: Arc<Inner>,
    mut orders: Streaming<ControlRequest>,
    reports: mpsc::Sender<Result<ControlResponse, Status>>,
) {
    info!("a control-plane replica attached");
    let _attached = inner.departure.attach();
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut losses = inner.neighbours.losses();
    loop {
        // That a node is lost is told at once. The sender lives as long as `inner`.
        let due = async {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = losses.changed() => {}
            }
        };
        tokio::select! {
            () = due => {
                let Ok(report) = inner.report().await else { break };
                if reports.try_send(Ok(report)).is_err() {
                    break;
                }
            }
            order = orders.message() => match order {
                Ok(Some(ControlRequest { request: Some(order) })) => {
                    if let Err(status) = inner.obey(order).await {
                        warn!(message = status.message(), "an order was refused");
                    }
                }
                Ok(Some(ControlRequest { request: None })) => warn!("an empty order was ignored"),
                Ok(None) | Err(_) => break,
            }
        }
    }
    info!("a control-plane replica detached");
}
