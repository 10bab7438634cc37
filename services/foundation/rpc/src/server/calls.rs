//! What happens to every call before its handler and after it: a span that
//! continues the caller's trace, a deadline, a limit on unary calls in work,
//! and its measurement.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::{Instrument as _, field, info_span};

use crate::method::{Method, MethodKind};
use crate::recorder::{CallBody, Recorder, Side};
use crate::status::{self, Reason};
use crate::{deadline, trace};

/// tonic runs a timer of its own around ours and answers `CANCELLED`, so ours
/// must be done before it.
const AHEAD_OF_TONIC: Duration = Duration::from_millis(5);

const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct CallsLayer {
    permits: Arc<Semaphore>,
}

impl CallsLayer {
    pub(super) fn new(calls_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(calls_max.min(Semaphore::MAX_PERMITS))) }
    }
}

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { inner, permits: self.permits.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Calls<S> {
    inner: S,
    permits: Arc<Semaphore>,
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method::of_path(request.uri().path());
        let span = info_span!(
            "rpc",
            otel.name = method.name,
            otel.kind = "server",
            rpc.system.name = "grpc",
            rpc.method = method.name,
            rpc.response.status_code = field::Empty,
        );
        trace::continue_from_headers(&span, request.headers());
        let recorder = Recorder::start(Side::Server, method, span.clone());
        match method.kind {
            MethodKind::Unary => {
                let Ok(permit) = self.permits.clone().try_acquire_owned() else {
                    return Box::pin(std::future::ready(Ok(refuse(overloaded(), recorder))));
                };
                let timeout = shorten(deadline::of_unary(request.headers()));
                let answer = self.inner.call(request);
                let future = async move {
                    let _permit = permit;
                    let end = Instant::now() + timeout;
                    tokio::select! {
                        biased;
                        response = deadline::within(end, answer) => {
                            response.map(|response| CallBody::wrap(response, recorder, None))
                        }
                        () = sleep_until(end) => Ok(refuse(status::deadline_exceeded(), recorder)),
                    }
                };
                Box::pin(future.instrument(span))
            }
            MethodKind::Streaming => {
                let timeout = deadline::of_stream(request.headers()).map(shorten);
                let answer = self.inner.call(request);
                let future = async move {
                    // Made here, within the runtime, and polled by the body.
                    let end = timeout.map(|timeout| Box::pin(sleep(timeout)));
                    answer.await.map(|response| CallBody::wrap(response, recorder, end))
                };
                Box::pin(future.instrument(span))
            }
        }
    }
}

fn shorten(timeout: Duration) -> Duration {
    timeout.saturating_sub(AHEAD_OF_TONIC).max(timeout / 2)
}

fn overloaded() -> Status {
    status::resource_exhausted(
        Reason::Overloaded,
        "too many calls are in work on this server",
        RETRY_AFTER,
    )
}

fn refuse(status: Status, recorder: Recorder) -> Response<Body> {
    CallBody::wrap(status.into_http(), recorder, None)
}
