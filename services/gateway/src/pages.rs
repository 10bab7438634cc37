//! Everything that is neither signalling nor Twirp: the health answer, the
//! community page, and in development a token for whoever asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use headwater_model::grants::Grants;
use headwater_model::ids::{Identity, RoomId};
use headwater_rpc::TokenRequest;
use headwater_rpc::token::unix_seconds;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use tower_http::services::{ServeDir, ServeFile};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::gateway::Gateway;
use crate::livekit::Query;

/// How long a development token is good.
const DEV_TOKEN_TTL: Duration = Duration::from_secs(6 * 3600);

/// `GET /`: `OK` for programs, the page for browsers if there is one.
pub(crate) async fn root(State(gateway): State<Arc<Gateway>>, headers: HeaderMap) -> Response {
    let Some(web_root) = gateway.config.web_root.as_deref().filter(|_| wants_html(&headers)) else {
        return "OK".into_response();
    };
    match tokio::fs::read(web_root.join("index.html")).await {
        Ok(page) => {
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CACHE_CONTROL, "no-cache"),
                (header::VARY, "accept"),
            ];
            (headers, page).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "the page cannot be read");
            "OK".into_response()
        }
    }
}

/// Browsers that navigate name the type; SDKs ask for anything.
fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// The page's files, and the page itself for its own paths.
pub(crate) fn site<S: Clone + Send + Sync + 'static>(web_root: &Path) -> Router<S> {
    let index = web_root.join("index.html");
    let revalidate = SetResponseHeaderLayer::if_not_present(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    let nosniff = SetResponseHeaderLayer::overriding(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    Router::new()
        .route_service("/room/{name}", ServeFile::new(index))
        .fallback_service(ServeDir::new(web_root).append_index_html_on_directories(false))
        .layer(revalidate)
        .layer(nosniff)
}

/// A token and what it is for.
#[derive(Debug, Serialize)]
struct DevToken {
    token: String,
    room: String,
    identity: String,
}

/// `GET /dev/token?room=…&identity=…[&name=…]`: a token to join, for whoever
/// asks. Only in development.
pub(crate) async fn dev_token(State(gateway): State<Arc<Gateway>>, uri: Uri) -> Response {
    let query = Query::of(&uri);
    let room = RoomId::new(query.get("room").unwrap_or_default());
    let identity = Identity::new(query.get("identity").unwrap_or_default());
    let (Ok(room), Ok(identity)) = (room, identity) else {
        return (StatusCode::BAD_REQUEST, "room and identity are required").into_response();
    };
    let mut grants = Grants {
        identity: identity.as_str().to_owned(),
        display_name: query.get("name").unwrap_or_default().to_owned(),
        room: room.as_str().to_owned(),
        room_join: true,
        ..Grants::default()
    };
    grants.permission.can_update_metadata = true;
    match gateway.keys.mint(&TokenRequest { grants, ttl: DEV_TOKEN_TTL }, unix_seconds()) {
        Ok(token) => {
            let (room, identity) = (room.into_string(), identity.into_string());
            let no_store = [(header::CACHE_CONTROL, "no-store")];
            (no_store, Json(DevToken { token, room, identity })).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
}
