//! The methods of `livekit.RoomService`, each a call or two of the control
//! plane's `RoomService`.

use std::time::Duration;

use axum::response::Response;
use headwater_model::grants::Grants;
use headwater_proto::v1;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_rpc::Connection;
use livekit_protocol as lk;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::error::{TwirpCode, TwirpError};
use super::json;
use super::message::Encoding;
use crate::control_plane::Repeat;
use crate::gateway::Gateway;
use crate::livekit::info;

/// Rooms or participants asked for at once.
pub(crate) const PAGE_SIZE: u32 = 1000;

/// Pages of one list: LiveKit's lists have none, so a list ends here and the
/// call fails rather than lie.
pub(crate) const PAGES_MAX: usize = 100;

/// A call may take this long.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    CreateRoom,
    ListRooms,
    DeleteRoom,
    ListParticipants,
    GetParticipant,
    RemoveParticipant,
    MutePublishedTrack,
    UpdateParticipant,
    UpdateSubscriptions,
    SendData,
    UpdateRoomMetadata,
}

impl Call {
    #[cfg(test)]
    pub(crate) const NAMES: [&str; 11] = [
        "CreateRoom",
        "ListRooms",
        "DeleteRoom",
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "CreateRoom" => Self::CreateRoom,
            "ListRooms" => Self::ListRooms,
            "DeleteRoom" => Self::DeleteRoom,
            "ListParticipants" => Self::ListParticipants,
            "GetParticipant" => Self::GetParticipant,
            "RemoveParticipant" => Self::RemoveParticipant,
            "MutePublishedTrack" => Self::MutePublishedTrack,
            "UpdateParticipant" => Self::UpdateParticipant,
            "UpdateSubscriptions" => Self::UpdateSubscriptions,
            "SendData" => Self::SendData,
            "UpdateRoomMetadata" => Self::UpdateRoomMetadata,
            _ => return None,
        })
    }
}

/// Who calls.
pub(crate) struct Caller<'a> {
    pub(crate) gateway: &'a Gateway,
    pub(crate) token: &'a str,
    pub(crate) grants: &'a Grants,
}

/// Reads the request, calls, and writes the response.
pub(crate) async fn answer(
    caller: &Caller<'_>,
    call: Call,
    encoding: Encoding,
    body: &[u8],
) -> Result<Response, TwirpError> {
    match call {
        Call::CreateRoom => {
            let room = caller.create_room(encoding.decode(body)?).await?;
            encoding.encode(&room, &json::ROOM)
        }
        Call::ListRooms => {
            let rooms = caller.list_rooms(encoding.decode(body)?).await?;
            encoding.encode(&rooms, &json::ROOMS)
        }
        Call::DeleteRoom => {
            caller.delete_room(encoding.decode(body)?).await?;
            encoding.encode(&lk::DeleteRoomResponse {}, &json::EMPTY)
        }
        Call::ListParticipants => {
            let participants = caller.list_participants(encoding.decode(body)?).await?;
            encoding.encode(&participants, &json::PARTICIPANTS)
        }
        Call::GetParticipant => {
            let participant = caller.get_participant(encoding.decode(body)?).await?;
            encoding.encode(&participant, &json::PARTICIPANT)
        }
        Call::RemoveParticipant => {
            caller.remove_participant(encoding.decode(body)?).await?;
            encoding.encode(&lk::RemoveParticipantResponse {}, &json::EMPTY)
        }
        Call::MutePublishedTrack => {
            let muted = caller.mute_track(encoding.decode(body)?).await?;
            encoding.encode(&muted, &json::MUTED_TRACK)
        }
        Call::UpdateParticipant => {
            let participant = caller.update_participant(encoding.decode(body)?).await?;
            encoding.encode(&participant, &json::PARTICIPANT)
        }
        Call::UpdateSubscriptions => {
            caller.update_subscriptions(encoding.decode(body)?).await?;
            encoding.encode(&lk::UpdateSubscriptionsResponse {}, &json::EMPTY)
        }
        Call::SendData => {
            caller.send_data(encoding.decode(body)?).await?;
            encoding.encode(&lk::SendDataResponse {}, &json::EMPTY)
        }
        Call::UpdateRoomMetadata => {
            let room = caller.update_room_metadata(encoding.decode(body)?).await?;
            encoding.encode(&room, &json::ROOM)
        }
    }
}

/// The words LiveKit's SDKs and users know.
pub(crate) fn no_room(error: TwirpError) -> TwirpError {
    named(error, "requested room does not exist")
}

pub(crate) fn no_participant(error: TwirpError) -> TwirpError {
    named(error, "participant does not exist")
}

fn named(error: TwirpError, msg: &str) -> TwirpError {
    match error.code {
        TwirpCode::NotFound => TwirpError::new(TwirpCode::NotFound, msg),
        _ => error,
    }
}

pub(crate) fn incomplete() -> TwirpError {
    TwirpError::new(TwirpCode::Internal, "the control plane answered without what was asked for")
}

impl Caller<'_> {
    /// Calls the control plane with the caller's token.
    pub(crate) async fn call<Q, A, F>(
        &self,
        request: Q,
        repeat: Repeat,
        method: impl Fn(RoomServiceClient<Connection>, Request<Q>) -> F,
    ) -> Result<A, TwirpError>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        self.call_with(self.token, request, repeat, method).await
    }

    pub(crate) async fn call_with<Q, A, F>(
        &self,
        token: &str,
        request: Q,
        repeat: Repeat,
        method: impl Fn(RoomServiceClient<Connection>, Request<Q>) -> F,
    ) -> Result<A, TwirpError>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let authorization = MetadataValue::try_from(format!("Bearer {token}"))
            .map_err(|_| TwirpError::new(TwirpCode::Unauthenticated, "the token is malformed"))?;
        let answer = self
            .gateway
            .control_plane
            .call(CALL_TIMEOUT, repeat, |connection| {
                let mut request = Request::new(request.clone());
                request.metadata_mut().insert("authorization", authorization.clone());
                method(RoomServiceClient::new(connection), request)
            })
            .await?;
        Ok(answer.into_inner())
    }

    pub(crate) fn room(&self, room: Option<v1::Room>) -> Result<lk::Room, TwirpError> {
        let codecs = &self.gateway.config.livekit.publish_codecs;
        room.map(|room| info::room(&room, codecs)).ok_or_else(incomplete)
    }
}

pub(crate) fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub(crate) fn too_many(what: &str) -> TwirpError {
    let msg = format!("there are more {what} than one answer can hold");
    TwirpError::new(TwirpCode::ResourceExhausted, msg)
}
