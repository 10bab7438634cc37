//! Health, pages, CORS and the development token.

use headwater_rpc::token::unix_seconds;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use tempfile::TempDir;

use super::client::{get, get_with, http};
use super::cluster::{Cluster, keys};

fn site() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "<title>page</title>").unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join("assets/app.js"), "let page;").unwrap();
    folder
}

#[tokio::test]
async fn programs_get_ok_and_browsers_the_page() {
    let site = site();
    let cluster = Cluster::with(|config| config.web_root = Some(site.path().to_owned())).await;
    assert_eq!(get(&cluster.url("/")).await, (StatusCode::OK, "OK".to_owned()));
    let page = get_with(&cluster.url("/"), header::ACCEPT, "text/html,*/*;q=0.8").await;
    assert_eq!(page.body(), "<title>page</title>");
    assert!(page.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let room = get_with(&cluster.url("/room/lobby"), header::ACCEPT, "text/html").await;
    assert_eq!(
        (room.status(), room.body().as_ref()),
        (StatusCode::OK, &b"<title>page</title>"[..])
    );
    let script = get_with(&cluster.url("/assets/app.js"), header::ACCEPT, "*/*").await;
    assert_eq!(script.body(), "let page;");
    assert_eq!(get(&cluster.url("/assets/none.js")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&cluster.url("/../secret")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&cluster.url("/%2e%2e/secret")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn without_a_page_everybody_gets_ok() {
    let cluster = Cluster::start().await;
    let page = get_with(&cluster.url("/"), header::ACCEPT, "text/html").await;
    assert_eq!(page.body(), "OK");
    let head = Request::head(cluster.url("/")).body(Full::default()).unwrap();
    let head = http(head).await;
    assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
    assert_eq!(get(&cluster.url("//")).await, (StatusCode::OK, "OK".to_owned()));
    for path in ["/settings/regions", "/nothing", "/room/lobby", "/dev/token?room=a&identity=b"] {
        assert_eq!(get(&cluster.url(path)).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn any_origin_may_call() {
    let cluster = Cluster::start().await;
    for path in ["/rtc/validate", "/rtc/v1/validate", "/twirp/livekit.RoomService/ListRooms"] {
        let preflight = Request::builder()
            .method(Method::OPTIONS)
            .uri(cluster.url(path))
            .header(header::ORIGIN, "https://example.org")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization,x-anything")
            .body(Full::default())
            .unwrap();
        let answer = http(preflight).await;
        let headers = answer.headers();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "authorization,x-anything");
        assert_eq!(headers[header::ACCESS_CONTROL_MAX_AGE], "86400");
        assert!(headers[header::ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap().contains("POST"));
    }
    // Refusals must be readable, too.
    let url = cluster.url("/rtc/validate");
    let refused = get_with(&url, header::ORIGIN, "https://example.org").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
}

#[tokio::test]
async fn in_development_whoever_asks_gets_a_token() {
    let cluster = Cluster::with(|config| config.dev = true).await;
    let url = cluster.url("/dev/token?room=lobby&identity=ada&name=Ada%20L");
    let (status, text) = get(&url).await;
    assert_eq!(status, StatusCode::OK);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let grants = keys().verify(json["token"].as_str().unwrap(), unix_seconds()).unwrap();
    assert!(grants.room_join && !grants.room_admin && !grants.room_create);
    assert_eq!((grants.room.as_str(), grants.display_name.as_str()), ("lobby", "Ada L"));
    assert_eq!((json["room"].as_str(), json["identity"].as_str()), (Some("lobby"), Some("ada")));
    let bad = get(&cluster.url("/dev/token?room=lobby")).await;
    assert_eq!(bad.0, StatusCode::BAD_REQUEST);
}
