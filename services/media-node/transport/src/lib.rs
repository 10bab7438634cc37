//! One peer's transport, sans-IO: ICE-lite, DTLS, SRTP and data channels.
//!
//! [`Transport`] is the whole of it: datagrams, commands and the time go in,
//! datagrams and events come out. The shell demultiplexes with [`classify`] and
//! [`stun_local_ufrag`], keeps sockets and clocks, and sends RTP through the
//! in-place SRTP calls, which make no output. [`SrtpSession`] and [`IceClient`]
//! stand alone for benchmarks and native clients; a [`Transport`] with
//! [`Role::Client`] is the other end of one with [`Role::Server`].
//!
//! What a peer can cost is bounded: paths, handshake buffers, SSRCs, channels,
//! buffered bytes, and the state of the libraries underneath, each where it is
//! kept. Nothing happens before a STUN message has proven that its sender knows
//! our password; after that a bad datagram is dropped and counted, never an end.
//!
//! Under AES-GCM [`Transport::protect_rtp`] seals a sequence number once and
//! refuses it afterwards ([`SrtpError::NonceReuse`]). A plain retransmission on
//! the same SSRC goes through [`Transport::repeat_rtp`], which demands the same
//! packet to the byte; RTX has its own SSRC and needs nothing.

mod contain;
mod dtls;
mod event;
mod ice;
pub mod ice_client;
mod path;
mod sctp;
mod srtp;
mod stun;
mod transport;

#[doc(hidden)]
pub mod fuzzing;

pub use dtls::{
    DtlsIdentity, DtlsProblem, Fingerprint, FingerprintError, IdentityError, SrtpPreference,
};
pub use event::{
    FailReason, MESSAGE_MAX, Output, RemoteError, RemoteParameters, Role, TransportConfig,
    TransportEvent, TransportStats,
};
pub use ice::{CONSENT_EXPIRY, IceCredentials, PATHS_MAX};
pub use ice_client::IceClient;
pub use path::{PacketClass, Path, Protocol, classify};
pub use sctp::{
    CHANNELS_MAX, ChannelId, ChannelReliability, LABEL_MAX, MessageKind, OpenChannelError,
    Retransmission, SendError,
};
pub use srtp::{
    MasterKey, RECEIVE_STREAMS_MAX, SEND_STREAMS_MAX, SRTP_OVERHEAD_MAX, SrtpError, SrtpProfile,
    SrtpSession,
};
pub use stun::{BindingRequest, StunError, stun_local_ufrag};
pub use transport::{SETUP_TIMEOUT, Transport};
