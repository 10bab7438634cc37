//! headwater-transport.
