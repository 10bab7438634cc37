//! The roles apart, on a real three-member etcd.
