//! The binary as people use it: real processes, their output and exit codes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use headwater_proto::v1::CreateRoomRequest;
use headwater_proto::v1::cluster_service_client::ClusterServiceClient;
use headwater_proto::v1::room_service_client::RoomServiceClient;
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{ClientTls, KeyRing, connect};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The binary, without the settings of whoever runs the tests.
fn headwater() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    for (name, _) in std::env::vars() {
        if name.starts_with("HEADWATER_") || name.starts_with("OTEL_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    headwater().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "it was taken: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A running process that is killed if a test leaves it behind.
struct Process {
    child: Child,
    /// What it said on stdout until it was ready.
    said: String,
}

impl Process {
    /// Starts it and waits until it has said this.
    fn start(command: &mut Command, ready: &str) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut process = Self { child, said: String::new() };
        let mut lines = BufReader::new(process.child.stdout.take().unwrap());
        while !process.said.contains(ready) {
            if lines.read_line(&mut process.said).unwrap() == 0 {
                let output = process.end_of_output();
                panic!("it ended early: {}{output}", process.said);
            }
        }
        process
    }

    fn end_of_output(&mut self) -> String {
        let mut rest = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Tells it to stop; its logs, once it has.
    fn stop(mut self) -> String {
        self.signal("-TERM");
        let logs = self.end_of_output();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it ended with {status}: {logs}");
        logs
    }

    /// What stands after a word of its announcement.
    fn said_of(&self, word: &str) -> &str {
        let line = self.said.lines().find(|line| line.trim_start().starts_with(word));
        let line = line.unwrap_or_else(|| panic!("no {word} in {}", self.said));
        line.trim_start().strip_prefix(word).unwrap().split_whitespace().next().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over HTTP/1.1; status and body with head.
fn http(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let address = host.replace("localhost", "127.0.0.1");
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = text(&answer);
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

const ANY_PORTS: [&str; 10] =
    ["--port", "0", "--tcp-port", "0", "--udp-port", "0", "--api-port", "0", "--admin-port", "0"];

#[test]
fn help_explains_itself_with_examples() {
    let help = text(&run(&["--help"]).stdout);
    for expected in ["headwater dev", "control-plane", "media-node", "gateway", "token", "--etcd"] {
        assert!(help.contains(expected), "{expected} is not in {help}");
    }
    let help = text(&run(&["media-node", "--help"]).stdout);
    assert!(help.contains("--advertise-ip") && help.contains("7882"), "{help}");
    assert!(text(&run(&["--version"]).stdout).starts_with("headwater "));
}

#[test]
fn a_token_is_minted_with_its_link() {
    let output = run(&[
        "token",
        "--dev",
        "--room",
        "town hall",
        "--identity",
        "ada",
        "--name",
        "Ada",
        "--ttl",
        "15m",
        "--no-publish",
        "--url",
        "http://localhost:7880/",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let (token, link) = printed.trim().split_once('\n').unwrap();
    let now = unix_seconds();
    let grants = KeyRing::single("devkey", "secret").unwrap().verify(token, now).unwrap();
    assert_eq!((grants.room.as_str(), grants.identity.as_str()), ("town hall", "ada"));
    assert!(grants.room_join && !grants.room_admin && !grants.permission.can_publish);
    assert!((now + 890..=now + 900).contains(&grants.expires_at));
    assert_eq!(link, format!("http://localhost:7880/room/town%20hall?token={token}"));
}

#[test]
fn a_token_for_the_api_takes_its_keys_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    std::fs::write(&path, "[keys]\nabc = ['new', 'old']\n[gateway]\nregion = 'north'").unwrap();
    let output = run(&["token", "--config", path.to_str().unwrap(), "--create", "--list"]);
    let token = text(&output.stdout);
    let ring = KeyRing::single("abc", "new").unwrap();
    let grants = ring.verify(token.trim(), unix_seconds()).unwrap();
    assert!(grants.room_create && grants.room_list && !grants.room_join);
}

#[test]
fn a_token_for_nothing_or_by_nobody_is_refused() {
    assert!(refused(&["token", "--dev"]).contains("allow nothing"));
    assert!(refused(&["token", "--dev", "--room", "r"]).contains("allow nothing"));
    assert!(refused(&["token", "--room", "r", "--identity", "a"]).contains("no key pair"));
    assert!(refused(&["token", "--dev", "--room", "a/b", "--identity", "a"]).contains("--room"));
    assert!(refused(&["token", "--dev", "--list", "--ttl", "soon"]).contains("s, m, h or d"));
}

#[test]
fn the_configuration_is_printed_without_secrets() {
    let output = headwater()
        .args(["config", "gateway", "--set", "gateway.region=north"])
        .env("HEADWATER_KEYS__abc", "hunter2")
        .env("HEADWATER_CLUSTER__SECRET", "hunter3")
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(printed.contains("abc = \"(hidden)\"") && !printed.contains("hunter"), "{printed}");
    assert!(printed.contains("region = \"north\"") && printed.contains("7880"), "{printed}");
}

#[test]
fn a_wrong_setting_ends_the_process_with_its_name() {
    let complaint = refused(&["gateway", "--set", "gateway.port=7"]);
    assert!(complaint.contains("flag --set: setting `gateway.port` is not known"), "{complaint}");
    assert!(complaint.contains("listen"), "{complaint}");
    let complaint = refused(&["media-node"]);
    assert!(complaint.contains("HEADWATER_CLUSTER__SECRET"), "{complaint}");
    let complaint = refused(&["control-plane"]);
    assert!(complaint.contains("HEADWATER_KEYS__"), "{complaint}");
}

#[test]
fn dev_names_every_taken_port_before_it_starts_anything() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let began = Instant::now();
    let mut arguments = vec!["dev", "--memory"];
    arguments.extend(ANY_PORTS);
    arguments[3] = &port;
    arguments[9] = &port;
    let complaint = refused(&arguments);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(complaint.contains(&format!("TCP port {port} for the page")), "{complaint}");
    assert!(complaint.contains("--port") && complaint.contains("--api-port"), "{complaint}");
    assert!(!complaint.contains("listens"), "nothing was started: {complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_everything_and_ends_when_told() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = headwater();
    command.arg("dev").args(ANY_PORTS).env("TMPDIR", temporary.path());
    let process = Process::start(&mut command, "Press Ctrl-C");
    let sdk_url = process.said_of("SDK URL").replace("ws://", "http://");
    let api = process.said_of("API").to_owned();
    let metrics = process.said_of("Metrics").to_owned();
    let admin = metrics.strip_suffix("/metrics").unwrap();
    assert!(process.said.contains("devkey / secret"));
    assert!(std::fs::read_dir(temporary.path()).unwrap().count() > 0, "the registry is a file");

    assert_eq!(http(&format!("{admin}/readyz")).0, 200);
    let (status, token) = http(&format!("{sdk_url}/dev/token?room=lobby&identity=ada"));
    assert_eq!(status, 200, "{token}");
    let token = token.split(r#""token":""#).nth(1).unwrap().split('"').next().unwrap();
    let (status, answer) = http(&format!("{sdk_url}/rtc/validate?access_token={token}"));
    assert_eq!(status, 200, "{answer}");
    let (status, _) = http(&format!("{sdk_url}/rtc/validate?access_token={token}x"));
    assert_eq!(status, 401);

    let minted = run(&["token", "--dev", "--create", "--list"]);
    let bearer = format!("Bearer {}", text(&minted.stdout).trim());
    let with_token = |mut request: tonic::Request<()>| {
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        Ok(request)
    };
    let connection = connect(&api, &ClientTls::default(), None).unwrap();
    let mut rooms = RoomServiceClient::with_interceptor(connection.clone(), with_token);
    let request = CreateRoomRequest { room_id: "hall".to_owned(), ..Default::default() };
    let room = rooms.create_room(request).await.unwrap().into_inner().room.unwrap();
    assert_eq!(room.name, "rooms/hall");
    let mut cluster = ClusterServiceClient::with_interceptor(connection, with_token);
    let nodes = cluster.list_nodes(headwater_proto::v1::ListNodesRequest::default()).await.unwrap();
    assert_eq!(nodes.get_ref().nodes[0].name, "nodes/dev");

    // Gauges of the cluster are set once a second.
    let expected = [
        "headwater_build_info{",
        r#"headwater_cluster_nodes{state="serving"} 1"#,
        "rpc_server_call_duration_seconds_count{",
        r#"rpc_method="headwater.v1.RoomService/CreateRoom""#,
        "headwater_rtp_packets_total{",
        "process_resident_memory_bytes",
    ];
    let began = Instant::now();
    loop {
        let (_, scrape) = http(&metrics);
        let missing: Vec<_> = expected.iter().filter(|it| !scrape.contains(**it)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{missing:?} are not in the scrape");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let began = Instant::now();
    let logs = process.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "it took {:?}", began.elapsed());
    assert!(!logs.contains("ERROR"), "{logs}");
    assert!(!logs.contains(token), "no token is logged");
    let address = api.strip_prefix("http://").unwrap().parse::<SocketAddr>().unwrap();
    TcpListener::bind(address).expect("the port is free again");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let mut command = headwater();
    command.args(["dev", "--memory"]).args(ANY_PORTS);
    let mut process = Process::start(&mut command, "Press Ctrl-C");
    // An open stream is given some seconds to end.
    let connection = connect(process.said_of("API"), &ClientTls::default(), None).unwrap();
    let request = HealthCheckRequest::default();
    let mut watch = HealthClient::new(connection).watch(request).await.unwrap().into_inner();
    watch.message().await.unwrap();
    process.signal("-INT");
    std::thread::sleep(Duration::from_millis(500));
    assert!(process.child.try_wait().unwrap().is_none(), "it waits for the stream");
    let began = Instant::now();
    process.signal("-INT");
    assert_eq!(process.child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[test]
fn dev_keeps_its_rooms_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = || {
        let mut command = headwater();
        command.arg("dev").args(ANY_PORTS).arg("--data-dir").arg(&data);
        Process::start(&mut command, "Press Ctrl-C")
    };
    start().stop();
    assert!(data.join("headwater.redb").is_file());
    start().stop();
}

#[test]
fn a_role_by_itself_is_alive_before_it_is_ready_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    std::fs::write(
        &path,
        "keys:\n  abc: hunter2\ncluster:\n  secret: hunter3-hunter3-hunter3\n\
        gateway:\n  listen: 127.0.0.1:0\n  control_plane_urls: ['http://127.0.0.1:1']\n",
    )
    .unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = free.local_addr().unwrap();
    drop(free);
    let child = headwater()
        .args(["gateway", "--config", path.to_str().unwrap(), "--admin-listen"])
        .arg(admin.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = Process { child, said: String::new() };
    let began = Instant::now();
    while TcpStream::connect(admin).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "it does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(http(&format!("http://{admin}/healthz")).0, 200);
    let (status, answer) = http(&format!("http://{admin}/readyz"));
    assert_eq!(status, 503);
    assert!(answer.contains("control_plane"), "{answer}");
    let logs = process.stop();
    assert!(logs.contains("effective configuration"), "{logs}");
    assert!(!logs.contains("hunter"), "{logs}");
}
