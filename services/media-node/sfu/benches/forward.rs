//! What forwarding costs.
fn main() {}
