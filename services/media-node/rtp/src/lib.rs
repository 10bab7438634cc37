//! RTP and RTCP as bytes: parsing views, writers into a given buffer and rewriting
//! in place. No I/O, no clock, and on the RTP path no allocation.
//!
//! - [`RtpView`] reads a packet, [`RtpHeader`] writes a fresh header with chosen
//!   extension ids, [`extension`] reads and makes extension values.
//! - [`vp8`], [`vp9`], [`h264`], [`av1`] read what the payload says of itself (start of
//!   a frame, keyframe, layer, picture id), [`dependency`] does the same from the AV1
//!   dependency descriptor; [`rtx`] is RFC 4588, [`red`] is RFC 2198.
//! - [`rtcp`] iterates and builds compound packets.
//! - [`sequence`] unwraps counters, [`ntp`] turns wall clock into NTP time.
//!
//! Everything that parses takes bytes of a stranger: it returns an error or an empty
//! answer and never panics, whatever the bytes are. The crate links neither `std` nor
//! `alloc`, so that nothing in it can allocate.

#![cfg_attr(not(test), no_std)]

pub mod av1;
mod bits;
pub mod dependency;
mod error;
pub mod extension;
pub mod h264;
mod header;
pub mod ntp;
mod packet;
pub mod red;
pub mod rtcp;
pub mod rtx;
pub mod sequence;
pub mod vp8;
pub mod vp9;

pub use error::{DescriptorError, RtpError, WriteError};
pub use header::{Extension, RtpHeader, append_padding};
pub use ntp::NtpTime;
pub use packet::{Extensions, RtpView};
pub use sequence::{SequenceUnwrapper, TimestampUnwrapper};

/// Length of an RTP header without CSRCs and extensions, in bytes.
pub const RTP_HEADER_LEN: usize = 12;
