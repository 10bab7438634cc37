//! Breaks one part of a cluster after another while an audience of real SDKs
//! listens, measures how long each of them heard nothing, and checks that
//! afterwards everything is as it was: nobody lost, nobody twice, no ghost.

mod fault;
mod table;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

pub use fault::{FAULTS, Fault, What};
pub use table::markdown;

use crate::api::nodes_of;
use crate::audience::{Audience, Report, all_hear};
use crate::cluster::{Cluster, Options, Role, wait};
use fault::Broken;

/// Rooms of two.
const ROOMS: usize = 8;
const NODES: usize = 3;
const PREFIX: &str = "chaos";
/// Everybody hears everybody again within this, or the run has failed.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Reports in a row, one a second, in which all is well: then it is over.
const CALM_REPORTS: u32 = 3;
/// What was lost is forgotten everywhere within this.
const CLEAN_LIMIT: Duration = Duration::from_secs(60);

/// What one fault did, once.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// [`Fault::id`].
    pub fault: String,
    /// Counts from 1.
    pub run: usize,
    /// Longest silences in ms, one for each person in a room of the part that was
    /// broken. Empty if no room depends on that part.
    pub hit: Vec<u64>,
    /// The same of everybody else.
    pub others: Vec<u64>,
    /// Until everybody heard the other again without a pause, in ms: exact to a second.
    pub calm_after: u64,
}

/// A cluster of three nodes with its audience.
pub struct Scene {
    cluster: Cluster,
    audience: Audience,
    is_spanning: bool,
}

/// After the first has come and was reported, its room is planned on another shard,
/// too, and links are up: nodes report once a second, plans are 2 s apart.
const SPANNING_PAUSE: Duration = Duration::from_secs(5);

impl Scene {
    /// Starts everything and lets the audience in.
    ///
    /// # Errors
    /// If something does not start, or somebody does not hear.
    pub fn start() -> Result<Self> {
        let cluster = Cluster::start(&Options { media_nodes: NODES, ..Options::default() })?;
        let audience = Audience::join(&cluster.target, ROOMS, PREFIX)?;
        Ok(Self { cluster, audience, is_spanning: false })
    }

    /// The same, but the two of each room are on different nodes, with a relay link
    /// between.
    ///
    /// # Errors
    /// If something does not start, somebody does not hear, or a room is on one node.
    pub fn start_spanning() -> Result<Self> {
        let options =
            Options { media_nodes: NODES, shard_participants: Some(1), ..Options::default() };
        let cluster = Cluster::start(&options)?;
        let audience = Audience::join_apart(&cluster.target, ROOMS, PREFIX, SPANNING_PAUSE)?;
        for room in 0..ROOMS {
            let mut nodes = nodes_of(&cluster, &format!("{PREFIX}-{room}"))?;
            nodes.sort_unstable();
            nodes.dedup();
            ensure!(nodes.len() > 1, "room {room} is on one node");
        }
        Ok(Self { cluster, audience, is_spanning: true })
    }

    /// Breaks something, waits until all is well, mends it, and checks that
    /// nothing is left of it.
    ///
    /// # Errors
    /// If somebody is lost for good or something does not heal.
    pub fn play(&mut self, fault: &Fault, run: usize) -> Result<Run> {
        let node = self.busiest_node()?;
        let is_hit = self.hit_by(fault, &node)?;
        self.audience.forget();
        let broken = fault.what.strike(&mut self.cluster, &node)?;
        let struck = Instant::now();
        let calm_after = self.calm(fault, struck)?;
        let silences = self.audience.silences().iter().zip(&is_hit);
        let of = |which: bool| {
            let chosen = silences.clone().filter(|(_, is_hit)| **is_hit == which);
            chosen.map(|(silence, _)| silence.quiet_ms).collect()
        };
        let (hit, others) = (of(true), of(false));
        self.mend(broken)?;
        Ok(Run { fault: fault.id.to_owned(), run, hit, others, calm_after })
    }

    /// Lines of all logs that tell of an error or a panic.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.cluster.complaints()
    }

    /// The node with the most participants.
    fn busiest_node(&self) -> Result<String> {
        let count = |role: &Role| role.metric("headwater_participants").unwrap_or(0.0) as u64;
        let busiest = self.cluster.media_nodes.iter().max_by_key(|role| count(role));
        let role = busiest.context("there are no nodes")?;
        ensure!(count(role) > 0, "no node has anybody");
        Ok(role.node_id())
    }

    /// Who is in a room that the fault touches, in the order of the reports.
    fn hit_by(&self, fault: &Fault, node: &str) -> Result<Vec<bool>> {
        let mut hit = Vec::new();
        for room in 0..ROOMS {
            let touched = fault.what.is_of_a_node()
                && nodes_of(&self.cluster, &format!("{PREFIX}-{room}"))?
                    .iter()
                    .any(|it| it == node);
            hit.extend([touched; 2]);
        }
        Ok(hit)
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
                let took = last_trouble.duration_since(struck);
                return Ok(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            }
            ensure!(struck.elapsed() < limit, "not well after {limit:?}: {reports:?}");
        }
    }

    fn mend(&mut self, broken: Broken) -> Result<()> {
        broken.mend(&mut self.cluster)?;
        self.cluster.wait_serving(NODES)?;
        let knows = |report: &Report| report.others == 1 && report.hears();
        self.audience.until("everybody hears one other, not more", CLEAN_LIMIT, |reports| {
            reports.iter().all(knows)
        })?;
        let (cluster, is_spanning) = (&self.cluster, self.is_spanning);
        wait("every participant is on one node, every room too", CLEAN_LIMIT, || {
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
        })
    }
}
