//! All the metrics there are, in one registry. Each group is defined in its own
//! file and appears once a role has asked for it, so that a gateway does not
//! report a node's zeros.

use std::fmt;
use std::sync::{Arc, OnceLock};

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Encoder as _, Registry, TextEncoder};

mod control_plane;
mod family;
mod gateway;
mod node;
mod shared;
#[cfg(test)]
mod tests;

pub use control_plane::{ControlPlaneMetrics, NodeState, PlacementResult, PlanReason, RoomEnd};
pub use family::{Family, LabelSet, Total};
pub use gateway::{
    GatewayMetrics, JoinOutcome, SessionEnd, SignalDirection, SignalProtocol, TwirpResult,
};
pub use node::{
    DropReason, DtlsResult, IceResult, MediaDirection, NodeLifecycle, NodeMetrics,
    RefusedRetransmission, RelayDrop, RelayFlow, RelayLink, TrackKind, TransportProtocol,
};
pub use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
pub use shared::{AuthFailure, JoinPhase, RegistryOperation, SharedMetrics};

use family::Registrar;

/// Where metrics live. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Metrics {
    groups: Arc<Groups>,
}

struct Groups {
    registrar: Registrar,
    tasks: IntGauge,
    shared: OnceLock<Arc<SharedMetrics>>,
    control_plane: OnceLock<Arc<ControlPlaneMetrics>>,
    gateway: OnceLock<Arc<GatewayMetrics>>,
    node: OnceLock<Arc<NodeMetrics>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the metrics of the process and the build.
    #[must_use]
    pub fn new() -> Self {
        let registrar = Registrar::new(Registry::new());
        registrar.process();
        registrar.build_info(env!("CARGO_PKG_VERSION"));
        let tasks = registrar.gauge("tasks", "Tasks of the async runtime that have not ended.");
        Self {
            groups: Arc::new(Groups {
                registrar,
                tasks,
                shared: OnceLock::new(),
                control_plane: OnceLock::new(),
                gateway: OnceLock::new(),
                node: OnceLock::new(),
            }),
        }
    }

    /// Tells how many tasks the process runs, before a scrape. A number that only rises is a
    /// leak that neither memory nor descriptors show for long.
    pub fn set_tasks(&self, tasks: usize) {
        self.groups.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    /// What several roles count: joins by phase, refused credentials, the registry.
    #[must_use]
    pub fn shared(&self) -> &Arc<SharedMetrics> {
        self.groups.shared.get_or_init(|| SharedMetrics::new(&self.groups.registrar).into())
    }

    /// The control plane's.
    #[must_use]
    pub fn control_plane(&self) -> &Arc<ControlPlaneMetrics> {
        self.groups
            .control_plane
            .get_or_init(|| ControlPlaneMetrics::new(&self.groups.registrar).into())
    }

    /// The gateway's.
    #[must_use]
    pub fn gateway(&self) -> &Arc<GatewayMetrics> {
        self.groups.gateway.get_or_init(|| GatewayMetrics::new(&self.groups.registrar).into())
    }

    /// The media node's.
    #[must_use]
    pub fn node(&self) -> &Arc<NodeMetrics> {
        self.groups.node.get_or_init(|| NodeMetrics::new(&self.groups.registrar).into())
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// If a family cannot be written, which is a fault of ours.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.groups.registrar.registry().gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// A meter provider whose instruments show up among these metrics.
    pub(crate) fn bridge_meters(
        &self,
        resource: Resource,
    ) -> Result<SdkMeterProvider, OTelSdkError> {
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(self.groups.registrar.registry().clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()?;
        Ok(SdkMeterProvider::builder().with_resource(resource).with_reader(exporter).build())
    }
}
