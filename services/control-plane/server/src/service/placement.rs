//! `headwater.control.v1.PlacementService`: where gateways send participants.

use std::time::Duration;

use headwater_control_core::admission::{self, FailedNode};
use headwater_model::Epoch;
use headwater_proto::control::v1::placement_service_server::PlacementService;
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest, PlaceParticipantResponse};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::names;
use crate::placer::{PlaceRequest, Placed, Placer};

/// Longer names of zones are no node's and count as not known.
const ZONE_BYTES_MAX: usize = 128;

/// Answers gateways. The cluster's credential was checked before.
#[derive(Debug)]
pub(crate) struct PlacementApi {
    placer: Placer,
}

impl PlacementApi {
    pub(crate) fn new(placer: Placer) -> Self {
        Self { placer }
    }
}

#[tonic::async_trait]
impl PlacementService for PlacementApi {
    async fn place_participant(
        &self,
        request: Request<PlaceParticipantRequest>,
    ) -> Result<Response<PlaceParticipantResponse>, Status> {
        let request = read(request.into_inner())?;
        let placed = self.placer.place(request).await?;
        Ok(Response::new(answer(placed)))
    }
}

fn read(request: PlaceParticipantRequest) -> Result<PlaceRequest, Status> {
    let failed = if request.failed_node_id.is_empty() {
        None
    } else {
        let node = names::node_id("failed_node_id", &request.failed_node_id)?;
        Some(FailedNode { node, epoch: Epoch(request.failed_epoch) })
    };
    Ok(PlaceRequest {
        room: names::room_id("room_id", &request.room_id)?,
        identity: names::identity("identity", &request.identity)?,
        may_create: request.may_create,
        resuming: request.resuming,
        failed,
        zone: if request.zone.len() <= ZONE_BYTES_MAX { request.zone } else { String::new() },
        publishes: request.publishes,
    })
}

fn answer(placed: Placed) -> PlaceParticipantResponse {
    match placed {
        Placed::Admitted(place) => PlaceParticipantResponse {
            admission: Admission::Admitted.into(),
            room: Some(place.room),
            node_id: place.shard.node.into_string(),
            node_url: place.node_url,
            shard: u32::from(place.shard.shard.0),
            epoch: place.epoch.0,
            retry_after: None,
            reason: String::new(),
        },
        Placed::Wait(reason) => {
            refusal(Admission::Wait, reason.to_string(), Some(admission::RETRY_AFTER))
        }
        Placed::RoomFull => refusal(
            Admission::RoomFull,
            "the room has all the participants it may have".to_owned(),
            Some(admission::FULL_RETRY_AFTER),
        ),
        Placed::RoomNotFound => {
            refusal(Admission::RoomNotFound, "there is no such room".to_owned(), None)
        }
    }
}

fn refusal(
    admission: Admission,
    reason: String,
    retry_after: Option<Duration>,
) -> PlaceParticipantResponse {
    PlaceParticipantResponse {
        admission: admission.into(),
        retry_after: retry_after.map(convert::duration),
        reason,
        ..PlaceParticipantResponse::default()
    }
}
