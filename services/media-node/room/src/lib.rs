//! All the rooms of a shard: who is there, who publishes what, who is to receive
//! what, and the negotiation that brings it about. Sans-IO: commands of
//! gateways and of the control plane, events of transports and of the
//! forwarding core, and the time come in; events for gateways and commands for
//! transports and forwarding core go out.
//!
//! Calling contract of [`Rooms`]: after each `assign_room`, `release_room`,
//! `join`, `session_lost` and `handle_*`, take everything from
//! [`Rooms::poll_output`] and act on it in that order; then sleep no longer than
//! until [`Rooms::poll_timeout`]. After an [`Event::Closed`] or an
//! [`Output::Abandon`] nothing more comes for that session, and what the gateway
//! still says in it is ignored.
//!
//! What differs from the first sketch of this interface: the seed has 32 bytes,
//! because ICE passwords are drawn from it; data channels are named by a
//! [`ChannelKey`] of the shell's choice, because clients may open any number of
//! them; views of participants are shared ([`std::sync::Arc`]), because they
//! are told to many.

mod audience;
mod closing;
mod config;
mod control;
mod core;
mod data;
mod demand;
mod directory;
mod media;
mod negotiate;
mod participant;
mod platform;
mod publish;
mod quality;
mod remote;
mod resume;
mod room;
mod rooms;
mod sections;
mod session;
mod shortage;
mod simulate;
mod slots;
mod speakers;
mod subscribe;
mod subscriber;
mod tally;
mod timers;
mod track;
mod transport;
mod view;

pub use config::{Limits, RoomsConfig, Timers};
pub use control::{
    ControlAction, ControlCommand, ControlError, DataMessage, ParticipantUpdate, RoomAssignment,
};
pub use headwater_sdp::{Candidate, CandidateProtocol, IceCredentials, RemoteTransport};
pub use media::{
    ChannelKey, ChannelReliability, Limitation, MediaCommand, MediaEvent, QualitySubject,
};
pub use remote::{RelayCommand, RelayedMessage, RemoteEvent, RemoteParticipant};
pub use rooms::{AssignError, Output, Rooms};
pub use session::{
    AddTrack, AllowedTracks, CloseAction, CloseReason, Closed, Command, ConnectionQuality, Event,
    JoinRequest, Joined, PublishDataTrack, QualityGrade, RequestOutcome, RequestReference,
    RequestResult, Scenario, SessionDescription, SessionKey, Speaker, SubscriptionFailure,
    SubscriptionPermission, SubscriptionUpdate, SyncState, TrackPermission, TrackSettings,
    TransportKind, TransportMode, UpdateSelf, UpdateTrack,
};
pub use view::{
    DataTrackOrigin, DataTrackView, LayerQuality, ParticipantPhase, ParticipantView,
    RoomProperties, RoomReport, RoomView, TrackCodec, TrackView, VideoLayer,
};

#[cfg(test)]
mod tests;
