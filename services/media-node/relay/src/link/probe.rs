//! Heartbeats: datagrams that show that a link lives, how long it takes and what it
//! loses.

use crate::codec::{Malformed, Reader, Writer};
use crate::frame::{FRAME_VERSION, KIND_PROBE};

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The sender's clock, in microseconds; wraps.
    pub(crate) sent_micros: u32,
    /// The last clock that the sender saw of the receiver.
    pub(crate) echo_micros: u32,
    /// How long ago it saw it, in microseconds. `u32::MAX` means it saw none.
    pub(crate) echo_delay: u32,
    /// Trains that the sender should have received, and those it did.
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// The home's heartbeat: rises as long as the way from the home is whole.
    pub(crate) beat: u32,
}

impl Probe {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut writer = Writer(out);
        writer.u8(FRAME_VERSION << 4 | KIND_PROBE);
        writer.u32(self.sent_micros);
        writer.u32(self.echo_micros);
        writer.u32(self.echo_delay);
        writer.u64(self.expected);
        writer.u64(self.received);
        writer.u32(self.beat);
    }

    pub(crate) fn parse(datagram: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram, "relay probe");
        if reader.u8()? != FRAME_VERSION << 4 | KIND_PROBE {
            return Err(reader.malformed());
        }
        Ok(Self {
            sent_micros: reader.u32()?,
            echo_micros: reader.u32()?,
            echo_delay: reader.u32()?,
            expected: reader.u64()?,
            received: reader.u64()?,
            beat: reader.u32()?,
        })
    }
}
