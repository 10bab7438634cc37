//! Parents: which are wanted, which is in use, and when to turn to another.

use std::time::{Duration, Instant};

use super::{Junction, JunctionOutput, RelayEvent};
use crate::link::{End, HEARTBEAT, Link, LinkKey, SILENCE_MAX, Side};
use crate::message::{Hello, Refusal};
use crate::plan::{Peer, ShardAddress};

/// First wait before a link is opened again; it doubles with each failure.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait.
const RETRY_MAX: Duration = Duration::from_secs(3);
/// A parent that was lost is not used again for this long while another one works, so
/// that one that comes and goes takes nobody with it.
const DISTRUST: Duration = Duration::from_secs(5);

/// Where an upstream's link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To be opened at this time.
    Due(Instant),
    /// The shell was asked to open it.
    Asked,
    /// Opened.
    Link(LinkKey),
}

/// A parent or a backup.
#[derive(Debug)]
pub(super) struct Upstream {
    peer: Peer,
    way: Way,
    failures: u32,
    /// It has told which tracks it has.
    announced: bool,
    distrusted_until: Option<Instant>,
    /// The plan names it no more; it stays until another is in use, but no longer than
    /// this.
    leaving: Option<Instant>,
}

impl Upstream {
    fn new(peer: Peer, now: Instant) -> Self {
        Self {
            peer,
            way: Way::Due(now),
            failures: 0,
            announced: false,
            distrusted_until: None,
            leaving: None,
        }
    }

    /// Its link is to be opened again; soon if it was only too early.
    fn retry(&mut self, now: Instant, early: bool) {
        let wait = (RETRY_MIN * 2_u32.pow(self.failures.min(8))).min(RETRY_MAX);
        self.way = Way::Due(now + if early { RETRY_MIN } else { wait });
        self.failures = self.failures.saturating_add(u32::from(!early));
        self.announced = false;
    }

    fn link(&self) -> Option<LinkKey> {
        match self.way {
            Way::Link(key) => Some(key),
            Way::Due(_) | Way::Asked => None,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let retry = match self.way {
            Way::Due(at) => Some(at),
            Way::Asked | Way::Link(_) => None,
        };
        [retry, self.leaving, self.distrusted_until].into_iter().flatten().min()
    }
}

impl Junction {
    /// Takes parents and backups from the plan; links to those it still names stay.
    pub(super) fn plan_upstreams(&mut self, now: Instant) {
        let mut before = std::mem::take(&mut self.upstreams);
        for peer in self.slice.upstream() {
            let known = before.iter().position(|other| other.peer.address == peer.address);
            let upstream = match known {
                Some(index) => {
                    let mut upstream = before.remove(index);
                    upstream.peer = peer.clone();
                    upstream.leaving = None;
                    if matches!(upstream.way, Way::Due(_)) {
                        upstream.way = Way::Due(now);
                    }
                    upstream
                }
                None => Upstream::new(peer.clone(), now),
            };
            self.upstreams.push(upstream);
        }
        let mut useless = Vec::new();
        for mut upstream in before {
            let used = upstream.link().is_some() && upstream.link() == self.active;
            if used && !self.slice.is_home() {
                upstream.leaving.get_or_insert(now + super::RETIRE);
                self.upstreams.push(upstream);
            } else {
                useless.extend(upstream.link());
            }
        }
        for key in useless {
            self.finish_link(now, key, End::Closed(Refusal::NotInPlan));
        }
        self.tend_upstreams(now);
    }

    /// The shell opened a way to a shard, or began to: hello goes over it. If that
    /// comes to nothing, [`Junction::broken`] is to be called. `false` if nobody wants
    /// the way any more: let go of it.
    pub fn opened(&mut self, now: Instant, key: LinkKey, peer: &ShardAddress) -> bool {
        let hello = self.hello(peer);
        let Some(upstream) = self.asked(peer) else { return false };
        upstream.way = Way::Link(key);
        let link = Link::open(key, &hello, self.config.datagram_max, now);
        self.links.insert(key, link);
        true
    }

    /// The shell could not open a way to a shard.
    pub fn failed(&mut self, now: Instant, peer: &ShardAddress) {
        if let Some(upstream) = self.asked(peer) {
            upstream.retry(now, false);
        }
    }

    fn asked(&mut self, peer: &ShardAddress) -> Option<&mut Upstream> {
        self.upstreams.iter_mut().find(|one| one.way == Way::Asked && one.peer.address == *peer)
    }

    pub(super) fn welcomed(&mut self, now: Instant, key: LinkKey, hello: &Hello) {
        let Some(link) = self.links.get_mut(&key) else { return };
        let sound = hello.from == *link.peer() && hello.rank < self.slice.rank;
        if !sound {
            self.finish_link(now, key, End::Closed(Refusal::NotInPlan));
            return;
        }
        link.welcomed(hello, now);
        link.handle_timeout(now, self.beat);
        let up = RelayEvent::LinkUp(hello.from.clone(), Side::Up);
        self.outputs.push_back(JunctionOutput::Event(up));
    }

    pub(super) fn announced(&mut self, now: Instant, key: LinkKey) {
        for upstream in &mut self.upstreams {
            if upstream.link() == Some(key) {
                upstream.announced = true;
                upstream.failures = 0;
            }
        }
        self.choose_parent(now);
    }

    /// The other end refused or ended the link.
    pub(super) fn refused(&mut self, now: Instant, key: LinkKey, reason: Refusal) {
        self.finish_link(now, key, End::Refused(reason));
    }

    pub(super) fn upstream_ended(&mut self, now: Instant, key: LinkKey, end: End) {
        let Some(index) = self.upstreams.iter().position(|upstream| upstream.link() == Some(key))
        else {
            return;
        };
        let upstream = &mut self.upstreams[index];
        if upstream.leaving.is_some() {
            self.upstreams.remove(index);
        } else {
            // Plans of the two ends differ for a moment when they change.
            let early = matches!(end, End::Refused(Refusal::EarlyEpoch | Refusal::UnknownRoom));
            upstream.retry(now, early);
            if self.active == Some(key) {
                upstream.distrusted_until = Some(now + DISTRUST);
            }
        }
        if self.active == Some(key) {
            self.active = None;
            self.choose_parent(now);
            if self.active.is_none() {
                self.tell_reparented(None);
            }
        }
    }

    fn tell_reparented(&mut self, to: Option<LinkKey>) {
        let to = to.and_then(|key| self.links.get(&key)).map(|link| link.peer().clone());
        let from = std::mem::replace(&mut self.last_parent, to.clone());
        self.outputs.push_back(JunctionOutput::Event(RelayEvent::Reparented { from, to }));
    }

    /// Opens links that are due, turns to a parent that is better now.
    pub(super) fn tend_upstreams(&mut self, now: Instant) {
        for upstream in &mut self.upstreams {
            if upstream.distrusted_until.is_some_and(|until| until <= now) {
                upstream.distrusted_until = None;
            }
        }
        self.choose_parent(now);
        let over: Vec<_> = self
            .upstreams
            .iter()
            .filter(|one| {
                one.leaving.is_some_and(|until| until <= now || one.link() != self.active)
            })
            .filter_map(Upstream::link)
            .collect();
        for key in over {
            self.finish_link(now, key, End::Closed(Refusal::NotInPlan));
        }
        for index in 0..self.upstreams.len() {
            if matches!(self.upstreams[index].way, Way::Due(at) if at <= now) {
                self.upstreams[index].way = Way::Asked;
                let peer = self.upstreams[index].peer.clone();
                self.outputs.push_back(JunctionOutput::Open(peer));
            }
        }
    }

    /// The best parent that works is the one in use.
    fn choose_parent(&mut self, now: Instant) {
        let usable = |upstream: &&Upstream| upstream.announced && upstream.link().is_some();
        let fresh = |upstream: &&Upstream| {
            upstream.distrusted_until.is_none()
                && upstream.leaving.is_none()
                && self.is_fed(upstream.link(), now)
        };
        let by_plan = || self.upstreams.iter().filter(usable);
        let best = by_plan()
            .find(fresh)
            .or_else(|| by_plan().find(|upstream| upstream.link() == self.active))
            .or_else(|| by_plan().next())
            .and_then(Upstream::link);
        if best.is_none() || best == self.active {
            return;
        }
        self.active = best;
        self.tell_reparented(best);
        self.parent_changed(now);
        self.state.upstream_changed(now);
        self.pass_state();
    }

    /// The home's heartbeat comes over a link. Where it comes over no link at all the
    /// home is gone, and no parent is better than another.
    fn is_fed(&self, link: Option<LinkKey>, now: Instant) -> bool {
        let rises = |link: &Link| {
            let (beat, at) = link.beat();
            beat > 0 && now.saturating_duration_since(at) < SILENCE_MAX
        };
        let links = || self.links.values().filter(|link| link.side() == Side::Up && link.is_up());
        let this = link.and_then(|key| self.links.get(&key)).is_some_and(rises);
        this || !links().any(rises)
    }

    /// The home's heart beats by itself; elsewhere it is what the parent says.
    pub(super) fn count_beat(&mut self, now: Instant) {
        if self.slice.is_home() {
            let beats =
                now.saturating_duration_since(self.beat_at).as_millis() / HEARTBEAT.as_millis();
            if beats > 0 {
                self.beat = self.beat.wrapping_add(beats as u32).max(1);
                self.beat_at = now;
            }
        } else if let Some(link) = self.active.and_then(|key| self.links.get(&key)) {
            self.beat = link.beat().0;
        }
    }
}
