//! The admin server over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::SocketAddr;

use headwater_telemetry::{Metrics, Readiness, admin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

#[tokio::test]
async fn probes_and_metrics_are_answered() {
    let (metrics, readiness) = (Metrics::new(), Readiness::new());
    metrics.node().rooms.set(7);
    let registry = readiness.scoped("node").condition("registry");
    let shutdown = CancellationToken::new();
    let server = admin::serve(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics,
        readiness.clone(),
        shutdown.clone(),
    )
    .await
    .unwrap();
    let address = server.address();

    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("headwater_rooms 7") && text.contains("process_open_fds"));
    assert!(text.contains("text/plain; version=0.0.4"));
    let tasks = text.lines().find_map(|line| line.strip_prefix("headwater_tasks "));
    assert!(tasks.unwrap().parse::<u32>().unwrap() > 0, "the admin server itself is a task");

    assert_eq!(get(address, "/healthz").await.0, 200);
    let (status, text) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("node.registry"), "{text}");
    registry.hold();
    assert_eq!(get(address, "/readyz").await.0, 200);
    registry.fail("the connection broke");
    let (status, text) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("the connection broke"));
    registry.hold();
    readiness.stop();
    assert_eq!(get(address, "/readyz").await.0, 503);
    assert_eq!(get(address, "/healthz").await.0, 200, "a stopping process lives");
    assert_eq!(get(address, "/else").await.0, 404);

    let idle = TcpStream::connect(address).await.unwrap();
    shutdown.cancel();
    server.join().await;
    drop(idle);
    TcpListener::bind(address).await.expect("the port is free again");
}

#[tokio::test]
async fn a_taken_port_is_an_error_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let token = CancellationToken::new();
    let result = admin::serve(address, Metrics::new(), Readiness::new(), token).await;
    assert!(result.unwrap_err().to_string().contains(&address.to_string()));
}
