//! headwater-testkit.
