//! One call is one trace on both sides.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

#[tokio::test]
async fn a_trace_goes_on_at_the_server() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let subscriber = tracing_subscriber::registry().with(layer);
    let _guard = tracing::subscriber::set_default(subscriber);

    let fixture = start(ServerConfig::default()).await;
    let join = tracing::info_span!("join");
    let traceparent = crate::trace::traceparent(&join);
    assert_eq!(crate::trace::trace_id(&join).unwrap(), traceparent[3..35]);
    let mut client = fixture.cluster();
    let call = client.get_node(get("nodes/a"));
    tracing::Instrument::instrument(call, join.clone()).await.unwrap_err();
    let later = tracing::info_span!("later");
    crate::trace::continue_from(&later, &traceparent);
    crate::trace::continue_from(&tracing::info_span!("odd"), "00-zz-zz-01");
    drop((join, later));

    let spans = exporter.get_finished_spans().unwrap();
    let named = |name: &str, kind: &str| {
        spans
            .iter()
            .find(|span| span.name == name && format!("{:?}", span.span_kind) == kind)
            .unwrap_or_else(|| panic!("no {kind} span {name} in {spans:#?}"))
    };
    let rpc = "headwater.v1.ClusterService/GetNode";
    let (join, client) = (named("join", "Internal"), named(rpc, "Client"));
    let (server, later) = (named(rpc, "Server"), named("later", "Internal"));
    assert_eq!(client.parent_span_id, join.span_context.span_id());
    assert_eq!(server.parent_span_id, client.span_context.span_id());
    assert_eq!(later.parent_span_id, join.span_context.span_id());
    assert_eq!(server.span_context.trace_id(), join.span_context.trace_id());
    let has_status = |span: &opentelemetry_sdk::trace::SpanData| {
        span.attributes.iter().any(|it| it.value.as_str() == "NOT_FOUND")
    };
    assert!(has_status(client) && has_status(server));
    let odd = named("odd", "Internal");
    assert_ne!(odd.span_context.trace_id(), join.span_context.trace_id());
}
