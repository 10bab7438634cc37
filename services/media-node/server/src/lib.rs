//! headwater-media-node.
