//! A real server and a real client: deadlines, limits, health, reflection, the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::node_service_client::NodeServiceClient;
use headwater_proto::v1::cluster_service_client::ClusterServiceClient;
use headwater_proto::v1::{
    CordonNodeRequest, CordonNodeResponse, DrainNodeRequest, DrainNodeResponse,
    ExplainPlacementRequest, ExplainPlacementResponse, GetNodeRequest, GetNodeResponse,
    GetRoomTopologyRequest, GetRoomTopologyResponse, ListNodesRequest, ListNodesResponse, Node,
    SimulatePlacementRequest, SimulatePlacementResponse, UncordonNodeRequest, UncordonNodeResponse,
};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as PbStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::client::{ClientTls, Connection, connect};
use crate::{deadline, status};

mod tls;
mod trace;

/// Answers according to what it is asked for.
#[derive(Debug, Clone, Default)]
struct Nodes {
    in_work: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

#[tonic::async_trait]
impl ClusterService for Nodes {
    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        // The page token says how many bytes the answer shall have.
        let bytes = request.get_ref().page_token.parse().unwrap_or(0);
        let node = Node { name: "n".repeat(bytes), ..Node::default() };
        Ok(Response::new(ListNodesResponse { nodes: vec![node], ..Default::default() }))
    }

    async fn get_node(
        &self,
        request: Request<GetNodeRequest>,
    ) -> Result<Response<GetNodeResponse>, Status> {
        match request.get_ref().name.as_str() {
            "hang" => {
                self.in_work.fetch_add(1, Ordering::SeqCst);
                self.release.notified().await;
                Ok(Response::new(GetNodeResponse::default()))
            }
            "deadline" => {
                let left = deadline::current().unwrap().duration_since(Instant::now());
                let node =
                    Node { participant_capacity: left.as_millis() as u32, ..Node::default() };
                Ok(Response::new(GetNodeResponse { node: Some(node) }))
            }
            name => Err(status::not_found("node", name)),
        }
    }

    async fn cordon_node(
        &self,
        _: Request<CordonNodeRequest>,
    ) -> Result<Response<CordonNodeResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    async fn drain_node(
        &self,
        _: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    async fn uncordon_node(
        &self,
        _: Request<UncordonNodeRequest>,
    ) -> Result<Response<UncordonNodeResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    async fn get_room_topology(
        &self,
        _: Request<GetRoomTopologyRequest>,
    ) -> Result<Response<GetRoomTopologyResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    async fn explain_placement(
        &self,
        _: Request<ExplainPlacementRequest>,
    ) -> Result<Response<ExplainPlacementResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    async fn simulate_placement(
        &self,
        _: Request<SimulatePlacementRequest>,
    ) -> Result<Response<SimulatePlacementResponse>, Status> {
        Err(Status::unimplemented("not played here"))
    }
}

#[tonic::async_trait]
impl NodeService for Nodes {
    type ControlStream = BoxStream<'static, Result<node::ControlResponse, Status>>;

    /// Says one thing and then nothing for ever.
    async fn control(
        &self,
        _: Request<Streaming<node::ControlRequest>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let first = futures::stream::once(async { Ok(node::ControlResponse::default()) });
        Ok(Response::new(first.chain(futures::stream::pending()).boxed()))
    }

    async fn list_participants(
        &self,
        request: Request<node::ListParticipantsRequest>,
    ) -> Result<Response<node::ListParticipantsResponse>, Status> {
        assert!(request.metadata().get(crate::cluster::CREDENTIAL_KEY).is_none());
        Ok(Response::new(node::ListParticipantsResponse::default()))
    }

    async fn command_participant(
        &self,
        _: Request<node::CommandParticipantRequest>,
    ) -> Result<Response<node::CommandParticipantResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn send_data(
        &self,
        _: Request<node::SendDataRequest>,
    ) -> Result<Response<node::SendDataResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct Fixture {
    server: RunningServer,
    nodes: Nodes,
    shutdown: CancellationToken,
}

fn credential(secret: &str) -> ClusterCredential {
    ClusterCredential::new(&SecretString::from(secret)).unwrap()
}

async fn start(config: ServerConfig) -> Fixture {
    let nodes = Nodes::default();
    let shutdown = CancellationToken::new();
    let server = Server::new(config)
        .add_service(ClusterServiceServer::new(nodes.clone()))
        .add_internal_service(
            NodeServiceServer::new(nodes.clone()),
            &credential("0123456789abcdef"),
        )
        .serve(shutdown.clone())
        .await
        .unwrap();
    Fixture { server, nodes, shutdown }
}

impl Fixture {
    fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    fn connection(&self) -> Connection {
        connect(&self.url(), &ClientTls::default(), None).unwrap()
    }

    fn cluster(&self) -> ClusterServiceClient<Connection> {
        ClusterServiceClient::new(self.connection())
    }

    fn node(&self, credential: Option<ClusterCredential>) -> NodeServiceClient<Connection> {
        let connection = connect(&self.url(), &ClientTls::default(), credential).unwrap();
        NodeServiceClient::new(connection)
    }

    /// One HTTP/1.1 request on a connection of its own; the whole answer as text.
    async fn http(&self, head: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let head = format!(
            "{head}\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn health(&self, service: &str) -> Result<PbStatus, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(self.connection()).check(request).await?;
        Ok(answer.get_ref().status())
    }
}

fn get(name: &str) -> GetNodeRequest {
    GetNodeRequest { name: name.to_owned() }
}

/// A gRPC message frame with a request for this node.
fn frame(name: &str) -> Vec<u8> {
    let message = prost::Message::encode_to_vec(&get(name));
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.extend(message);
    frame
}

#[tokio::test]
async fn a_call_is_served_and_its_error_details_arrive() {
    let fixture = start(ServerConfig::default()).await;
    let answer = fixture.cluster().list_nodes(ListNodesRequest::default()).await.unwrap();
    assert_eq!(answer.get_ref().nodes.len(), 1);
    let error = fixture.cluster().get_node(get("nodes/a")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(status::reason_of(&error).as_deref(), Some("NOT_FOUND"));
}

#[tokio::test]
async fn health_says_not_serving_until_told_and_after_the_end_began() {
    let fixture = start(ServerConfig { shutdown_grace_seconds: 30, ..Default::default() }).await;
    assert_eq!(fixture.health("").await.unwrap(), PbStatus::NotServing);
    fixture.server.set_serving().await;
    assert_eq!(fixture.health("").await.unwrap(), PbStatus::Serving);
    assert_eq!(fixture.health("headwater.v1.ClusterService").await.unwrap(), PbStatus::Serving);
    assert_eq!(fixture.health("no.Such").await.unwrap_err().code(), Code::NotFound);

    let request = HealthCheckRequest::default();
    let mut client = HealthClient::new(fixture.connection());
    let mut watch = client.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), PbStatus::Serving);
    fixture.shutdown.cancel();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), PbStatus::NotServing);
}

#[tokio::test]
async fn reflection_answers_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let fixture = start(ServerConfig::default()).await;
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(fixture.connection());
    let stream = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    let listed = format!("{:?}", answers.message().await.unwrap().unwrap());
    assert!(
        listed.contains("headwater.v1.RoomService") && listed.contains("grpc.health.v1.Health")
    );

    let symbol = "headwater.v1.RoomService".to_owned();
    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(fixture.connection());
    let stream = futures::stream::iter([request]);
    let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
    assert!(
        format!("{:?}", answers.message().await.unwrap().unwrap())
            .contains("FileDescriptorResponse")
    );

    let silent = start(ServerConfig { reflection: false, ..Default::default() }).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(silent.connection());
    let refused = client.server_reflection_info(futures::stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_internal_service_is_for_the_cluster_only() {
    let fixture = start(ServerConfig::default()).await;
    let request = node::ListParticipantsRequest::default;
    for wrong in [None, Some(credential("another secret, long"))] {
        let error = fixture.node(wrong).list_participants(request()).await.unwrap_err();
        assert_eq!(error.code(), Code::Unauthenticated);
        assert_eq!(status::reason_of(&error).as_deref(), Some("CLUSTER_CREDENTIAL_REFUSED"));
    }
    let mut member = fixture.node(Some(credential("0123456789abcdef")));
    member.list_participants(request()).await.unwrap();
    // Streams are guarded too.
    let error = fixture.node(None).control(futures::stream::empty()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_unary_call_ends_at_the_callers_deadline() {
    let fixture = start(ServerConfig::default()).await;
    let began = Instant::now();
    let mut request = Request::new(get("hang"));
    request.set_timeout(Duration::from_millis(200));
    let error = fixture.cluster().get_node(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// Seen without a tonic client, whose own timer would hide the server's answer.
#[tokio::test]
async fn the_server_itself_answers_deadline_exceeded() {
    let fixture = start(ServerConfig::default()).await;
    let head = "POST /headwater.v1.ClusterService/GetNode HTTP/1.1\r\n\
        content-type: application/grpc-web+proto\r\naccept: application/grpc-web+proto\r\n\
        grpc-timeout: 100m";
    let answer = fixture.http(head, &frame("hang")).await;
    assert!(answer.contains("grpc-status: 4") || answer.contains("grpc-status:4"), "{answer}");
}

#[tokio::test]
async fn a_call_made_for_another_gets_less_time_than_it() {
    let fixture = start(ServerConfig::default()).await;
    let end = Instant::now() + Duration::from_millis(2000);
    let mut client = fixture.cluster();
    let answer = deadline::within(end, client.get_node(get("deadline"))).await.unwrap();
    let millis = answer.get_ref().node.as_ref().unwrap().participant_capacity;
    assert!((1000..=1950).contains(&millis), "{millis} ms were handed on");
    let answer = client.get_node(get("deadline")).await.unwrap();
    let millis = answer.get_ref().node.as_ref().unwrap().participant_capacity;
    assert!((9000..=10_000).contains(&millis), "{millis} ms is no default of 10 s");
}

#[tokio::test]
async fn a_stream_lives_without_a_deadline_and_ends_at_one() {
    let fixture = start(ServerConfig::default()).await;
    let mut member = fixture.node(Some(credential("0123456789abcdef")));
    let mut endless = member.control(futures::stream::pending()).await.unwrap().into_inner();
    assert!(endless.message().await.unwrap().is_some());
    let mut request = Request::new(futures::stream::pending());
    request.set_timeout(Duration::from_millis(200));
    let mut limited = member.control(request).await.unwrap().into_inner();
    assert!(limited.message().await.unwrap().is_some());
    let error = timeout(Duration::from_secs(3), limited.message()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(timeout(Duration::from_millis(100), endless.message()).await.is_err(), "it lives on");
}

#[tokio::test]
async fn more_calls_than_allowed_are_told_to_come_back() {
    let fixture = start(ServerConfig { calls_max: 1, ..Default::default() }).await;
    let mut first = fixture.cluster();
    let hanging = tokio::spawn(async move { first.get_node(get("hang")).await });
    while fixture.nodes.in_work.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let error = fixture.cluster().get_node(get("hang")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(status::retry_after(&error), Some(Duration::from_secs(1)));
    fixture.nodes.release.notify_waiters();
    hanging.await.unwrap().unwrap();
    fixture.cluster().list_nodes(ListNodesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn messages_above_the_limits_are_refused_and_the_server_lives_on() {
    let fixture = start(ServerConfig::default()).await;
    let ask = |token: String| ListNodesRequest { page_token: token, ..Default::default() };
    let large = "x".repeat(MESSAGE_BYTES_IN_MAX + 1);
    let error = fixture.cluster().list_nodes(ask(large)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    let bytes = (MESSAGE_BYTES_OUT_MAX + 1).to_string();
    let error = fixture.cluster().list_nodes(ask(bytes)).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    fixture.cluster().list_nodes(ask(String::new())).await.unwrap();
}

#[tokio::test]
async fn rubbish_is_answered_and_hurts_nobody() {
    let fixture = start(ServerConfig::default()).await;
    let path = "POST /headwater.v1.ClusterService/GetNode HTTP/1.1\r\n\
        content-type: application/grpc-web+proto\r\naccept: application/grpc-web+proto";
    for body in [
        &b""[..],
        b"\x00",
        b"\x00\xff\xff\xff\xff",
        b"\x80\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x03\xff\xff\xff",
    ] {
        let answer = fixture.http(path, body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("grpc-status"), "{answer}");
    }
    let nowhere =
        fixture.http("POST /a.b/c HTTP/1.1\r\ncontent-type: application/grpc-web+proto", b"").await;
    assert!(nowhere.contains("grpc-status: 12") || nowhere.contains("grpc-status:12"), "{nowhere}");
    fixture.cluster().list_nodes(ListNodesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_browser_may_call_from_any_origin_unless_some_are_named() {
    let preflight = |origin: &str| {
        format!(
            "OPTIONS /headwater.v1.ClusterService/GetNode HTTP/1.1\r\norigin: {origin}\r\n\
            access-control-request-method: POST\r\n\
            access-control-request-headers: authorization,x-grpc-web,content-type"
        )
    };
    let open = start(ServerConfig::default()).await;
    let answer = open.http(&preflight("https://a.example"), b"").await.to_lowercase();
    assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
    let origins = vec!["https://a.example".to_owned()];
    let named = start(ServerConfig { cors_origins: origins, ..Default::default() }).await;
    let answer = named.http(&preflight("https://a.example"), b"").await.to_lowercase();
    assert!(answer.contains("access-control-allow-origin: https://a.example"), "{answer}");
    let answer = named.http(&preflight("https://b.example"), b"").await.to_lowercase();
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
    let call = "POST /headwater.v1.ClusterService/GetNode HTTP/1.1\r\norigin: https://a.example\r\n\
        content-type: application/grpc-web+proto";
    let answer = open.http(call, &frame("nodes/a")).await.to_lowercase();
    assert!(answer.contains("access-control-expose-headers: grpc-status,grpc-message"), "{answer}");
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_end_for_ever() {
    let fixture = start(ServerConfig { shutdown_grace_seconds: 1, ..Default::default() }).await;
    let address = fixture.server.address();
    let mut member = fixture.node(Some(credential("0123456789abcdef")));
    let mut stream = member.control(futures::stream::pending()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let began = Instant::now();
    fixture.shutdown.cancel();
    timeout(Duration::from_secs(4), fixture.server.join()).await.expect("the server ends");
    assert!(began.elapsed() >= Duration::from_millis(900), "the grace was given");
    assert!(
        timeout(Duration::from_secs(2), stream.message()).await.unwrap().is_err(),
        "the stream was cut"
    );
    std::net::TcpListener::bind(address).expect("the port is free again");
}

#[tokio::test]
async fn connections_above_the_limit_are_closed() {
    let fixture = start(ServerConfig { connections_max: 1, ..Default::default() }).await;
    let mut first = fixture.cluster();
    first.list_nodes(ListNodesRequest::default()).await.unwrap();
    let error = fixture.cluster().list_nodes(ListNodesRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    first.list_nodes(ListNodesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_until_it_comes() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let connection = connect(&format!("http://{address}"), &ClientTls::default(), None).unwrap();
    let mut client = ClusterServiceClient::new(connection);
    let error = client.list_nodes(ListNodesRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let _fixture = start(ServerConfig { address, ..Default::default() }).await;
    client.list_nodes(ListNodesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = ServerConfig { address, ..Default::default() };
    let Err(error) = Server::new(config).serve(CancellationToken::new()).await else {
        panic!("the port is taken");
    };
    assert!(error.to_string().contains(&address.to_string()));
}

#[test]
fn a_url_must_be_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    assert!(connect("http://", &ClientTls::default(), None).is_err());
    assert!(connect("not a url", &ClientTls::default(), None).is_err());
}
