//! headwater-control-plane.
