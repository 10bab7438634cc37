//! A whole cluster in one thread: the real rooms, forwarding cores and relay links of
//! several nodes, the real planner, admission and liveness of the control plane, clients
//! that come and go, and a nemesis. All from one seed.
//!
//! What is not real: handshakes and encryption (clients' packets are fed in clear), the
//! registry (a model with revisions, compare-and-swap, leases and watches), gRPC and QUIC
//! (streams and datagrams with delays, losses and cuts).

mod checks;
mod client;
mod joining;
mod links;
mod media;
mod nemesis;
mod reading;
mod registry;
mod replica;
mod sdp;
mod shard;
mod world;

use std::time::{Duration, Instant};

use crate::{Random, Time};
use world::{Happening, World};

/// Looks, half a second apart, at which everything is right one after the other.
const RIGHT_FOR: u32 = 6;

/// How large a cluster is and what befalls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Media nodes.
    pub nodes: usize,
    /// Shards of each.
    pub shards: usize,
    /// Replicas of the control plane.
    pub replicas: usize,
    /// Rooms.
    pub rooms: usize,
    /// Clients, spread over the rooms.
    pub clients: usize,
    /// Of each room, those who may publish from the start.
    pub publishers: usize,
    /// Most participants of a room. 0 means no limit.
    pub limit: u32,
    /// Children of a shard at most.
    pub fanout: u16,
    /// Participants that one shard carries; more make a room spread.
    pub shard_participants: u32,
    /// One way between nodes.
    pub relay_delay_millis: u64,
    /// Something breaks now and then.
    pub faults: bool,
    /// How long before it is left in peace.
    pub unrest: Duration,
    /// In peace, everything must be right again within this time.
    pub recovery: Duration,
}

impl Settings {
    /// A small cluster in which nothing breaks.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            nodes: 3,
            shards: 1,
            replicas: 1,
            rooms: 1,
            clients: 4,
            publishers: 1,
            limit: 0,
            fanout: 2,
            shard_participants: 2,
            relay_delay_millis: 5,
            faults: false,
            unrest: Duration::from_secs(10),
            recovery: Duration::from_secs(10),
        }
    }

    /// What a seed stands for, with faults.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut luck = Random::new(seed).part(9);
        let clients = 4 + luck.below(6) as usize;
        Self {
            nodes: 3 + luck.below(3) as usize,
            shards: 1 + luck.below(2) as usize,
            replicas: 1 + luck.below(2) as usize,
            rooms: 1 + luck.below(2) as usize,
            clients,
            publishers: 1 + luck.below(2) as usize,
            limit: if luck.chance(0.2) { clients as u32 / 2 + 1 } else { 0 },
            fanout: 1 + luck.below(3) as u16,
            shard_participants: 1 + luck.below(4) as u32,
            relay_delay_millis: 1 + luck.below(40),
            faults: true,
            unrest: Duration::from_secs(8 + luck.below(10)),
            recovery: Duration::from_secs(75),
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What must hold and did not. Empty is good.
    pub violations: Vec<String>,
    /// A fingerprint of all that happened.
    pub trace: u64,
    /// The end of the history, for whoever sees it fail.
    pub lines: Vec<String>,
    /// How long it took in peace until everything was right.
    pub recovered: Duration,
    /// Packets and messages that clients received.
    pub received: u64,
    /// Datagrams between nodes.
    pub relayed: u64,
    /// Virtual time.
    pub lasted: Duration,
}

/// Runs a cluster from a seed. `origin` is any instant. `verbose` prints the history as it
/// happens.
#[must_use]
pub fn run(settings: &Settings, seed: u64, origin: Instant, verbose: bool) -> Outcome {
    let mut world = World::new(settings.clone(), seed, origin, verbose);
    if settings.faults {
        world.later(Duration::from_secs(3), Happening::Nemesis);
    }
    world.run_until(Time::ZERO.plus(settings.unrest));
    world.make_peace();
    let peace = world.now;
    let mut why = Some("it has not begun".to_owned());
    let mut right_for = 0;
    while right_for < RIGHT_FOR && world.now.since(peace) < settings.recovery {
        let next = world.now.plus(Duration::from_millis(500));
        world.run_until(next);
        why = world.unrest();
        right_for = if why.is_none() { right_for + 1 } else { 0 };
    }
    let recovered = world.now.since(peace);
    match why {
        Some(why) => world.checks.fail(world.now, format!("not recovered: {why}")),
        None => {
            watch_closely(&mut world);
            end(&mut world);
        }
    }
    Outcome {
        violations: world.checks.violations().to_vec(),
        trace: world.trace(),
        lines: world.lines.iter().cloned().collect(),
        recovered,
        received: world.checks.received,
        relayed: world.checks.datagrams,
        lasted: world.now.elapsed(),
    }
}

/// For a while everything must arrive.
fn watch_closely(world: &mut World) {
    let window = world.open_window();
    let until = world.now.plus(Duration::from_secs(2));
    world.run_until(until);
    world.close_window(&window);
    if let Some(why) = world.unrest() {
        world.checks.fail(world.now, format!("right, and then no more: {why}"));
    }
}

/// Everybody leaves, and nothing may be left of them.
fn end(world: &mut World) {
    for client in 0..world.clients.len() {
        world.leave(client);
    }
    let since = world.now;
    let mut remains = Some("it has not begun".to_owned());
    while remains.is_some() && world.now.since(since) < Duration::from_secs(40) {
        let next = world.now.plus(Duration::from_secs(1));
        world.run_until(next);
        remains = world.remains();
    }
    if let Some(what) = remains {
        world.checks.fail(world.now, format!("left behind: {what}"));
    }
}
