//! WHIP (RFC 9725) and WHEP as a client uses them: one offer by POST, the answer with
//! the address of the session, DELETE at the end. Plain HTTP only.

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A session at a door.
#[derive(Debug, Clone)]
pub struct Door {
    server: Uri,
    token: String,
    session: String,
}

impl Door {
    /// Posts an offer to `whip` or `whep` of a server. Answers with the session and
    /// the SDP.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses, or does not say where the session is.
    pub async fn open(
        url: &str,
        path: &str,
        token: &str,
        offer: String,
    ) -> anyhow::Result<(Self, String)> {
        let url = url.replacen("ws://", "http://", 1);
        let server: Uri = format!("{}/{path}", url.trim_end_matches('/')).parse()?;
        ensure!(server.scheme_str() == Some("http"), "{path} is driven over plain HTTP only");
        let (status, location, answer) = send(&server, Method::POST, Some(token), offer).await?;
        if status != StatusCode::CREATED {
            bail!("the server refused the offer: {status} {}", answer.trim());
        }
        let session = location.context("the server does not say where the session is")?;
        Ok((Self { server, token: token.to_owned(), session }, answer))
    }

    /// Ends the session.
    ///
    /// # Errors
    /// If the server does not agree.
    pub async fn close(self) -> anyhow::Result<()> {
        let location: Uri = self.session.parse().context("read the session's address")?;
        let mut parts = self.server.into_parts();
        // The session is at this server, whatever name it gives itself.
        parts.path_and_query = location.path_and_query().cloned();
        let (status, _, _) =
            send(&Uri::from_parts(parts)?, Method::DELETE, Some(&self.token), String::new())
                .await?;
        ensure!(status.is_success(), "the session was not ended: {status}");
        Ok(())
    }
}

/// One request on a connection of its own: status, `Location` and body of the answer.
pub(crate) async fn send(
    uri: &Uri,
    method: Method,
    token: Option<&str>,
    body: String,
) -> anyhow::Result<(StatusCode, Option<String>, String)> {
    let authority = uri.authority().context("the address has no host")?;
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.context("connect")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer: nothing is asked twice on it.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header(HOST, authority.as_str());
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/sdp");
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let location =
        response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes();
    Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each connection with the next of these, and gives back what was asked.
    async fn serve(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let len = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..len]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (url, task)
    }

    #[tokio::test]
    async fn a_session_is_opened_and_ended_where_the_server_says() {
        let (url, server) = serve(vec![
            "HTTP/1.1 201 Created\r\nLocation: /whip/abc\r\nContent-Length: 3\r\n\r\nv=0",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        let (door, answer) = Door::open(&url, "whip", "secret", "offer".to_owned()).await.unwrap();
        assert_eq!(answer, "v=0");
        door.close().await.unwrap();
        let requests = server.await.unwrap();
        assert!(requests[0].starts_with("POST /whip HTTP/1.1"), "{}", requests[0]);
        assert!(requests[0].to_lowercase().contains("authorization: bearer secret"));
        assert!(requests[1].starts_with("DELETE /whip/abc HTTP/1.1"), "{}", requests[1]);
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        let (url, _server) =
            serve(vec!["HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nwhy x"]).await;
        let error = Door::open(&url, "whep", "x", String::new()).await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains("why x"), "{error}");
    }
}
