//! Which tracks there are: published here, announced by links, announced to links.

use std::time::{Duration, Instant};

use headwater_model::TrackUid;
use headwater_model::media::{Publication, TrackKey};

use super::route::{Outlet, Route, Via};
use super::{Junction, JunctionOutput, MediaOrder, RelayEvent, TRACKS_MAX};
use crate::link::{LinkKey, Side};
use crate::message::Message;
use crate::track::{Path, TrackInfo};

/// A track whose source was lost is kept this long for another to announce it: the
/// subscribers' tracks stay, only the pictures stand still.
const LOST_MAX: Duration = Duration::from_secs(10);
/// The old source is listened to this long after another was asked, so that nothing is
/// missing in between.
const OVERLAP: Duration = Duration::from_secs(1);

impl Junction {
    /// A track is published on this shard, or negotiated anew: it is announced.
    /// `false` if there are too many.
    pub fn publish(&mut self, now: Instant, key: TrackKey, info: TrackInfo) -> bool {
        let Some(index) = self.route_of(&info.track, &info, true) else {
            return false;
        };
        let route = &mut self.routes[index];
        (route.local, route.info, route.key, route.source) = (true, info, Some(key), None);
        (route.lost_until, route.hops) = (None, 0);
        self.by_key.insert(key, index);
        self.announce_route(index);
        self.settle_demand(now, index);
        true
    }

    /// A track is published here no more, or a track of another shard was taken out of
    /// the forwarding core.
    pub fn forget_key(&mut self, now: Instant, key: TrackKey) {
        let Some(index) = self.by_key.remove(&key) else { return };
        let route = &mut self.routes[index];
        route.key = None;
        route.demand = 0;
        route.wishes = 0;
        if route.local {
            route.local = false;
            self.choose_source(now, index);
            if self.routes.get(index).is_some_and(|route| route.source.is_none()) {
                self.remove_route(index);
            }
        } else {
            self.settle_demand(now, index);
        }
    }

    /// A track of another shard is in the forwarding core under this key from now on.
    /// `None` if it is not known (any more).
    pub fn attach(&mut self, now: Instant, track: &TrackUid, key: TrackKey) -> Option<Publication> {
        let index = *self.by_uid.get(track)?;
        let route = &mut self.routes[index];
        if route.local {
            return None;
        }
        if let Some(before) = route.key.replace(key) {
            self.by_key.remove(&before);
        }
        route.demand = 0;
        self.by_key.insert(key, index);
        let publication = self.routes[index].info.publication.clone();
        self.settle_demand(now, index);
        Some(publication)
    }

    fn route_of(&mut self, track: &TrackUid, info: &TrackInfo, local: bool) -> Option<usize> {
        if let Some(index) = self.by_uid.get(track) {
            return Some(*index);
        }
        if self.routes.len() >= TRACKS_MAX {
            return None;
        }
        let index = self.routes.insert(Route::new(info.clone(), local));
        self.by_uid.insert(track.clone(), index);
        Some(index)
    }

    pub(super) fn take_announcement(
        &mut self,
        now: Instant,
        (key, handle): (LinkKey, u32),
        info: TrackInfo,
        path: Path,
    ) {
        let me = self.config.me.tag();
        let known = self.handles_in.get(&(key, handle)).copied();
        if path.contains(me) || path.extended(me).is_none() {
            if let Some(link) = self.links.get_mut(&key) {
                link.drops().looped_announcements += 1;
            }
            if known.is_some() {
                self.take_withdrawal(now, key, handle);
            }
            return;
        }
        let new = !self.by_uid.contains_key(&info.track);
        let Some(index) = self.route_of(&info.track, &info, false) else {
            if let Some(link) = self.links.get_mut(&key) {
                link.drops().too_many_tracks += 1;
            }
            return;
        };
        if known.is_some_and(|known| known != index) {
            // A handle is never used for another track.
            return;
        }
        let epoch = info.epoch;
        let route = &mut self.routes[index];
        if epoch < route.info.epoch && !new {
            return;
        }
        if let Some(before) = route.vias.insert(key, Via { handle, epoch, path })
            && before.handle != handle
        {
            self.handles_in.remove(&(key, before.handle));
        }
        self.handles_in.insert((key, handle), index);
        if route.local && epoch <= route.info.epoch {
            return;
        }
        let renewed = epoch > route.info.epoch || (epoch == route.info.epoch && info != route.info);
        if new {
            self.tell(RelayEvent::TrackAppeared(Box::new(info)));
        } else if renewed {
            // The publisher is elsewhere now; what is here of it is of the past.
            let route = &mut self.routes[index];
            if epoch > route.info.epoch {
                route.newest = [(0, 0); 8];
                (route.local, route.demand, route.wishes) = (false, 0, 0);
                if let Some(key) = route.key.take() {
                    self.by_key.remove(&key);
                }
            }
            self.routes[index].info = info.clone();
            self.tell(RelayEvent::TrackRenewed(Box::new(info)));
        }
        self.choose_source(now, index);
    }

    pub(super) fn take_withdrawal(&mut self, now: Instant, key: LinkKey, handle: u32) {
        let Some(index) = self.handles_in.remove(&(key, handle)) else { return };
        self.routes[index].vias.remove(&key);
        self.choose_source(now, index);
        let route = &self.routes[index];
        if route.source.is_none() && !route.local {
            self.remove_route(index);
        }
    }

    fn tell(&mut self, event: RelayEvent) {
        self.outputs.push_back(JunctionOutput::Event(event));
    }

    fn remove_route(&mut self, index: usize) {
        let keys: Vec<_> = self.routes[index].outlets.keys().copied().collect();
        keys.into_iter().for_each(|key| self.withdraw(key, index));
        let route = self.routes.remove(index);
        self.by_uid.remove(&route.info.track);
        if let Some(key) = route.key {
            self.by_key.remove(&key);
        }
        for (key, via) in route.vias {
            self.handles_in.remove(&(key, via.handle));
        }
        if !route.local {
            self.tell(RelayEvent::TrackGone(route.info.track));
        }
    }

    /// Takes a track from the best of those that announce it: the newest epoch, then a
    /// child before the parent before a backup, then the shortest way.
    pub(super) fn choose_source(&mut self, now: Instant, index: usize) {
        let route = &self.routes[index];
        let rank = |key: LinkKey, via: &Via| {
            let class = match self.links.get(&key).map(|link| link.side()) {
                Some(Side::Down) => 0,
                Some(Side::Up) if self.active == Some(key) => 1,
                Some(Side::Up) => 2,
                None => 3,
            };
            (std::cmp::Reverse(via.epoch), class, via.path.hops(), key)
        };
        let best = route
            .vias
            .iter()
            .filter(|(_, via)| via.epoch >= route.info.epoch)
            .min_by_key(|(key, via)| rank(**key, via))
            .map(|(key, _)| *key)
            .filter(|_| !route.local);
        if best != route.source {
            self.switch_source(now, index, best);
        }
        let route = &mut self.routes[index];
        route.hops = match route.source.and_then(|key| route.vias.get(&key)) {
            Some(via) => via.path.hops() + 1,
            None => route.hops,
        };
        let lost = route.source.is_none() && !route.local;
        route.lost_until = lost.then(|| route.lost_until.unwrap_or(now + LOST_MAX));
        self.announce_route(index);
        self.settle_demand(now, index);
    }

    fn switch_source(&mut self, now: Instant, index: usize, best: Option<LinkKey>) {
        let route = &mut self.routes[index];
        let before = std::mem::replace(&mut route.source, best);
        // Nothing was asked of the new one yet.
        route.asked = 0;
        route.lower_at = None;
        if let Some((key, _)) = route.previous.take() {
            self.uninterest(key, index);
        }
        let Some(before) = before else { return };
        let listening = self.links.get(&before).is_some_and(|link| link.is_up());
        if listening && best.is_some() {
            self.routes[index].previous = Some((before, now + OVERLAP));
        } else {
            self.uninterest(before, index);
        }
    }

    /// Nothing more is wanted of a track over a link.
    pub(super) fn uninterest(&mut self, key: LinkKey, index: usize) {
        if let Some(via) = self.routes[index].vias.get(&key) {
            self.interest.entry(key).or_default().insert(via.handle, 0);
        }
    }

    /// Tells each link of a track, if it may have it from here, and no more if not.
    fn announce_route(&mut self, index: usize) {
        for key in self.link_keys() {
            self.announce_to(key, index);
        }
    }

    /// Tells a new link of every track, and the parent of what is below.
    pub(super) fn announce_all(&mut self, key: LinkKey) {
        let indices: Vec<_> = self.by_uid.values().copied().collect();
        indices.into_iter().for_each(|index| self.announce_to(key, index));
        if let Some(link) = self.links.get_mut(&key)
            && link.side() == Side::Down
        {
            link.say(&Message::Announced);
        }
    }

    fn announce_to(&mut self, key: LinkKey, index: usize) {
        let Some(link) = self.links.get(&key).filter(|link| link.is_up()) else { return };
        let peer = link.peer().tag();
        let path = self.path_for(key, index).filter(|path| !path.contains(peer));
        let Some(path) = path else {
            // One whose source is only lost for a moment is not taken back.
            if self.routes[index].lost_until.is_none() {
                self.withdraw(key, index);
            }
            return;
        };
        let route = &mut self.routes[index];
        let epoch = route.info.epoch;
        let handle = match route.outlets.get(&key) {
            Some(outlet) if outlet.path == path && outlet.epoch == epoch => return,
            Some(outlet) => outlet.handle,
            None => {
                self.last_handle += 1;
                self.last_handle
            }
        };
        let interest = route.outlets.get(&key).map_or(0, |outlet| outlet.interest);
        route.outlets.insert(key, Outlet { handle, path: path.clone(), epoch, interest });
        self.handles_out.insert((key, handle), index);
        let info = Box::new(route.info.clone());
        if let Some(link) = self.links.get_mut(&key) {
            link.say(&Message::Announce { handle, info, path });
        }
    }

    /// The way to a track that a link may be told. What came from above never goes up,
    /// and nothing goes back to where it came from.
    fn path_for(&self, key: LinkKey, index: usize) -> Option<Path> {
        let (me, route) = (self.config.me.tag(), &self.routes[index]);
        let upwards = self.links.get(&key)?.side() == Side::Up;
        if upwards && self.active != Some(key) {
            return None;
        }
        if route.local {
            return Some(Path::from_origin(me));
        }
        let source = route.source?;
        let from_above = self.links.get(&source)?.side() == Side::Up;
        if source == key || (upwards && from_above) {
            return None;
        }
        route.vias.get(&source)?.path.extended(me)
    }

    fn withdraw(&mut self, key: LinkKey, index: usize) {
        let Some(outlet) = self.routes[index].outlets.remove(&key) else { return };
        self.handles_out.remove(&(key, outlet.handle));
        if let Some(link) = self.links.get_mut(&key) {
            link.say(&Message::Withdraw(outlet.handle));
        }
    }

    /// Another parent is in use: tracks come from there, and it hears of those below.
    pub(super) fn parent_changed(&mut self, now: Instant) {
        let indices: Vec<_> = self.by_uid.values().copied().collect();
        indices.into_iter().for_each(|index| self.choose_source(now, index));
    }

    /// A link is gone, and with it what it announced and wanted.
    pub(super) fn forget_link(&mut self, now: Instant, key: LinkKey) {
        let indices: Vec<_> = self.by_uid.values().copied().collect();
        for index in indices {
            let route = &mut self.routes[index];
            if let Some(outlet) = route.outlets.remove(&key) {
                self.handles_out.remove(&(key, outlet.handle));
            }
            route.previous = route.previous.filter(|(previous, _)| *previous != key);
            if let Some(via) = route.vias.remove(&key) {
                self.handles_in.remove(&(key, via.handle));
                self.choose_source(now, index);
            } else {
                self.settle_demand(now, index);
            }
        }
    }

    /// Lets go of what is over: old sources, lost tracks; asks for less when it is time.
    pub(super) fn tend_routes(&mut self, now: Instant) {
        let due: Vec<_> = self
            .by_uid
            .values()
            .copied()
            .filter(|index| self.routes[*index].due().is_some_and(|at| at <= now))
            .collect();
        for index in due {
            let route = &mut self.routes[index];
            if let Some((key, until)) = route.previous
                && until <= now
            {
                route.previous = None;
                self.uninterest(key, index);
            }
            if self.routes[index].lost_until.is_some_and(|until| until <= now) {
                self.remove_route(index);
                continue;
            }
            self.settle_demand(now, index);
        }
    }

    pub(super) fn order(&mut self, order: MediaOrder) {
        self.outputs.push_back(JunctionOutput::Media(order));
    }
}
