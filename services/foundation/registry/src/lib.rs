//! The registry: what the cluster agrees on (nodes, orders to them, rooms and
//! their plans) behind one port, [`Store`], with three adapters. Nothing that
//! changes with a join belongs here.
//!
//! How the names fit together:
//! - [`Store`] reads, compares and swaps ([`Transaction`]), leases and watches.
//!   [`MemoryStore`], [`EmbeddedStore`] and [`EtcdStore`] behave alike; [`open`]
//!   makes the one that a [`RegistryConfig`] names.
//! - [`Watch`] follows a prefix for ever: a snapshot, then every change once.
//!   [`LeaseKeeper`] keeps keys registered under a lease. [`Election`] picks one
//!   replica and hands it a [`Fence`] that every write of its must carry.
//! - [`schema`] names the keys, [`record`] the values.
//!
//! A lease is no proof of life or death: its time is a minimum, doubled when
//! etcd changes its leader. Losing the registry must stop no media; only writes
//! that grant something are fenced, by the compares of their transaction.

mod config;
mod election;
mod embedded;
mod engine;
mod etcd;
mod key;
mod lease_keeper;
mod local;
mod memory;
pub mod record;
mod renewal;
pub mod schema;
mod store;
mod transaction;
mod watch;

pub use config::{
    EmbeddedConfig, EtcdConfig, EtcdTlsConfig, OpenError, RegistryConfig, RegistryKind, open,
};
pub use election::{Election, Fence, Leader, Leadership, Observation};
pub use embedded::EmbeddedStore;
pub use etcd::{EtcdStore, EtcdTiming};
pub use key::{KEY_BYTES_MAX, Key, KeyError, Prefix};
pub use lease_keeper::{Incarnation, LeaseKeeper, LeaseState, Registration};
pub use memory::MemoryStore;
pub use record::{
    Lifecycle, LifecycleRecord, NodeRecord, PlanRecord, PlannedShard, Record, RecordError,
    RoomRecord, ShardAddresses, Stored,
};
pub use store::{
    Change, ChangeStream, Changes, Entry, Lease, LeaseId, Revision, Snapshot, Store, StoreError,
    WatchError,
};
pub use transaction::{
    Committed, Compare, OPERATIONS_MAX, Operation, TRANSACTION_BYTES_MAX, Transaction,
    TransactionError,
};
pub use watch::{Watch, WatchEvent, WatchState};
