//! The vocabulary of media that SDP negotiation, rooms and the forwarding core
//! share: keys, codecs, header extensions, and what is published and subscribed.

use std::fmt;

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);
    };
}

key!(
    /// One transport (one ICE, DTLS and SRTP association) of a shard. Never reused.
    TransportKey
);
key!(
    /// One published track of a shard. Never reused.
    TrackKey
);
key!(
    /// One track forwarded to one participant, on one shard. Never reused.
    SubscriptionKey
);

/// Sound or pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

/// What a track shows or carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TrackSource {
    /// Not declared.
    #[default]
    Unknown,
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen.
    ScreenShare,
    /// The sound of a shared screen.
    ScreenShareAudio,
}

/// A codec that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 6184.
    H264,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP specification of AOMedia.
    Av1,
}

impl Codec {
    /// Every codec, in the order they are preferred.
    pub const ALL: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];

    /// MIME type, as in `video/VP8`.
    #[must_use]
    pub const fn mime_type(self) -> &'static str {
        match self {
            Self::Opus => "audio/opus",
            Self::Vp8 => "video/VP8",
            Self::H264 => "video/H264",
            Self::Vp9 => "video/VP9",
            Self::Av1 => "video/AV1",
        }
    }

    /// The codec of a MIME type or a bare encoding name, in any case.
    #[must_use]
    pub fn from_mime_type(mime: &str) -> Option<Self> {
        let name = mime.rsplit('/').next().unwrap_or(mime);
        Self::ALL.into_iter().find(|codec| {
            codec.mime_type().rsplit('/').next().is_some_and(|own| own.eq_ignore_ascii_case(name))
        })
    }

    /// Sound or pictures.
    #[must_use]
    pub const fn kind(self) -> MediaKind {
        match self {
            Self::Opus => MediaKind::Audio,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => MediaKind::Video,
        }
    }

    /// RTP clock, in Hz.
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Audio => 48_000,
            MediaKind::Video => 90_000,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mime_type())
    }
}

/// An RTP header extension (RFC 8285) that means something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderExtension {
    /// RFC 9143: media section of a packet.
    Mid,
    /// RFC 8852: encoding of a packet.
    Rid,
    /// RFC 8852: encoding that a retransmission belongs to.
    RepairedRid,
    /// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
    TransportCc,
    /// Absolute send time.
    AbsSendTime,
    /// RFC 6464: audio level.
    AudioLevel,
    /// AV1 dependency descriptor.
    DependencyDescriptor,
    /// Absolute capture time.
    AbsCaptureTime,
    /// Playout delay limits.
    PlayoutDelay,
    /// 3GPP TS 26.114: coordination of video orientation.
    VideoOrientation,
}

impl HeaderExtension {
    /// Every extension.
    pub const ALL: [HeaderExtension; 10] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::TransportCc,
        Self::AbsSendTime,
        Self::AudioLevel,
        Self::DependencyDescriptor,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
        Self::VideoOrientation,
    ];

    /// The URI that names it in SDP.
    #[must_use]
    pub const fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::TransportCc => {
                "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            }
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
        }
    }

    /// The extension a URI names.
    #[must_use]
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// Which id each extension has on one media section. Ids are 1 to 255; those
/// above 14 need the two-byte form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtensionIds {
    ids: [u8; HeaderExtension::ALL.len()],
}

impl ExtensionIds {
    /// The id of an extension, if it was negotiated.
    #[must_use]
    pub const fn get(&self, extension: HeaderExtension) -> Option<u8> {
        match self.ids[extension as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// Sets the id of an extension; 0 takes it away.
    pub const fn set(&mut self, extension: HeaderExtension, id: u8) {
        self.ids[extension as usize] = id;
    }

    /// The extension that has an id.
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<HeaderExtension> {
        if id == 0 {
            return None;
        }
        HeaderExtension::ALL.into_iter().find(|extension| self.ids[*extension as usize] == id)
    }

    /// Those negotiated, with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderExtension, u8)> + '_ {
        HeaderExtension::ALL
            .into_iter()
            .filter_map(|extension| self.get(extension).map(|id| (extension, id)))
    }
}

/// One codec on one media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadMapping {
    /// The codec.
    pub codec: Codec,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Payload type of its retransmissions (RFC 4588), if negotiated.
    pub rtx_payload_type: Option<u8>,
    /// Value of `a=fmtp`, empty if none: tells H.264 profiles and VP9 profiles apart.
    pub format: String,
    /// Generic NACK (RFC 4585) was negotiated.
    pub nack: bool,
    /// PLI (RFC 4585) was negotiated.
    pub pli: bool,
    /// Transport-wide feedback was negotiated.
    pub transport_cc: bool,
    /// It is RED (RFC 2198): each packet holds packets of the codec, under this payload
    /// type, which the same list has for itself. Absent if packets are the codec's own.
    pub red_of: Option<u8>,
}

/// One encoding of a published track.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoding {
    /// Spatial layer, 0 is the smallest.
    pub spatial: u8,
    /// RID by which its packets are told, if it has one.
    pub rid: Option<String>,
    /// SSRC, if the SDP told it; else it is learned from the packets.
    pub ssrc: Option<u32>,
    /// SSRC of its retransmissions, if the SDP told it.
    pub rtx_ssrc: Option<u32>,
    /// Pixels. 0 means not told.
    pub width: u32,
    /// Pixels. 0 means not told.
    pub height: u32,
    /// Declared highest bit rate in bits per second. 0 means not told.
    pub bitrate: u32,
}

/// What was negotiated for a published track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Sound or pictures.
    pub kind: MediaKind,
    /// Media section.
    pub mid: String,
    /// Codecs the publisher may send, by payload type.
    pub codecs: Vec<PayloadMapping>,
    /// Header extensions.
    pub extensions: ExtensionIds,
    /// Encodings, smallest first; never empty. One for audio and for SVC.
    pub encodings: Vec<Encoding>,
}

/// What was negotiated for a track forwarded to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Media section on the subscriber's transport.
    pub mid: String,
    /// SSRC we send with.
    pub ssrc: u32,
    /// SSRC we send retransmissions with.
    pub rtx_ssrc: Option<u32>,
    /// Codecs the subscriber takes.
    pub codecs: Vec<PayloadMapping>,
    /// Header extensions.
    pub extensions: ExtensionIds,
}

/// What a subscriber wants of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscriptionTarget {
    /// Nothing for now.
    Paused,
    /// At most these layers.
    UpTo {
        /// Highest spatial layer, 0 is the smallest.
        spatial: u8,
        /// Highest temporal layer; `u8::MAX` means all.
        temporal: u8,
    },
}

impl SubscriptionTarget {
    /// Everything there is.
    pub const BEST: Self = Self::UpTo { spatial: u8::MAX, temporal: u8::MAX };
}

/// How much a subscriber cares for a track against its others, when there is not enough
/// bandwidth for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prominence {
    /// 1 is first; 0 means not told, which is behind all that are told.
    pub priority: u32,
    /// Pixels of the picture as it is shown; 0 means not told.
    pub pixels: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_found_by_mime_type_in_any_case() {
        assert_eq!(Codec::from_mime_type("video/vp8"), Some(Codec::Vp8));
        assert_eq!(Codec::from_mime_type("OPUS"), Some(Codec::Opus));
        assert_eq!(Codec::from_mime_type("video/rtx"), None);
    }

    #[test]
    fn extension_ids_go_both_ways() {
        let mut ids = ExtensionIds::default();
        ids.set(HeaderExtension::Mid, 3);
        assert_eq!(ids.get(HeaderExtension::Mid), Some(3));
        assert_eq!(ids.extension(3), Some(HeaderExtension::Mid));
        assert_eq!(ids.extension(0), None);
        assert_eq!(ids.get(HeaderExtension::Rid), None);
    }
}
