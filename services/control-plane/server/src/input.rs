//! Checks of what callers send, each field once, with the limits of the API.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use headwater_model::media::TrackSource;
use headwater_model::{Identity, Permission};
use headwater_proto::v1;
use headwater_rpc::status;
use prost_types::FieldMask;
use tonic::Status;

/// Longest metadata of a room or participant, in bytes.
pub(crate) const METADATA_BYTES_MAX: usize = 512 * 1024;
/// Longest names to show, in bytes.
pub(crate) const DISPLAY_NAME_BYTES_MAX: usize = 256;
/// Most bytes of all attributes of a participant, keys included.
pub(crate) const ATTRIBUTES_BYTES_MAX: usize = 64 * 1024;
/// Longest data message, in bytes.
pub(crate) const DATA_BYTES_MAX: usize = 15 * 1024;
/// Longest topic of a data message, in bytes.
pub(crate) const TOPIC_BYTES_MAX: usize = 256;
/// Most tracks or identities that one call may name.
pub(crate) const NAMES_MAX: usize = 1000;
/// Longest time an empty room may be kept: 30 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(crate) fn metadata(field: &str, metadata: &str) -> Result<(), Status> {
    at_most(field, metadata.len(), METADATA_BYTES_MAX)
}

pub(crate) fn display_name(field: &str, name: &str) -> Result<(), Status> {
    at_most(field, name.len(), DISPLAY_NAME_BYTES_MAX)
}

pub(crate) fn attributes(field: &str, attributes: &HashMap<String, String>) -> Result<(), Status> {
    let bytes = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if attributes.contains_key("") {
        return Err(status::invalid_argument(field, "must not have an empty key"));
    }
    at_most(field, bytes, ATTRIBUTES_BYTES_MAX)
}

pub(crate) fn at_most(field: &str, bytes: usize, max: usize) -> Result<(), Status> {
    if bytes <= max {
        return Ok(());
    }
    Err(status::invalid_argument(field, format!("must not be longer than {max} bytes")))
}

/// How long a room is kept; absent means `default`.
pub(crate) fn room_timeout(
    field: &str,
    value: Option<&prost_types::Duration>,
    default: Duration,
) -> Result<Duration, Status> {
    let Some(value) = value else {
        return Ok(default);
    };
    let timeout = duration(field, value)?;
    if timeout > TIMEOUT_MAX {
        return Err(status::invalid_argument(field, "must not be longer than 30 days"));
    }
    Ok(timeout)
}

/// A duration that is not negative.
pub(crate) fn duration(field: &str, value: &prost_types::Duration) -> Result<Duration, Status> {
    let parts = (u64::try_from(value.seconds), u32::try_from(value.nanos));
    match parts {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => {
            Err(status::invalid_argument(field, "must be a duration that is not negative"))
        }
    }
}

/// A request id: empty, or a UUID.
pub(crate) fn request_id(id: &str) -> Result<(), Status> {
    if id.is_empty() || uuid::Uuid::try_parse(id).is_ok() {
        return Ok(());
    }
    Err(status::invalid_argument("request_id", "must be a UUID"))
}

/// Which of `known` fields a mask names. Absent, empty or `*` means `None`:
/// the caller said nothing about it.
pub(crate) fn mask(
    mask: Option<&FieldMask>,
    known: &'static [&'static str],
) -> Result<Option<BTreeSet<&'static str>>, Status> {
    let paths = mask.map_or(&[][..], |mask| mask.paths.as_slice());
    if paths.is_empty() {
        return Ok(None);
    }
    if paths == ["*"] {
        return Ok(Some(known.iter().copied().collect()));
    }
    paths
        .iter()
        .map(|path| {
            known.iter().copied().find(|known| known == path).ok_or_else(|| {
                let allowed = known.join(", ");
                let problem = format!("must name only {allowed}");
                status::invalid_argument("update_mask", problem)
            })
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Identities, each checked, at most [`NAMES_MAX`].
pub(crate) fn identities(field: &str, identities: &[String]) -> Result<(), Status> {
    count(field, identities.len())?;
    identities.iter().try_for_each(|identity| match Identity::new(identity.as_str()) {
        Ok(_) => Ok(()),
        Err(error) => Err(status::invalid_argument(field, error.to_string())),
    })
}

pub(crate) fn count(field: &str, count: usize) -> Result<(), Status> {
    if count <= NAMES_MAX {
        return Ok(());
    }
    Err(status::invalid_argument(field, format!("must not name more than {NAMES_MAX}")))
}

/// What a participant may do.
pub(crate) fn permission(
    field: &str,
    permission: &v1::ParticipantPermission,
) -> Result<Permission, Status> {
    let sources = permission.can_publish_sources();
    if permission.can_publish_sources.len() > TRACK_SOURCES {
        return Err(status::invalid_argument(
            format!("{field}.can_publish_sources"),
            "must name each source once",
        ));
    }
    Ok(Permission {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: sources.map(track_source).collect(),
        hidden: permission.hidden,
        can_update_metadata: permission.can_update_metadata,
    })
}

const TRACK_SOURCES: usize = 5;

fn track_source(source: v1::TrackSource) -> TrackSource {
    match source {
        v1::TrackSource::Unspecified => TrackSource::Unknown,
        v1::TrackSource::Camera => TrackSource::Camera,
        v1::TrackSource::Microphone => TrackSource::Microphone,
        v1::TrackSource::ScreenShare => TrackSource::ScreenShare,
        v1::TrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask_of(paths: &[&str]) -> FieldMask {
        FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }
    }

    #[test]
    fn a_mask_names_known_fields_or_nothing() {
        const KNOWN: &[&str] = &["a", "b"];
        assert_eq!(mask(None, KNOWN).unwrap(), None);
        assert_eq!(mask(Some(&mask_of(&[])), KNOWN).unwrap(), None);
        assert_eq!(mask(Some(&mask_of(&["b", "b"])), KNOWN).unwrap(), Some(["b"].into()));
        assert_eq!(mask(Some(&mask_of(&["*"])), KNOWN).unwrap(), Some(["a", "b"].into()));
        let status = mask(Some(&mask_of(&["a", "c"])), KNOWN).unwrap_err();
        assert_eq!(status.message(), "update_mask must name only a, b");
    }

    #[test]
    fn durations_must_be_sane() {
        let of = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(duration("d", &of(1, 500_000_000)).unwrap(), Duration::from_millis(1500));
        for bad in [of(-1, 0), of(0, -1), of(0, 1_000_000_000), of(i64::MIN, i32::MIN)] {
            assert!(duration("d", &bad).is_err(), "{bad:?}");
        }
        assert!(room_timeout("d", Some(&of(i64::MAX, 0)), Duration::ZERO).is_err());
        assert_eq!(room_timeout("d", None, TIMEOUT_MAX).unwrap(), TIMEOUT_MAX);
    }

    #[test]
    fn a_request_id_is_a_uuid_or_absent() {
        assert!(request_id("").is_ok());
        assert!(request_id("7f9c24e5-1c1a-4b0e-9d5a-6d3f0a8d2b11").is_ok());
        assert!(request_id("again").is_err());
    }
}
