//! The gateway from outside: real HTTP and WebSocket clients on one side, real
//! gRPC servers with a script in place of a control plane and nodes on the other.

mod bounds;
mod client;
mod cluster;
mod doors;
mod failing;
mod joining;
mod pages;
mod rejecting;
mod resuming;
mod tracing;
mod twirp;
