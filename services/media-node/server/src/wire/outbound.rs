//! What participants are told: events of the rooms into `AttachResponse`.

use headwater_proto::node::v1 as wire;
use headwater_proto::node::v1::attach_response::Event as Wire;
use headwater_room::{
    CloseAction, Closed, Event, Joined, QualityGrade, RequestOutcome, RequestReference,
    RequestResult, SessionDescription, SubscriptionFailure, TransportKind,
};

use super::close_reason_to;
use super::view::{data_track, participant, quality, room, track};

/// An event as it is sent.
#[must_use]
pub fn event(event: Event) -> wire::AttachResponse {
    let event = match event {
        Event::Joined(open) => Wire::Joined(joined(&open)),
        Event::Offer(description) => Wire::Offer(session_description(description)),
        Event::Answer(description) => Wire::Answer(session_description(description)),
        Event::TrackAdded { client_track_id, track: added } => {
            Wire::TrackAdded(wire::TrackAdded { client_track_id, track: Some(track(&added)) })
        }
        Event::RequestResult(result) => Wire::RequestResult(request_result(result)),
        Event::ParticipantsChanged(views) => Wire::ParticipantsChanged(wire::ParticipantsChanged {
            participants: views.iter().map(|view| participant(view)).collect(),
        }),
        Event::RoomChanged(view) => {
            Wire::RoomChanged(wire::RoomChanged { room: Some(room(&view)) })
        }
        Event::SpeakersChanged(speakers) => Wire::SpeakersChanged(wire::SpeakersChanged {
            speakers: speakers
                .into_iter()
                .map(|speaker| wire::Speaker {
                    participant_uid: speaker.participant.to_string(),
                    level: speaker.level,
                    active: speaker.active,
                })
                .collect(),
        }),
        Event::QualityChanged(qualities) => Wire::QualityChanged(wire::QualityChanged {
            qualities: qualities
                .into_iter()
                .map(|entry| wire::ConnectionQuality {
                    participant_uid: entry.participant.to_string(),
                    grade: grade(entry.grade).into(),
                    score: entry.score,
                })
                .collect(),
        }),
        Event::StreamPaused { publisher, track, paused } => {
            Wire::StreamStateChanged(wire::StreamStateChanged {
                states: vec![wire::StreamState {
                    participant_uid: publisher.to_string(),
                    track_uid: track.to_string(),
                    paused,
                }],
            })
        }
        Event::LayerDemand { track, codec, watched } => Wire::LayerDemand(wire::LayerDemand {
            track_uid: track.to_string(),
            codecs: vec![wire::CodecDemand {
                mime_type: codec.mime_type().to_owned(),
                watched_qualities: watched.into_iter().map(quality).collect(),
            }],
        }),
        Event::MediaSectionsNeeded { audio, video } => {
            Wire::MediaSectionsNeeded(wire::MediaSectionsNeeded { audio, video })
        }
        Event::TrackSubscribed { track } => {
            Wire::TrackSubscribed(wire::TrackSubscribed { track_uid: track.to_string() })
        }
        Event::SubscriptionAllowed { publisher, track, allowed } => {
            Wire::SubscriptionAllowed(wire::SubscriptionAllowed {
                participant_uid: publisher.to_string(),
                track_uid: track.to_string(),
                allowed,
            })
        }
        Event::MuteTrack { track, muted } => {
            Wire::MuteTrack(wire::MuteTrack { track_uid: track.to_string(), muted })
        }
        Event::TrackRemoved { track } => {
            Wire::TrackRemoved(wire::TrackRemoved { track_uid: track.to_string() })
        }
        Event::SubscriptionFailed { track, failure } => {
            Wire::SubscriptionFailed(wire::SubscriptionFailed {
                track_uid: track.to_string(),
                failure: subscription_failure(failure).into(),
            })
        }
        Event::DataTrackPublished(view) => {
            Wire::DataTrackPublished(wire::DataTrackPublished { track: Some(data_track(&view)) })
        }
        Event::DataTrackUnpublished(view) => {
            Wire::DataTrackUnpublished(wire::DataTrackUnpublished {
                track: Some(data_track(&view)),
            })
        }
        Event::DataTrackHandles(sources) => Wire::DataTrackHandles(wire::DataTrackHandles {
            sources: sources
                .into_iter()
                .map(|(handle, origin)| {
                    let source = wire::DataTrackSource {
                        track_uid: origin.track.to_string(),
                        participant_uid: origin.publisher.to_string(),
                        identity: origin.identity.into_string(),
                    };
                    (u32::from(handle), source)
                })
                .collect(),
        }),
        Event::IceRestarted { credentials, candidates } => Wire::IceRestarted(wire::IceRestarted {
            ufrag: credentials.ufrag,
            pwd: credentials.pwd,
            candidates: candidates
                .iter()
                .enumerate()
                .map(|(index, candidate)| candidate.attribute(index))
                .collect(),
        }),
        Event::Closed(end) => Wire::Closed(closed(end)),
    };
    wire::AttachResponse { event: Some(event) }
}

fn joined(open: &Joined) -> wire::Joined {
    wire::Joined {
        room: Some(room(&open.room)),
        participant: Some(participant(&open.participant)),
        others: open.others.iter().map(|view| participant(view)).collect(),
        resumed: open.resumed,
        last_data_sequence: open.last_data_sequence,
        departed: open.departed.iter().map(|view| participant(view)).collect(),
        ice_ufrag: open.ice_ufrag.clone(),
    }
}

fn session_description(description: SessionDescription) -> wire::SessionDescription {
    let transport = match description.transport {
        TransportKind::Publisher => wire::TransportKind::Publisher,
        TransportKind::Subscriber => wire::TransportKind::Subscriber,
    };
    wire::SessionDescription {
        transport: transport.into(),
        sdp: description.sdp,
        offer_id: description.offer_id,
        track_uid_by_mid: description
            .track_uid_by_mid
            .into_iter()
            .map(|(mid, uid)| (mid, uid.to_string()))
            .collect(),
    }
}

fn request_result(result: RequestResult) -> wire::RequestResult {
    let mut sent = wire::RequestResult {
        outcome: outcome(result.outcome).into(),
        message: result.message.to_owned(),
        ..wire::RequestResult::default()
    };
    match result.request {
        RequestReference::UpdateSelf(request_id) => sent.request_id = request_id,
        RequestReference::AddTrack(client_track_id) => sent.client_track_id = client_track_id,
        RequestReference::DataTrack(handle) => sent.data_track_handle = handle,
    }
    sent
}

const fn outcome(outcome: RequestOutcome) -> wire::RequestOutcome {
    match outcome {
        RequestOutcome::Done => wire::RequestOutcome::Done,
        RequestOutcome::NotFound => wire::RequestOutcome::NotFound,
        RequestOutcome::NotAllowed => wire::RequestOutcome::NotAllowed,
        RequestOutcome::LimitExceeded => wire::RequestOutcome::LimitExceeded,
        RequestOutcome::Queued => wire::RequestOutcome::Queued,
        RequestOutcome::UnsupportedKind => wire::RequestOutcome::UnsupportedKind,
        RequestOutcome::InvalidHandle => wire::RequestOutcome::InvalidHandle,
        RequestOutcome::InvalidName => wire::RequestOutcome::InvalidName,
        RequestOutcome::DuplicateHandle => wire::RequestOutcome::DuplicateHandle,
        RequestOutcome::DuplicateName => wire::RequestOutcome::DuplicateName,
    }
}

const fn grade(grade: QualityGrade) -> wire::QualityGrade {
    match grade {
        QualityGrade::Lost => wire::QualityGrade::Lost,
        QualityGrade::Poor => wire::QualityGrade::Poor,
        QualityGrade::Good => wire::QualityGrade::Good,
        QualityGrade::Excellent => wire::QualityGrade::Excellent,
    }
}

const fn subscription_failure(failure: SubscriptionFailure) -> wire::SubscriptionFailure {
    match failure {
        SubscriptionFailure::TrackNotFound => wire::SubscriptionFailure::TrackNotFound,
        SubscriptionFailure::CodecUnsupported => wire::SubscriptionFailure::CodecUnsupported,
    }
}

fn closed(end: Closed) -> wire::Closed {
    let action = match end.action {
        CloseAction::Disconnect => wire::CloseAction::Disconnect,
        CloseAction::Resume => wire::CloseAction::Resume,
        CloseAction::Reconnect => wire::CloseAction::Reconnect,
    };
    wire::Closed {
        reason: close_reason_to(end.reason).into(),
        action: action.into(),
        message: end.message,
    }
}
