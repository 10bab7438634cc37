//! What every gRPC surface of Headwater shares: access tokens, the credential
//! between roles, building servers and clients, deadlines, trace context and
//! error details. It knows no service's meaning.
//!
//! - [`token`]: [`KeyRing`] verifies and mints access tokens (LiveKit's shape).
//! - [`cluster`]: [`ClusterCredential`] guards the internal services.
//! - [`server`]: [`Server`] runs services with health, reflection, gRPC-Web,
//!   limits, deadlines, traces and a graceful end.
//! - [`client`]: [`connect`] gives a lazy [`Connection`] for generated clients.
//! - [`status`]: errors with details in one shape.
//! - [`trace`]: W3C trace context in and out.

pub mod client;
pub mod cluster;
pub mod deadline;
mod method;
mod recorder;
pub mod server;
pub mod status;
pub mod token;
pub mod trace;

pub use client::{ClientTls, ConnectError, Connection, connect};
pub use cluster::ClusterCredential;
pub use server::{RunningServer, Server, ServerConfig, ServerTls};
pub use token::{KeyRing, TokenError, TokenRequest};
