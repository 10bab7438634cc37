//! The control plane from outside: real servers, real clients, a store in
//! memory that can be taken away, and media nodes played by a real gRPC server.

mod grants;
mod joins;
mod loops;
mod participants;
mod registry_away;
mod rooms;
mod support;
