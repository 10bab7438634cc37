//! Breaks one part of a cluster after another while an audience of real SDKs
//! listens, measures how long each of them heard nothing, and checks what must
//! hold whatever breaks: nobody lost, nobody twice, no ghost, one plan at a time.

mod fault;
mod invariants;
mod stage;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

pub use fault::{FAULTS, Fault, What};
pub use stage::Stage;
pub use table::markdown;

use crate::api::{Planned, people_on, plan_of};
use crate::audience::{Audience, Report, all_hear};
use crate::cluster::{Cluster, Role, wait};
use invariants::{Probe, Watch};
use stage::NODES;

/// Rooms of two.
const ROOMS: usize = 8;
const PREFIX: &str = "chaos";
/// Everybody hears everybody again within this, or the run has failed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Reports in a row, one a second, in which all is well: then it is over.
const CALM_REPORTS: u32 = 3;
/// What was lost is forgotten everywhere within this.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);
/// A node that is gone is out of every plan within this.
const REPLAN_LIMIT: Duration = Duration::from_secs(30);

/// What one fault did, once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// [`Fault::id`].
    pub fault: String,
    /// Counts from 1.
    pub run: usize,
    /// Longest silences in ms, one for each person in a room of the part that was
    /// broken who had to join again. Empty if no room depends on that part.
    pub hit: Vec<u64>,
    /// The same of those in such rooms who did not have to.
    pub listeners: Vec<u64>,
    /// The same of everybody else.
    pub others: Vec<u64>,
    /// Longest times without a data message in ms, of all in rooms that it touched.
    pub messages: Vec<u64>,
    /// Until everybody heard the other again without a pause, in ms: exact to a second.
    pub calm_after: u64,
    /// Until no plan named the node any more, in ms, if that is to be before it is back.
    pub replanned_after: Option<u64>,
    /// What was checked afterwards, and held.
    pub invariants: Vec<String>,
}

/// A cluster of three nodes with its audience.
pub struct Scene {
    cluster: Cluster,
    audience: Audience,
    watch: Watch,
    stage: Stage,
}

/// Whom a fault may touch.
struct Touched {
    node: String,
    /// The other node, of what is broken between two.
    peer: String,
    /// In the order of the reports.
    people: Vec<bool>,
}

impl Scene {
    /// Starts everything and lets the audience in.
    ///
    /// # Errors
    /// If something does not start, somebody does not hear, or a room is not on as
    /// many nodes as it should.
    pub fn start(stage: Stage) -> Result<Self> {
        let (cluster, audience) = stage.start()?;
        let watch = Watch::start(&cluster)?;
        Ok(Self { cluster, audience, watch, stage })
    }

    /// Breaks something, waits until all is well, mends it, and checks that
    /// nothing is left of it.
    ///
    /// # Errors
    /// If somebody is lost for good or something does not heal.
    pub fn play(&mut self, fault: &Fault, run: usize) -> Result<Run> {
        let touched = self.touched(fault)?;
        let before = self.reconnects()?;
        let probe = Probe::ask(&self.cluster, run)?;
        self.audience.forget();
        let broken = fault.what.strike(&mut self.cluster, &touched.node, &touched.peer)?;
        let struck = Instant::now();
        let mut broken = Some(broken);
        if fault.what.is_cut() {
            let end = struck + fault.what.lasts();
            let limit = fault.what.lasts() + RECOVERY_LIMIT;
            self.audience.until("the end of the cut", limit, |_| Instant::now() >= end)?;
            broken.take().map_or(Ok(()), |broken| broken.mend(&mut self.cluster))?;
        }
        let replanned_after = match fault.what.is_replanned() {
            true => Some(self.replanned(&touched.node, struck)?),
            false => None,
        };
        let calm_after = self.calm(fault, struck)?;
        let mut result =
            Run { fault: fault.id.to_owned(), run, calm_after, replanned_after, ..Run::default() };
        let after = self.reconnects()?;
        for (index, silence) in self.audience.silences().iter().enumerate() {
            let joined_again = after.get(index) > before.get(index);
            let group = match (touched.people.get(index), joined_again) {
                (Some(true), true) => &mut result.hit,
                (Some(true), false) => &mut result.listeners,
                (Some(false) | None, _) => &mut result.others,
            };
            group.push(silence.quiet_ms);
            if touched.people.get(index) == Some(&true) {
                result.messages.push(silence.gap_ms);
            }
        }
        if self.stage.is_used_up() {
            // Every room of it is on the node in one way or another.
            result.others.clear();
        }
        broken.take().map_or(Ok(()), |broken| broken.mend(&mut self.cluster))?;
        result.invariants = self.check(probe)?;
        Ok(result)
    }

    /// Lines of all logs that tell of an error or a panic.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.cluster.complaints()
    }

    /// The plans of all rooms.
    fn plans(&self) -> Result<Vec<Vec<Planned>>> {
        (0..ROOMS).map(|room| plan_of(&self.cluster, &room_name(room))).collect()
    }

    /// Every room with its plan and the nodes that its people are on.
    fn rooms(&self) -> Result<Vec<Spread>> {
        let mut people = BTreeMap::new();
        for role in &self.cluster.media_nodes {
            people.insert(role.node_id(), people_on(role)?);
        }
        let spread = |(room, plan)| {
            let name = room_name(room);
            let on = |node: &&String| people[*node].get(&name).is_some_and(|count| *count > 0);
            Spread { plan, people_on: people.keys().filter(on).cloned().collect() }
        };
        Ok(self.plans()?.into_iter().enumerate().map(spread).collect())
    }

    /// How often each SDK reconnected so far.
    fn reconnects(&mut self) -> Result<Vec<u64>> {
        let reports = self.audience.until("a report", RECOVERY_LIMIT, |_| true)?;
        Ok(reports.iter().map(|report| report.reconnects).collect())
    }

    /// Chooses the node that the fault touches most rooms on, and says who they are.
    fn touched(&self, fault: &Fault) -> Result<Touched> {
        let rooms = self.rooms()?;
        let mut pairs: BTreeMap<(String, String), usize> = BTreeMap::new();
        for pair in rooms.iter().flat_map(|room| room.touched_by(fault.what)) {
            *pairs.entry(pair).or_default() += 1;
        }
        let most = pairs.into_iter().max_by_key(|(_, rooms)| *rooms);
        let special = fault.what.needs_a_place();
        let (node, peer) = match most {
            Some((pair, _)) => pair,
            None if special => bail!("no room is as the fault wants it: {rooms:?}"),
            None => (self.busiest_node()?, String::new()),
        };
        let pair = (node, peer);
        let is_touched = |room: &Spread| match special {
            true => room.touched_by(fault.what).contains(&pair),
            false => {
                fault.what.is_of_a_node() && room.plan.iter().any(|planned| planned.node == pair.0)
            }
        };
        let people = rooms.iter().flat_map(|room| [is_touched(room); 2]).collect();
        let (node, peer) = pair;
        Ok(Touched { node, peer, people })
    }

    /// The node with the most participants.
    fn busiest_node(&self) -> Result<String> {
        let count = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0) as u64;
        let busiest = self.cluster.media_nodes.iter().max_by_key(|role| count(role));
        let role = busiest.context("there are no nodes")?;
        ensure!(count(role) > 0, "no node has anybody");
        Ok(role.node_id())
    }

    /// Waits until no plan names a node.
    fn replanned(&self, node: &str, struck: Instant) -> Result<u64> {
        wait("no plan names the node that is gone", REPLAN_LIMIT, || {
            let plans = self.plans().unwrap_or_default();
            let named = plans.iter().flatten().filter(|planned| planned.node == node).count();
            (!plans.is_empty() && named == 0, format!("{named} plans name it"))
        })?;
        Ok(millis(struck.elapsed()))
    }

    /// Waits until nothing happens any more.
    fn calm(&mut self, fault: &Fault, struck: Instant) -> Result<u64> {
        let mut last_trouble = struck;
        let mut calm = 0;
        loop {
            let limit = RECOVERY_LIMIT + fault.what.lasts();
            let reports = self.audience.until("a report", limit, |_| true)?;
            if all_hear(&reports) {
                calm += 1;
            } else {
                calm = 0;
                last_trouble = Instant::now();
            }
            if calm >= CALM_REPORTS && struck.elapsed() >= fault.what.lasts() {
                return Ok(millis(last_trouble.duration_since(struck)));
            }
            ensure!(struck.elapsed() < limit, "not well after {limit:?}: {reports:?}");
        }
    }

    /// Checks that nothing is left of a fault that was mended; answers with what
    /// was checked.
    fn check(&mut self, probe: Probe) -> Result<Vec<String>> {
        self.cluster.wait_serving(NODES)?;
        probe.repeat(&self.cluster)?;
        let knows = |report: &Report| report.others == 1 && report.hears();
        let reports =
            self.audience.until("everybody hears one other, not more", CLEAN_LIMIT, |reports| {
                reports.iter().all(knows)
            })?;
        invariants::check_heard(&reports)?;
        let (cluster, is_spanning) = (&self.cluster, self.stage.is_spanning());
        wait("I6: every participant is on one node, every room too", CLEAN_LIMIT, || {
            let seen: Vec<[f64; 2]> = cluster
                .media_nodes
                .iter()
                .map(|node| {
                    ["headwater_participants", "headwater_rooms"]
                        .map(|name| node.metric(name).unwrap_or(f64::NAN))
                })
                .collect();
            let sum = |index: usize| seen.iter().map(|of| of[index]).sum::<f64>();
            let rooms_are_right = is_spanning || sum(1) == ROOMS as f64;
            let clean = sum(0) == (ROOMS * 2) as f64 && rooms_are_right;
            (clean, format!("{seen:?}"))
        })?;
        invariants::check_agreement(&self.cluster)?;
        self.watch.check()?;
        Ok(["I1", "I2", "I3", "I4", "I6", "I7", "I8"].map(str::to_owned).to_vec())
    }
}

/// A room's plan, and which nodes its people are on.
#[derive(Debug)]
struct Spread {
    plan: Vec<Planned>,
    people_on: BTreeSet<String>,
}

impl Spread {
    /// The nodes of the room that a fault is about, each with the other one of what
    /// is broken between two. Empty if any node will do.
    fn touched_by(&self, what: What) -> Vec<(String, String)> {
        let Self { plan, people_on } = self;
        let parent_of = |planned: &Planned| planned.parent.and_then(|parent| plan.get(parent));
        let alone = |planned: &Planned| (planned.node.clone(), String::new());
        let links = || {
            plan.iter()
                .filter_map(|planned| Some((parent_of(planned)?, planned)))
                .filter(|(parent, child)| parent.node != child.node)
        };
        match what {
            What::EmptyHomeKilled | What::EmptyHomeFrozen => plan
                .iter()
                .take(1)
                .filter(|home| !people_on.contains(&home.node))
                .map(alone)
                .collect(),
            What::RelayKilled => links()
                .map(|(parent, _)| parent)
                .filter(|parent| parent.parent.is_some() && !people_on.contains(&parent.node))
                .map(alone)
                .collect(),
            // Cut one way or the other: the room is as touched.
            What::Partition | What::OneWayCut => links()
                .map(|(parent, child)| (&parent.node, &child.node))
                .filter(|(one, other)| people_on.contains(*one) && people_on.contains(*other))
                .map(|(one, other)| (one.min(other).clone(), one.max(other).clone()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn room_name(room: usize) -> String {
    format!("{PREFIX}-{room}")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
