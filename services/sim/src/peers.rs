//! Those who publish and those who watch, modelled on what libwebrtc does.

mod audio;
mod decoder;
mod encoder;
mod estimator;
mod feedback;
mod missing;
mod publisher;
mod reception;
mod subscriber;

pub use audio::AudioReport;
pub use decoder::{VideoReport, VideoSecond};
pub use publisher::{Layer, Publisher, PublisherConfig};
pub use subscriber::{Subscriber, SubscriberConfig, SubscriberReport};

pub(crate) use subscriber::Watched;
