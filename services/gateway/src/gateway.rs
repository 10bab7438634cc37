//! What every request of this gateway shares.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_proto::control::v1::PlaceParticipantRequest;
use headwater_rpc::KeyRing;
use headwater_telemetry::Metrics;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::livekit::ResumeTrials;
use crate::nodes::Nodes;
use crate::whip::{Pace, Resources};

/// A room's lost node is reported once in this time, not once for each participant.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Reports remembered. At the bound the control plane is told more often than needed.
const REPORTS_MAX: usize = 10_000;

/// How long the control plane may take to hear of a lost node while a client waits.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a participant was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) room: String,
    pub(crate) identity: String,
    pub(crate) node_id: String,
    pub(crate) epoch: u64,
}

/// See the module.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) control_plane: ControlPlane,
    pub(crate) nodes: Nodes,
    pub(crate) metrics: Metrics,
    /// One permit for each WebSocket session, open or opening.
    pub(crate) sessions: Arc<Semaphore>,
    /// One permit for each join in the making.
    pub(crate) joins: Semaphore,
    /// Sessions that must end before the gateway does.
    pub(crate) open_sessions: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) trials: Mutex<ResumeTrials>,
    /// Sessions of clients without signalling.
    pub(crate) resources: Resources,
    pub(crate) pace: Mutex<Pace>,
    reports: Mutex<BTreeMap<(String, String, u64), Instant>>,
}

impl Gateway {
    pub(crate) fn new(
        config: Config,
        keys: Arc<KeyRing>,
        control_plane: ControlPlane,
        nodes: Nodes,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            sessions: Arc::new(Semaphore::new(config.limits.sessions_max)),
            joins: Semaphore::new(config.limits.joins_max),
            config,
            keys,
            control_plane,
            nodes,
            metrics,
            open_sessions: TaskTracker::new(),
            shutdown,
            trials: Mutex::default(),
            resources: Resources::default(),
            pace: Mutex::default(),
            reports: Mutex::default(),
        }
    }

    /// Tells the control plane that a node is lost, so that its rooms have a new
    /// place when their clients come back. Returns soon, whether it was heard or
    /// not: a client that comes back and finds the node gone asks again.
    pub(crate) async fn report_lost(&self, place: &Place) {
        if !self.is_first_report(place) {
            return;
        }
        let request = PlaceParticipantRequest {
            room_id: place.room.clone(),
            identity: place.identity.clone(),
            may_create: false,
            failed_node_id: place.node_id.clone(),
            failed_epoch: place.epoch,
            resuming: true,
            ..PlaceParticipantRequest::default()
        };
        let placed = self.control_plane.place(&request, REPORT_TIMEOUT);
        match tokio::time::timeout(REPORT_TIMEOUT, placed).await {
            Ok(Ok(placed)) if placed.node_id != place.node_id && !placed.node_id.is_empty() => {
                self.metrics.gateway().failovers.inc();
            }
            Ok(Ok(_)) => {}
            Ok(Err(status)) => {
                tracing::debug!(%status, "the control plane did not hear of a lost node");
            }
            Err(_) => tracing::debug!("the control plane did not hear of a lost node in time"),
        }
    }

    fn is_first_report(&self, place: &Place) -> bool {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        reports.retain(|_, at| now.duration_since(*at) < REPORT_INTERVAL);
        if reports.len() >= REPORTS_MAX {
            return true;
        }
        let key = (place.room.clone(), place.node_id.clone(), place.epoch);
        reports.insert(key, now).is_none()
    }
}
