//! headwater-rpc.
