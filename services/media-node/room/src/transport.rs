//! A participant's transports as its room sees them: credentials, channels,
//! media sections. Packets are the shell's business.

use std::collections::BTreeMap;
use std::time::Instant;

use headwater_model::media::{MediaKind, TrackKey, TransportKey};
use headwater_sdp::{
    CandidateProtocol, IceCredentials, LocalTransport, Negotiated, RemoteTransport, SentEncoding,
};

use crate::core::Core;
use crate::media::{ChannelKey, ChannelReliability, MediaCommand};

/// Label of the channel for messages that must arrive.
pub(crate) const RELIABLE_LABEL: &str = "_reliable";
/// Label of the channel for messages that may be lost.
pub(crate) const LOSSY_LABEL: &str = "_lossy";
/// Label of the channel for frames of data tracks.
pub(crate) const DATA_TRACK_LABEL: &str = "_data_track";

/// Channels of one transport that are noticed; messages of further ones are dropped.
const CHANNELS_MAX: usize = 64;

/// One transport.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) key: TransportKey,
    pub(crate) state: TransportState,
    pub(crate) channels: Channels,
    /// None until the peer described itself.
    pub(crate) remote: Option<RemoteTransport>,
    credentials: IceCredentials,
    session_id: u64,
    session_version: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportState {
    Connecting,
    Connected,
    Failed { since: Instant, recoverable: bool },
}

impl Transport {
    /// A new transport, ordered from the shell.
    pub(crate) fn open(core: &mut Core) -> Self {
        let key = core.new_transport();
        let credentials = core.new_credentials();
        core.order(MediaCommand::OpenTransport {
            transport: key,
            credentials: credentials.clone(),
        });
        Self {
            key,
            state: TransportState::Connecting,
            channels: Channels::default(),
            remote: None,
            credentials,
            session_id: core.new_session_id(),
            session_version: 0,
        }
    }

    /// New credentials of the node, which an ICE restart needs (RFC 8839 4.4.1.1).
    pub(crate) fn restart_ice(&mut self, core: &mut Core) {
        self.credentials = core.new_credentials();
        core.order(MediaCommand::RestartIce {
            transport: self.key,
            credentials: self.credentials.clone(),
        });
    }

    /// Hands the peer's side to the shell, if it is news.
    pub(crate) fn set_remote(&mut self, core: &mut Core, remote: RemoteTransport) {
        if self.remote.as_ref() != Some(&remote) {
            self.remote = Some(remote.clone());
            core.order(MediaCommand::SetRemote { transport: self.key, remote });
        }
    }

    /// The node's side for the next description.
    pub(crate) fn describe(
        &mut self,
        core: &Core,
        protocols: &[CandidateProtocol],
    ) -> LocalTransport {
        self.session_version += 1;
        LocalTransport {
            credentials: self.credentials.clone(),
            fingerprint: core.config.fingerprint.clone(),
            candidates: core.candidates(protocols),
            max_message_size: u64::try_from(core.config.limits.message_bytes).unwrap_or(u64::MAX),
            session_id: self.session_id,
            session_version: self.session_version,
        }
    }

    /// The node's credentials.
    pub(crate) const fn credentials(&self) -> &IceCredentials {
        &self.credentials
    }

    /// Whether an ICE restart can still save it.
    pub(crate) const fn is_recoverable(&self) -> bool {
        match self.state {
            TransportState::Connecting | TransportState::Connected => true,
            TransportState::Failed { recoverable, .. } => recoverable,
        }
    }
}

/// The data channels of a transport, by what they are for.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    pub(crate) reliable: Option<ChannelKey>,
    pub(crate) lossy: Option<ChannelKey>,
    pub(crate) data_track: Option<ChannelKey>,
    open: BTreeMap<ChannelKey, ChannelUse>,
}

/// What a data channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelUse {
    /// Data packets that must arrive.
    Reliable,
    /// Data packets that may be lost.
    Lossy,
    /// Frames of data tracks.
    DataTrack,
    /// A channel of the client's own: its messages are wrapped.
    Other(ChannelReliability),
}

impl Channels {
    /// Notes an open channel and tells what it is for. None if there are too many.
    pub(crate) fn add(
        &mut self,
        channel: ChannelKey,
        label: &str,
        reliability: ChannelReliability,
    ) -> Option<ChannelUse> {
        if self.open.len() >= CHANNELS_MAX && !self.open.contains_key(&channel) {
            return None;
        }
        let purpose = match label {
            RELIABLE_LABEL => ChannelUse::Reliable,
            LOSSY_LABEL => ChannelUse::Lossy,
            DATA_TRACK_LABEL => ChannelUse::DataTrack,
            _ => ChannelUse::Other(reliability),
        };
        self.open.insert(channel, purpose);
        match purpose {
            ChannelUse::Reliable => self.reliable = Some(channel),
            ChannelUse::Lossy => self.lossy = Some(channel),
            ChannelUse::DataTrack => self.data_track = Some(channel),
            ChannelUse::Other(_) => {}
        }
        Some(purpose)
    }

    pub(crate) fn remove(&mut self, channel: ChannelKey) {
        self.open.remove(&channel);
        for known in [&mut self.reliable, &mut self.lossy, &mut self.data_track] {
            if *known == Some(channel) {
                *known = None;
            }
        }
    }

    pub(crate) fn purpose(&self, channel: ChannelKey) -> Option<ChannelUse> {
        self.open.get(&channel).copied()
    }
}

/// The transport the client offers on, with its sections.
#[derive(Debug)]
pub(crate) struct PublisherTransport {
    pub(crate) transport: Transport,
    /// Media sections by mid; as many as a description may have.
    pub(crate) sections: BTreeMap<String, MediaSection>,
    /// Sections asked for since the last answer.
    pub(crate) asked: Asked,
}

/// What the client was asked for since the last answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// When it was last asked to offer.
    pub(crate) at: Option<Instant>,
    /// Sections for audio.
    pub(crate) audio: u32,
    /// Sections for video.
    pub(crate) video: u32,
}

/// One media section that the client offered.
#[derive(Debug)]
pub(crate) struct MediaSection {
    pub(crate) kind: MediaKind,
    /// Place in the description.
    pub(crate) index: usize,
    /// The client can receive in it.
    pub(crate) receives: bool,
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
    /// Of a client with fixed sections, once it received in it.
    pub(crate) slot: Option<Slot>,
}

/// What stays of a fixed section while its tracks change.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    /// None until an answer agreed to send in it.
    pub(crate) agreed: Option<Negotiated>,
}

/// What the client sends in a section.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Nothing.
    Nothing,
    /// Media that no AddTrack announced yet.
    Parked(OfferedMedia),
    /// A track.
    Bound { track: TrackKey, media_id: String },
}

/// What the node sends in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Nothing; it may be used.
    Free,
    /// A subscribed track.
    Sending(TrackKey),
    /// A track that ended, which the client does not know yet. It is used
    /// again only after an answer had it inactive: browsers announce a track
    /// only when the direction changes.
    Leaving,
}

/// Media a client sends, as negotiated.
#[derive(Debug, Clone)]
pub(crate) struct OfferedMedia {
    pub(crate) kind: MediaKind,
    pub(crate) mid: String,
    /// The client's id of it, from msid. Empty if there is none.
    pub(crate) media_id: String,
    pub(crate) negotiated: Negotiated,
    pub(crate) encodings: Vec<SentEncoding>,
}
