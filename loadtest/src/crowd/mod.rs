//! Runs a scenario: a crowd of clients joins, media flows and is measured, everybody
//! leaves. Signalling runs on tokio, media on threads of its own.

mod flood;
mod media;
mod members;
mod participant;
mod peer;
mod stream;
mod tally;
mod timeline;
mod worker;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_net::{UdpOptions, thread};

pub use media::Stamp;
pub use stream::Counts;
pub use tally::{LAYERS, PeerReport};
pub use timeline::{Moment, Phase};

use crate::outcome::{Measured, Outcome};
use crate::process::{Usage, socket_drops};
use crate::run::Server;
use crate::scenario::Scenario;
use crate::scrape::Scraper;
use flood::Flooding;
use members::Members;
use timeline::Timeline;
use worker::{Capture, Order, Worker};

/// Kernel buffer of a client's socket: half a second of 5 Mbit/s.
const RECV_BUFFER_BYTES: usize = 512 << 10;
const SEND_BUFFER_BYTES: usize = 512 << 10;
/// Everybody is connected this long after the last join, or the run goes on without.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Descriptors that are not of clients.
const DESCRIPTORS_SPARE: u64 = 128;

/// Runs a scenario; `watch` sees each moment of the timeline.
///
/// # Errors
/// If nobody can join, or the system has no room for so many clients.
pub async fn run(
    server: &Server,
    scenario: &Scenario,
    mut watch: impl FnMut(&Moment),
) -> anyhow::Result<Outcome> {
    check_descriptors(scenario)?;
    let options = UdpOptions {
        recv_buffer_bytes: RECV_BUFFER_BYTES,
        send_buffer_bytes: SEND_BUFFER_BYTES,
        receive_offload: scenario.load.receive_offload,
    };
    let workers = start_workers(scenario.load.workers, options)?;
    let capture = Arc::new(Capture::default());
    let before = server.pid.and_then(Usage::of);
    let scraper = match &server.metrics {
        Some(url) => Some(Arc::new(Scraper::start(url).await?)),
        None => None,
    };
    let mut timeline = Timeline::new(server.pid, scraper.clone(), workers.clone());
    let mut members =
        Members::new(server, scenario, workers.clone(), options, Arc::clone(&capture));

    join_everybody(scenario, &mut members, &mut timeline, &mut watch).await?;
    timeline.phase = Phase::WarmUp;
    let warm_up = Duration::from_secs_f64(scenario.warm_up_seconds);
    wait(warm_up, &mut timeline, &mut members, &mut watch).await;

    let flooding = scenario
        .flood
        .as_ref()
        .map(|flood| Flooding::start(flood, &capture, scenario.seed))
        .transpose()?;
    workers.iter().for_each(|worker| worker.order(Order::Reset));
    timeline.phase = Phase::Measured;
    let scrape = || scraper.as_ref().map(|scraper| scraper.latest());
    let scrape_begin = scrape();
    let begun = Measurement::begin(server, &workers);
    wait_with_churn(scenario, &mut timeline, &mut members, &mut watch).await;
    let mut measured = begun.end(server, &workers, members.ports());
    measured.flood = flooding.map(Flooding::stop);
    measured.before = before;
    measured.scrapes = scrape_begin.zip(scrape());
    measured.labels = members.labels();
    measured.peers = collect(&workers).await?;

    timeline.phase = Phase::Leaving;
    members.leave().await;
    measured.joined = members.joined();
    (measured.failures, measured.failure_reasons) = members.failures();
    measured.after = server.pid.and_then(Usage::of);
    workers.iter().for_each(|worker| worker.order(Order::Stop));
    if measured.peers.iter().all(|peer| peer.connected_ms.is_none()) {
        bail!("nobody connected: {:?}", measured.failure_reasons);
    }
    Ok(Outcome::new(scenario.clone(), measured, timeline.into_moments()))
}

fn start_workers(receivers: usize, options: UdpOptions) -> anyhow::Result<Vec<Worker>> {
    // The first is for publishers: their clock must not wait for receivers.
    (0..=receivers)
        .map(|index| {
            let name =
                if index == 0 { "publishers".to_owned() } else { format!("receive-{index}") };
            Worker::start(name, options)
        })
        .collect()
}

/// Each client has a socket for media and one for signalling.
fn check_descriptors(scenario: &Scenario) -> anyhow::Result<()> {
    let needed = scenario.participants() as u64 * 2 + DESCRIPTORS_SPARE;
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let limit = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    if limit.is_some_and(|limit| limit < needed) {
        bail!(
            "{} clients need {needed} descriptors and the limit is {}: ulimit -n {needed}",
            scenario.participants(),
            limit.unwrap_or_default(),
        );
    }
    Ok(())
}

async fn join_everybody(
    scenario: &Scenario,
    members: &mut Members<'_>,
    timeline: &mut Timeline,
    watch: &mut impl FnMut(&Moment),
) -> anyhow::Result<()> {
    let pace = Duration::from_secs_f64(1.0 / scenario.join_rate);
    let mut ticks = tokio::time::interval(pace);
    for publishers in [true, false] {
        for spec in members.plan(publishers) {
            ticks.tick().await;
            members.join(&spec)?;
            timeline.look(members, watch);
        }
        // Subscribers find the tracks there, so that their joins are alike.
        let limit = Instant::now() + CONNECT_LIMIT;
        while !members.all_settled() && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
            timeline.look(members, watch);
        }
    }
    Ok(())
}

async fn wait(
    duration: Duration,
    timeline: &mut Timeline,
    members: &mut Members<'_>,
    watch: &mut impl FnMut(&Moment),
) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let left = end.saturating_duration_since(Instant::now());
        tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        timeline.look(members, watch);
    }
}

async fn wait_with_churn(
    scenario: &Scenario,
    timeline: &mut Timeline,
    members: &mut Members<'_>,
    watch: &mut impl FnMut(&Moment),
) {
    let Some(churn) = scenario.churn else {
        return wait(scenario.duration(), timeline, members, watch).await;
    };
    let end = Instant::now() + scenario.duration();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / churn.per_second));
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => members.replace_one(),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        timeline.look(members, watch);
    }
}

async fn collect(workers: &[Worker]) -> anyhow::Result<Vec<PeerReport>> {
    let mut all = Vec::new();
    for worker in workers {
        let (reply, reports) = channel();
        worker.order(Order::Collect(reply));
        let answer = move || reports.recv_timeout(Duration::from_secs(30));
        let part = tokio::task::spawn_blocking(answer).await?;
        all.extend(part.context("a worker does not answer")?);
    }
    Ok(all)
}

/// What is read at both ends of the measured time.
struct Measurement {
    at: Instant,
    server: Option<Usage>,
    own: Usage,
    threads: Vec<Duration>,
}

impl Measurement {
    fn begin(server: &Server, workers: &[Worker]) -> Self {
        Self {
            at: Instant::now(),
            server: server.pid.and_then(Usage::of),
            own: Usage::own(),
            threads: workers.iter().map(|worker| worker.sums().cpu).collect(),
        }
    }

    fn end(self, server: &Server, workers: &[Worker], ports: &BTreeSet<u16>) -> Measured {
        let seconds = self.at.elapsed().as_secs_f64();
        let busiest = workers.iter().zip(&self.threads).map(|(worker, before)| {
            worker.sums().cpu.saturating_sub(*before).as_secs_f64() / seconds
        });
        Measured {
            seconds,
            server_begin: self.server,
            server_end: server.pid.and_then(Usage::of),
            own_cpu_seconds: Usage::own().cpu_seconds - self.own.cpu_seconds,
            cores: thread::available_cores().map_or(1, |cores| cores.len()),
            busiest_thread: busiest.fold(0.0, f64::max),
            socket_drops: socket_drops(ports),
            ..Measured::default()
        }
    }
}
