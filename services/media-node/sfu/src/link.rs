//! One transport as the core sees it: which SSRCs come and go over it, its
//! transport-wide numbers, its clock.

use headwater_model::media::{ExtensionIds, TransportKey};

use crate::bandwidth::downlink::Downlink;
use crate::clock::Micros;
use crate::forward::delivery::Ended;
use crate::ingress::arrivals::ArrivalLog;
use crate::random::Random;

/// SSRCs that one transport may send with: 32 tracks of three encodings with
/// retransmissions, and room to renew some. At the bound nothing more is learned.
const SOURCES_MAX: usize = 256;

/// SSRCs remembered after their subscription ended: those of the sections of a client
/// that negotiates once. Others never come back.
const ENDED_MAX: usize = 8;

/// What an SSRC of a publisher carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    /// Index of the track.
    pub(crate) track: u32,
    pub(crate) encoding: u8,
    /// Retransmissions of the encoding.
    pub(crate) repeat: bool,
}

/// An SSRC that we send with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sink {
    pub(crate) ssrc: u32,
    /// Index of the delivery.
    pub(crate) delivery: u32,
    /// Retransmissions of it.
    pub(crate) repeat: bool,
}

/// What a subscriber's reports said in the current quality interval.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Heard {
    pub(crate) expected: u64,
    pub(crate) lost: u64,
    pub(crate) jitter: Micros,
}

/// State of one transport.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: TransportKey,
    pub(crate) connected: bool,
    /// By SSRC.
    sources: Vec<Source>,
    /// By SSRC.
    sinks: Vec<Sink>,
    /// Indices of the tracks it publishes.
    pub(crate) tracks: Vec<u32>,
    /// Indices of the deliveries to it.
    pub(crate) deliveries: Vec<u32>,
    /// SSRCs we sent with before, oldest first.
    ended: Vec<Ended>,
    /// Extensions that it sends with.
    pub(crate) extensions: ExtensionIds,
    pub(crate) arrivals: ArrivalLog,
    /// Our clock minus the publisher's wall clock, in microseconds; includes the
    /// shortest way from there to here.
    clock_offset: Option<i64>,
    pub(crate) rtt: Option<Micros>,
    /// What we call ourselves when we report.
    pub(crate) local_ssrc: u32,
    /// Canonical name of all that this transport publishes, as subscribers see it.
    pub(crate) cname: [u8; 16],
    pub(crate) next_transport_sequence: u16,
    /// What its network takes; there once pictures are sent to it.
    pub(crate) downlink: Option<Box<Downlink>>,
    /// What its owner allows it, in bits per second.
    pub(crate) downlink_limit: Option<u64>,
    /// What it gets is to be divided anew by the next drain.
    pub(crate) allocation_queued: bool,
    pub(crate) downlink_armed: bool,
    pub(crate) probe_armed: bool,
    /// What a publisher without transport-wide feedback is allowed, in bits per second.
    pub(crate) remb: u64,
    pub(crate) heard: Heard,
    pub(crate) feedback_armed: bool,
    pub(crate) feedback_queued: bool,
    pub(crate) reports_armed: bool,
    pub(crate) sender_reports_armed: bool,
    pub(crate) quality_armed: bool,
    /// RTP came since the last receiver report.
    pub(crate) active: bool,
}

impl Link {
    pub(crate) fn new(key: TransportKey, random: &mut Random) -> Self {
        let mut cname = [0; 16];
        let digits = random.next_u64();
        for (index, byte) in cname.iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[(digits >> (4 * index)) as usize & 0xf];
        }
        Self {
            key,
            connected: false,
            sources: Vec::new(),
            sinks: Vec::new(),
            tracks: Vec::new(),
            deliveries: Vec::new(),
            ended: Vec::new(),
            extensions: ExtensionIds::default(),
            arrivals: ArrivalLog::default(),
            clock_offset: None,
            rtt: None,
            local_ssrc: random.next_u32().max(1),
            cname,
            next_transport_sequence: 0,
            downlink: None,
            downlink_limit: None,
            allocation_queued: false,
            downlink_armed: false,
            probe_armed: false,
            remb: 0,
            heard: Heard::default(),
            feedback_armed: false,
            feedback_queued: false,
            reports_armed: false,
            sender_reports_armed: false,
            quality_armed: false,
            active: false,
        }
    }

    /// Remembers where an SSRC ended. At the bound the oldest is forgotten: a
    /// subscription that takes it up again begins anywhere.
    pub(crate) fn note_ended(&mut self, ended: Ended) {
        self.ended.retain(|other| other.ssrc != ended.ssrc);
        if self.ended.len() >= ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    /// Where an SSRC ended that is taken up again.
    pub(crate) fn take_ended(&mut self, ssrc: u32) -> Option<Ended> {
        let index = self.ended.iter().position(|other| other.ssrc == ssrc)?;
        Some(self.ended.remove(index))
    }

    pub(crate) fn source(&self, ssrc: u32) -> Option<Source> {
        let index = self.sources.binary_search_by_key(&ssrc, |source| source.ssrc).ok()?;
        Some(self.sources[index])
    }

    pub(crate) fn is_full(&self) -> bool {
        self.sources.len() >= SOURCES_MAX
    }

    /// Learns what an SSRC carries. `false` if there is no room.
    pub(crate) fn add_source(&mut self, source: Source) -> bool {
        match self.sources.binary_search_by_key(&source.ssrc, |other| other.ssrc) {
            Ok(index) => self.sources[index] = source,
            Err(_) if self.is_full() => return false,
            Err(index) => self.sources.insert(index, source),
        }
        true
    }

    pub(crate) fn forget_source(&mut self, ssrc: u32) {
        self.sources.retain(|source| source.ssrc != ssrc);
    }

    pub(crate) fn forget_track(&mut self, track: u32) {
        self.sources.retain(|source| source.track != track);
        self.tracks.retain(|other| *other != track);
    }

    /// Forgets the SSRCs of a track's encodings from the one at `count` on.
    pub(crate) fn forget_encodings(&mut self, track: u32, count: usize) {
        let gone = |source: &Source| source.track == track && usize::from(source.encoding) >= count;
        self.sources.retain(|source| !gone(source));
    }

    pub(crate) fn sink(&self, ssrc: u32) -> Option<Sink> {
        let index = self.sinks.binary_search_by_key(&ssrc, |sink| sink.ssrc).ok()?;
        Some(self.sinks[index])
    }

    /// Sends with an SSRC from now on. It must not be in use.
    pub(crate) fn add_sink(&mut self, sink: Sink) {
        let index = self.sinks.partition_point(|other| other.ssrc < sink.ssrc);
        self.sinks.insert(index, sink);
    }

    pub(crate) fn forget_delivery(&mut self, delivery: u32) {
        self.sinks.retain(|sink| sink.delivery != delivery);
        self.deliveries.retain(|other| *other != delivery);
    }

    pub(crate) fn forget_sinks(&mut self, delivery: u32) {
        self.sinks.retain(|sink| sink.delivery != delivery);
    }

    /// A sender report with the publisher's wall clock came now. All of a publisher's
    /// tracks share one offset, so its sound and pictures stay together whatever time
    /// each report took.
    pub(crate) fn note_clock(&mut self, now: Micros, ntp_micros: u64) {
        let sample = (now.0.wrapping_sub(ntp_micros)).cast_signed();
        self.clock_offset = Some(match self.clock_offset {
            // The shortest way is the truest; clocks that drift apart are followed
            // slowly. A leap is another clock.
            Some(offset) if sample < offset => sample,
            Some(offset) if sample.saturating_sub(offset) > 10_000_000 => sample,
            Some(offset) => offset + (sample - offset) / 64,
            None => sample,
        });
    }

    /// The publisher's wall clock now, in microseconds of NTP time.
    pub(crate) fn publisher_clock(&self, now: Micros) -> Option<u64> {
        Some(now.0.wrapping_sub(self.clock_offset?.cast_unsigned()))
    }

    pub(crate) fn note_rtt(&mut self, rtt: Micros) {
        self.rtt = Some(match self.rtt {
            Some(before) => Micros((before.0 * 7 + rtt.0) / 8),
            None => rtt,
        });
    }

    pub(crate) fn cname(&self) -> &str {
        // Hexadecimal digits.
        std::str::from_utf8(&self.cname).unwrap_or("headwater")
    }
}
