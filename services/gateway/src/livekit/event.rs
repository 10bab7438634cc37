//! Plain translation of the session protocol's events into LiveKit's response
//! messages. Pure, and without memory: what needs some is in [`super::interpreter`].

use headwater_proto::node::v1 as node;
use livekit_protocol as lk;
use prost::Message;

use super::codec::short_name;
use super::info;

/// Participants of one update, in bytes, so that no client chokes on a frame.
const UPDATE_BYTES_MAX: usize = 128 * 1024;

/// An offer (`type` is `offer`) or answer of the node.
pub(crate) fn session_description(
    description: node::SessionDescription,
    r#type: &str,
) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: r#type.to_owned(),
        sdp: description.sdp,
        id: description.offer_id,
        mid_to_track_id: description.track_uid_by_mid.into_iter().collect(),
    }
}

/// One or more updates, each of a bearable size.
pub(crate) fn participant_updates<'a>(
    participants: impl IntoIterator<Item = &'a node::Participant>,
) -> Vec<lk::ParticipantUpdate> {
    let mut updates = Vec::new();
    let mut current = lk::ParticipantUpdate::default();
    let mut bytes = 0;
    for participant in participants {
        if !info::is_participant_uid(&participant.uid) {
            continue;
        }
        let participant = info::participant(participant);
        let size = participant.encoded_len();
        if bytes + size > UPDATE_BYTES_MAX && !current.participants.is_empty() {
            updates.push(std::mem::take(&mut current));
            bytes = 0;
        }
        bytes += size;
        current.participants.push(participant);
    }
    if !current.participants.is_empty() {
        updates.push(current);
    }
    updates
}

pub(crate) fn speakers(changed: node::SpeakersChanged) -> lk::SpeakersChanged {
    lk::SpeakersChanged {
        speakers: changed
            .speakers
            .into_iter()
            .filter(|speaker| info::is_participant_uid(&speaker.participant_uid))
            .map(|speaker| lk::SpeakerInfo {
                sid: speaker.participant_uid,
                level: if speaker.level.is_finite() { speaker.level.clamp(0.0, 1.0) } else { 0.0 },
                active: speaker.active,
            })
            .collect(),
    }
}

/// Clients up to protocol 10 know no LOST.
pub(crate) fn quality(changed: node::QualityChanged, protocol: i32) -> lk::ConnectionQualityUpdate {
    use lk::ConnectionQuality as To;
    let grade = |grade| match grade {
        node::QualityGrade::Lost if protocol > 10 => To::Lost,
        node::QualityGrade::Lost | node::QualityGrade::Poor => To::Poor,
        node::QualityGrade::Good => To::Good,
        node::QualityGrade::Unspecified | node::QualityGrade::Excellent => To::Excellent,
    };
    lk::ConnectionQualityUpdate {
        updates: changed
            .qualities
            .into_iter()
            .filter(|quality| info::is_participant_uid(&quality.participant_uid))
            .map(|quality| lk::ConnectionQualityInfo {
                quality: i32::from(grade(quality.grade())),
                score: if quality.score.is_finite() { quality.score } else { 0.0 },
                participant_sid: quality.participant_uid,
            })
            .collect(),
    }
}

pub(crate) fn stream_states(changed: node::StreamStateChanged) -> lk::StreamStateUpdate {
    let state = |paused| {
        if paused { lk::StreamState::Paused } else { lk::StreamState::Active }
    };
    lk::StreamStateUpdate {
        stream_states: changed
            .states
            .into_iter()
            .map(|stream| lk::StreamStateInfo {
                participant_sid: stream.participant_uid,
                track_sid: stream.track_uid,
                state: i32::from(state(stream.paused)),
            })
            .collect(),
    }
}

/// All three qualities are named for each codec, those not watched as disabled.
#[expect(deprecated, reason = "older clients read the qualities of the first codec only")]
pub(crate) fn layer_demand(demand: node::LayerDemand) -> lk::SubscribedQualityUpdate {
    let codecs: Vec<lk::SubscribedCodec> = demand
        .codecs
        .iter()
        .map(|codec| lk::SubscribedCodec {
            codec: short_name(&codec.mime_type),
            qualities: (0..=2u8)
                .map(|quality| lk::SubscribedQuality {
                    quality: i32::from(quality),
                    enabled: codec.watched_qualities.contains(&u32::from(quality)),
                })
                .collect(),
        })
        .collect();
    lk::SubscribedQualityUpdate {
        track_sid: demand.track_uid,
        subscribed_qualities: codecs.first().map(|it| it.qualities.clone()).unwrap_or_default(),
        subscribed_codecs: codecs,
    }
}

pub(crate) fn media_sections(needed: node::MediaSectionsNeeded) -> lk::MediaSectionsRequirement {
    lk::MediaSectionsRequirement { num_audios: needed.audio, num_videos: needed.video }
}

pub(crate) fn subscription_allowed(
    allowed: node::SubscriptionAllowed,
) -> lk::SubscriptionPermissionUpdate {
    lk::SubscriptionPermissionUpdate {
        participant_sid: allowed.participant_uid,
        track_sid: allowed.track_uid,
        allowed: allowed.allowed,
    }
}

pub(crate) fn subscription_failed(failed: node::SubscriptionFailed) -> lk::SubscriptionResponse {
    let error = match failed.failure() {
        node::SubscriptionFailure::Unspecified => lk::SubscriptionError::SeUnknown,
        node::SubscriptionFailure::TrackNotFound => lk::SubscriptionError::SeTrackNotfound,
        node::SubscriptionFailure::CodecUnsupported => lk::SubscriptionError::SeCodecUnsupported,
    };
    lk::SubscriptionResponse { track_sid: failed.track_uid, err: i32::from(error) }
}

pub(crate) fn data_track_handles(
    handles: node::DataTrackHandles,
) -> lk::DataTrackSubscriberHandles {
    lk::DataTrackSubscriberHandles {
        sub_handles: handles
            .sources
            .into_iter()
            .map(|(handle, source)| {
                let published = lk::data_track_subscriber_handles::PublishedDataTrack {
                    publisher_identity: source.identity,
                    publisher_sid: source.participant_uid,
                    track_sid: source.track_uid,
                };
                (handle, published)
            })
            .collect(),
    }
}

pub(crate) fn reason(outcome: node::RequestOutcome) -> lk::request_response::Reason {
    use lk::request_response::Reason as To;
    match outcome {
        node::RequestOutcome::Unspecified => To::UnclassifiedError,
        node::RequestOutcome::Done => To::Ok,
        node::RequestOutcome::NotFound => To::NotFound,
        node::RequestOutcome::NotAllowed => To::NotAllowed,
        node::RequestOutcome::LimitExceeded => To::LimitExceeded,
        node::RequestOutcome::Queued => To::Queued,
        node::RequestOutcome::UnsupportedKind => To::UnsupportedType,
        node::RequestOutcome::InvalidHandle => To::InvalidHandle,
        node::RequestOutcome::InvalidName => To::InvalidName,
        node::RequestOutcome::DuplicateHandle => To::DuplicateHandle,
        node::RequestOutcome::DuplicateName => To::DuplicateName,
    }
}
