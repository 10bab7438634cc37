//! W3C trace context: read from what comes in, written to what goes out. The
//! format is that of the global propagator, which `headwater-telemetry` sets;
//! without one these do nothing.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Makes the span a child of the context that a request's headers carry, if any.
pub fn continue_from_headers(span: &Span, headers: &HeaderMap) {
    let context = global::get_text_map_propagator(|it| it.extract(&HeaderReader(headers)));
    adopt(span, context);
}

/// Makes the span a child of a `traceparent`. An empty or malformed one does nothing.
pub fn continue_from(span: &Span, traceparent: &str) {
    adopt(span, context_of(traceparent));
}

/// Links the span to a `traceparent`: for work that is caused by a join but
/// does not belong to its call. An empty or malformed one does nothing.
pub fn link_to(span: &Span, traceparent: &str) {
    let context = context_of(traceparent).span().span_context().clone();
    if context.is_valid() {
        span.add_link(context);
    }
}

/// Writes the span's context into headers.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    let context = span.context();
    global::get_text_map_propagator(|it| it.inject_context(&context, &mut HeaderWriter(headers)));
}

/// The `traceparent` of a span. Empty if nothing is traced.
#[must_use]
pub fn traceparent(span: &Span) -> String {
    let mut headers = HeaderMap::new();
    inject(span, &mut headers);
    let value = headers.get("traceparent").and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// The trace id of a span, 32 hex digits, for logs and answers to people. `None` if nothing is traced.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id().to_string())
}

fn context_of(traceparent: &str) -> Context {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(traceparent) {
        headers.insert("traceparent", value);
    }
    global::get_text_map_propagator(|it| it.extract(&HeaderReader(&headers)))
}

fn adopt(span: &Span, context: Context) {
    if context.span().span_context().is_valid() {
        // Fails only if the span is closed or filtered out; then there is nothing to adopt.
        let _ = span.set_parent(context);
    }
}

struct HeaderReader<'a>(&'a HeaderMap);

impl Extractor for HeaderReader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeaderWriter<'a>(&'a mut HeaderMap);

impl Injector for HeaderWriter<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}
