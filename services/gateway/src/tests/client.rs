//! Clients of the gateway: a LiveKit client that speaks by hand, and plain HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use livekit_protocol as lk;
use lk::signal_request::Message as ToServer;
use lk::signal_response::Message as FromServer;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::cluster::{Attached, Cluster, ada, soon, token};

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How a WebSocket ended.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Message(Box<FromServer>),
    Close(Option<u16>),
}

impl Client {
    /// Connects, or gives the status and text of the refusal.
    pub(super) async fn connect(
        cluster: &Cluster,
        path: &str,
        bearer: Option<&str>,
    ) -> Result<Self, (StatusCode, String)> {
        let url = format!("ws://{}{path}", cluster.gateway.address);
        let mut request = url.into_client_request().unwrap();
        if let Some(token) = bearer {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        match soon(connect_async(request)).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => {
                let text = response.body().clone().unwrap_or_default();
                Err((response.status(), String::from_utf8(text).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects by `path`, with the node's side of it, which has said `joined`.
    pub(super) async fn join(cluster: &Cluster, path: &str) -> (Self, Attached) {
        let token = token(&ada());
        let node = async {
            let attached = cluster.node.attached().await;
            attached.send_joined().await;
            attached
        };
        let (client, attached) = tokio::join!(Self::connect(cluster, path, Some(&token)), node);
        (client.unwrap(), attached)
    }

    pub(super) async fn send(&mut self, message: ToServer) {
        let request = lk::SignalRequest { message: Some(message) };
        self.socket.send(Message::Binary(request.encode_to_vec().into())).await.unwrap();
    }

    pub(super) async fn send_frame(&mut self, frame: Message) {
        self.socket.send(frame).await.unwrap();
    }

    /// The next frame that is no WebSocket ping.
    pub(super) async fn frame(&mut self) -> Option<Result<Message, Error>> {
        loop {
            match soon(self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => return other,
            }
        }
    }

    /// The next message or the end.
    pub(super) async fn hear(&mut self) -> Heard {
        match self.frame().await {
            Some(Ok(Message::Binary(bytes))) => {
                let response = lk::SignalResponse::decode(bytes).unwrap();
                Heard::Message(Box::new(response.message.unwrap()))
            }
            Some(Ok(Message::Close(frame))) => Heard::Close(frame.map(|it| it.code.into())),
            Some(Err(_)) | None => Heard::Close(None),
            Some(Ok(other)) => panic!("unexpected frame {other:?}"),
        }
    }

    pub(super) async fn message(&mut self) -> FromServer {
        match self.hear().await {
            Heard::Message(message) => *message,
            Heard::Close(code) => panic!("closed with {code:?} instead of a message"),
        }
    }

    /// Takes the join response and the token after it.
    pub(super) async fn welcomed(&mut self) -> lk::JoinResponse {
        let FromServer::Join(join) = self.message().await else { panic!("the first is join") };
        let token = self.message().await;
        assert!(matches!(token, FromServer::RefreshToken(_)), "{token:?}");
        join
    }

    /// A leave, then a close with this code.
    pub(super) async fn left(&mut self, code: u16) -> lk::LeaveRequest {
        let FromServer::Leave(leave) = self.message().await else { panic!("a leave comes") };
        assert_eq!(self.hear().await, Heard::Close(Some(code)));
        leave
    }
}

/// A join request that asks for nothing. Not the empty one, which is written
/// as nothing at all.
pub(super) fn plain_join() -> lk::JoinRequest {
    let client_info = Some(lk::ClientInfo { protocol: 17, ..Default::default() });
    lk::JoinRequest { client_info, ..Default::default() }
}

/// `/rtc/v1?join_request=…`.
pub(super) fn v1_path(request: &lk::JoinRequest) -> String {
    format!("/rtc/v1?join_request={}", wrapped(request))
}

pub(super) fn wrapped(request: &lk::JoinRequest) -> String {
    let envelope = lk::WrappedJoinRequest { compression: 0, join_request: request.encode_to_vec() };
    // A query's value must escape the padding.
    URL_SAFE.encode(envelope.encode_to_vec()).replace('=', "%3D")
}

/// A plain HTTP call; the body as text.
pub(super) async fn http(request: Request<Full<Bytes>>) -> Response<Bytes> {
    let client = HyperClient::builder(TokioExecutor::new()).build_http();
    let response = soon(client.request(request)).await.unwrap();
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap().to_bytes();
    Response::from_parts(head, body)
}

pub(super) async fn get(url: &str) -> (StatusCode, String) {
    let response = http(Request::get(url).body(Full::default()).unwrap()).await;
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status(), text)
}

pub(super) async fn get_with(url: &str, name: header::HeaderName, value: &str) -> Response<Bytes> {
    http(Request::get(url).header(name, value).body(Full::default()).unwrap()).await
}
