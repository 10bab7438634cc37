//! Servers: one port with gRPC, gRPC-Web, health, reflection and CORS; deadlines,
//! limits, trace context and measurements for every call; a graceful end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use headwater_proto::control::v1::placement_service_server::{
    PlacementService, PlacementServiceServer,
};
use headwater_proto::node::v1::node_service_server::{NodeService, NodeServiceServer};
use headwater_proto::node::v1::session_service_server::{SessionService, SessionServiceServer};
use headwater_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use headwater_proto::v1::room_service_server::{RoomService, RoomServiceServer};
use http::HeaderName;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower_http::cors::{Any, CorsLayer};

use crate::cluster::{ClusterCredential, Guarded};
use crate::status::Chain;

mod calls;
mod connections;
#[cfg(test)]
mod tests;

use calls::CallsLayer;
use connections::Connections;

/// Largest request message, in bytes. Room for 512 KiB of metadata.
pub const MESSAGE_BYTES_IN_MAX: usize = 1024 * 1024;
/// Largest response message, in bytes; also what clients take. Pages of rooms with
/// much metadata must be shorter than asked for.
pub const MESSAGE_BYTES_OUT_MAX: usize = 4 * 1024 * 1024;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that opens a connection must show its certificate within this.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// See the like of it in the client.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Tokens travel in headers.
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

/// How a server proves itself, and whether its clients must.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTls {
    /// PEM file with the certificate chain.
    pub certificate_file: PathBuf,
    /// PEM file with the key.
    pub key_file: PathBuf,
    /// PEM file with the certificates that clients' certificates must be signed
    /// by. Absent means that clients need none.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
}

/// Where and how a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port. Port 0 takes a free one.
    pub address: SocketAddr,
    /// TLS. Absent means plain TCP.
    pub tls: Option<ServerTls>,
    /// Answer gRPC reflection, v1 and v1alpha.
    pub reflection: bool,
    /// Origins that browsers may call from. Empty means all: calls carry a token
    /// and no cookie, so an origin alone gives nothing away.
    pub cors_origins: Vec<String>,
    /// Connections at once. More are closed at once.
    pub connections_max: usize,
    /// Streams of one connection at once. More wait at the client. Session
    /// services need one for each participant of a gateway.
    pub streams_per_connection_max: u32,
    /// Unary calls in work at once, over all connections. More are answered
    /// `RESOURCE_EXHAUSTED`.
    pub calls_max: usize,
    /// How long connections may finish what they do after the server was told
    /// to stop, in seconds. Then they are cut.
    pub shutdown_grace_seconds: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            reflection: true,
            cors_origins: Vec::new(),
            connections_max: 10_000,
            streams_per_connection_max: 10_000,
            calls_max: 1024,
            shutdown_grace_seconds: 5,
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read {}", path.display())]
    UnreadableFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The certificates or the key are not usable.
    #[error("the TLS certificate or key is not usable")]
    BadTls(#[source] tonic::transport::Error),
    /// An origin is no header text.
    #[error("{0} is no origin")]
    BadOrigin(String),
    /// The descriptors are not usable: a fault of the build.
    #[error("the service descriptors are not usable")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// A service of ours: what every one of them is set to.
pub trait Limited: Sized {
    /// Sets the message limits and gzip.
    #[must_use]
    fn limited(self) -> Self;
}

macro_rules! limited {
    ($($server:ident<$service:ident>),* $(,)?) => {$(
        impl<T: $service> Limited for $server<T> {
            fn limited(self) -> Self {
                self.max_decoding_message_size(MESSAGE_BYTES_IN_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_OUT_MAX)
                    .accept_compressed(CompressionEncoding::Gzip)
            }
        }
    )*};
}

limited! {
    RoomServiceServer<RoomService>,
    ClusterServiceServer<ClusterService>,
    PlacementServiceServer<PlacementService>,
    NodeServiceServer<NodeService>,
    SessionServiceServer<SessionService>,
}

/// What a service must be to be served.
pub trait Servable:
    tower::Service<
        http::Request<tonic::body::Body>,
        Response = http::Response<tonic::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + tonic::server::NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Servable for S where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + tonic::server::NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A server being put together.
pub struct Server {
    config: ServerConfig,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl Server {
    /// A server without services.
    #[must_use]
    pub fn new(config: ServerConfig) -> Self {
        Self { config, routes: RoutesBuilder::default(), names: Vec::new() }
    }

    /// Adds a service for everybody; it checks tokens itself.
    #[must_use]
    pub fn add_service<S: Limited + Servable>(mut self, service: S) -> Self {
        self.names.push(S::NAME);
        self.routes.add_service(service.limited());
        self
    }

    /// Adds a service for the roles of the cluster: calls without the
    /// credential are refused before they reach it.
    #[must_use]
    pub fn add_internal_service<S: Limited + Servable>(
        mut self,
        service: S,
        credential: &ClusterCredential,
    ) -> Self {
        self.names.push(S::NAME);
        self.routes.add_service(Guarded::new(service.limited(), credential.clone()));
        self
    }

    /// Binds and serves until the token is cancelled. Answers once bound, with
    /// the real address. Health says `NOT_SERVING` until [`RunningServer::set_serving`].
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn serve(self, shutdown: CancellationToken) -> Result<RunningServer, ServeError> {
        let Self { config, mut routes, names } = self;
        let mut builder = tonic::transport::Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .max_concurrent_streams(config.streams_per_connection_max);
        if let Some(tls) = &config.tls {
            builder = builder.tls_config(tls_config(tls)?).map_err(ServeError::BadTls)?;
        }
        let cors = cors(&config.cors_origins)?;
        let (reporter, health) = tonic_health::server::health_reporter();
        routes.add_service(health);
        if config.reflection {
            add_reflection(&mut routes)?;
        }
        let health = Health { reporter, names };
        health.set(ServingStatus::NotServing).await;

        let bind_error = |source| ServeError::Bind { address: config.address, source };
        let incoming = TcpIncoming::bind(config.address).map_err(bind_error)?;
        let address = incoming.local_addr().map_err(bind_error)?;
        let cut = CancellationToken::new();
        let connections = Connections::new(
            incoming.with_nodelay(Some(true)),
            config.connections_max,
            cut.clone(),
        );
        let serving = builder
            .layer(cors)
            .layer(tonic_web::GrpcWebLayer::new())
            .layer(CallsLayer::new(config.calls_max))
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned());
        let grace = Duration::from_secs(config.shutdown_grace_seconds);
        let task = tokio::spawn(run(serving, health.clone(), shutdown, grace, cut));
        Ok(RunningServer { address, health, task })
    }
}

/// A server at work. Dropping it does not stop it; its cancellation token does.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    health: Health,
    task: tokio::task::JoinHandle<()>,
}

impl RunningServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says to health checks that this server takes calls.
    pub async fn set_serving(&self) {
        self.health.set(ServingStatus::Serving).await;
    }

    /// Says to health checks that this server should not be asked.
    pub async fn set_not_serving(&self) {
        self.health.set(ServingStatus::NotServing).await;
    }

    /// Waits for its end, which comes at most the grace after cancellation.
    pub async fn join(self) {
        if let Err(error) = self.task.await {
            tracing::error!(error = %Chain(&error), "the gRPC server's task failed");
        }
    }
}

#[derive(Debug, Clone)]
struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    /// Sets the server as a whole (the empty name) and each of its services.
    async fn set(&self, status: ServingStatus) {
        self.reporter.set_service_status("", status).await;
        for name in &self.names {
            self.reporter.set_service_status(name, status).await;
        }
    }
}

/// Serves; after cancellation waits for the grace and then cuts what is left.
async fn run(
    serving: impl Future<Output = Result<(), tonic::transport::Error>>,
    health: Health,
    shutdown: CancellationToken,
    grace: Duration,
    cut: CancellationToken,
) {
    let grace_over = async {
        shutdown.cancelled().await;
        health.set(ServingStatus::NotServing).await;
        tokio::time::sleep(grace).await;
        cut.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = serving => {
            if let Err(error) = result {
                tracing::error!(error = %Chain(&error), "the gRPC server ended");
            }
        }
        () = grace_over => {}
    }
}

fn add_reflection(routes: &mut RoutesBuilder) -> Result<(), ServeError> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(headwater_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(builder().build_v1().map_err(ServeError::Reflection)?);
    routes.add_service(builder().build_v1alpha().map_err(ServeError::Reflection)?);
    Ok(())
}

fn tls_config(tls: &ServerTls) -> Result<ServerTlsConfig, ServeError> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|source| ServeError::UnreadableFile { path: path.clone(), source })
    };
    let identity = Identity::from_pem(read(&tls.certificate_file)?, read(&tls.key_file)?);
    let config = ServerTlsConfig::new().identity(identity).timeout(TLS_HANDSHAKE_TIMEOUT);
    Ok(match &tls.client_ca_file {
        Some(path) => config.client_ca_root(Certificate::from_pem(read(path)?)),
        None => config,
    })
}

/// What a browser may send and see. Everything it may do needs a token.
fn cors(origins: &[String]) -> Result<CorsLayer, ServeError> {
    let exposed = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
    let layer = CorsLayer::new()
        .allow_methods([http::Method::POST])
        .allow_headers(Any)
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(Duration::from_secs(24 * 60 * 60));
    if origins.is_empty() {
        return Ok(layer.allow_origin(Any));
    }
    let origins = origins
        .iter()
        .map(|origin| origin.parse().map_err(|_| ServeError::BadOrigin(origin.clone())))
        .collect::<Result<Vec<http::HeaderValue>, _>>()?;
    Ok(layer.allow_origin(origins))
}
