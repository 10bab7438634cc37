//! headwater-sdp.
