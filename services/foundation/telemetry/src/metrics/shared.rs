//! What several roles count.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Family, LabelSet, Registrar, label_set};

/// In seconds; joins are wanted below half a second.
const JOIN_BUCKETS: [f64; 12] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0];
/// In seconds; a write to etcd takes milliseconds.
const REGISTRY_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

label_set! {
    /// A part of a join that is timed.
    JoinPhase ["phase"] {
        /// From the client's request to the first answer. By the gateway.
        Signal => ["signal"],
        /// From the transport's set-up to its first valid path. By the node.
        Ice => ["ice"],
        /// From the first path to keys. By the node.
        Dtls => ["dtls"],
        /// From the join to the first media packet of a publisher. By the node.
        FirstMedia => ["first_media"],
        /// From the join to a connected transport. By the node.
        Total => ["total"],
    }
}

label_set! {
    /// Why somebody was not let in.
    AuthFailure ["reason"] {
        /// No token.
        TokenMissing => ["token_missing"],
        /// Not a token.
        TokenMalformed => ["token_malformed"],
        /// Signed otherwise than by HS256.
        TokenAlgorithm => ["token_algorithm"],
        /// An API key we do not have.
        KeyUnknown => ["key_unknown"],
        /// Forged, or signed with an old secret.
        SignatureInvalid => ["signature_invalid"],
        /// Too old.
        TokenExpired => ["token_expired"],
        /// Too new: a clock is wrong.
        TokenNotYetValid => ["token_not_yet_valid"],
        /// A good token without the grant.
        GrantMissing => ["grant_missing"],
        /// Not a role of this cluster.
        ClusterCredential => ["cluster_credential"],
    }
}

impl AuthFailure {
    /// The member with this value, such as `headwater-rpc`'s `TokenError::reason`.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|member| member.values() == [reason])
    }
}

label_set! {
    /// What is asked of the registry.
    RegistryOperation ["operation"] {
        /// One key.
        Get => ["get"],
        /// A prefix.
        List => ["list"],
        /// A transaction.
        Commit => ["commit"],
        /// Lease grants, renewals and revocations.
        Lease => ["lease"],
    }
}

/// See [`super::Metrics::shared`].
#[derive(Debug)]
pub struct SharedMetrics {
    /// How long the parts of a join took.
    pub join_duration: Family<JoinPhase, Histogram>,
    /// Calls and connections refused for want of a good credential.
    pub auth_failures: Family<AuthFailure, IntCounter>,
    /// How long the registry took.
    pub registry_duration: Family<RegistryOperation, Histogram>,
    /// Registry operations that failed.
    pub registry_errors: Family<RegistryOperation, IntCounter>,
    /// Transactions lost to a faster writer.
    pub registry_cas_conflicts: IntCounter,
    /// Watches that had to begin anew.
    pub registry_watch_restarts: IntCounter,
    /// Seconds since the process's lease was last renewed.
    pub registry_lease_age: IntGauge,
    /// Seconds since the registry was last heard of.
    pub registry_stale: IntGauge,
}

impl SharedMetrics {
    pub(super) fn new(to: &Registrar) -> Self {
        Self {
            join_duration: to.histograms(
                "join_duration_seconds",
                "How long the parts of a join took.",
                &JOIN_BUCKETS,
            ),
            auth_failures: to.counters(
                "auth_failures_total",
                "Calls and connections refused for want of a good credential.",
            ),
            registry_duration: to.histograms(
                "registry_operation_duration_seconds",
                "How long the registry took to answer.",
                &REGISTRY_BUCKETS,
            ),
            registry_errors: to
                .counters("registry_errors_total", "Registry operations that failed."),
            registry_cas_conflicts: to.counter(
                "registry_cas_conflicts_total",
                "Registry transactions lost to a faster writer.",
            ),
            registry_watch_restarts: to.counter(
                "registry_watch_restarts_total",
                "Registry watches that had to begin anew.",
            ),
            registry_lease_age: to.gauge(
                "registry_lease_age_seconds",
                "Time since the lease of this process was last renewed.",
            ),
            registry_stale: to
                .gauge("registry_stale_seconds", "Time since the registry was last heard of."),
        }
    }
}
