//! Agents: a task for each node that keeps a control stream to it, tells it
//! which rooms to carry, and takes in what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_control_core::{NodeLoad, Order, ReleaseReason, RoomReport, Witness};
use headwater_model::{Epoch, NodeId, RoomId, RoomUid, ShardIndex};
use headwater_proto::node::v1::control_request::Request;
use headwater_proto::node::v1::{CloseReason, ControlRequest, ControlResponse, ReleaseRoom};
use headwater_rpc::status::Chain;
use headwater_telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::cluster::{Cluster, StreamId};
use crate::convert;
use crate::nodes::{self, Nodes};
use crate::registry::{PATIENCE, Registry};

/// How long a node may take to accept the stream and send its first report.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// Nodes report every second; one that is silent for this long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Orders on their way to one node. When it reads no more of them for
/// [`SILENCE_MAX`], its stream ends and begins again with the full set.
const ORDERS_MAX: usize = 256;
/// Pauses before a stream is tried again: the first and the longest, each
/// varied by half.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// How often orders are looked at without any change, for what must be repeated.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Most rooms looked for in the registry at one look.
const VERIFIED_MAX: usize = 16;

/// What an agent needs.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) registry: Registry,
    pub(crate) metrics: Metrics,
}

impl Agents {
    /// Keeps an agent for every node there is, until the token is cancelled.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut version = self.cluster.version();
        let mut running: BTreeMap<NodeId, (String, CancellationToken)> = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            version.mark_unchanged();
            let wanted = self.cluster.nodes_to_reach();
            running.retain(|node, (url, stop)| {
                let keep = wanted.get(node) == Some(url);
                if !keep {
                    stop.cancel();
                }
                keep
            });
            self.nodes.keep_only(&wanted);
            for (node, url) in wanted {
                running.entry(node).or_insert_with_key(|node| {
                    let stop = stop.child_token();
                    let agent =
                        Agent { shared: self.clone(), node: node.clone(), url: url.clone() };
                    tasks.spawn(agent.run(stop.clone()));
                    (url, stop)
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = version.changed() => if changed.is_err() { break },
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        // Begin again with every node rather than lose one for good.
                        tracing::error!(error = %Chain(&error), "an agent failed");
                        running.clear();
                        tasks.abort_all();
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// Keeps the stream to one node.
struct Agent {
    shared: Agents,
    node: NodeId,
    url: String,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the node's address cannot be used")]
    Address(#[source] headwater_rpc::ConnectError),
    /// An address that a new process has taken over, or a process that has not
    /// registered yet: it must not be given the rooms of the one registered.
    #[error("another process than the one registered answers at the node's address")]
    OtherProcess,
    #[error("the node ended the stream")]
    ByNode,
    #[error("the node broke the stream")]
    Broken(#[source] Box<Status>),
    #[error("the node was silent")]
    Silent,
    #[error("the node does not read its orders")]
    Blocked,
}

impl Agent {
    async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        let mut open = None;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.stream(&mut open) => self.note_end(&ended, open.is_some()),
            }
            if open.is_some() {
                backoff = BACKOFF_MIN;
            }
            self.shared.cluster.close_stream(&self.node, open.take());
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(backoff.mul_f64(rand::random_range(0.5..1.5))) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.shared.cluster.close_stream(&self.node, open);
    }

    fn note_end(&self, ended: &Ended, was_open: bool) {
        if was_open {
            self.shared.metrics.control_plane().agent_stream_breaks.inc();
            tracing::warn!(node = %self.node, error = %Chain(ended), "agent stream lost");
        } else {
            tracing::info!(node = %self.node, error = %Chain(ended), "agent stream not opened");
        }
    }

    /// Opens a stream and serves it until it ends.
    async fn stream(&self, open: &mut Option<StreamId>) -> Ended {
        let (orders, outgoing) = mpsc::channel(ORDERS_MAX);
        let (id, mut incoming) = match timeout(OPEN_TIMEOUT, self.open(outgoing)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::Silent,
        };
        *open = Some(id);
        tracing::info!(node = %self.node, "agent stream open");
        match self.serve(id, &orders, &mut incoming).await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    /// Opens a stream; done once the node has reported.
    async fn open(
        &self,
        outgoing: mpsc::Receiver<ControlRequest>,
    ) -> Result<(StreamId, Streaming<ControlResponse>), Ended> {
        let connection =
            self.shared.nodes.connection(&self.node, &self.url).map_err(Ended::Address)?;
        let mut client = nodes::client(connection);
        let mut incoming = client.control(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = incoming.message().await?.ok_or(Ended::ByNode)?;
        let registered = self.shared.cluster.node_boot_id(&self.node);
        if registered.is_some_and(|registered| registered != first.boot_id) {
            return Err(Ended::OtherProcess);
        }
        let leaving = first.leaving;
        let (load, reports) = read_report(first);
        let id = self.shared.cluster.open_stream(&self.node, Instant::now(), load, reports);
        self.shared.cluster.set_leaving(&self.node, leaving);
        Ok((id, incoming))
    }

    async fn serve(
        &self,
        id: StreamId,
        orders: &mpsc::Sender<ControlRequest>,
        incoming: &mut Streaming<ControlResponse>,
    ) -> Result<std::convert::Infallible, Ended> {
        let cluster = &self.shared.cluster;
        let mut version = cluster.version();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                // What the node said while it was being told counts as heard.
                biased;
                message = incoming.message() => {
                    let message = message?.ok_or(Ended::ByNode)?;
                    cluster.set_leaving(&self.node, message.leaving);
                    cluster.set_links(&self.node, &message.linked_node_ids);
                    for lost in &message.lost_node_ids {
                        cluster.handle_witness(lost, Witness::Node(self.node.clone()), Instant::now());
                    }
                    let (load, reports) = read_report(message);
                    heard = tokio::time::Instant::now();
                    cluster.handle_report(&self.node, id, Instant::now(), load, reports);
                }
                _ = version.changed() => self.tell(id, orders).await?,
                _ = looks.tick() => self.tell(id, orders).await?,
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => return Err(Ended::Silent),
            }
        }
    }

    /// Tells the node what it should know by now.
    async fn tell(&self, id: StreamId, orders: &mpsc::Sender<ControlRequest>) -> Result<(), Ended> {
        let mut verifiable = VERIFIED_MAX;
        for (order, assignment) in self.shared.cluster.orders(&self.node, id, Instant::now()) {
            let request = match order {
                Order::Assign { .. } => match assignment {
                    Some(assignment) => Request::AssignRoom(assignment),
                    None => continue,
                },
                Order::Release { room, shard, epoch, reason } => {
                    release(room, shard, epoch, reason)
                }
                Order::Verify { room, shard: _, uid, epoch, reason } => {
                    if verifiable == 0 {
                        continue;
                    }
                    verifiable -= 1;
                    match self.is_gone(&room, &uid).await {
                        Some(true) => release(room, None, epoch, reason),
                        Some(false) => continue,
                        // The registry is away; the others can wait for it too.
                        None => {
                            verifiable = 0;
                            continue;
                        }
                    }
                }
            };
            let sending = orders.send(ControlRequest { request: Some(request) });
            match timeout(SILENCE_MAX, sending).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Ended::ByNode),
                Err(_) => return Err(Ended::Blocked),
            }
        }
        Ok(())
    }

    /// Whether the registry has a room no more. `None` if it does not answer:
    /// without its word nothing that carries media is let go of.
    async fn is_gone(&self, room: &RoomId, uid: &RoomUid) -> Option<bool> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        match self.shared.registry.read_room(room, deadline).await {
            Ok(reading) => Some(reading.room.is_none_or(|found| found.record.uid != *uid)),
            Err(error) => {
                tracing::debug!(room = %room, error = %Chain(&error), "room not verified");
                None
            }
        }
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Broken(Box::new(status))
    }
}

fn release(
    room: RoomId,
    shard: Option<ShardIndex>,
    epoch: Epoch,
    reason: ReleaseReason,
) -> Request {
    let reason = match reason {
        ReleaseReason::Deleted => CloseReason::RoomDeleted,
        ReleaseReason::Closed => CloseReason::RoomClosed,
        ReleaseReason::PlanStale => CloseReason::PlanStale,
    };
    Request::ReleaseRoom(ReleaseRoom {
        room_id: room.into_string(),
        epoch: epoch.0,
        reason: reason.into(),
        shard: shard.map(|shard| u32::from(shard.0)),
    })
}

fn read_report(message: ControlResponse) -> (NodeLoad, Vec<(RoomId, RoomReport)>) {
    let load = convert::load(&message.load.unwrap_or_default());
    (load, message.rooms.into_iter().filter_map(convert::report).collect())
}
