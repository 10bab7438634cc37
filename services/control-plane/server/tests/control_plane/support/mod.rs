//! What the tests stand on: a bench with replicas and nodes.

pub mod bench;
pub mod node;
pub mod store;

use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt as _;

pub use bench::Bench;
pub use node::TestNode;

/// Waits until a condition holds; fails the test after ten seconds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(10), "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The reason in an error's details.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every error has a reason");
    assert_eq!(info.domain, "headwater.v1");
    info.reason
}

/// The fields that an error blames.
pub fn fields(status: &Status) -> Vec<String> {
    let bad = status.get_details_bad_request().expect("a BadRequest");
    bad.field_violations.into_iter().map(|violation| violation.field).collect()
}
