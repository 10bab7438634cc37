//! What every role's process has around it: the runtime, telemetry, the admin
//! server, and an end that begins with a signal.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use headwater_telemetry::{Condition, Guard, Metrics, Readiness, Service, TelemetryConfig, admin};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Roles end by their own, shorter limits; this one is for a role that hangs.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What is left of the runtime after that is not waited for.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

/// Exit code of a process that was told twice, as of one killed by SIGINT.
const TOLD_TWICE: i32 = 130;

/// Runs a future on a new runtime.
///
/// # Errors
/// Those of the future, and if there can be no runtime.
pub fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    result
}

/// A process with its telemetry and admin server.
pub struct Process {
    /// Where roles count.
    pub metrics: Metrics,
    /// Where roles say what they wait for.
    pub readiness: Readiness,
    /// Cancelled when the process shall end.
    pub stop: CancellationToken,
    /// Holds once the roles run. Without it a process would be ready before its
    /// roles have named what they wait for.
    started: Condition,
    admin: admin::RunningAdmin,
    admin_stop: CancellationToken,
    guard: Guard,
}

impl Process {
    /// Sets up telemetry, serves metrics and probes, and listens to signals: the
    /// first SIGINT or SIGTERM begins the end, the second one ends at once.
    ///
    /// # Errors
    /// If one of these cannot be had.
    pub async fn start(
        service: &Service,
        telemetry: &TelemetryConfig,
        admin_address: SocketAddr,
    ) -> anyhow::Result<Self> {
        let (metrics, readiness) = (Metrics::new(), Readiness::new());
        let started = readiness.condition("started");
        let (stop, admin_stop) = (CancellationToken::new(), CancellationToken::new());
        let guard = headwater_telemetry::init(telemetry, service, &metrics)
            .context("`telemetry` cannot be used")?;
        let signals = Signals::listen()?;
        let admin =
            admin::serve(admin_address, metrics.clone(), readiness.clone(), admin_stop.clone())
                .await?;
        tracing::info!(address = %admin.address(), "metrics and probes are served");
        tokio::spawn(end_by_signal(signals, readiness.clone(), stop.clone()));
        Ok(Self { metrics, readiness, stop, started, admin, admin_stop, guard })
    }

    /// Where metrics and probes are served.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Waits until the roles, which have started, have ended, and ends everything
    /// else.
    ///
    /// # Errors
    /// If they fail, end without having been told to, or do not end.
    pub async fn run(self, roles: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        self.started.hold();
        let result = run_until_stopped(&self.stop, roles).await;
        self.readiness.stop();
        self.admin_stop.cancel();
        self.admin.join().await;
        self.guard.shutdown().await;
        result
    }
}

async fn run_until_stopped(
    stop: &CancellationToken,
    roles: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut roles = std::pin::pin!(roles);
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        result = &mut roles => {
            result?;
            bail!("the role ended without having been told to");
        }
    }
    tokio::time::timeout(STOP_TIMEOUT, roles)
        .await
        .map_err(|_| anyhow!("the role did not end within {} s", STOP_TIMEOUT.as_secs()))?
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let to = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            interrupt: to(SignalKind::interrupt())?,
            terminate: to(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

async fn end_by_signal(mut signals: Signals, readiness: Readiness, stop: CancellationToken) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal stops at once");
    readiness.stop();
    stop.cancel();
    let signal = signals.next().await;
    tracing::warn!(signal, "stopped at once");
    std::process::exit(TOLD_TWICE);
}

/// Name of the host, for telemetry.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What this process is called in traces.
pub fn service(role: &str, instance: String, region: &str) -> Service {
    Service {
        name: format!("headwater-{role}"),
        instance,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        region: region.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_role_that_ends_by_itself_is_an_error() {
        let stop = CancellationToken::new();
        let error = run_until_stopped(&stop, async { Ok(()) }).await.unwrap_err();
        assert!(error.to_string().contains("without having been told"));
        let failing = run_until_stopped(&stop, async { Err(anyhow!("broken")) }).await;
        assert_eq!(failing.unwrap_err().to_string(), "broken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_hangs_is_given_up() {
        let stop = CancellationToken::new();
        stop.cancel();
        let error = run_until_stopped(&stop, std::future::pending()).await.unwrap_err();
        assert!(error.to_string().contains("60 s"));
        run_until_stopped(&stop, async { Ok(()) }).await.unwrap();
    }
}
