//! The registry of a cluster: etcd, by `etcd-client`. The only part of the
//! project that knows etcd.
//!
//! Each member has a client of its own and calls go to one member until it
//! fails, then to the next: a channel balanced over all members keeps picking
//! the dead ones. Unary calls are repeated for [`EtcdTiming::retry_for`] where
//! that is safe.

mod failure;
mod members;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn,
    TxnOp, TxnOpResponse, TxnResponse,
};

use crate::config::{EtcdConfig, OpenError};
use crate::etcd::failure::Failure;
use crate::etcd::members::{Answer, Members, Repeat};
use crate::key::{Key, Prefix};
use crate::store::{
    ChangeStream, Entry, Lease, LeaseId, Revision, Snapshot, Store, StoreError, WatchError,
};
use crate::transaction::{Committed, Compare, Operation, Transaction};

/// Keys in one answer of a listing. With the largest values an answer stays
/// below [`ANSWER_BYTES_MAX`].
const LIST_PAGE: i64 = 128;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Times a listing starts again because its revision was compacted meanwhile.
const LIST_RESTARTS_MAX: usize = 3;

/// Wait for the end of a stream that is done with.
const STREAM_END_TIMEOUT: Duration = Duration::from_millis(100);

/// When to give up on what. The defaults follow from measurements of etcd 3.4
/// and 3.5 with their default settings and suit a cluster within one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdTiming {
    /// For a connection to one member.
    pub connect_timeout: Duration,
    /// For one try of a read or of keeping a lease alive.
    pub read_timeout: Duration,
    /// For one try of a write, which has to reach the disks of a majority.
    pub write_timeout: Duration,
    /// No try is begun later than this after the first one. An election takes
    /// 1 to 2 s and may follow upon a timeout.
    pub retry_for: Duration,
    /// HTTP/2 pings on every connection. Below 5 s etcd's default
    /// `--grpc-keepalive-min-time` breaks the connection for too many pings.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered.
    pub ping_timeout: Duration,
    /// How often a quiet watch asks whether it is alive.
    pub progress_interval: Duration,
    /// How long a watch may be silent before it is given up.
    pub silence_timeout: Duration,
}

impl Default for EtcdTiming {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(2),
            retry_for: Duration::from_secs(5),
            ping_interval: Duration::from_secs(6),
            ping_timeout: Duration::from_secs(2),
            progress_interval: Duration::from_secs(30),
            silence_timeout: Duration::from_secs(45),
        }
    }
}

/// A registry in an etcd cluster. Clones share their connections.
#[derive(Debug, Clone)]
pub struct EtcdStore {
    members: Arc<Members>,
    /// The configured prefix with a slash at its end.
    root: Arc<str>,
}

impl EtcdStore {
    /// Checks the settings and reads the files they name. Connections are made
    /// when they are first needed, and again when they break.
    ///
    /// # Errors
    /// If the settings contradict each other or a file cannot be read.
    pub async fn new(config: &EtcdConfig) -> Result<Self, OpenError> {
        Self::with_timing(config, EtcdTiming::default()).await
    }

    /// The same with other timing.
    ///
    /// # Errors
    /// As [`EtcdStore::new`].
    pub async fn with_timing(config: &EtcdConfig, timing: EtcdTiming) -> Result<Self, OpenError> {
        let members = Arc::new(Members::new(config, timing)?);
        members.read_credentials().await?;
        Ok(Self { members, root: format!("{}/", config.prefix).into() })
    }

    /// Lets calls begin with one member, by its place in the endpoints, where a
    /// random one would be taken: the nearest one, say. It changes for all
    /// clones, and only until that member fails.
    #[must_use]
    pub fn starting_at(self, member: usize) -> Self {
        self.members.prefer(member);
        self
    }

    fn full(&self, key: &Key) -> Vec<u8> {
        [self.root.as_bytes(), key.as_str().as_bytes()].concat()
    }

    fn full_prefix(&self, prefix: &Prefix) -> Vec<u8> {
        [self.root.as_bytes(), prefix.as_str().as_bytes()].concat()
    }

    fn operation(&self, operation: &Operation) -> TxnOp {
        match operation {
            Operation::Put { key, value, lease } => {
                let options = PutOptions::new().with_lease(lease.map_or(0, raw_lease));
                TxnOp::put(self.full(key), value.to_vec(), Some(options))
            }
            Operation::Delete(key) => TxnOp::delete(self.full(key), None),
            Operation::Get(key) => TxnOp::get(self.full(key), None),
        }
    }

    fn compare(&self, compare: &Compare) -> etcd_client::Compare {
        let key = self.full(compare.key());
        match compare {
            Compare::Absent(_) => etcd_client::Compare::create_revision(key, CompareOp::Equal, 0),
            Compare::ModRevision(_, revision) => {
                etcd_client::Compare::mod_revision(key, CompareOp::Equal, raw_revision(*revision))
            }
            Compare::CreateRevision(_, revision) => etcd_client::Compare::create_revision(
                key,
                CompareOp::Equal,
                raw_revision(*revision),
            ),
            Compare::Lease(_, lease) => {
                etcd_client::Compare::lease(key, CompareOp::Equal, raw_lease(*lease))
            }
        }
    }

    fn transaction(&self, transaction: &Transaction) -> Txn {
        let compares: Vec<_> = transaction.compares.iter().map(|c| self.compare(c)).collect();
        let then: Vec<_> = transaction.then.iter().map(|o| self.operation(o)).collect();
        let otherwise: Vec<_> = transaction.otherwise.iter().map(|o| self.operation(o)).collect();
        Txn::new().when(compares).and_then(then).or_else(otherwise)
    }

    /// One page of a listing from `start` on, at `revision` unless that is 0.
    async fn page(
        &self,
        prefix: &Prefix,
        start: &[u8],
        revision: i64,
    ) -> Result<GetResponse, Failure> {
        let options = GetOptions::new()
            .with_range(range_end(self.full_prefix(prefix)))
            .with_limit(LIST_PAGE)
            .with_revision(revision)
            .with_sort(SortTarget::Key, SortOrder::Ascend);
        let read = |client: Client| {
            let (start, options) = (start.to_vec(), options.clone());
            async move { kv(&client).get(start, Some(options)).await }
        };
        Ok(self.members.call(Repeat::Read, read).await?.value)
    }

    /// All pages at the revision of the first one.
    async fn list_once(&self, prefix: &Prefix) -> Result<Snapshot, Failure> {
        let mut start = self.full_prefix(prefix);
        let mut snapshot = Snapshot { entries: Vec::new(), revision: Revision(0) };
        loop {
            let page = self.page(prefix, &start, raw_revision(snapshot.revision)).await?;
            if snapshot.revision == Revision(0) {
                snapshot.revision = header_revision(page.header());
            }
            snapshot.entries.extend(page.kvs().iter().filter_map(|kv| entry(&self.root, kv)));
            match page.kvs().last() {
                // The least key behind the last one.
                Some(last) if page.more() => start = [last.key(), b"\0"].concat(),
                Some(_) | None => return Ok(snapshot),
            }
        }
    }
}

#[async_trait::async_trait]
impl Store for EtcdStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        // A linearizable read of a key that is never there.
        let probe = self.root.as_bytes().to_vec();
        let read = |client: Client| {
            let probe = probe.clone();
            async move { kv(&client).get(probe, None).await }
        };
        let answer = self.members.call(Repeat::Read, read).await?;
        Ok(header_revision(answer.value.header()))
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let read = |client: Client| {
            let key = self.full(key);
            async move { kv(&client).get(key, None).await }
        };
        let answer = self.members.call(Repeat::Read, read).await?;
        Ok(answer.value.kvs().first().and_then(|kv| entry(&self.root, kv)))
    }

    async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError> {
        let mut restarts = 0;
        loop {
            match self.list_once(prefix).await {
                Err(Failure::Compacted(_)) if restarts < LIST_RESTARTS_MAX => restarts += 1,
                other => return Ok(other?),
            }
        }
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        transaction.check()?;
        let repeat = if transaction.is_read_only() {
            Repeat::Read
        } else if transaction.guards_itself() {
            Repeat::Write
        } else {
            Repeat::WriteOnce
        };
        let lease = transaction.then.iter().chain(&transaction.otherwise).find_map(|o| match o {
            Operation::Put { lease, .. } => *lease,
            Operation::Delete(_) | Operation::Get(_) => None,
        });
        let request = self.transaction(&transaction);
        let write = |client: Client| {
            let request = request.clone();
            async move { kv(&client).txn(request).await }
        };
        let Answer { value: response, doubted } =
            self.members.call(repeat, write).await.map_err(|failure| failure.about(lease))?;
        if !response.succeeded()
            && let (Some(cause), Repeat::Write) = (doubted, repeat)
        {
            // An earlier try may have been carried out, and then it is that
            // which made the conditions false.
            return Err(StoreError::Indeterminate(cause));
        }
        Ok(committed(&self.root, &response))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let grant = |client: Client| async move {
            client.lease_client().grant(seconds.clamp(1, 86_400), None).await
        };
        // Granting twice leaves a lease without keys behind, which ends by itself.
        let granted = self.members.call(Repeat::Harmless, grant).await?.value;
        Ok(Lease { id: lease_id(granted.id()), ttl: seconds_of(granted.ttl()) })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        // A stream for each ping: only an answer counts, and a stream that is
        // not there cannot hang. A node pings every few seconds. The call takes
        // the first answer; waiting for the end closes the stream in good order.
        let ping = |client: Client| async move {
            let (keeper, mut answers) = client.lease_client().keep_alive(raw_lease(lease)).await?;
            drop(keeper);
            drop(tokio::time::timeout(STREAM_END_TIMEOUT, answers.message()).await);
            Ok(())
        };
        let pinged = self.members.call(Repeat::Read, ping).await;
        pinged.map(|_| ()).map_err(|failure| failure.about(Some(lease)))
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoke =
            |client: Client| async move { client.lease_client().revoke(raw_lease(lease)).await };
        match self.members.call(Repeat::Harmless, revoke).await {
            Ok(_) | Err(Failure::LeaseNotFound(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<ChangeStream, WatchError> {
        let prefix = self.full_prefix(prefix);
        watch::open(Arc::clone(&self.members), Arc::clone(&self.root), prefix, after).await
    }
}

fn kv(client: &Client) -> etcd_client::KvClient {
    client
        .kv_client()
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX)
}

fn committed(root: &str, response: &TxnResponse) -> Committed {
    let read = response.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(found) => Some(found.kvs().first().and_then(|kv| entry(root, kv))),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    Committed {
        succeeded: response.succeeded(),
        read: read.collect(),
        revision: header_revision(response.header()),
    }
}

/// The entry of a key of ours; `None` if the key is not one we can have written.
fn entry(root: &str, kv: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: key(root, kv.key())?,
        value: kv.value().to_vec().into(),
        create_revision: revision(kv.create_revision()),
        mod_revision: revision(kv.mod_revision()),
        version: u64::try_from(kv.version()).unwrap_or_default(),
        lease: (kv.lease() != 0).then(|| lease_id(kv.lease())),
    })
}

fn key(root: &str, raw: &[u8]) -> Option<Key> {
    Key::new(std::str::from_utf8(raw).ok()?.strip_prefix(root)?).ok()
}

/// The first key behind a prefix, which ends with a slash.
fn range_end(mut prefix: Vec<u8>) -> Vec<u8> {
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

// etcd counts in signed numbers of which it uses the positive half.

fn revision(raw: i64) -> Revision {
    Revision(u64::try_from(raw).unwrap_or_default())
}

fn raw_revision(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn lease_id(raw: i64) -> LeaseId {
    LeaseId(u64::try_from(raw).unwrap_or_default())
}

fn raw_lease(lease: LeaseId) -> i64 {
    i64::try_from(lease.0).unwrap_or(i64::MAX)
}

fn seconds_of(raw: i64) -> Duration {
    Duration::from_secs(u64::try_from(raw).unwrap_or_default())
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    revision(header.map_or(0, etcd_client::ResponseHeader::revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_behind_its_folder() {
        assert_eq!(range_end(b"/headwater/v1/rooms/".to_vec()), b"/headwater/v1/rooms0");
    }

    #[test]
    fn keys_outside_our_root_are_not_ours() {
        assert_eq!(key("/a/", b"/a/rooms/r"), Some(Key::new("rooms/r").unwrap()));
        assert_eq!(key("/a/", b"/b/rooms/r"), None);
        assert_eq!(key("/a/", b"/a/\xff"), None);
    }
}
