//! headwater-sfu.
