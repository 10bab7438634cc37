//! Whole systems for the tests of this crate: [`dev`] is everything in one
//! process, [`cluster`] the roles apart on a real etcd, with a [`balancer`] in
//! front of its gateways. An [`audience`] of real SDKs listens while [`chaos`]
//! breaks parts of a cluster, or cuts its [`network`].

pub mod api;
pub mod audience;
pub mod balancer;
pub mod chaos;
pub mod cluster;
pub mod dev;
pub mod network;
pub mod placements;
