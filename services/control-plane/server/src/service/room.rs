//! `headwater.v1.RoomService`: rooms and who is in them.

mod request;

use std::time::Duration;

use headwater_control_core::replay::ReplayKey;
use headwater_model::{Grants, RoomId};
use headwater_proto::v1::room_service_server::RoomService;
use headwater_proto::v1::{
    CreateRoomRequest, CreateRoomResponse, DataDelivery, DeleteRoomRequest, DeleteRoomResponse,
    GetParticipantRequest, GetParticipantResponse, GetRoomRequest, GetRoomResponse,
    IssueTokenRequest, IssueTokenResponse, ListParticipantsRequest, ListParticipantsResponse,
    ListRoomsRequest, ListRoomsResponse, MuteTrackRequest, MuteTrackResponse,
    RemoveParticipantRequest, RemoveParticipantResponse, SendDataRequest, SendDataResponse,
    UpdateParticipantRequest, UpdateParticipantResponse, UpdateRoomRequest, UpdateRoomResponse,
    UpdateSubscriptionsRequest, UpdateSubscriptionsResponse,
};
use headwater_rpc::status::{self, Reason};
use headwater_rpc::token::{TokenRequest, unix_seconds};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use super::{STALE_KEY, cut_page};
use crate::auth::{Authorizer, Need};
use crate::convert;
use crate::input;
use crate::names;
use crate::participants::{DataMessage, Participants};
use crate::repeats::Repeats;
use crate::rooms::{RoomAnswer, Rooms};

/// Longest life of a token minted here.
const TOKEN_TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of a token minted here, unless the caller says otherwise.
const TOKEN_TTL: Duration = Duration::from_secs(6 * 60 * 60);

/// Serves the public API.
#[derive(Debug)]
pub(crate) struct RoomApi {
    rooms: Rooms,
    participants: Participants,
    authorizer: Authorizer,
    allow_unmute: bool,
    repeats: Repeats,
}

impl RoomApi {
    pub(crate) fn new(
        rooms: Rooms,
        participants: Participants,
        authorizer: Authorizer,
        allow_unmute: bool,
    ) -> Self {
        Self { rooms, participants, authorizer, allow_unmute, repeats: Repeats::default() }
    }

    fn authenticate(&self, metadata: &MetadataMap) -> Result<Grants, Status> {
        self.authorizer.authenticate(metadata)
    }

    fn require_admin(&self, caller: &Grants, room: &RoomId) -> Result<(), Status> {
        self.authorizer.require(caller, Need::Admin(room.as_str()))
    }
}

fn replay_key(caller: &Grants, method: &'static str, request_id: &str) -> ReplayKey {
    ReplayKey { caller: caller.api_key.clone(), method, request_id: request_id.to_owned() }
}

fn mark_stale<T>(mut response: Response<T>, stale: bool) -> Response<T> {
    if stale {
        response.metadata_mut().insert(STALE_KEY, MetadataValue::from_static("true"));
    }
    response
}

#[tonic::async_trait]
impl RoomService for RoomApi {
    async fn create_room(
        &self,
        request: Request<CreateRoomRequest>,
    ) -> Result<Response<CreateRoomResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        self.authorizer.require(&caller, Need::Create)?;
        let request = request.into_inner();
        let new = request::new_room(&request)?;
        let key = replay_key(&caller, "CreateRoom", &request.request_id);
        let create = async {
            let id = new.id.clone();
            let room = self.rooms.create(new).await?;
            let room = self.rooms.cluster.room_message(&id, &room);
            Ok(CreateRoomResponse { room: Some(room) })
        };
        self.repeats.once(key, &request, create).await.map(Response::new)
    }

    async fn get_room(
        &self,
        request: Request<GetRoomRequest>,
    ) -> Result<Response<GetRoomResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let id = names::parse_room("name", &request.get_ref().name)?;
        self.authorizer.require(&caller, Need::ListOrAdmin(id.as_str()))?;
        let RoomAnswer { room, stale } = self.rooms.get(&id).await?;
        let room = Some(self.rooms.cluster.room_message(&id, &room));
        Ok(mark_stale(Response::new(GetRoomResponse { room }), stale))
    }

    async fn list_rooms(
        &self,
        request: Request<ListRoomsRequest>,
    ) -> Result<Response<ListRoomsResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        self.authorizer.require(&caller, Need::List)?;
        let request = request.into_inner();
        let wanted = request::wanted_rooms(&request.names)?;
        let list = request::list_of(&wanted);
        let (rooms, stale) = self.rooms.list().await?;
        let rows = rooms
            .into_iter()
            .filter(|(id, _)| wanted.is_empty() || wanted.contains(id))
            .map(|(id, room)| (id.as_str().to_owned(), (id, room)));
        let message = |(id, room)| self.rooms.cluster.room_message(&id, &room);
        let page = cut_page(&list, request.page_size, &request.page_token, rows, message)?;
        let (rooms, next_page_token) = (page.items, page.next_page_token);
        Ok(mark_stale(Response::new(ListRoomsResponse { rooms, next_page_token }), stale))
    }

    async fn update_room(
        &self,
        request: Request<UpdateRoomRequest>,
    ) -> Result<Response<UpdateRoomResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let (id, change) = request::room_change(&request)?;
        self.authorizer.require(&caller, Need::CreateOrAdmin(id.as_str()))?;
        let key = replay_key(&caller, "UpdateRoom", &request.request_id);
        let update = async {
            let room = self.rooms.update(&id, change).await?;
            let room = self.rooms.cluster.room_message(&id, &room);
            Ok(UpdateRoomResponse { room: Some(room) })
        };
        self.repeats.once(key, &request, update).await.map(Response::new)
    }

    async fn delete_room(
        &self,
        request: Request<DeleteRoomRequest>,
    ) -> Result<Response<DeleteRoomResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        self.authorizer.require(&caller, Need::Create)?;
        let request = request.into_inner();
        let id = names::parse_room("name", &request.name)?;
        input::request_id(&request.request_id)?;
        let key = replay_key(&caller, "DeleteRoom", &request.request_id);
        let delete = async {
            self.rooms.delete(&id).await?;
            Ok(DeleteRoomResponse {})
        };
        self.repeats.once(key, &request, delete).await.map(Response::new)
    }

    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let room = names::parse_room("room", &request.room)?;
        self.require_admin(&caller, &room)?;
        let ttl = request::token_ttl(request.ttl.as_ref())?;
        let grants = request::token_grants(request, &room, caller.api_key)?;
        let now = unix_seconds();
        let token = self
            .authorizer
            .keys()
            .mint(&TokenRequest { grants, ttl }, now)
            .map_err(|error| status::internal(&error))?;
        let expire_time =
            convert::timestamp_millis(now.saturating_add(ttl.as_secs()).saturating_mul(1000));
        Ok(Response::new(IssueTokenResponse { token, expire_time: Some(expire_time) }))
    }

    async fn list_participants(
        &self,
        request: Request<ListParticipantsRequest>,
    ) -> Result<Response<ListParticipantsResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let room = names::parse_room("parent", &request.parent)?;
        self.require_admin(&caller, &room)?;
        let participants = self.participants.list(&room).await?;
        let rows = participants.into_iter().map(|it| (it.identity.clone(), it));
        let list = format!("participants of {room}");
        let message = |it| convert::participant(&room, it);
        let page = cut_page(&list, request.page_size, &request.page_token, rows, message)?;
        let (participants, next_page_token) = (page.items, page.next_page_token);
        Ok(Response::new(ListParticipantsResponse { participants, next_page_token }))
    }

    async fn get_participant(
        &self,
        request: Request<GetParticipantRequest>,
    ) -> Result<Response<GetParticipantResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let (room, who) = names::parse_participant("name", &request.get_ref().name)?;
        self.require_admin(&caller, &room)?;
        let participant = convert::participant(&room, self.participants.get(&room, &who).await?);
        Ok(Response::new(GetParticipantResponse { participant: Some(participant) }))
    }

    async fn update_participant(
        &self,
        request: Request<UpdateParticipantRequest>,
    ) -> Result<Response<UpdateParticipantResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let name = request.participant.as_ref().map_or("", |it| it.name.as_str());
        let (room, who) = names::parse_participant("participant.name", name)?;
        self.require_admin(&caller, &room)?;
        let change = request::participant_change(request)?;
        let participant = self.participants.update(&room, &who, change).await?;
        let participant = Some(convert::participant(&room, participant));
        Ok(Response::new(UpdateParticipantResponse { participant }))
    }

    async fn remove_participant(
        &self,
        request: Request<RemoveParticipantRequest>,
    ) -> Result<Response<RemoveParticipantResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let (room, who) = names::parse_participant("name", &request.name)?;
        self.require_admin(&caller, &room)?;
        input::request_id(&request.request_id)?;
        let key = replay_key(&caller, "RemoveParticipant", &request.request_id);
        let remove = async {
            self.participants.remove(&room, &who).await?;
            Ok(RemoveParticipantResponse {})
        };
        self.repeats.once(key, &request, remove).await.map(Response::new)
    }

    async fn mute_track(
        &self,
        request: Request<MuteTrackRequest>,
    ) -> Result<Response<MuteTrackResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let MuteTrackRequest { participant, track_uid, muted } = request.into_inner();
        let (room, who) = names::parse_participant("participant", &participant)?;
        self.require_admin(&caller, &room)?;
        if track_uid.is_empty() {
            return Err(status::invalid_argument("track_uid", "must not be empty"));
        }
        if !muted && !self.allow_unmute {
            return Err(status::failed_precondition(
                Reason::UnmuteNotAllowed,
                "the operator does not allow unmuting others",
            ));
        }
        let track = self.participants.mute(&room, &who, &track_uid, muted).await?;
        Ok(Response::new(MuteTrackResponse { track: Some(track) }))
    }

    async fn update_subscriptions(
        &self,
        request: Request<UpdateSubscriptionsRequest>,
    ) -> Result<Response<UpdateSubscriptionsResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let UpdateSubscriptionsRequest { participant, track_uids, subscribe } =
            request.into_inner();
        let (room, who) = names::parse_participant("participant", &participant)?;
        self.require_admin(&caller, &room)?;
        if track_uids.is_empty() || track_uids.iter().any(String::is_empty) {
            return Err(status::invalid_argument("track_uids", "must name tracks"));
        }
        input::count("track_uids", track_uids.len())?;
        self.participants.subscribe(&room, &who, track_uids, subscribe).await?;
        Ok(Response::new(UpdateSubscriptionsResponse {}))
    }

    async fn send_data(
        &self,
        request: Request<SendDataRequest>,
    ) -> Result<Response<SendDataResponse>, Status> {
        let caller = self.authenticate(request.metadata())?;
        let request = request.into_inner();
        let room = names::parse_room("room", &request.room)?;
        self.require_admin(&caller, &room)?;
        input::at_most("payload", request.payload.len(), input::DATA_BYTES_MAX)?;
        input::at_most("topic", request.topic.len(), input::TOPIC_BYTES_MAX)?;
        input::identities("destination_identities", &request.destination_identities)?;
        let reliable = match request.delivery() {
            DataDelivery::Unspecified | DataDelivery::Reliable => true,
            DataDelivery::Lossy => false,
        };
        let message = DataMessage {
            payload: request.payload,
            reliable,
            destinations: request.destination_identities,
            topic: request.topic,
        };
        self.participants.send(&room, message).await?;
        Ok(Response::new(SendDataResponse {}))
    }
}
