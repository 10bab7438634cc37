//! The loop of the elected replica: moves rooms off dead nodes and ends empty
//! ones. Every write carries the election's fence.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use headwater_control_core::{Action, Cause, Plan, Planned};
use headwater_model::RoomId;
use headwater_registry::{Election, Fence, Leadership};
use headwater_rpc::status::Chain;
use headwater_telemetry::Metrics;
use headwater_telemetry::metrics::{PlanReason, RoomEnd};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::participants::Participants;
use crate::registry::{PATIENCE, Registry, RegistryError};

/// How often the loop looks without any change.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks: changes come in bursts.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Actions carried out at once.
const ACTIONS_AT_ONCE: usize = 8;
/// How long after a leader fell silent another one takes over, at least. Being
/// without one delays clean-up and nothing else.
pub(crate) const ELECTION_TTL: Duration = Duration::from_secs(10);

/// The planner of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Planner {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) registry: Registry,
    pub(crate) participants: Participants,
    pub(crate) metrics: Metrics,
    pub(crate) region: String,
}

impl Planner {
    /// Stands for election, and works while elected, until the token is cancelled.
    pub(crate) async fn run(self, election: Election, name: String, stop: CancellationToken) {
        loop {
            let leadership = tokio::select! {
                () = stop.cancelled() => return,
                leadership = election.campaign(name.clone()) => leadership,
            };
            let metrics = self.metrics.control_plane();
            metrics.elected.set(1);
            self.work(&leadership, &stop).await;
            metrics.elected.set(0);
            if leadership.is_held() {
                leadership.resign().await;
            }
        }
    }

    async fn work(&self, leadership: &Leadership, stop: &CancellationToken) {
        let mut version = self.cluster.version();
        let mut said = Said::default();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.lost() => return,
                () = next_look(&mut version, &mut looks) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.lost() => return,
                () = self.look(leadership.fence(), &mut said) => {}
            }
        }
    }

    /// Looks at everything once and does what is due.
    async fn look(&self, fence: &Fence, said: &mut Said) {
        let planned = {
            let (now, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
            self.cluster.plan(now, wall, &self.region, rand::random())
        };
        said.note(&planned);
        futures::stream::iter(planned.actions)
            .for_each_concurrent(ACTIONS_AT_ONCE, |action| self.act(fence, action))
            .await;
    }

    async fn act(&self, fence: &Fence, action: Action) {
        let (room, outcome) = match action {
            Action::WritePlan { room, plan, cause } => {
                let outcome = self.write_plan(fence, &room, &plan, cause).await;
                (room, outcome)
            }
            Action::EndRoom { room, node: _ } => {
                let outcome = self.end_room(fence, &room).await;
                (room, outcome)
            }
        };
        match outcome {
            Ok(()) => {}
            // The next look tries again; the watch has said that it is away.
            Err(RegistryError::Away) => {
                tracing::debug!(room = %room, "not planned, the registry is away");
            }
            Err(error) => {
                tracing::warn!(room = %room, error = %Chain(&error), "room not planned");
            }
        }
    }

    /// Writes a plan, unless the room is not as it was looked at.
    async fn write_plan(
        &self,
        fence: &Fence,
        room: &RoomId,
        plan: &Plan,
        cause: Cause,
    ) -> Result<(), RegistryError> {
        let deadline = Instant::now() + PATIENCE;
        let reading = self.registry.read_room(room, deadline).await?;
        let Some(found) = &reading.room else {
            return Ok(());
        };
        let same = found.intended.spec.uid == plan.room_uid && reading.epoch() < plan.epoch;
        let looked_at = self.cluster.room(room).map(|room| room.plan_revision);
        if !same || looked_at != Some(found.intended.plan_revision) {
            return Ok(());
        }
        let written =
            self.registry.write_plan(&reading, found, plan, Some(fence), deadline).await?;
        if written.is_some() {
            let reason = match cause {
                Cause::FirstUse => PlanReason::FirstUse,
                Cause::NodeGone => PlanReason::NodeGone,
                Cause::Drain => PlanReason::Drain,
                Cause::Size => PlanReason::Size,
                Cause::Balance => PlanReason::Balance,
            };
            self.cluster.note_planned(room, std::time::Instant::now());
            self.metrics.control_plane().plans.get(reason).inc();
            tracing::info!(room = %room, epoch = %plan.epoch, ?reason, "room planned");
        }
        Ok(())
    }

    /// Ends a room, if its nodes confirm that nobody is there and nobody is on
    /// the way.
    async fn end_room(&self, fence: &Fence, room: &RoomId) -> Result<(), RegistryError> {
        let Some(looked_at) = self.cluster.room(room) else {
            return Ok(());
        };
        let deadline = Instant::now() + PATIENCE;
        let reading = self.registry.read_room(room, deadline).await?;
        let Some(found) = &reading.room else {
            return Ok(());
        };
        if found.intended != looked_at || self.is_in_use(room).await {
            return Ok(());
        }
        let end = if self.cluster.was_joined(room, &looked_at) {
            RoomEnd::Empty
        } else {
            RoomEnd::NeverUsed
        };
        let deleted = self.registry.delete_room(&reading, found, Some(fence), deadline).await?;
        if deleted.is_some() {
            self.metrics.control_plane().rooms_ended.get(end).inc();
            tracing::info!(room = %room, reason = ?end, "room ended");
        }
        Ok(())
    }

    async fn is_in_use(&self, room: &RoomId) -> bool {
        let empty = self.participants.list(room).await.is_ok_and(|them| them.is_empty());
        !empty || self.cluster.is_awaited(room, std::time::Instant::now())
    }
}

/// What the log has been told, so that it is told once.
#[derive(Debug, Default)]
struct Said {
    withheld: bool,
    unplaceable: bool,
    stuck: bool,
    missing: bool,
}

impl Said {
    fn note(&mut self, planned: &Planned) {
        let withheld = planned.withheld > 0;
        if withheld && !self.withheld {
            let rooms = planned.withheld;
            tracing::warn!(rooms, "too many nodes vanished at once, their rooms stay");
        }
        let unplaceable = planned.unplaceable > 0;
        if unplaceable && !self.unplaceable {
            tracing::warn!(rooms = planned.unplaceable, "no media node can take these rooms");
        }
        let stuck = planned.stuck > 0;
        if stuck && !self.stuck {
            tracing::warn!(rooms = planned.stuck, "no other media node can take what is drained");
        }
        let missing = planned.missing_shards > 0;
        if missing && !self.missing {
            tracing::warn!(
                shards = planned.missing_shards,
                "rooms need more shards than there are"
            );
        }
        *self = Self { withheld, unplaceable, stuck, missing };
    }
}

/// Waits for a change, or for the timer; then a little, for what else comes.
async fn next_look(version: &mut watch::Receiver<u64>, looks: &mut tokio::time::Interval) {
    tokio::select! {
        // The sender lives as long as the cluster; should it end, the timer goes on.
        changed = version.changed() => if changed.is_err() {
            looks.tick().await;
        },
        _ = looks.tick() => {}
    }
    sleep(LOOK_PAUSE).await;
    version.mark_unchanged();
}
