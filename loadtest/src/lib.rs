//! Native clients in large numbers: they speak LiveKit signalling, so they drive
//! this server or any other that speaks it, publish well-formed media with send
//! times in it, and measure what arrives.
//!
//! [`client`] is one participant, [`run`] a crowd of them, [`report`] what was
//! measured. [`signal`] and [`description`] are the two halves of signalling,
//! [`source`] and [`sink`] the two ends of media.

pub mod client;
pub mod description;
pub mod report;
pub mod run;
pub mod signal;
pub mod sink;
pub mod source;
