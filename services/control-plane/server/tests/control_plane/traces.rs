//! One join is one trace: from the gateway's call through the placement to the
//! calls that it makes to nodes.

use headwater_proto::control::v1::Admission;
use headwater_proto::v1::{CreateRoomRequest, Room};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::support::{Bench, eventually};

#[tokio::test]
async fn a_join_is_one_trace_down_to_the_node() {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let tracer = SdkTracerProvider::builder().build().tracer("test");
    tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer)).init();

    let bench = Bench::start(1, &["a"]).await;
    let request = CreateRoomRequest {
        room_id: "plaza".into(),
        room: Some(Room { max_participants: 1, ..Room::default() }),
        ..Default::default()
    };
    bench.create_as(0, request).await.unwrap();
    eventually("the node is told", || async { bench.node("a").carries("plaza") }).await;
    bench.node("a").join("plaza", "bob", &[]);
    eventually("it is reported", || async {
        bench.get(0, "plaza").await.unwrap().participant_count == 1
    })
    .await;

    // A full room is counted by a call to its node before anybody is refused.
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let span = tracing::info_span!("a gateway's join");
    headwater_rpc::trace::continue_from(&span, &traceparent);
    let answer = bench.place(0, "plaza").instrument(span).await;
    assert_eq!(answer.admission(), Admission::RoomFull);
    let seen = bench.node("a").memory().traceparents.last().unwrap().clone();
    assert_eq!(seen.split('-').nth(1), Some(trace_id), "{seen}");
    assert_ne!(seen, traceparent, "the node's caller is a span of its own");
}
