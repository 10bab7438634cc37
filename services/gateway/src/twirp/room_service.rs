//! The methods of `livekit.RoomService`, each a call or two of the control
//! plane's `RoomService`.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::response::Response;
use headwater_model::grants::Grants;
use headwater_proto::v1;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{Connection, TokenRequest};
use livekit_protocol as lk;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::convert::{
    named_fields, participant, participant_name, participant_update, room_name, track, wanted_room,
};
use super::error::{TwirpCode, TwirpError};
use super::json;
use super::message::Encoding;
use crate::control_plane::Repeat;
use crate::gateway::Gateway;
use crate::livekit::info;

/// Rooms or participants asked for at once.
const PAGE_SIZE: u32 = 1000;

/// Pages of one list: LiveKit's lists have none, so a list ends here and the
/// call fails rather than lie.
const PAGES_MAX: usize = 100;

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
fn no_room(error: TwirpError) -> TwirpError {
    named(error, "requested room does not exist")
}

fn no_participant(error: TwirpError) -> TwirpError {
    named(error, "participant does not exist")
}

fn named(error: TwirpError, msg: &str) -> TwirpError {
    match error.code {
        TwirpCode::NotFound => TwirpError::new(TwirpCode::NotFound, msg),
        _ => error,
    }
}

fn unnamed_room() -> TwirpError {
    TwirpError::new(
        TwirpCode::Internal,
        "the control plane answered without what was asked for",
    )
}

impl Caller<'_> {
    /// Calls the control plane with the caller's token.
    async fn call<Q, A, F>(
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

    async fn call_with<Q, A, F>(
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
                request
                    .metadata_mut()
                    .insert("authorization", authorization.clone());
                method(RoomServiceClient::new(connection), request)
            })
            .await?;
        Ok(answer.into_inner())
    }

    fn room(&self, room: Option<v1::Room>) -> Result<lk::Room, TwirpError> {
        let codecs = &self.gateway.config.livekit.publish_codecs;
        room.map(|room| info::room(&room, codecs))
            .ok_or_else(unnamed_room)
    }

    /// LiveKit's creation is idempotent: a room that exists is answered, with
    /// the fields that the request names applied to it.
    async fn create_room(&self, request: lk::CreateRoomRequest) -> Result<lk::Room, TwirpError> {
        room_name(&request.name)?;
        let create = v1::CreateRoomRequest {
            room_id: request.name.clone(),
            room: Some(wanted_room(&request)),
            request_id: new_request_id(),
        };
        let created = self
            .call(create, Repeat::Harmless, |mut client, request| async move {
                client.create_room(request).await
            })
            .await;
        match created {
            Ok(created) => self.room(created.room),
            Err(error) if error.code == TwirpCode::AlreadyExists => {
                self.existing_room(&request).await
            }
            Err(error) => Err(error),
        }
    }

    async fn existing_room(&self, request: &lk::CreateRoomRequest) -> Result<lk::Room, TwirpError> {
        let paths = named_fields(request);
        if paths.is_empty() {
            return self.read_room(&request.name).await;
        }
        let room = v1::Room {
            name: room_name(&request.name)?,
            ..wanted_room(request)
        };
        self.update_room(room, paths).await
    }

    /// Reads a room for a caller who may create it: LiveKit tells it, while
    /// `headwater.v1` wants roomList for reading. The control plane has just
    /// said that the caller has roomCreate, so this reads in its own name.
    async fn read_room(&self, room: &str) -> Result<lk::Room, TwirpError> {
        if !self.grants.room_create {
            return Err(TwirpError::new(
                TwirpCode::Unauthenticated,
                "permissions denied",
            ));
        }
        let grants = Grants {
            room_list: true,
            ..Grants::default()
        };
        let request = TokenRequest {
            grants,
            ttl: Duration::from_secs(60),
        };
        let token = self
            .gateway
            .keys
            .mint(&request, unix_seconds())
            .map_err(|error| TwirpError::new(TwirpCode::Internal, error.to_string()))?;
        let get = v1::GetRoomRequest {
            name: room_name(room)?,
        };
        let answer = self
            .call_with(
                &token,
                get,
                Repeat::Harmless,
                |mut client, request| async move { client.get_room(request).await },
            )
            .await
            .map_err(no_room)?;
        self.room(answer.room)
    }

    async fn update_room(
        &self,
        room: v1::Room,
        paths: Vec<String>,
    ) -> Result<lk::Room, TwirpError> {
        let update = v1::UpdateRoomRequest {
            room: Some(room),
            update_mask: Some(prost_types::FieldMask { paths }),
            request_id: new_request_id(),
        };
        let updated = self
            .call(update, Repeat::Harmless, |mut client, request| async move {
                client.update_room(request).await
            })
            .await
            .map_err(no_room)?;
        self.room(updated.room)
    }

    async fn update_room_metadata(
        &self,
        request: lk::UpdateRoomMetadataRequest,
    ) -> Result<lk::Room, TwirpError> {
        let room = v1::Room {
            name: room_name(&request.room)?,
            metadata: request.metadata,
            ..Default::default()
        };
        self.update_room(room, vec!["metadata".to_owned()]).await
    }

    async fn list_rooms(
        &self,
        request: lk::ListRoomsRequest,
    ) -> Result<lk::ListRoomsResponse, TwirpError> {
        let names = request
            .names
            .iter()
            .map(|name| room_name(name))
            .collect::<Result<Vec<_>, _>>()?;
        let mut rooms = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let page = v1::ListRoomsRequest {
                page_size: PAGE_SIZE,
                page_token: std::mem::take(&mut page_token),
                names: names.clone(),
            };
            let page = self
                .call(page, Repeat::Harmless, |mut client, request| async move {
                    client.list_rooms(request).await
                })
                .await?;
            for room in page.rooms {
                rooms.push(self.room(Some(room))?);
            }
            if page.next_page_token.is_empty() {
                return Ok(lk::ListRoomsResponse { rooms });
            }
            page_token = page.next_page_token;
        }
        Err(too_many("rooms"))
    }

    async fn delete_room(&self, request: lk::DeleteRoomRequest) -> Result<(), TwirpError> {
        let delete = v1::DeleteRoomRequest {
            name: room_name(&request.room)?,
            request_id: new_request_id(),
        };
        self.call(delete, Repeat::Harmless, |mut client, request| async move {
            client.delete_room(request).await
        })
        .await
        .map_err(no_room)?;
        Ok(())
    }

    async fn participants(&self, room: &str) -> Result<Vec<v1::Participant>, TwirpError> {
        let parent = room_name(room)?;
        let mut participants = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let page = v1::ListParticipantsRequest {
                parent: parent.clone(),
                page_size: PAGE_SIZE,
                page_token: std::mem::take(&mut page_token),
            };
            let page = self
                .call(page, Repeat::Harmless, |mut client, request| async move {
                    client.list_participants(request).await
                })
                .await
                .map_err(no_room)?;
            participants.extend(page.participants);
            if page.next_page_token.is_empty() {
                return Ok(participants);
            }
            page_token = page.next_page_token;
        }
        Err(too_many("participants"))
    }

    async fn list_participants(
        &self,
        request: lk::ListParticipantsRequest,
    ) -> Result<lk::ListParticipantsResponse, TwirpError> {
        let participants = self.participants(&request.room).await?;
        Ok(lk::ListParticipantsResponse {
            participants: participants.iter().map(participant).collect(),
        })
    }

    async fn get_participant(
        &self,
        request: lk::RoomParticipantIdentity,
    ) -> Result<lk::ParticipantInfo, TwirpError> {
        let get = v1::GetParticipantRequest {
            name: participant_name(&request.room, &request.identity)?,
        };
        let answer = self
            .call(get, Repeat::Harmless, |mut client, request| async move {
                client.get_participant(request).await
            })
            .await
            .map_err(no_participant)?;
        answer
            .participant
            .as_ref()
            .map(participant)
            .ok_or_else(unnamed_room)
    }

    async fn remove_participant(
        &self,
        request: lk::RoomParticipantIdentity,
    ) -> Result<(), TwirpError> {
        let remove = v1::RemoveParticipantRequest {
            name: participant_name(&request.room, &request.identity)?,
            request_id: new_request_id(),
        };
        self.call(remove, Repeat::Harmless, |mut client, request| async move {
            client.remove_participant(request).await
        })
        .await
        .map_err(no_participant)?;
        Ok(())
    }

    async fn mute_track(
        &self,
        request: lk::MuteRoomTrackRequest,
    ) -> Result<lk::MuteRoomTrackResponse, TwirpError> {
        let mute = v1::MuteTrackRequest {
            participant: participant_name(&request.room, &request.identity)?,
            track_uid: request.track_sid,
            muted: request.muted,
        };
        let muted = self
            .call(mute, Repeat::Harmless, |mut client, request| async move {
                client.mute_track(request).await
            })
            .await?;
        Ok(lk::MuteRoomTrackResponse {
            track: muted.track.as_ref().map(track),
        })
    }

    async fn update_participant(
        &self,
        request: lk::UpdateParticipantRequest,
    ) -> Result<lk::ParticipantInfo, TwirpError> {
        let (room, identity) = (request.room.clone(), request.identity.clone());
        let update = participant_update(request)?;
        if update
            .update_mask
            .as_ref()
            .is_some_and(|mask| mask.paths.is_empty())
        {
            let unchanged = lk::RoomParticipantIdentity {
                room,
                identity,
                ..Default::default()
            };
            return self.get_participant(unchanged).await;
        }
        let updated = self
            .call(update, Repeat::Harmless, |mut client, request| async move {
                client.update_participant(request).await
            })
            .await
            .map_err(no_participant)?;
        updated
            .participant
            .as_ref()
            .map(participant)
            .ok_or_else(unnamed_room)
    }

    async fn update_subscriptions(
        &self,
        request: lk::UpdateSubscriptionsRequest,
    ) -> Result<(), TwirpError> {
        let by_participant = request
            .participant_tracks
            .into_iter()
            .flat_map(|it| it.track_sids);
        let update = v1::UpdateSubscriptionsRequest {
            participant: participant_name(&request.room, &request.identity)?,
            track_uids: request
                .track_sids
                .into_iter()
                .chain(by_participant)
                .collect(),
            subscribe: request.subscribe,
        };
        self.call(update, Repeat::Harmless, |mut client, request| async move {
            client.update_subscriptions(request).await
        })
        .await
        .map_err(no_participant)?;
        Ok(())
    }

    async fn send_data(&self, request: lk::SendDataRequest) -> Result<(), TwirpError> {
        if !matches!(request.nonce.len(), 0 | 16) {
            let msg = format!(
                "nonce should be 16-bytes or not present, got: {} bytes",
                request.nonce.len()
            );
            return Err(TwirpError::new(TwirpCode::InvalidArgument, msg));
        }
        let Some(destination_identities) = self.destinations(&request).await? else {
            // Named receivers only, and none of them is here.
            return Ok(());
        };
        let delivery = match lk::data_packet::Kind::try_from(request.kind) {
            Ok(lk::data_packet::Kind::Lossy) => v1::DataDelivery::Lossy,
            Ok(lk::data_packet::Kind::Reliable) | Err(_) => v1::DataDelivery::Reliable,
        };
        let send = v1::SendDataRequest {
            room: room_name(&request.room)?,
            payload: request.data,
            delivery: delivery.into(),
            destination_identities,
            topic: request.topic.unwrap_or_default(),
        };
        self.call(send, Repeat::Never, |mut client, request| async move {
            client.send_data(request).await
        })
        .await
        .map_err(no_room)?;
        Ok(())
    }

    /// The identities that a message is for; empty means everybody, `None`
    /// nobody. Older callers name receivers by sid.
    #[expect(deprecated, reason = "older callers name receivers by sid")]
    async fn destinations(
        &self,
        request: &lk::SendDataRequest,
    ) -> Result<Option<Vec<String>>, TwirpError> {
        let mut identities: BTreeSet<String> =
            request.destination_identities.iter().cloned().collect();
        let sids: BTreeSet<&str> = request
            .destination_sids
            .iter()
            .map(String::as_str)
            .collect();
        if !sids.is_empty() {
            let present = self.participants(&request.room).await?;
            let named = present
                .into_iter()
                .filter(|it| sids.contains(it.uid.as_str()));
            identities.extend(named.map(|participant| participant.identity));
            if identities.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(identities.into_iter().collect()))
    }
}

fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn too_many(what: &str) -> TwirpError {
    let msg = format!("there are more {what} than one answer can hold");
    TwirpError::new(TwirpCode::ResourceExhausted, msg)
}
