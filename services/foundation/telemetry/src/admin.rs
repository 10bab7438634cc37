//! The admin server: `/metrics` for Prometheus, `/healthz` and `/readyz` for
//! whoever restarts and routes. It is for operators; bind it to a private address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Metrics, Readiness};

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the admin server cannot listen on {address}")]
pub struct AdminError {
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

/// An admin server at work; its cancellation token stops it.
#[derive(Debug)]
pub struct RunningAdmin {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl RunningAdmin {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its end.
    pub async fn join(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the admin server's task failed");
        }
    }
}

/// Serves until the token is cancelled. Port 0 takes a free one. Cancel it
/// after the roles have stopped, so that probes are answered to the end.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<RunningAdmin, AdminError> {
    let failed = |source| AdminError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/metrics", get(show_metrics).with_state(metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness).with_state(readiness));
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router);
        // An idle scraper's connection must not hold the process up.
        tokio::select! {
            result = served.into_future() => {
                if let Err(error) = result {
                    tracing::error!(%error, "the admin server ended");
                }
            }
            () = shutdown.cancelled() => {}
        }
    });
    Ok(RunningAdmin { address: bound, task })
}

async fn show_metrics(State(metrics): State<Metrics>) -> Response {
    metrics.set_tasks(tokio::runtime::Handle::current().metrics().num_alive_tasks());
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The process answers: that is all it says, and it asks nobody else.
async fn show_health() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Report {
    ready: bool,
    missing: BTreeMap<String, String>,
}

async fn show_readiness(State(readiness): State<Readiness>) -> Response {
    let missing = readiness.missing();
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(Report { ready, missing })).into_response()
}
