//! What subscribers see of what publishers send, told as small stories.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

#[path = "../harness/mod.rs"]
mod harness;

mod adaptation;
mod audio;
mod binding;
mod encrypted;
mod floor;
mod keyframes;
mod layers;
mod red;
mod repair;
mod reports;
mod robustness;
mod simulcast;
mod takeover;
mod wide;
