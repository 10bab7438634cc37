//! What goes to subscribers: which packets, under which numbers, with which header.

pub(crate) mod align;
pub(crate) mod codecs;
pub(crate) mod delivery;
pub(crate) mod forwarder;
pub(crate) mod line;
pub(crate) mod repeat;
pub(crate) mod template;
pub(crate) mod writer;
