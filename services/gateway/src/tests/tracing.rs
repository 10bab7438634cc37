//! One join is one trace: what the control plane and the node are told belongs
//! to the gateway's span.

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;

use super::client::Client;
use super::cluster::Cluster;

/// Trace id of a W3C traceparent.
fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap()
}

#[tokio::test]
async fn one_join_is_one_trace() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    // The runtime has one thread, so this covers every task of the test.
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let cluster = Cluster::start().await;
    let (mut client, attached) = Client::join(&cluster, "/rtc?protocol=17").await;
    client.welcomed().await;

    let placed = cluster.control.traceparents();
    let joined = trace_id(&attached.join.traceparent);
    assert_eq!(trace_id(&placed[0]), joined, "the control plane and the node agree");
    let spans = exporter.get_finished_spans().unwrap();
    let join = spans.iter().find(|span| span.name == "join").unwrap();
    assert_eq!(join.span_context.trace_id().to_string(), joined);
    let mut values =
        spans.iter().flat_map(|span| &span.attributes).map(|attribute| attribute.value.to_string());
    assert!(values.all(|value| value != "ada"), "nobody is named");
}
