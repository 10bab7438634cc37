//! The three roles of `dev` in one process: how they are put together, and in
//! which order they stop.

use std::sync::Arc;

use anyhow::Context as _;
use headwater_rpc::{ClusterCredential, KeyRing};
use rand::RngCore as _;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::announcement::reachable;
use crate::process::Process;
use crate::settings::DevSettings;

/// The three roles at work, each with a token of its own, so that they can be
/// stopped from the clients inwards.
pub struct Roles {
    pub control_plane: headwater_control_plane::Running,
    control_plane_stop: CancellationToken,
    pub media_node: headwater_media_node::Running,
    media_node_stop: CancellationToken,
    pub gateway: headwater_gateway::Running,
    gateway_stop: CancellationToken,
    pub serves_page: bool,
}

impl Roles {
    /// Starts them one after the other.
    ///
    /// # Errors
    /// If one cannot start.
    pub async fn start(
        settings: DevSettings,
        process: &Process,
        keys: KeyRing,
    ) -> anyhow::Result<Self> {
        let keys = Arc::new(keys);
        let credential = random_credential()?;
        let (metrics, readiness) = (&process.metrics, &process.readiness);
        let store = headwater_registry::open(&settings.registry)
            .await
            .context("the registry cannot be opened")?;

        let control_plane_stop = CancellationToken::new();
        let control_plane = headwater_control_plane::start(
            settings.control_plane,
            headwater_control_plane::Dependencies {
                store: Arc::clone(&store),
                keys: Arc::clone(&keys),
                credential: credential.clone(),
                metrics: metrics.clone(),
                readiness: readiness.scoped("control_plane"),
            },
            control_plane_stop.clone(),
        )
        .await?;

        let media_node_stop = CancellationToken::new();
        let media_node = headwater_media_node::start(
            settings.media_node,
            headwater_media_node::Dependencies {
                store,
                credential: credential.clone(),
                metrics: metrics.clone(),
                readiness: readiness.scoped("media_node"),
                tls: None,
            },
            media_node_stop.clone(),
        )
        .await?;

        let mut gateway = settings.gateway;
        if gateway.control_plane_urls.is_empty() {
            let api = reachable(control_plane.address);
            gateway.control_plane_urls = vec![format!("http://{api}")];
        }
        let serves_page = gateway.web_root.is_some();
        let gateway_stop = CancellationToken::new();
        let gateway = headwater_gateway::start(
            gateway,
            headwater_gateway::Dependencies {
                keys,
                credential,
                metrics: metrics.clone(),
                readiness: readiness.scoped("gateway"),
            },
            gateway_stop.clone(),
        )
        .await?;
        Ok(Self {
            control_plane,
            control_plane_stop,
            media_node,
            media_node_stop,
            gateway,
            gateway_stop,
            serves_page,
        })
    }

    /// Waits until told to stop or until one ends, then stops them: gateway
    /// first, so that clients are told, control plane last.
    ///
    /// # Errors
    /// If one fails.
    pub async fn join(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut gateway = tokio::spawn(self.gateway.join());
        let mut media_node = tokio::spawn(self.media_node.join());
        let mut control_plane = tokio::spawn(self.control_plane.join());
        tokio::select! {
            () = stop.cancelled() => {}
            ended = &mut gateway => return ended?,
            ended = &mut media_node => return ended?,
            ended = &mut control_plane => return ended?,
        }
        self.gateway_stop.cancel();
        gateway.await??;
        self.media_node_stop.cancel();
        media_node.await??;
        self.control_plane_stop.cancel();
        control_plane.await?
    }
}

/// Known to this process alone.
fn random_credential() -> anyhow::Result<ClusterCredential> {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ClusterCredential::new(&SecretString::from(text)).context("the cluster's secret")
}
