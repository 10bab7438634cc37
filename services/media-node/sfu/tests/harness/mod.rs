//! A small world around the core: publishers that make packets, subscribers that check
//! what they get, and time that moves only when it is told to.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a harness may fail and say so")]

pub mod av1;
pub mod microphone;
pub mod publisher;
pub mod random;
pub mod subscriber;

use std::time::{Duration, Instant};

use headwater_model::media::{
    Codec, Encoding, ExtensionIds, HeaderExtension, MediaKind, PayloadMapping, Publication,
    Subscription, SubscriptionKey, TrackKey, TransportKey,
};
use headwater_sfu::{Egress, OutgoingRtp, Sfu, SfuConfig, SfuEvent};

/// Everything that the core sent.
#[derive(Debug, Default)]
pub struct Sent {
    pub rtp: Vec<(TransportKey, Vec<u8>)>,
    pub rtcp: Vec<(TransportKey, Vec<u8>)>,
}

impl Egress for Sent {
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        let mut bytes = vec![0; packet.len()];
        assert_eq!(packet.copy_into(&mut bytes), Some(bytes.len()));
        self.rtp.push((to, bytes));
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        assert!(compound.len() <= 1_200 && compound.len().is_multiple_of(4));
        self.rtcp.push((to, compound.to_vec()));
    }
}

/// A core on a clock of its own.
pub struct World {
    pub sfu: Sfu,
    pub now: Instant,
    pub start: Instant,
    pub sent: Sent,
    pub events: Vec<SfuEvent>,
}

impl World {
    pub fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
        let now = Instant::now();
        let config =
            SfuConfig { wall_clock: Duration::from_secs(1_800_000_000), ..SfuConfig::default() };
        Self {
            sfu: Sfu::new(config, 7, now),
            now,
            start: now,
            sent: Sent::default(),
            events: Vec::new(),
        }
    }

    /// Adds a transport that is connected.
    pub fn transport(&mut self, key: u32) -> TransportKey {
        let key = TransportKey(key);
        self.sfu.add_transport(key).unwrap();
        self.sfu.set_connected(self.now, key, true);
        key
    }

    pub fn publish(
        &mut self,
        transport: TransportKey,
        track: u32,
        publication: &Publication,
    ) -> TrackKey {
        let track = TrackKey(track);
        self.sfu.publish(self.now, transport, track, publication.clone()).unwrap();
        track
    }

    pub fn subscribe(
        &mut self,
        key: u32,
        track: TrackKey,
        transport: TransportKey,
        wanted: &Subscription,
    ) -> SubscriptionKey {
        let key = SubscriptionKey(key);
        self.sfu.subscribe(self.now, key, track, transport, wanted.clone()).unwrap();
        key
    }

    pub fn rtp(&mut self, from: TransportKey, packet: &[u8]) {
        self.sfu.handle_rtp(self.now, from, packet);
    }

    pub fn rtcp(&mut self, from: TransportKey, compound: &[u8]) {
        self.sfu.handle_rtcp(self.now, from, compound);
    }

    /// Lets the core hand out what it has.
    pub fn drain(&mut self) {
        self.sfu.drain(self.now, &mut self.sent);
        while let Some(event) = self.sfu.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, with every timer in it.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(due) = self.sfu.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.sfu.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Gives packets in one batch and drains.
    pub fn batch(&mut self, from: TransportKey, packets: &[Vec<u8>]) {
        for packet in packets {
            self.rtp(from, packet);
        }
        self.drain();
    }

    /// Takes the RTP that went to a transport.
    pub fn take_rtp(&mut self, to: TransportKey) -> Vec<Vec<u8>> {
        take(&mut self.sent.rtp, to)
    }

    /// Takes the RTCP that went to a transport.
    pub fn take_rtcp(&mut self, to: TransportKey) -> Vec<Vec<u8>> {
        take(&mut self.sent.rtcp, to)
    }
}

fn take(list: &mut Vec<(TransportKey, Vec<u8>)>, to: TransportKey) -> Vec<Vec<u8>> {
    let (taken, left) = std::mem::take(list).into_iter().partition(|(key, _)| *key == to);
    *list = left;
    let taken: Vec<_> = taken;
    taken.into_iter().map(|(_, bytes)| bytes).collect()
}

/// Ids that publishers use.
pub fn publisher_ids() -> ExtensionIds {
    ids(&[
        (HeaderExtension::Mid, 4),
        (HeaderExtension::Rid, 10),
        (HeaderExtension::RepairedRid, 11),
        (HeaderExtension::TransportCc, 5),
        (HeaderExtension::AbsSendTime, 2),
        (HeaderExtension::AudioLevel, 1),
        (HeaderExtension::DependencyDescriptor, 13),
        (HeaderExtension::VideoOrientation, 3),
        (HeaderExtension::PlayoutDelay, 6),
    ])
}

/// Ids that subscribers use: all others.
pub fn subscriber_ids() -> ExtensionIds {
    ids(&[
        (HeaderExtension::Mid, 9),
        (HeaderExtension::TransportCc, 3),
        (HeaderExtension::AbsSendTime, 12),
        (HeaderExtension::AudioLevel, 14),
        (HeaderExtension::DependencyDescriptor, 8),
        (HeaderExtension::VideoOrientation, 7),
        (HeaderExtension::PlayoutDelay, 2),
    ])
}

pub fn ids(list: &[(HeaderExtension, u8)]) -> ExtensionIds {
    let mut ids = ExtensionIds::default();
    for (extension, id) in list {
        ids.set(*extension, *id);
    }
    ids
}

/// A codec with retransmissions under the payload type behind it.
pub fn mapping(codec: Codec, payload_type: u8) -> PayloadMapping {
    PayloadMapping {
        codec,
        payload_type,
        rtx_payload_type: (codec.kind() == MediaKind::Video).then_some(payload_type + 1),
        format: String::new(),
        nack: true,
        pli: true,
        transport_cc: true,
        red_of: None,
    }
}

/// A publication of one codec with encodings of these RIDs; one without RID if there
/// are none.
pub fn publication(codec: Codec, mid: &str, rids: &[&str]) -> Publication {
    let encoding = |index: usize, rid: Option<&&str>| Encoding {
        spatial: index as u8,
        rid: rid.map(|rid| (*rid).to_owned()),
        ..Encoding::default()
    };
    let encodings = if rids.is_empty() {
        vec![encoding(0, None)]
    } else {
        rids.iter().enumerate().map(|(index, rid)| encoding(index, Some(rid))).collect()
    };
    Publication {
        kind: codec.kind(),
        mid: mid.to_owned(),
        codecs: vec![mapping(codec, 96)],
        extensions: publisher_ids(),
        encodings,
    }
}

/// A subscription of one codec under another payload type.
pub fn subscription(codec: Codec, ssrc: u32) -> Subscription {
    Subscription {
        mid: format!("s{}", ssrc % 100),
        ssrc,
        rtx_ssrc: (codec.kind() == MediaKind::Video).then_some(ssrc + 0x8000_0000),
        codecs: vec![mapping(codec, 101)],
        extensions: subscriber_ids(),
    }
}
