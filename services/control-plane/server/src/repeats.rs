//! Calls with a request id: the same one twice is carried out once.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use headwater_control_core::replay::{Replay, ReplayCache, ReplayKey};
use headwater_rpc::status::{self, Reason};
use prost::Message;
use tonic::{Code, Status};

/// Locks that repeats in flight wait on. Two different calls share one now and
/// then and wait for each other; more locks make that rarer.
const LOCKS: usize = 64;

/// Remembers answers by request id, of this replica. A repeat that comes to
/// another replica is known by what the registry keeps of the room: creations
/// and the last update. A repeated deletion is answered `NOT_FOUND` there.
#[derive(Debug)]
pub(crate) struct Repeats {
    answers: Mutex<ReplayCache>,
    in_flight: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            answers: Mutex::default(),
            in_flight: (0..LOCKS).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Repeats {
    /// Carries out a call, or answers as it was answered before. `body` is the
    /// request. Without a request id the call is simply carried out. Failures
    /// are not remembered: trying again is what request ids are for.
    pub(crate) async fn once<A: Message + Default>(
        &self,
        key: ReplayKey,
        body: &impl Message,
        call: impl Future<Output = Result<A, Status>>,
    ) -> Result<A, Status> {
        if key.request_id.is_empty() {
            return call.await;
        }
        let body = body.encode_to_vec();
        let lock = usize::try_from(self.hasher.hash_one(&key.request_id)).unwrap_or(0) % LOCKS;
        let _turn = self.in_flight[lock].lock().await;
        if let Some(known) = self.look_up(&key, &body)? {
            return Ok(known);
        }
        let answer = call.await?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.remember(Instant::now(), key, &body, answer.encode_to_vec());
        Ok(answer)
    }

    fn look_up<A: Message + Default>(
        &self,
        key: &ReplayKey,
        body: &[u8],
    ) -> Result<Option<A>, Status> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.look_up(Instant::now(), key, body) {
            Replay::New => Ok(None),
            Replay::Same(answer) => {
                A::decode(answer).map(Some).map_err(|error| status::internal(&error))
            }
            Replay::Conflict => Err(status::error(
                Code::InvalidArgument,
                Reason::RequestIdReused,
                "request_id was used for another request",
            )),
        }
    }
}
