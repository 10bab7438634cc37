//! `headwater dev` on free ports, with its data in a temporary folder.

use anyhow::Result;
use headwater_testkit::ports::free_port;
use headwater_testkit::process::Process;
use headwater_testkit::script::{self, Target};
use std::path::Path;
use std::time::Duration;

/// Everything in one process.
pub struct Dev {
    /// The process.
    pub process: Process,
    /// Where the admin server listens.
    pub admin_port: u16,
    /// Where the gRPC API listens.
    pub api_port: u16,
    /// Where media arrives over UDP.
    pub udp_port: u16,
    /// What scripts are told.
    pub target: Target,
    _folder: tempfile::TempDir,
}

impl Dev {
    /// Starts it and waits until it is ready. Further arguments go to `headwater dev`.
    ///
    /// # Errors
    /// If it does not become ready; the error holds the end of its log.
    pub fn start(further: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [page, udp, tcp, api_port, admin_port] = std::array::from_fn(|_| free_port());
        let web_root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/web/dist");
        let mut arguments: Vec<String> =
            vec!["dev".into(), "--web-root".into(), web_root.display().to_string()];
        let data = folder.path().join("data");
        for (flag, value) in [
            ("--port", page.to_string()),
            ("--udp-port", udp.to_string()),
            ("--tcp-port", tcp.to_string()),
            ("--api-port", api_port.to_string()),
            ("--admin-port", admin_port.to_string()),
            ("--data-dir", data.display().to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(further.iter().map(|&argument| argument.to_owned()));
        let mut process = Process::start(folder.path(), "dev", &arguments)?;
        process.wait_ready(admin_port)?;
        let target = Target {
            url: format!("ws://127.0.0.1:{page}"),
            api_key: "devkey".to_owned(),
            api_secret: "secret".to_owned(),
        };
        Ok(Self { process, admin_port, api_port, udp_port: udp, target, _folder: folder })
    }

    /// Runs a node script against it and answers with its output.
    ///
    /// # Errors
    /// If the script fails or takes longer than two minutes; the error holds
    /// its output and the end of the server's log.
    pub fn run(&self, script: &str, arguments: &[&str]) -> Result<String> {
        script::run(script, arguments, &self.target, Duration::from_secs(180))
            .map_err(|error| error.context(format!("server log:\n{}", self.process.log_tail())))
    }

    /// The page's port.
    #[must_use]
    pub fn page_port(&self) -> u16 {
        self.target.url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0)
    }

    /// An error was logged, or a thread panicked.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.process.log();
        log.lines()
            .filter(|line| line.contains(" ERROR ") || line.contains("panicked at"))
            .map(str::to_owned)
            .collect()
    }
}
