//! A real etcd cluster on loopback, whose members can be killed, frozen and
//! started again. It ends with its value, and with the test process if that is
//! killed; it never touches a process that it did not start.

mod certificates;
mod guard;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

pub use self::certificates::Certificates;
use self::guard::Guard;
use crate::ports::free_port;
use crate::process::{http_get, metric, signal};

/// How long members may take to form a cluster. Usually it takes 2 s.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Tries to find ports that nobody else takes meanwhile.
const PORT_TRIES: usize = 5;

/// What cluster to start.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// 1 or 3.
    pub members: usize,
    /// Clients must use TLS and show a certificate.
    pub tls: bool,
    /// Further arguments for every member.
    pub arguments: Vec<String>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self { members: 1, tls: false, arguments: Vec::new() }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Member>,
    certificates: Option<Certificates>,
    guard: Guard,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    data: PathBuf,
    arguments: Vec<String>,
    client_url: String,
    metrics_port: u16,
    log: PathBuf,
    child: Option<Child>,
}

/// The binary: `$HEADWATER_ETCD`, or `etcd` in the path.
///
/// # Errors
/// If it is not installed.
pub fn binary() -> anyhow::Result<PathBuf> {
    let found = match std::env::var_os("HEADWATER_ETCD") {
        Some(file) => Some(PathBuf::from(file)).filter(|file| file.is_file()),
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|f| f.is_file())
        }
    };
    found.context(
        "etcd is not installed: run `cargo xtask test`, which installs it, or set HEADWATER_ETCD \
         to the file of its binary",
    )
}

impl EtcdCluster {
    /// Starts a cluster of 1 or 3 members without TLS and waits until it answers.
    ///
    /// # Errors
    /// If etcd is not installed or does not start.
    pub fn start(members: usize) -> anyhow::Result<Self> {
        Self::start_with(&EtcdOptions { members, ..EtcdOptions::default() })
    }

    /// Starts a cluster and waits until it answers.
    ///
    /// # Errors
    /// If etcd is not installed or does not start.
    pub fn start_with(options: &EtcdOptions) -> anyhow::Result<Self> {
        if !matches!(options.members, 1 | 3) {
            bail!("a cluster has 1 or 3 members");
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let mut cluster = Self::prepare(options)?;
            match cluster.start_all() {
                Ok(()) => return Ok(cluster),
                Err(_) if tries < PORT_TRIES && cluster.found_port_taken() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn prepare(options: &EtcdOptions) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("headwater-etcd-")?;
        let certificates =
            options.tls.then(|| Certificates::generate(folder.path())).transpose()?;
        let ports: Vec<[u16; 3]> = (0..options.members).map(|_| free_ports()).collect();
        let peers: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(index, [_, peer, _])| format!("m{index}=http://127.0.0.1:{peer}"))
            .collect();
        let mut members = Vec::new();
        for (index, [client, peer, metrics]) in ports.into_iter().enumerate() {
            let scheme = if options.tls { "https" } else { "http" };
            let client_url = format!("{scheme}://127.0.0.1:{client}");
            let peer_url = format!("http://127.0.0.1:{peer}");
            let data = folder.path().join(format!("m{index}"));
            let mut arguments: Vec<String> = [
                ("--name", format!("m{index}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url.clone()),
                ("--listen-peer-urls", peer_url.clone()),
                ("--initial-advertise-peer-urls", peer_url),
                ("--initial-cluster", peers.join(",")),
                ("--initial-cluster-token", format!("test-{}", folder.path().display())),
                ("--initial-cluster-state", "new".to_owned()),
                ("--listen-metrics-urls", format!("http://127.0.0.1:{metrics}")),
                ("--logger", "zap".to_owned()),
                ("--log-level", "warn".to_owned()),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
            arguments.extend(certificates.iter().flat_map(Certificates::server_arguments));
            arguments.extend(options.arguments.iter().cloned());
            let log = folder.path().join(format!("m{index}.log"));
            members.push(Member {
                data,
                arguments,
                client_url,
                metrics_port: metrics,
                log,
                child: None,
            });
        }
        Ok(Self { members, certificates, guard: Guard::start()?, folder })
    }

    /// Client URLs of all members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url.clone()).collect()
    }

    /// The certificates, if it was started with TLS.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// A folder that goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Index of the member that leads; waits until there is one.
    ///
    /// # Errors
    /// If there is none after a while.
    pub fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if member.child.is_some() && member.leads() {
                    return Ok(index);
                }
            }
            if Instant::now() > deadline {
                bail!("etcd has no leader after {READY_LIMIT:?}:\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills a member as a crash would (SIGKILL). Its data stays.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        self.members[member].kill()?;
        self.guard_members()
    }

    /// Kills the leader; answers with its index.
    ///
    /// # Errors
    /// If there is no leader.
    pub fn kill_leader(&mut self) -> anyhow::Result<usize> {
        let leader = self.leader()?;
        self.kill(leader)?;
        Ok(leader)
    }

    /// Freezes a member (SIGSTOP): its connections stay open and silent.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, member: usize) -> anyhow::Result<()> {
        signal(self.members[member].pid()?, "STOP")
    }

    /// Lets a frozen member go on (SIGCONT).
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self, member: usize) -> anyhow::Result<()> {
        signal(self.members[member].pid()?, "CONT")
    }

    /// Starts a killed member again, with its data and ports, and waits until it
    /// answers.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart(&mut self, member: usize) -> anyhow::Result<()> {
        self.spawn(member)?;
        self.wait_ready(&[member])
    }

    /// Deletes the data of a member that does not run.
    ///
    /// # Errors
    /// If it runs, or has no data.
    pub fn erase(&mut self, member: usize) -> anyhow::Result<()> {
        let member = &self.members[member];
        if member.child.is_some() {
            bail!("this member of etcd still runs");
        }
        std::fs::remove_dir_all(&member.data).context("erase a member's data")
    }

    /// Kills all members.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn stop_all(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.kill()?;
        }
        self.guard_members()
    }

    /// Starts all members that do not run, with their data and ports, and waits
    /// until they answer.
    ///
    /// # Errors
    /// If they do not.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        for member in &all {
            if self.members[*member].child.is_none() {
                self.spawn(*member)?;
            }
        }
        self.wait_ready(&all)
    }

    fn spawn(&mut self, index: usize) -> anyhow::Result<()> {
        let binary = binary()?;
        let member = &mut self.members[index];
        let log = File::options().create(true).append(true).open(&member.log)?;
        let mut command = Command::new(&binary);
        command.args(&member.arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD_") {
                command.env_remove(name);
            }
        }
        if cfg!(target_arch = "aarch64") {
            // Versions before 3.5 want to be told that this is meant.
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let started = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        member.child = Some(started);
        self.guard_members()
    }

    /// Waits until these members answer consistent reads.
    fn wait_ready(&mut self, members: &[usize]) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        for index in members {
            while !self.members[*index].is_healthy() {
                for member in &mut self.members {
                    if let Some(status) = member.child.as_mut().and_then(|c| c.try_wait().ok()?) {
                        member.child = None;
                        bail!("etcd ended ({status}):\n{}", self.logs());
                    }
                }
                if Instant::now() > deadline {
                    bail!("etcd is not ready after {READY_LIMIT:?}:\n{}", self.logs());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    fn guard_members(&mut self) -> anyhow::Result<()> {
        let pids = self.members.iter().filter_map(|member| member.pid().ok());
        self.guard.watch_over(pids)
    }

    fn found_port_taken(&self) -> bool {
        self.logs().contains("address already in use")
    }

    /// The ends of the members' logs.
    fn logs(&self) -> String {
        let tails = self.members.iter().map(|member| {
            let log = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            format!("--- {}\n{tail}\n", member.log.display())
        });
        tails.collect()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // What cannot be killed here the guard kills, which ends after this.
        drop(self.stop_all());
    }
}

impl Member {
    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.child.as_ref().context("this member of etcd does not run")?.id())
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn is_healthy(&self) -> bool {
        let health = http_get(self.metrics_port, "/health");
        health.is_ok_and(|(status, body)| status == 200 && body.contains("\"true\""))
    }

    fn leads(&self) -> bool {
        let metrics = http_get(self.metrics_port, "/metrics");
        metrics.is_ok_and(|(_, body)| metric(&body, "etcd_server_is_leader") == Some(1.0))
    }
}

fn free_ports() -> [u16; 3] {
    std::array::from_fn(|_| free_port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_member_survives_being_killed() {
        let mut cluster = EtcdCluster::start(1).unwrap();
        assert_eq!(cluster.leader().unwrap(), 0);
        let pid = cluster.members[0].pid().unwrap();
        assert_eq!(cluster.kill_leader().unwrap(), 0);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        cluster.restart(0).unwrap();
        assert_eq!(cluster.endpoints().len(), 1);
    }

    #[test]
    fn members_end_with_their_cluster() {
        let cluster = EtcdCluster::start(1).unwrap();
        let pid = cluster.members[0].pid().unwrap();
        cluster.pause(0).unwrap();
        drop(cluster);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
