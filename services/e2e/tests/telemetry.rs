//! What operators see: one join is one trace over all roles, and every role's
//! metrics are well-formed and bounded in number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_e2e::cluster::{API_KEY, API_SECRET, Cluster, Options, wait};
use headwater_loadtest::client::{Client, ClientConfig, Receive, Video};
use headwater_loadtest::run::Server;
use headwater_rpc::token::KeyRing;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Series that one process may have; each costs memory in the monitoring.
const SERIES_MAX: usize = 2000;

/// A span, as far as these tests look at it.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    id: Vec<u8>,
    parent: Vec<u8>,
}

/// An OTLP collector that keeps spans by trace.
#[derive(Clone, Default)]
struct Collector {
    traces: Arc<Mutex<BTreeMap<Vec<u8>, Vec<Span>>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut traces = self.traces.lock().unwrap();
        for resource in request.into_inner().resource_spans {
            let attributes =
                resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let service = match name.and_then(|name| name.value).and_then(|value| value.value) {
                Some(Value::StringValue(service)) => service,
                other => panic!("spans without service.name: {other:?}"),
            };
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                traces.entry(span.trace_id).or_default().push(Span {
                    service: service.clone(),
                    name: span.name,
                    id: span.span_id,
                    parent: span.parent_span_id,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on loopback; answers with its URL.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        url
    }

    /// The trace with a span of this name in each of these services.
    fn trace_of(&self, name: &str, services: &BTreeSet<&str>) -> Option<Vec<Span>> {
        let traces = self.traces.lock().unwrap();
        let found = traces.values().find(|spans| {
            let seen: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
            spans.iter().any(|span| span.name == name) && services.is_subset(&seen)
        });
        found.cloned()
    }

    fn summary(&self) -> String {
        let traces = self.traces.lock().unwrap();
        let lines = traces.values().map(|spans| {
            let names: Vec<String> =
                spans.iter().map(|span| format!("{}:{}", span.service, span.name)).collect();
            names.join(" ") + "\n"
        });
        lines.collect()
    }
}

async fn join(cluster: &Cluster, identity: &str) -> Client {
    let keys = KeyRing::single(API_KEY, API_SECRET).unwrap();
    let server = Server { url: cluster.target.url.clone(), keys, pid: None, metrics: None };
    let client = Client::join(ClientConfig {
        url: server.url.clone(),
        token: server.token("room-of-somebody", identity).unwrap(),
        video: Some(Video {
            frame_rate: 30.0,
            packets_per_frame: 2,
            payload_bytes: 800,
            layers: 1,
        }),
        audio: true,
        receive: Receive { audio: 1, video: 1 },
    })
    .await
    .unwrap();
    client.connected(Duration::from_secs(10)).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn one_join_is_one_trace_over_three_roles() {
    let collector = Collector::default();
    let otlp_endpoint = collector.start().await;
    let options = Options {
        etcd_members: 1,
        replicas: 1,
        media_nodes: 1,
        otlp_endpoint,
        ..Options::default()
    };
    let cluster = Cluster::start(&options).unwrap();
    let client = join(&cluster, "person-ada").await;
    client.leave().await.unwrap();

    let services =
        BTreeSet::from(["headwater-gateway", "headwater-control-plane", "headwater-media-node"]);
    // Spans leave in batches, at the latest five seconds after their end.
    wait("a trace of the join over all roles", Duration::from_secs(20), || {
        (collector.trace_of("join", &services).is_some(), collector.summary())
    })
    .unwrap();
    let spans = collector.trace_of("join", &services).unwrap();
    for span in &spans {
        println!("{} {}", span.service, span.name);
    }
    let join = spans.iter().find(|span| span.name == "join").unwrap();
    assert_eq!(join.service, "headwater-gateway");
    assert!(join.parent.is_empty(), "the join begins the trace");
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.id.as_slice()).collect();
    for span in spans.iter().filter(|span| span.id != join.id) {
        // A parent that is still open arrives with a later batch; the ones of
        // other roles must hang together with the join.
        let has_parent = !span.parent.is_empty();
        assert!(has_parent, "{span:?} begins another trace within this one");
        assert!(
            span.service == join.service || ids.contains(span.parent.as_slice()),
            "{span:?} hangs in the air"
        );
    }
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}

/// The families of a scrape and their numbers of series. Every line must be
/// what the text format allows, and every sample belong to a family with help.
fn families(scrape: &str) -> BTreeMap<String, usize> {
    let mut helped = BTreeSet::new();
    let mut typed = BTreeMap::new();
    let mut series = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!help.trim().is_empty(), "no help: {line}");
            assert!(helped.insert(name.to_owned()), "help twice: {line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
            typed.insert(name.to_owned(), kind.to_owned());
        } else {
            let (sample, value) =
                line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(sample.to_owned()), "a series twice: {line}");
            let name = sample.split('{').next().unwrap();
            assert!(sample == name || sample.ends_with('}'), "{line}");
            let family = family_of(name, &typed);
            assert!(helped.contains(&family), "no help for {name}");
            *series.entry(family).or_insert(0) += 1;
        }
    }
    assert!(typed.keys().all(|name| helped.contains(name)), "a family without help");
    series
}

/// `x_bucket`, `x_sum` and `x_count` are of the histogram `x`.
fn family_of(name: &str, typed: &BTreeMap<String, String>) -> String {
    let of_histogram = ["_bucket", "_sum", "_count"]
        .into_iter()
        .filter_map(|suffix| name.strip_suffix(suffix))
        .find(|base| typed.get(*base).is_some_and(|kind| kind == "histogram"));
    let family = of_histogram.unwrap_or(name);
    assert!(typed.contains_key(family), "no type for {name}");
    family.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_roles_metrics_are_well_formed_and_bounded() {
    let options = Options { etcd_members: 1, replicas: 1, media_nodes: 1, ..Options::default() };
    let cluster = Cluster::start(&options).unwrap();
    let clients = [join(&cluster, "person-ada").await, join(&cluster, "person-bob").await];
    wait("media is counted", Duration::from_secs(10), || {
        let packets = cluster.media_nodes[0]
            .series("headwater_rtp_packets_total{direction=\"out\"}")
            .unwrap_or(0.0);
        (packets > 100.0, packets.to_string())
    })
    .unwrap();
    for role in cluster.roles() {
        let scrape = role.metrics().unwrap();
        let families = families(&scrape);
        let series: usize = families.values().sum();
        let mut largest: Vec<(&String, &usize)> = families.iter().collect();
        largest.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        println!(
            "{}: {} families, {series} series, {} bytes; largest {:?}",
            role.name,
            families.len(),
            scrape.len(),
            &largest[..3]
        );
        for name in families.keys() {
            let known = ["headwater_", "process_", "rpc_", "target_info"];
            assert!(known.iter().any(|prefix| name.starts_with(prefix)), "{}: {name}", role.name);
        }
        assert!(series <= SERIES_MAX, "{} has {series} series", role.name);
        for private in ["room-of-somebody", "person-", "127.0.0.1"] {
            assert!(!scrape.contains(private), "{} tells {private}", role.name);
        }
        for name in ["headwater_build_info", "process_resident_memory_bytes"] {
            assert!(families.contains_key(name), "{} has no {name}", role.name);
        }
    }
    // The gauges are sampled once a second, each role at its own time.
    for (role, gauge, count) in [
        (&cluster.control_planes[0], "headwater_cluster_rooms", 1.0),
        (&cluster.media_nodes[0], "headwater_participants", 2.0),
        (&cluster.gateways[0], "headwater_signal_connections", 2.0),
    ] {
        wait(gauge, Duration::from_secs(10), || {
            let seen = role.metric(gauge).unwrap();
            (seen == count, seen.to_string())
        })
        .unwrap();
    }
    for client in clients {
        client.leave().await.unwrap();
    }
    assert_eq!(cluster.complaints(), Vec::<String>::new());
}
