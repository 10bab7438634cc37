//! The control plane: places rooms on media nodes, admits participants, and
//! serves the public `RoomService` and `ClusterService` and the internal
//! `PlacementService`. It decides nothing itself: that is `headwater-control-core`.
//!
//! Any number of replicas may run on one registry. Each watches all of it
//! (`follow`), holds an agent stream to every media node (`agents`), and may
//! place and write plans, because every write is a compare-and-swap (`rooms`).
//! One elected replica moves rooms off dead nodes and ends empty ones (`planner`).
//!
//! When the registry is away, joins to rooms that have a plan go on from what
//! was watched; anything that must write is told to wait. Nothing here is ever
//! in the way of media.
//!
//! Every error carries a `google.rpc.ErrorInfo` with domain `headwater.v1`; its
//! reasons are [`headwater_rpc::status::Reason`]. Those this service gives:
//!
//! | reason | code | when |
//! |---|---|---|
//! | `INVALID_ARGUMENT` | `INVALID_ARGUMENT` | a field cannot be taken; `BadRequest` names it |
//! | `REQUEST_ID_REUSED` | `INVALID_ARGUMENT` | a `request_id` came again with another request |
//! | `TOKEN_REFUSED` | `UNAUTHENTICATED` | no token, or a bad one |
//! | `GRANT_MISSING` | `PERMISSION_DENIED` | the token lacks the grant; `metadata.grant` names it |
//! | `CLUSTER_CREDENTIAL_REFUSED` | `UNAUTHENTICATED` | internal services only |
//! | `NOT_FOUND` | `NOT_FOUND` | room, participant, track or node; see `ResourceInfo` |
//! | `ALREADY_EXISTS` | `ALREADY_EXISTS` | `CreateRoom` of a room that is there |
//! | `ETAG_STALE` | `ABORTED` | `UpdateRoom` with an etag that is not the newest |
//! | `CONFLICT` | `ABORTED` | others changed the room again and again meanwhile |
//! | `UNMUTE_NOT_ALLOWED` | `FAILED_PRECONDITION` | the operator does not allow unmuting |
//! | `REGISTRY_UNAVAILABLE` | `UNAVAILABLE` | with `RetryInfo`, in under a second |
//! | `NODE_UNREACHABLE` | `UNAVAILABLE` | with `RetryInfo`: the room's node does not answer |
//! | `INTERNAL` | `INTERNAL` | a fault of ours; it is in the log |
//!
//! Reads (`GetRoom`, `ListRooms`) go on while the registry is away and then
//! carry the response metadata [`STALE_KEY`]`: true`.

mod agents;
mod auth;
mod cluster;
mod config;
mod convert;
mod explain;
mod follow;
mod input;
mod names;
mod nodes;
mod participants;
mod placer;
mod planner;
mod registry;
mod repeats;
mod role;
mod rooms;
mod service;
mod simulate;
mod slice;
mod suspects;
mod topology;

pub use config::Config;
pub use role::{Dependencies, Running, start};
pub use service::STALE_KEY;
