//! Traces: a tracer that always makes trace ids, so that logs of all roles can
//! be joined, and exports spans by OTLP only where an endpoint is given.

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::InitError;
use crate::config::{Service, TelemetryConfig};

/// Environment that names an endpoint.
const ENDPOINT_ENVIRONMENT: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// W3C trace context and baggage.
pub(crate) fn propagator() -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(BaggagePropagator::new()),
    ])
}

/// Who sends the spans. `OTEL_RESOURCE_ATTRIBUTES` adds to it.
pub(crate) fn resource(service: &Service) -> Resource {
    let mut builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", service.version.clone()),
        KeyValue::new("service.instance.id", service.instance.clone()),
    ]);
    if !is_set("OTEL_SERVICE_NAME") {
        builder = builder.with_service_name(service.name.clone());
    }
    if !service.region.is_empty() {
        builder = builder.with_attribute(KeyValue::new("cloud.region", service.region.clone()));
    }
    builder.build()
}

/// The tracer provider. With an endpoint, spans are queued (bounded, 2,048 by
/// default, `OTEL_BSP_*`) and sent by a thread of their own; a full queue drops.
/// The sampler is that of `OTEL_TRACES_SAMPLER`, by default everything.
pub(crate) fn provider(
    config: &TelemetryConfig,
    resource: Resource,
) -> Result<SdkTracerProvider, InitError> {
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let from_environment = ENDPOINT_ENVIRONMENT.into_iter().any(is_set);
    if is_set_to_true("OTEL_SDK_DISABLED") || (config.otlp_endpoint.is_empty() && !from_environment)
    {
        return Ok(builder.build());
    }
    let mut exporter = SpanExporter::builder().with_tonic();
    if !config.otlp_endpoint.is_empty() {
        exporter = exporter.with_endpoint(config.otlp_endpoint.clone());
    }
    let exporter = exporter.build().map_err(InitError::Exporter)?;
    Ok(builder.with_batch_exporter(exporter).build())
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn is_set_to_true(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case("true"))
}
