//! The way out to one client: a bounded queue in front of its WebSocket. A
//! client that does not read fast enough is cut off rather than kept waiting
//! for, and may resume.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::SinkExt as _;
use futures::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One message must be taken by the network within this.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The last messages must be.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The queue is full, or nobody takes from it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

/// See the module.
pub(crate) struct Outbox {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    writer: JoinHandle<()>,
}

impl Outbox {
    pub(crate) fn start(
        sink: SplitSink<WebSocket, Message>,
        messages_max: usize,
        bytes_max: usize,
    ) -> Self {
        let (queue, messages) = mpsc::channel(messages_max.max(1));
        let bytes = Arc::new(AtomicUsize::new(0));
        let writer = tokio::spawn(write(sink, messages, bytes.clone()));
        Self { queue, bytes, bytes_max, writer }
    }

    /// Queues a message. One that is larger than the bound passes if it is alone.
    pub(crate) fn push(&self, message: Message) -> Result<(), Overflow> {
        let size = size(&message);
        let before = self.bytes.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > self.bytes_max {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(Overflow);
        }
        self.queue.try_send(message).map_err(|_| {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            Overflow
        })
    }

    /// Returns when the network takes nothing any more.
    pub(crate) async fn broken(&self) {
        self.queue.closed().await;
    }

    /// Sends what is queued and a close frame, if any, within a short time.
    pub(crate) async fn finish(mut self, close: Option<CloseFrame>) {
        let flush = async {
            if let Some(frame) = close {
                // Fails only if the writer is gone, which the wait below notices.
                let _ = self.queue.send(Message::Close(Some(frame))).await;
            }
            drop(self.queue);
            let _ = (&mut self.writer).await;
        };
        if tokio::time::timeout(FLUSH_TIMEOUT, flush).await.is_err() {
            self.writer.abort();
        }
    }

    /// Drops what is queued.
    pub(crate) fn abandon(self) {
        self.writer.abort();
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut messages: mpsc::Receiver<Message>,
    bytes: Arc<AtomicUsize>,
) {
    while let Some(message) = messages.recv().await {
        let size = size(&message);
        match tokio::time::timeout(WRITE_TIMEOUT, sink.send(message)).await {
            Ok(Ok(())) => {
                bytes.fetch_sub(size, Ordering::Relaxed);
            }
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
