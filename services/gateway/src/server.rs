//! The gateway's composition root: routes, the listener, and a graceful end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::routing::{any, get};
use headwater_rpc::{ClusterCredential, KeyRing};
use headwater_telemetry::{Condition, Metrics, Readiness};
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use tower_http::cors::{AllowHeaders, AllowMethods, Any, CorsLayer};

use crate::config::Config;
use crate::control_plane::ControlPlane;
use crate::gateway::Gateway;
use crate::livekit::door;
use crate::nodes::Nodes;
use crate::{pages, twirp, whip};

/// A request's head must be here within this, and a quiet connection speaks
/// again within it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest head of a request, in bytes: tokens and join requests travel in it.
const HEAD_BYTES_MAX: usize = 256 * 1024;

/// How long browsers may remember what is allowed.
const CORS_MAX_AGE: Duration = Duration::from_secs(86_400);

/// How often the control plane is looked for until it is found.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a gateway is given.
#[derive(Debug, Clone)]
pub struct Dependencies {
    /// API keys: tokens are checked and refreshed with them.
    pub keys: Arc<KeyRing>,
    /// Proof of membership in the cluster.
    pub credential: ClusterCredential,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it tells that it is ready: once a control plane has answered.
    pub readiness: Readiness,
}

/// A gateway that runs.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Running {
    /// Waits until it has stopped.
    ///
    /// # Errors
    /// If its task failed.
    pub async fn join(self) -> anyhow::Result<()> {
        self.task.await.context("the gateway's task failed")
    }
}

/// Starts a gateway. It runs until the token is cancelled: then it takes nobody
/// any more, sends its clients to another gateway, and ends.
///
/// # Errors
/// If the configuration cannot be used or the address cannot be had.
pub async fn start(
    config: Config,
    dependencies: Dependencies,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    anyhow::ensure!(
        !config.control_plane_urls.is_empty(),
        "control_plane_urls must name at least one control plane"
    );
    let Dependencies { keys, credential, metrics, readiness } = dependencies;
    let control_plane = ControlPlane::new(&config.control_plane_urls, &config.tls, &credential)
        .context("control_plane_urls cannot be used")?;
    let nodes = Nodes::new(config.tls.clone(), credential);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    let gateway = Arc::new(Gateway::new(config, keys, control_plane, nodes, metrics, shutdown));
    let found = readiness.condition("control_plane");
    tokio::spawn(find_control_plane(gateway.clone(), found));
    tracing::info!(%address, "the gateway listens");
    let task = tokio::spawn(serve(gateway, listener));
    Ok(Running { address, task })
}

fn routes(gateway: Arc<Gateway>) -> Router {
    let mut router = Router::new()
        .route("/", get(pages::root))
        .route("/rtc", get(door::connect_v0))
        .route("/rtc/validate", get(door::validate_v0))
        .route("/rtc/v1", get(door::connect_v1))
        .route("/rtc/v1/validate", get(door::validate_v1))
        .route("/settings/regions", any(not_found))
        .route("/twirp/{*call}", any(twirp::serve));
    if gateway.config.dev {
        router = router.route("/dev/token", get(pages::dev_token));
    } else {
        router = router.route("/dev/token", any(not_found));
    }
    let router = match &gateway.config.web_root {
        Some(web_root) => router.merge(pages::site(web_root)),
        None => router.fallback(not_found),
    };
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods(AllowMethods::list([Method::GET, Method::HEAD, Method::POST]))
        .max_age(CORS_MAX_AGE);
    router.layer(cors).merge(whip::routes()).with_state(gateway)
}

async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}

async fn find_control_plane(gateway: Arc<Gateway>, found: Condition) {
    let probe = async {
        while !gateway.control_plane.answers().await {
            found.fail("no control plane answers");
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        found.hold();
    };
    tokio::select! {
        () = probe => {}
        () = gateway.shutdown.cancelled() => {}
    }
}

async fn serve(gateway: Arc<Gateway>, listener: TcpListener) {
    let router = routes(gateway.clone());
    let connections = TaskTracker::new();
    let seats = Arc::new(Semaphore::new(gateway.config.limits.connections_max));
    loop {
        let seat = tokio::select! {
            () = gateway.shutdown.cancelled() => break,
            seat = seats.clone().acquire_owned() => seat.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = gateway.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), gateway.shutdown.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(seat);
                });
            }
            Err(error) => {
                // Mostly too many open files: wait for some to close.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    gateway.open_sessions.close();
    let ended = async {
        connections.wait().await;
        gateway.open_sessions.wait().await;
    };
    if tokio::time::timeout(gateway.config.limits.drain_timeout(), ended).await.is_err() {
        tracing::warn!(sessions = gateway.open_sessions.len(), "sessions were cut off by the end");
    }
    tracing::info!("the gateway has stopped");
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    // Signalling is small messages that somebody waits for.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        router.clone().oneshot(normalize(request.map(Body::new)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Users write `wss://host/` and SDKs append `/rtc`: repeated slashes count once.
fn normalize(mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path();
    if !path.contains("//") {
        return request;
    }
    let mut collapsed = String::with_capacity(path.len());
    for char in path.chars() {
        if char != '/' || !collapsed.ends_with('/') {
            collapsed.push(char);
        }
    }
    if let Some(query) = request.uri().query() {
        collapsed.push('?');
        collapsed.push_str(query);
    }
    // Made of the parts of a good URI, so it is one.
    if let Ok(uri) = collapsed.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}
