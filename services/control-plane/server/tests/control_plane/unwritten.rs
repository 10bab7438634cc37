//! What never reaches the registry: participants, subscriptions, load. A join is
//! no write; only rooms and plans are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_control_plane::Config;
use headwater_proto::control::v1::{Admission, PlaceParticipantRequest};
use headwater_registry::schema::{self, Subject};
use headwater_registry::{Prefix, Store as _};

use crate::support::bench::place_request;
use crate::support::{Bench, eventually};

impl Bench {
    /// Places somebody and has its node take it in, as a gateway would.
    async fn arrive(&self, replica: usize, room: &str, identity: &str) {
        let request =
            PlaceParticipantRequest { identity: identity.to_owned(), ..place_request(room) };
        let placed = self.place_as(replica, request).await;
        assert_eq!(placed.admission(), Admission::Admitted);
        let node = self.node(&placed.node_id);
        eventually("the node carries it", || async { node.carries(room) }).await;
        node.join(room, identity, &["camera", "microphone"]);
    }

    /// Every key there is by its kind, none of which may name anybody.
    async fn kept(&self) -> BTreeMap<&'static str, usize> {
        let mut kinds = BTreeMap::new();
        for entry in self.store.list(&Prefix::ALL).await.unwrap().entries {
            let kind = match schema::subject(&entry.key) {
                Some(Subject::Node(_)) => "node",
                Some(Subject::Lifecycle(_)) => "lifecycle",
                Some(Subject::RoomSpec(_)) => "spec",
                Some(Subject::RoomPlan(_)) => "plan",
                Some(Subject::Leader(_)) => "leader",
                None => panic!("{} is no key of ours", entry.key),
            };
            *kinds.entry(kind).or_default() += 1;
            let value = String::from_utf8_lossy(&entry.value).into_owned();
            for word in ["person-", "camera", "microphone", "participant_count", "busiest"] {
                assert!(!value.contains(word), "{} holds {word}: {value}", entry.key);
            }
        }
        kinds
    }
}

#[tokio::test]
async fn five_hundred_joins_to_live_rooms_write_nothing() {
    let bench = Bench::start(2, &["a", "b"]).await;
    for room in 0..10 {
        bench.arrive(room % 2, &format!("r{room}"), "person-first").await;
    }
    // What the first joins made is written by now; nothing more may come.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = bench.store.revision().await.unwrap();
    let begun = Instant::now();
    for number in 0..500 {
        let room = format!("r{}", number % 10);
        bench.arrive(number % 2, &room, &format!("person-{number}")).await;
    }
    // Several reports of everybody, as load and as rooms.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writes = bench.store.revision().await.unwrap().0 - before.0;
    println!("500 joins and their reports in {:?}: {writes} writes", begun.elapsed());
    assert_eq!(writes, 0);
    let kept = bench.kept().await;
    assert_eq!((kept["node"], kept["spec"], kept["plan"]), (2, 10, 10), "{kept:?}");
    assert_eq!(kept.len() - usize::from(kept.contains_key("leader")), 3, "{kept:?}");
}

#[tokio::test]
async fn a_room_that_grows_under_load_writes_plans_and_nothing_else() {
    let mut bench = Bench::relaying(&["a", "b", "c"]).await;
    bench.add_replica(Config { shard_participants: 4, ..Config::default() }).await;
    bench.all_met().await;
    bench.arrive(0, "plaza", "person-first").await;
    let (before, begun) = (bench.store.revision().await.unwrap(), Instant::now());
    for number in 0..60 {
        bench.arrive(number % 2, "plaza", &format!("person-{number}")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("it has grown", || async {
        bench.get(0, "plaza").await.unwrap().plan.unwrap().shards.len() > 3
    })
    .await;
    let writes = bench.store.revision().await.unwrap().0 - before.0;
    let seconds = begun.elapsed().as_secs_f64();
    println!("60 joins in {seconds:.1} s: {writes} plans, {:.2} writes/s", writes as f64 / seconds);
    // A plan rests for two seconds before load may change it again.
    assert!(writes >= 1 && writes as f64 <= seconds / 2.0 + 2.0, "{writes} in {seconds} s");
    let kept = bench.kept().await;
    assert_eq!((kept["node"], kept["spec"], kept["plan"]), (3, 1, 1), "{kept:?}");
}
