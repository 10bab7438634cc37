//! Participants live on the node that carries their room: what the API asks
//! about them is asked there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use headwater_model::{Identity, NodeId, RoomId};
use headwater_proto::node::v1::command_participant_request::Command;
use headwater_proto::node::v1::node_service_client::NodeServiceClient;
use headwater_proto::node::v1::{
    CloseReason, CommandParticipantRequest, ListParticipantsRequest, MuteTrack, Participant,
    RemoveCommand, SendDataRequest, UpdateCommand, UpdateSubscription,
};
use headwater_proto::v1;
use headwater_rpc::Connection;
use headwater_rpc::status::{self, Reason};
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cluster::Cluster;
use crate::names;
use crate::nodes::{self, Nodes};
use crate::registry::{PATIENCE, Registry};

/// How long a node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// When to come back if it did not.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A data message for a room.
#[derive(Debug)]
pub(crate) struct DataMessage {
    pub(crate) payload: Vec<u8>,
    pub(crate) reliable: bool,
    pub(crate) destinations: Vec<String>,
    pub(crate) topic: String,
}

/// What to change of a participant; absent means unchanged.
#[derive(Debug, Default)]
pub(crate) struct ParticipantChange {
    pub(crate) display_name: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) permission: Option<v1::ParticipantPermission>,
}

/// The participants of all rooms.
#[derive(Debug, Clone)]
pub(crate) struct Participants {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) registry: Registry,
    pub(crate) nodes: Arc<Nodes>,
}

impl Participants {
    /// Who is in a room, in order of identities. A room that no node carries is empty.
    pub(crate) async fn list(&self, room: &RoomId) -> Result<Vec<Participant>, Status> {
        let Some(node) = self.carrier(room).await? else {
            return Ok(Vec::new());
        };
        let mut participants = match self.of_node(&node, room).await {
            // The node has not been told of it yet, so nobody can be there.
            Err(status) if status.code() == Code::NotFound => Vec::new(),
            Err(status) => return Err(status),
            Ok(participants) => participants,
        };
        participants.sort_by(|a, b| a.identity.cmp(&b.identity));
        Ok(participants)
    }

    /// One participant.
    pub(crate) async fn get(&self, room: &RoomId, who: &Identity) -> Result<Participant, Status> {
        let participants = self.list(room).await?;
        let found = participants.into_iter().find(|it| it.identity == who.as_str());
        found.ok_or_else(|| no_participant(room, who))
    }

    /// Ends a participant's session.
    pub(crate) async fn remove(&self, room: &RoomId, who: &Identity) -> Result<(), Status> {
        let remove = RemoveCommand { reason: CloseReason::Removed.into() };
        self.command(room, who, Command::Remove(remove)).await.map(drop)
    }

    /// Mutes or unmutes a track; answers with the track.
    pub(crate) async fn mute(
        &self,
        room: &RoomId,
        who: &Identity,
        track_uid: &str,
        muted: bool,
    ) -> Result<v1::Track, Status> {
        let mute = MuteTrack { track_uid: track_uid.to_owned(), muted };
        let participant = self.command(room, who, Command::MuteTrack(mute)).await?;
        participant
            .tracks
            .into_iter()
            .filter_map(|track| track.track)
            .find(|track| track.uid == track_uid)
            .ok_or_else(|| status::not_found("track", track_uid))
    }

    /// Changes what a participant is and may do.
    pub(crate) async fn update(
        &self,
        room: &RoomId,
        who: &Identity,
        change: ParticipantChange,
    ) -> Result<Participant, Status> {
        let update = UpdateCommand {
            display_name: change.display_name,
            metadata: change.metadata,
            attributes: change.attributes,
            permission: change.permission,
        };
        self.command(room, who, Command::Update(update)).await
    }

    /// Subscribes a participant to tracks or takes them away.
    pub(crate) async fn subscribe(
        &self,
        room: &RoomId,
        who: &Identity,
        track_uids: Vec<String>,
        subscribe: bool,
    ) -> Result<(), Status> {
        let update = UpdateSubscription { track_uids, subscribe };
        self.command(room, who, Command::UpdateSubscription(update)).await.map(drop)
    }

    /// Sends a data message into a room. Where nobody is, nobody gets it.
    pub(crate) async fn send(&self, room: &RoomId, message: DataMessage) -> Result<(), Status> {
        let Some(node) = self.carrier(room).await? else {
            return Ok(());
        };
        let mut client = self.client(&node)?;
        let request = SendDataRequest {
            room_id: room.as_str().to_owned(),
            payload: message.payload,
            reliable: message.reliable,
            destination_identities: message.destinations,
            topic: message.topic,
        };
        match call(&node, client.send_data(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Who a node says is in a room.
    pub(crate) async fn of_node(
        &self,
        node: &NodeId,
        room: &RoomId,
    ) -> Result<Vec<Participant>, Status> {
        let mut client = self.client(node)?;
        let request = ListParticipantsRequest { room_id: room.as_str().to_owned() };
        let answer = call(node, client.list_participants(request)).await?;
        Ok(answer.participants)
    }

    async fn command(
        &self,
        room: &RoomId,
        who: &Identity,
        command: Command,
    ) -> Result<Participant, Status> {
        let node = self.carrier(room).await?.ok_or_else(|| no_participant(room, who))?;
        let mut client = self.client(&node)?;
        let request = CommandParticipantRequest {
            room_id: room.as_str().to_owned(),
            identity: who.as_str().to_owned(),
            command: Some(command),
        };
        match call(&node, client.command_participant(request)).await {
            Ok(answer) => answer.participant.ok_or_else(|| no_participant(room, who)),
            Err(status) if status.code() == Code::NotFound => Err(missing(&status, room, who)),
            Err(status) => Err(status),
        }
    }

    /// The node that carries a room; `None` if none does. The watched plan is
    /// good enough: a node that carries the room no more says so.
    async fn carrier(&self, room: &RoomId) -> Result<Option<NodeId>, Status> {
        let home =
            |room: &headwater_control_core::IntendedRoom| room.home().map(|home| home.node.clone());
        if let Some(known) = self.cluster.room(room) {
            return Ok(home(&known));
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let reading = self.registry.read_room(room, deadline).await?;
        let found = reading.room.ok_or_else(|| status::not_found("room", &names::room(room)))?;
        Ok(home(&found.intended))
    }

    fn client(&self, node: &NodeId) -> Result<NodeServiceClient<Connection>, Status> {
        let url = self.cluster.node_url(node).ok_or_else(|| unreachable(node))?;
        let connection = self.nodes.connection(node, &url);
        Ok(nodes::client(connection.map_err(|error| status::internal(&error))?))
    }
}

/// Makes a call to a node. Its own refusals pass; that it does not answer is
/// told as what it is.
async fn call<T>(
    node: &NodeId,
    calling: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(NODE_TIMEOUT, calling).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                tracing::debug!(node = %node, error = %status, "node call failed");
                unreachable(node)
            }
            // Between us and the node; nothing that the caller could mend.
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => {
                status::internal(&status)
            }
            Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss => status,
        }),
        Err(_) => Err(unreachable(node)),
    }
}

fn unreachable(node: &NodeId) -> Status {
    let message = format!("the media node {node} does not answer");
    status::unavailable(Reason::NodeUnreachable, message, RETRY_AFTER)
}

fn no_participant(room: &RoomId, who: &Identity) -> Status {
    status::not_found("participant", &names::participant(room, who.as_str()))
}

/// What a node did not find. Only it can tell a missing track from a missing
/// participant.
fn missing(status: &Status, room: &RoomId, who: &Identity) -> Status {
    match status.get_details_resource_info() {
        Some(resource) if resource.resource_type == "track" => {
            status::not_found("track", &resource.resource_name)
        }
        Some(_) | None => no_participant(room, who),
    }
}
