//! Participants live on the nodes that carry their room: what the API asks
//! about them is asked there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use headwater_control_core::IntendedRoom;
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

/// Nodes of one room that are asked at once.
const NODES_AT_ONCE: usize = 16;

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
        let mut answers = stream::iter(self.carriers(room).await?)
            .map(|node| self.of_carrier(node, room))
            .buffered(NODES_AT_ONCE);
        // Nodes that carry a room together may tell of each other's participants.
        let mut participants = BTreeMap::new();
        while let Some(told) = answers.try_next().await? {
            for participant in told {
                participants.entry(participant.identity.clone()).or_insert(participant);
            }
        }
        Ok(participants.into_values().collect())
    }

    async fn of_carrier(&self, node: NodeId, room: &RoomId) -> Result<Vec<Participant>, Status> {
        match self.of_node(&node, room).await {
            // The node has not been told of it yet, so nobody can be there.
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            told => told,
        }
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
        // The home passes it on to the other nodes.
        let Some(node) = self.carriers(room).await?.into_iter().next() else {
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
        let request = CommandParticipantRequest {
            room_id: room.as_str().to_owned(),
            identity: who.as_str().to_owned(),
            command: Some(command),
        };
        let mut answers = stream::iter(self.carriers(room).await?)
            .map(|node| self.command_node(node, request.clone()))
            .buffered(NODES_AT_ONCE);
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                // It is on another node, or on none.
                Ok(None) => {}
                Ok(Some(participant)) => return Ok(participant),
                Err(status) => failed = Some(status),
            }
        }
        Err(failed.unwrap_or_else(|| no_participant(room, who)))
    }

    /// Has a node do something to a participant; none if it is not there.
    async fn command_node(
        &self,
        node: NodeId,
        request: CommandParticipantRequest,
    ) -> Result<Option<Participant>, Status> {
        let mut client = self.client(&node)?;
        match call(&node, client.command_participant(request)).await {
            Ok(answer) => Ok(answer.participant),
            Err(status) if status.code() == Code::NotFound => match missing_track(&status) {
                Some(track) => Err(track),
                None => Ok(None),
            },
            Err(status) => Err(status),
        }
    }

    /// The nodes that carry a room, each once, the home's first. The watched plan
    /// is good enough: a node that carries the room no more says so.
    async fn carriers(&self, room: &RoomId) -> Result<Vec<NodeId>, Status> {
        if let Some(known) = self.cluster.room(room) {
            return Ok(nodes_of(&known));
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let reading = self.registry.read_room(room, deadline).await?;
        let found = reading.room.ok_or_else(|| status::not_found("room", &names::room(room)))?;
        Ok(nodes_of(&found.intended))
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

fn nodes_of(room: &IntendedRoom) -> Vec<NodeId> {
    let mut seen = BTreeSet::new();
    let shards = room.plan.iter().flat_map(|plan| &plan.shards);
    shards.map(|planned| &planned.node).filter(|node| seen.insert(*node)).cloned().collect()
}

/// What a node did not find, if it is a track: then the participant is there.
fn missing_track(status: &Status) -> Option<Status> {
    let resource = status.get_details_resource_info()?;
    (resource.resource_type == "track").then(|| status::not_found("track", &resource.resource_name))
}
