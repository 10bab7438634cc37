//! Publishers, nodes and subscribers on a simulated network and a virtual clock, all in one
//! thread and all from one seed: the same seed gives the same run to the bit.
//!
//! [`World`] is the whole of it: nodes run the real forwarding core, [`Publisher`] and
//! [`Subscriber`] behave as libwebrtc does, [`net`] is the network between them. What must
//! hold of every stream is checked while it runs ([`Node::violations`]); what viewers saw is
//! in [`SubscriberReport`]. [`cluster`] is another world: a whole cluster with its control
//! plane, without encoders and access networks.

mod checks;
pub mod cluster;
mod datagram;
mod mark;
mod negotiation;
pub mod net;
mod node;
mod peers;
pub mod plot;
mod random;
pub mod scenario;
mod seal;
mod time;
mod trace;
mod world;

pub use datagram::{Datagram, IP_UDP_LEN, Kind, SRTCP_LEN, SRTP_LEN};
pub use mark::Mark;
pub use net::{Access, Loss, Order, QueueLimit, Weather};
pub use node::Node;
pub use peers::{
    AudioReport, Layer, Publisher, PublisherConfig, Subscriber, SubscriberConfig, SubscriberReport,
    VideoReport, VideoSecond,
};
pub use random::Random;
pub use seal::SealReport;
pub use time::Time;
pub use trace::Trace;
pub use world::{NodeId, PeerId, World};
