//! LiveKit's server API over HTTP: Twirp calls of `livekit.RoomService`, turned
//! into calls of the control plane's `RoomService` with the caller's own token.

mod convert;
mod error;
mod json;
mod message;
mod participants;
mod room_service;
mod rooms;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use headwater_rpc::TokenError;
use headwater_rpc::token::unix_seconds;
use headwater_telemetry::metrics::TwirpResult;
use http::{Method, Request};
use tracing::{Instrument as _, info_span};

use crate::gateway::Gateway;
use crate::livekit::{Query, token};
use error::{TwirpCode, TwirpError};
use message::Encoding;
use room_service::{Call, Caller};

/// Longest body of a call, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 10 << 20;

/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// Services of LiveKit that exist elsewhere but not here.
const OTHER_SERVICES: [&str; 8] = [
    "AgentDispatchService",
    "AgentSimulation",
    "CloudAgent",
    "Connector",
    "Egress",
    "Ingress",
    "PhoneNumberService",
    "SIP",
];

/// Everything under `/twirp/`.
pub(crate) async fn serve(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let span = info_span!("twirp", otel.kind = "server", path = request.uri().path());
    let (result, response) = match answer(&gateway, request).instrument(span).await {
        Ok(response) => (TwirpResult::Ok, response),
        Err(error) => {
            tracing::debug!(code = ?error.code, msg = error.msg, "a Twirp call failed");
            (error.result(), error.into_response())
        }
    };
    let metrics = gateway.metrics.gateway();
    metrics.twirp_requests.get(result).inc();
    metrics.twirp_duration.observe(started.elapsed().as_secs_f64());
    response
}

async fn answer(gateway: &Gateway, request: Request<Body>) -> Result<Response, TwirpError> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let call = route(&head.method, path)?;
    let encoding = Encoding::of(&head.headers)
        .ok_or_else(|| TwirpError::bad_route("unexpected Content-Type", &head.method, path))?;
    let token = token(&head.headers, &Query::of(&head.uri))
        .and_then(|token| token.ok_or_else(|| TokenError::Missing.into()))
        .map_err(|rejection| TwirpError::new(TwirpCode::Unauthenticated, rejection.to_string()))?;
    // The control plane decides by the grants; a token that is none costs it nothing.
    let grants = gateway
        .keys
        .verify(&token, unix_seconds())
        .map_err(|error| TwirpError::new(TwirpCode::Unauthenticated, error.to_string()))?;
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX))
        .await
        .map_err(|_| TwirpError::new(TwirpCode::DeadlineExceeded, "the body took too long"))?
        .map_err(|_| TwirpError::too_large(BODY_BYTES_MAX))?;
    let caller = Caller { gateway, token: &token, grants: &grants };
    room_service::answer(&caller, call, encoding, &body).await
}

/// Which method a path stands for.
fn route(method: &Method, path: &str) -> Result<Call, TwirpError> {
    let no_route = || TwirpError::bad_route(format!("no handler for path {path:?}"), method, path);
    let (service, name) = path
        .strip_prefix("/twirp/livekit.")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(no_route)?;
    if method != Method::POST {
        let msg = format!("unsupported method {:?} (only POST is allowed)", method.as_str());
        return Err(TwirpError::bad_route(msg, method, path));
    }
    if OTHER_SERVICES.contains(&service) {
        let msg = format!("livekit.{service} is not part of this server");
        return Err(TwirpError::new(TwirpCode::Unimplemented, msg));
    }
    if service != "RoomService" {
        return Err(no_route());
    }
    match name {
        "PerformRpc" | "ForwardParticipant" | "MoveParticipant" => {
            let msg = format!("{name} is not part of this server");
            Err(TwirpError::new(TwirpCode::Unimplemented, msg))
        }
        name => Call::from_name(name).ok_or_else(no_route),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_the_room_service_are_routed() {
        for name in Call::NAMES {
            let path = format!("/twirp/livekit.RoomService/{name}");
            assert!(route(&Method::POST, &path).is_ok(), "{name}");
            assert_eq!(route(&Method::GET, &path).unwrap_err().code, TwirpCode::BadRoute);
        }
    }

    #[test]
    fn what_is_elsewhere_is_unimplemented_and_what_is_nowhere_a_bad_route() {
        let code = |path: &str| route(&Method::POST, path).unwrap_err().code;
        assert_eq!(code("/twirp/livekit.Egress/StartEgress"), TwirpCode::Unimplemented);
        assert_eq!(code("/twirp/livekit.RoomService/MoveParticipant"), TwirpCode::Unimplemented);
        assert_eq!(code("/twirp/livekit.RoomService/Nothing"), TwirpCode::BadRoute);
        assert_eq!(code("/twirp/livekit.Nothing/Nothing"), TwirpCode::BadRoute);
        assert_eq!(code("/twirp/other"), TwirpCode::BadRoute);
    }
}
