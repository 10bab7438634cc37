//! How a process logs and where it sends its traces.

use serde::{Deserialize, Serialize};

/// Logs and traces. The `OTEL_*` environment of OpenTelemetry is honoured
/// where a field says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Form of the logs, which go to stderr.
    pub log_format: LogFormat,
    /// Which logs are written, in the syntax of `RUST_LOG`, which goes before
    /// it: a level, or `target=level` with commas. Empty means `info`.
    pub log_filter: String,
    /// URL of an OTLP collector's gRPC port, such as `http://127.0.0.1:4317`.
    /// Empty means `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, and without these nothing is sent.
    pub otlp_endpoint: String,
}

/// Form of the logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for machines.
    #[default]
    Json,
    /// For people; coloured on a terminal.
    Pretty,
}

/// Which service of the cluster this process is, for traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `headwater-control-plane`, `headwater-gateway`, ...; `OTEL_SERVICE_NAME` goes before it.
    pub name: String,
    /// Which one of its kind: the node's id, or the host's name.
    pub instance: String,
    /// Version of the software.
    pub version: String,
    /// Region. Empty means not told.
    pub region: String,
}
