//! The doors for clients without an SDK: WHIP (RFC 9725) brings media in, WHEP
//! (draft-ietf-wish-whep) takes it out, each by one offer over HTTP.
//!
//! [`endpoint`] makes a session from an offer, [`resource`] restarts and ends it,
//! [`session`] holds its stream to the node; [`offer`], [`fragment`] and
//! [`problem`] are pure. A session lives in the node, which keeps it as long as
//! its transport is up: a gateway that stops ends none, and any other one takes
//! it up when its URL is asked for.

mod cors;
mod endpoint;
mod fragment;
mod offer;
mod pace;
mod problem;
mod resource;
mod session;

use axum::Router;
use axum::middleware::map_response;
use axum::routing::any;

use crate::gateway::Gateway;

pub use fragment::{Fragment, FragmentError, decode_fragment};
pub use offer::{Offer, OfferError, decode_offer};

pub(crate) use pace::Pace;
pub(crate) use resource::Resources;

/// Longest body that is read, in bytes. An offer of a browser has 8 kB, one with
/// every codec and simulcast 20 kB.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Which way media goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// WHIP: in.
    Publish,
    /// WHEP: out.
    Watch,
}

impl Door {
    /// Its endpoint.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Publish => "/whip",
            Self::Watch => "/whep",
        }
    }
}

/// The routes of both doors, with their own CORS: browsers must see more
/// headers here than elsewhere.
pub(crate) fn routes() -> Router<std::sync::Arc<Gateway>> {
    let mut router = Router::new();
    for door in [Door::Publish, Door::Watch] {
        let path = door.path();
        router = router
            .route(path, any(move |gateway, request| endpoint::serve(door, gateway, request)))
            .route(
                &format!("{path}/{{id}}"),
                any(move |gateway, id, request| resource::serve(door, gateway, id, request)),
            );
    }
    router.layer(map_response(cors::expose))
}
