//! headwater-net.
