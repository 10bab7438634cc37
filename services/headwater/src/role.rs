//! The roles apart: each takes its settings, gets its part of the process, and
//! runs until it is told to stop.

use std::sync::Arc;

use anyhow::Context as _;

use crate::cli::{ControlPlaneArguments, GatewayArguments, MediaNodeArguments};
use crate::process::{Process, host_name, service};
use crate::settings::{
    ControlPlaneSettings, GatewaySettings, MediaNodeSettings, Settings, load, show_in_line,
};

/// `headwater control-plane`.
///
/// # Errors
/// If the settings cannot be used, or the role cannot start or fails.
pub async fn control_plane(arguments: &ControlPlaneArguments) -> anyhow::Result<()> {
    let settings: ControlPlaneSettings =
        load(arguments.common.config.as_deref(), arguments.overrides())?;
    let keys =
        settings.keys.ring(settings.keys_file.as_deref(), settings.signing_key.as_deref())?;
    let credential = settings.cluster.credential()?;
    let service = service(ControlPlaneSettings::ROLE, host_name(), &settings.control_plane.region);
    let process = Process::start(&service, &settings.telemetry, settings.admin.listen).await?;
    tracing::info!(settings = show_in_line(&settings), "effective configuration");
    let store = headwater_registry::open(&settings.registry)
        .await
        .context("the registry cannot be opened")?;
    let dependencies = headwater_control_plane::Dependencies {
        store,
        keys: Arc::new(keys),
        credential,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let stop = process.stop.clone();
    let running =
        headwater_control_plane::start(settings.control_plane, dependencies, stop).await?;
    process.run(running.join()).await
}

/// `headwater gateway`.
///
/// # Errors
/// If the settings cannot be used, or the role cannot start or fails.
pub async fn gateway(arguments: &GatewayArguments) -> anyhow::Result<()> {
    let settings: GatewaySettings =
        load(arguments.common.config.as_deref(), arguments.overrides())?;
    let keys =
        settings.keys.ring(settings.keys_file.as_deref(), settings.signing_key.as_deref())?;
    let credential = settings.cluster.credential()?;
    let service = service(GatewaySettings::ROLE, host_name(), &settings.gateway.region);
    let process = Process::start(&service, &settings.telemetry, settings.admin.listen).await?;
    tracing::info!(settings = show_in_line(&settings), "effective configuration");
    let dependencies = headwater_gateway::Dependencies {
        keys: Arc::new(keys),
        credential,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
    };
    let stop = process.stop.clone();
    let running = headwater_gateway::start(settings.gateway, dependencies, stop).await?;
    process.run(running.join()).await
}

/// `headwater media-node`.
///
/// # Errors
/// If the settings cannot be used, or the role cannot start or fails.
pub async fn media_node(arguments: &MediaNodeArguments) -> anyhow::Result<()> {
    let settings: MediaNodeSettings =
        load(arguments.common.config.as_deref(), arguments.overrides())?;
    let credential = settings.cluster.credential()?;
    let instance = match settings.media_node.node_id.as_str() {
        "" => host_name(),
        node_id => node_id.to_owned(),
    };
    let service = service(MediaNodeSettings::ROLE, instance, &settings.media_node.region);
    let process = Process::start(&service, &settings.telemetry, settings.admin.listen).await?;
    tracing::info!(settings = show_in_line(&settings), "effective configuration");
    let store = headwater_registry::open(&settings.registry)
        .await
        .context("the registry cannot be opened")?;
    let dependencies = headwater_media_node::Dependencies {
        store,
        credential,
        metrics: process.metrics.clone(),
        readiness: process.readiness.clone(),
        tls: settings.tls,
    };
    let stop = process.stop.clone();
    let running = headwater_media_node::start(settings.media_node, dependencies, stop).await?;
    process.run(running.join()).await
}
