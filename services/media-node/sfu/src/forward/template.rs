//! Packet path: no allocation. The header that nearly all packets of a subscription
//! share, written once and patched for each packet.

use headwater_model::media::{HeaderExtension, Subscription};
use headwater_rtp::{RtpHeader, RtpView};

/// Room for a header with MID, transport-wide number and send time. One with a longer
/// MID is written anew for each packet.
pub(crate) const TEMPLATE_MAX: usize = 64;

/// Numbers of ours in the header extensions of one packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) transport_sequence: [u8; 2],
    pub(crate) send_time: [u8; 3],
}

/// Whether packets carry transport-wide numbers, which is negotiated for each codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feedback {
    None,
    TransportWide,
}

/// A header without carried extension values.
#[derive(Debug, Clone)]
pub(crate) struct HeaderTemplate {
    bytes: [u8; TEMPLATE_MAX],
    len: usize,
    /// Where the numbers are; 0 if they are not sent.
    transport_sequence_at: usize,
    send_time_at: usize,
}

impl HeaderTemplate {
    /// For the codecs of a subscription with or without transport-wide feedback; `None` if
    /// it does not fit.
    pub(crate) fn new(negotiated: &Subscription, feedback: Feedback) -> Option<Self> {
        let ids = &negotiated.extensions;
        let transport_cc =
            ids.get(HeaderExtension::TransportCc).filter(|_| feedback == Feedback::TransportWide);
        let send_time = ids.get(HeaderExtension::AbsSendTime);
        let mid = ids.get(HeaderExtension::Mid).filter(|_| !negotiated.mid.is_empty());
        let list = [
            mid.map(|id| (id, negotiated.mid.as_bytes())),
            transport_cc.map(|id| (id, &[0, 0][..])),
            send_time.map(|id| (id, &[0, 0, 0][..])),
        ];
        let extensions: Vec<(u8, &[u8])> = list.into_iter().flatten().collect();
        let mut bytes = [0; TEMPLATE_MAX];
        let len = RtpHeader::default().write(&extensions, &mut bytes).ok()?;
        let view = RtpView::parse(bytes.get(..len)?).ok()?;
        let place = |id: Option<u8>| Some(view.extension_range(id?)?.start);
        let transport_sequence_at = place(transport_cc).unwrap_or(0);
        let send_time_at = place(send_time).unwrap_or(0);
        Some(Self { bytes, len, transport_sequence_at, send_time_at })
    }

    /// Writes the header of one packet to the start of `out`.
    #[inline]
    pub(crate) fn write(
        &self,
        header: &RtpHeader,
        numbers: Numbers,
        out: &mut [u8],
    ) -> Option<usize> {
        let out: &mut [u8; TEMPLATE_MAX] = out.first_chunk_mut()?;
        *out = self.bytes;
        out[1] = u8::from(header.marker) << 7 | header.payload_type;
        out[2..4].copy_from_slice(&header.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&header.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&header.ssrc.to_be_bytes());
        if self.transport_sequence_at != 0 {
            let place = out.get_mut(self.transport_sequence_at..)?.first_chunk_mut()?;
            *place = numbers.transport_sequence;
        }
        if self.send_time_at != 0 {
            let place = out.get_mut(self.send_time_at..)?.first_chunk_mut()?;
            *place = numbers.send_time;
        }
        Some(self.len)
    }
}
