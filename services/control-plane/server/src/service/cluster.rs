//! `headwater.v1.ClusterService`: the media nodes, for operators.

use std::sync::Arc;

use headwater_model::NodeId;
use headwater_proto::v1::cluster_service_server::ClusterService;
use headwater_proto::v1::{
    GetNodeRequest, GetNodeResponse, ListNodesRequest, ListNodesResponse, Node,
};
use headwater_rpc::status;
use tonic::{Request, Response, Status};

use super::cut_page;
use crate::auth::{Authorizer, Need};
use crate::cluster::Cluster;
use crate::names;
use crate::registry::RegistryError;

/// Serves what is watched: it is a moment old, and does not need the registry.
#[derive(Debug)]
pub(crate) struct ClusterApi {
    cluster: Arc<Cluster>,
    authorizer: Authorizer,
}

impl ClusterApi {
    pub(crate) fn new(cluster: Arc<Cluster>, authorizer: Authorizer) -> Self {
        Self { cluster, authorizer }
    }

    /// The nodes; before the registry was heard it is not known that there are none.
    fn nodes(&self) -> Result<Vec<(NodeId, Node)>, Status> {
        if !self.cluster.is_synced() {
            return Err(RegistryError::Away.into());
        }
        Ok(self.cluster.nodes())
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let caller = self.authorizer.authenticate(request.metadata())?;
        self.authorizer.require(&caller, Need::List)?;
        let request = request.into_inner();
        let rows = self.nodes()?.into_iter().map(|(id, node)| (id.into_string(), node));
        let page = cut_page("nodes", request.page_size, &request.page_token, rows, |node| node)?;
        let (nodes, next_page_token) = (page.items, page.next_page_token);
        Ok(Response::new(ListNodesResponse { nodes, next_page_token }))
    }

    async fn get_node(
        &self,
        request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        let caller = self.authorizer.authenticate(request.metadata())?;
        self.authorizer.require(&caller, Need::List)?;
        let wanted = names::parse_node("name", &request.get_ref().name)?;
        let found = self.nodes()?.into_iter().find(|(id, _)| *id == wanted);
        let (_, node) = found.ok_or_else(|| status::not_found("node", &names::node(&wanted)))?;
        Ok(Response::new(GetNodeResponse { node: Some(node) }))
    }
}
