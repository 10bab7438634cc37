//! The cases of the suite, and running one of them against a fresh server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::Setup;

/// A fresh server is ready within this time.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Shape of the bare loop to compare with.
#[derive(Debug, Clone, Copy)]
pub struct Yardstick {
    /// Receivers.
    pub subscribers: usize,
    /// Frames per second.
    pub frame_rate: f64,
    /// Packets of a frame.
    pub packets_per_frame: usize,
    /// Payload bytes of a packet.
    pub payload_bytes: usize,
}

/// Figures of other servers in the same shape, in thousand packets per CPU-second.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    /// What we aim for.
    pub goal: f64,
    /// mediasoup 3.27.1, one thread.
    pub mediasoup: f64,
    /// Janus 1.1.2, one event loop.
    pub janus: f64,
}

/// One case of the suite: a scenario with something to compare it with.
#[derive(Debug)]
pub struct Case {
    /// Name of the scenario.
    pub name: &'static str,
    /// For tables.
    pub title: &'static str,
    /// The bare loop in the same shape.
    pub yardstick: Option<Yardstick>,
    /// Other servers in the same shape.
    pub peers: Option<Peers>,
}

const fn three(subscribers: usize, frame_rate: f64) -> Option<Yardstick> {
    Some(Yardstick { subscribers, frame_rate, packets_per_frame: 3, payload_bytes: 1160 })
}

/// 1.2 Mbit/s at 30 frames per second are five packets of 1,000 bytes each; the
/// audio that goes with it in the scenario is not in the bare loop.
const fn speaker(subscribers: usize, frame_rate: f64) -> Option<Yardstick> {
    Some(Yardstick { subscribers, frame_rate, packets_per_frame: 5, payload_bytes: 1000 })
}

const fn peers(goal: f64, mediasoup: f64, janus: f64) -> Option<Peers> {
    Some(Peers { goal, mediasoup, janus })
}

/// The suite. The first five are in the shape in which other servers were measured.
pub const CASES: &[Case] = &[
    Case {
        name: "broadcast-50",
        title: "50 subscribers, 30 f/s",
        yardstick: three(50, 30.0),
        peers: peers(160.0, 32.1, 26.1),
    },
    Case {
        name: "broadcast-50-100fps",
        title: "50 subscribers, 100 f/s",
        yardstick: three(50, 100.0),
        peers: peers(225.0, 45.0, 43.1),
    },
    Case {
        name: "broadcast-50-200fps",
        title: "50 subscribers, 200 f/s",
        yardstick: three(50, 200.0),
        peers: peers(260.0, 58.1, 52.7),
    },
    Case {
        name: "broadcast-50-400fps",
        title: "50 subscribers, 400 f/s",
        yardstick: three(50, 400.0),
        peers: peers(290.0, 64.8, 68.6),
    },
    Case {
        name: "broadcast-200",
        title: "200 subscribers, 30 f/s",
        yardstick: three(200, 30.0),
        peers: peers(160.0, 28.7, 40.9),
    },
    Case {
        name: "town-hall-50",
        title: "50 subscribers, 1.2 Mbit/s and audio",
        yardstick: speaker(50, 30.0),
        peers: None,
    },
    Case {
        name: "town-hall-200",
        title: "200 subscribers, 1.2 Mbit/s and audio",
        yardstick: speaker(200, 30.0),
        peers: None,
    },
    Case {
        name: "broadcast-1000",
        title: "1,000 subscribers, 1.2 Mbit/s and audio",
        yardstick: speaker(1000, 30.0),
        peers: None,
    },
    Case {
        name: "rooms-50x8",
        title: "50 rooms of 8, 1.2 Mbit/s and audio in each",
        yardstick: speaker(7, 1500.0),
        peers: None,
    },
    Case {
        name: "audio-100",
        title: "100 microphones in one room, five speak",
        yardstick: Some(Yardstick {
            subscribers: 99,
            frame_rate: 490.0,
            packets_per_frame: 1,
            payload_bytes: 80,
        }),
        peers: None,
    },
    Case {
        name: "late-joiner",
        title: "somebody joins a hundred, five times a second",
        yardstick: None,
        peers: None,
    },
    Case { name: "join-storm", title: "500 joins in 2.5 s", yardstick: None, peers: None },
    Case {
        name: "flood",
        title: "200,000 datagrams a second of strangers",
        yardstick: None,
        peers: None,
    },
];

/// What one case reached.
#[derive(Debug)]
pub struct Result {
    /// The case.
    pub case: &'static Case,
    /// Results of `loadtest`, as JSON.
    pub runs: Vec<Value>,
    /// The bare loop before and after, in packets per CPU-second.
    pub yardsticks: Vec<f64>,
}

impl Result {
    /// Median of a figure over the runs, by its path in the JSON. Runs in which the load
    /// fell behind count only if there are no others.
    pub fn median(&self, path: &str) -> Option<f64> {
        median(self.values(path))
    }

    /// Smallest and largest of a figure.
    pub fn range(&self, path: &str) -> Option<(f64, f64)> {
        let values = self.values(path);
        let smallest = values.iter().copied().min_by(f64::total_cmp)?;
        Some((smallest, values.iter().copied().max_by(f64::total_cmp)?))
    }

    /// Runs in which the load fell behind, and all.
    pub fn invalid(&self) -> (usize, usize) {
        let invalid = self.runs.iter().filter(|run| run["valid"] != Value::Bool(true));
        (invalid.count(), self.runs.len())
    }

    /// The bare loop, mean of before and after.
    pub fn yardstick(&self) -> Option<f64> {
        let count = self.yardsticks.len();
        (count > 0).then(|| self.yardsticks.iter().sum::<f64>() / count as f64)
    }

    fn values(&self, path: &str) -> Vec<f64> {
        let read = |run: &Value| run.pointer(path).and_then(Value::as_f64);
        let valid: Vec<f64> = self
            .runs
            .iter()
            .filter(|run| run["valid"] == Value::Bool(true))
            .filter_map(read)
            .collect();
        if valid.is_empty() { self.runs.iter().filter_map(read).collect() } else { valid }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values.get(middle - 1)? + upper) / 2.0) }
}

/// A server that ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(setup: &Setup, log: &Path) -> anyhow::Result<Self> {
        let ports = free_ports()?;
        let out = std::fs::File::create(log).with_context(|| log.display().to_string())?;
        let mut command = on_core(setup.server_core, &setup.headwater);
        command.args(["dev", "--memory", "--shards", "1", "--advertise-ip", "127.0.0.1"]);
        let names = ["--port", "--tcp-port", "--udp-port", "--api-port", "--admin-port"];
        for (name, port) in names.iter().zip(ports) {
            command.arg(name).arg(port.to_string());
        }
        // Settings of whoever runs the suite are not those of the suite.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HEADWATER_") || name.starts_with("OTEL_") || name == "RUST_LOG" {
                command.env_remove(&*name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {}", setup.headwater.display()))?;
        let mut server = Self { child, port: ports[0] };
        let deadline = Instant::now() + READY_LIMIT;
        while !is_ready(ports[4]) {
            if server.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("the server did not become ready; see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }
}

fn is_ready(admin_port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", admin_port)) else { return false };
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = [0; 12];
    stream.write_all(request).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}

fn free_ports() -> anyhow::Result<[u16; 5]> {
    let mut held = Vec::new();
    let mut ports = [0; 5];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// One run of a scenario against a server that nobody used before.
pub fn run_once(setup: &Setup, case: &Case) -> anyhow::Result<Value> {
    let out = setup.root.join("target/bench");
    std::fs::create_dir_all(&out)?;
    let server = Server::start(setup, &out.join(format!("{}.server.log", case.name)))?;
    let mut command = on_core(setup.load_core, &setup.loadtest);
    command
        .args(["--url", &format!("ws://127.0.0.1:{}", server.port)])
        .args(["--server-pid", &server.child.id().to_string(), "run"])
        .arg(setup.root.join("loadtest/scenarios").join(format!("{}.toml", case.name)))
        .arg("--out")
        .arg(&out);
    if let Some(seconds) = setup.seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    let status = command.status().context("cannot start loadtest")?;
    // 1 and 2 are results too: a broken criterion, a load that fell behind.
    if status.code().is_none_or(|code| code > 2) {
        bail!("loadtest failed ({status})");
    }
    let file = out.join(format!("{}.json", case.name));
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_str(&text)?)
}

/// The bare loop in a shape, in packets per CPU-second.
pub fn yardstick(setup: &Setup, shape: Yardstick) -> anyhow::Result<f64> {
    let mut command = Command::new(&setup.loadtest);
    command
        .arg("yardstick")
        .args(["--subscribers", &shape.subscribers.to_string()])
        .args(["--frame-rate", &shape.frame_rate.to_string()])
        .args(["--packets-per-frame", &shape.packets_per_frame.to_string()])
        .args(["--payload-bytes", &shape.payload_bytes.to_string()])
        .args(["--seconds", &setup.seconds.unwrap_or(5.0).to_string()])
        .args(["--loop-core", &setup.server_core.to_string()])
        .args(["--load-core", &setup.load_core.to_string()]);
    let output = command.output().context("cannot start loadtest")?;
    let result: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the bare loop failed: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    for reason in result["invalid_because"].as_array().into_iter().flatten() {
        println!("bare loop: {reason}");
    }
    result["packets_per_cpu_second"].as_f64().context("the bare loop has no result")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(runs: Vec<Value>) -> Result {
        Result { case: &CASES[0], runs, yardsticks: vec![100.0, 200.0] }
    }

    #[test]
    fn runs_in_which_the_load_fell_behind_are_left_out() {
        let run = |valid: bool, value: f64| json!({"valid": valid, "server": {"x": value}});
        let mixed = result(vec![run(true, 1.0), run(false, 9.0), run(true, 3.0)]);
        assert_eq!(mixed.median("/server/x"), Some(2.0));
        assert_eq!((mixed.invalid(), mixed.range("/server/x")), ((1, 3), Some((1.0, 3.0))));
        assert_eq!(result(vec![run(false, 9.0)]).median("/server/x"), Some(9.0));
        assert_eq!(mixed.median("/server/y"), None);
        assert_eq!(mixed.yardstick(), Some(150.0));
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
