//! The methods that read, change and remove participants, and send them data.

use std::collections::BTreeSet;

use headwater_proto::v1;
use livekit_protocol as lk;

use super::convert::{participant, participant_name, participant_update, room_name, track};
use super::error::{TwirpCode, TwirpError};
use super::room_service::{
    Caller, PAGE_SIZE, PAGES_MAX, incomplete, new_request_id, no_participant, no_room, too_many,
};
use crate::control_plane::Repeat;

impl Caller<'_> {
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

    pub(crate) async fn list_participants(
        &self,
        request: lk::ListParticipantsRequest,
    ) -> Result<lk::ListParticipantsResponse, TwirpError> {
        let participants = self.participants(&request.room).await?;
        Ok(lk::ListParticipantsResponse {
            participants: participants.iter().map(participant).collect(),
        })
    }

    pub(crate) async fn get_participant(
        &self,
        request: lk::RoomParticipantIdentity,
    ) -> Result<lk::ParticipantInfo, TwirpError> {
        let get =
            v1::GetParticipantRequest { name: participant_name(&request.room, &request.identity)? };
        let answer = self
            .call(get, Repeat::Harmless, |mut client, request| async move {
                client.get_participant(request).await
            })
            .await
            .map_err(no_participant)?;
        answer.participant.as_ref().map(participant).ok_or_else(incomplete)
    }

    pub(crate) async fn remove_participant(
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

    pub(crate) async fn mute_track(
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
        Ok(lk::MuteRoomTrackResponse { track: muted.track.as_ref().map(track) })
    }

    pub(crate) async fn update_participant(
        &self,
        request: lk::UpdateParticipantRequest,
    ) -> Result<lk::ParticipantInfo, TwirpError> {
        let (room, identity) = (request.room.clone(), request.identity.clone());
        let update = participant_update(request)?;
        if update.update_mask.as_ref().is_some_and(|mask| mask.paths.is_empty()) {
            let unchanged = lk::RoomParticipantIdentity { room, identity, ..Default::default() };
            return self.get_participant(unchanged).await;
        }
        let updated = self
            .call(update, Repeat::Harmless, |mut client, request| async move {
                client.update_participant(request).await
            })
            .await
            .map_err(no_participant)?;
        updated.participant.as_ref().map(participant).ok_or_else(incomplete)
    }

    pub(crate) async fn update_subscriptions(
        &self,
        request: lk::UpdateSubscriptionsRequest,
    ) -> Result<(), TwirpError> {
        let by_participant = request.participant_tracks.into_iter().flat_map(|it| it.track_sids);
        let update = v1::UpdateSubscriptionsRequest {
            participant: participant_name(&request.room, &request.identity)?,
            track_uids: request.track_sids.into_iter().chain(by_participant).collect(),
            subscribe: request.subscribe,
        };
        self.call(update, Repeat::Harmless, |mut client, request| async move {
            client.update_subscriptions(request).await
        })
        .await
        .map_err(no_participant)?;
        Ok(())
    }

    pub(crate) async fn send_data(&self, request: lk::SendDataRequest) -> Result<(), TwirpError> {
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
        let sids: BTreeSet<&str> = request.destination_sids.iter().map(String::as_str).collect();
        if !sids.is_empty() {
            let present = self.participants(&request.room).await?;
            let named = present.into_iter().filter(|it| sids.contains(it.uid.as_str()));
            identities.extend(named.map(|participant| participant.identity));
            if identities.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(identities.into_iter().collect()))
    }
}
