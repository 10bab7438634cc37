//! The HTTP side of signalling: `/rtc` and `/rtc/v1` with their `validate`
//! twins. Everything is decided before the upgrade, so that a refusal is an
//! HTTP status that SDKs can read.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::{IntoResponse, Response};
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest};
use headwater_rpc::token::unix_seconds;
use headwater_telemetry::metrics::{AuthFailure, JoinOutcome, JoinPhase, SignalProtocol};
use http::{HeaderMap, Uri};
use tracing::{Instrument as _, field, info_span};

use super::connect::{Connect, Door, authenticate, connect};
use super::establish::{Established, establish, may_create, retry_after};
use super::frame::FRAME_BYTES_MAX;
use super::query::Query;
use super::rejection::Rejection;
use super::session;
use crate::gateway::Gateway;

/// Where reading stops in the middle of a frame. Above [`FRAME_BYTES_MAX`], so
/// that a client which is a little over is told in an orderly close; one that
/// is far over finds its connection reset.
const READ_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// What a connection reads at once, and keeps for as long as it lives: signalling is
/// small, and the usual 128 KiB would be most of what an idle viewer costs.
const READ_BUFFER_BYTES: usize = 4 << 10;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(crate) async fn connect_v0(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    serve(gateway, Door::V0, &headers, &uri, upgrade).await
}

pub(crate) async fn connect_v1(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Upgrade,
) -> Response {
    serve(gateway, Door::V1, &headers, &uri, upgrade).await
}

pub(crate) async fn validate_v0(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    validate(&gateway, Door::V0, &headers, &uri).await
}

pub(crate) async fn validate_v1(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    validate(&gateway, Door::V1, &headers, &uri).await
}

/// A door that is switched off answers 404, which sends clients to v0.
fn open_door(gateway: &Gateway, door: Door) -> Result<(), Rejection> {
    if door == Door::V1 && !gateway.config.livekit.v1 {
        return Err(Rejection::NoSuchDoor);
    }
    Ok(())
}

async fn serve(
    gateway: Arc<Gateway>,
    door: Door,
    headers: &HeaderMap,
    uri: &Uri,
    upgrade: Upgrade,
) -> Response {
    let span = info_span!(
        "join",
        otel.kind = "server",
        door = if door == Door::V1 { "v1" } else { "v0" },
        resume = field::Empty,
        outcome = field::Empty,
    );
    let counted = Counted::new(gateway.clone());
    let answer = enter(&gateway, door, headers, uri, upgrade).instrument(span.clone()).await;
    let (outcome, response) = match answer {
        Ok((outcome, response)) => (Some(outcome), response),
        Err(rejection) => {
            tracing::debug!(parent: &span, %rejection, "a client was not let in");
            counted.note(rejection.auth_failure());
            (rejection.is_join().then(|| rejection.outcome()), rejection.into_response())
        }
    };
    span.record("outcome", format!("{outcome:?}"));
    counted.end(outcome);
    response
}

/// Counts an attempt to join once, also if its request is dropped half way.
pub(crate) struct Counted {
    gateway: Arc<Gateway>,
    /// Absent until the attempt is over; then what it counts as, if anything.
    outcome: Option<Option<JoinOutcome>>,
}

impl Counted {
    pub(crate) const fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway, outcome: None }
    }

    /// Notes which credential failed, if one did.
    pub(crate) fn note(&self, failure: Option<AuthFailure>) {
        if let Some(failure) = failure {
            self.gateway.metrics.shared().auth_failures.get(failure).inc();
        }
    }

    /// The attempt is over; absent if it was none.
    pub(crate) fn end(mut self, outcome: Option<JoinOutcome>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(Some(JoinOutcome::ClientGone));
        if let Some(outcome) = outcome {
            self.gateway.metrics.gateway().join_attempts.get(outcome).inc();
        }
    }
}

async fn enter(
    gateway: &Arc<Gateway>,
    door: Door,
    headers: &HeaderMap,
    uri: &Uri,
    upgrade: Upgrade,
) -> Result<(JoinOutcome, Response), Rejection> {
    let started = Instant::now();
    open_door(gateway, door)?;
    let query = Query::of(uri);
    let grants = authenticate(headers, &query, &gateway.keys, unix_seconds())?;
    let upgrade = upgrade.map_err(|_| Rejection::NotWebSocket)?;
    let connect = connect(door, grants, headers, &query)?;
    tracing::Span::current().record("resume", connect.resume_uid.is_some());
    if gateway.shutdown.is_cancelled() {
        return Err(Rejection::ShuttingDown);
    }
    let seat = gateway.sessions.clone().try_acquire_owned().map_err(|_| Rejection::GatewayFull)?;
    let established = {
        let _joining = gateway.joins.try_acquire().map_err(|_| Rejection::GatewayFull)?;
        establish(gateway, &connect).await?
    };
    gateway
        .metrics
        .shared()
        .join_duration
        .get(JoinPhase::Signal)
        .observe(started.elapsed().as_secs_f64());
    let outcome = match (&established, &connect.resume_uid) {
        (Established::Open(_), None) => JoinOutcome::Joined,
        (Established::Open(_), Some(_)) => JoinOutcome::Resumed,
        (Established::Mismatch, _) => JoinOutcome::RoomNotFound,
    };
    let upgrade = upgrade
        .max_message_size(READ_BYTES_MAX)
        .max_frame_size(READ_BYTES_MAX)
        .read_buffer_size(READ_BUFFER_BYTES);
    let gateway = gateway.clone();
    let open = gateway.open_sessions.token();
    let response = upgrade.on_upgrade(move |socket| async move {
        session::run(gateway, connect, established, socket).await;
        drop((seat, open));
    });
    Ok((outcome, response))
}

async fn validate(gateway: &Gateway, door: Door, headers: &HeaderMap, uri: &Uri) -> Response {
    match check(gateway, door, headers, uri).await {
        Ok(()) => "success".into_response(),
        Err(rejection) => rejection.into_response(),
    }
}

/// What connecting would find, short of opening a session or making a room.
async fn check(
    gateway: &Gateway,
    door: Door,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<(), Rejection> {
    open_door(gateway, door)?;
    let query = Query::of(uri);
    let grants = authenticate(headers, &query, &gateway.keys, unix_seconds())?;
    let connect = connect(door, grants, headers, &query)?;
    if gateway.shutdown.is_cancelled() {
        return Err(Rejection::ShuttingDown);
    }
    if gateway.sessions.available_permits() == 0 {
        return Err(Rejection::GatewayFull);
    }
    let _joining = gateway.joins.try_acquire().map_err(|_| Rejection::GatewayFull)?;
    let request = PlaceParticipantRequest {
        room_id: connect.room.as_str().to_owned(),
        identity: connect.identity.as_str().to_owned(),
        resuming: connect.resume_uid.is_some(),
        ..Default::default()
    };
    let placed = gateway
        .control_plane
        .place(&request, gateway.config.limits.join_timeout())
        .await
        .map_err(|_| Rejection::ControlPlaneUnreachable)?;
    match placed.admission() {
        Admission::Admitted => Ok(()),
        Admission::Wait | Admission::Unspecified => Err(Rejection::Wait(retry_after(&placed))),
        Admission::RoomFull => Err(Rejection::RoomFull),
        Admission::RoomNotFound if is_no_obstacle(gateway, &connect) => Ok(()),
        Admission::RoomNotFound => Err(Rejection::NoSuchRoom),
    }
}

/// A missing room is made by the join, or told to a resume as a mismatch.
fn is_no_obstacle(gateway: &Gateway, connect: &Connect) -> bool {
    may_create(gateway, connect) || connect.resume_uid.is_some()
}

/// The label that a session of this client counts under.
pub(crate) fn signal_protocol(connect: &Connect) -> SignalProtocol {
    use headwater_proto::node::v1::TransportMode;
    match connect.mode {
        TransportMode::Dual => SignalProtocol::V0,
        TransportMode::Single | TransportMode::Unspecified => SignalProtocol::V1,
    }
}
