//! Node scripts of `services/e2e/scripts`, which drive real SDKs and browsers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The server a script talks to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Signalling address, such as `ws://127.0.0.1:7880`.
    pub url: String,
    /// API key.
    pub api_key: String,
    /// Its secret.
    pub api_secret: String,
}

fn scripts() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no services folder")?
        .join("e2e");
    if !folder.join("node_modules").is_dir() {
        bail!("the node packages are not installed; cargo xtask test does it");
    }
    Ok(folder)
}

/// Runs a script to its end and answers with its output. Its standard error is shown.
///
/// # Errors
/// If it fails or takes longer than `limit`; the error holds its output.
pub fn run(
    name: &str,
    arguments: &[&str],
    target: &Target,
    limit: Duration,
) -> anyhow::Result<String> {
    let folder = scripts()?;
    let output = tempfile::NamedTempFile::new()?;
    let mut child = Command::new("node")
        .arg(folder.join("scripts").join(name))
        .args(arguments)
        .current_dir(&folder)
        .env("LIVEKIT_URL", &target.url)
        .env("LIVEKIT_API_KEY", &target.api_key)
        .env("LIVEKIT_API_SECRET", &target.api_secret)
        .stdin(Stdio::null())
        .stdout(output.reopen()?)
        .stderr(output.reopen()?)
        .spawn()
        .context("node cannot be started")?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = std::fs::read_to_string(output.path())?;
    match status {
        Some(status) if status.success() => Ok(text),
        Some(status) => bail!("{name} {arguments:?} failed ({status}):\n{text}"),
        None => bail!("{name} {arguments:?} took longer than {limit:?}:\n{text}"),
    }
}
