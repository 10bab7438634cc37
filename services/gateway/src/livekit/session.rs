//! One client's WebSocket and its session stream, joined by an interpreter. No
//! policy lives here: this pumps, keeps time, and says goodbye.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::StreamExt as _;
use futures::stream::SplitStream;
use headwater_model::grants::Grants;
use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_rpc::server::MESSAGE_BYTES_IN_MAX;
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{TokenRequest, trace};
use headwater_telemetry::metrics::SignalDirection;
use livekit_protocol as lk;
use lk::leave_request::Action;
use lk::signal_request::Message as Request;
use lk::signal_response::Message as ToClient;
use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use tracing::{Instrument as _, info_span};

use super::connect::Connect;
use super::door::signal_protocol;
use super::ending::{End, hand_over, linger};
use super::establish::{Established, Session};
use super::frame::{EncodedFrame, Frame, FrameError, Framing, decode_frame, encode_frame};
use super::interpreter::{Interpreter, Output, Speaker};
use super::join::{SIF_TRAILER_BYTES, Welcome, join_response, reconnect_responses};
use super::leave::leave;
use super::outbox::Outbox;
use super::simulate::ResumeTrial;
use crate::gateway::{Gateway, Place};
use crate::nodes::Attachment;

/// Keeps proxies from closing a quiet connection.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A client that sent nothing, not even a pong, for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// How often clients get a fresh token.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// A fresh token is good for at least this long.
const REFRESH_TTL_MIN: Duration = Duration::from_secs(600);

/// Requests waiting for the node; at the bound the client is not read from.
const PENDING_MAX: usize = 64;

/// Largest request that a node takes, with room for gRPC's own.
const REQUEST_BYTES_MAX: usize = MESSAGE_BYTES_IN_MAX - 1024;

/// Runs a session to its end.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    connect: Connect,
    established: Established,
    socket: WebSocket,
) {
    let span = info_span!(
        "session",
        participant = %connect.identity.short(),
        door = signal_protocol_name(&connect),
    );
    if let Established::Open(session) = &established {
        trace::link_to(&span, &session.traceparent);
    }
    async {
        let open = gateway.metrics.gateway().signal_connections.get(signal_protocol(&connect));
        open.inc();
        match established {
            Established::Open(session) => serve(&gateway, connect, *session, socket).await,
            Established::Mismatch => refuse_resume(&gateway, &connect, socket).await,
        }
        open.dec();
    }
    .instrument(span)
    .await;
}

fn signal_protocol_name(connect: &Connect) -> &'static str {
    match connect.mode {
        node::TransportMode::Dual => "v0",
        node::TransportMode::Single | node::TransportMode::Unspecified => "v1",
    }
}

/// The first message of a resume that cannot be must be this leave.
async fn refuse_resume(gateway: &Gateway, connect: &Connect, socket: WebSocket) {
    tracing::debug!("a resume found nothing to take up");
    let limits = &gateway.config.limits;
    let (sink, stream) = socket.split();
    let outbox = Outbox::start(sink, limits.outbox_messages_max, limits.outbox_bytes_max);
    let reason = lk::DisconnectReason::StateMismatch;
    if let Some(leave) = leave(connect.client.protocol, reason, Action::Reconnect)
        && let Ok(frame) = encode_frame(ToClient::Leave(leave), Framing::Binary)
    {
        // The outbox is new, so it has room.
        let _ = outbox.push(message(frame));
    }
    outbox.finish(Some(close(close_code::NORMAL))).await;
    linger(stream).await;
}

async fn serve(gateway: &Arc<Gateway>, connect: Connect, session: Session, socket: WebSocket) {
    let trial = take_trial(gateway, &connect);
    if trial == Some(ResumeTrial::CutBeforeMessages) {
        return;
    }
    let limits = &gateway.config.limits;
    let (sink, stream) = socket.split();
    let outbox = Outbox::start(sink, limits.outbox_messages_max, limits.outbox_bytes_max);
    let Session { attachment, joined, place, codecs, traceparent: _ } = session;
    let own = joined.participant.clone().unwrap_or_default();
    let speaker = Speaker {
        protocol: connect.client.protocol,
        mode: connect.mode,
        codecs: codecs.clone(),
        grants: connect.grants.clone(),
    };
    let mut pump = Pump {
        gateway: gateway.clone(),
        interpreter: Interpreter::new(speaker, &own),
        protocol: connect.client.protocol,
        uid: own.uid.clone(),
        framing: Framing::default(),
        outbox,
        pending: VecDeque::new(),
    };
    let end = match pump.open(connect, &joined, &codecs, &place) {
        Ok(()) if trial == Some(ResumeTrial::CutAfterMessages) => Err(End::Cut),
        opened => opened,
    };
    drop(joined);
    pump.run(end, stream, attachment, &place).await;
}

fn take_trial(gateway: &Gateway, connect: &Connect) -> Option<ResumeTrial> {
    let uid = connect.resume_uid.as_deref()?;
    let mut trials = gateway.trials.lock().unwrap_or_else(PoisonError::into_inner);
    trials.take(uid, std::time::Instant::now())
}

struct Pump {
    gateway: Arc<Gateway>,
    interpreter: Interpreter,
    protocol: i32,
    uid: String,
    framing: Framing,
    outbox: Outbox,
    pending: VecDeque<node::AttachRequest>,
}

impl Pump {
    /// Says the first messages and queues what the client asked for with its join.
    fn open(
        &mut self,
        connect: Connect,
        joined: &node::Joined,
        codecs: &[String],
        place: &Place,
    ) -> Result<(), End> {
        let config = &self.gateway.config;
        let welcome = Welcome {
            mode: connect.mode,
            codecs,
            ice_servers: &config.livekit.ice_servers,
            region: &config.region,
            node_id: &place.node_id,
            sif_trailer: rand::random::<[u8; SIF_TRAILER_BYTES]>(),
        };
        let messages = if connect.resume_uid.is_some() {
            reconnect_responses(&welcome, joined)
        } else {
            match join_response(&welcome, joined) {
                Some(join) => vec![join],
                None => {
                    tracing::error!(node = %place.node_id, "a node opened a session without saying whose");
                    return Err(End::NodeLost);
                }
            }
        };
        for message in messages {
            self.say(message)?;
        }
        self.refresh_token()?;
        let asked = connect
            .sync_state
            .map(Request::SyncState)
            .into_iter()
            .chain(connect.add_tracks.into_iter().map(Request::AddTrack))
            .chain(connect.offer.map(Request::Offer));
        for request in asked {
            self.interpreter.handle_request(request, unix_millis());
        }
        self.drain()
    }

    async fn run(
        mut self,
        opened: Result<(), End>,
        mut stream: SplitStream<WebSocket>,
        mut attachment: Attachment,
        place: &Place,
    ) {
        let end = match opened {
            Ok(()) => self.pump(&mut stream, &mut attachment).await,
            Err(end) => end,
        };
        tracing::debug!(?end, "a session ended");
        let ended = &self.gateway.metrics.gateway().sessions_ended;
        ended.get(end.counted()).inc();
        self.say_goodbye(end, attachment, place).await;
        if end.close_code().is_some() {
            linger(stream).await;
        }
    }

    async fn pump(
        &mut self,
        stream: &mut SplitStream<WebSocket>,
        attachment: &mut Attachment,
    ) -> End {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = interval_at(Instant::now() + REFRESH_INTERVAL, REFRESH_INTERVAL);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let step = tokio::select! {
                () = self.gateway.shutdown.cancelled() => Err(End::Shutdown),
                () = self.outbox.broken() => Err(End::ClientGone),
                event = attachment.events.message() => match event {
                    Ok(Some(event)) => self.handle_event(event),
                    Ok(None) | Err(_) => Err(End::NodeLost),
                },
                permit = attachment.requests.reserve(), if !self.pending.is_empty() => {
                    match (permit, self.pending.pop_front()) {
                        (Ok(permit), Some(request)) => {
                            permit.send(request);
                            Ok(())
                        }
                        // The stream is broken, which its other half reports too.
                        _ => Err(End::NodeLost),
                    }
                }
                frame = stream.next(), if self.pending.len() < PENDING_MAX => {
                    heard = Instant::now();
                    self.handle_frame(frame)
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        Err(End::Silent)
                    } else {
                        self.push(Message::Ping(Default::default()))
                    }
                }
                _ = refresh.tick() => self.refresh_token(),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn handle_frame(&mut self, frame: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(End::of_read_failure(error)),
            None => return Err(End::ClientGone),
        };
        let request = match &frame {
            Message::Binary(bytes) => self.decode(Frame::Binary(bytes))?,
            Message::Text(text) => self.decode(Frame::Text(text))?,
            Message::Ping(_) | Message::Pong(_) => None,
            Message::Close(_) => return Err(End::ClientGone),
        };
        if let Some(request) = request {
            self.interpreter.handle_request(request, unix_millis());
        }
        self.drain()
    }

    fn decode(&mut self, frame: Frame<'_>) -> Result<Option<Request>, End> {
        self.gateway.metrics.gateway().signal_messages.get(SignalDirection::In).inc();
        self.framing = frame.framing();
        match decode_frame(frame) {
            Ok(request) => Ok(request.message),
            Err(FrameError::TooLarge) => Err(End::TooLarge),
            Err(error) => {
                tracing::debug!(%error, "a client sent what cannot be understood");
                Err(End::BadFrame)
            }
        }
    }

    fn handle_event(&mut self, event: node::AttachResponse) -> Result<(), End> {
        if let Some(event) = event.event {
            self.interpreter.handle_event(event);
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), End> {
        while let Some(output) = self.interpreter.poll_output() {
            match output {
                Output::ToNode(request) => self.ask(request)?,
                Output::ToClient(message) => self.say(message)?,
                Output::RefreshToken => self.refresh_token()?,
                Output::TryResumes(trial) => {
                    let mut trials =
                        self.gateway.trials.lock().unwrap_or_else(PoisonError::into_inner);
                    trials.add(&self.uid, trial, std::time::Instant::now());
                }
                Output::ClientLeft => return Err(End::ClientLeft),
                Output::Closed(closed) => {
                    tracing::debug!(reason = ?closed.reason(), action = ?closed.action(), "the node closed a session");
                    return Err(End::ByNode);
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, request: ToNode) -> Result<(), End> {
        let request = node::AttachRequest { request: Some(request) };
        if request.encoded_len() > REQUEST_BYTES_MAX {
            return Err(End::TooLarge);
        }
        self.pending.push_back(request);
        Ok(())
    }

    fn say(&self, message: ToClient) -> Result<(), End> {
        match encode_frame(message, self.framing) {
            Ok(frame) => {
                self.gateway.metrics.gateway().signal_messages.get(SignalDirection::Out).inc();
                self.push(self::message(frame))
            }
            Err(error) => {
                tracing::warn!(%error, "a message could not be written as JSON");
                Ok(())
            }
        }
    }

    fn push(&self, message: Message) -> Result<(), End> {
        self.outbox.push(message).map_err(|_| End::SlowClient)
    }

    fn refresh_token(&self) -> Result<(), End> {
        match fresh_token(&self.gateway, self.interpreter.grants()) {
            Some(token) => self.say(ToClient::RefreshToken(token)),
            None => Ok(()),
        }
    }

    async fn say_goodbye(self, end: End, attachment: Attachment, place: &Place) {
        if end.is_unheard() {
            return self.outbox.abandon();
        }
        if end == End::NodeLost {
            tracing::warn!(node = %place.node_id, "a node was lost under a session");
            self.gateway.metrics.gateway().node_stream_breaks.inc();
            self.gateway.report_lost(place).await;
        }
        let leave = end.leave().and_then(|(reason, action)| leave(self.protocol, reason, action));
        if let Some(leave) = leave {
            // Without room for it the close alone makes the client come back.
            let _ = self.say(ToClient::Leave(leave));
        }
        let closing = self.outbox.finish(end.close_code().map(close));
        if end == End::ClientLeft {
            tokio::join!(closing, hand_over(attachment, self.pending));
        } else {
            drop(attachment);
            closing.await;
        }
    }
}

/// A token with the grants as they are now, good for at least ten minutes. One
/// that would be too long is not sent: the client keeps its last one.
fn fresh_token(gateway: &Gateway, grants: &Grants) -> Option<String> {
    let now = unix_seconds();
    let remaining = Duration::from_secs(grants.expires_at.saturating_sub(now));
    let request = TokenRequest {
        grants: Grants { api_key: String::new(), ..grants.clone() },
        ttl: remaining.max(REFRESH_TTL_MIN),
    };
    match gateway.keys.mint(&request, now) {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::debug!(%error, "a token could not be refreshed");
            None
        }
    }
}

fn message(frame: EncodedFrame) -> Message {
    match frame {
        EncodedFrame::Binary(bytes) => Message::Binary(bytes.into()),
        EncodedFrame::Text(text) => Message::Text(text.into()),
    }
}

fn close(code: u16) -> CloseFrame {
    CloseFrame { code, reason: "".into() }
}

fn unix_millis() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
