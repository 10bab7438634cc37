//! headwater-e2e.
