//! A description as a value: what the node reads out of a client's SDP and
//! writes into its own. Lines that mean nothing to the node are not kept.

use std::net::SocketAddr;

use headwater_model::media::{Codec, MediaKind};

/// A session description (RFC 8866, RFC 8829).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Session id of the `o=` line.
    pub session_id: u64,
    /// Session version of the `o=` line.
    pub session_version: u64,
    /// The writer is an ICE-lite endpoint (RFC 8445).
    pub ice_lite: bool,
    /// One- and two-byte header extensions may be mixed (RFC 8285).
    pub extmap_allow_mixed: bool,
    /// Mids of the BUNDLE group (RFC 9143). Empty if there is none.
    pub bundle: Vec<String>,
    /// Media sections, in their order.
    pub sections: Vec<Section>,
}

impl Description {
    /// The section of a mid.
    #[must_use]
    pub fn section(&self, mid: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.mid == mid)
    }
}

/// What a media section is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SectionKind {
    /// Audio or video over RTP.
    Media(MediaKind),
    /// Data channels over SCTP (RFC 8841).
    Application,
    /// Anything else; always rejected.
    Other(String),
}

/// Which way media flows, seen from who wrote the description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// Out of the writer only.
    SendOnly,
    /// Into the writer only.
    RecvOnly,
    /// Not at all.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The direction of an attribute's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.as_str() == name)
    }

    /// From whether the writer sends and whether it receives.
    #[must_use]
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// The writer sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// The writer receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// One `m=` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// What it is for.
    pub kind: SectionKind,
    /// Its mid. Empty only in rejected sections, where writers leave it out.
    pub mid: String,
    /// Port of the `m=` line; 0 rejects the section unless `bundle_only`.
    pub port: u16,
    /// It lives on the transport of the BUNDLE group only (RFC 9143).
    pub bundle_only: bool,
    /// Transport, such as `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// Formats of the `m=` line as they stand there.
    pub formats: Vec<String>,
    /// Which way media flows.
    pub direction: Direction,
    /// Streams and track it belongs to.
    pub msids: Vec<Msid>,
    /// Codecs, in the order of the `m=` line, RTX and those unknown to us too.
    pub codecs: Vec<CodecDescription>,
    /// RTP header extensions.
    pub extensions: Vec<ExtensionMapping>,
    /// Encodings by RID (RFC 8851), in the order of `a=simulcast` if there is one.
    pub rids: Vec<Rid>,
    /// SSRCs told (RFC 5576).
    pub sources: Vec<Source>,
    /// Groups of SSRCs.
    pub source_groups: Vec<SourceGroup>,
    /// ICE credentials; the session's, if the section has none of its own.
    pub ice: Option<IceCredentials>,
    /// Fingerprints of the certificate; the session's, if it has none of its own.
    pub fingerprints: Vec<Fingerprint>,
    /// DTLS role; the session's, if it has none of its own.
    pub setup: Option<Setup>,
    /// Candidates of the node. Those of clients are not read: the node is
    /// ICE-lite and answers whoever knows the credentials.
    pub candidates: Vec<Candidate>,
    /// RTP and RTCP share the transport (RFC 5761).
    pub rtcp_mux: bool,
    /// Reduced-size RTCP (RFC 5506).
    pub rtcp_rsize: bool,
    /// SCTP port (RFC 8841).
    pub sctp_port: Option<u16>,
    /// Longest SCTP message the writer takes, in bytes; 0 means any.
    pub max_message_size: Option<u64>,
}

impl Section {
    /// An empty section.
    #[must_use]
    pub fn new(kind: SectionKind, mid: impl Into<String>) -> Self {
        let protocol = match kind {
            SectionKind::Application => "UDP/DTLS/SCTP",
            SectionKind::Media(_) | SectionKind::Other(_) => "UDP/TLS/RTP/SAVPF",
        };
        Self {
            kind,
            mid: mid.into(),
            port: 9,
            bundle_only: false,
            protocol: protocol.to_owned(),
            formats: Vec::new(),
            direction: Direction::default(),
            msids: Vec::new(),
            codecs: Vec::new(),
            extensions: Vec::new(),
            rids: Vec::new(),
            sources: Vec::new(),
            source_groups: Vec::new(),
            ice: None,
            fingerprints: Vec::new(),
            setup: None,
            candidates: Vec::new(),
            rtcp_mux: false,
            rtcp_rsize: false,
            sctp_port: None,
            max_message_size: None,
        }
    }

    /// Whether its writer rejected or stopped it.
    #[must_use]
    pub const fn is_rejected(&self) -> bool {
        self.port == 0 && !self.bundle_only
    }

    /// Audio or video, if it carries either.
    #[must_use]
    pub const fn media_kind(&self) -> Option<MediaKind> {
        match &self.kind {
            SectionKind::Media(kind) => Some(*kind),
            SectionKind::Application | SectionKind::Other(_) => None,
        }
    }

    /// Id of the writer's track: the second word of its msid (RFC 8830).
    #[must_use]
    pub fn track_id(&self) -> Option<&str> {
        self.msids
            .iter()
            .find_map(|msid| msid.track.as_deref())
            .or_else(|| self.sources.iter().find_map(|source| source.track_id.as_deref()))
    }
}

/// One `a=msid` (RFC 8830).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msid {
    /// Id of the stream, `-` if there is none.
    pub stream: String,
    /// Id of the track.
    pub track: Option<String>,
}

/// One payload type of a section: `rtpmap`, `fmtp` and `rtcp-fb` together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecDescription {
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Encoding name, as written.
    pub name: String,
    /// RTP clock, in Hz.
    pub clock_rate: u32,
    /// Channels. 0 means not told.
    pub channels: u8,
    /// Value of `a=fmtp`, empty if none.
    pub format: String,
    /// Values of `a=rtcp-fb`, without the payload type.
    pub feedback: Vec<String>,
}

impl CodecDescription {
    /// The codec, if it is one that can be forwarded.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_mime_type(&self.name).filter(|codec| codec.clock_rate() == self.clock_rate)
    }

    /// A parameter of its format, by name in any case.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        parameter(&self.format, name)
    }

    /// The payload type of every block, if it is RED (RFC 2198) of sound in one codec.
    #[must_use]
    pub fn red_of(&self) -> Option<u8> {
        if !self.name.eq_ignore_ascii_case("red") || self.clock_rate != 48_000 {
            return None;
        }
        let mut blocks = self.format.split('/').map(|block| block.trim().parse::<u8>().ok());
        let first = blocks.next()?.filter(|payload_type| *payload_type < 128)?;
        blocks.all(|block| block == Some(first)).then_some(first)
    }

    /// The payload type that this one retransmits (RFC 4588), if it is RTX.
    #[must_use]
    pub fn associated_payload_type(&self) -> Option<u8> {
        if !self.name.eq_ignore_ascii_case("rtx") {
            return None;
        }
        self.parameter("apt")?.parse().ok().filter(|payload_type| *payload_type < 128)
    }
}

/// A parameter of a `a=fmtp` value, by name in any case.
pub(crate) fn parameter<'a>(format: &'a str, name: &str) -> Option<&'a str> {
    format.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// One `a=extmap` (RFC 8285).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionMapping {
    /// Id, 1 to 255.
    pub id: u8,
    /// Direction suffix, such as Firefox's `/sendonly`. It is read so that the
    /// id is found, and never repeated: a repeated one makes Firefox send no RID.
    pub direction: Option<Direction>,
    /// URI that names the extension.
    pub uri: String,
}

/// One encoding by RID (RFC 8851, RFC 8853).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rid {
    /// The RID, without `~`.
    pub id: String,
    /// The writer sends it.
    pub sends: bool,
    /// It starts paused (`~` in `a=simulcast`).
    pub paused: bool,
}

/// What is told of one SSRC (RFC 5576).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The SSRC.
    pub ssrc: u32,
    /// Canonical name. Empty if not told.
    pub cname: String,
    /// Id of the stream of its `msid`.
    pub stream_id: Option<String>,
    /// Id of the track of its `msid`.
    pub track_id: Option<String>,
}

/// SSRCs that belong together (RFC 5576).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceGroup {
    /// How: `FID` for an SSRC and its retransmissions, `SIM` for simulcast.
    pub semantics: String,
    /// The SSRCs.
    pub ssrcs: Vec<u32>,
}

/// ICE credentials (RFC 8839).
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// User fragment, 4 to 256 bytes.
    pub ufrag: String,
    /// Password, 22 to 256 bytes.
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    /// Shows the user fragment only: the password is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// Fingerprint of a certificate (RFC 8122).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash function in lower case, such as `sha-256`.
    pub algorithm: String,
    /// The hash: upper-case hex bytes, with colons between them.
    pub value: String,
}

/// DTLS role (RFC 8842).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// Opens the connection.
    Active,
    /// Waits for it.
    Passive,
    /// Either, as the answer says.
    ActPass,
}

impl Setup {
    /// The attribute's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }
}

/// How a candidate of the node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateProtocol {
    /// UDP.
    Udp,
    /// TCP that the client opens (RFC 6544, passive).
    Tcp,
}

/// An address of the node (RFC 8839).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// How it is reached.
    pub protocol: CandidateProtocol,
    /// Where.
    pub address: SocketAddr,
}
