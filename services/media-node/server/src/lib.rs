//! The media node: shard threads that forward media, the gRPC services that
//! gateways and the control plane use, and the node's entry in the registry.
//! The composition root of the role; decisions are in `headwater-room`,
//! `headwater-sfu` and `headwater-transport`.

mod addresses;
mod config;
mod control;
mod departure;
mod metrics;
mod neighbours;
mod registration;
mod relay;
mod session;
mod shard;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use headwater_model::{NodeId, ShardIndex};
use headwater_proto::node::v1::node_service_server::NodeServiceServer;
use headwater_proto::node::v1::session_service_server::SessionServiceServer;
use headwater_registry::Store;
use headwater_room::{Candidate, CandidateProtocol, CloseReason, Limits, RoomsConfig, Timers};
use headwater_rpc::{ClusterCredential, RunningServer, Server, ServerConfig, ServerTls};
use headwater_telemetry::metrics::NodeLifecycle;
use headwater_telemetry::{Metrics, Readiness};
use headwater_transport::DtlsIdentity;
use rand::RngCore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use config::{Config, PortsExhausted, RelayConfig};
use departure::Departure;
pub use shard::Cascade;
use shard::{PortsConfig, ShardCommand, ShardConfig, ShardHandle};
pub use wire::Part;

/// What a media node gets from its process.
pub struct Dependencies {
    /// The registry.
    pub store: Arc<dyn Store>,
    /// What the roles of the cluster know.
    pub credential: ClusterCredential,
    /// Metrics of the process.
    pub metrics: Metrics,
    /// Readiness of the process.
    pub readiness: Readiness,
    /// TLS of the gRPC services. Absent means plain TCP.
    pub tls: Option<ServerTls>,
}

/// A running media node.
pub struct Running {
    /// Where its gRPC services listen.
    pub rpc_address: SocketAddr,
    /// UDP address of each shard, as bound.
    pub udp_addresses: Vec<SocketAddr>,
    /// TCP address of each shard that has one, as bound.
    pub tcp_addresses: Vec<SocketAddr>,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits until the node has stopped.
    ///
    /// # Errors
    /// If its task failed.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task.await.context("the media node's task failed")
    }
}

/// Starts a media node; answers when it listens. It runs until cancelled. Then
/// it lets the control plane move its participants, for as long as that gets on,
/// and tells those who are left to go elsewhere.
///
/// # Errors
/// If an address cannot be bound (the error names it) or the name is no name.
pub async fn start(
    config: Config,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    dependencies.metrics.node().set_state(NodeLifecycle::Starting);
    let node_id = NodeId::new(node_name(&config)).context("node_id")?;
    let addresses = addresses::advertised(&config);
    let relays = relay::Relays::start(&config, node_id.clone(), &addresses)?;
    let (shards, threads) = start_shards(&config, &addresses, &relays, &dependencies.metrics)?;
    let shards: Arc<[ShardHandle]> = shards.into();
    let boot_id = format!("{:032x}", rand::random::<u128>());

    // Its own token: sessions are told first, then the server stops.
    let server_stop = CancellationToken::new();
    let departure = Arc::new(Departure::default());
    let control = control::Control::new(
        Arc::clone(&shards),
        boot_id.clone(),
        departure.clone(),
        relays.neighbours(),
    );
    let server = serve(&config, &dependencies, &shards, control, server_stop.clone()).await?;
    let rpc_url =
        addresses::rpc_url(&config, server.address(), &addresses, dependencies.tls.is_some());
    let running = Running {
        rpc_address: server.address(),
        udp_addresses: shards.iter().map(|shard| shard.udp).collect(),
        tcp_addresses: shards.iter().filter_map(|shard| shard.tcp).collect(),
        task: tokio::spawn(async {}),
    };
    info!(node = %node_id, url = rpc_url, udp = ?running.udp_addresses, advertised = ?addresses, "media node listens");

    let metrics = Arc::clone(dependencies.metrics.node());
    metrics.set_state(NodeLifecycle::Serving);
    let background = CancellationToken::new();
    tokio::spawn(metrics::publish(
        Arc::clone(&shards),
        Arc::clone(dependencies.metrics.node()),
        background.clone(),
    ));
    let description = registration::Description {
        node_id,
        boot_id,
        rpc_url,
        addresses,
        relay_address: relays.address,
        start_time: SystemTime::now(),
    };
    let unregister = CancellationToken::new();
    let registration = tokio::spawn(registration::keep(
        dependencies.store,
        config.clone(),
        description,
        Arc::clone(&shards),
        dependencies.readiness.condition("registered"),
        unregister.clone(),
    ));
    let drain = Duration::from_secs(config.drain_timeout_seconds);
    let grace = Duration::from_secs(config.shutdown_grace_seconds);
    let task = tokio::spawn(async move {
        shutdown.cancelled().await;
        metrics.set_state(NodeLifecycle::Draining);
        departure.wait_until_moved(&shards, drain).await;
        // Out of the registry first, so that nobody new is sent here.
        unregister.cancel();
        let _ = tokio::time::timeout(grace, registration).await;
        for shard in shards.iter() {
            let _ = shard.send(ShardCommand::Stop { reason: CloseReason::ServerShutdown }).await;
        }
        let _ = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        })
        .await;
        relays.close();
        server_stop.cancel();
        server.join().await;
        background.cancel();
    });
    Ok(Running { task, ..running })
}

fn node_name(config: &Config) -> String {
    if !config.node_id.is_empty() {
        return config.node_id.clone();
    }
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "media-node".to_owned())
}

async fn serve(
    config: &Config,
    dependencies: &Dependencies,
    shards: &Arc<[ShardHandle]>,
    control: control::Control,
    stop: CancellationToken,
) -> anyhow::Result<RunningServer> {
    let server_config = ServerConfig {
        address: config.listen,
        tls: dependencies.tls.clone(),
        reflection: false,
        shutdown_grace_seconds: config.shutdown_grace_seconds,
        ..ServerConfig::default()
    };
    let sessions = session::Sessions::new(Arc::clone(shards));
    let server = Server::new(server_config)
        .add_internal_service(SessionServiceServer::new(sessions), &dependencies.credential)
        .add_internal_service(NodeServiceServer::new(control), &dependencies.credential)
        .serve(stop)
        .await
        .context("the media node's gRPC server")?;
    server.set_serving().await;
    Ok(server)
}

type Shards = (Vec<ShardHandle>, Vec<std::thread::JoinHandle<()>>);

fn start_shards(
    config: &Config,
    addresses: &[std::net::IpAddr],
    relays: &relay::Relays,
    metrics: &Metrics,
) -> anyhow::Result<Shards> {
    let identity = DtlsIdentity::generate().context("the node's DTLS certificate")?;
    let cores = headwater_net::thread::available_cores().unwrap_or_default();
    let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut shards = (Vec::new(), Vec::new());
    for index in 0..config.shard_count() {
        let ports = shard::bind(&PortsConfig {
            ip: config.media_ip,
            udp: Config::port_of_shard(config.udp_port, index)?,
            tcp: config.tcp.then(|| Config::port_of_shard(config.tcp_port, index)).transpose()?,
        })?;
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let rooms = RoomsConfig {
            candidates: candidates(addresses, &ports),
            fingerprint: identity.fingerprint().to_owned(),
            limits: Limits { audible_microphones: config.audible_microphones, ..Limits::default() },
            timers: Timers::default(),
        };
        let core = config.pin_threads.then(|| cores.get(usize::from(index) % cores.len().max(1)));
        let shard_config = ShardConfig {
            index: ShardIndex(index),
            core: core.flatten().copied(),
            rooms,
            identity: Arc::clone(&identity),
            seed,
            wall_clock,
            metrics: Arc::clone(metrics.node()),
            relay: relays.wiring(ShardIndex(index)),
        };
        let (handle, thread) = shard::spawn(shard_config, ports).context("a shard's thread")?;
        shards.0.push(handle);
        shards.1.push(thread);
    }
    Ok(shards)
}

/// UDP first, then TCP; the addresses in the order they are advertised.
fn candidates(addresses: &[std::net::IpAddr], ports: &shard::Ports) -> Vec<Candidate> {
    let udp = (CandidateProtocol::Udp, Some(ports.udp_address().port()));
    let tcp = (CandidateProtocol::Tcp, ports.tcp_address().map(|address| address.port()));
    [udp, tcp]
        .into_iter()
        .filter_map(|(protocol, port)| Some((protocol, port?)))
        .flat_map(|(protocol, port)| {
            addresses
                .iter()
                .map(move |ip| Candidate { protocol, address: SocketAddr::new(*ip, port) })
        })
        .collect()
}
