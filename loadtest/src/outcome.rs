//! What a run measured, whether the load was what it should have been, and whether
//! the scenario's criteria hold.

use serde::Serialize;

use crate::crowd::{Counts, LAYERS, Moment, PeerReport};
use crate::histogram::Histogram;
use crate::process::Usage;
use crate::scenario::{Pass, Scenario};
use crate::scrape::Scrape;

/// A run whose publishers sent more than this share of frames late is invalid.
const LATE_SHARE_MAX: f64 = 0.02;
/// The same for a share of a core that the busiest thread, and of all cores that the
/// whole process used.
const BUSY_MAX: f64 = 0.95;
/// The same for the share of packets that the kernel dropped at the clients' sockets.
const DROP_SHARE_MAX: f64 = 0.001;

/// Raw figures of a run.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Measured time.
    pub seconds: f64,
    /// The server before anybody joined.
    pub before: Option<Usage>,
    /// The server at the beginning of the measured time.
    pub server_begin: Option<Usage>,
    /// The server at its end.
    pub server_end: Option<Usage>,
    /// The server after everybody left.
    pub after: Option<Usage>,
    /// The server's Prometheus page at both ends of the measured time.
    pub scrapes: Option<(Scrape, Scrape)>,
    /// Processor time of this process in the measured time.
    pub own_cpu_seconds: f64,
    /// Processors that this process may use.
    pub cores: usize,
    /// Share of a core that the busiest media thread used.
    pub busiest_thread: f64,
    /// Datagrams that the kernel dropped at the clients' sockets, from the beginning.
    pub socket_drops: u64,
    /// Names of the kinds of clients.
    pub labels: Vec<String>,
    /// All clients.
    pub peers: Vec<PeerReport>,
    /// Joins begun.
    pub joined: u64,
    /// Joins that failed and sessions that ended early.
    pub failures: u64,
    /// Why, of the first ones.
    pub failure_reasons: Vec<String>,
    /// What strangers sent.
    pub flood: Option<FloodResult>,
}

/// What strangers sent.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct FloodResult {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that our own socket had no room for.
    pub dropped: u64,
    /// Rate of those sent.
    pub per_second: f64,
}

/// Percentiles of durations, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 95 % are below.
    pub p95: f64,
    /// 99 % are below.
    pub p99: f64,
    /// 99.9 % are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of a histogram in microseconds; `None` if it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram) -> Option<Self> {
        let at = |share: f64| Some(histogram.quantile(share)? as f64 / 1000.0);
        Some(Self {
            count: histogram.count(),
            p50: at(0.5)?,
            p90: at(0.9)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: histogram.max() as f64 / 1000.0,
        })
    }

    /// Of values in milliseconds.
    #[must_use]
    pub fn of_values(values: &[f64]) -> Option<Self> {
        let at = |share: f64| crate::report::quantile(values, share);
        Some(Self {
            count: values.len() as u64,
            p50: at(0.5)?,
            p90: at(0.9)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: at(1.0)?,
        })
    }
}

/// Joins of subscribers and publishers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Joins {
    /// Joins begun, replacements included.
    pub begun: u64,
    /// Joins that failed and sessions that ended early.
    pub failures: u64,
    /// Why, of the first ones.
    pub failure_reasons: Vec<String>,
    /// Start of the join to keys in place.
    pub connected: Option<Percentiles>,
    /// Start of the join to the first media packet.
    pub first_packet: Option<Percentiles>,
    /// Start of the join to the first packet of a keyframe.
    pub first_keyframe: Option<Percentiles>,
    /// The same of those who joined in the measured time, when everybody else was there.
    pub late_first_keyframe: Option<Percentiles>,
    /// Times to connected, first packet and first keyframe, each sorted, in ms.
    pub curves: [Vec<f64>; 3],
}

/// Media of one kind, as received.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Media {
    /// Packets received, each once.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Lost of all, in percent.
    pub lost_percent: f64,
    /// Packets that came only after they had been asked for or late.
    pub recovered: u64,
    /// Packets that came twice.
    pub repeated: u64,
    /// NACKs sent.
    pub nacks: u64,
    /// PLIs sent.
    pub plis: u64,
    /// One-way, from the publisher's send call to the receiver's read.
    pub latency: Option<Percentiles>,
    /// Points of the latency curve: share in percent, milliseconds.
    pub latency_curve: Vec<(f64, f64)>,
    /// Longest time between two packets of a stream, of each client.
    pub gap_max: Option<Percentiles>,
    /// Longest time that nothing new could be shown, of each client. Video only.
    pub freeze_max: Option<Percentiles>,
    /// Times above half a second that nothing new could be shown. Video only.
    pub freezes: u64,
    /// Longest gap (audio) or stand-still (video) of each client, sorted, in ms.
    pub interruption_curve: Vec<f64>,
}

/// The server's process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerUse {
    /// Processor time in the measured time.
    pub cpu_seconds: f64,
    /// Media packets that clients received for each of those seconds.
    pub packets_per_cpu_second: f64,
    /// Before anybody joined.
    pub before: Option<Usage>,
    /// At the beginning of the measured time.
    pub begin: Usage,
    /// At its end.
    pub end: Usage,
    /// After everybody had left.
    pub after: Option<Usage>,
    /// Growth of memory from before the joins to the end, by client, in KiB.
    pub memory_per_client_kib: Option<f64>,
    /// Its Prometheus page at the beginning and at the end of the measured time.
    pub scrapes: Option<(Scrape, Scrape)>,
}

/// The load generator itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OwnUse {
    /// Processor time in the measured time.
    pub cpu_seconds: f64,
    /// Processors that it may use.
    pub cores: usize,
    /// Share of a core that its busiest media thread used.
    pub busiest_thread: f64,
    /// Frames and audio packets that were due to be sent.
    pub frames: u64,
    /// Those that left late.
    pub late_frames: u64,
    /// Times that a publisher was so far behind that it left frames out.
    pub frames_left_out: u64,
    /// Datagrams that the kernel dropped at the clients' sockets.
    pub socket_drops: u64,
    /// Share of the media packets that were decrypted, in percent.
    pub decrypted_percent: f64,
}

/// Clients of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Group {
    /// Its name.
    pub label: String,
    /// Clients, those that left included.
    pub clients: usize,
    /// Clients that received media.
    pub receiving: usize,
    /// Packets received.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Audio that never came, of all audio, in percent.
    pub audio_lost_percent: f64,
    /// Video that never came, of all video, in percent.
    pub video_lost_percent: f64,
    /// Payload received for each client, in kbit/s.
    pub kbps_per_client: f64,
    /// Video packets by encoding.
    pub layers: [u64; LAYERS],
    /// Changes from one encoding to another.
    pub layer_switches: u64,
    /// Longest stand-still of a picture.
    pub freeze_max_ms: f64,
    /// Longest gap in audio.
    pub audio_gap_max_ms: f64,
    /// Datagrams that its bad link lost on purpose.
    pub link_lost: u64,
}

/// One criterion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Its name in the scenario.
    pub name: &'static str,
    /// The limit.
    pub limit: f64,
    /// What was measured; absent if it could not be.
    pub value: Option<f64>,
    /// Whether it holds. What could not be measured does not.
    pub passed: bool,
}

/// A whole result.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was run.
    pub scenario: Scenario,
    /// The load was what it should be.
    pub valid: bool,
    /// Why it was not.
    pub invalid_because: Vec<String>,
    /// All criteria hold.
    pub passed: bool,
    /// The criteria.
    pub checks: Vec<Check>,
    /// Measured time.
    pub seconds: f64,
    /// Media packets received, of all kinds.
    pub packets: u64,
    /// The same per second.
    pub packets_per_second: f64,
    /// Joins.
    pub joins: Joins,
    /// Video.
    pub video: Media,
    /// Audio.
    pub audio: Media,
    /// Keyframe requests that reached publishers.
    pub keyframe_requests: u64,
    /// Packets that could not be decrypted.
    pub undecryptable: u64,
    /// Packets that publishers sent.
    pub packets_sent: u64,
    /// What strangers sent.
    pub flood: Option<FloodResult>,
    /// The server's process, if it is on this machine.
    pub server: Option<ServerUse>,
    /// The load generator.
    pub load: OwnUse,
    /// Kinds of clients.
    pub groups: Vec<Group>,
    /// Second by second.
    pub timeline: Vec<Moment>,
}

impl Outcome {
    /// Sums up what was measured.
    #[must_use]
    pub fn new(scenario: Scenario, measured: Measured, timeline: Vec<Moment>) -> Self {
        let sum = |value: fn(&PeerReport) -> u64| measured.peers.iter().map(value).sum::<u64>();
        let packets = sum(|peer| peer.packets);
        let mut outcome = Self {
            valid: true,
            invalid_because: Vec::new(),
            passed: true,
            checks: Vec::new(),
            seconds: measured.seconds,
            packets,
            packets_per_second: packets as f64 / measured.seconds.max(1e-9),
            joins: joins(&measured),
            video: video(&measured.peers),
            audio: audio(&measured.peers),
            keyframe_requests: sum(|peer| peer.keyframe_requests),
            undecryptable: sum(|peer| peer.undecryptable),
            packets_sent: sum(|peer| peer.packets_sent),
            flood: measured.flood,
            server: server(&measured, packets, scenario.participants()),
            load: load(&measured, packets),
            groups: groups(&measured),
            timeline,
            scenario,
        };
        outcome.invalid_because = invalid_because(&outcome.load, outcome.seconds, packets);
        outcome.valid = outcome.invalid_because.is_empty();
        outcome.checks = checks(&outcome);
        outcome.passed = outcome.checks.iter().all(|check| check.passed);
        outcome
    }

    /// Lost of everything, in percent.
    #[must_use]
    pub fn lost_percent(&self) -> f64 {
        percent(self.video.lost + self.audio.lost, self.video.received + self.audio.received)
    }
}

fn percent(lost: u64, received: u64) -> f64 {
    lost as f64 * 100.0 / (lost + received).max(1) as f64
}

fn joins(measured: &Measured) -> Joins {
    let curve = |value: fn(&PeerReport) -> Option<f64>| {
        let mut values: Vec<f64> = measured.peers.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let curves = [
        curve(|peer| peer.connected_ms),
        curve(|peer| peer.first_packet_ms),
        curve(|peer| peer.first_keyframe_ms),
    ];
    let late = measured.peers.iter().filter(|peer| peer.came_late);
    let late: Vec<f64> = late.filter_map(|peer| peer.first_keyframe_ms).collect();
    Joins {
        begun: measured.joined,
        failures: measured.failures,
        failure_reasons: measured.failure_reasons.clone(),
        connected: Percentiles::of_values(&curves[0]),
        first_packet: Percentiles::of_values(&curves[1]),
        first_keyframe: Percentiles::of_values(&curves[2]),
        late_first_keyframe: Percentiles::of_values(&late),
        curves,
    }
}

fn video(peers: &[PeerReport]) -> Media {
    let mut media = media(peers, |peer| (peer.video, &peer.latencies));
    let frozen: Vec<f64> = interruptions(peers, |peer| {
        (peer.video.received > 0).then_some(peer.video.freeze_max_micros)
    });
    media.freeze_max = Percentiles::of_values(&frozen);
    media.interruption_curve = frozen;
    media
}

fn audio(peers: &[PeerReport]) -> Media {
    let mut media = media(peers, |peer| (peer.audio, &peer.audio_latencies));
    media.interruption_curve =
        interruptions(peers, |peer| (peer.audio.received > 0).then_some(peer.audio.gap_max_micros));
    media
}

fn interruptions(peers: &[PeerReport], micros: fn(&PeerReport) -> Option<u64>) -> Vec<f64> {
    let mut values: Vec<f64> =
        peers.iter().filter_map(micros).map(|micros| micros as f64 / 1000.0).collect();
    values.sort_by(f64::total_cmp);
    values
}

fn media(peers: &[PeerReport], part: fn(&PeerReport) -> (Counts, &Histogram)) -> Media {
    let mut latencies = Histogram::default();
    let mut counts = Counts::default();
    let mut gaps = Vec::new();
    for peer in peers {
        let (own, latency) = part(peer);
        latencies.merge(latency);
        counts = counts.plus(&own);
        if own.received > 0 {
            gaps.push(own.gap_max_micros as f64 / 1000.0);
        }
    }
    const SHARES: [f64; 12] =
        [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 100.0];
    let curve = SHARES
        .iter()
        .filter_map(|share| Some((*share, latencies.quantile(share / 100.0)? as f64 / 1000.0)));
    Media {
        received: counts.received,
        lost: counts.lost,
        lost_percent: percent(counts.lost, counts.received),
        recovered: counts.recovered,
        repeated: counts.repeated,
        nacks: counts.nacks,
        plis: counts.plis,
        latency: Percentiles::of(&latencies),
        latency_curve: curve.collect(),
        gap_max: Percentiles::of_values(&gaps),
        freeze_max: None,
        freezes: counts.freezes,
        interruption_curve: Vec::new(),
    }
}

/// `places` is how many clients there are at a time: those who left were replaced.
fn server(measured: &Measured, packets: u64, places: usize) -> Option<ServerUse> {
    let (begin, end) = (measured.server_begin?, measured.server_end?);
    let cpu_seconds = end.cpu_seconds - begin.cpu_seconds;
    let connected = measured.peers.iter().filter(|peer| peer.connected_ms.is_some()).count();
    let clients = connected.min(places);
    let grown = measured.before.map(|before| end.memory_kib as f64 - before.memory_kib as f64);
    Some(ServerUse {
        cpu_seconds,
        packets_per_cpu_second: if cpu_seconds > 0.0 { packets as f64 / cpu_seconds } else { 0.0 },
        before: measured.before,
        begin,
        end,
        after: measured.after,
        memory_per_client_kib: grown.map(|grown| grown / clients.max(1) as f64),
        scrapes: measured.scrapes,
    })
}

fn load(measured: &Measured, packets: u64) -> OwnUse {
    let sum = |value: fn(&PeerReport) -> u64| measured.peers.iter().map(value).sum::<u64>();
    OwnUse {
        cpu_seconds: measured.own_cpu_seconds,
        cores: measured.cores,
        busiest_thread: measured.busiest_thread,
        frames: sum(|peer| peer.frames.0),
        late_frames: sum(|peer| peer.frames.1),
        frames_left_out: sum(|peer| peer.frames.2),
        socket_drops: measured.socket_drops,
        decrypted_percent: (sum(|peer| peer.decrypted) as f64 * 100.0 / packets.max(1) as f64)
            .min(100.0),
    }
}

fn groups(measured: &Measured) -> Vec<Group> {
    let group = |(index, label): (usize, &String)| {
        let mut group = Group { label: label.clone(), ..Group::default() };
        let mut bytes = 0.0;
        let (mut audio, mut video) = (Counts::default(), Counts::default());
        for peer in measured.peers.iter().filter(|peer| peer.label == index) {
            group.clients += 1;
            group.receiving += usize::from(peer.packets > 0);
            group.packets += peer.packets;
            (audio, video) = (audio.plus(&peer.audio), video.plus(&peer.video));
            // What was not decrypted is as long as what was.
            let share = peer.decrypted.min(peer.packets).max(1) as f64 / peer.packets.max(1) as f64;
            bytes += peer.bytes as f64 / share;
            for (sum, layer) in group.layers.iter_mut().zip(peer.layers) {
                *sum += layer;
            }
            group.layer_switches += peer.layer_switches;
            let freeze = peer.video.freeze_max_micros as f64 / 1000.0;
            group.freeze_max_ms = group.freeze_max_ms.max(freeze);
            let gap = peer.audio.gap_max_micros as f64 / 1000.0;
            group.audio_gap_max_ms = group.audio_gap_max_ms.max(gap);
            group.link_lost += peer.link_lost;
        }
        group.lost = video.lost + audio.lost;
        group.audio_lost_percent = percent(audio.lost, audio.received);
        group.video_lost_percent = percent(video.lost, video.received);
        let seconds = measured.seconds.max(1e-9);
        group.kbps_per_client = bytes * 0.008 / seconds / group.receiving.max(1) as f64;
        group
    };
    measured.labels.iter().enumerate().map(group).collect()
}

fn invalid_because(load: &OwnUse, seconds: f64, packets: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    let late = load.late_frames as f64 / load.frames.max(1) as f64;
    if late > LATE_SHARE_MAX {
        reasons.push(format!("{:.1} % of the frames left late", late * 100.0));
    }
    if load.frames_left_out > 0 {
        reasons.push(format!("publishers fell behind {} times", load.frames_left_out));
    }
    if load.busiest_thread > BUSY_MAX {
        reasons.push(format!("a thread used {:.0} % of a core", load.busiest_thread * 100.0));
    }
    let all = load.cpu_seconds / seconds.max(1e-9) / load.cores.max(1) as f64;
    if all > BUSY_MAX {
        reasons.push(format!("the load used {:.0} % of its cores", all * 100.0));
    }
    if load.socket_drops as f64 > packets as f64 * DROP_SHARE_MAX {
        reasons.push(format!("clients had no room for {} datagrams", load.socket_drops));
    }
    reasons
}

fn checks(outcome: &Outcome) -> Vec<Check> {
    let pass: &Pass = &outcome.scenario.pass;
    let p99 = |media: &Media| media.latency.map(|latency| latency.p99);
    let slower = [p99(&outcome.video), p99(&outcome.audio)].into_iter().flatten();
    let latency = slower.max_by(f64::total_cmp);
    let server = outcome.server.as_ref();
    let grown = |value: fn(&Usage) -> u64| {
        server.map(|server| value(&server.end) as f64 - value(&server.begin) as f64)
    };
    let scraped = |value: fn(&Scrape) -> Option<u64>| {
        let (begin, end) = server?.scrapes?;
        Some(value(&end)? as f64 - value(&begin)? as f64)
    };
    let audio_lost = (outcome.audio.received > 0).then_some(outcome.audio.lost_percent);
    let all = [
        ("lost_percent_max", pass.lost_percent_max, Some(outcome.lost_percent())),
        ("audio_lost_percent_max", pass.audio_lost_percent_max, audio_lost),
        ("latency_p99_ms_max", pass.latency_p99_ms_max, latency),
        (
            "first_keyframe_p95_ms_max",
            pass.first_keyframe_p95_ms_max,
            outcome
                .joins
                .late_first_keyframe
                .or(outcome.joins.first_keyframe)
                .map(|times| times.p95),
        ),
        ("freeze_ms_max", pass.freeze_ms_max, outcome.video.freeze_max.map(|times| times.max)),
        (
            "failures_max",
            pass.failures_max.map(|limit| limit as f64),
            Some(outcome.joins.failures as f64),
        ),
        (
            "keyframe_requests_max",
            pass.keyframe_requests_max.map(|limit| limit as f64),
            Some(outcome.keyframe_requests as f64),
        ),
        (
            "memory_growth_kib_max",
            pass.memory_growth_kib_max.map(|limit| limit as f64),
            grown(|usage| usage.memory_kib),
        ),
        (
            "descriptors_growth_max",
            pass.descriptors_growth_max.map(|limit| limit as f64),
            grown(|usage| usage.descriptors),
        ),
        (
            "tasks_growth_max",
            pass.tasks_growth_max.map(|limit| limit as f64),
            scraped(|scrape| scrape.tasks),
        ),
        (
            "series_growth_max",
            pass.series_growth_max.map(|limit| limit as f64),
            scraped(|scrape| Some(scrape.series)),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, limit, value)| {
            let limit = limit?;
            let passed = value.is_some_and(|value| value <= limit);
            Some(Check { name, limit, value, passed })
        })
        .collect()
}

#[cfg(test)]
mod tests;
