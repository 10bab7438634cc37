//! Dependencies between our crates point one way, and some packages are for one
//! crate alone. The rules of `docs/ARCHITECTURE.md`, as a build failure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};

use crate::run::cargo;

/// What each crate may depend on among ours (not counting tests).
const ALLOWED: &[(&str, &[&str])] = &[
    ("headwater-model", &[]),
    ("headwater-proto", &[]),
    ("headwater-registry", &["model"]),
    ("headwater-rpc", &["model", "proto"]),
    ("headwater-telemetry", &[]),
    ("headwater-control-core", &["model"]),
    (
        "headwater-control-plane",
        &["control-core", "model", "proto", "registry", "rpc", "telemetry"],
    ),
    ("headwater-rtp", &["model"]),
    ("headwater-sdp", &["model"]),
    ("headwater-transport", &[]),
    ("headwater-sfu", &["model", "rtp"]),
    ("headwater-room", &["model", "sdp"]),
    ("headwater-net", &[]),
    ("headwater-relay", &["model", "rtp", "sfu"]),
    (
        "headwater-media-node",
        &[
            "model",
            "proto",
            "registry",
            "rpc",
            "telemetry",
            "rtp",
            "sdp",
            "transport",
            "sfu",
            "room",
            "net",
            "relay",
        ],
    ),
    ("headwater-gateway", &["model", "proto", "rpc", "telemetry"]),
    (
        "headwater",
        &[
            "model",
            "proto",
            "registry",
            "rpc",
            "telemetry",
            "control-plane",
            "gateway",
            "media-node",
        ],
    ),
    ("headwater-loadtest", &["model", "net", "rpc", "rtp", "transport"]),
    (
        "headwater-sim",
        &["control-core", "media-node", "model", "relay", "room", "rtp", "sfu", "transport"],
    ),
    ("headwater-testkit", &[]),
    ("headwater-e2e", &["model", "proto", "rpc", "testkit"]),
    ("headwater-xtask", &[]),
];

/// Packages that only the named crates may name.
const RESERVED: &[(&str, &[&str])] = &[
    ("etcd-client", &["headwater-registry"]),
    ("redb", &["headwater-registry"]),
    ("libc", &["headwater-net"]),
    ("livekit-protocol", &["headwater-gateway", "headwater-loadtest"]),
    ("rtc-dtls", &["headwater-transport"]),
    ("rtc-sctp", &["headwater-transport"]),
    ("rtc-stun", &["headwater-transport"]),
    ("rtc-sdp", &["headwater-sdp"]),
    ("quinn", &["headwater-relay"]),
];

/// Crates that do no I/O and keep no time.
const PURE: &[&str] = &[
    "headwater-model",
    "headwater-control-core",
    "headwater-rtp",
    "headwater-sdp",
    "headwater-transport",
    "headwater-sfu",
    "headwater-room",
    "headwater-sim",
];

/// Packages that bring I/O or a clock.
const IMPURE: &[&str] =
    &["tokio", "tokio-util", "tokio-stream", "futures", "socket2", "tonic", "hyper", "axum"];

/// Fails with every edge that the rules forbid.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let output = cargo(root)
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let wrong = forbidden_edges(&normal_dependencies(&metadata));
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("dependencies against the rules of docs/ARCHITECTURE.md:\n  {}", wrong.join("\n  "))
}

type Dependencies = BTreeMap<String, BTreeSet<String>>;

fn normal_dependencies(metadata: &serde_json::Value) -> Dependencies {
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    packages
        .iter()
        .filter_map(|package| {
            let name = package["name"].as_str()?.to_owned();
            let dependencies = package["dependencies"]
                .as_array()?
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
                .collect();
            Some((name, dependencies))
        })
        .collect()
}

fn forbidden_edges(dependencies: &Dependencies) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, names) in dependencies {
        let allowed = ALLOWED.iter().find(|(name, _)| name == package).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            wrong.push(format!("{package}: not in the table of services/xtask/src/direction.rs"));
            continue;
        };
        for name in names {
            let own = name.strip_prefix("headwater-");
            if own.is_some_and(|own| !allowed.contains(&own)) {
                wrong.push(format!("{package} -> {name}"));
            }
            let reserved = RESERVED.iter().find(|(reserved, _)| reserved == name);
            if reserved.is_some_and(|(_, owners)| !owners.contains(&package.as_str())) {
                wrong.push(format!("{package} -> {name} (reserved)"));
            }
            if PURE.contains(&package.as_str()) && IMPURE.contains(&name.as_str()) {
                wrong.push(format!("{package} -> {name} (the crate is pure)"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(package: &str, dependency: &str) -> Vec<String> {
        let names = BTreeSet::from([dependency.to_owned()]);
        forbidden_edges(&BTreeMap::from([(package.to_owned(), names)]))
    }

    #[test]
    fn edges_against_the_direction_are_found() {
        assert_eq!(one("headwater-sfu", "headwater-gateway").len(), 1);
        assert_eq!(one("headwater-sfu", "tokio").len(), 1);
        assert_eq!(one("headwater-gateway", "etcd-client").len(), 1);
        assert_eq!(one("headwater-unheard-of", "serde").len(), 1);
    }

    #[test]
    fn edges_along_the_direction_pass() {
        assert!(one("headwater-sfu", "headwater-rtp").is_empty());
        assert!(one("headwater-registry", "etcd-client").is_empty());
    }
}
