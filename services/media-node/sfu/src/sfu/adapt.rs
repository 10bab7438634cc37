//! Adapts what subscribers get to what their networks take: hears feedback, divides
//! bandwidth among the tracks of a transport, sends probes. The arithmetic is in
//! `bandwidth`; here it meets tracks and deliveries.

use headwater_model::media::{MediaKind, Prominence, SubscriptionKey, TransportKey};
use headwater_rtp::rtcp::TransportFeedback;

use super::Sfu;
use super::drain::{RTT_UNKNOWN, stored};
use super::timers::{LinkRef, Timer};
use crate::bandwidth::allocate::{Demand, allocate};
use crate::bandwidth::downlink::Downlink;
use crate::bandwidth::probe::BURST_INTERVAL;
use crate::bandwidth::steps::steps;
use crate::clock::Micros;
use crate::egress::Egress;
use crate::event::Limitation;
use crate::forward::delivery::{Ceiling, Delivery};
use crate::forward::forwarder::Verdict;
use crate::forward::writer::Outlet;
use crate::{SfuError, SfuEvent};

/// How often bandwidth is divided anew although nothing was heard: rates of layers change.
const DOWNLINK_INTERVAL: Micros = Micros::from_millis(500);
/// Ticks of all transports fall on multiples of this, so that few wake-ups serve them.
const DOWNLINK_ALIGNMENT: u64 = 100_000;
/// A rising estimate is looked at this often.
const REALLOCATION_INTERVAL: Micros = Micros::from_millis(100);
/// Packets of one burst of a probe at most: 10 ms at 100 Mbit/s.
const BURST_PACKETS_MAX: usize = 128;
/// Recent packets that are looked at for repeating in a burst.
const RECENT_MAX: u64 = 48;
/// Padding packets are small, so repeated ones are taken while there is this much to fill.
const REPEAT_MIN: usize = 300;

impl Sfu {
    /// Pictures are to go to a transport: its network is watched once they do.
    pub(super) fn open_downlink(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if link.downlink.is_none() {
            let mut downlink = Box::new(Downlink::new());
            downlink.set_limit(link.downlink_limit);
            link.downlink = Some(downlink);
        }
    }

    /// Something was sent to a transport.
    pub(super) fn arm_downlink(&mut self, now: Micros, index: u32) {
        let link = &mut self.links[index as usize];
        if link.downlink.is_some() && !link.downlink_armed {
            link.downlink_armed = true;
            let reference = LinkRef { index, key: link.key };
            self.wheel.arm(next_tick(now), Timer::Downlink(reference));
        }
    }

    /// Nothing goes to a transport any more.
    pub(super) fn close_downlink(&mut self, index: u32) {
        let Some(downlink) = self.links[index as usize].downlink.take() else { return };
        let adaptation = &mut self.stats.adaptation;
        adaptation.estimated_transports -= u64::from(downlink.is_estimated());
        adaptation.limited_transports -= u64::from(downlink.outcome.limited);
    }

    pub(super) fn limit_link(&mut self, key: TransportKey, bps: Option<u64>) {
        let Some(&index) = self.link_index.get(&key) else { return };
        let link = &mut self.links[index as usize];
        link.downlink_limit = bps;
        if let Some(downlink) = &mut link.downlink {
            downlink.set_limit(bps);
        }
        self.queue_allocation(index);
    }

    pub(super) fn note_prominence(
        &mut self,
        key: SubscriptionKey,
        prominence: Prominence,
    ) -> Result<(), SfuError> {
        let index = *self.delivery_index.get(&key).ok_or(SfuError::UnknownSubscription(key))?;
        let delivery = &mut self.deliveries[index as usize];
        delivery.prominence = prominence;
        let link = delivery.link;
        self.queue_allocation(link);
        Ok(())
    }

    /// The next drain divides a transport's bandwidth anew.
    pub(super) fn queue_allocation(&mut self, index: u32) {
        let link = &mut self.links[index as usize];
        if link.downlink.is_some() && !link.allocation_queued {
            link.allocation_queued = true;
            self.allocations.push(index);
        }
    }

    /// The same for everybody who gets a track.
    pub(super) fn queue_allocations_of(&mut self, track: u32) {
        for position in 0.. {
            let Some(&delivery) = self.tracks[track as usize].deliveries.get(position) else {
                break;
            };
            let link = self.deliveries[delivery as usize].link;
            self.queue_allocation(link);
        }
    }

    pub(super) fn allocate_queued(&mut self, now: Micros) {
        while let Some(index) = self.allocations.pop() {
            if let Some(link) = self.links.get_mut(index as usize) {
                link.allocation_queued = false;
                self.allocate_link(now, index);
            }
        }
    }

    fn allocate_link(&mut self, now: Micros, index: u32) {
        let mut demands = std::mem::take(&mut self.demands);
        demands.clear();
        let link = &self.links[index as usize];
        let of_link =
            link.deliveries.iter().map(|index| (*index, &self.deliveries[*index as usize]));
        demands.extend(of_link.filter_map(|(index, delivery)| self.demand(index, delivery)));
        let Some(downlink) = self.links[index as usize].downlink.as_deref_mut() else {
            self.demands = demands;
            return;
        };
        let outcome = allocate(downlink.budget(now), &mut demands);
        let was_limited = downlink.outcome.limited;
        let falls = downlink.is_falling(now);
        downlink.note_outcome(now, outcome);
        let adaptation = &mut self.stats.adaptation;
        adaptation.allocations += 1;
        adaptation.limited_transports += u64::from(outcome.limited);
        adaptation.limited_transports -= u64::from(was_limited);
        for demand in &demands {
            let top = demand.steps.len().checked_sub(1);
            let ceiling = match demand.chosen.and_then(|step| demand.steps.get(step)) {
                None => Ceiling::Paused,
                Some(_) if demand.chosen == top => Ceiling::Free,
                Some(step) => Ceiling::UpTo { spatial: step.spatial, temporal: step.temporal },
            };
            self.set_ceiling(now, demand.delivery, ceiling);
            if falls {
                self.deliveries[demand.delivery as usize].forwarder.halt();
            }
        }
        self.demands = demands;
    }

    /// What a delivery asks for; `None` if nothing is sent or nothing can be chosen.
    fn demand(&self, index: u32, delivery: &Delivery) -> Option<Demand> {
        let track = &self.tracks[delivery.track as usize];
        let is_sent = track.kind() == MediaKind::Video
            && !track.muted
            && track.codec_index.is_some_and(|codec| delivery.takes(codec));
        if !is_sent {
            return None;
        }
        let steps = steps(track, delivery.target, delivery.prominence);
        let current = match delivery.ceiling {
            Ceiling::Free => steps.len().checked_sub(1)?,
            Ceiling::Paused => usize::MAX,
            Ceiling::UpTo { spatial, temporal } => steps
                .iter()
                .rposition(|step| (step.spatial, step.temporal) <= (spatial, temporal))
                .unwrap_or(0),
        };
        let Prominence { priority, pixels } = delivery.prominence;
        // Not told comes behind what is told; larger before smaller; older before newer.
        let priority = priority.wrapping_sub(1);
        Some(Demand {
            delivery: index,
            rank: (priority, u32::MAX - pixels, delivery.key.0),
            current: Some(current).filter(|current| *current < steps.len()),
            kept_percent: 100,
            chosen: None,
            steps,
        })
        .filter(|demand| !demand.steps.is_empty())
    }

    fn set_ceiling(&mut self, now: Micros, index: u32, ceiling: Ceiling) {
        let delivery = &mut self.deliveries[index as usize];
        let before = std::mem::replace(&mut delivery.ceiling, ceiling);
        if before == ceiling {
            return;
        }
        let (subscription, track, link) = (delivery.key, delivery.track, delivery.link);
        let (was_paused, paused) = (before == Ceiling::Paused, ceiling == Ceiling::Paused);
        if was_paused != paused {
            let paused_now = &mut self.stats.adaptation.paused_subscriptions;
            *paused_now += u64::from(paused);
            *paused_now -= u64::from(was_paused);
            let (key, transport) = (self.tracks[track as usize].key, self.links[link as usize].key);
            self.tell(SfuEvent::Paused { subscription, track: key, transport, paused });
        }
        self.aim(index);
        self.unsettle(now, track);
    }

    /// A delivery ends, whatever its state.
    pub(super) fn forget_ceiling(&mut self, delivery: &Delivery) {
        let was_paused = delivery.ceiling == Ceiling::Paused;
        self.stats.adaptation.paused_subscriptions -= u64::from(was_paused);
        self.queue_allocation(delivery.link);
    }

    pub(super) fn note_transport_feedback(
        &mut self,
        now: Micros,
        index: u32,
        feedback: &TransportFeedback<'_>,
    ) {
        let link = &mut self.links[index as usize];
        let Some(downlink) = link.downlink.as_deref_mut() else { return };
        let adaptation = &mut self.stats.adaptation;
        adaptation.feedback_in += 1;
        let was_estimated = downlink.is_estimated();
        let fell = downlink.handle_feedback(now, feedback, link.rtt);
        adaptation.estimated_transports += u64::from(downlink.is_estimated());
        adaptation.estimated_transports -= u64::from(was_estimated);
        adaptation.estimate_cuts += u64::from(fell);
        let may_rise =
            downlink.outcome.limited && now.since(downlink.allocated) >= REALLOCATION_INTERVAL;
        if fell || may_rise {
            self.queue_allocation(index);
        }
        self.probe_if_due(now, index);
    }

    pub(super) fn note_remb(&mut self, now: Micros, index: u32, bps: u64) {
        let Some(downlink) = self.links[index as usize].downlink.as_deref_mut() else { return };
        let was_estimated = downlink.is_estimated();
        downlink.handle_remb(now, bps);
        let adaptation = &mut self.stats.adaptation;
        adaptation.estimated_transports += u64::from(downlink.is_estimated());
        adaptation.estimated_transports -= u64::from(was_estimated);
        self.queue_allocation(index);
    }

    pub(super) fn tick_downlink(&mut self, now: Micros, reference: LinkRef) {
        if !self.is_link(reference) {
            return;
        }
        let index = reference.index;
        let link = &mut self.links[index as usize];
        link.downlink_armed = false;
        if link.deliveries.is_empty() {
            self.close_downlink(index);
            return;
        }
        let Some(downlink) = link.downlink.as_deref_mut() else { return };
        let was_estimated = downlink.is_estimated();
        let goes_on = downlink.tick(now);
        self.stats.adaptation.estimated_transports -=
            u64::from(was_estimated && !downlink.is_estimated());
        if goes_on {
            link.downlink_armed = true;
            self.wheel.arm(next_tick(now), Timer::Downlink(reference));
        }
        self.queue_allocation(index);
        self.probe_if_due(now, index);
    }

    fn probe_if_due(&mut self, now: Micros, index: u32) {
        let link = &self.links[index as usize];
        let is_limited = link.downlink.as_ref().is_some_and(|downlink| downlink.outcome.limited);
        if !is_limited || !link.connected {
            return;
        }
        let can_probe = self.prober_of(index).is_some();
        let link = &mut self.links[index as usize];
        let Some(downlink) = link.downlink.as_deref_mut() else { return };
        if !can_probe {
            downlink.grow_unprobed(now);
        } else if downlink.begin_probe(now) && !link.probe_armed {
            link.probe_armed = true;
            self.due.push(Timer::Probe(LinkRef { index, key: link.key }));
            self.stats.adaptation.probes += 1;
        }
    }

    /// A delivery to probe with: one that flows, else any.
    fn prober_of(&self, index: u32) -> Option<u32> {
        let deliveries = &self.links[index as usize].deliveries;
        let delivery = |index: &u32| &self.deliveries[*index as usize];
        let mut able = deliveries.iter().filter(|index| delivery(index).probing_codec().is_some());
        let first = able.clone().next();
        able.find(|index| !delivery(index).is_paused()).or(first).copied()
    }

    /// Sends a burst of a probe.
    pub(super) fn send_probe(&mut self, now: Micros, reference: LinkRef, egress: &mut impl Egress) {
        let index = reference.index;
        self.links[index as usize].probe_armed = false;
        let prober = self.prober_of(index);
        let link = &mut self.links[index as usize];
        let next = link.next_transport_sequence;
        let Some(downlink) = link.downlink.as_deref_mut() else { return };
        let Some((bytes, is_last)) = downlink.prober.next_burst(now, next) else { return };
        let sent = match prober {
            Some(delivery) if link.connected => {
                self.send_burst(now, (index, delivery), bytes, egress)
            }
            Some(_) | None => 0,
        };
        let link = &mut self.links[index as usize];
        let last = (is_last || sent == 0).then(|| link.next_transport_sequence.wrapping_sub(1));
        if let Some(downlink) = &mut link.downlink {
            downlink.prober.sent(now, sent, last);
        }
        if last.is_none() {
            link.probe_armed = true;
            self.wheel.arm(now.plus(BURST_INTERVAL), Timer::Probe(reference));
        }
    }

    /// Repeats what was sent last, newest first, and fills up with padding. Returns how
    /// many bytes that is.
    fn send_burst(
        &mut self,
        now: Micros,
        (link, delivery): (u32, u32),
        bytes: usize,
        egress: &mut impl Egress,
    ) -> usize {
        let link = &mut self.links[link as usize];
        let delivery = &mut self.deliveries[delivery as usize];
        let track = &self.tracks[delivery.track as usize];
        let mut outlet = Outlet {
            writer: &mut self.writer,
            egress,
            stats: &mut self.stats,
            to: link.key,
            transport_sequence: &mut link.next_transport_sequence,
            downlink: link.downlink.as_deref_mut(),
            now,
            rtt: link.rtt.unwrap_or(RTT_UNKNOWN),
        };
        let (mut sent, mut packets) = (0, 0);
        let next = delivery.forwarder.next_number();
        for number in (next.saturating_sub(RECENT_MAX).max(1)..next).rev() {
            let left = bytes.saturating_sub(sent);
            if left < REPEAT_MIN || packets >= BURST_PACKETS_MAX {
                break;
            }
            let found = delivery.forwarder.origin(number as u16).and_then(|(line, number)| {
                let stream = track.streams.get(usize::from(line.encoding))?;
                let packet = stream.packet(number)?;
                (packet.epoch == line.epoch).then_some((line, stream, packet))
            });
            let Some((line, stream, packet)) = found else { continue };
            let fits = usize::from(packet.payload_len) <= left + REPEAT_MIN;
            if let Verdict::Forward(placed) = delivery.forwarder.place_in(&line, packet)
                && fits
            {
                sent += outlet.probe_with(delivery, stored(stream, packet), placed);
                packets += 1;
            }
        }
        while sent < bytes && packets < BURST_PACKETS_MAX {
            let padding = outlet.pad(delivery, bytes - sent);
            if padding == 0 {
                break;
            }
            sent += padding;
            packets += 1;
        }
        self.stats.adaptation.padding_packets += packets as u64;
        self.stats.adaptation.padding_bytes += sent as u64;
        sent
    }

    pub(super) fn limitation(&self, index: u32) -> Limitation {
        let outcome = self.links[index as usize].downlink.as_ref().map(|downlink| downlink.outcome);
        match outcome {
            Some(outcome) if outcome.paused > 0 => Limitation::Paused,
            Some(outcome) if outcome.limited => Limitation::Reduced,
            Some(_) | None => Limitation::None,
        }
    }
}

fn next_tick(now: Micros) -> Micros {
    let at = now.plus(DOWNLINK_INTERVAL);
    Micros(at.0 - at.0 % DOWNLINK_ALIGNMENT)
}
