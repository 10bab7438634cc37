//! What happens at which time. Timers name their owner by place and key: a place is
//! used again, a key never is, so a timer of somebody who left does nothing.

use headwater_model::media::{MediaKind, TrackKey, TransportKey};

use super::Sfu;
use super::events::EVENTS_MAX;
use crate::SfuEvent;
use crate::clock::Micros;
use crate::event::{Limitation, Quality, QualitySubject};
use crate::ingress::level::SPEAKER_INTERVAL;
use crate::link::Heard;

/// How often it is looked which encodings arrive and who still waits.
pub(super) const TICK_INTERVAL: Micros = Micros::from_millis(250);
/// The same while nothing arrives and somebody waits.
const QUIET_TICK_INTERVAL: Micros = Micros::from_millis(1_000);
/// How often quality is told.
pub(super) const QUALITY_INTERVAL: Micros = Micros::from_millis(5_000);

/// Timers of a link that are armed at once, and of a track; its request for keyframes may
/// be armed anew for an earlier time.
const TIMERS_OF_LINK: usize = 6;
const TIMERS_OF_TRACK: usize = 4;

/// A link at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkRef {
    pub(super) index: u32,
    pub(super) key: TransportKey,
}

/// A track at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TrackRef {
    pub(super) index: u32,
    pub(super) key: TrackKey,
}

/// What is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timer {
    /// Transport-wide feedback to a publisher.
    Feedback(LinkRef),
    /// Receiver report to a publisher.
    Reports(LinkRef),
    /// Sender reports to a subscriber.
    SenderReports(LinkRef),
    /// Quality of a transport and the tracks it publishes.
    LinkQuality(LinkRef),
    /// Missing packets of a track.
    Nack(TrackRef),
    /// Keyframe requests of a track.
    Keyframe(TrackRef),
    /// Liveness of a track's encodings.
    Tick(TrackRef),
    /// What a subscriber's network takes.
    Downlink(LinkRef),
    /// The next burst of a probe.
    Probe(LinkRef),
    /// Levels of all audio tracks that are not silent.
    Speakers,
}

impl Sfu {
    /// Makes room for what one more link or track needs later, so that nothing grows while
    /// packets flow.
    pub(super) fn reserve(&mut self) {
        let (links, tracks) = (self.links.len(), self.tracks.len());
        let timers = TIMERS_OF_LINK * links + TIMERS_OF_TRACK * tracks + 1;
        self.wheel.reserve(timers);
        for list in [&mut self.fired, &mut self.due] {
            list.reserve(timers.saturating_sub(list.len()));
        }
        let lists = [(&mut self.queued, tracks), (&mut self.metered, tracks)];
        for (list, most) in lists.into_iter().chain([(&mut self.allocations, links)]) {
            list.reserve(most.saturating_sub(list.len()));
        }
        // Quality of all at once is what tells most.
        let events = (links + 2 * tracks).min(EVENTS_MAX);
        self.events.reserve(events.saturating_sub(self.events.len()));
    }

    pub(super) fn expire(&mut self, now: Micros) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.expire(now, &mut fired);
        for timer in fired.drain(..) {
            match timer {
                Timer::Speakers => self.finish_speaker_interval(now),
                Timer::Tick(track) => self.tick(now, track),
                Timer::LinkQuality(link) => self.tell_quality(now, link),
                Timer::Downlink(link) => self.tick_downlink(now, link),
                Timer::Feedback(_)
                | Timer::Reports(_)
                | Timer::SenderReports(_)
                | Timer::Nack(_)
                | Timer::Probe(_)
                | Timer::Keyframe(_) => self.due.push(timer),
            }
        }
        self.fired = fired;
    }

    pub(super) fn is_link(&self, link: LinkRef) -> bool {
        self.links.get(link.index as usize).is_some_and(|found| found.key == link.key)
    }

    pub(super) fn is_track(&self, track: TrackRef) -> bool {
        self.tracks.get(track.index as usize).is_some_and(|found| found.key == track.key)
    }

    pub(super) fn arm_tick(&mut self, now: Micros, index: u32) {
        self.arm_tick_in(now, index, TICK_INTERVAL);
    }

    fn arm_tick_in(&mut self, now: Micros, index: u32, interval: Micros) {
        let track = &mut self.tracks[index as usize];
        if !track.tick_armed {
            track.tick_armed = true;
            track.ticked = now;
            let reference = TrackRef { index, key: track.key };
            self.wheel.arm(now.plus(interval), Timer::Tick(reference));
        }
    }

    /// Looks which encodings of a track arrive, and lets those who wait ask again.
    fn tick(&mut self, now: Micros, reference: TrackRef) {
        if !self.is_track(reference) {
            return;
        }
        let track = &mut self.tracks[reference.index as usize];
        track.tick_armed = false;
        let changed = track.look_alive();
        for stream in &mut track.streams {
            stream.rates.measure(now);
        }
        let arrived = track.arrived_since(track.ticked);
        // A request may have got lost while nothing else is sent.
        let waits = track.unsettled && track.streams.iter().any(|stream| stream.ssrc.is_some());
        let video = track.kind() == MediaKind::Video;
        let interval = if arrived { TICK_INTERVAL } else { QUIET_TICK_INTERVAL };
        if track.unsettled {
            self.queue(reference.index);
        }
        if changed {
            self.aim_track(reference.index);
        }
        if (arrived && video) || waits {
            self.arm_tick_in(now, reference.index, interval);
        }
    }

    fn finish_speaker_interval(&mut self, now: Micros) {
        let mut metered = std::mem::take(&mut self.metered);
        metered.retain(|index| {
            let Some(track) = self.tracks.get_mut(*index as usize) else {
                return false;
            };
            if !track.metered {
                return false;
            }
            let key = track.key;
            let news = track.meter.finish_interval();
            let keep = !track.meter.is_quiet();
            track.metered = keep;
            if let Some(level) = news {
                self.tell(SfuEvent::SpeakerLevel {
                    track: key,
                    level: level.level,
                    active: level.active,
                });
            }
            keep
        });
        self.speakers_armed = !metered.is_empty();
        self.metered = metered;
        if self.speakers_armed {
            self.wheel.arm(now.plus(SPEAKER_INTERVAL), Timer::Speakers);
        }
    }

    /// Tells how a transport and the tracks it publishes fared; silent ones are left
    /// out, and a transport that is silent altogether is not looked at again.
    fn tell_quality(&mut self, now: Micros, reference: LinkRef) {
        if !self.is_link(reference) {
            return;
        }
        let limitation = self.limitation(reference.index);
        let link = &mut self.links[reference.index as usize];
        let heard = std::mem::take(&mut link.heard);
        let rtt = link.rtt.map(Micros::to_duration);
        let mut any = heard.expected > 0;
        if any {
            let quality = Quality {
                subject: QualitySubject::Subscriber(link.key),
                packets: heard.expected,
                loss_ratio: ratio(heard.lost, heard.expected),
                rtt,
                jitter: heard.jitter.to_duration(),
                limitation,
            };
            self.tell(SfuEvent::Quality(quality));
        }
        for position in 0.. {
            let Some(&index) = self.links[reference.index as usize].tracks.get(position) else {
                break;
            };
            let Some(mut quality) = self.track_quality(index) else {
                continue;
            };
            quality.rtt = rtt;
            any = true;
            self.tell(SfuEvent::Quality(quality));
        }
        let link = &mut self.links[reference.index as usize];
        link.quality_armed = any;
        if any {
            self.wheel.arm(now.plus(QUALITY_INTERVAL), Timer::LinkQuality(reference));
        }
    }

    fn track_quality(&mut self, index: u32) -> Option<Quality> {
        let track = &mut self.tracks[index as usize];
        let rate = u64::from(track.codec?.clock_rate());
        let (mut expected, mut received, mut jitter) = (0, 0, 0);
        for stream in &mut track.streams {
            let arrived = stream.reception.watch();
            expected += arrived.expected;
            received += arrived.received;
            if arrived.received > 0 {
                jitter = jitter.max(u64::from(stream.reception.jitter()));
            }
        }
        (received > 0).then(|| Quality {
            subject: QualitySubject::Published(track.key),
            packets: received,
            loss_ratio: ratio(expected.saturating_sub(received), expected),
            rtt: None,
            jitter: Micros(jitter * 1_000_000 / rate).to_duration(),
            limitation: Limitation::None,
        })
    }

    pub(super) fn arm_quality(&mut self, now: Micros, index: u32) {
        let link = &mut self.links[index as usize];
        if !link.quality_armed {
            link.quality_armed = true;
            link.heard = Heard::default();
            let reference = LinkRef { index, key: link.key };
            self.wheel.arm(now.plus(QUALITY_INTERVAL), Timer::LinkQuality(reference));
        }
    }

    pub(super) fn arm_speakers(&mut self, now: Micros, index: u32) {
        let track = &mut self.tracks[index as usize];
        if !track.metered {
            track.metered = true;
            self.metered.push(index);
        }
        if !self.speakers_armed {
            self.speakers_armed = true;
            self.wheel.arm(now.plus(SPEAKER_INTERVAL), Timer::Speakers);
        }
    }
}

fn ratio(part: u64, whole: u64) -> f32 {
    if whole == 0 { 0.0 } else { (part.min(whole) as f64 / whole as f64) as f32 }
}
