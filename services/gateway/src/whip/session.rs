//! One session's stream to its node: opened with an offer, held by a task until
//! either side ends it. What the node tells that is no answer is not for these
//! clients and goes no further.

use std::sync::Arc;
use std::time::Duration;

use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::attach_request::Request as ToNode;
use headwater_proto::node::v1::attach_response::Event;
use headwater_telemetry::metrics::SessionEnd;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::problem::Problem;
use super::resource::Entry;
use crate::gateway::{Gateway, Place};
use crate::livekit::{Rejection, Session};
use crate::nodes::Attachment;

/// A node answers an offer or a restart of ICE within this, or is taken for gone.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client that leaves may keep its session's stream.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests of a session's URL that wait; more wait at their connections.
pub(super) const COMMANDS_MAX: usize = 4;

/// What is asked of the node at once.
pub(super) struct Opened {
    pub(super) attachment: Attachment,
    pub(super) place: Place,
    /// `PA_…`.
    pub(super) uid: String,
    pub(super) answer: String,
    /// The node's user fragment.
    pub(super) ufrag: String,
}

impl Opened {
    /// The requests that open a session: what is published or wanted, then the offer.
    pub(super) fn ask(
        tracks: Vec<node::AddTrack>,
        wanted: Vec<String>,
        sdp: String,
    ) -> Vec<ToNode> {
        let offer = node::SessionDescription {
            transport: node::TransportKind::Publisher.into(),
            sdp,
            offer_id: 1,
            ..Default::default()
        };
        let wish = node::UpdateSubscription { track_uids: wanted, subscribe: true };
        let wish = (!wish.track_uids.is_empty()).then_some(ToNode::UpdateSubscription(wish));
        tracks.into_iter().map(ToNode::AddTrack).chain(wish).chain([ToNode::Offer(offer)]).collect()
    }
}

/// Says what is asked and waits for the answer. A session whose answer is of no
/// use is ended.
pub(super) async fn open(
    session: Session,
    asked: Vec<ToNode>,
    is_used: impl Fn(&str) -> bool,
) -> Result<Opened, Problem> {
    let Session { mut attachment, joined, place, .. } = session;
    let uid = joined.participant.map(|own| own.uid).unwrap_or_default();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, exchange(&mut attachment, asked)).await;
    let answer = match answer.unwrap_or(Err(Problem::NodeSilent)) {
        Ok(answer) if is_used(&answer) => answer,
        Ok(_) => {
            leave(attachment).await;
            return Err(Problem::NoCodec);
        }
        Err(problem) => {
            leave(attachment).await;
            return Err(problem);
        }
    };
    let ufrag = ufrag_of(&answer).to_owned();
    Ok(Opened { attachment, place, uid, answer, ufrag })
}

async fn exchange(attachment: &mut Attachment, asked: Vec<ToNode>) -> Result<String, Problem> {
    for request in asked {
        let request = node::AttachRequest { request: Some(request) };
        attachment.requests.send(request).await.map_err(|_| Problem::NodeSilent)?;
    }
    loop {
        let event = attachment.events.message().await.map_err(|_| Problem::NodeSilent)?;
        match event.ok_or(Problem::NodeSilent)?.event {
            Some(Event::Answer(answer)) => return Ok(answer.sdp),
            Some(Event::RequestResult(result)) => refused(&result)?,
            Some(Event::Closed(closed)) => return Err(closed_early(closed)),
            Some(_) | None => {}
        }
    }
}

fn refused(result: &node::RequestResult) -> Result<(), Problem> {
    use node::RequestOutcome as Outcome;
    match result.outcome() {
        Outcome::Done | Outcome::Queued | Outcome::Unspecified => Ok(()),
        Outcome::NotAllowed => Err(Problem::NotAllowed(super::Door::Publish)),
        Outcome::NotFound
        | Outcome::LimitExceeded
        | Outcome::UnsupportedKind
        | Outcome::InvalidHandle
        | Outcome::InvalidName
        | Outcome::DuplicateHandle
        | Outcome::DuplicateName => Err(Problem::Refused(result.message.clone())),
    }
}

fn closed_early(closed: node::Closed) -> Problem {
    match closed.reason() {
        node::CloseReason::ProtocolError => Problem::Refused(closed.message),
        node::CloseReason::RoomFull => Rejection::RoomFull.into(),
        node::CloseReason::Removed
        | node::CloseReason::RoomDeleted
        | node::CloseReason::RoomClosed
        | node::CloseReason::DuplicateIdentity => Rejection::NoSuchRoom.into(),
        _ => Rejection::NodeUnreachable.into(),
    }
}

/// The first user fragment of a description.
fn ufrag_of(sdp: &str) -> &str {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).map_or("", str::trim_end)
}

/// What is asked of an open session.
pub(super) enum Command {
    /// The client's new credentials. Dropping `reply` says that the session is over.
    RestartIce { ufrag: String, pwd: String, reply: oneshot::Sender<node::IceRestarted> },
    /// End it. `reply` says when that is done.
    Leave { reply: oneshot::Sender<()> },
}

/// An open session that a task holds.
pub(super) struct Held {
    pub(super) gateway: Arc<Gateway>,
    pub(super) entry: Arc<Entry>,
    pub(super) attachment: Attachment,
    pub(super) place: Place,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) seat: OwnedSemaphorePermit,
}

/// Why a session is held no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    ClientLeft,
    ByNode,
    NodeLost,
    /// This gateway stops. The node keeps the session as long as its transport is up.
    Shutdown,
}

impl Held {
    /// Holds the session to its end.
    pub(super) async fn run(mut self) {
        let gateway = self.gateway.clone();
        let open = gateway.metrics.gateway().signal_connections.get(self.entry.protocol());
        open.inc();
        let mut leaving = None;
        let end = self.pump(&mut leaving).await;
        open.dec();
        tracing::debug!(?end, "a session ended");
        self.gateway.resources.forget(&self.entry);
        let counted = match end {
            End::ClientLeft => SessionEnd::ClientLeft,
            End::ByNode => SessionEnd::ByNode,
            End::NodeLost => SessionEnd::NodeLost,
            End::Shutdown => SessionEnd::Shutdown,
        };
        self.gateway.metrics.gateway().sessions_ended.get(counted).inc();
        match end {
            End::ClientLeft => leave(self.attachment).await,
            End::NodeLost => {
                tracing::warn!(node = %self.place.node_id, "a node was lost under a session");
                self.gateway.metrics.gateway().node_stream_breaks.inc();
                self.gateway.report_lost(&self.place).await;
            }
            End::ByNode | End::Shutdown => {}
        }
        drop(self.seat);
        if let Some(reply) = leaving {
            // Whoever asked may have gone meanwhile.
            let _: Result<(), ()> = oneshot::Sender::send(reply, ());
        }
    }

    async fn pump(&mut self, leaving: &mut Option<oneshot::Sender<()>>) -> End {
        // The node answers restarts in their order.
        let mut restarts = std::collections::VecDeque::new();
        loop {
            tokio::select! {
                () = self.gateway.shutdown.cancelled() => return End::Shutdown,
                event = self.attachment.events.message() => match event {
                    Ok(Some(event)) => match event.event {
                        Some(Event::IceRestarted(restarted)) => {
                            self.entry.set_ufrag(&restarted.ufrag);
                            let reply: Option<oneshot::Sender<_>> = restarts.pop_front();
                            if let Some(reply) = reply {
                                let _: Result<(), _> = reply.send(restarted);
                            }
                        }
                        Some(Event::Closed(closed)) => {
                            tracing::debug!(reason = ?closed.reason(), "the node closed a session");
                            return End::ByNode;
                        }
                        Some(_) | None => {}
                    },
                    Ok(None) | Err(_) => return End::NodeLost,
                },
                command = self.commands.recv(), if restarts.len() < COMMANDS_MAX => match command {
                    Some(Command::RestartIce { ufrag, pwd, reply }) => {
                        let request = ToNode::RestartIce(node::RestartIce { ufrag, pwd });
                        let request = node::AttachRequest { request: Some(request) };
                        if self.attachment.requests.send(request).await.is_err() {
                            return End::NodeLost;
                        }
                        restarts.push_back(reply);
                    }
                    Some(Command::Leave { reply }) => {
                        *leaving = Some(reply);
                        return End::ClientLeft;
                    }
                    // The entry, which holds the other end, is held here too.
                    None => return End::ClientLeft,
                },
            }
        }
    }
}

/// Says goodbye and waits until the node has taken it: a dropped stream could
/// overtake it.
pub(super) async fn leave(attachment: Attachment) {
    let Attachment { requests, mut events } = attachment;
    let reason = node::CloseReason::ClientLeft.into();
    let goodbye = async {
        let leave = ToNode::Leave(node::Leave { reason });
        let request = node::AttachRequest { request: Some(leave) };
        if requests.send(request).await.is_err() {
            return;
        }
        drop(requests);
        while let Ok(Some(_)) = events.message().await {}
    };
    // A node that does not end the stream by now has had its time.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
}
