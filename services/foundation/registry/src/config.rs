//! Which registry to use, as an operator writes it, and the way from there to a
//! [`Store`].

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::embedded::EmbeddedStore;
use crate::etcd::EtcdStore;
use crate::memory::MemoryStore;
use crate::store::{Cause, Store};

/// Which registry to use. Only the section of the chosen kind is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Which one.
    pub kind: RegistryKind,
    /// For `embedded`.
    pub embedded: EmbeddedConfig,
    /// For `etcd`.
    pub etcd: EtcdConfig,
}

/// The kinds of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistryKind {
    /// In this process, gone when it ends. For tests.
    Memory,
    /// In one file of this process. For one machine.
    Embedded,
    /// An etcd cluster: the one for more than one process.
    #[default]
    Etcd,
}

/// The embedded registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The file. It is made if it is not there; its folder must be.
    pub path: PathBuf,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("headwater.redb") }
    }
}

/// The etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdConfig {
    /// Client URLs of all members, such as `https://etcd-0.etcd:2379`. All
    /// `https` if `tls` is given, all `http` if not.
    pub endpoints: Vec<String>,
    /// How the members prove who they are, and we to them. Absent means no TLS.
    pub tls: Option<EtcdTlsConfig>,
    /// User name. Absent means no authentication by password.
    pub username: Option<String>,
    /// File that holds the user's password; a newline at its end is not part of
    /// it. Read again whenever a connection is made.
    pub password_file: Option<PathBuf>,
    /// Put before every key, so that several clusters can share one etcd.
    pub prefix: String,
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            tls: None,
            username: None,
            password_file: None,
            prefix: "/headwater/v1".to_owned(),
        }
    }
}

/// TLS towards etcd. The files (PEM) are read again whenever a connection is
/// made, so certificates can be renewed without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTlsConfig {
    /// Certificates that sign the members' ones.
    pub ca_file: PathBuf,
    /// Our certificate, if members ask for one. Goes with `key_file`.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Our private key. Goes with `cert_file`.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Name to look for in the members' certificates in place of the host in
    /// their URL.
    #[serde(default)]
    pub server_name: Option<String>,
}

/// Why there is no registry.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error("registry file {} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read or is no registry.
    #[error("cannot use file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Cause,
    },
    /// A newer version of this software wrote the file.
    #[error("registry file {} has format {found}, only {known} is known", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The one that can be read.
        known: u64,
    },
    /// The settings contradict each other.
    #[error("registry.etcd: {problem}")]
    Settings {
        /// In what.
        problem: SettingsProblem,
    },
    /// The system gives no thread.
    #[error("cannot start the registry's thread")]
    Thread(#[source] std::io::Error),
}

/// Settings that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsProblem {
    /// No endpoint.
    #[error("endpoints must not be empty")]
    NoEndpoints,
    /// Not a URL of a member.
    #[error("endpoint {0} is not of the form http://host:port or https://host:port")]
    BadEndpoint(String),
    /// `https` without `tls`.
    #[error("endpoint {0} is https, but tls.ca_file is not set")]
    TlsMissing(String),
    /// `http` with `tls`.
    #[error("endpoint {0} is http, but tls is set")]
    TlsUnused(String),
    /// Half a client certificate.
    #[error("tls.cert_file and tls.key_file go together")]
    HalfIdentity,
    /// Half a credential.
    #[error("username and password_file go together")]
    HalfCredential,
    /// Not a prefix.
    #[error("prefix {0:?} must not be empty, end with '/' or hold control characters")]
    BadPrefix(String),
}

/// Makes the registry that `config` names. For etcd this reads the files named
/// but connects to nobody yet: a node starts although etcd is away.
///
/// # Errors
/// If the settings contradict each other or a file cannot be used.
pub async fn open(config: &RegistryConfig) -> Result<Arc<dyn Store>, OpenError> {
    match config.kind {
        RegistryKind::Memory => Ok(Arc::new(MemoryStore::new())),
        RegistryKind::Embedded => Ok(Arc::new(EmbeddedStore::open(&config.embedded.path).await?)),
        RegistryKind::Etcd => Ok(Arc::new(EtcdStore::new(&config.etcd).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_configuration_reads_as_written() {
        let config: RegistryConfig = toml::from_str(
            r#"
            kind = "etcd"
            [etcd]
            endpoints = ["https://a:2379", "https://b:2379"]
            username = "headwater"
            password_file = "/run/secrets/etcd"
            prefix = "/town/v1"
            [etcd.tls]
            ca_file = "ca.pem"
            "#,
        )
        .unwrap();
        assert_eq!(config.kind, RegistryKind::Etcd);
        assert_eq!(config.etcd.endpoints.len(), 2);
        assert_eq!(config.etcd.prefix, "/town/v1");
        assert_eq!(config.etcd.tls.unwrap().cert_file, None);
    }

    #[test]
    fn the_default_is_a_local_etcd_and_a_kind_alone_is_enough() {
        assert_eq!(toml::from_str::<RegistryConfig>("").unwrap(), RegistryConfig::default());
        let memory: RegistryConfig = toml::from_str("kind = \"memory\"").unwrap();
        assert_eq!(memory.kind, RegistryKind::Memory);
    }

    #[test]
    fn unknown_keys_are_refused_everywhere() {
        for text in [
            "knid = \"etcd\"",
            "kind = \"redis\"",
            "[etcd]\nendpoint = \"x\"",
            "[embedded]\nfile = \"x\"",
            "[etcd.tls]\nca_file = \"x\"\nca = \"y\"",
        ] {
            assert!(toml::from_str::<RegistryConfig>(text).is_err(), "{text}");
        }
    }
}
