//! Node scripts of `services/e2e/scripts`, which drive real SDKs and browsers.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

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
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no services folder")?.join("e2e");
    if !folder.join("node_modules").is_dir() {
        bail!("the node packages are not installed; cargo xtask test does it");
    }
    Ok(folder)
}

fn command(folder: &Path, name: &str, arguments: &[&str], target: &Target) -> Command {
    let mut command = Command::new("node");
    command
        .arg(folder.join("scripts").join(name))
        .args(arguments)
        .current_dir(folder)
        .env("LIVEKIT_URL", &target.url)
        .env("LIVEKIT_API_KEY", &target.api_key)
        .env("LIVEKIT_API_SECRET", &target.api_secret);
    command
}

/// Lines that wait to be read; a script that writes more waits.
const LINES_MAX: usize = 1024;

/// A script that goes on until its standard input closes, which dropping this does.
pub struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// Starts a script that reports line by line. Its standard error is shown.
///
/// # Errors
/// If node cannot be started.
pub fn start(name: &str, arguments: &[&str], target: &Target) -> anyhow::Result<Running> {
    let mut child = command(&scripts()?, name, arguments, target)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("node cannot be started")?;
    let output = child.stdout.take().context("the script has no output")?;
    let (sender, lines) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let stdin = child.stdin.take();
    Ok(Running { name: name.to_owned(), child, stdin, lines })
}

impl Running {
    /// The next line of its output.
    ///
    /// # Errors
    /// If it ended or says nothing within `limit`.
    pub fn line(&self, limit: Duration) -> anyhow::Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("{} said nothing for {limit:?}", self.name),
            RecvTimeoutError::Disconnected => anyhow!("{} ended", self.name),
        })
    }

    /// Lines that came already, without waiting.
    #[must_use]
    pub fn lines_so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let mut child = command(&folder, name, arguments, target)
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
