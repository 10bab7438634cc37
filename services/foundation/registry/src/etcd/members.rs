//! The members of an etcd cluster, one client for each, and the way a call goes
//! to one after the other until it is answered.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};

use crate::config::{EtcdConfig, EtcdTlsConfig, OpenError, SettingsProblem};
use crate::etcd::EtcdTiming;
use crate::etcd::failure::{Failure, NoAnswer};
use crate::store::Cause;

/// Pauses between tries: the first one and the longest one, each varied by half
/// so that many clients do not come back together.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(400);

/// A try given up by its caller after this long counts as the member's failure.
const ABANDONED_AFTER: Duration = Duration::from_millis(500);

/// What may be done with a call whose answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing: again.
    Read,
    /// Doing it twice is as good as once: again.
    Harmless,
    /// It cannot take effect twice: again, but its answer may be about itself.
    Write,
    /// It could take effect twice: not again.
    WriteOnce,
}

/// An answer, and the cause of the doubt whether an earlier try was done too.
#[derive(Debug)]
pub struct Answer<T> {
    pub value: T,
    pub doubted: Option<Cause>,
}

struct Member {
    url: String,
    /// Held for a look only.
    client: Mutex<Option<Client>>,
}

impl Member {
    fn client(&self) -> std::sync::MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// See the module.
pub struct Members {
    members: Vec<Member>,
    /// Index of the member that calls go to.
    preferred: AtomicUsize,
    config: EtcdConfig,
    timing: EtcdTiming,
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members.iter().map(|member| &member.url)).finish()
    }
}

impl Members {
    /// Checks the settings.
    pub fn new(config: &EtcdConfig, timing: EtcdTiming) -> Result<Self, OpenError> {
        check(config).map_err(|problem| OpenError::Settings { problem })?;
        let members: Vec<_> = config
            .endpoints
            .iter()
            .map(|url| Member { url: url.clone(), client: Mutex::new(None) })
            .collect();
        // Each process starts at another member, to spread the load.
        let preferred = AtomicUsize::new(rand::random_range(0..members.len()));
        Ok(Self { members, preferred, config: config.clone(), timing })
    }

    pub fn timing(&self) -> &EtcdTiming {
        &self.timing
    }

    pub fn prefer(&self, member: usize) {
        self.preferred.store(member % self.members.len(), Ordering::Relaxed);
    }

    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// Reads the files that the settings name, to find at once what is wrong.
    pub async fn read_credentials(&self) -> Result<ConnectOptions, OpenError> {
        let timing = &self.timing;
        let mut options = ConnectOptions::new()
            .with_connect_timeout(timing.connect_timeout)
            .with_keep_alive(timing.ping_interval, timing.ping_timeout)
            .with_keep_alive_while_idle(true)
            // Else a member that lost its cluster feeds silence to a watch.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some(tls) = &self.config.tls {
            options = options.with_tls(read_tls(tls).await?);
        }
        if let (Some(name), Some(file)) = (&self.config.username, &self.config.password_file) {
            let password = SecretString::from(read(file).await?);
            let password = password.expose_secret().trim_end_matches(['\r', '\n']);
            options = options.with_user(name, password);
        }
        Ok(options)
    }

    /// The member that calls go to, with its client.
    pub async fn connect(&self) -> Result<(usize, Client), (usize, Failure)> {
        let index = self.preferred.load(Ordering::Relaxed) % self.members.len();
        let member = &self.members[index];
        if let Some(client) = member.client().clone() {
            return Ok((index, client));
        }
        let connecting = async {
            let options = self.read_credentials().await.map_err(|e| Failure::Unsent(e.into()))?;
            // With a user name this asks for a token; else it waits for nobody.
            Client::connect([&member.url], Some(options)).await.map_err(Failure::of)
        };
        let patience = self.timing.connect_timeout + self.timing.read_timeout;
        let connected = timeout(patience, connecting).await;
        match connected.unwrap_or_else(|_| Err(Failure::Unsent(NoAnswer.into()))) {
            Ok(client) => {
                *member.client() = Some(client.clone());
                Ok((index, client))
            }
            // Nothing but the token was asked for.
            Err(Failure::Unanswered(cause)) => Err((index, Failure::Unsent(cause))),
            Err(failure) => Err((index, failure)),
        }
    }

    /// Notes that a member failed: the next call goes to the next one. A client
    /// that could not connect or was not let in is made anew, with what the
    /// files then hold.
    pub fn failed(&self, index: usize, failure: &Failure) {
        let next = (index + 1) % self.members.len();
        // If it has moved on already, so be it.
        let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if matches!(failure, Failure::Unsent(_) | Failure::Denied(_)) {
            *self.members[index].client() = None;
        }
    }

    /// Calls until there is an answer, as far as `repeat` allows.
    pub async fn call<T, F, A>(&self, repeat: Repeat, ask: F) -> Result<Answer<T>, Failure>
    where
        F: Fn(Client) -> A,
        A: Future<Output = Result<T, etcd_client::Error>>,
    {
        let give_up = Instant::now() + self.timing.retry_for;
        let mut backoff = BACKOFF_MIN;
        let mut doubted = None;
        loop {
            let failure = match self.attempt(repeat, &ask).await {
                Ok(value) => return Ok(Answer { value, doubted }),
                Err(failure) => failure,
            };
            let last = !failure.is_transient() || Instant::now() + backoff > give_up;
            match (failure, repeat) {
                (Failure::Unanswered(cause), Repeat::Read | Repeat::Harmless) => {
                    if last {
                        return Err(Failure::Unsent(cause));
                    }
                }
                (Failure::Unanswered(cause), Repeat::WriteOnce) => {
                    return Err(Failure::Unanswered(cause));
                }
                (Failure::Unanswered(cause), Repeat::Write) => {
                    if last {
                        return Err(Failure::Unanswered(cause));
                    }
                    doubted = Some(cause);
                }
                (failure, _) => {
                    if last {
                        return Err(doubted.map_or(failure, Failure::Unanswered));
                    }
                }
            }
            sleep(backoff.mul_f64(rand::random_range(0.5..1.5))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt<T, F, A>(&self, repeat: Repeat, ask: &F) -> Result<T, Failure>
    where
        F: Fn(Client) -> A,
        A: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (index, client) = match self.connect().await {
            Ok(connected) => connected,
            Err((index, failure)) => {
                self.failed(index, &failure);
                return Err(failure);
            }
        };
        let mut attempt = Attempt { members: self, index, begun: Instant::now(), settled: false };
        let patience = match repeat {
            Repeat::Read => self.timing.read_timeout,
            Repeat::Harmless | Repeat::Write | Repeat::WriteOnce => self.timing.write_timeout,
        };
        let answered = timeout(patience, ask(client)).await;
        attempt.settled = true;
        let failure = match answered {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => Failure::of(error),
            Err(_) => Failure::Unanswered(NoAnswer.into()),
        };
        if failure.is_transient() || matches!(failure, Failure::Denied(_)) {
            self.failed(index, &failure);
        }
        Err(failure)
    }
}

/// A try under way. Given up by its caller after a while, it counts as failed:
/// else an impatient caller would ask a hung member again and again.
struct Attempt<'a> {
    members: &'a Members,
    index: usize,
    begun: Instant,
    settled: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.settled && self.begun.elapsed() >= ABANDONED_AFTER {
            self.members.failed(self.index, &Failure::Unanswered(NoAnswer.into()));
        }
    }
}

fn check(config: &EtcdConfig) -> Result<(), SettingsProblem> {
    if config.endpoints.is_empty() {
        return Err(SettingsProblem::NoEndpoints);
    }
    for url in &config.endpoints {
        let uri = url.parse::<tonic::transport::Uri>().ok();
        let scheme =
            uri.as_ref().filter(|uri| uri.port().is_some()).and_then(|uri| uri.scheme_str());
        match (scheme, &config.tls) {
            (Some("http"), None) | (Some("https"), Some(_)) => {}
            (Some("http"), Some(_)) => return Err(SettingsProblem::TlsUnused(url.clone())),
            (Some("https"), None) => return Err(SettingsProblem::TlsMissing(url.clone())),
            (Some(_) | None, _) => return Err(SettingsProblem::BadEndpoint(url.clone())),
        }
    }
    if let Some(tls) = &config.tls
        && tls.cert_file.is_some() != tls.key_file.is_some()
    {
        return Err(SettingsProblem::HalfIdentity);
    }
    if config.username.is_some() != config.password_file.is_some() {
        return Err(SettingsProblem::HalfCredential);
    }
    let prefix = &config.prefix;
    if prefix.is_empty() || prefix.ends_with('/') || prefix.chars().any(char::is_control) {
        return Err(SettingsProblem::BadPrefix(prefix.clone()));
    }
    Ok(())
}

async fn read(path: &Path) -> Result<String, OpenError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| OpenError::File { path: path.to_owned(), source: error.into() })
}

/// A file that should hold something in PEM and does not.
#[derive(Debug, thiserror::Error)]
#[error("it holds no PEM certificate")]
struct NoCertificate;

async fn read_certificate(path: &Path) -> Result<String, OpenError> {
    let pem = read(path).await?;
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        Ok(pem)
    } else {
        Err(OpenError::File { path: path.to_owned(), source: NoCertificate.into() })
    }
}

async fn read_tls(config: &EtcdTlsConfig) -> Result<TlsOptions, OpenError> {
    let ca = Certificate::from_pem(read_certificate(&config.ca_file).await?);
    let mut tls = TlsOptions::new().ca_certificate(ca);
    if let Some(name) = &config.server_name {
        tls = tls.domain_name(name);
    }
    check_tls(&tls, &config.ca_file)?;
    if let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) {
        tls = tls.identity(Identity::from_pem(read_certificate(cert).await?, read(key).await?));
        check_tls(&tls, key)?;
    }
    Ok(tls)
}

/// Whether what was read can be used: only an endpoint looks into it.
fn check_tls(tls: &TlsOptions, last_read: &Path) -> Result<(), OpenError> {
    tonic::transport::Endpoint::from_static("https://localhost")
        .tls_config(tls.clone())
        .map(drop)
        .map_err(|error| OpenError::File { path: last_read.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut EtcdConfig)) -> Option<SettingsProblem> {
        let mut config = EtcdConfig::default();
        change(&mut config);
        check(&config).err()
    }

    fn tls() -> EtcdTlsConfig {
        EtcdTlsConfig {
            ca_file: "ca.pem".into(),
            cert_file: None,
            key_file: None,
            server_name: None,
        }
    }

    #[test]
    fn the_default_settings_are_sound() {
        assert_eq!(problem(|_| ()), None);
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let https = "https://a:2379".to_owned();
        let http = "http://127.0.0.1:2379".to_owned();
        assert_eq!(problem(|c| c.endpoints.clear()), Some(SettingsProblem::NoEndpoints));
        for bad in ["a:2379", "etcd", "ftp://a:2379", "http://a", ""] {
            let found = problem(|c| c.endpoints = vec![bad.to_owned()]);
            assert_eq!(found, Some(SettingsProblem::BadEndpoint(bad.to_owned())));
        }
        assert_eq!(
            problem(|c| c.endpoints = vec![https.clone()]),
            Some(SettingsProblem::TlsMissing(https.clone()))
        );
        assert_eq!(problem(|c| c.tls = Some(tls())), Some(SettingsProblem::TlsUnused(http)));
        let half = EtcdTlsConfig { cert_file: Some("c.pem".into()), ..tls() };
        let found = problem(|c| {
            c.endpoints = vec![https];
            c.tls = Some(half);
        });
        assert_eq!(found, Some(SettingsProblem::HalfIdentity));
        let found = problem(|c| c.username = Some("u".to_owned()));
        assert_eq!(found, Some(SettingsProblem::HalfCredential));
        for bad in ["", "/a/", "/a\0"] {
            let found = problem(|c| c.prefix = bad.to_owned());
            assert_eq!(found, Some(SettingsProblem::BadPrefix(bad.to_owned())));
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let config = EtcdConfig {
            username: Some("u".to_owned()),
            password_file: Some("/nonexistent/password".into()),
            ..EtcdConfig::default()
        };
        let members = Members::new(&config, EtcdTiming::default()).unwrap();
        let error = members.read_credentials().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot use file /nonexistent/password");
    }
}
