//! What can be wrong with a description: each error names the line or the
//! section and what was expected there.

/// The error of the grammar's parser.
pub type GrammarError = <rtc_sdp::SessionDescription as TryFrom<String>>::Error;

/// Why a text is no description that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The text is longer than [`crate::SDP_BYTES_MAX`].
    #[error("the description has {bytes} bytes, more than {} are not read", crate::SDP_BYTES_MAX)]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// A line is longer than [`crate::LINE_BYTES_MAX`].
    #[error("line {line} is longer than {} bytes", crate::LINE_BYTES_MAX)]
    LineTooLong {
        /// Line, counted from 1.
        line: usize,
    },
    /// More than [`crate::SECTIONS_MAX`] media sections.
    #[error("the description has more than {} media sections", crate::SECTIONS_MAX)]
    TooManySections,
    /// RFC 8866 is not obeyed.
    #[error("line {line} is not SDP")]
    Grammar {
        /// Line, counted from 1.
        line: usize,
        /// What the grammar's parser says.
        #[source]
        source: GrammarError,
    },
    /// An attribute of a media section cannot be understood.
    #[error("media section {section}: a={attribute} is {problem}")]
    Attribute {
        /// Index of the section, from 0.
        section: usize,
        /// Name of the attribute.
        attribute: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// An attribute of the session cannot be understood.
    #[error("session: a={attribute} is {problem}")]
    SessionAttribute {
        /// Name of the attribute.
        attribute: &'static str,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Two sections have the same mid.
    #[error("media section {section} repeats the mid of an earlier one")]
    DuplicateMid {
        /// Index of the later section, from 0.
        section: usize,
    },
}

/// What is wrong with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// It is needed and not there.
    Missing,
    /// Its value does not have the form it must have.
    Malformed,
    /// There are more of them than are read.
    TooMany,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooMany => "given too often",
        })
    }
}

/// Why the transport that a description tells of cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Every section is rejected.
    #[error("no media section is accepted")]
    NoSection,
    /// No ICE user fragment or password (RFC 8839).
    #[error("ICE credentials are missing")]
    NoCredentials,
    /// No SHA-256 fingerprint (RFC 8122).
    #[error("a SHA-256 fingerprint is missing")]
    NoFingerprint,
    /// The peer wants us to open the DTLS connection, which we never do.
    #[error("a=setup must let the client be active")]
    NotActive,
}

/// Why an answer does not fit the offer it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is no offer to answer.
    #[error("no offer is outstanding")]
    NoOffer,
    /// It has another number of sections.
    #[error("the answer has {found} sections, the offer had {offered}")]
    SectionCount {
        /// Sections of the answer.
        found: usize,
        /// Sections of the offer.
        offered: usize,
    },
    /// A section is of another kind or has another mid than in the offer.
    #[error("media section {section} is not the one that was offered")]
    SectionMismatch {
        /// Index of the section, from 0.
        section: usize,
    },
}
