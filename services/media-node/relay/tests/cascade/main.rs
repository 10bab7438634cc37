//! Real forwarding cores joined by real links: on a virtual clock over wires that lose
//! and delay, and in real time over QUIC.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

#[path = "../../../sfu/tests/harness/mod.rs"]
mod harness;

mod cluster;
mod failover;
mod media;
mod quic;
mod state;
mod wire;
