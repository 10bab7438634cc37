//! One watch on one member of etcd, until it breaks. It breaks on every doubt:
//! an error, an end, a cancellation, a silence. Going on is for
//! [`Watch`](crate::Watch).

use std::sync::Arc;

use etcd_client::{Event, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::etcd::failure::{Failure, NoAnswer};
use crate::etcd::members::Members;
use crate::etcd::{ANSWER_BYTES_MAX, entry, header_revision, key, raw_revision, revision};
use crate::store::{Cause, Change, ChangeStream, Changes, Revision, WatchError};

/// How a watch ended without an error of its own.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error("the member ended the watch")]
    Ended,
    #[error("the member cancelled the watch: {0}")]
    Cancelled(String),
    #[error("the member was silent")]
    Silent,
    #[error("the member has not come that far")]
    Behind,
}

struct Following {
    members: Arc<Members>,
    member: usize,
    root: Arc<str>,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// Every change up to here was told.
    after: Revision,
    /// When the last message came.
    heard: Instant,
    /// When to ask whether the watch is alive.
    ask: Instant,
}

/// Watches on the first member that takes it.
pub async fn open(
    members: Arc<Members>,
    root: Arc<str>,
    prefix: Vec<u8>,
    after: Revision,
) -> Result<ChangeStream, WatchError> {
    let mut tried = 1;
    let (member, (requests, responses)) = loop {
        match begin(&members, &prefix, after).await {
            Ok(begun) => break begun,
            Err(failure) if failure.is_transient() && tried < members.count() => tried += 1,
            Err(failure) => return Err(interrupted(failure)),
        }
    };
    let now = Instant::now();
    let ask = now + members.timing().progress_interval;
    let following =
        Following { members, member, root, requests, responses, after, heard: now, ask };
    let stream = stream::unfold(Some(following), |following| async {
        let mut following = following?;
        match following.next().await {
            Ok(changes) => Some((Ok(changes), Some(following))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(stream.boxed())
}

async fn begin(
    members: &Members,
    prefix: &[u8],
    after: Revision,
) -> Result<(usize, (WatchRequestSender, WatchResponseStream)), Failure> {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(raw_revision(Revision(after.0.saturating_add(1))));
    let (member, client) = members.connect().await.map_err(|(index, failure)| {
        members.failed(index, &failure);
        failure
    })?;
    let mut client = client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX);
    let patience = members.timing().read_timeout;
    let failure = match timeout(patience, client.watch(prefix.to_vec(), Some(options))).await {
        Ok(Ok(stream)) => return Ok((member, stream.split())),
        Ok(Err(error)) => Failure::of(error),
        Err(_) => Failure::Unanswered(NoAnswer.into()),
    };
    members.failed(member, &failure);
    Err(failure)
}

impl Following {
    async fn next(&mut self) -> Result<Changes, WatchError> {
        loop {
            let timing = *self.members.timing();
            let response = tokio::select! {
                biased;
                response = self.responses.message() => response,
                () = sleep_until(self.heard + timing.silence_timeout) => {
                    return Err(self.broken(Interruption::Silent));
                }
                () = sleep_until(self.ask) => {
                    self.ask += timing.progress_interval;
                    // If the request cannot be queued, the silence runs out.
                    drop(timeout(timing.read_timeout, self.requests.request_progress()).await);
                    continue;
                }
            };
            self.heard = Instant::now();
            match response {
                Ok(Some(response)) => {
                    if let Some(changes) = self.take(&response)? {
                        return Ok(changes);
                    }
                }
                Ok(None) => return Err(self.broken(Interruption::Ended)),
                Err(error) => {
                    let failure = Failure::of(error);
                    self.members.failed(self.member, &failure);
                    return Err(interrupted(failure));
                }
            }
        }
    }

    /// What a response tells. Its header's revision is of use at the start only:
    /// etcd before 3.4.25 and 3.5.8 may report progress ahead of events that it
    /// has yet to send.
    fn take(&mut self, response: &WatchResponse) -> Result<Option<Changes>, WatchError> {
        let compacted = revision(response.compact_revision());
        if compacted > Revision(0) {
            return Err(WatchError::Gap { after: self.after, oldest: compacted });
        }
        if response.canceled() {
            let reason = response.cancel_reason().to_owned();
            return Err(self.broken(Interruption::Cancelled(reason)));
        }
        let reached = header_revision(response.header());
        if response.created() && reached < self.after {
            // This member has not come that far: it lags, or the cluster lost
            // data and counts anew. A listing tells which.
            self.members.failed(self.member, &Failure::Unanswered(Interruption::Behind.into()));
            return Err(WatchError::Gap { after: self.after, oldest: reached });
        }
        let news = response.events().iter().filter_map(|event| change(&self.root, event));
        let changes: Vec<_> = news.filter(|change| change.revision() > self.after).collect();
        let Some(last) = changes.last() else {
            return Ok(None);
        };
        self.after = last.revision();
        Ok(Some(Changes { revision: self.after, changes }))
    }

    /// The stream is over; the next one goes to another member.
    fn broken(&self, interruption: Interruption) -> WatchError {
        let failure = Failure::Unanswered(interruption.into());
        self.members.failed(self.member, &failure);
        interrupted(failure)
    }
}

fn change(root: &str, event: &Event) -> Option<Change> {
    let kv = event.kv()?;
    // A value that was written has a version from 1 on, a deleted key has 0.
    if kv.version() == 0 {
        return Some(Change::Deleted {
            key: key(root, kv.key())?,
            revision: revision(kv.mod_revision()),
        });
    }
    entry(root, kv).map(Change::Put)
}

fn interrupted(failure: Failure) -> WatchError {
    let cause: Cause = match failure {
        Failure::Unsent(cause) | Failure::Unanswered(cause) => cause,
        lasting => crate::store::StoreError::from(lasting).into(),
    };
    WatchError::Interrupted(cause)
}
