//! What must hold whatever breaks. The names are those of the design's list:
//!
//! - **I1** one plan for each room and epoch, and epochs only rise: asked of every
//!   control plane four times a second for as long as a stage stands.
//! - **I2** watchers miss nothing and hear nothing twice: within 10 s of mending
//!   every control plane, which only watches, tells the same of every room. (That
//!   no change is lost on the way is the registry's own conformance suite, with
//!   members of etcd killed and frozen.)
//! - **I3** nothing of one room is heard in another: each beat names its room.
//! - **I4** nothing is heard twice: each beat has a number. (What a client gets of
//!   sequence numbers is a test of `headwater-sfu` and of the load generator.)
//! - **I6** what plans say is what nodes carry: within a minute of mending there are
//!   as many rooms and participants on nodes as there are people.
//! - **I7** a request id makes a repeat harmless: a room asked for before the fault
//!   and once more after it, of another control plane, is the same room.
//! - **I8** no room is left over that nobody asked for.
//!
//! I5, that no SRTP index is used twice with a key, cannot be seen from outside: it
//! is a test of `headwater-transport`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_proto::v1::Room;

use super::{PREFIX, ROOMS};
use crate::api::{self, Planned};
use crate::audience::Report;
use crate::cluster::{Cluster, Role, wait};

/// Between two looks at what control planes say.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// What the parts of a cluster say is the same again within this after mending.
pub(super) const AGREE_LIMIT: Duration = Duration::from_secs(10);
/// Plans that are remembered; a stage sees some dozens.
const PLANS_MAX: usize = 100_000;

/// Every plan that was seen, and what was wrong with them.
#[derive(Debug, Default)]
struct Plans {
    /// By room (name and uid) and epoch.
    seen: BTreeMap<(String, u64), Vec<Planned>>,
    /// Last epoch of a room that each control plane told.
    told: BTreeMap<(usize, String), u64>,
    wrong: Vec<String>,
}

impl Plans {
    /// Takes in what one control plane says of a room.
    fn note(&mut self, who: usize, room: &Room) {
        let Some(plan) = &room.plan else { return };
        let key = format!("{} {}", room.name, room.uid);
        let shards = api::planned(room);
        let last = self.told.insert((who, key.clone()), plan.epoch).unwrap_or(0);
        if plan.epoch < last {
            self.wrong.push(format!("I1: {key} fell from epoch {last} to {}", plan.epoch));
        }
        let known = self.seen.entry((key.clone(), plan.epoch)).or_insert_with(|| shards.clone());
        if *known != shards {
            self.wrong.push(format!("I1: {key} has two plans of epoch {}", plan.epoch));
        }
        while self.seen.len() > PLANS_MAX {
            self.seen.pop_first();
        }
    }
}

/// Looks at what control planes say until it is dropped.
pub(super) struct Watch {
    plans: Arc<Mutex<Plans>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let urls: Vec<String> = cluster.control_planes.iter().map(Role::rpc_url).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (plans, stop) = (Arc::<Mutex<Plans>>::default(), Arc::<AtomicBool>::default());
        let (noting, stopping) = (Arc::clone(&plans), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                while !stopping.load(Ordering::Relaxed) {
                    for (who, url) in urls.iter().enumerate() {
                        // One that is killed says nothing, and begins anew later.
                        match api::list_rooms(url).await {
                            Ok(rooms) => {
                                let mut plans =
                                    noting.lock().unwrap_or_else(PoisonError::into_inner);
                                rooms.iter().for_each(|room| plans.note(who, room));
                            }
                            Err(_) => noting
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .told
                                .retain(|(other, _), _| *other != who),
                        }
                    }
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
            });
        });
        Ok(Self { plans, stop, thread: Some(thread) })
    }

    /// # Errors
    /// If I1 was broken.
    pub fn check(&self) -> Result<()> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(plans.wrong.is_empty(), "{:?}", plans.wrong);
        ensure!(plans.seen.len() >= ROOMS, "plans of only {} rooms were seen", plans.seen.len());
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// I3 and I4.
pub(super) fn check_heard(reports: &[Report]) -> Result<()> {
    for report in reports {
        ensure!(
            report.strays == 0,
            "I3: {} of {} hears another room",
            report.identity,
            report.room
        );
        ensure!(report.twice == 0, "I4: {} of {} hears twice", report.identity, report.room);
    }
    Ok(())
}

/// I2, I8: every control plane tells of the same rooms with the same plans, and
/// there are no others.
pub(super) fn check_agreement(cluster: &Cluster) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    wait("I2, I8: every control plane tells the same", AGREE_LIMIT, || {
        let told: Vec<_> = cluster
            .control_planes
            .iter()
            .map(|role| {
                let rooms = runtime.block_on(api::list_rooms(&role.rpc_url()));
                rooms.map(|rooms| rooms.iter().map(told_of).collect::<Vec<_>>()).ok()
            })
            .collect();
        let first = told.first().cloned().flatten();
        let same = first.is_some() && told.iter().all(|other| *other == first);
        let all = first.is_some_and(|rooms| rooms.len() == ROOMS);
        (same && all, format!("{told:?}"))
    })
}

fn told_of(room: &Room) -> (String, String, u64, Vec<Planned>) {
    let epoch = room.plan.as_ref().map_or(0, |plan| plan.epoch);
    (room.name.clone(), room.uid.clone(), epoch, api::planned(room))
}

/// A room that is asked for twice, for I7.
pub(super) struct Probe {
    room: String,
    request: String,
    uid: String,
}

impl Probe {
    /// Asks for it the first time.
    pub fn ask(cluster: &Cluster, run: usize) -> Result<Self> {
        let room = format!("{PREFIX}-probe-{run}");
        let request = format!("00000000-0000-4000-8000-{run:012}");
        let role = cluster.control_planes.first().context("there is no control plane")?;
        let uid = api::create_room(role, &room, &request)?;
        Ok(Self { room, request, uid })
    }

    /// Asks another control plane once more, and ends the room.
    pub fn repeat(self, cluster: &Cluster) -> Result<()> {
        let role = cluster.control_planes.last().context("there is no control plane")?;
        let mut uid = String::new();
        wait("I7: a call is repeated", AGREE_LIMIT, || {
            match api::create_room(role, &self.room, &self.request) {
                Ok(answer) => {
                    uid = answer;
                    (true, String::new())
                }
                Err(error) => (false, format!("{error:#}")),
            }
        })?;
        ensure!(uid == self.uid, "I7: a repeated call made another room");
        wait("a room ends", AGREE_LIMIT, || {
            let ended = api::delete_room(role, &self.room);
            (ended.is_ok(), format!("{ended:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use headwater_proto::v1::{PlannedShard, RoomPlan};

    use super::*;

    fn room(uid: &str, epoch: u64, node: &str) -> Room {
        let shard = PlannedShard { node: format!("nodes/{node}"), ..PlannedShard::default() };
        let plan = Some(RoomPlan { epoch, shards: vec![shard] });
        Room { name: "rooms/a".to_owned(), uid: uid.to_owned(), plan, ..Room::default() }
    }

    fn wrong(told: &[(usize, Room)]) -> usize {
        let mut plans = Plans::default();
        told.iter().for_each(|(who, room)| plans.note(*who, room));
        plans.wrong.len()
    }

    #[test]
    fn two_plans_of_one_epoch_and_an_epoch_that_falls_are_noticed() {
        assert_eq!(wrong(&[(0, room("x", 1, "n1")), (1, room("x", 1, "n1"))]), 0);
        assert_eq!(wrong(&[(0, room("x", 1, "n1")), (1, room("x", 1, "n2"))]), 1);
        // A control plane may be behind another one, but not behind itself.
        let rising = [(0, room("x", 2, "n1")), (1, room("x", 1, "n2")), (1, room("x", 2, "n1"))];
        assert_eq!(wrong(&rising), 0);
        assert_eq!(wrong(&[(0, room("x", 2, "n1")), (0, room("x", 1, "n2"))]), 1);
        // Another room of the same name begins anew.
        assert_eq!(wrong(&[(0, room("x", 2, "n1")), (0, room("y", 1, "n2"))]), 0);
    }
}
