//! What comes from publishers: which track a packet belongs to, in which order packets
//! came, what is missing, what is kept.

pub(crate) mod arrivals;
pub(crate) mod extensions;
pub(crate) mod keyframes;
pub(crate) mod level;
pub(crate) mod missing;
pub(crate) mod rates;
pub(crate) mod reception;
pub(crate) mod renumber;
pub(crate) mod ring;
pub(crate) mod shape;
pub(crate) mod stream;
pub(crate) mod track;
