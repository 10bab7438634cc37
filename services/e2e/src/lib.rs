//! Whole systems for the tests of this crate: [`dev`] is everything in one
//! process, [`cluster`] the roles apart on a real etcd, with a [`balancer`] in
//! front of its gateways.

pub mod balancer;
pub mod cluster;
pub mod dev;
