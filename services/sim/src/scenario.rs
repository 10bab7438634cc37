//! Named runs: what the network is like and who takes part. Tests, the table of
//! `docs/impairment.md` and replays all run these.

mod figures;
mod list;

use std::time::{Duration, Instant};

use headwater_model::media::SubscriptionKey;
use headwater_sfu::SfuConfig;

pub use figures::{Figures, Sample};
pub use list::all;

use crate::{Access, NodeId, PeerId, PublisherConfig, SubscriberConfig, Time, Weather, World};

/// How far sound travels with redundancy (RED, RFC 2198).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redundancy {
    /// Not at all.
    None,
    /// From the publisher to the node.
    ToTheNode,
    /// To the watched subscriber.
    EndToEnd,
}

/// A run that has a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its name, for the command line.
    pub name: &'static str,
    /// What the network is like, for the table.
    pub about: &'static str,
    /// The publisher's way.
    pub publisher: Access,
    /// The way of the subscriber that is watched.
    pub watched: Access,
    /// Changes of the watched subscriber's way down, in order.
    pub changes: Vec<(Time, Weather)>,
    /// How far sound travels with redundancy.
    pub redundancy: Redundancy,
    /// Others who watch the same publisher on clear ways.
    pub others: usize,
    /// When the watched subscriber joins.
    pub joins: Time,
    /// When it ends.
    pub ends: Time,
    /// When figures of the capped link begin to count, by when it must have converged.
    pub converged: Time,
}

impl Scenario {
    /// A minute with one subscriber.
    #[must_use]
    pub(crate) fn new(name: &'static str, about: &'static str, watched: Access) -> Self {
        Self {
            name,
            about,
            publisher: Access::both(Weather::CLEAR.delay(5)),
            watched,
            changes: Vec::new(),
            redundancy: Redundancy::None,
            others: 0,
            joins: Time::ZERO,
            ends: Time::from_secs(60),
            converged: Time::from_secs(15),
        }
    }

    /// Runs it from a seed. `origin` is any instant.
    #[must_use]
    pub fn run(&self, seed: u64, origin: Instant) -> Run {
        let mut run = self.set_up(seed, origin);
        run.pass(self.ends);
        run
    }

    /// The world at the time the watched subscriber has just joined.
    #[must_use]
    pub fn set_up(&self, seed: u64, origin: Instant) -> Run {
        let mut world = World::new(seed, origin);
        let node = world.add_node(SfuConfig::default());
        let audio_red = self.redundancy != Redundancy::None;
        let config = PublisherConfig { audio_red, ..PublisherConfig::default() };
        let publisher = world.add_publisher(node, config, self.publisher);
        let clear = Access::both(Weather::CLEAR.delay(5));
        let others: Vec<PeerId> = (0..self.others)
            .map(|_| {
                let other = world.add_subscriber(node, SubscriberConfig::default(), clear);
                world.subscribe(other, publisher);
                other
            })
            .collect();
        world.run_until(self.joins);
        let keyframe_requests = keyframe_requests(&world, publisher);
        let audio_red = self.redundancy == Redundancy::EndToEnd;
        let config = SubscriberConfig { audio_red, ..SubscriberConfig::default() };
        let watched = world.add_subscriber(node, config, self.watched);
        for (at, weather) in &self.changes {
            world.change_down(watched, *at, *weather);
        }
        let subscriptions = world.subscribe(watched, publisher);
        Run {
            scenario: self.clone(),
            seed,
            world,
            node,
            publisher,
            watched,
            others,
            subscriptions,
            keyframe_requests,
            samples: Vec::new(),
        }
    }
}

fn keyframe_requests(world: &World, publisher: PeerId) -> u64 {
    world.publisher(publisher).map_or(0, crate::Publisher::keyframe_requests)
}

/// A scenario that runs or has run.
#[derive(Debug)]
pub struct Run {
    /// What runs.
    pub scenario: Scenario,
    /// From which seed.
    pub seed: u64,
    /// The world.
    pub world: World,
    /// The node.
    pub node: NodeId,
    /// The publisher.
    pub publisher: PeerId,
    /// The subscriber that the scenario is about.
    pub watched: PeerId,
    /// The other subscribers.
    pub others: Vec<PeerId>,
    /// Subscriptions of the watched one: sound, pictures.
    pub subscriptions: Vec<SubscriptionKey>,
    /// Keyframe requests that reached the publisher before the watched one joined.
    pub keyframe_requests: u64,
    /// The node's view of the watched one, ten times a second.
    pub samples: Vec<Sample>,
}

impl Run {
    /// Lets time pass until a point, looking at the node ten times a second.
    pub fn pass(&mut self, until: Time) {
        while self.world.now() < until {
            let next = self.world.now().plus(Duration::from_millis(100)).min(until);
            self.world.run_until(next);
            let sample = Sample::take(self);
            self.samples.push(sample);
        }
    }

    /// Keyframe requests that reached the publisher since the watched one joined.
    #[must_use]
    pub fn keyframe_requests_since_join(&self) -> u64 {
        keyframe_requests(&self.world, self.publisher) - self.keyframe_requests
    }

    /// The figures of the watched subscriber.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(self)
    }

    /// How to run it again, for whoever sees it fail.
    #[must_use]
    pub fn replay(&self) -> String {
        format!(
            "cargo run -p headwater-sim --release -- run {} --seed {}",
            self.scenario.name, self.seed
        )
    }
}
