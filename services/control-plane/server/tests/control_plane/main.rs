//! The control plane from outside: real servers, real clients, a store in
//! memory that can be taken away, and media nodes played by a real gRPC server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod belief;
mod drain;
mod grants;
mod growth;
mod joins;
mod loops;
mod participants;
mod registry_away;
mod rooms;
mod support;
mod traces;
mod unwritten;
