//! LiveKit signalling, v1: join with an offer in the request, then protobuf
//! messages over a WebSocket.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A signalling connection.
pub struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How to join.
pub struct JoinOptions {
    /// Server address, such as `ws://127.0.0.1:7880`.
    pub url: String,
    /// Signed token.
    pub token: String,
    /// First offer of the one transport.
    pub offer: String,
    /// Tracks that the offer publishes.
    pub tracks: Vec<proto::AddTrackRequest>,
    /// Subscribe to everything.
    pub auto_subscribe: bool,
}

impl Signal {
    /// Joins; answers with the connection and the server's first message.
    ///
    /// # Errors
    /// If the server refuses or does not answer with a join response.
    pub async fn join(options: JoinOptions) -> anyhow::Result<(Self, proto::JoinResponse)> {
        let request = join_request(&options);
        let address = format!(
            "{}/rtc/v1?join_request={request}&access_token={}",
            options.url.trim_end_matches('/'),
            options.token
        );
        let (socket, _) = tokio_tungstenite::connect_async(address)
            .await
            .map_err(|error| anyhow::anyhow!("the server refused the join: {}", refusal(&error)))?;
        let mut signal = Self { socket };
        match signal.next().await? {
            Response::Join(join) => Ok((signal, join)),
            other => bail!("the first message is no join response: {other:?}"),
        }
    }

    /// The next message of the server.
    ///
    /// # Errors
    /// If the connection ended or what came is not understood.
    pub async fn next(&mut self) -> anyhow::Result<Response> {
        loop {
            let frame = self.socket.next().await.context("signalling ended")??;
            match frame {
                Frame::Binary(bytes) => {
                    let response = proto::SignalResponse::decode(bytes)?;
                    if let Some(message) = response.message {
                        return Ok(message);
                    }
                }
                Frame::Close(_) => bail!("signalling was closed"),
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => {}
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection ended.
    pub async fn send(&mut self, message: Request) -> anyhow::Result<()> {
        let request = proto::SignalRequest { message: Some(message) };
        self.socket.send(Frame::Binary(request.encode_to_vec().into())).await?;
        Ok(())
    }

    /// Says goodbye and closes.
    pub async fn leave(&mut self) {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..Default::default()
        };
        let _ = self.send(Request::Leave(leave)).await;
        let _ = self.socket.close(None).await;
        // A socket that is dropped with unread bytes is reset, and a reset can
        // overtake the goodbye.
        let closed = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), closed).await;
    }
}

fn refusal(error: &tokio_tungstenite::tungstenite::Error) -> String {
    match error {
        tokio_tungstenite::tungstenite::Error::Http(response) => {
            let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
            let again = response.headers().get("retry-after").and_then(|after| after.to_str().ok());
            let again = again.map(|seconds| format!(" (again in {seconds} s)")).unwrap_or_default();
            format!("{} {body}{again}", response.status())
        }
        other => other.to_string(),
    }
}

fn join_request(options: &JoinOptions) -> String {
    let join = proto::JoinRequest {
        client_info: Some(proto::ClientInfo {
            sdk: proto::client_info::Sdk::Rust.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: 16,
            ..Default::default()
        }),
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: options.auto_subscribe,
            ..Default::default()
        }),
        add_track_requests: options.tracks.clone(),
        publisher_offer: Some(proto::SessionDescription {
            r#type: "offer".to_owned(),
            sdp: options.offer.clone(),
            id: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = proto::WrappedJoinRequest {
        compression: proto::wrapped_join_request::Compression::None.into(),
        join_request: join.encode_to_vec(),
    };
    URL_SAFE.encode(wrapped.encode_to_vec())
}
