//! Logs on stderr, as JSON for machines or as lines for people.

use std::fmt;
use std::io::IsTerminal as _;

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{self, Format, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::InitError;
use crate::config::{LogFormat, TelemetryConfig};

/// What dependencies say too often. `rtc_dtls` warns of every extension of a
/// ClientHello that it does not know, and each browser sends some.
const QUIET: &str = "h2=warn,hyper=warn,hyper_util=warn,tonic=warn,tower=warn,rustls=warn,\
    opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=warn,\
    rtc_dtls::handshake::handshake_message_client_hello=error,\
    rtc_dtls::handshake::handshake_message_server_hello=error";

const DEFAULT: &str = "info";

/// Spans of ours only: those of the exporter's own connection would never end.
const TRACED_TARGET: &str = "headwater";

pub(crate) fn init(
    config: &TelemetryConfig,
    provider: &SdkTracerProvider,
) -> Result<(), InitError> {
    let wanted = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let wanted = wanted.unwrap_or_else(|| config.log_filter.clone());
    let filter = filter(&wanted)?;
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Json => stderr
            .event_format(JsonWithTrace::default())
            .fmt_fields(JsonFields::new())
            .with_filter(filter)
            .boxed(),
        LogFormat::Pretty => {
            let is_terminal = std::io::stderr().is_terminal();
            stderr.with_ansi(is_terminal).compact().with_filter(filter).boxed()
        }
    };
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("headwater"))
        .with_location(false)
        .with_threads(false)
        .with_filter(Targets::new().with_target(TRACED_TARGET, Level::INFO));
    tracing_subscriber::registry().with(lines).with(traces).try_init().map_err(InitError::Twice)
}

/// The quiet directives come first, so that whoever names such a target gets it.
fn filter(wanted: &str) -> Result<EnvFilter, InitError> {
    let wanted = if wanted.trim().is_empty() { DEFAULT } else { wanted.trim() };
    EnvFilter::try_new(format!("{QUIET},{wanted}"))
        .map_err(|source| InitError::BadFilter { filter: wanted.to_owned(), source })
}

/// JSON lines that begin with the trace id, if the event belongs to a trace.
struct JsonWithTrace {
    inner: Format<format::Json>,
}

impl Default for JsonWithTrace {
    fn default() -> Self {
        let inner = format::format().json().flatten_event(true).with_current_span(true);
        Self { inner: inner.with_span_list(false) }
    }
}

impl<S, N> FormatEvent<S, N> for JsonWithTrace
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    Format<format::Json>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        let context = opentelemetry::Context::current();
        let trace = context.span().span_context().clone();
        match line.strip_prefix('{') {
            Some(rest) if trace.is_valid() => {
                write!(writer, "{{\"trace_id\":\"{}\",{rest}", trace.trace_id())
            }
            Some(_) | None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error_with_its_text() {
        let error = filter("headwater=loud").unwrap_err();
        assert!(error.to_string().contains("headwater=loud"));
    }

    #[test]
    fn whoever_names_a_quiet_target_gets_it() {
        let shown = filter("info,h2=trace").unwrap().to_string();
        assert!(shown.contains("h2=trace") && !shown.contains("h2=warn"), "{shown}");
        assert!(filter(" ").unwrap().to_string().contains("info"));
    }
}
