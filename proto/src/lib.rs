//! The wire types and services of Headwater, generated from the `.proto` files
//! beside this crate, and their descriptors for reflection. Wire types stop at
//! the surface: servers turn them into `headwater-model` types on receipt.

#![expect(clippy::large_enum_variant, reason = "the shape of the messages is the wire's")]

/// The public API.
pub mod v1 {
    tonic::include_proto!("headwater.v1");
}

/// What gateways ask of the control plane. Internal.
pub mod control {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("headwater.control.v1");
    }
}

/// What gateways and the control plane ask of media nodes. Internal.
pub mod node {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("headwater.node.v1");
    }
}

/// Descriptors of all the files, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
