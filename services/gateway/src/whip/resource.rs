//! The sessions' own URLs: PATCH trickles candidates or restarts ICE, DELETE ends.
//!
//! A URL names the participant and a random part that only this gateway knows;
//! both need the token. A gateway that does not hold a session takes it up from
//! its node, so that any of them can be asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use headwater_model::grants::Grants;
use headwater_model::ids::{Identity, RoomId};
use headwater_rpc::token::from_authorization;
use headwater_telemetry::metrics::SignalProtocol;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::endpoint::{authorized, check_content_type, connect, read_body};
use super::fragment::{FragmentError, decode_fragment};
use super::problem::Problem;
use super::session::{ANSWER_TIMEOUT, COMMANDS_MAX, Command, Held, Opened};
use super::{Door, cors};
use crate::gateway::Gateway;
use crate::livekit::{Connect, Established, Query, Rejection, establish};

/// What may be done at a session's URL.
const METHODS: &str = "PATCH, DELETE, OPTIONS";

pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Random bytes of a session's URL.
const SECRET_BYTES: usize = 16;

/// A session that this gateway holds.
pub(crate) struct Entry {
    door: Door,
    room: RoomId,
    identity: Identity,
    /// `PA_…`.
    uid: String,
    /// The random part of the URL, in hex. Empty if another gateway made it.
    secret: String,
    /// Digest of the token it was made with, which stays good for it.
    token: Option<[u8; 32]>,
    ufrag: Mutex<String>,
    commands: mpsc::Sender<Command>,
}

impl Entry {
    pub(super) fn set_ufrag(&self, ufrag: &str) {
        let mut known = self.ufrag.lock().unwrap_or_else(PoisonError::into_inner);
        ufrag.clone_into(&mut known);
    }

    fn ufrag(&self) -> String {
        self.ufrag.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The label that the session counts under.
    pub(super) const fn protocol(&self) -> SignalProtocol {
        match self.door {
            Door::Publish => SignalProtocol::Whip,
            Door::Watch => SignalProtocol::Whep,
        }
    }

    fn has_secret(&self, secret: &str) -> bool {
        self.secret.is_empty() || bool::from(self.secret.as_bytes().ct_eq(secret.as_bytes()))
    }
}

/// The sessions that this gateway holds, by participant. As many as have a seat.
#[derive(Default)]
pub(crate) struct Resources {
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
}

impl Resources {
    /// Holds a new session; tells the last part of its URL and the node's user
    /// fragment.
    pub(super) fn start(
        &self,
        gateway: &Arc<Gateway>,
        door: Door,
        connect: &Connect,
        opened: Opened,
        token: Option<[u8; 32]>,
        seat: OwnedSemaphorePermit,
    ) -> (String, String) {
        let mut secret = String::with_capacity(2 * SECRET_BYTES);
        for byte in rand::random::<[u8; SECRET_BYTES]>() {
            let _ = write!(secret, "{byte:02x}");
        }
        let id = format!("{}.{secret}", opened.uid);
        let ufrag = opened.ufrag.clone();
        self.hold(gateway, door, connect, opened, Proof { secret, token }, seat);
        (id, ufrag)
    }

    fn hold(
        &self,
        gateway: &Arc<Gateway>,
        door: Door,
        connect: &Connect,
        opened: Opened,
        proof: Proof,
        seat: OwnedSemaphorePermit,
    ) -> Arc<Entry> {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let entry = Arc::new(Entry {
            door,
            room: connect.room.clone(),
            identity: connect.identity.clone(),
            uid: opened.uid,
            secret: proof.secret,
            token: proof.token,
            ufrag: Mutex::new(opened.ufrag),
            commands,
        });
        self.lock().insert(entry.uid.clone(), entry.clone());
        let held = Held {
            gateway: gateway.clone(),
            entry: entry.clone(),
            attachment: opened.attachment,
            place: opened.place,
            commands: receiver,
            seat,
        };
        let span = tracing::info_span!("session", participant = %connect.identity.short(), door = &door.path()[1..]);
        gateway.open_sessions.spawn(tracing::Instrument::instrument(held.run(), span));
        entry
    }

    /// Forgets a session that is over, unless another one took its name.
    pub(super) fn forget(&self, entry: &Arc<Entry>) {
        let mut entries = self.lock();
        if entries.get(&entry.uid).is_some_and(|known| Arc::ptr_eq(known, entry)) {
            entries.remove(&entry.uid);
        }
    }

    fn find(&self, uid: &str) -> Option<Arc<Entry>> {
        self.lock().get(uid).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session knows its client by.
#[derive(Default)]
struct Proof {
    secret: String,
    token: Option<[u8; 32]>,
}

/// Digest of a token: sessions remember this instead of the token.
pub(super) fn token_digest(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// The entity tag of an ICE session: the node's user fragment names it.
pub(super) fn etag(ufrag: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{ufrag}\"")).ok()
}

pub(super) async fn serve(
    door: Door,
    State(gateway): State<Arc<Gateway>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response {
    let accept_patch = (http::HeaderName::from_static("accept-patch"), FRAGMENT);
    let method = request.method().clone();
    let answer = match method {
        Method::OPTIONS => return cors::options(METHODS, accept_patch),
        Method::PATCH => patch(door, &gateway, &id, request).await,
        Method::DELETE => delete(door, &gateway, &id, request.headers()).await,
        _ => Err(Problem::Method(METHODS)),
    };
    answer.unwrap_or_else(|problem| {
        tracing::debug!(%problem, "a request for a session was refused");
        if let Some(failure) = problem.auth_failure() {
            gateway.metrics.shared().auth_failures.get(failure).inc();
        }
        problem.into_response()
    })
}

async fn delete(
    door: Door,
    gateway: &Arc<Gateway>,
    id: &str,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let entry = find(door, gateway, id, headers).await?;
    let (reply, left) = oneshot::channel();
    entry.commands.send(Command::Leave { reply }).await.map_err(|_| Problem::NoSession)?;
    // A session that ended for another reason has ended, too.
    let _ = left.await;
    Ok(StatusCode::OK.into_response())
}

async fn patch(
    door: Door,
    gateway: &Arc<Gateway>,
    id: &str,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let entry = find(door, gateway, id, &head.headers).await?;
    check_content_type(&head.headers, FRAGMENT)?;
    let fragment = decode_fragment(&read_body(body).await?)?;
    let Some(wanted) = head.headers.get(header::IF_MATCH) else {
        // Players trickle without it, and their candidates are of no use anyway.
        return match door {
            Door::Publish => Err(Problem::NoIfMatch),
            Door::Watch => Ok(StatusCode::NO_CONTENT.into_response()),
        };
    };
    if wanted != "*" {
        let known = etag(&entry.ufrag());
        let named = wanted.to_str().unwrap_or_default().split(',').map(str::trim);
        let known = known.as_ref().and_then(|known| known.to_str().ok()).unwrap_or_default();
        if !named.into_iter().any(|named| named == known) {
            return Err(Problem::EtagMismatch);
        }
        // Candidates are of no use to an ICE-lite node.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let Some((ufrag, pwd)) = fragment.credentials.clone() else {
        return Err(FragmentError::NoCredentials.into());
    };
    let before = entry.ufrag();
    let (reply, restarted) = oneshot::channel();
    let command = Command::RestartIce { ufrag, pwd, reply };
    entry.commands.send(command).await.map_err(|_| Problem::NoSession)?;
    let restarted = tokio::time::timeout(ANSWER_TIMEOUT, restarted)
        .await
        .map_err(|_| Problem::NodeSilent)?
        .map_err(|_| Problem::NoSession)?;
    if restarted.ufrag == before {
        // The credentials were those known: no restart, and nothing new to tell.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let headers = [
        (header::CONTENT_TYPE, Some(HeaderValue::from_static(FRAGMENT))),
        (header::CACHE_CONTROL, Some(HeaderValue::from_static("no-store"))),
        (header::ETAG, etag(&restarted.ufrag)),
    ];
    let headers: HeaderMap =
        headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    Ok((StatusCode::OK, headers, fragment.answer(&restarted)).into_response())
}

/// The session of a URL, if the bearer of the token may have it.
async fn find(
    door: Door,
    gateway: &Arc<Gateway>,
    id: &str,
    headers: &HeaderMap,
) -> Result<Arc<Entry>, Problem> {
    let (uid, secret) = id.split_once('.').unwrap_or((id, ""));
    let Some(entry) = gateway.resources.find(uid) else {
        let grants = authorized(gateway, headers)?;
        return take_up(door, gateway, uid, grants).await;
    };
    if !made_with(&entry, headers) {
        let grants = authorized(gateway, headers)?;
        if grants.room != entry.room.as_str() || grants.identity != entry.identity.as_str() {
            return Err(Problem::NotYours);
        }
    }
    if entry.door != door || !entry.has_secret(secret) {
        return Err(Problem::NoSession);
    }
    Ok(entry)
}

/// Whether the token is the very one the session was made with. That one stays
/// good for the session after it has expired: these clients get no other.
fn made_with(entry: &Entry, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(from_authorization).map(token_digest);
    entry.token.zip(given).is_some_and(|(known, given)| bool::from(known.ct_eq(&given)))
}

/// Takes a session up that another gateway held, if its node still has it.
async fn take_up(
    door: Door,
    gateway: &Arc<Gateway>,
    uid: &str,
    grants: Grants,
) -> Result<Arc<Entry>, Problem> {
    if !uid.starts_with("PA_")
        || !uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Err(Problem::NoSession);
    }
    let mut connect = connect(door, grants, &Query::default())?;
    connect.resume_uid = Some(uid.to_owned());
    let seat = gateway.sessions.clone().try_acquire_owned().map_err(|_| Rejection::GatewayFull)?;
    let _joining = gateway.joins.try_acquire().map_err(|_| Rejection::GatewayFull)?;
    let session = match establish(gateway, &connect).await {
        Ok(Established::Open(session)) => *session,
        Ok(Established::Mismatch) | Err(Rejection::NoSuchRoom) => return Err(Problem::NoSession),
        Err(rejection) => return Err(rejection.into()),
    };
    let opened = Opened {
        attachment: session.attachment,
        place: session.place,
        uid: uid.to_owned(),
        answer: String::new(),
        ufrag: session.joined.ice_ufrag,
    };
    Ok(gateway.resources.hold(gateway, door, &connect, opened, Proof::default(), seat))
}
