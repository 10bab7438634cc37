//! headwater-telemetry.
