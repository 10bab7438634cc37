//! The node's entry in the registry: what it is and where it is reached.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use headwater_model::NodeId;
use headwater_registry::{
    Incarnation, LeaseKeeper, LeaseState, NodeRecord, Record, Registration, ShardAddresses, Store,
    schema,
};
use headwater_telemetry::Condition;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::shard::ShardHandle;

/// Life of the entry without renewal. Losing it moves no live room: the control
/// plane also asks whether its own stream to the node stands.
const LEASE_TTL: Duration = Duration::from_secs(10);

/// What the node says of itself.
pub struct Description {
    /// Its name.
    pub node_id: NodeId,
    /// This start of the process.
    pub boot_id: String,
    /// Where its gRPC services are.
    pub rpc_url: String,
    /// Addresses told to clients.
    pub addresses: Vec<IpAddr>,
    /// Where other nodes open relay links to it, if they can.
    pub relay_address: Option<std::net::SocketAddr>,
    /// When it started.
    pub start_time: SystemTime,
}

impl Description {
    /// The entry.
    fn record(
        &self,
        config: &Config,
        shards: &[ShardHandle],
        incarnation: Incarnation,
    ) -> NodeRecord {
        let with_port = |port: u16| {
            self.addresses.iter().map(move |ip| std::net::SocketAddr::new(*ip, port)).collect()
        };
        NodeRecord {
            node_id: self.node_id.clone(),
            boot_id: self.boot_id.clone(),
            incarnation: incarnation.0,
            rpc_url: self.rpc_url.clone(),
            shards: shards
                .iter()
                .map(|shard| ShardAddresses {
                    udp: with_port(shard.udp.port()),
                    tcp: shard.tcp.map_or_else(Vec::new, |tcp| with_port(tcp.port())),
                })
                .collect(),
            zone: config.zone.clone(),
            region: config.region.clone(),
            participant_capacity: config.participant_capacity,
            relay_address: self.relay_address,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: self.start_time,
        }
    }
}

/// Keeps the entry until cancelled, then takes it away at once.
pub async fn keep(
    store: Arc<dyn Store>,
    config: Config,
    description: Description,
    shards: Arc<[ShardHandle]>,
    registered: Condition,
    shutdown: CancellationToken,
) {
    let key = schema::node(&description.node_id);
    let keeper = LeaseKeeper::start(store, LEASE_TTL, move |incarnation| {
        let record = description.record(&config, &shards, incarnation);
        vec![Registration { key: key.clone(), value: record.encode() }]
    });
    let mut state = keeper.state();
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            LeaseState::Held { incarnation, .. } => {
                info!(%incarnation, "registered");
                registered.hold();
            }
            LeaseState::Registering => registered.fail("registering"),
            LeaseState::Waiting { key } => {
                warn!(%key, "the node's name is taken; waiting for it to become free");
                registered.fail("the node's name is taken");
            }
            LeaseState::Doubtful { .. } => {
                warn!("the registry cannot be reached; media goes on");
                registered.fail("the registry cannot be reached");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = state.changed() => if changed.is_err() { break },
        }
    }
    keeper.release().await;
}
