//! What the doors read of an offer: which sections send and which receive, the
//! ids and encodings of what is sent. The node reads the rest. Pure.

use headwater_model::grants::Permission;
use headwater_model::media::TrackSource;
use headwater_proto::node::v1 as node;
use headwater_proto::v1;

use crate::grants::wire_source;

/// Most media sections of an offer. A camera with its sound has two; a wall of
/// viewers' windows some more.
const SECTIONS_MAX: usize = 64;

/// Encodings declared of one section; the node takes as many.
const RIDS_MAX: usize = 8;

/// What a door reads of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    pub(crate) sections: Vec<Section>,
}

/// One section of audio or video that is not rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) is_video: bool,
    pub(crate) mid: String,
    /// Id of the track, from its msid. Empty if there is none.
    pub(crate) track_id: String,
    pub(crate) sends: bool,
    pub(crate) receives: bool,
    /// RIDs that it sends, in the order of the SDP.
    pub(crate) rids: Vec<String>,
    pub(crate) stereo: bool,
}

/// Why an offer cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Not UTF-8.
    #[error("it is not text")]
    NotText,
    /// No `v=0` at its beginning.
    #[error("it does not begin with v=0")]
    NotSdp,
    /// No audio and no video.
    #[error("it has no section of audio or video")]
    NoMedia,
    /// More sections than are taken.
    #[error("it has more than {SECTIONS_MAX} sections")]
    TooManySections,
}

/// Reads an offer.
///
/// # Errors
/// If it is no SDP, or has no section of audio or video, or too many.
pub fn decode_offer(body: &[u8]) -> Result<Offer, OfferError> {
    let text = std::str::from_utf8(body).map_err(|_| OfferError::NotText)?;
    let mut lines = text.lines();
    if lines.next().map(str::trim_end) != Some("v=0") {
        return Err(OfferError::NotSdp);
    }
    // The session's direction holds for sections without their own (RFC 8866 6.7).
    let mut default = (true, true);
    let mut sections: Vec<Section> = Vec::new();
    // Whether the lines belong to a section that is read.
    let mut open = None;
    for line in lines.map(str::trim_end) {
        if let Some(media) = line.strip_prefix("m=") {
            let section = begin(media, default);
            open = Some(section.is_some());
            sections.extend(section);
            if sections.len() > SECTIONS_MAX {
                return Err(OfferError::TooManySections);
            }
        } else if let Some(attribute) = line.strip_prefix("a=") {
            match (open, sections.last_mut()) {
                (None, _) => default = direction(attribute).unwrap_or(default),
                (Some(true), Some(section)) => note(section, attribute),
                (Some(_), _) => {}
            }
        }
    }
    if sections.is_empty() { Err(OfferError::NoMedia) } else { Ok(Offer { sections }) }
}

/// The value of an `m=` line. None if it is not for us.
fn begin(media: &str, (sends, receives): (bool, bool)) -> Option<Section> {
    let mut words = media.split_ascii_whitespace();
    let is_video = match words.next()? {
        "audio" => false,
        "video" => true,
        _ => return None,
    };
    Some(Section {
        is_video,
        mid: String::new(),
        track_id: String::new(),
        sends,
        receives,
        rids: Vec::new(),
        stereo: false,
    })
}

/// Whether the writer sends and receives.
fn direction(attribute: &str) -> Option<(bool, bool)> {
    match attribute {
        "sendrecv" => Some((true, true)),
        "sendonly" => Some((true, false)),
        "recvonly" => Some((false, true)),
        "inactive" => Some((false, false)),
        _ => None,
    }
}

fn note(section: &mut Section, attribute: &str) {
    if let Some((sends, receives)) = direction(attribute) {
        (section.sends, section.receives) = (sends, receives);
        return;
    }
    let Some((name, value)) = attribute.split_once(':') else {
        return;
    };
    let mut words = value.split_ascii_whitespace();
    match name {
        "mid" => value.clone_into(&mut section.mid),
        "msid" if section.track_id.is_empty() => {
            words.nth(1).unwrap_or_default().clone_into(&mut section.track_id);
        }
        "rid" => {
            let (rid, way) = (words.next(), words.next());
            if let Some(rid) = rid.filter(|_| way == Some("send") && section.rids.len() < RIDS_MAX)
            {
                section.rids.push(rid.to_owned());
            }
        }
        "fmtp" if !section.is_video => {
            let says = |parameter: &str| matches!(parameter.trim(), "stereo=1" | "sprop-stereo=1");
            section.stereo |= value.split([';', ' ']).any(says);
        }
        _ => {}
    }
}

impl Offer {
    /// Whether it sends anything.
    pub(crate) fn sends(&self) -> bool {
        self.sections.iter().any(|section| section.sends)
    }

    /// Whether it receives anything.
    pub(crate) fn receives(&self) -> bool {
        self.sections.iter().any(|section| section.receives)
    }

    /// The tracks it announces, in the order of its sections.
    pub(crate) fn tracks(&self, permission: &Permission) -> Vec<node::AddTrack> {
        let (mut audio, mut video) = (0, 0);
        let sending = self.sections.iter().filter(|section| section.sends);
        sending
            .map(|section| {
                let count = if section.is_video { &mut video } else { &mut audio };
                let source = source(permission, section.is_video, *count);
                *count += 1;
                add_track(section, source)
            })
            .collect()
    }
}

/// What the n-th track of its kind shows: a camera, then a screen, as far as the
/// token allows.
fn source(permission: &Permission, is_video: bool, index: usize) -> TrackSource {
    let usual = if is_video {
        [TrackSource::Camera, TrackSource::ScreenShare]
    } else {
        [TrackSource::Microphone, TrackSource::ScreenShareAudio]
    };
    let mut allowed = usual.into_iter().filter(|source| permission.allows_source(*source));
    allowed.nth(index).unwrap_or(TrackSource::Unknown)
}

fn add_track(section: &Section, source: TrackSource) -> node::AddTrack {
    let kind = if section.is_video { v1::TrackKind::Video } else { v1::TrackKind::Audio };
    // Without an id of its own it is known by its place.
    let client_track_id = match section.track_id.as_str() {
        "" => format!("mid:{}", section.mid),
        id => id.to_owned(),
    };
    node::AddTrack {
        client_track_id,
        kind: kind.into(),
        source: wire_source(source).into(),
        layers: layers(&section.rids),
        stereo: section.stereo,
        disable_red: true,
        ..Default::default()
    }
}

/// The encodings, lowest first. Their sizes are not in the SDP.
fn layers(rids: &[String]) -> Vec<node::VideoLayer> {
    if rids.len() < 2 {
        return Vec::new();
    }
    let ordered = lowest_first(rids);
    let top = ordered.len() - 1;
    let layer = |(index, rid): (usize, &String)| node::VideoLayer {
        // The highest is always the best quality; below it they count down.
        quality: u32::try_from(2_usize.saturating_sub(top - index)).unwrap_or(0),
        rid: rid.clone(),
        ..Default::default()
    };
    ordered.into_iter().enumerate().map(layer).collect()
}

/// Names that encoders give their encodings tell their order; numbers count from
/// the best. Otherwise the SDP names the best first (RFC 8853 5.2).
fn lowest_first(rids: &[String]) -> Vec<&String> {
    const NAMES: [&[&str]; 5] = [
        &["q", "h", "f"],
        &["l", "m", "h"],
        &["low", "mid", "high"],
        &["low", "medium", "high"],
        &["3", "2", "1", "0"],
    ];
    let place = |names: &[&str], rid: &String| names.iter().position(|name| name == rid);
    let mut ordered: Vec<&String> = rids.iter().collect();
    match NAMES.iter().find(|names| rids.iter().all(|rid| place(names, rid).is_some())) {
        Some(names) => ordered.sort_by_key(|rid| place(names, rid)),
        None => ordered.reverse(),
    }
    ordered
}

/// Whether an answer takes (`sends`: gives) any media at all.
pub(crate) fn answer_is_used(answer: &str, door: super::Door) -> bool {
    let Ok(answer) = decode_offer(answer.as_bytes()) else {
        return false;
    };
    match door {
        super::Door::Publish => answer.receives(),
        super::Door::Watch => answer.sends(),
    }
}

#[cfg(test)]
mod tests;
