//! The gateway: stateless doors by which clients and platforms reach the cluster.
//!
//! [`start`] runs one from a [`Config`]. The LiveKit door carries each client's
//! signalling over one gRPC stream to the node that has its room; the Twirp door
//! hands the platform's calls to the control plane. No media passes here, and no
//! node knows the doors' protocols.
//!
//! [`decode_join_request`] and [`decode_frame`] are the parsers of what comes
//! from the network, public so that they can be fuzzed.

mod config;
mod control_plane;
mod gateway;
mod grants;
mod livekit;
mod nodes;
mod pages;
mod server;
#[cfg(test)]
mod tests;
mod twirp;
mod whip;

pub use config::{Config, IceServer, Limits, LiveKit};
pub use livekit::{
    FRAME_BYTES_MAX, Frame, FrameError, Framing, JOIN_REQUEST_BYTES_MAX, JoinRequestError,
    decode_frame, decode_join_request,
};
pub use server::{Dependencies, Running, start};
pub use whip::{
    BODY_BYTES_MAX, Fragment, FragmentError, Offer, OfferError, decode_fragment, decode_offer,
};
