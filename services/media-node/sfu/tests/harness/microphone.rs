//! A publisher of sound with redundancy (RED, RFC 2198).

use std::collections::VecDeque;

use headwater_model::media::{Codec, PayloadMapping, Publication, Subscription};
use headwater_rtp::RtpView;
use headwater_rtp::red::{self, RedundantBlock};

use super::publisher::{Encoder, delta};
use super::{mapping, publication, subscription};

/// Payload types of the publisher: RED and what is in it.
pub const RED: u8 = 63;
pub const OPUS: u8 = 111;
/// Payload type of RED at subscribers. Blocks are not rewritten, so Opus has the same.
pub const TAKEN_RED: u8 = 120;
/// Clock units of a packet of 20 ms.
pub const PACKET: u32 = 960;

/// RED around the publisher's Opus.
pub fn red_mapping(payload_type: u8) -> PayloadMapping {
    PayloadMapping { red_of: Some(OPUS), ..mapping(Codec::Opus, payload_type) }
}

/// A publication of Opus in RED and without.
pub fn publication_with_red() -> Publication {
    let codecs = vec![red_mapping(RED), mapping(Codec::Opus, OPUS)];
    Publication { codecs, ..publication(Codec::Opus, "0", &[]) }
}

/// A subscription that takes both.
pub fn subscription_with_red(ssrc: u32) -> Subscription {
    let codecs = vec![mapping(Codec::Opus, OPUS), red_mapping(TAKEN_RED)];
    Subscription { codecs, ..subscription(Codec::Opus, ssrc) }
}

/// A microphone whose packets have the last ones in them.
pub struct Microphone {
    pub encoder: Encoder,
    depth: usize,
    /// Timestamps and contents of the last packets, oldest first.
    pub last: VecDeque<(u32, Vec<u8>)>,
}

impl Microphone {
    pub fn new(depth: usize) -> Self {
        let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
        encoder.level = Some(20);
        Self { encoder, depth, last: VecDeque::new() }
    }

    /// The next packet, with as much redundancy as there is; the clock then goes on.
    pub fn packet(&mut self, advance: u32) -> Vec<u8> {
        self.encoder.payload_type = RED;
        let timestamp = self.encoder.timestamp;
        let plain = self.encoder.picture(delta(1, 0), advance).remove(0);
        let view = RtpView::parse(&plain).unwrap();
        let blocks: Vec<RedundantBlock<'_>> = self
            .last
            .iter()
            .map(|(before, payload)| (timestamp.wrapping_sub(*before), payload))
            .filter(|(offset, _)| *offset <= u32::from(red::OFFSET_MAX))
            .map(|(offset, payload)| RedundantBlock {
                payload_type: OPUS,
                timestamp_offset: offset as u16,
                payload,
            })
            .collect();
        let mut packet = plain[..view.header_len()].to_vec();
        let mut buffer = [0; 1_400];
        let len = red::write(&blocks, (OPUS, view.payload()), &mut buffer).unwrap();
        packet.extend(&buffer[..len]);
        self.last.push_back((timestamp, view.payload().to_vec()));
        if self.last.len() > self.depth {
            self.last.pop_front();
        }
        packet
    }

    /// The next packet without redundancy, as senders send what is too long for it.
    pub fn plain(&mut self) -> Vec<u8> {
        self.encoder.payload_type = OPUS;
        self.last.clear();
        self.encoder.picture(delta(1, 0), PACKET).remove(0)
    }
}
