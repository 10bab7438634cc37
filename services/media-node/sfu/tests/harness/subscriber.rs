//! A subscriber: takes the packets of one subscription, checks each against what was
//! negotiated, and at the end checks that all of them make sense together.

use std::collections::BTreeMap;

use headwater_model::media::{Codec, HeaderExtension, Subscription};
use headwater_rtp::dependency::MandatoryFields;
use headwater_rtp::red::RedPayload;
use headwater_rtp::rtcp::CompoundWriter;
use headwater_rtp::sequence::{sequence_after, timestamp_distance};
use headwater_rtp::vp8::Vp8Descriptor;
use headwater_rtp::vp9::Vp9Descriptor;
use headwater_rtp::{RtpView, SequenceUnwrapper, rtx};

use super::publisher::Mark;

/// A packet as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload_type: u8,
    /// Empty if it was padding.
    pub payload: Vec<u8>,
    pub repeated: bool,
    pub mark: Option<Mark>,
    pub picture: Option<u16>,
    pub tl0: Option<u8>,
    pub temporal: u8,
    pub spatial: u8,
    pub extensions: Vec<(HeaderExtension, Vec<u8>)>,
}

/// One subscription's receiving end.
pub struct Receiver {
    negotiated: Subscription,
    codec: Codec,
    unwrapper: SequenceUnwrapper,
    rtx: SequenceUnwrapper,
    packets: BTreeMap<u64, Received>,
    raw: BTreeMap<u64, Vec<u8>>,
    transport_sequences: Vec<u16>,
    pub repeated: usize,
}

impl Receiver {
    pub fn new(negotiated: &Subscription) -> Self {
        Self {
            negotiated: negotiated.clone(),
            codec: negotiated.codecs[0].codec,
            unwrapper: SequenceUnwrapper::new(),
            rtx: SequenceUnwrapper::new(),
            packets: BTreeMap::new(),
            raw: BTreeMap::new(),
            transport_sequences: Vec::new(),
            repeated: 0,
        }
    }

    pub fn take_all(&mut self, packets: Vec<Vec<u8>>) {
        for packet in packets {
            self.take(&packet);
        }
    }

    /// Takes a packet if it is of this subscription.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let view = RtpView::parse(bytes).unwrap();
        let repeated = Some(view.ssrc()) == self.negotiated.rtx_ssrc;
        if view.ssrc() != self.negotiated.ssrc && !repeated {
            return false;
        }
        let codecs = &self.negotiated.codecs;
        let mapping = codecs.iter().find(|mapping| {
            let expected =
                if repeated { mapping.rtx_payload_type } else { Some(mapping.payload_type) };
            expected == Some(view.payload_type())
        });
        let is_red = mapping.unwrap().red_of.is_some();
        let extensions = self.check_extensions(&view);
        let (sequence, payload) = if repeated {
            self.repeated += 1;
            self.rtx.unwrap(view.sequence());
            rtx::parse(view.payload()).unwrap()
        } else {
            (view.sequence(), view.payload())
        };
        let payload = if is_red { RedPayload::parse(payload).unwrap().primary() } else { payload };
        let sequence = self.unwrapper.unwrap(sequence);
        let received = self.read(&view, sequence, payload, repeated, extensions);
        if let Some(before) = self.raw.get(&sequence)
            && !repeated
        {
            assert_eq!(before, bytes, "one sequence number, two packets");
            self.repeated += 1;
        }
        if !repeated {
            self.raw.insert(sequence, bytes.to_vec());
        }
        self.packets.entry(sequence).or_insert(received);
        true
    }

    fn check_extensions(&mut self, view: &RtpView<'_>) -> Vec<(HeaderExtension, Vec<u8>)> {
        let mut list = Vec::new();
        for (id, value) in view.extensions() {
            let extension = self.negotiated.extensions.extension(id);
            let extension = extension.unwrap_or_else(|| panic!("extension id {id} is not ours"));
            match extension {
                HeaderExtension::Mid => assert_eq!(value, self.negotiated.mid.as_bytes()),
                HeaderExtension::TransportCc => {
                    self.transport_sequences.push(u16::from_be_bytes([value[0], value[1]]));
                }
                _ => list.push((extension, value.to_vec())),
            }
        }
        list
    }

    fn read(
        &self,
        view: &RtpView<'_>,
        sequence: u64,
        payload: &[u8],
        repeated: bool,
        extensions: Vec<(HeaderExtension, Vec<u8>)>,
    ) -> Received {
        let mut received = Received {
            sequence,
            timestamp: view.timestamp(),
            marker: view.marker(),
            payload_type: view.payload_type(),
            payload: payload.to_vec(),
            repeated,
            mark: None,
            picture: None,
            tl0: None,
            temporal: 0,
            spatial: 0,
            extensions,
        };
        if payload.is_empty() {
            return received;
        }
        let len = match self.codec {
            Codec::Vp8 => {
                let read = Vp8Descriptor::parse(payload).unwrap();
                received.picture = read.picture_id.map(|id| id.value());
                received.tl0 = read.tl0_picture_index;
                received.temporal = read.temporal.map_or(0, |layer| layer.id);
                read.len + 1
            }
            Codec::Vp9 => {
                let read = Vp9Descriptor::parse(payload).unwrap();
                received.picture = read.picture_id.map(|id| id.value());
                received.tl0 = read.tl0_picture_index;
                received.temporal = read.temporal();
                received.spatial = read.spatial();
                read.len
            }
            Codec::Av1 => {
                let value = received
                    .extensions
                    .iter()
                    .find(|(extension, _)| *extension == HeaderExtension::DependencyDescriptor);
                let read = MandatoryFields::parse(&value.unwrap().1).unwrap();
                received.picture = Some(read.frame_number);
                received.spatial = read.template_id / 2;
                received.temporal = read.template_id % 2;
                2
            }
            Codec::H264 if payload[0] & 0x1f == 24 => 8,
            Codec::H264 => 2,
            Codec::Opus => 0,
        };
        received.mark = Some(Mark::parse(&payload[len..]));
        received
    }

    /// Sequence numbers below the highest that did not come.
    pub fn missing(&self) -> Vec<u16> {
        let (Some((first, _)), Some((last, _))) =
            (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return Vec::new();
        };
        (*first..=*last).filter(|n| !self.packets.contains_key(n)).map(|n| n as u16).collect()
    }

    pub fn packets(&self) -> impl Iterator<Item = &Received> {
        self.packets.values()
    }

    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// The last packet by sequence number.
    pub fn last(&self) -> Option<&Received> {
        self.packets.last_key_value().map(|(_, packet)| packet)
    }

    /// Encodings of the pictures that came, without repetition.
    pub fn encodings(&self) -> Vec<u8> {
        let mut list: Vec<u8> =
            self.packets().filter_map(|packet| packet.mark).map(|mark| mark.encoding).collect();
        list.dedup();
        list
    }

    /// A NACK for everything that is missing, or none.
    pub fn nack(&self) -> Option<Vec<u8>> {
        let missing = self.missing();
        (!missing.is_empty()).then(|| self.nack_for(&missing))
    }

    pub fn nack_for(&self, sequences: &[u16]) -> Vec<u8> {
        let mut buffer = vec![0; 1_400];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.nack(1, self.negotiated.ssrc, sequences.iter().copied().take(128)).unwrap();
        let len = writer.finish();
        buffer.truncate(len);
        buffer
    }

    pub fn pli(&self) -> Vec<u8> {
        let mut buffer = vec![0; 64];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.picture_loss_indication(1, self.negotiated.ssrc).unwrap();
        let len = writer.finish();
        buffer.truncate(len);
        buffer
    }

    /// Everything that came is one sensible stream: no number is missing, time never
    /// goes back and moves only between pictures, pictures are whole and in order, and
    /// their counters have no gap.
    pub fn check(&self) {
        assert_eq!(self.missing(), Vec::<u16>::new(), "sequence numbers are missing");
        let media: Vec<&Received> = self.packets().filter(|packet| packet.mark.is_some()).collect();
        for pair in media.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let (a, b) = (before.mark.unwrap(), after.mark.unwrap());
            let same = a.encoding == b.encoding && a.frame == b.frame;
            let step = timestamp_distance(after.timestamp, before.timestamp);
            if same {
                assert_eq!(step, 0, "one picture, two times: {before:?} {after:?}");
                assert!(b.packet > a.packet, "packets of a picture in disorder");
                assert_eq!(before.tl0, after.tl0);
            } else {
                assert!(step > 0, "time goes back by {step}: {a:?} {b:?}");
                assert!(before.marker, "picture without an end: {before:?}");
                assert_eq!(b.packet, 0, "picture without a beginning: {b:?}");
            }
            self.check_counters(before, after, same);
        }
        self.check_transport_sequences();
    }

    fn check_counters(&self, before: &Received, after: &Received, same: bool) {
        let (Some(a), Some(b)) = (before.picture, after.picture) else {
            return;
        };
        match self.codec {
            Codec::Vp8 if same => assert_eq!(a, b),
            Codec::Vp8 => {
                assert_eq!(b, (a + 1) & 0x7fff, "picture ids have a gap");
                let step = u8::from(after.temporal == 0);
                assert_eq!(after.tl0.unwrap(), before.tl0.unwrap().wrapping_add(step));
            }
            Codec::Vp9 if same => assert_eq!(a, b),
            Codec::Vp9 => assert!((1..=8).contains(&(b.wrapping_sub(a) & 0x7fff)), "{a} {b}"),
            Codec::Av1 => assert!(b == a || sequence_after(b, a), "frame number goes back"),
            Codec::H264 | Codec::Opus => {}
        }
    }

    fn check_transport_sequences(&self) {
        let mut sorted: Vec<u64> = Vec::new();
        let mut unwrapper = SequenceUnwrapper::new();
        sorted.extend(self.transport_sequences.iter().map(|n| unwrapper.unwrap(*n)));
        let count = sorted.len();
        sorted.sort_unstable();
        sorted.dedup();
        // A packet that is repeated to the byte repeats its number, too.
        assert!(count - sorted.len() <= self.repeated, "a transport-wide number was used twice");
    }
}
