//! Logs and traces of a whole process. Each scenario sets up the process's
//! globals, so each runs in a child process: this test binary with a variable set.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use headwater_telemetry::{LogFormat, Metrics, Service, TelemetryConfig, init};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const SCENARIO: &str = "TELEMETRY_TEST_SCENARIO";

fn service() -> Service {
    Service {
        name: "headwater-gateway".to_owned(),
        instance: "gw-1".to_owned(),
        version: "1.2.3".to_owned(),
        region: "north".to_owned(),
    }
}

/// Runs one test of this binary as a process of its own.
fn run(test: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(SCENARIO, test);
    for name in ["RUST_LOG", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME"] {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn in_child() -> bool {
    std::env::var_os(SCENARIO).is_some()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn logs_are_json_with_the_trace_they_belong_to() {
    if in_child() {
        return runtime().block_on(async {
            let _guard = init(&TelemetryConfig::default(), &service(), &Metrics::new()).unwrap();
            tracing::info!(room = "r", "outside");
            let span = tracing::info_span!(target: "headwater", "join", attempt = 1);
            span.in_scope(|| tracing::info!("inside"));
            tracing::debug!("too small to be shown");
            log::warn!(target: "rtc_dtls::handshake::handshake_message_client_hello", "Unsupported Extension Type 1 2");
            log::warn!(target: "rtc_dtls::conn", "something else");
            let again = init(&TelemetryConfig::default(), &service(), &Metrics::new());
            assert!(again.is_err(), "a second set-up is refused");
        });
    }
    let lines = json_lines(&run("logs_are_json_with_the_trace_they_belong_to", &[]));
    let messages: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, ["outside", "inside", "something else"]);
    assert_eq!(lines[0]["room"], "r");
    assert!(lines[0].get("trace_id").is_none());
    assert_eq!(lines[1]["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(lines[1]["span"]["attempt"], 1);
    assert_eq!(lines[1]["level"], "INFO");
}

#[test]
fn rust_log_goes_before_the_configuration() {
    if in_child() {
        return runtime().block_on(async {
            let config = TelemetryConfig { log_filter: "error".to_owned(), ..Default::default() };
            let _guard = init(&config, &service(), &Metrics::new()).unwrap();
            tracing::debug!("small");
        });
    }
    let name = "rust_log_goes_before_the_configuration";
    assert_eq!(json_lines(&run(name, &[])).len(), 0);
    assert_eq!(json_lines(&run(name, &[("RUST_LOG", "debug")])).len(), 1);
}

#[test]
fn pretty_logs_are_lines_without_colour_when_nobody_looks() {
    if in_child() {
        return runtime().block_on(async {
            let config = TelemetryConfig { log_format: LogFormat::Pretty, ..Default::default() };
            let _guard = init(&config, &service(), &Metrics::new()).unwrap();
            tracing::info!(port = 7, "listening");
        });
    }
    let output = run("pretty_logs_are_lines_without_colour_when_nobody_looks", &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("listening port=7") && !text.contains('\u{1b}'), "{text}");
}

/// A collector that hands on what it is sent.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.0.send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn spans_of_ours_reach_the_collector_that_the_environment_names() {
    let name = "spans_of_ours_reach_the_collector_that_the_environment_names";
    if in_child() {
        return runtime().block_on(async {
            let guard = init(&TelemetryConfig::default(), &service(), &Metrics::new()).unwrap();
            tracing::info_span!(target: "headwater_gateway::join", "join").in_scope(|| {});
            tracing::info_span!(target: "h2::proto", "not ours").in_scope(|| {});
            guard.shutdown().await;
        });
    }
    let runtime = runtime();
    let (sender, spans) = mpsc::channel();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    run(name, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let sent = spans.recv_timeout(Duration::from_secs(5)).unwrap();
    let resource = format!("{:?}", sent.resource_spans[0].resource);
    for expected in ["headwater-gateway", "gw-1", "1.2.3", "north"] {
        assert!(resource.contains(expected), "{expected} is not in {resource}");
    }
    let names: Vec<&str> = sent.resource_spans[0]
        .scope_spans
        .iter()
        .flat_map(|scope| scope.spans.iter().map(|span| span.name.as_str()))
        .collect();
    assert_eq!(names, ["join"]);
}

#[test]
fn a_collector_that_is_away_holds_nobody_up() {
    let name = "a_collector_that_is_away_holds_nobody_up";
    if in_child() {
        return runtime().block_on(async {
            // Nothing of the documentation network (RFC 5737) answers.
            let endpoint = "http://192.0.2.1:4317".to_owned();
            let config = TelemetryConfig { otlp_endpoint: endpoint, ..Default::default() };
            let guard = init(&config, &service(), &Metrics::new()).unwrap();
            let began = Instant::now();
            for _ in 0..100_000 {
                tracing::info_span!(target: "headwater", "join").in_scope(|| {});
            }
            assert!(began.elapsed() < Duration::from_secs(5), "spans are dropped, not waited for");
            let began = Instant::now();
            guard.shutdown().await;
            assert!(began.elapsed() < Duration::from_secs(4), "the end waits two seconds at most");
        });
    }
    run(name, &[]);
}
