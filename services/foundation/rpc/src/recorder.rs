//! Measures calls by the semantic conventions for RPC: one histogram of
//! durations for servers, one for clients, and the status of each call. The
//! body of a response is watched to its end, because its status stands there.

use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use opentelemetry::metrics::Histogram;
use opentelemetry::{KeyValue, global};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::method::{Method, MethodKind};
use crate::status;

/// Name of the attribute that carries the status. Semantic conventions changed
/// it twice, so it stands here alone.
const STATUS_ATTRIBUTE: &str = "rpc.response.status_code";

/// In seconds; those that semantic conventions recommend.
const BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Which end of a call we are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Side {
    fn histogram(self) -> &'static Histogram<f64> {
        static SERVER: OnceLock<Histogram<f64>> = OnceLock::new();
        static CLIENT: OnceLock<Histogram<f64>> = OnceLock::new();
        match self {
            Self::Server => SERVER.get_or_init(|| {
                histogram("rpc.server.call.duration", "How long calls took that we served.")
            }),
            Self::Client => CLIENT.get_or_init(|| {
                histogram("rpc.client.call.duration", "How long calls took that we made.")
            }),
        }
    }
}

fn histogram(name: &'static str, description: &'static str) -> Histogram<f64> {
    global::meter("headwater")
        .f64_histogram(name)
        .with_unit("s")
        .with_description(description)
        .with_boundaries(BUCKETS.to_vec())
        .build()
}

/// One call being measured. It is recorded once, at the latest when dropped:
/// a call that is given up counts as cancelled.
pub(crate) struct Recorder {
    side: Side,
    method: Method,
    began: Instant,
    /// Kept open until the status is known. Streams let it go at their first
    /// answer, because a span of an hour helps nobody.
    span: Span,
    done: bool,
}

impl Recorder {
    pub(crate) fn start(side: Side, method: Method, span: Span) -> Self {
        Self { side, method, began: Instant::now(), span, done: false }
    }

    /// Takes the head of a response: records if the status stands there already.
    fn head(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.end(status.code());
        } else if self.method.kind == MethodKind::Streaming {
            self.span = Span::none();
        }
    }

    pub(crate) fn end(&mut self, code: Code) {
        if self.done {
            return;
        }
        self.done = true;
        let name = status::code_name(code);
        self.span.set_attribute(STATUS_ATTRIBUTE, name);
        if is_fault(self.side, code) {
            self.span.set_status(opentelemetry::trace::Status::error(name));
        }
        self.span = Span::none();
        // How long a stream lived says nothing of how fast we are.
        if self.method.kind == MethodKind::Unary {
            let attributes = [
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", self.method.name),
                KeyValue::new(STATUS_ATTRIBUTE, name),
            ];
            self.side.histogram().record(self.began.elapsed().as_secs_f64(), &attributes);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// For a client every error is one; for a server only those that are its own.
fn is_fault(side: Side, code: Code) -> bool {
    match side {
        Side::Client => code != Code::Ok,
        Side::Server => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
    }
}

/// The body of a response, watched to its end and cut at a deadline.
pub(crate) struct CallBody {
    inner: Body,
    recorder: Recorder,
    deadline: Option<Pin<Box<Sleep>>>,
    cut: bool,
}

impl CallBody {
    /// Wraps a response's body so that the call is recorded at its end. At the
    /// deadline the body ends with `DEADLINE_EXCEEDED`.
    pub(crate) fn wrap(
        response: http::Response<Body>,
        mut recorder: Recorder,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> http::Response<Body> {
        recorder.head(response.headers());
        response.map(|inner| Body::new(Self { inner, recorder, deadline, cut: false }))
    }

    fn cut(&mut self) -> Frame<Bytes> {
        self.cut = true;
        self.inner = Body::empty();
        self.recorder.end(Code::DeadlineExceeded);
        let mut trailers = HeaderMap::new();
        // Fails only for messages that are no header text; ours is.
        let _ = status::deadline_exceeded().add_header(&mut trailers);
        Frame::trailers(trailers)
    }
}

impl HttpBody for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.cut {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let status = Status::from_header_map(trailers);
                    this.recorder.end(status.map_or(Code::Unknown, |status| status.code()));
                }
            }
            Poll::Ready(Some(Err(error))) => this.recorder.end(error.code()),
            Poll::Ready(None) => this.recorder.end(Code::Unknown),
            Poll::Pending => {
                let due = this.deadline.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready());
                if due {
                    return Poll::Ready(Some(Ok(this.cut())));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.cut || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
