//! `headwater.v1.ClusterService`: the media nodes and what they carry, for
//! operators.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headwater_model::{Grants, NodeId};
use headwater_proto::v1::cluster_service_server::ClusterService;
use headwater_proto::v1::{
    CordonNodeRequest, CordonNodeResponse, DrainNodeRequest, DrainNodeResponse,
    ExplainPlacementRequest, ExplainPlacementResponse, GetNodeRequest, GetNodeResponse,
    GetRoomTopologyRequest, GetRoomTopologyResponse, ListNodesRequest, ListNodesResponse, Node,
    SimulatePlacementRequest, SimulatePlacementResponse, UncordonNodeRequest, UncordonNodeResponse,
};
use headwater_registry::record::{Lifecycle, LifecycleRecord};
use headwater_rpc::status;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::cut_page;
use crate::auth::{Authorizer, Need};
use crate::cluster::Cluster;
use crate::registry::{PATIENCE, Registry, RegistryError};
use crate::{explain, input, names, simulate, topology};

/// Longest reason of an order, in bytes.
const REASON_BYTES_MAX: usize = 1024;
/// How long a drain may take unless the operator says otherwise, and the bounds
/// of what may be said.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long to wait for our own order to come back by the watch. Being late is
/// no failure.
const WATCH_PATIENCE: Duration = Duration::from_millis(300);

/// Serves what is watched: it is a moment old, and does not need the registry.
/// Orders do.
#[derive(Debug)]
pub(crate) struct ClusterApi {
    cluster: Arc<Cluster>,
    registry: Registry,
    authorizer: Authorizer,
}

impl ClusterApi {
    pub(crate) fn new(cluster: Arc<Cluster>, registry: Registry, authorizer: Authorizer) -> Self {
        Self { cluster, registry, authorizer }
    }

    /// Lets a caller pass who may do this, once something is known of the cluster.
    fn admit(&self, metadata: &MetadataMap, need: Need<'_>) -> Result<Grants, Status> {
        let caller = self.authorizer.authenticate(metadata)?;
        self.authorizer.require(&caller, need)?;
        if !self.cluster.is_synced() {
            return Err(RegistryError::Away.into());
        }
        Ok(caller)
    }

    fn node(&self, id: &NodeId) -> Result<Node, Status> {
        self.cluster.node(id).ok_or_else(|| status::not_found("node", &names::node(id)))
    }

    /// Writes an order to a node that is known, and answers with the node under it.
    async fn order(
        &self,
        caller: Grants,
        id: NodeId,
        lifecycle: Lifecycle,
        reason: String,
        timeout: Option<Duration>,
    ) -> Result<Node, Status> {
        input::at_most("reason", reason.len(), REASON_BYTES_MAX)?;
        self.node(&id)?;
        let (rooms_at_order, participants_at_order) = self.cluster.burden(&id);
        let record = LifecycleRecord {
            node_id: id.clone(),
            lifecycle,
            ordered_by: caller.api_key,
            reason,
            order_time: SystemTime::now(),
            timeout,
            rooms_at_order,
            participants_at_order,
        };
        let revision = self.registry.put_order(&record, Instant::now() + PATIENCE).await?;
        tracing::info!(node = %id, ?lifecycle, by = record.ordered_by, "a node was ordered");
        self.cluster.wait_for_revision(revision, WATCH_PATIENCE).await;
        self.node(&id)
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        self.admit(request.metadata(), Need::List)?;
        let request = request.into_inner();
        let rows = self.cluster.nodes().into_iter().map(|(id, node)| (id.into_string(), node));
        let page = cut_page("nodes", request.page_size, &request.page_token, rows, |node| node)?;
        let (nodes, next_page_token) = (page.items, page.next_page_token);
        Ok(Response::new(ListNodesResponse { nodes, next_page_token }))
    }

    async fn get_node(
        &self,
        request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        self.admit(request.metadata(), Need::List)?;
        let wanted = names::parse_node("name", &request.get_ref().name)?;
        Ok(Response::new(GetNodeResponse { node: Some(self.node(&wanted)?) }))
    }

    async fn cordon_node(
        &self,
        request: Request<CordonNodeRequest>,
    ) -> Result<Response<CordonNodeResponse>, Status> {
        let caller = self.admit(request.metadata(), Need::Create)?;
        let CordonNodeRequest { name, reason } = request.into_inner();
        let id = names::parse_node("name", &name)?;
        let node = self.order(caller, id, Lifecycle::Cordon, reason, None).await?;
        Ok(Response::new(CordonNodeResponse { node: Some(node) }))
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        let caller = self.admit(request.metadata(), Need::Create)?;
        let DrainNodeRequest { name, reason, timeout } = request.into_inner();
        let id = names::parse_node("name", &name)?;
        let timeout = timeout.map_or(Ok(DRAIN_TIMEOUT), Duration::try_from);
        let timeout = timeout
            .ok()
            .filter(|it| (DRAIN_TIMEOUT_MIN..=DRAIN_TIMEOUT_MAX).contains(it))
            .ok_or_else(|| status::invalid_argument("timeout", "must be 1 s to 24 h"))?;
        let node = self.order(caller, id, Lifecycle::Drain, reason, Some(timeout)).await?;
        Ok(Response::new(DrainNodeResponse { node: Some(node) }))
    }

    async fn uncordon_node(
        &self,
        request: Request<UncordonNodeRequest>,
    ) -> Result<Response<UncordonNodeResponse>, Status> {
        self.admit(request.metadata(), Need::Create)?;
        let id = names::parse_node("name", &request.get_ref().name)?;
        let before = self.node(&id)?;
        let revision = self.registry.delete_order(&id, Instant::now() + PATIENCE).await?;
        tracing::info!(node = %id, "a node's order was taken back");
        self.cluster.wait_for_revision(revision, WATCH_PATIENCE).await;
        // A node that is not there any more was known only by its order.
        let node = self.cluster.node(&id).unwrap_or(Node { order: None, ..before });
        Ok(Response::new(UncordonNodeResponse { node: Some(node) }))
    }

    async fn get_room_topology(
        &self,
        request: Request<GetRoomTopologyRequest>,
    ) -> Result<Response<GetRoomTopologyResponse>, Status> {
        self.admit(request.metadata(), Need::List)?;
        let id = names::parse_room("name", &request.get_ref().name)?;
        let topology = self.cluster.look(|state, _| topology::of_room(state, &id));
        topology.map(Response::new).ok_or_else(|| status::not_found("room", &names::room(&id)))
    }

    async fn explain_placement(
        &self,
        request: Request<ExplainPlacementRequest>,
    ) -> Result<Response<ExplainPlacementResponse>, Status> {
        self.admit(request.metadata(), Need::List)?;
        let id = names::parse_room("room", &request.get_ref().room)?;
        let tree = self.cluster.tree_config();
        let explained = self.cluster.look(|state, _| explain::placement(state, tree, &id));
        Ok(Response::new(explained))
    }

    async fn simulate_placement(
        &self,
        request: Request<SimulatePlacementRequest>,
    ) -> Result<Response<SimulatePlacementResponse>, Status> {
        self.admit(request.metadata(), Need::List)?;
        let wanted = simulate::Wanted::read(request.into_inner())?;
        let world = self.cluster.look(|state, _| simulate::World::of(state, &wanted))?;
        let tree = self.cluster.tree_config().clone();
        // Planning for a million takes long enough to be in the way of others.
        let simulated = tokio::task::spawn_blocking(move || simulate::run(&world, &wanted, &tree));
        simulated.await.map(Response::new).map_err(|error| status::internal(&error))
    }
}
