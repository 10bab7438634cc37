//! What browsers may do and see here (Fetch standard, CORS): any page may ask,
//! because nothing is done without a token that the page holds.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// How long browsers may remember what is allowed, in seconds.
const MAX_AGE: &str = "86400";

/// Adds what every answer tells browsers.
pub(super) async fn expose(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Location, ETag, Link, Accept-Post, Accept-Patch, Allow, Retry-After, WWW-Authenticate",
        ),
    );
    response
}

/// The answer to OPTIONS, whether a browser asks before it asks or a client wants
/// to know. `accept` names the header and type of what may be sent here.
pub(super) fn options(methods: &'static str, accept: (HeaderName, &'static str)) -> Response {
    let headers = [
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match"),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        accept,
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
