//! The session service: one stream per participant, between a gateway and the
//! shard that has the room.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use headwater_proto::node::v1::session_service_server::SessionService;
use headwater_proto::node::v1::{AttachRequest, AttachResponse, Join};
use headwater_room::{Event, SessionKey};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span, debug, info_span};

use crate::shard::{EVENTS_MAX, ShardCommand, ShardHandle};
use crate::wire::{self, Inbound, WireError};

/// How long the first message may take.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Attaches gateways to shards.
pub struct Sessions {
    shards: Arc<[ShardHandle]>,
    next: Arc<AtomicU64>,
}

impl Sessions {
    /// Over these shards, by index.
    pub fn new(shards: Arc<[ShardHandle]>) -> Self {
        Self { shards, next: Arc::new(AtomicU64::new(1)) }
    }

    async fn open(
        &self,
        join: Join,
    ) -> Result<(ShardHandle, SessionKey, mpsc::Receiver<Event>), Status> {
        let shard = usize::try_from(join.shard).ok().and_then(|index| self.shards.get(index));
        let shard = shard.ok_or_else(|| {
            Status::failed_precondition(format!("this node has no shard {}", join.shard))
        })?;
        let request = wire::join(join, unix_millis())?;
        let session = SessionKey(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        shard
            .send(ShardCommand::Join { session, request: Box::new(request), events: sender })
            .await
            .map_err(|stopped| Status::unavailable(stopped.to_string()))?;
        Ok((shard.clone(), session, events))
    }
}

/// Wall clock, in milliseconds since the Unix epoch.
fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

type Responses = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SessionService for Sessions {
    type AttachStream = Responses;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(JOIN_TIMEOUT, requests.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no join came"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before a join"))?;
        let Inbound::Join(join) = wire::command(first)? else {
            return Err(WireError::JoinOutOfPlace.into());
        };
        let span = info_span!("attach", headwater.room.id = %join.room_id, resumed = !join.resume_participant_uid.is_empty());
        headwater_rpc::trace::continue_from(&span, &join.traceparent);
        let (shard, session, events) = self.open(*join).instrument(span.clone()).await?;
        tokio::spawn(forward(requests, shard, session));
        Ok(Response::new(responses(events, span)))
    }
}

/// The events as the gateway gets them. The join's span ends with the first one.
fn responses(events: mpsc::Receiver<Event>, join: Span) -> Responses {
    let mut join = Some(join);
    Box::pin(ReceiverStream::new(events).map(move |event| {
        if let Some(span) = join.take() {
            span.in_scope(|| debug!("first event"));
        }
        Ok(wire::event(event))
    }))
}

/// Carries a gateway's messages to the shard until the gateway is gone.
async fn forward(mut requests: Streaming<AttachRequest>, shard: ShardHandle, session: SessionKey) {
    loop {
        let message = match requests.message().await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(status) => {
                debug!(code = ?status.code(), "a gateway's stream broke");
                break;
            }
        };
        let command = match wire::command(message) {
            Ok(Inbound::Command(command)) => Box::new(command),
            Ok(Inbound::Join(_)) => {
                debug!("a second join was ignored");
                continue;
            }
            // One bad message of a client is its own loss; the gateway checked
            // what it could.
            Err(error) => {
                debug!(%error, "a malformed message was ignored");
                continue;
            }
        };
        if shard.send(ShardCommand::Command { session, command }).await.is_err() {
            return;
        }
    }
    // After a leave there is nothing left to lose, and this does nothing.
    let _ = shard.send(ShardCommand::Lost { session }).await;
}
