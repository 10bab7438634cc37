//! The registry as the control plane uses it: rooms read and written whole,
//! every call with an end, every write a compare-and-swap.

use std::sync::Arc;
use std::time::Duration;

use headwater_control_core::{IntendedRoom, Plan};
use headwater_model::{Epoch, NodeId, RoomId};
use headwater_registry::record::{LifecycleRecord, PlanRecord, Record as _, RoomRecord};
use headwater_registry::schema::{self, Subject};
use headwater_registry::{
    Committed, Compare, Entry, Fence, Operation, RecordError, Revision, Store, StoreError,
    Transaction,
};
use headwater_rpc::status::{self, Reason};
use headwater_telemetry::Metrics;
use headwater_telemetry::metrics::RegistryOperation;
use tokio::time::Instant;
use tonic::Status;

use crate::convert;

/// How long one call of ours may spend on the registry in all. A registry that
/// changes its leader takes longer, but then callers are told to come back in
/// under a second instead of being left waiting.
pub(crate) const PATIENCE: Duration = Duration::from_millis(750);

/// When callers should come back if the registry is away.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    /// It did not answer in time, or not at all. A write may have been done.
    #[error("the registry is away")]
    Away,
    /// It refused.
    #[error("the registry refused")]
    Refused(#[source] StoreError),
    /// What it holds cannot be read.
    #[error("a stored record cannot be read")]
    Unreadable(#[source] RecordError),
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::Away => status::unavailable(
                Reason::RegistryUnavailable,
                "the registry cannot be reached",
                RETRY_AFTER,
            ),
            // The only thing in a transaction of ours whose size callers choose.
            RegistryError::Refused(StoreError::Transaction(_)) => {
                status::invalid_argument("room.metadata", "is too large to be stored")
            }
            RegistryError::Refused(_) | RegistryError::Unreadable(_) => status::internal(&error),
        }
    }
}

/// A room as it was read from the registry.
#[derive(Debug, Clone)]
pub(crate) struct FoundRoom {
    /// What is stored of it.
    pub(crate) record: RoomRecord,
    /// The same, and its plan, as the core takes it.
    pub(crate) intended: IntendedRoom,
}

/// What was read about a room, all at one revision.
#[derive(Debug, Clone)]
pub(crate) struct RoomReading {
    /// The room, if there is one.
    pub(crate) room: Option<FoundRoom>,
    /// Revision of whatever stands under the plan's key, void or not.
    plan_key: Option<Revision>,
    /// The registry's revision at that moment.
    pub(crate) revision: Revision,
}

/// The registry.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    metrics: Metrics,
}

impl Registry {
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Reads a room.
    pub(crate) async fn read_room(
        &self,
        id: &RoomId,
        deadline: Instant,
    ) -> Result<RoomReading, RegistryError> {
        let prefix = schema::room(id);
        let listing = self.store.list(&prefix);
        let snapshot = self.timed(RegistryOperation::List, deadline, listing).await?;
        let mut spec = None;
        let mut plan = None;
        for entry in &snapshot.entries {
            match schema::subject(&entry.key) {
                Some(Subject::RoomSpec(_)) => spec = Some(entry),
                Some(Subject::RoomPlan(_)) => plan = Some(entry),
                Some(Subject::Node(_) | Subject::Lifecycle(_) | Subject::Leader(_)) | None => {}
            }
        }
        let room = spec.map(|spec| found_room(spec, plan)).transpose()?;
        let plan_key = plan.map(|entry| entry.mod_revision);
        Ok(RoomReading { room, plan_key, revision: snapshot.revision })
    }

    /// Reads every room, in order of names. Those that cannot be read are left
    /// out and logged.
    pub(crate) async fn read_rooms(
        &self,
        deadline: Instant,
    ) -> Result<Vec<(RoomId, IntendedRoom)>, RegistryError> {
        let prefix = schema::rooms();
        let listing = self.store.list(&prefix);
        let snapshot = self.timed(RegistryOperation::List, deadline, listing).await?;
        let mut plans = std::collections::BTreeMap::new();
        let mut specs = std::collections::BTreeMap::new();
        for entry in &snapshot.entries {
            match schema::subject(&entry.key) {
                Some(Subject::RoomSpec(room)) => drop(specs.insert(room, entry)),
                Some(Subject::RoomPlan(room)) => drop(plans.insert(room, entry)),
                Some(Subject::Node(_) | Subject::Lifecycle(_) | Subject::Leader(_)) | None => {}
            }
        }
        let rooms = specs.into_iter().filter_map(|(id, spec)| {
            match found_room(spec, plans.get(&id).copied()) {
                Ok(found) => Some((id, found.intended)),
                Err(error) => {
                    tracing::warn!(room = %id, error = %status::Chain(&error), "room left out");
                    None
                }
            }
        });
        Ok(rooms.collect())
    }

    /// Writes a new room, with a first plan if there is one. `None` if somebody
    /// else wrote it first.
    pub(crate) async fn create_room(
        &self,
        record: &RoomRecord,
        plan: Option<&Plan>,
        deadline: Instant,
    ) -> Result<Option<Revision>, RegistryError> {
        let id = &record.room_id;
        let mut transaction = Transaction::create(schema::room_spec(id), record.encode());
        if let Some(plan) = plan {
            let plan = convert::plan_to_record(plan).encode();
            transaction = transaction.put(schema::room_plan(id), plan);
        }
        self.swap(transaction, deadline).await
    }

    /// Writes a room's spec in place of the one found. `None` if it was changed since.
    pub(crate) async fn replace_spec(
        &self,
        found: &FoundRoom,
        record: &RoomRecord,
        deadline: Instant,
    ) -> Result<Option<Revision>, RegistryError> {
        let key = schema::room_spec(&record.room_id);
        let seen = Revision(found.intended.spec_revision);
        self.swap(Transaction::replace(key, seen, record.encode()), deadline).await
    }

    /// Writes a room's plan, if the room still is the incarnation that was read
    /// and nobody has written a plan since. `None` otherwise.
    pub(crate) async fn write_plan(
        &self,
        reading: &RoomReading,
        found: &FoundRoom,
        plan: &Plan,
        fence: Option<&Fence>,
        deadline: Instant,
    ) -> Result<Option<Revision>, RegistryError> {
        let id = &found.record.room_id;
        let key = schema::room_plan(id);
        let created = Revision(found.intended.create_revision);
        let record = convert::plan_to_record(plan).encode();
        let transaction = match reading.plan_key {
            Some(revision) => Transaction::replace(key, revision, record),
            None => Transaction::create(key, record),
        }
        .when(Compare::CreateRevision(schema::room_spec(id), created));
        self.swap(fenced(transaction, fence), deadline).await
    }

    /// Deletes a room as it was read, its plan with it. `None` if its spec was
    /// changed since, or its plan when `fence` says that a loop deletes it.
    pub(crate) async fn delete_room(
        &self,
        reading: &RoomReading,
        found: &FoundRoom,
        fence: Option<&Fence>,
        deadline: Instant,
    ) -> Result<Option<Revision>, RegistryError> {
        let id = &found.record.room_id;
        let seen = Revision(found.intended.spec_revision);
        let mut transaction = Transaction::remove(schema::room_spec(id), seen)
            .then(Operation::Delete(schema::room_plan(id)));
        if fence.is_some() {
            let key = schema::room_plan(id);
            transaction = transaction.when(match reading.plan_key {
                Some(revision) => Compare::ModRevision(key, revision),
                None => Compare::Absent(key),
            });
        }
        self.swap(fenced(transaction, fence), deadline).await
    }

    /// Writes an operator's order to a node, in place of any other: the last
    /// operator is right.
    pub(crate) async fn put_order(
        &self,
        record: &LifecycleRecord,
        deadline: Instant,
    ) -> Result<Revision, RegistryError> {
        let key = schema::lifecycle(&record.node_id);
        let put = Transaction::new().put(key, record.encode());
        self.swap(put, deadline).await?.ok_or(RegistryError::Away)
    }

    /// Takes the order to a node back.
    pub(crate) async fn delete_order(
        &self,
        node: &NodeId,
        deadline: Instant,
    ) -> Result<Revision, RegistryError> {
        let delete = Transaction::new().then(Operation::Delete(schema::lifecycle(node)));
        self.swap(delete, deadline).await?.ok_or(RegistryError::Away)
    }

    async fn swap(
        &self,
        transaction: Transaction,
        deadline: Instant,
    ) -> Result<Option<Revision>, RegistryError> {
        let committing = self.store.commit(transaction);
        let Committed { succeeded, revision, .. } =
            self.timed(RegistryOperation::Commit, deadline, committing).await?;
        if !succeeded {
            self.metrics.shared().registry_cas_conflicts.inc();
        }
        Ok(succeeded.then_some(revision))
    }

    async fn timed<T>(
        &self,
        operation: RegistryOperation,
        deadline: Instant,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RegistryError> {
        let shared = self.metrics.shared();
        let timer = shared.registry_duration.get(operation).start_timer();
        let outcome = match tokio::time::timeout_at(deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.is_transient() => Err(RegistryError::Away),
            Ok(Err(StoreError::Closed)) | Err(_) => Err(RegistryError::Away),
            Ok(Err(error)) => Err(RegistryError::Refused(error)),
        };
        timer.observe_duration();
        if outcome.is_err() {
            shared.registry_errors.get(operation).inc();
        }
        outcome
    }
}

/// A room from its entries. A plan that cannot be read, or is for another
/// incarnation, counts as none.
fn found_room(spec: &Entry, plan: Option<&Entry>) -> Result<FoundRoom, RegistryError> {
    let record = RoomRecord::decode(&spec.value).map_err(RegistryError::Unreadable)?;
    let mut intended = IntendedRoom {
        spec: convert::spec_of_record(&record),
        create_revision: spec.create_revision.0,
        spec_revision: spec.mod_revision.0,
        plan: None,
        plan_revision: 0,
    };
    if let Some(entry) = plan {
        let plan = PlanRecord::decode(&entry.value).map_err(RegistryError::Unreadable)?;
        intended.set_plan(Some((convert::plan_of_record(plan), entry.mod_revision.0)));
    }
    Ok(FoundRoom { record, intended })
}

fn fenced(transaction: Transaction, fence: Option<&Fence>) -> Transaction {
    match fence {
        Some(fence) => transaction.fenced(fence),
        None => transaction,
    }
}

impl RoomReading {
    /// Epoch of the room's plan; 0 if it has none.
    pub(crate) fn epoch(&self) -> Epoch {
        self.room.as_ref().map_or(Epoch(0), |found| found.intended.epoch())
    }
}
