//! The node service: what the control plane orders and asks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::Stream;
use headwater_model::RoomId;
use headwater_proto::node::v1::control_request::Request as Order;
use headwater_proto::node::v1::node_service_server::NodeService;
use headwater_proto::node::v1::{
    CommandParticipantRequest, CommandParticipantResponse, ControlRequest, ControlResponse,
    ListParticipantsRequest, ListParticipantsResponse, SendDataRequest, SendDataResponse,
};
use headwater_proto::v1::NodeLoad;
use headwater_room::ControlError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

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
    /// Which shard carries a room. One entry per assigned room; released rooms
    /// leave.
    shard_of_room: Mutex<BTreeMap<RoomId, usize>>,
}

impl Control {
    /// Over these shards, by index.
    pub fn new(shards: Arc<[ShardHandle]>, boot_id: String) -> Self {
        let inner = Inner { shards, boot_id, shard_of_room: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }
}

impl Inner {
    async fn obey(&self, order: Order) -> Result<(), Status> {
        match order {
            Order::AssignRoom(assign) => {
                let index = usize::try_from(assign.shard).unwrap_or(usize::MAX);
                let shard = self.shards.get(index).ok_or_else(|| {
                    Status::failed_precondition(format!("this node has no shard {}", assign.shard))
                })?;
                let assignment = wire::assignment(assign)?;
                self.routes().insert(assignment.id.clone(), index);
                shard.send(ShardCommand::Assign(assignment)).await.map_err(stopped)
            }
            Order::ReleaseRoom(release) => {
                let (room, epoch, reason) = wire::release(release)?;
                let shard = self.shard_of(&room)?;
                self.routes().remove(&room);
                shard.send(ShardCommand::Release { room, epoch, reason }).await.map_err(stopped)
            }
        }
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, BTreeMap<RoomId, usize>> {
        self.shard_of_room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard of a room; with one shard there is no doubt, and a room that a
    /// join brought before its assignment came is found too.
    fn shard_of(&self, room: &RoomId) -> Result<ShardHandle, Status> {
        let index = match self.shards.len() {
            1 => Some(0),
            _ => self.routes().get(room).copied(),
        };
        index
            .and_then(|index| self.shards.get(index))
            .cloned()
            .ok_or_else(|| Status::not_found(format!("room {room} is not carried here")))
    }

    async fn report(&self) -> Result<ControlResponse, ShardStopped> {
        let mut rooms = Vec::new();
        for shard in self.shards.iter() {
            let reports = shard.ask(|answer| ShardCommand::Report { answer }).await?;
            rooms.extend(reports.into_iter().map(|report| wire::report(report, shard.index.0)));
        }
        let snapshots: Vec<ShardSnapshot> = self.shards.iter().map(ShardHandle::snapshot).collect();
        Ok(ControlResponse { boot_id: self.boot_id.clone(), load: Some(load(&snapshots)), rooms })
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
        let shard = self.inner.shard_of(&room)?;
        let listed = shard
            .ask(|answer| ShardCommand::List { room, answer })
            .await
            .map_err(stopped)?
            .map_err(|error| refused(&error))?;
        let participants = listed.iter().map(|view| wire::participant(view)).collect();
        Ok(Response::new(ListParticipantsResponse { participants }))
    }

    async fn command_participant(
        &self,
        request: Request<CommandParticipantRequest>,
    ) -> Result<Response<CommandParticipantResponse>, Status> {
        let command = Box::new(wire::control_command(request.into_inner())?);
        let shard = self.inner.shard_of(&command.room)?;
        let view = shard
            .ask(|answer| ShardCommand::Control { command, answer })
            .await
            .map_err(stopped)?
            .map_err(|error| refused(&error))?;
        let participant = Some(wire::participant(&view));
        Ok(Response::new(CommandParticipantResponse { participant }))
    }

    async fn send_data(
        &self,
        request: Request<SendDataRequest>,
    ) -> Result<Response<SendDataResponse>, Status> {
        let message = Box::new(wire::data_message(request.into_inner())?);
        let shard = self.inner.shard_of(&message.room)?;
        shard
            .ask(|answer| ShardCommand::SendData { message, answer })
            .await
            .map_err(stopped)?
            .map_err(|error| refused(&error))?;
        Ok(Response::new(SendDataResponse {}))
    }
}

/// One agent stream: orders in, a report at once and then each second.
async fn serve_agent(
    inner: Arc<Inner>,
    mut orders: Streaming<ControlRequest>,
    reports: mpsc::Sender<Result<ControlResponse, Status>>,
) {
    info!("a control-plane replica attached");
    let mut ticks = tokio::time::interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
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
