//! The composition root of the role: puts the parts together, starts their
//! tasks, and ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater_control_core::CensusConfig;
use headwater_proto::control::v1::placement_service_server::PlacementServiceServer;
use headwater_proto::v1::cluster_service_server::ClusterServiceServer;
use headwater_proto::v1::room_service_server::RoomServiceServer;
use headwater_registry::{Election, Store};
use headwater_rpc::{ClusterCredential, KeyRing, RunningServer, Server};
use headwater_telemetry::{Metrics, Readiness};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::auth::Authorizer;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::follow;
use crate::nodes::Nodes;
use crate::participants::Participants;
use crate::placer::Placer;
use crate::planner::{ELECTION_TTL, Planner};
use crate::registry::Registry;
use crate::rooms::Rooms;
use crate::service::{ClusterApi, PlacementApi, RoomApi};
use crate::suspects;

const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// What the role needs from its process.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// The registry.
    pub store: Arc<dyn Store>,
    /// API keys that tokens are checked against and minted with.
    pub keys: Arc<KeyRing>,
    /// Shown to nodes, and asked of gateways.
    pub credential: ClusterCredential,
    /// Where to count.
    pub metrics: Metrics,
    /// The conditions of this role are named `registry` (it is being watched).
    pub readiness: Readiness,
}

/// A control plane at work. It ends when its token is cancelled.
#[derive(Debug)]
pub struct Running {
    /// Where the gRPC services listen.
    pub address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Running {
    /// Waits for the end, which comes soon after cancellation.
    ///
    /// # Errors
    /// If a task failed, which is a fault of ours.
    pub async fn join(mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a task of the control plane failed")?;
        }
        Ok(())
    }
}

/// Starts a replica. It answers once it listens, whether or not the registry can
/// be reached; health says `SERVING` once the registry has been heard.
///
/// # Errors
/// If it cannot listen, or its TLS settings cannot be used.
pub async fn start(
    config: Config,
    dependencies: Dependencies,
    stop: CancellationToken,
) -> anyhow::Result<Running> {
    let Dependencies { store, keys, credential, metrics, readiness } = dependencies;
    let registry = Registry::new(Arc::clone(&store), metrics.clone());
    let cluster = Arc::new(Cluster::new(CensusConfig::default(), config.tree()));
    let nodes = Arc::new(Nodes::new(config.node_tls.clone(), credential.clone()));
    let participants = Participants {
        cluster: Arc::clone(&cluster),
        registry: registry.clone(),
        nodes: Arc::clone(&nodes),
    };
    let rooms = Rooms {
        registry: registry.clone(),
        cluster: Arc::clone(&cluster),
        metrics: metrics.clone(),
        region: config.region.clone(),
    };
    let authorizer = Authorizer::new(keys, metrics.clone());
    let placer = Placer {
        rooms: rooms.clone(),
        cluster: Arc::clone(&cluster),
        nodes: Arc::clone(&nodes),
        participants: participants.clone(),
        metrics: metrics.clone(),
    };
    let cluster_api = ClusterApi::new(Arc::clone(&cluster), registry.clone(), authorizer.clone());
    let room_api = RoomApi::new(rooms, participants.clone(), authorizer, config.allow_unmute);
    let server = Server::new(config.server.clone())
        .add_service(RoomServiceServer::new(room_api))
        .add_service(ClusterServiceServer::new(cluster_api))
        .add_internal_service(PlacementServiceServer::new(PlacementApi::new(placer)), &credential)
        .serve(stop.clone())
        .await
        .context("the control plane cannot serve")?;
    let address = server.address();

    let mut tasks = JoinSet::new();
    let condition = readiness.condition("registry");
    tasks.spawn(follow::run(
        registry.clone(),
        Arc::clone(&cluster),
        condition,
        metrics.clone(),
        stop.clone(),
    ));
    let agents = Agents {
        cluster: Arc::clone(&cluster),
        nodes,
        registry: registry.clone(),
        metrics: metrics.clone(),
    };
    tasks.spawn(suspects::run(Arc::clone(&cluster), agents.nodes.clone(), stop.clone()));
    tasks.spawn(agents.run(stop.clone()));
    let planner = Planner {
        cluster: Arc::clone(&cluster),
        registry,
        participants,
        metrics: metrics.clone(),
        region: config.region,
    };
    let election = Election::new(store, "planner", ELECTION_TTL)
        .context("the planner's election cannot be named")?;
    tasks.spawn(planner.run(election, address.to_string(), stop.clone()));
    tasks.spawn(tick(Arc::clone(&cluster), metrics, stop.clone()));
    tasks.spawn(attend(server, cluster, stop));
    tracing::info!(%address, "control plane listens");
    Ok(Running { address, tasks })
}

/// Says that the server takes calls once the registry was heard, and waits for
/// its end. Losing the registry later takes nothing back: joins go on.
async fn attend(server: RunningServer, cluster: Arc<Cluster>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = cluster.wait_for_sync() => server.set_serving().await,
    }
    server.join().await;
}

async fn tick(cluster: Arc<Cluster>, metrics: Metrics, stop: CancellationToken) {
    let mut ticks = interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                let stale = cluster.tick(Instant::now(), metrics.control_plane());
                let seconds = i64::try_from(stale.as_secs()).unwrap_or(i64::MAX);
                metrics.shared().registry_stale.set(seconds);
            }
        }
    }
}
