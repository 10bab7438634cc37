//! Reads the server's Prometheus page while a run goes on: how many series it shows
//! and how many tasks its process runs. Both must stay flat whoever comes and goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode, Uri};
use serde::Serialize;
use tokio::task::JoinHandle;

use crate::http_door::send;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// A page that takes longer is passed over.
const PAGE_LIMIT: Duration = Duration::from_secs(10);
/// Gauges that count what the process has in the air: ours, and that of servers in Go.
const TASK_GAUGES: [&str; 2] = ["headwater_tasks", "go_goroutines"];

/// What one page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Scrape {
    /// Lines with a value.
    pub series: u64,
    /// Tasks that have not ended, if the server says so.
    pub tasks: Option<u64>,
}

/// Looks again and again until it is dropped.
#[derive(Debug)]
pub struct Scraper {
    latest: Arc<Mutex<Scrape>>,
    task: JoinHandle<()>,
}

impl Scraper {
    /// Begins with a first look.
    ///
    /// # Errors
    /// If the page cannot be read.
    pub async fn start(url: &str) -> anyhow::Result<Self> {
        let page: Uri = url.parse().with_context(|| format!("{url} is no address"))?;
        ensure!(page.scheme_str() == Some("http"), "{url}: metrics are read over plain HTTP only");
        let first = look(&page).await.with_context(|| format!("read the metrics at {url}"))?;
        let latest = Arc::new(Mutex::new(first));
        let shared = Arc::clone(&latest);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                // A server that does not answer for once keeps what it last said.
                if let Ok(scrape) = look(&page).await {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = scrape;
                }
            }
        });
        Ok(Self { latest, task })
    }

    /// What the last page said.
    #[must_use]
    pub fn latest(&self) -> Scrape {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(page: &Uri) -> anyhow::Result<Scrape> {
    let asked = send(page, Method::GET, None, String::new());
    let (status, _, text) = tokio::time::timeout(PAGE_LIMIT, asked).await??;
    ensure!(status == StatusCode::OK, "{status}");
    Ok(read(&text))
}

fn read(page: &str) -> Scrape {
    let mut scrape = Scrape::default();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        scrape.series += 1;
        let gauge = line.split_once(' ').filter(|(name, _)| TASK_GAUGES.contains(name));
        if let Some(value) = gauge.and_then(|(_, value)| value.trim().parse::<f64>().ok()) {
            scrape.tasks = Some(value as u64);
        }
    }
    scrape
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PAGE: &str = "# HELP headwater_tasks Tasks.\n# TYPE headwater_tasks gauge\n\
        headwater_tasks 41\nheadwater_rooms 2\nheadwater_packets_total{direction=\"in\"} 7\n";

    #[test]
    fn series_and_tasks_of_a_page() {
        assert_eq!(read(PAGE), Scrape { series: 3, tasks: Some(41) });
        assert_eq!(read("go_goroutines 1.2e+03\n"), Scrape { series: 1, tasks: Some(1200) });
        assert_eq!(read("# nothing\n"), Scrape::default());
    }

    #[tokio::test]
    async fn a_page_is_read_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let len = stream.read(&mut request).await.unwrap();
            assert!(request[..len].starts_with(b"GET /metrics HTTP/1.1\r\n"));
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PAGE.len());
            stream.write_all((head + PAGE).as_bytes()).await.unwrap();
        });
        let scraper = Scraper::start(&url).await.unwrap();
        assert_eq!(scraper.latest().series, 3);
        let error = Scraper::start("https://127.0.0.1/metrics").await.unwrap_err();
        assert!(error.to_string().contains("plain HTTP"), "{error}");
    }
}
