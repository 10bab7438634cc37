//! Links between nodes: where this one takes them, and who it is to others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use headwater_model::{NodeId, ShardIndex};
use headwater_relay::{QuicConfig, QuicLinks, ShardAddress, Switchboard};

use crate::config::{Config, RelayConfig};
use crate::neighbours::Neighbours;
use crate::shard::RelayWiring;

/// What the shards of a node share to reach others.
pub struct Relays {
    node: NodeId,
    boot: u64,
    switchboard: Switchboard,
    quic: Option<QuicLinks>,
    neighbours: Arc<Neighbours>,
    /// Where other nodes reach this one.
    pub address: Option<SocketAddr>,
}

impl Relays {
    /// Takes links from now on, if the configuration says so. Inside a tokio runtime.
    ///
    /// # Errors
    /// If a file cannot be read, a certificate does not fit or the address is taken.
    pub fn start(config: &Config, node: NodeId, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let switchboard = Switchboard::default();
        let quic = config.relay.as_ref().map(|relay| listen(relay, &switchboard)).transpose()?;
        let bound = quic.as_ref().map(QuicLinks::local_address).transpose()?;
        let advertise = config.relay.as_ref().and_then(|relay| relay.advertise);
        let address = advertise.or_else(|| {
            let bound = bound?;
            let ip = if bound.ip().is_unspecified() { *addresses.first()? } else { bound.ip() };
            Some(SocketAddr::new(ip, bound.port()))
        });
        Ok(Self {
            node,
            boot: rand::random(),
            switchboard,
            quic,
            neighbours: Arc::default(),
            address,
        })
    }

    /// How a shard of this node reaches others.
    #[must_use]
    pub fn wiring(&self, shard: ShardIndex) -> RelayWiring {
        RelayWiring {
            me: ShardAddress { node: self.node.clone(), shard },
            boot: self.boot,
            switchboard: self.switchboard.clone(),
            quic: self.quic.clone(),
            neighbours: self.neighbours(),
        }
    }

    /// What links tell of other nodes.
    #[must_use]
    pub fn neighbours(&self) -> Arc<Neighbours> {
        Arc::clone(&self.neighbours)
    }

    /// Ends all links to other nodes.
    pub fn close(&self) {
        if let Some(quic) = &self.quic {
            quic.close();
        }
    }
}

fn listen(config: &RelayConfig, switchboard: &Switchboard) -> anyhow::Result<QuicLinks> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("relay certificate file {}", path.display()))
    };
    let quic = QuicConfig {
        bind: config.listen,
        roots_pem: read(&config.roots_file)?,
        certificate_pem: read(&config.certificate_file)?,
        key_pem: read(&config.key_file)?,
        server_name: config.server_name.clone(),
    };
    QuicLinks::start(&quic, switchboard.clone()).context("relay links")
}
