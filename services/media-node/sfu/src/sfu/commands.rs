//! Commands: what is published, who gets it, which layers.

use headwater_model::media::{
    Publication, Subscription, SubscriptionKey, SubscriptionTarget, TrackKey, TransportKey,
};

use super::Sfu;
use crate::clock::Micros;
use crate::forward::delivery::Delivery;
use crate::ingress::track::Track;
use crate::link::{Link, Sink, Source};
use crate::{CODECS_MAX, ENCODINGS_MAX, SfuError, SfuEvent};

impl Sfu {
    pub(super) fn insert_link(&mut self, key: TransportKey) -> Result<(), SfuError> {
        if self.link_index.contains_key(&key) {
            return Err(SfuError::TransportExists(key));
        }
        if self.links.len() >= self.limits.transports {
            return Err(SfuError::Full { what: "transports" });
        }
        let index = self.links.insert(Link::new(key, &mut self.random));
        self.link_index.insert(key, index as u32);
        self.reserve();
        Ok(())
    }

    pub(super) fn remove_link(&mut self, key: TransportKey) {
        let Some(&index) = self.link_index.get(&key) else {
            return;
        };
        while let Some(&delivery) = self.links[index as usize].deliveries.last() {
            self.remove_delivery_at(delivery);
        }
        while let Some(&track) = self.links[index as usize].tracks.last() {
            self.remove_track_at(track);
        }
        self.close_downlink(index);
        self.allocations.retain(|other| *other != index);
        self.links.remove(index as usize);
        self.link_index.remove(&key);
    }

    pub(super) fn connect_link(&mut self, now: Micros, key: TransportKey, connected: bool) {
        let Some(&index) = self.link_index.get(&key) else {
            return;
        };
        let link = &mut self.links[index as usize];
        if std::mem::replace(&mut link.connected, connected) == connected {
            return;
        }
        self.queue_allocation(index);
        for position in 0.. {
            let link = &self.links[index as usize];
            if let Some(&delivery) = link.deliveries.get(position) {
                self.deliveries[delivery as usize].forwarder.stop();
                self.unsettle(now, self.deliveries[delivery as usize].track);
            } else if let Some(&track) = link.tracks.get(position - link.deliveries.len()) {
                self.unsettle(now, track);
            } else {
                break;
            }
        }
    }

    pub(super) fn insert_track(
        &mut self,
        now: Micros,
        transport: TransportKey,
        key: TrackKey,
        publication: Publication,
    ) -> Result<(), SfuError> {
        let link = self.link_of(transport)?;
        let fits = (1..=ENCODINGS_MAX).contains(&publication.encodings.len())
            && publication.codecs.len() <= CODECS_MAX;
        if !fits {
            return Err(SfuError::Shape);
        }
        let extensions = publication.extensions;
        let index = match self.track_index.get(&key) {
            Some(&index) => {
                let track = &mut self.tracks[index as usize];
                if track.link != link {
                    return Err(SfuError::ForeignTrack(key));
                }
                let kept = track.renegotiate(publication);
                self.links[link as usize].forget_encodings(index, kept);
                index
            }
            None => self.insert_new_track(link, key, publication)?,
        };
        self.links[link as usize].extensions = extensions;
        self.bind_declared(link, index);
        for position in 0.. {
            let track = &self.tracks[index as usize];
            let Some(&delivery) = track.deliveries.get(position) else {
                break;
            };
            self.deliveries[delivery as usize].match_codecs(&track.publication.codecs);
        }
        self.aim_track(index);
        self.unsettle(now, index);
        Ok(())
    }

    fn insert_new_track(
        &mut self,
        link: u32,
        key: TrackKey,
        publication: Publication,
    ) -> Result<u32, SfuError> {
        if self.tracks.len() >= self.limits.tracks {
            return Err(SfuError::Full { what: "tracks" });
        }
        if self.links[link as usize].tracks.len() >= self.limits.tracks_per_transport {
            return Err(SfuError::Full { what: "tracks of a transport" });
        }
        let index = self.tracks.insert(Track::new(key, link, publication)) as u32;
        self.track_index.insert(key, index);
        self.links[link as usize].tracks.push(index);
        self.reserve();
        Ok(index)
    }

    /// Learns the SSRCs that the SDP told.
    fn bind_declared(&mut self, link: u32, index: u32) {
        let count = self.tracks[index as usize].streams.len();
        for position in 0..count {
            let declared = &self.tracks[index as usize].publication.encodings[position];
            let encoding = position as u8;
            for (ssrc, repeat) in [(declared.ssrc, false), (declared.rtx_ssrc, true)] {
                if let Some(ssrc) = ssrc {
                    self.bind(link, Source { ssrc, track: index, encoding, repeat });
                }
            }
        }
    }

    /// An SSRC carries an encoding from now on. `false` if there is no room.
    pub(super) fn bind(&mut self, link: u32, source: Source) -> bool {
        if !self.links[link as usize].add_source(source) {
            return false;
        }
        let stream = &mut self.tracks[source.track as usize].streams[usize::from(source.encoding)];
        let slot = if source.repeat { &mut stream.rtx_ssrc } else { &mut stream.ssrc };
        let before = slot.replace(source.ssrc);
        if let Some(before) = before
            && before != source.ssrc
        {
            self.links[link as usize].forget_source(before);
            if !source.repeat {
                stream.restart();
                self.tracks[source.track as usize].unsettled = true;
            }
        }
        true
    }

    pub(super) fn remove_track(&mut self, key: TrackKey) {
        if let Some(&index) = self.track_index.get(&key) {
            self.remove_track_at(index);
        }
    }

    fn remove_track_at(&mut self, index: u32) {
        while let Some(&delivery) = self.tracks[index as usize].deliveries.last() {
            self.remove_delivery_at(delivery);
        }
        let track = self.tracks.remove(index as usize);
        self.track_index.remove(&track.key);
        self.links[track.link as usize].forget_track(index);
        self.queued.retain(|other| *other != index);
        self.metered.retain(|other| *other != index);
        if let Some(floor) = track.floor {
            self.leave_floor(floor, index);
        }
    }

    pub(super) fn mute_track(&mut self, now: Micros, key: TrackKey, muted: bool) {
        let Some(&index) = self.track_index.get(&key) else {
            return;
        };
        let track = &mut self.tracks[index as usize];
        if std::mem::replace(&mut track.muted, muted) == muted {
            return;
        }
        let silence = track.meter.silence();
        track.loud = 0;
        if let Some(floor) = track.floor.and_then(|floor| self.floors.get_mut(&floor)) {
            floor.vacate(index);
        }
        let track = &mut self.tracks[index as usize];
        track.pending.clear();
        for stream in &mut track.streams {
            // What was said while muted is nobody's to hear, nor is it a keyframe.
            stream.forget_group();
        }
        for delivery in &track.deliveries {
            self.deliveries[*delivery as usize].forwarder.stop();
        }
        if let Some(level) = silence {
            let (level, active) = (level.level, level.active);
            self.tell(SfuEvent::SpeakerLevel { track: key, level, active });
        }
        self.queue_allocations_of(index);
        if !muted {
            self.unsettle(now, index);
        }
    }

    pub(super) fn insert_delivery(
        &mut self,
        now: Micros,
        key: SubscriptionKey,
        (track_key, transport): (TrackKey, TransportKey),
        negotiated: Subscription,
    ) -> Result<(), SfuError> {
        let link = self.link_of(transport)?;
        let track = *self.track_index.get(&track_key).ok_or(SfuError::UnknownTrack(track_key))?;
        if negotiated.codecs.len() > CODECS_MAX || negotiated.mid.len() > 255 {
            return Err(SfuError::Shape);
        }
        let known = self.delivery_index.get(&key).copied();
        self.check_ssrcs(link, transport, known, &negotiated)?;
        let index = match known {
            Some(index) => self.renegotiate_delivery(index, (track, link), negotiated)?,
            None => self.insert_new_delivery(key, (track, link), negotiated)?,
        };
        if !self.deliveries[index as usize].is_sound() {
            self.open_downlink(link);
        }
        self.queue_allocation(link);
        let negotiated = &self.deliveries[index as usize].negotiated;
        let (ssrc, rtx_ssrc) = (negotiated.ssrc, negotiated.rtx_ssrc);
        let link = &mut self.links[link as usize];
        link.add_sink(Sink { ssrc, delivery: index, repeat: false });
        if let Some(ssrc) = rtx_ssrc {
            link.add_sink(Sink { ssrc, delivery: index, repeat: true });
        }
        self.aim(index);
        self.unsettle(now, track);
        Ok(())
    }

    fn check_ssrcs(
        &self,
        link: u32,
        transport: TransportKey,
        known: Option<u32>,
        negotiated: &Subscription,
    ) -> Result<(), SfuError> {
        let in_use = |ssrc: u32| {
            let sink = self.links[link as usize].sink(ssrc);
            sink.is_some_and(|sink| Some(sink.delivery) != known)
        };
        let ssrcs = [Some(negotiated.ssrc), negotiated.rtx_ssrc];
        if let Some(ssrc) = ssrcs.into_iter().flatten().find(|ssrc| in_use(*ssrc)) {
            return Err(SfuError::SsrcInUse { transport, ssrc });
        }
        if negotiated.rtx_ssrc == Some(negotiated.ssrc) {
            return Err(SfuError::SsrcInUse { transport, ssrc: negotiated.ssrc });
        }
        Ok(())
    }

    fn renegotiate_delivery(
        &mut self,
        index: u32,
        (track, link): (u32, u32),
        negotiated: Subscription,
    ) -> Result<u32, SfuError> {
        let delivery = &mut self.deliveries[index as usize];
        if delivery.track != track || delivery.link != link {
            return Err(SfuError::ForeignSubscription(delivery.key));
        }
        self.links[link as usize].forget_sinks(index);
        delivery.renegotiate(negotiated, &self.tracks[track as usize].publication.codecs);
        Ok(index)
    }

    fn insert_new_delivery(
        &mut self,
        key: SubscriptionKey,
        (track, link): (u32, u32),
        negotiated: Subscription,
    ) -> Result<u32, SfuError> {
        if self.deliveries.len() >= self.limits.subscriptions {
            return Err(SfuError::Full { what: "subscriptions" });
        }
        let of_link = self.links[link as usize].deliveries.len();
        if of_link >= self.limits.subscriptions_per_transport {
            return Err(SfuError::Full { what: "subscriptions of a transport" });
        }
        let publication = &self.tracks[track as usize].publication;
        let (kind, codecs) = (publication.kind, &publication.codecs);
        let ended = self.links[link as usize].take_ended(negotiated.ssrc);
        let mut delivery =
            Delivery::new(key, (track, link), kind, negotiated, codecs, &mut self.random);
        if let Some(ended) = ended {
            delivery.go_on(&ended);
        }
        let index = self.deliveries.insert(delivery) as u32;
        self.delivery_index.insert(key, index);
        self.tracks[track as usize].deliveries.push(index);
        let of_link = &mut self.links[link as usize].deliveries;
        of_link.push(index);
        // Used when what goes to a link is divided.
        self.demands.reserve(of_link.len().saturating_sub(self.demands.len()));
        Ok(index)
    }

    pub(super) fn remove_delivery(&mut self, key: SubscriptionKey) {
        if let Some(&index) = self.delivery_index.get(&key) {
            self.remove_delivery_at(index);
        }
    }

    fn remove_delivery_at(&mut self, index: u32) {
        let delivery = self.deliveries.remove(index as usize);
        self.delivery_index.remove(&delivery.key);
        let link = &mut self.links[delivery.link as usize];
        link.forget_delivery(index);
        if let Some(ended) = delivery.ending() {
            link.note_ended(ended);
        }
        self.tracks[delivery.track as usize].deliveries.retain(|other| *other != index);
        self.wanted.retain(|wanted| wanted.delivery != index);
        self.forget_ceiling(&delivery);
    }

    pub(super) fn aim_delivery(
        &mut self,
        now: Micros,
        key: SubscriptionKey,
        target: SubscriptionTarget,
    ) -> Result<(), SfuError> {
        let index = *self.delivery_index.get(&key).ok_or(SfuError::UnknownSubscription(key))?;
        let delivery = &mut self.deliveries[index as usize];
        if std::mem::replace(&mut delivery.target, target) == target {
            return Ok(());
        }
        let (track, link) = (delivery.track, delivery.link);
        self.queue_allocation(link);
        self.aim(index);
        self.unsettle(now, track);
        Ok(())
    }

    /// Works out what a subscription's target means for what is published now.
    pub(super) fn aim(&mut self, index: u32) {
        let delivery = &mut self.deliveries[index as usize];
        let track = &self.tracks[delivery.track as usize];
        match track.want(delivery.allowed()) {
            Some(want) => delivery.forwarder.set_want(want, track.is_scalable()),
            None => delivery.forwarder.stop(),
        }
    }

    /// The same for everybody who gets a track: its encodings changed.
    pub(super) fn aim_track(&mut self, index: u32) {
        for position in 0.. {
            let Some(&delivery) = self.tracks[index as usize].deliveries.get(position) else {
                break;
            };
            self.aim(delivery);
        }
        self.queue_allocations_of(index);
        self.tracks[index as usize].unsettled = true;
    }

    /// Somebody may wait for a keyframe of a track: the next drain looks.
    pub(super) fn unsettle(&mut self, now: Micros, index: u32) {
        self.tracks[index as usize].unsettled = true;
        self.queue(index);
        self.arm_tick(now, index);
    }

    /// The next drain looks at a track.
    pub(super) fn queue(&mut self, index: u32) {
        let track = &mut self.tracks[index as usize];
        if !track.queued {
            track.queued = true;
            self.queued.push(index);
        }
    }

    fn link_of(&self, key: TransportKey) -> Result<u32, SfuError> {
        self.link_index.get(&key).copied().ok_or(SfuError::UnknownTransport(key))
    }
}
