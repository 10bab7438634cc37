//! Clients: a lazy connection for generated clients that notices a dead peer
//! within seconds, carries the cluster's credential, the trace and the deadline,
//! and is measured.

use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, TimeoutExpired};
use tower::Service;
use tracing::{Instrument as _, field, info_span};

use crate::cluster::{CREDENTIAL_KEY, ClusterCredential};
use crate::method::{Method, MethodKind};
use crate::recorder::{CallBody, Recorder, Side};
use crate::{deadline, status, trace};

/// A peer that does not answer to TCP is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Flow-control windows. Thousands of session streams share a connection, so
/// its window must be much larger than that of a stream which nobody reads.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// How a client proves itself and knows its server. Everything empty: plain TCP
/// for `http://`, and public certificates are not trusted for `https://` unless
/// `ca_file` names one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    /// PEM file with the certificates that servers' certificates are signed by.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's own certificate chain, if servers ask for one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the key of `certificate_file`.
    pub key_file: Option<PathBuf>,
    /// Name to expect in the server's certificate instead of the URL's host.
    pub server_name: Option<String>,
}

/// How soon a peer that says nothing at all is given up, and every call and stream
/// to it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// 8 s, for calls that may wait.
    Calm,
    /// 1.5 s, for streams by which people are moved from a machine that stands still.
    Alert,
}

impl Patience {
    /// It is asked after this long a silence, busy or idle...
    const fn interval(self) -> Duration {
        match self {
            Self::Calm => Duration::from_secs(6),
            Self::Alert => Duration::from_millis(500),
        }
    }

    /// ...and given up after this much more.
    const fn timeout(self) -> Duration {
        match self {
            Self::Calm => Duration::from_secs(2),
            Self::Alert => Duration::from_secs(1),
        }
    }
}

/// Why a connection could not be prepared. A peer that is away is no such
/// reason: that shows in the calls, as `UNAVAILABLE`.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It is no URL with a scheme and a host.
    #[error("{url} is no URL of a gRPC server")]
    BadUrl {
        /// What was given.
        url: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
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
    /// A certificate came without its key or the other way round.
    #[error("certificate_file and key_file need each other")]
    HalfIdentity,
    /// The certificates or the key are not usable.
    #[error("the TLS settings for {url} are not usable")]
    BadTls {
        /// The server.
        url: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A connection to one server, made when it is first needed and made again
/// whenever it broke. Cheap to clone; clones share it. Hand it to generated
/// clients as their channel.
#[derive(Debug, Clone)]
pub struct Connection {
    channel: Channel,
    credential: Option<ClusterCredential>,
}

/// Prepares a connection. Call it within a Tokio runtime; nothing is sent yet.
/// With a credential, every call proves membership of the cluster.
///
/// # Errors
/// See [`ConnectError`].
pub fn connect(
    url: &str,
    tls: &ClientTls,
    credential: Option<ClusterCredential>,
) -> Result<Connection, ConnectError> {
    connect_with(url, tls, credential, Patience::Calm)
}

/// The same, with a patience of its own.
///
/// # Errors
/// See [`ConnectError`].
pub fn connect_with(
    url: &str,
    tls: &ClientTls,
    credential: Option<ClusterCredential>,
    patience: Patience,
) -> Result<Connection, ConnectError> {
    let bad_url = |source| ConnectError::BadUrl { url: url.to_owned(), source };
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(bad_url)?
        .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")))
        .map_err(bad_url)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(patience.interval())
        .keep_alive_timeout(patience.timeout())
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if url.starts_with("https://") {
        let config = tls.config()?;
        endpoint = endpoint
            .tls_config(config)
            .map_err(|source| ConnectError::BadTls { url: url.to_owned(), source })?;
    }
    Ok(Connection { channel: endpoint.connect_lazy(), credential })
}

impl ClientTls {
    fn config(&self) -> Result<ClientTlsConfig, ConnectError> {
        let mut config = ClientTlsConfig::new();
        if let Some(path) = &self.ca_file {
            config = config.ca_certificate(Certificate::from_pem(read(path)?));
        }
        config = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                config.identity(Identity::from_pem(read(certificate)?, read(key)?))
            }
            (None, None) => config,
            (Some(_), None) | (None, Some(_)) => return Err(ConnectError::HalfIdentity),
        };
        Ok(match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        })
    }
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx).map_err(|error| Status::from_error(Box::new(error)))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = Method::of_path(request.uri().path());
        let span = info_span!(
            "rpc",
            otel.name = method.name,
            otel.kind = "client",
            rpc.system.name = "grpc",
            rpc.method = method.name,
            rpc.response.status_code = field::Empty,
        );
        trace::inject(&span, request.headers_mut());
        if method.kind == MethodKind::Unary {
            deadline::hand_on(request.headers_mut());
        }
        if let Some(credential) = &self.credential {
            request.headers_mut().insert(CREDENTIAL_KEY, credential.header_value());
        }
        let mut recorder = Recorder::start(Side::Client, method, span.clone());
        let answer = self.channel.call(request);
        let future = async move {
            match answer.await {
                Ok(response) => Ok(CallBody::wrap(response, recorder, None)),
                Err(error) => {
                    let status = status_of(error);
                    recorder.end(status.code());
                    Err(status)
                }
            }
        };
        Box::pin(future.instrument(span))
    }
}

fn status_of(error: tonic::transport::Error) -> Status {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(it) = cause {
        if it.is::<TimeoutExpired>() {
            return status::deadline_exceeded();
        }
        cause = it.source();
    }
    let status = Status::from_error(Box::new(error));
    // hyper says that a call was cancelled, or nothing of use, when the
    // connection broke under it. The caller did not cancel it: then nobody
    // would wait for this answer.
    match status.code() {
        Code::Unknown | Code::Cancelled => Status::unavailable(status.message()),
        _ => status,
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path)
        .map_err(|source| ConnectError::UnreadableFile { path: path.clone(), source })
}
