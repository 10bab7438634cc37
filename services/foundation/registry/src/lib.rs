//! headwater-registry.
