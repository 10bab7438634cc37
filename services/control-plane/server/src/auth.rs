//! Who calls the public services, and whether they may. Denied unless a grant
//! says otherwise.

use std::sync::Arc;

use headwater_model::Grants;
use headwater_rpc::status;
use headwater_rpc::token::{self, KeyRing};
use headwater_telemetry::Metrics;
use headwater_telemetry::metrics::AuthFailure;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// What a call needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need<'a> {
    /// `roomCreate`.
    Create,
    /// `roomList`.
    List,
    /// `roomAdmin` of this room.
    Admin(&'a str),
    /// `roomList`, or `roomAdmin` of this room.
    ListOrAdmin(&'a str),
    /// `roomCreate`, or `roomAdmin` of this room.
    CreateOrAdmin(&'a str),
}

impl Need<'_> {
    fn is_met_by(self, grants: &Grants) -> bool {
        match self {
            Self::Create => grants.room_create,
            Self::List => grants.room_list,
            Self::Admin(room) => grants.may_administer(room),
            Self::ListOrAdmin(room) => grants.room_list || grants.may_administer(room),
            Self::CreateOrAdmin(room) => grants.room_create || grants.may_administer(room),
        }
    }

    /// The grant to name when it is missing.
    fn grant(self) -> &'static str {
        match self {
            Self::Create | Self::CreateOrAdmin(_) => "roomCreate",
            Self::List | Self::ListOrAdmin(_) => "roomList",
            Self::Admin(_) => "roomAdmin",
        }
    }
}

/// Checks tokens.
#[derive(Debug, Clone)]
pub(crate) struct Authorizer {
    keys: Arc<KeyRing>,
    metrics: Metrics,
}

impl Authorizer {
    pub(crate) fn new(keys: Arc<KeyRing>, metrics: Metrics) -> Self {
        Self { keys, metrics }
    }

    /// Who calls, by the token in the call's metadata.
    pub(crate) fn authenticate(&self, metadata: &MetadataMap) -> Result<Grants, Status> {
        token::from_metadata(metadata)
            .and_then(|token| self.keys.verify(token, token::unix_seconds()))
            .map_err(|error| {
                if let Some(failure) = AuthFailure::from_reason(error.reason()) {
                    self.metrics.shared().auth_failures.get(failure).inc();
                }
                status::unauthenticated(error)
            })
    }

    /// Refuses a caller who lacks what the call needs.
    pub(crate) fn require(&self, grants: &Grants, need: Need<'_>) -> Result<(), Status> {
        if need.is_met_by(grants) {
            return Ok(());
        }
        self.metrics.shared().auth_failures.get(AuthFailure::GrantMissing).inc();
        Err(status::permission_denied(need.grant()))
    }

    /// The keys, for minting.
    pub(crate) fn keys(&self) -> &KeyRing {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_grant_meets_no_need() {
        let nothing = Grants { room: "a".into(), room_join: true, ..Grants::default() };
        for need in [
            Need::Create,
            Need::List,
            Need::Admin("a"),
            Need::ListOrAdmin("a"),
            Need::CreateOrAdmin("a"),
        ] {
            assert!(!need.is_met_by(&nothing), "{need:?}");
        }
    }

    #[test]
    fn an_administrator_of_one_room_is_none_of_another() {
        let admin = Grants { room: "a".into(), room_admin: true, ..Grants::default() };
        assert!(Need::Admin("a").is_met_by(&admin));
        assert!(Need::ListOrAdmin("a").is_met_by(&admin));
        assert!(Need::CreateOrAdmin("a").is_met_by(&admin));
        assert!(!Need::Admin("b").is_met_by(&admin));
        let nameless = Grants { room_admin: true, ..Grants::default() };
        assert!(!Need::Admin("").is_met_by(&nameless));
    }
}
