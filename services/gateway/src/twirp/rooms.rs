//! The methods that make, read and change rooms.

use std::time::Duration;

use headwater_model::grants::Grants;
use headwater_proto::v1;
use headwater_rpc::TokenRequest;
use headwater_rpc::token::unix_seconds;
use livekit_protocol as lk;

use super::convert::{named_fields, room_name, wanted_room};
use super::error::{TwirpCode, TwirpError};
use super::room_service::{Caller, PAGE_SIZE, PAGES_MAX, new_request_id, no_room, too_many};
use crate::control_plane::Repeat;

impl Caller<'_> {
    /// LiveKit's creation is idempotent: a room that exists is answered, with
    /// the fields that the request names applied to it.
    pub(crate) async fn create_room(
        &self,
        request: lk::CreateRoomRequest,
    ) -> Result<lk::Room, TwirpError> {
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
        let room = v1::Room { name: room_name(&request.name)?, ..wanted_room(request) };
        self.update_room(room, paths).await
    }

    /// Reads a room for a caller who may create it: LiveKit tells it, while
    /// `headwater.v1` wants roomList for reading. The control plane has just
    /// said that the caller has roomCreate, so this reads in its own name.
    async fn read_room(&self, room: &str) -> Result<lk::Room, TwirpError> {
        if !self.grants.room_create {
            return Err(TwirpError::new(TwirpCode::Unauthenticated, "permissions denied"));
        }
        let grants = Grants { room_list: true, ..Grants::default() };
        let request = TokenRequest { grants, ttl: Duration::from_secs(60) };
        let token = self
            .gateway
            .keys
            .mint(&request, unix_seconds())
            .map_err(|error| TwirpError::new(TwirpCode::Internal, error.to_string()))?;
        let get = v1::GetRoomRequest { name: room_name(room)? };
        let answer = self
            .call_with(&token, get, Repeat::Harmless, |mut client, request| async move {
                client.get_room(request).await
            })
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

    pub(crate) async fn update_room_metadata(
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

    pub(crate) async fn list_rooms(
        &self,
        request: lk::ListRoomsRequest,
    ) -> Result<lk::ListRoomsResponse, TwirpError> {
        let names =
            request.names.iter().map(|name| room_name(name)).collect::<Result<Vec<_>, _>>()?;
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

    pub(crate) async fn delete_room(
        &self,
        request: lk::DeleteRoomRequest,
    ) -> Result<(), TwirpError> {
        let delete =
            v1::DeleteRoomRequest { name: room_name(&request.room)?, request_id: new_request_id() };
        self.call(delete, Repeat::Harmless, |mut client, request| async move {
            client.delete_room(request).await
        })
        .await
        .map_err(no_room)?;
        Ok(())
    }
}
