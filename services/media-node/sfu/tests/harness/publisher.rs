//! A publisher: makes the packets of one encoding with correct descriptors, and
//! remembers them for retransmission.

use std::collections::BTreeMap;

use headwater_model::media::{Codec, ExtensionIds, HeaderExtension};
use headwater_rtp::RtpHeader;
use headwater_rtp::rtx;
use headwater_rtp::vp8::{PictureId, TemporalLayer, Vp8Descriptor};

use super::{av1, publisher_ids};

/// Written behind the descriptor of every payload: says where it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub encoding: u8,
    pub frame: u32,
    pub packet: u8,
    pub packets: u8,
}

impl Mark {
    pub const LEN: usize = 8;

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let frame = self.frame.to_be_bytes();
        [0xaa, self.encoding, frame[0], frame[1], frame[2], frame[3], self.packet, self.packets]
    }

    pub fn parse(bytes: &[u8]) -> Self {
        assert_eq!(bytes[0], 0xaa, "no mark in {bytes:02x?}");
        Self {
            encoding: bytes[1],
            frame: u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]),
            packet: bytes[6],
            packets: bytes[7],
        }
    }
}

/// One picture to make.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    pub key: bool,
    pub packets: u8,
    pub temporal: u8,
    /// Bytes of each packet's payload at least.
    pub size: usize,
}

impl Default for Picture {
    fn default() -> Self {
        Self { key: false, packets: 3, temporal: 0, size: 100 }
    }
}

/// Keyframe of some packets.
pub fn key(packets: u8) -> Picture {
    Picture { key: true, packets, ..Picture::default() }
}

/// Ordinary picture of some packets on a temporal layer.
pub fn delta(packets: u8, temporal: u8) -> Picture {
    Picture { packets, temporal, ..Picture::default() }
}

/// One encoding of a publisher.
pub struct Encoder {
    pub codec: Codec,
    pub encoding: u8,
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    pub payload_type: u8,
    pub mid: Option<String>,
    pub rid: Option<String>,
    pub ids: ExtensionIds,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture: u16,
    pub tl0: u8,
    pub frame: u32,
    pub frame_number: u16,
    /// Spatial layers inside the encoding (VP9 and AV1).
    pub spatial_layers: u8,
    pub level: Option<u8>,
    rtx_sequence: u16,
    sent: BTreeMap<u16, Vec<u8>>,
}

impl Encoder {
    pub fn new(codec: Codec, encoding: u8) -> Self {
        let base = u32::from(encoding) + 1;
        Self {
            codec,
            encoding,
            ssrc: 1_000 * base,
            rtx_ssrc: 1_000 * base + 1,
            payload_type: 96,
            mid: None,
            rid: None,
            ids: publisher_ids(),
            // Every encoding begins elsewhere, near a wrap.
            sequence: 65_500_u16.wrapping_add(200 * u16::from(encoding)),
            timestamp: (u32::MAX - 20_000).wrapping_add(900_000 * u32::from(encoding)),
            picture: 32_700 - 300 * u16::from(encoding),
            tl0: 250_u8.wrapping_sub(encoding.wrapping_mul(50)),
            frame: 0,
            frame_number: 65_000 - 1_000 * u16::from(encoding),
            spatial_layers: 1,
            level: None,
            rtx_sequence: 100,
            sent: BTreeMap::new(),
        }
    }

    pub fn with_mid(mut self, mid: &str) -> Self {
        self.mid = Some(mid.to_owned());
        self
    }

    pub fn with_rid(mut self, rid: &str) -> Self {
        self.rid = Some(rid.to_owned());
        self
    }

    /// The packets of a picture; the clock then goes on by `advance` units.
    pub fn picture(&mut self, picture: Picture, advance: u32) -> Vec<Vec<u8>> {
        let payloads = match self.codec {
            Codec::Vp8 => self.vp8(picture),
            Codec::Vp9 => self.vp9(picture),
            Codec::H264 => self.h264(picture),
            Codec::Av1 => self.av1(picture),
            Codec::Opus => vec![Payload { bytes: self.mark(0, 1, &[], 60), ..Payload::default() }],
        };
        let count = payloads.len();
        let packets = payloads
            .into_iter()
            .enumerate()
            .map(|(index, payload)| {
                let marker = index + 1 == count && self.codec != Codec::Opus;
                self.packet(&payload, marker)
            })
            .collect();
        self.timestamp = self.timestamp.wrapping_add(advance);
        self.frame += 1;
        packets
    }

    /// A packet that has nothing but padding.
    pub fn padding(&mut self) -> Vec<u8> {
        let mut packet = self.header(self.payload_type, false, &[]);
        packet.extend([0, 0, 0, 4]);
        packet[0] |= 0x20;
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// The retransmission of a packet that was sent.
    pub fn resend(&mut self, sequence: u16) -> Option<Vec<u8>> {
        let original = self.sent.get(&sequence)?.clone();
        let view = headwater_rtp::RtpView::parse(&original).unwrap();
        let mut bytes = vec![0; 200];
        let rid = self.rid.clone().unwrap_or_default();
        let mid = self.mid.clone().unwrap_or_default();
        let mut extensions = vec![];
        if !mid.is_empty() {
            extensions.push((self.ids.get(HeaderExtension::Mid).unwrap(), mid.as_bytes()));
        }
        if !rid.is_empty() {
            extensions.push((self.ids.get(HeaderExtension::RepairedRid).unwrap(), rid.as_bytes()));
        }
        let dependency = self.ids.get(HeaderExtension::DependencyDescriptor).unwrap();
        if let Some(value) = view.extension(dependency) {
            extensions.push((dependency, value));
        }
        let header = RtpHeader {
            payload_type: self.payload_type + 1,
            marker: view.marker(),
            sequence: self.rtx_sequence,
            timestamp: view.timestamp(),
            ssrc: self.rtx_ssrc,
        };
        self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        let len = header.write(&extensions, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes.extend(rtx::prefix(sequence));
        bytes.extend(view.payload());
        Some(bytes)
    }

    fn packet(&mut self, payload: &Payload, marker: bool) -> Vec<u8> {
        let mut packet = self.header(self.payload_type, marker, &payload.dependency);
        packet.extend(&payload.bytes);
        self.sent.insert(self.sequence, packet.clone());
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    fn header(&self, payload_type: u8, marker: bool, dependency: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 400];
        let mut extensions: Vec<(u8, &[u8])> = Vec::new();
        let level = self.level.unwrap_or(0);
        let mut add = |extension, value| extensions.push((self.ids.get(extension).unwrap(), value));
        if let Some(mid) = &self.mid {
            add(HeaderExtension::Mid, mid.as_bytes());
        }
        if let Some(rid) = &self.rid {
            add(HeaderExtension::Rid, rid.as_bytes());
        }
        let level = [0x80 | level];
        if self.level.is_some() {
            add(HeaderExtension::AudioLevel, &level);
        }
        if !dependency.is_empty() {
            add(HeaderExtension::DependencyDescriptor, dependency);
        }
        let header = RtpHeader {
            payload_type,
            marker,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        let len = header.write(&extensions, &mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn mark(&self, packet: u8, packets: u8, head: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = head.to_vec();
        bytes.extend(
            Mark { encoding: self.encoding, frame: self.frame, packet, packets }.to_bytes(),
        );
        bytes.resize(bytes.len().max(size), 0x55);
        bytes
    }

    fn vp8(&mut self, picture: Picture) -> Vec<Payload> {
        if picture.temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        let payload = |packet: u8| {
            let descriptor = Vp8Descriptor {
                non_reference: false,
                start_of_partition: packet == 0,
                partition: 0,
                picture_id: Some(PictureId::Long(self.picture)),
                tl0_picture_index: Some(self.tl0),
                // Every second layer synchronises, as libvpx's patterns do.
                temporal: Some(TemporalLayer { id: picture.temporal, sync: picture.temporal > 0 }),
                key_index: None,
                len: 0,
            };
            let mut head = vec![0; 8];
            let len = descriptor.write(&mut head).unwrap();
            head.truncate(len);
            head.push(u8::from(!(picture.key && packet == 0)));
            Payload {
                bytes: self.mark(packet, picture.packets, &head, picture.size),
                ..Payload::default()
            }
        };
        (0..picture.packets).map(payload).collect()
    }

    fn h264(&self, picture: Picture) -> Vec<Payload> {
        let mut payloads = Vec::new();
        let count = picture.packets + u8::from(picture.key);
        if picture.key {
            let sets = [0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68];
            payloads.push(self.mark(0, count, &sets, picture.size));
        }
        let kind = if picture.key { 0x05 } else { 0x01 };
        for packet in 0..picture.packets {
            let start = if packet == 0 { 0x80 } else { 0 };
            let end = if packet + 1 == picture.packets { 0x40 } else { 0 };
            let head = [0x7c, kind | start | end];
            payloads.push(self.mark(payloads.len() as u8, count, &head, picture.size));
        }
        payloads.into_iter().map(|bytes| Payload { bytes, ..Payload::default() }).collect()
    }

    /// Non-flexible mode; each spatial layer has `packets` packets.
    fn vp9(&mut self, picture: Picture) -> Vec<Payload> {
        if picture.temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        let mut payloads = Vec::new();
        let total = picture.packets * self.spatial_layers;
        for spatial in 0..self.spatial_layers {
            for packet in 0..picture.packets {
                let (begin, end) = (packet == 0, packet + 1 == picture.packets);
                let inter = u8::from(!picture.key);
                let first = 0xa0 | inter << 6 | u8::from(begin) << 3 | u8::from(end) << 2;
                let id = (self.picture | 0x8000).to_be_bytes();
                // Switching up is possible everywhere, as in libvpx's patterns.
                let layers = picture.temporal << 5 | 0x10 | spatial << 1 | u8::from(spatial > 0);
                let head = [first, id[0], id[1], layers, self.tl0];
                let bytes = self.mark(payloads.len() as u8, total, &head, picture.size);
                payloads.push(Payload { bytes, ..Payload::default() });
            }
        }
        payloads
    }

    /// Two spatial layers if `spatial_layers` is 2, with dependency descriptors.
    fn av1(&mut self, picture: Picture) -> Vec<Payload> {
        let mut payloads = Vec::new();
        let total = picture.packets * self.spatial_layers;
        for spatial in 0..self.spatial_layers {
            for packet in 0..picture.packets {
                let (start, end) = (packet == 0, packet + 1 == picture.packets);
                let structure = picture.key && spatial == 0 && start;
                let dependency = av1::descriptor(
                    spatial,
                    picture.temporal,
                    start,
                    end,
                    self.frame_number,
                    structure,
                );
                // One OBU element that fills the packet; a new sequence on keyframes.
                let head = [0x10 | u8::from(structure) << 3, 0x30];
                let bytes = self.mark(payloads.len() as u8, total, &head, picture.size);
                payloads.push(Payload { bytes, dependency });
            }
            self.frame_number = self.frame_number.wrapping_add(1);
        }
        payloads
    }
}

#[derive(Default)]
struct Payload {
    bytes: Vec<u8>,
    dependency: Vec<u8>,
}
