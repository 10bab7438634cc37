//! Processes of the `headwater` binary: started, watched, killed. Their logs go
//! to files that a failing test can show.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// The binary under test: `$HEADWATER_BIN`, or the debug build beside the tests.
///
/// # Errors
/// If it has not been built.
pub fn binary() -> anyhow::Result<PathBuf> {
    let file = match std::env::var_os("HEADWATER_BIN") {
        Some(path) => PathBuf::from(path),
        // …/target/debug/deps/test-1234 → …/target/debug/headwater
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .context("the test binary is not in a target folder")?
            .join("headwater"),
    };
    if !file.is_file() {
        bail!("{} is not there; cargo xtask test builds it", file.display());
    }
    Ok(file)
}

/// One running process. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the binary with arguments; standard output and error go to
    /// `{folder}/{name}.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        Self::start_in(folder, name, arguments, None)
    }

    /// The same, in a network namespace if one is named.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_in(
        folder: &Path,
        name: &str,
        arguments: &[String],
        namespace: Option<&str>,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let mut command = match namespace {
            None => Command::new(binary()?),
            // It becomes the binary, so the process id is the binary's.
            Some(namespace) => {
                let ip = std::env::var_os("HEADWATER_IP").unwrap_or_else(|| "ip".into());
                let mut command = Command::new(ip);
                command.args(["netns", "exec", namespace]).arg(binary()?);
                command
            }
        };
        // The settings of whoever runs the tests are not those of the tests.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HEADWATER_") || name.starts_with("OTEL_") || name == "RUST_LOG" {
                command.env_remove(&*name);
            }
        }
        let child = command
            .args(arguments)
            .current_dir(folder)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the admin server at this port of loopback says that the process
    /// is ready.
    ///
    /// # Errors
    /// If it ends or is not ready within 30 s; the error holds the end of its log.
    pub fn wait_ready(&mut self, port: u16) -> anyhow::Result<()> {
        self.wait_ready_at((Ipv4Addr::LOCALHOST, port).into())
    }

    /// The same for an admin server anywhere.
    ///
    /// # Errors
    /// See [`Self::wait_ready`].
    pub fn wait_ready_at(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}):\n{}", self.name, self.log_tail());
            }
            if http_get_at(admin, "/readyz").is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} is not ready after 30 s:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop and waits for that.
    ///
    /// # Errors
    /// If it has not stopped after `limit`.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<std::process::ExitStatus> {
        signal(self.pid(), "TERM")?;
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not stop within {limit:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        line.split_whitespace().nth(1).context("no number in VmRSS")?.parse().context("VmRSS")
    }

    /// Open file descriptors.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Processor time used so far, in clock ticks of 10 ms.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn cpu_ticks(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field =
            |index: usize| fields.get(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Ok(field(11) + field(12))
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprint_log(&self.name, &self.log_tail());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failing test shows the end of each log")]
fn eprint_log(name: &str, tail: &str) {
    eprintln!("--- {name}\n{tail}\n---");
}

/// Sends a signal to one process.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    if !status.success() {
        bail!("kill -{name} {pid}: {status}");
    }
    Ok(())
}

/// A GET to loopback over HTTP/1.0; answers with status and body.
///
/// # Errors
/// If nobody listens or the answer is no HTTP.
pub fn http_get(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    http_get_at((Ipv4Addr::LOCALHOST, port).into(), path)
}

/// The same to any address, within 5 s.
///
/// # Errors
/// See [`http_get`].
pub fn http_get_at(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).context("no status line")?.parse()?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((status, body))
}

/// The value of a metric without labels, or the sum over its series.
#[must_use]
pub fn metric(body: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = body
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        })
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}
