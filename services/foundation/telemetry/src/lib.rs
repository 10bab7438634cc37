//! Logs, traces and metrics of every role, and the admin server that shows
//! them. A metric is defined here and nowhere else.
//!
//! A binary calls [`init`] once and keeps its [`Guard`]; makes one [`Metrics`]
//! and one [`Readiness`] and hands clones to its roles; and runs [`admin::serve`].
//! Roles take their group of metrics from [`Metrics`] and name the conditions
//! they need in [`Readiness`].

pub mod admin;
mod config;
mod logs;
pub mod metrics;
mod readiness;
mod traces;

use std::time::Duration;

use opentelemetry::global;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

pub use config::{LogFormat, Service, TelemetryConfig};
pub use metrics::Metrics;
pub use readiness::{Condition, Readiness};

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log filter cannot be read.
    #[error("log filter {filter:?} cannot be read")]
    BadFilter {
        /// What was given.
        filter: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The trace exporter cannot be made: mostly a bad endpoint.
    #[error("the trace exporter cannot be made")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The meters of OpenTelemetry cannot be shown with the other metrics.
    #[error("the metrics bridge cannot be made")]
    Bridge(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// Logs were set up before.
    #[error("logs are set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up logs on stderr, traces and the meters of OpenTelemetry for the whole
/// process. Call it once, in a Tokio runtime. Spans are exported only if an
/// endpoint is configured (here or by `OTEL_EXPORTER_OTLP_ENDPOINT`); a
/// collector that is away costs spans and nothing else.
///
/// # Errors
/// See [`InitError`].
pub fn init(
    config: &TelemetryConfig,
    service: &Service,
    metrics: &Metrics,
) -> Result<Guard, InitError> {
    let resource = traces::resource(service);
    let tracer_provider = traces::provider(config, resource.clone())?;
    let meter_provider = metrics.bridge_meters(resource).map_err(InitError::Bridge)?;
    global::set_meter_provider(meter_provider.clone());
    global::set_tracer_provider(tracer_provider.clone());
    global::set_text_map_propagator(traces::propagator());
    logs::init(config, &tracer_provider)?;
    Ok(Guard { tracer_provider, _meter_provider: meter_provider })
}

/// Keeps telemetry running. Give it to [`Guard::shutdown`] at the end, so that
/// the last spans are sent.
#[derive(Debug)]
pub struct Guard {
    tracer_provider: SdkTracerProvider,
    _meter_provider: SdkMeterProvider,
}

impl Guard {
    /// Sends the last spans, for at most two seconds.
    pub async fn shutdown(self) {
        // The provider blocks its thread while it waits.
        let flush = tokio::task::spawn_blocking(move || {
            self.tracer_provider.shutdown_with_timeout(Duration::from_secs(2))
        });
        match flush.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the last spans were not sent"),
            Err(error) => tracing::debug!(%error, "the last spans were not sent"),
        }
    }
}
