//! SDP between WebRTC clients and the node: text to a typed [`Description`] and
//! back, the answer to a client's offer ([`answer`]), and the node's own offers
//! for a subscriber transport ([`Offerer`]). Pure: no I/O, no clock, no
//! randomness; ids and SSRCs come from the caller.
//!
//! What is never done: no media section changes its place, a payload type or an
//! extension id of a client is repeated and not replaced, and what the text says
//! beyond this model is neither obeyed nor echoed.

mod answer;
mod codecs;
mod description;
mod error;
mod offer;
mod parse;
mod render;

pub use answer::{
    Answer, LocalTransport, Negotiated, Receiving, RemoteTransport, SectionDecision, Sending,
    SentEncoding, answer,
};
pub use description::{
    Candidate, CandidateProtocol, CodecDescription, Description, Direction, ExtensionMapping,
    Fingerprint, IceCredentials, Msid, Rid, Section, SectionKind, Setup, Source, SourceGroup,
};
pub use error::{AnswerError, GrammarError, ParseError, TransportError};
pub use offer::{AcceptedSection, Offerer};

/// Longest SDP that is read, in bytes. A client with 500 sections writes less
/// than 2 MiB, which is also the most a signalling message may have.
pub const SDP_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest line that is read, in bytes.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most media sections of a description, read or written.
pub const SECTIONS_MAX: usize = 512;
/// Most SSRCs, RIDs, header extensions or codecs of one section, each.
pub const SECTION_ITEMS_MAX: usize = 128;
/// Longest token (mid, RID, ICE user fragment …) in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
