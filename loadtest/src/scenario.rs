//! Scenario files: who joins, what they publish and watch, on what link, and what
//! must hold at the end. Keys that are not known are refused by name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

/// Participants of all rooms together that one run may have.
pub const PARTICIPANTS_MAX: usize = 20_000;

/// A whole scenario. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Short name, used for files and rooms.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Everything random follows from it.
    #[serde(default = "one")]
    pub seed: u64,
    /// How long is measured.
    pub duration_seconds: f64,
    /// From the last join to the beginning of the measurement.
    #[serde(default = "two")]
    pub warm_up_seconds: f64,
    /// Joins begun per second, over all rooms.
    #[serde(default = "twenty_five")]
    pub join_rate: f64,
    /// Rooms, all alike.
    #[serde(default = "one_room")]
    pub rooms: usize,
    /// Kinds of publishers of each room; they join first.
    #[serde(default)]
    pub publishers: Vec<Publishers>,
    /// Kinds of subscribers of each room.
    #[serde(default)]
    pub subscribers: Vec<Subscribers>,
    /// Subscribers that leave and are replaced while the run lasts.
    pub churn: Option<Churn>,
    /// Datagrams of strangers at the media port.
    pub flood: Option<Flood>,
    /// How the load generator itself works.
    #[serde(default)]
    pub load: Load,
    /// What must hold.
    #[serde(default)]
    pub pass: Pass,
}

/// Publishers of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Publishers {
    /// How many in each room.
    #[serde(default = "one_room")]
    pub count: usize,
    /// They also receive everything the others publish.
    #[serde(default)]
    pub subscribe: bool,
    /// How they come in: LiveKit signalling or WHIP.
    #[serde(default)]
    pub transport: Transport,
    /// Opus, if any.
    pub audio: Option<Audio>,
    /// Video, if any.
    pub video: Option<Video>,
}

/// How a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// LiveKit signalling over a WebSocket.
    #[default]
    Livekit,
    /// WHIP (RFC 9725), to publish.
    Whip,
    /// WHEP, to watch.
    Whep,
}

/// A published Opus stream of one packet each 20 ms.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Audio {
    /// Of the payload while there is a voice.
    #[serde(default = "thirty_two")]
    pub bitrate_kbps: f64,
    /// Share of the time with a voice, 0 to 1. Spells of voice last one to four seconds.
    #[serde(default = "always")]
    pub voice_share: f64,
    /// Send one packet each 400 ms while there is no voice.
    #[serde(default)]
    pub dtx: bool,
}

/// Codecs that publishers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// VP8 (RFC 7741).
    #[default]
    Vp8,
    /// H.264, packetization mode 1 (RFC 6184).
    H264,
}

/// A published video track.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    /// Codec.
    #[serde(default)]
    pub codec: Codec,
    /// A keyframe has this many times the packets of another frame.
    #[serde(default = "always")]
    pub keyframe_factor: f64,
    /// A keyframe comes this often by itself; if absent, only when one is asked for.
    pub keyframe_seconds: Option<f64>,
    /// Encodings, smallest first: one, or up to three for simulcast.
    pub layers: Vec<Layer>,
}

/// One encoding. Its size is given by a bitrate, or by packets per frame.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: f64,
    /// Of the payload.
    pub bitrate_kbps: Option<f64>,
    /// Instead of a bitrate: packets of each frame.
    pub packets_per_frame: Option<usize>,
    /// Payload bytes of a packet: the largest with a bitrate, each one without.
    #[serde(default = "packet_bytes")]
    pub packet_bytes: usize,
}

/// Subscribers of one kind.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Subscribers {
    /// Shown in the report.
    #[serde(default = "viewers")]
    pub label: String,
    /// How many in each room.
    pub count: usize,
    /// How they come in: LiveKit signalling or WHEP.
    #[serde(default)]
    pub transport: Transport,
    /// Size asked for each video; the largest if absent. Not by WHEP.
    pub view: Option<View>,
    /// Their link; perfect if absent.
    pub impairment: Option<Impairment>,
}

/// Size of a video on a subscriber's screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// What happens to datagrams on their way to a client, in the client.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Impairment {
    /// Independent loss, 0 to 100.
    #[serde(default)]
    pub loss_percent: f64,
    /// Fixed delay.
    #[serde(default)]
    pub delay_ms: f64,
    /// Added to the delay, evenly spread; packets keep their order.
    #[serde(default)]
    pub jitter_ms: f64,
    /// What the link carries, from when on; unlimited before the first.
    #[serde(default)]
    pub rate: Vec<RateStep>,
    /// Longest wait in the queue in front of a rate limit; what is beyond is dropped.
    #[serde(default = "queue")]
    pub queue_ms: f64,
}

/// A change of a link's rate.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateStep {
    /// Since the client's join.
    pub at_seconds: f64,
    /// New rate; 0 lifts the limit.
    pub kbps: f64,
}

/// Subscribers replaced while the run lasts.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Replacements begun per second: one leaves, another joins.
    pub per_second: f64,
}

/// Datagrams of strangers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    /// All kinds together.
    pub packets_per_second: f64,
    /// Kinds sent in turn.
    pub kinds: Vec<FloodKind>,
}

/// What strangers send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FloodKind {
    /// Random bytes that look like nothing, STUN, DTLS or RTP.
    Malformed,
    /// Packets that a publisher sent a moment ago, to the byte.
    Replayed,
    /// RTP with a publisher's SSRC and a ciphertext of nobody.
    WrongKey,
}

/// How the load generator works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Threads that receive. Publishers have one of their own.
    #[serde(default = "one_room")]
    pub workers: usize,
    /// Decrypt one media packet of this many; the rest is counted by its header.
    #[serde(default = "one_packet")]
    pub decrypt_every: u32,
    /// Let the kernel hand over a train of the server as one (`UDP_GRO`), which
    /// spares the sender the cutting on loopback.
    #[serde(default)]
    pub receive_offload: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { workers: 1, decrypt_every: 1, receive_offload: false }
    }
}

/// What must hold. Absent limits are not checked.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// Packets that never came, of all.
    pub lost_percent_max: Option<f64>,
    /// Audio packets that never came, of all audio.
    pub audio_lost_percent_max: Option<f64>,
    /// One-way latency, 99th percentile.
    pub latency_p99_ms_max: Option<f64>,
    /// Join to first keyframe, 95th percentile; with churn, of those who came late.
    pub first_keyframe_p95_ms_max: Option<f64>,
    /// Longest time that a picture stood still, worst subscriber.
    pub freeze_ms_max: Option<f64>,
    /// Joins that failed or sessions that ended early.
    pub failures_max: Option<u64>,
    /// Keyframe requests that reached publishers in the measured time.
    pub keyframe_requests_max: Option<u64>,
    /// Growth of the server's memory from the beginning to the end of the measured time.
    pub memory_growth_kib_max: Option<i64>,
    /// Growth of the server's descriptors in the same time.
    pub descriptors_growth_max: Option<i64>,
    /// Growth of the server's tasks in the same time; needs its Prometheus page.
    pub tasks_growth_max: Option<i64>,
    /// Growth of the number of series on that page in the same time.
    pub series_growth_max: Option<i64>,
}

fn one() -> u64 {
    1
}
fn one_room() -> usize {
    1
}
fn one_packet() -> u32 {
    1
}
fn two() -> f64 {
    2.0
}
fn twenty_five() -> f64 {
    25.0
}
fn thirty_two() -> f64 {
    32.0
}
fn always() -> f64 {
    1.0
}
fn packet_bytes() -> usize {
    1160
}
fn queue() -> f64 {
    200.0
}
fn viewers() -> String {
    "subscribers".to_owned()
}

impl Layer {
    /// Packets of an ordinary frame and payload bytes of each: as few as hold the
    /// frame, all of one length, as encoders' packetizers make them.
    #[must_use]
    pub fn frame_shape(&self) -> (usize, usize) {
        if let Some(packets) = self.packets_per_frame {
            return (packets.max(1), self.packet_bytes);
        }
        let bytes = self.bitrate_kbps.unwrap_or(300.0) * 125.0 / self.frame_rate;
        let packets = (bytes / self.packet_bytes as f64).ceil().max(1.0);
        (packets as usize, ((bytes / packets).ceil() as usize).max(64))
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// With the key or value that is wrong.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads a scenario file.
    ///
    /// # Errors
    /// If it cannot be read, or with the key or value that is wrong.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    /// How long is measured.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.duration_seconds)
    }

    /// Tracks published in each room: audio, video.
    #[must_use]
    pub fn tracks(&self) -> (usize, usize) {
        let sum = |has: fn(&Publishers) -> bool| {
            self.publishers.iter().filter(|kind| has(kind)).map(|kind| kind.count).sum()
        };
        (sum(|kind| kind.audio.is_some()), sum(|kind| kind.video.is_some()))
    }

    /// Participants of all rooms.
    #[must_use]
    pub fn participants(&self) -> usize {
        let publishers: usize = self.publishers.iter().map(|kind| kind.count).sum();
        let subscribers: usize = self.subscribers.iter().map(|kind| kind.count).sum();
        self.rooms * (publishers + subscribers)
    }

    fn check(&self) -> anyhow::Result<()> {
        let positive = |name: &str, value: f64| {
            ensure!(value.is_finite() && value > 0.0, "{name} must be above 0, not {value}");
            Ok(())
        };
        let range = |name: &str, value: f64, max: f64| {
            ensure!((0.0..=max).contains(&value), "{name} must be 0 to {max}, not {value}");
            Ok(())
        };
        let named = !self.name.is_empty()
            && self.name.chars().all(|one| one.is_ascii_alphanumeric() || one == '-');
        ensure!(named, "name must be letters, digits and dashes, not {:?}", self.name);
        positive("duration_seconds", self.duration_seconds)?;
        range("duration_seconds", self.duration_seconds, 86_400.0)?;
        range("warm_up_seconds", self.warm_up_seconds, 3_600.0)?;
        positive("join_rate", self.join_rate)?;
        let people = self.participants();
        ensure!(people > 0, "nobody joins: publishers and subscribers are empty");
        ensure!(people <= PARTICIPANTS_MAX, "{people} participants, more than {PARTICIPANTS_MAX}");
        ensure!((1..=64).contains(&self.load.workers), "load.workers must be 1 to 64");
        ensure!(self.load.decrypt_every > 0, "load.decrypt_every must be above 0");
        if let Some(churn) = self.churn {
            positive("churn.per_second", churn.per_second)?;
        }
        if let Some(flood) = &self.flood {
            positive("flood.packets_per_second", flood.packets_per_second)?;
            ensure!(!flood.kinds.is_empty(), "flood.kinds is empty");
        }
        for kind in &self.publishers {
            let fits = match kind.transport {
                Transport::Livekit => true,
                Transport::Whip => !kind.subscribe,
                Transport::Whep => false,
            };
            ensure!(fits, "publishers.transport: livekit, or whip without subscribe");
            if let Some(audio) = &kind.audio {
                range("publishers.audio.voice_share", audio.voice_share, 1.0)?;
                range("publishers.audio.bitrate_kbps", audio.bitrate_kbps, 510.0)?;
            }
            let Some(video) = &kind.video else { continue };
            let layers = video.layers.len();
            ensure!((1..=3).contains(&layers), "publishers.video.layers: 1 to 3, not {layers}");
            range("publishers.video.keyframe_factor", video.keyframe_factor, 50.0)?;
            if let Some(seconds) = video.keyframe_seconds {
                positive("publishers.video.keyframe_seconds", seconds)?;
                range("publishers.video.keyframe_seconds", seconds, 3_600.0)?;
            }
            for layer in &video.layers {
                positive("publishers.video.layers.frame_rate", layer.frame_rate)?;
                range("publishers.video.layers.frame_rate", layer.frame_rate, 2_000.0)?;
                let sized = layer.bitrate_kbps.is_some() != layer.packets_per_frame.is_some();
                ensure!(
                    sized,
                    "publishers.video.layers: give either bitrate_kbps or packets_per_frame"
                );
                let bytes = layer.packet_bytes;
                ensure!(
                    (64..=1200).contains(&bytes),
                    "publishers.video.layers.packet_bytes must be 64 to 1200, not {bytes}"
                );
            }
        }
        for kind in &self.subscribers {
            let watches = kind.transport != Transport::Whip;
            ensure!(watches, "subscribers.transport: livekit or whep");
            let view = kind.view.is_none() || kind.transport == Transport::Livekit;
            ensure!(view, "subscribers.view cannot be asked for by whep");
        }
        for link in self.subscribers.iter().filter_map(|kind| kind.impairment.as_ref()) {
            range("subscribers.impairment.loss_percent", link.loss_percent, 100.0)?;
            range("subscribers.impairment.delay_ms", link.delay_ms, 10_000.0)?;
            range("subscribers.impairment.jitter_ms", link.jitter_ms, 10_000.0)?;
            range("subscribers.impairment.queue_ms", link.queue_ms, 10_000.0)?;
            let rising = link.rate.is_sorted_by(|a, b| a.at_seconds < b.at_seconds);
            ensure!(rising, "subscribers.impairment.rate must rise in at_seconds");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = \"small\"\nduration_seconds = 1\n\
        [[publishers]]\n[publishers.video]\n\
        layers = [{ width = 640, height = 360, frame_rate = 30, bitrate_kbps = 1200 }]\n\
        [[subscribers]]\ncount = 3\n";

    #[test]
    fn a_small_scenario_is_read_with_defaults() {
        let scenario = Scenario::parse(SMALL).unwrap();
        assert_eq!((scenario.rooms, scenario.participants(), scenario.tracks()), (1, 4, (0, 1)));
        assert_eq!(scenario.load, Load::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        for wrong in ["join_rat = 3\n", "[pass]\nlost_max = 1\n", "[load]\nthreads = 2\n"] {
            let text = if wrong.starts_with('[') {
                format!("{SMALL}{wrong}")
            } else {
                format!("{wrong}{SMALL}")
            };
            let error = format!("{:#}", Scenario::parse(&text).unwrap_err());
            let key =
                wrong.split(['\n', ' ']).find(|word| word.contains('_') || *word == "threads");
            assert!(error.contains("unknown field"), "{error}");
            assert!(error.contains(key.unwrap()), "{error}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (from, to) in [
            ("duration_seconds = 1", "duration_seconds = -1"),
            ("name = \"small\"", "name = \"a b\""),
            ("count = 3", "count = 300000"),
            ("bitrate_kbps = 1200", "bitrate_kbps = 1200, packets_per_frame = 3"),
            ("frame_rate = 30", "frame_rate = 0"),
        ] {
            assert!(Scenario::parse(&SMALL.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_frame_is_cut_into_packets_of_one_length() {
        let layer = Scenario::parse(SMALL).unwrap().publishers[0].video.clone().unwrap().layers[0];
        assert_eq!(layer.frame_shape(), (5, 1000));
    }

    #[test]
    fn every_shipped_scenario_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut names = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            let scenario = Scenario::read(&file).unwrap();
            assert_eq!(file.file_stem().unwrap().to_str().unwrap(), scenario.name);
            names += 1;
        }
        assert!(names >= 14, "only {names} scenarios");
    }
}
