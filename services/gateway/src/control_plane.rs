//! The control plane as the gateway sees it: several replicas, any of which will
//! do. Calls are spread over them and go to the next one when a replica is away.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use headwater_proto::control::v1::placement_service_client::PlacementServiceClient;
use headwater_proto::control::v1::{PlaceParticipantRequest, PlaceParticipantResponse};
use headwater_rpc::client::{ClientTls, ConnectError};
use headwater_rpc::{ClusterCredential, Connection, connect, status};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// A replica that failed is asked last for this long.
const COOL_DOWN: Duration = Duration::from_secs(3);

/// One replica gets this long before the next one is asked.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);

/// Times a call goes round all replicas.
const ROUNDS: u32 = 3;

/// Pause before the second round; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Whether a call may be made twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// A repeat does no harm: it reads, or says which request it is.
    Harmless,
    /// A repeat would do it twice, so it is made again only if it was surely
    /// not begun.
    Never,
}

struct Replica {
    url: String,
    /// For the platform's calls, which carry the caller's token.
    open: Connection,
    /// For the cluster's own calls.
    internal: Connection,
    /// When it last failed, in milliseconds since `started`; 0 means never.
    failed_at: AtomicU64,
}

/// See the module.
pub(crate) struct ControlPlane {
    replicas: Vec<Replica>,
    next: AtomicUsize,
    started: Instant,
}

impl ControlPlane {
    pub(crate) fn new(
        urls: &[String],
        tls: &ClientTls,
        credential: &ClusterCredential,
    ) -> Result<Self, ConnectError> {
        let replicas = urls
            .iter()
            .map(|url| {
                Ok(Replica {
                    url: url.clone(),
                    open: connect(url, tls, None)?,
                    internal: connect(url, tls, Some(credential.clone()))?,
                    failed_at: AtomicU64::new(0),
                })
            })
            .collect::<Result<_, ConnectError>>()?;
        Ok(Self { replicas, next: AtomicUsize::new(0), started: Instant::now() })
    }

    /// Asks where a participant shall go. All gateways ask the same replica for the same
    /// room, as long as it is there: it knows whom it sent before nodes report them.
    pub(crate) async fn place(
        &self,
        request: &PlaceParticipantRequest,
        timeout: Duration,
    ) -> Result<PlaceParticipantResponse, Status> {
        let order = || self.order_for(&request.room_id);
        let placed = self.attempt_in(order, timeout, Repeat::Harmless, |replica, left| {
            let mut request = Request::new(request.clone());
            request.set_timeout(left);
            let mut client = PlacementServiceClient::new(replica.internal.clone());
            async move { client.place_participant(request).await }
        });
        Ok(placed.await?.into_inner())
    }

    /// Makes a call of the platform, on any replica.
    pub(crate) async fn call<A, F>(
        &self,
        timeout: Duration,
        repeat: Repeat,
        call: impl Fn(Connection) -> F,
    ) -> Result<tonic::Response<A>, Status>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        self.attempt(timeout, repeat, |replica, attempt_timeout| {
            let answer = tokio::time::timeout(attempt_timeout, call(replica.open.clone()));
            async move { answer.await.unwrap_or_else(|_| Err(status::deadline_exceeded())) }
        })
        .await
    }

    /// Whether any replica answers at all.
    pub(crate) async fn answers(&self) -> bool {
        let asked = self.attempt(ATTEMPT_TIMEOUT, Repeat::Harmless, |replica, timeout| {
            let mut request = Request::new(HealthCheckRequest::default());
            request.set_timeout(timeout);
            let mut client = HealthClient::new(replica.open.clone());
            async move {
                match client.check(request).await {
                    Err(status) if is_away(&status) => Err(status),
                    // Whatever it says, it is there.
                    Ok(_) | Err(_) => Ok(()),
                }
            }
        });
        asked.await.is_ok()
    }

    async fn attempt<A, F>(
        &self,
        timeout: Duration,
        repeat: Repeat,
        call: impl Fn(&Replica, Duration) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        self.attempt_in(|| self.order(), timeout, repeat, call).await
    }

    async fn attempt_in<A, F>(
        &self,
        order: impl Fn() -> Vec<usize>,
        timeout: Duration,
        repeat: Repeat,
        call: impl Fn(&Replica, Duration) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        let mut last = Status::unavailable("there is no control plane to ask");
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            for index in order() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(last);
                }
                let replica = &self.replicas[index];
                match call(replica, left.min(ATTEMPT_TIMEOUT)).await {
                    Err(status) if is_away(&status) => {
                        self.note_failure(replica);
                        // A deadline may have passed in the middle of the work.
                        let begun = status.code() != Code::Unavailable;
                        if repeat == Repeat::Never && begun {
                            return Err(status);
                        }
                        last = status;
                    }
                    answer => return answer,
                }
            }
        }
        Err(last)
    }

    /// The replicas, beginning with another one each time, those that failed
    /// lately at the end.
    fn order(&self) -> Vec<usize> {
        let len = self.replicas.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut order: Vec<usize> = (0..len).map(|offset| (first % len + offset) % len).collect();
        order.sort_by_key(|index| self.is_cooling(&self.replicas[*index]));
        order
    }

    /// The replicas in an order that the room and their URLs make (rendezvous hashing),
    /// those that failed lately at the end.
    fn order_for(&self, room: &str) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.replicas.len()).collect();
        let weight = |replica: &Replica| fnv([replica.url.as_bytes(), room.as_bytes()]);
        order.sort_by_key(|index| {
            let replica = &self.replicas[*index];
            (self.is_cooling(replica), weight(replica))
        });
        order
    }

    fn note_failure(&self, replica: &Replica) {
        replica.failed_at.store(self.millis().max(1), Ordering::Relaxed);
    }

    fn is_cooling(&self, replica: &Replica) -> bool {
        let failed_at = replica.failed_at.load(Ordering::Relaxed);
        let cool_down = u64::try_from(COOL_DOWN.as_millis()).unwrap_or(u64::MAX);
        failed_at != 0 && self.millis().saturating_sub(failed_at) < cool_down
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The same number for the same parts on every gateway (FNV-1a, then mixed, because
/// the order of what differs only at its end would else be the same for many).
fn fnv(parts: [&[u8]; 2]) -> u64 {
    let hash = parts.iter().copied().flatten().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// The replica is not there, so another one may be asked.
fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}
