//! Follows the registry: every record of nodes, orders, rooms and plans goes
//! into the shared state as it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use headwater_registry::record::{LifecycleRecord, NodeRecord, PlanRecord, Record, RoomRecord};
use headwater_registry::schema::{self, Subject};
use headwater_registry::{Change, Entry, Key, Prefix, Watch, WatchEvent, WatchState};
use headwater_rpc::status::Chain;
use headwater_telemetry::{Condition, Metrics};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, View};
use crate::convert;
use crate::registry::Registry;

/// Follows until the token is cancelled. `condition` holds once all was heard
/// and while changes are heard as they happen.
pub(crate) async fn run(
    registry: Registry,
    cluster: Arc<Cluster>,
    condition: Condition,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut watch = Watch::start(registry.store(), Prefix::ALL);
    let mut states = watch.state();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = watch.next() => {
                take(&cluster, event);
                note_state(*states.borrow(), &cluster, &condition);
            }
            changed = states.changed() => {
                let state = *states.borrow_and_update();
                if changed.is_err() {
                    return;
                }
                if state == WatchState::Interrupted {
                    metrics.shared().registry_watch_restarts.inc();
                }
                note_state(state, &cluster, &condition);
            }
        }
    }
}

fn note_state(state: WatchState, cluster: &Cluster, condition: &Condition) {
    let following = state == WatchState::Following;
    cluster.set_following(following, Instant::now());
    if following && cluster.is_synced() {
        condition.hold();
    } else if cluster.is_synced() {
        condition.fail("the registry cannot be heard");
    }
}

fn take(cluster: &Cluster, event: WatchEvent) {
    match event {
        WatchEvent::Snapshot(snapshot) => cluster.apply(snapshot.revision, |view| {
            snapshot.entries.iter().for_each(|entry| put(view, entry));
        }),
        WatchEvent::Changes(changes) => cluster.apply(changes.revision, |view| {
            // A key may change more than once; only its last state counts, and
            // taking in the others would tear apart what belongs together.
            let mut last: BTreeMap<&Key, &Change> = BTreeMap::new();
            for change in &changes.changes {
                last.insert(change.key(), change);
            }
            for change in last.into_values() {
                match change {
                    Change::Put(entry) => put(view, entry),
                    Change::Deleted { key, .. } => delete(view, key),
                }
            }
        }),
    }
}

fn put(view: &mut View<'_>, entry: &Entry) {
    match schema::subject(&entry.key) {
        Some(Subject::Node(_)) => {
            if let Some(record) = read::<NodeRecord>(entry) {
                view.set_node(record);
            }
        }
        Some(Subject::Lifecycle(node)) => {
            if let Some(record) = read::<LifecycleRecord>(entry) {
                view.set_order(&node, Some(record));
            }
        }
        Some(Subject::RoomSpec(room)) => {
            if let Some(record) = read::<RoomRecord>(entry) {
                let spec = convert::spec_of_record(&record);
                let (created, changed) = (entry.create_revision.0, entry.mod_revision.0);
                view.state().set_spec(room, spec, created, changed);
            }
        }
        Some(Subject::RoomPlan(room)) => {
            if let Some(record) = read::<PlanRecord>(entry) {
                let plan = convert::plan_of_record(record);
                view.set_plan(room, plan, entry.mod_revision.0);
            }
        }
        Some(Subject::Leader(_)) | None => {}
    }
}

fn delete(view: &mut View<'_>, key: &Key) {
    match schema::subject(key) {
        Some(Subject::Node(node)) => view.state().remove_node(&node),
        Some(Subject::Lifecycle(node)) => view.set_order(&node, None),
        Some(Subject::RoomSpec(room)) => view.state().remove_spec(&room),
        Some(Subject::RoomPlan(room)) => view.state().remove_plan(&room),
        Some(Subject::Leader(_)) | None => {}
    }
}

/// Reads a record. One that cannot be read is left as it was known before: a
/// newer replica wrote it, and it knows better what to do with it.
fn read<R: Record>(entry: &Entry) -> Option<R> {
    R::decode(&entry.value)
        .inspect_err(|error| {
            tracing::warn!(key = %entry.key, error = %Chain(error), "record left out");
        })
        .ok()
}
