//! From a checked request to an open session: asks the control plane for a
//! place and the node for a session, and again elsewhere if either has to.

use std::time::{Duration, Instant};

use headwater_proto::control::v1::{Admission, PlaceParticipantRequest, PlaceParticipantResponse};
use headwater_proto::node::v1::{CloseReason, Closed, Join, Joined};
use headwater_rpc::status::Chain;
use headwater_rpc::trace;
use tonic::Code;
use tracing::Span;

use super::codec::publishable;
use super::connect::Connect;
use super::payload::{is_uncounted, participant_payload};
use super::rejection::Rejection;
use crate::gateway::{Gateway, Place};
use crate::grants::wire_permission;
use crate::nodes::{Attachment, Opening, Verdict};

/// Places tried for one join.
const ATTEMPTS_MAX: u32 = 6;

/// Pause before a place is asked for again because the last one was stale; it
/// doubles. Plans reach nodes within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A wait that the control plane asks for is waited for here if it is not longer.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Debug)]
pub(crate) enum Established {
    /// A session is open.
    Open(Box<Session>),
    /// What the client resumes is not there; it must begin anew.
    Mismatch,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) attachment: Attachment,
    pub(crate) joined: Joined,
    pub(crate) place: Place,
    /// Codecs this client may publish.
    pub(crate) codecs: Vec<String>,
    /// W3C trace context of the join. Empty if it is not traced.
    pub(crate) traceparent: String,
}

/// What to do after one attempt.
enum Next {
    Done(Established),
    /// Ask for a place again after a pause, or at once without this node.
    Again {
        pause: Duration,
        failed: Option<(String, u64)>,
        otherwise: Rejection,
    },
}

/// Opens the session that a client asks for, within the configured time.
pub(crate) async fn establish(
    gateway: &Gateway,
    connect: &Connect,
) -> Result<Established, Rejection> {
    if connect.resume_uid.as_deref() == Some("") {
        return Ok(Established::Mismatch);
    }
    let timeout = gateway.config.limits.join_timeout();
    tokio::time::timeout(timeout, attempts(gateway, connect, Instant::now() + timeout))
        .await
        .unwrap_or(Err(Rejection::Timeout))
}

async fn attempts(
    gateway: &Gateway,
    connect: &Connect,
    deadline: Instant,
) -> Result<Established, Rejection> {
    let mut failed = None;
    let mut last = Rejection::ControlPlaneUnreachable;
    for attempt in 0..ATTEMPTS_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        match try_once(gateway, connect, failed.take(), left).await? {
            Next::Done(established) => return Ok(established),
            Next::Again { pause, failed: lost, otherwise } => {
                tokio::time::sleep(pause * (attempt + 1)).await;
                failed = lost;
                last = otherwise;
            }
        }
    }
    Err(last)
}

async fn try_once(
    gateway: &Gateway,
    connect: &Connect,
    failed: Option<(String, u64)>,
    left: Duration,
) -> Result<Next, Rejection> {
    let placed = place(gateway, connect, failed, left).await?;
    match placed.admission() {
        Admission::Admitted => attach(gateway, connect, placed).await,
        Admission::Wait | Admission::Unspecified => {
            let pause = retry_after(&placed);
            if pause > WAIT_MAX {
                return Err(Rejection::Wait(pause));
            }
            Ok(Next::Again { pause, failed: None, otherwise: Rejection::Wait(pause) })
        }
        Admission::RoomFull => Err(Rejection::RoomFull),
        Admission::RoomNotFound if connect.resume_uid.is_some() => {
            Ok(Next::Done(Established::Mismatch))
        }
        Admission::RoomNotFound => Err(Rejection::NoSuchRoom),
    }
}

async fn place(
    gateway: &Gateway,
    connect: &Connect,
    failed: Option<(String, u64)>,
    left: Duration,
) -> Result<PlaceParticipantResponse, Rejection> {
    let resuming = connect.resume_uid.is_some();
    let (failed_node_id, failed_epoch) = failed.unwrap_or_default();
    let request = PlaceParticipantRequest {
        room_id: connect.room.as_str().to_owned(),
        identity: connect.identity.as_str().to_owned(),
        may_create: !resuming && may_create(gateway, connect),
        failed_node_id,
        failed_epoch,
        resuming,
        publishes: connect.grants.permission.can_publish,
        ..PlaceParticipantRequest::default()
    };
    gateway.control_plane.place(&request, left).await.map_err(|status| {
        tracing::warn!(error = %Chain(&status), "the control plane did not place a participant");
        match status.code() {
            Code::InvalidArgument => Rejection::Refused("the control plane refused the names"),
            _ => Rejection::ControlPlaneUnreachable,
        }
    })
}

/// Whether a join of this client creates the room.
pub(crate) fn may_create(gateway: &Gateway, connect: &Connect) -> bool {
    gateway.config.auto_create_rooms || connect.grants.room_create
}

/// Absent means a second, the control plane's own measure.
pub(crate) fn retry_after(placed: &PlaceParticipantResponse) -> Duration {
    let told = placed.retry_after.and_then(|told| Duration::try_from(told).ok());
    told.unwrap_or(Duration::from_secs(1)).clamp(FIRST_PAUSE, Duration::from_secs(60))
}

async fn attach(
    gateway: &Gateway,
    connect: &Connect,
    placed: PlaceParticipantResponse,
) -> Result<Next, Rejection> {
    let place = Place {
        room: connect.room.as_str().to_owned(),
        identity: connect.identity.as_str().to_owned(),
        node_id: placed.node_id.clone(),
        epoch: placed.epoch,
    };
    let codecs = publishable(&gateway.config.livekit.publish_codecs, &connect.client);
    let node_url = placed.node_url.clone();
    let join = join(gateway, connect, placed, &codecs);
    let traceparent = join.traceparent.clone();
    match gateway.nodes.attach(&node_url, join).await {
        Ok(Opening::Joined(_, joined)) if connect.resume_uid.is_some() && !joined.resumed => {
            // The node began a new stay, which the client would not recognise.
            Ok(Next::Done(Established::Mismatch))
        }
        Ok(Opening::Joined(attachment, joined)) => {
            let session =
                Session { attachment: *attachment, joined: *joined, place, codecs, traceparent };
            Ok(Next::Done(Established::Open(Box::new(session))))
        }
        Ok(Opening::Closed(closed)) => closed_at_once(connect, &closed),
        Err(error) => {
            tracing::warn!(node = %place.node_id, error = %Chain(&error), "a node did not open a session");
            let otherwise = Rejection::NodeUnreachable;
            match error.verdict() {
                Verdict::Gone => Ok(Next::Again {
                    pause: Duration::ZERO,
                    failed: Some((place.node_id, place.epoch)),
                    otherwise,
                }),
                Verdict::NotNow => Ok(Next::Again { pause: FIRST_PAUSE, failed: None, otherwise }),
                Verdict::Never => Err(Rejection::Refused("the node refused the join")),
            }
        }
    }
}

fn join(
    gateway: &Gateway,
    connect: &Connect,
    placed: PlaceParticipantResponse,
    codecs: &[String],
) -> Join {
    let grants = &connect.grants;
    Join {
        room_id: connect.room.as_str().to_owned(),
        shard: placed.shard,
        epoch: placed.epoch,
        identity: connect.identity.as_str().to_owned(),
        display_name: grants.display_name.clone(),
        metadata: grants.metadata.clone(),
        attributes: grants.attributes.clone().into_iter().collect(),
        permission: Some(wire_permission(&grants.permission)),
        door_payload: participant_payload(grants, &connect.client, &gateway.config.region),
        auto_subscribe: connect.auto_subscribe,
        adaptive_stream: connect.adaptive_stream,
        transport_mode: connect.mode.into(),
        resume_participant_uid: connect.resume_uid.clone().unwrap_or_default(),
        uncounted: is_uncounted(grants),
        traceparent: trace::traceparent(&Span::current()),
        media_protocols: Vec::new(),
        room: placed.room,
        publish_codecs: codecs.to_vec(),
        fixed_sections: connect.solo.is_some(),
        outlives_signalling: connect.solo.is_some(),
        followed_identities: connect
            .solo
            .as_ref()
            .map(|solo| solo.followed.clone())
            .unwrap_or_default(),
    }
}

/// The node's first word was no.
fn closed_at_once(connect: &Connect, closed: &Closed) -> Result<Next, Rejection> {
    let again = |otherwise| Next::Again { pause: FIRST_PAUSE, failed: None, otherwise };
    Ok(match closed.reason() {
        CloseReason::PlanStale | CloseReason::Migration => again(Rejection::NodeUnreachable),
        // A node that stops has told the control plane, or is about to.
        CloseReason::ServerShutdown => again(Rejection::NodeUnreachable),
        CloseReason::RoomFull => return Err(Rejection::RoomFull),
        _ if connect.resume_uid.is_some() => Next::Done(Established::Mismatch),
        CloseReason::RoomDeleted | CloseReason::RoomClosed => again(Rejection::NoSuchRoom),
        CloseReason::StateMismatch => return Err(Rejection::Refused("state mismatch")),
        CloseReason::DuplicateIdentity => return Err(Rejection::Refused("duplicate identity")),
        CloseReason::ProtocolError => return Err(Rejection::Refused("protocol error")),
        CloseReason::Removed => return Err(Rejection::Refused("removed")),
        CloseReason::Unspecified
        | CloseReason::ClientLeft
        | CloseReason::JoinTimeout
        | CloseReason::ConnectionLost
        | CloseReason::SignalLost => return Err(Rejection::Refused("session closed")),
    })
}
