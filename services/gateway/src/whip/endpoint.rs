//! The endpoints: POST an offer, get the answer and the URL of a session.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use headwater_model::grants::{Grants, ParticipantKind};
use headwater_rpc::token::unix_seconds;
use headwater_telemetry::metrics::{JoinOutcome, JoinPhase};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use tracing::{Instrument as _, field, info_span};

use super::offer::{Offer, answer_is_used, decode_offer};
use super::problem::Problem;
use super::resource::{etag, token_digest};
use super::session::{Opened, open};
use super::{BODY_BYTES_MAX, Door, cors};
use crate::config::IceServer;
use crate::gateway::Gateway;
use crate::livekit::{
    Connect, Counted, Established, Query, Rejection, Solo, authenticate, bare_connect, establish,
};

/// What may be done at an endpoint.
const METHODS: &str = "POST, OPTIONS";

const SDP: &str = "application/sdp";

/// A body must be here within this.
const BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Identities or tracks that one viewer may name.
const FOLLOWED_MAX: usize = 16;

pub(super) async fn serve(
    door: Door,
    State(gateway): State<Arc<Gateway>>,
    request: Request<Body>,
) -> Response {
    if request.method() == Method::OPTIONS {
        return cors::options(METHODS, (http::HeaderName::from_static("accept-post"), SDP));
    }
    let span =
        info_span!("join", otel.kind = "server", door = &door.path()[1..], outcome = field::Empty,);
    let counted = Counted::new(gateway.clone());
    let answer = create(door, &gateway, request).instrument(span.clone()).await;
    let (outcome, response) = match answer {
        Ok(response) => (Some(JoinOutcome::Joined), response),
        Err(problem) => {
            tracing::debug!(parent: &span, %problem, "a client was not let in");
            counted.note(problem.auth_failure());
            let is_join = !matches!(problem, Problem::Method(_));
            (is_join.then(|| problem.outcome()), problem.into_response())
        }
    };
    span.record("outcome", format!("{outcome:?}"));
    counted.end(outcome);
    response
}

async fn create(
    door: Door,
    gateway: &Arc<Gateway>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Err(Problem::Method(METHODS));
    }
    let grants = authorized(gateway, &head.headers)?;
    check_content_type(&head.headers, SDP)?;
    check_accept(&head.headers)?;
    let connect = connect(door, grants, &Query::of(&head.uri))?;
    let body = read_body(body).await?;
    let offer = decode_offer(&body)?;
    check_direction(door, &offer)?;
    pace(gateway, &connect)?;
    if gateway.shutdown.is_cancelled() {
        return Err(Rejection::ShuttingDown.into());
    }
    let seat = gateway.sessions.clone().try_acquire_owned().map_err(|_| Rejection::GatewayFull)?;
    let opened = {
        let _joining = gateway.joins.try_acquire().map_err(|_| Rejection::GatewayFull)?;
        let session = match establish(gateway, &connect).await? {
            Established::Open(session) => session,
            // Only who resumes is told so.
            Established::Mismatch => return Err(Problem::NoSession),
        };
        let sdp = String::from_utf8(body.to_vec()).map_err(|_| Problem::Body)?;
        let tracks = match door {
            Door::Publish => offer.tracks(&connect.grants.permission),
            Door::Watch => Vec::new(),
        };
        let wanted = connect.solo.as_ref().map(|solo| solo.tracks.clone()).unwrap_or_default();
        let asked = Opened::ask(tracks, wanted, sdp);
        open(*session, asked, |answer| answer_is_used(answer, door)).await?
    };
    let answer = opened.answer.clone();
    let token = bearer(&head.headers);
    let (id, etag) = gateway.resources.start(gateway, door, &connect, opened, token, seat);
    gateway
        .metrics
        .shared()
        .join_duration
        .get(JoinPhase::Signal)
        .observe(started.elapsed().as_secs_f64());
    Ok(created(gateway, door, &id, &etag, answer))
}

/// The token of the `Authorization` header, checked. It is taken from nowhere
/// else: URLs end up in logs.
pub(super) fn authorized(gateway: &Gateway, headers: &HeaderMap) -> Result<Grants, Problem> {
    let grants = authenticate(headers, &Query::default(), &gateway.keys, unix_seconds())?;
    Ok(grants.ok_or(Rejection::NoToken)?)
}

/// Digest of the bearer, by which a session knows the token it was made with.
fn bearer(headers: &HeaderMap) -> Option<[u8; 32]> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    headwater_rpc::token::from_authorization(value).map(token_digest)
}

/// What is asked for, as the node is told it.
pub(super) fn connect(door: Door, mut grants: Grants, query: &Query) -> Result<Connect, Problem> {
    let permission = &mut grants.permission;
    let allowed = match door {
        Door::Publish => permission.can_publish,
        Door::Watch => permission.can_subscribe,
    };
    if grants.room_join && !allowed {
        return Err(Problem::NotAllowed(door));
    }
    match door {
        Door::Publish => {
            permission.can_subscribe = false;
            if grants.kind == ParticipantKind::Standard {
                grants.kind = ParticipantKind::Ingress;
            }
        }
        Door::Watch => permission.can_publish = false,
    }
    let (followed, tracks) = match door {
        Door::Publish => (Vec::new(), Vec::new()),
        Door::Watch => (query.all("identity"), query.all("track")),
    };
    if followed.len() > FOLLOWED_MAX || tracks.len() > FOLLOWED_MAX {
        return Err(Problem::Query);
    }
    let auto_subscribe = door == Door::Watch && tracks.is_empty();
    Ok(bare_connect(grants, auto_subscribe, Solo { followed, tracks })?)
}

pub(super) fn check_content_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = given.and_then(|value| value.split(';').next()).map(str::trim);
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case(wanted) => Ok(()),
        Some(_) | None => Err(Problem::ContentType(wanted)),
    }
}

fn check_accept(headers: &HeaderMap) -> Result<(), Problem> {
    let mut ranges = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .map(|range| range.trim().to_ascii_lowercase())
        .peekable();
    let fits = |range: String| matches!(range.as_str(), "*/*" | "application/*" | SDP);
    if ranges.peek().is_none() || ranges.any(fits) { Ok(()) } else { Err(Problem::NotAcceptable) }
}

pub(super) async fn read_body(body: Body) -> Result<axum::body::Bytes, Problem> {
    use axum::body::HttpBody as _;
    let most = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
    if body.size_hint().lower() > most {
        return Err(Problem::TooLarge);
    }
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(Problem::TooLarge),
        Ok(Err(_)) | Err(_) => Err(Problem::Body),
    }
}

/// Whether reading ended because there was too much, not because it broke.
fn is_limit(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn check_direction(door: Door, offer: &Offer) -> Result<(), Problem> {
    match door {
        Door::Publish if !offer.sends() => Err(Problem::NothingSent),
        Door::Watch if !offer.receives() => Err(Problem::NothingReceived),
        Door::Publish | Door::Watch => Ok(()),
    }
}

fn pace(gateway: &Gateway, connect: &Connect) -> Result<(), Problem> {
    let mut pace = gateway.pace.lock().unwrap_or_else(PoisonError::into_inner);
    pace.take(connect.room.as_str(), connect.identity.as_str(), Instant::now())
        .map_err(Problem::TooOften)
}

fn created(gateway: &Gateway, door: Door, id: &str, ufrag: &str, answer: String) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let accept_patch = http::HeaderName::from_static("accept-patch");
    headers.insert(accept_patch, HeaderValue::from_static(super::resource::FRAGMENT));
    if let Ok(location) = HeaderValue::try_from(format!("{}/{id}", door.path())) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(etag) = etag(ufrag) {
        headers.insert(header::ETAG, etag);
    }
    for link in gateway.config.livekit.ice_servers.iter().flat_map(links) {
        headers.append(header::LINK, link);
    }
    (StatusCode::CREATED, headers, answer).into_response()
}

/// One header for each URL of a server (RFC 9725 4.6). One that cannot be
/// written is left out.
fn links(server: &IceServer) -> Vec<HeaderValue> {
    let mut credentials = String::new();
    if !server.username.is_empty() {
        credentials = format!(
            "; username={}; credential={}; credential-type=\"password\"",
            quoted(&server.username),
            quoted(server.credential())
        );
    }
    let link = |url: &String| {
        let mut value =
            HeaderValue::try_from(format!("<{url}>; rel=\"ice-server\"{credentials}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    server.urls.iter().filter_map(link).collect()
}

/// RFC 9110 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
