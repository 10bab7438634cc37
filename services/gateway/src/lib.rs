//! headwater-gateway.
