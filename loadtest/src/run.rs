//! A crowd of clients: one publisher's media to many, or joins and leaves in a row.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_model::Grants;
use headwater_rpc::token::{KeyRing, TokenRequest, unix_seconds};

use crate::client::{Client, ClientConfig, Receive, Video};
use crate::report::Report;
use crate::source::now_micros;

/// The server under load.
#[derive(Debug, Clone)]
pub struct Server {
    /// Signalling address.
    pub url: String,
    /// API key and secret, to sign for the clients.
    pub keys: KeyRing,
    /// Process id, if it runs on this machine: its processor time and memory are read.
    pub pid: Option<u32>,
    /// Address of its Prometheus page, if it is to be read.
    pub metrics: Option<String>,
}

/// One room with one publisher and many subscribers.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// Room to use.
    pub room: String,
    /// How many subscribe.
    pub subscribers: usize,
    /// The publisher's video.
    pub video: Video,
    /// The publisher sends audio too.
    pub audio: bool,
    /// How long to measure once everybody is there.
    pub duration: Duration,
    /// Joins begun per second.
    pub joins_per_second: f64,
}

impl Server {
    /// Signs a token for one participant.
    ///
    /// # Errors
    /// If the key ring cannot sign.
    pub fn token(&self, room: &str, identity: &str) -> anyhow::Result<String> {
        let grants = Grants {
            room: room.to_owned(),
            room_join: true,
            identity: identity.to_owned(),
            ..Grants::default()
        };
        let request = TokenRequest { grants, ttl: Duration::from_secs(3600) };
        self.keys.mint(&request, unix_seconds()).context("sign a token")
    }

    /// Resident memory of the server, in KiB.
    #[must_use]
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

/// Processor time of a process, in seconds; `None` if there is no such process.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    // Fields 14 and 15 of stat, in ticks; the kernel shows 100 of them a second.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

/// Runs a broadcast and measures it.
///
/// # Errors
/// If somebody cannot join, or nobody receives.
pub async fn broadcast(server: &Server, plan: &Broadcast) -> anyhow::Result<Report> {
    let before = server.memory_kib();
    let publisher = Client::join(ClientConfig {
        url: server.url.clone(),
        token: server.token(&plan.room, "publisher")?,
        video: Some(plan.video),
        audio: plan.audio,
        receive: Receive::default(),
    })
    .await
    .context("the publisher cannot join")?;
    publisher.connected(Duration::from_secs(10)).await.context("the publisher does not connect")?;
    let subscribers = join_all(server, plan).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;

    for client in &subscribers {
        client.reset();
    }
    publisher.reset();
    let begun = Instant::now();
    let cpu = server.pid.and_then(cpu_seconds);
    let own = cpu_seconds(std::process::id());
    tokio::time::sleep(plan.duration).await;
    let mut report = Report {
        scenario: format!("1 publisher, {} subscribers", plan.subscribers),
        subscribers: subscribers.len(),
        seconds: begun.elapsed().as_secs_f64(),
        server_cpu_seconds: difference(server.pid.and_then(cpu_seconds), cpu),
        own_cpu_seconds: difference(cpu_seconds(std::process::id()), own).unwrap_or_default(),
        server_memory_before_kib: before,
        server_memory_loaded_kib: server.memory_kib(),
        ..Report::default()
    };
    (report.frames, report.late_frames) = publisher.frames_sent();
    for client in &subscribers {
        add(&mut report, client);
    }
    for client in subscribers {
        client.leave().await.context("a subscriber ended early")?;
    }
    publisher.leave().await.context("the publisher ended early")?;
    if report.receiving == 0 {
        bail!("none of {} subscribers received anything", report.subscribers);
    }
    Ok(report)
}

async fn join_all(server: &Server, plan: &Broadcast) -> anyhow::Result<Vec<Client>> {
    let pace = Duration::from_secs_f64(1.0 / plan.joins_per_second.max(0.1));
    let mut joins = Vec::with_capacity(plan.subscribers);
    let mut ticks = tokio::time::interval(pace);
    for index in 0..plan.subscribers {
        ticks.tick().await;
        joins.push(tokio::spawn(Client::join(ClientConfig {
            url: server.url.clone(),
            token: server.token(&plan.room, &format!("subscriber-{index}"))?,
            video: None,
            audio: false,
            receive: Receive { audio: usize::from(plan.audio), video: 1 },
        })));
    }
    let mut clients = Vec::with_capacity(joins.len());
    for (index, join) in joins.into_iter().enumerate() {
        clients.push(join.await?.with_context(|| format!("subscriber {index} cannot join"))?);
    }
    Ok(clients)
}

fn difference(after: Option<f64>, before: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}

fn add(report: &mut Report, client: &Client) {
    let observed = client.observed();
    let begun = observed.begun_micros;
    let since = |time: Option<u64>| time.map(|time| time.saturating_sub(begun) as f64 / 1000.0);
    report.connected_ms.extend(since(observed.connected_micros));
    report.first_keyframe_ms.extend(since(observed.sink.first_keyframe));
    let packets = observed.sink.packets();
    report.receiving += usize::from(packets > 0);
    report.packets += packets;
    report.lost += observed.sink.lost();
    report.latencies.merge(&observed.sink.latencies);
    for stream in observed.sink.streams().values() {
        report.gap_max_ms = report.gap_max_ms.max(stream.gap_max_micros as f64 / 1000.0);
    }
}

/// Joins and leaves in a row, some at once, each with a connected transport.
/// Answers with the time it took, in seconds.
///
/// # Errors
/// If a join fails.
pub async fn churn(
    server: &Server,
    room: &str,
    joins: usize,
    at_once: usize,
) -> anyhow::Result<f64> {
    let begun = now_micros();
    let mut running = tokio::task::JoinSet::new();
    for index in 0..joins {
        if running.len() >= at_once.max(1) {
            running.join_next().await.context("no join runs")???;
        }
        let config = ClientConfig {
            url: server.url.clone(),
            token: server.token(room, &format!("churn-{index}"))?,
            video: None,
            audio: true,
            receive: Receive { audio: 1, video: 1 },
        };
        running.spawn(async move {
            let client = Client::join(config).await.with_context(|| format!("join {index}"))?;
            client
                .connected(Duration::from_secs(10))
                .await
                .with_context(|| format!("join {index}"))?;
            client.leave().await.with_context(|| format!("join {index}"))
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok((now_micros() - begun) as f64 / 1e6)
}
