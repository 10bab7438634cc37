//! A shard whose rooms end while links are on their way.

use std::sync::Mutex;

use headwater_model::{Epoch, NodeId, ShardIndex};
use headwater_sfu::SfuConfig;

use super::*;
use crate::plan::Peer;

/// Opens pipes and keeps their far ends.
struct Far(Arc<Mutex<Vec<Pipe>>>);

impl Dialer for Far {
    fn dial(&mut self, _: &Peer, wake: Wake) -> Option<Pipe> {
        let (near, far) = Pipe::pair(wake, Wake::new(|| {}));
        self.0.lock().unwrap().push(far);
        Some(near)
    }
}

fn address(node: &str) -> ShardAddress {
    ShardAddress { node: NodeId::new(node).unwrap(), shard: ShardIndex(0) }
}

fn child_of_home() -> PlanSlice {
    let home = Peer { address: address("home"), rank: 0, relay_address: None };
    PlanSlice { rank: 1, parent: Some(home), ..PlanSlice::alone(Epoch(3)) }
}

/// A room may end in the wake-up in which its plan came: then a way to the parent was
/// ordered that nobody wants any more.
#[test]
fn a_way_that_was_asked_for_by_a_room_that_ends_is_let_go() {
    #[expect(clippy::disallowed_methods, reason = "a first instant; only differences matter")]
    let now = Instant::now();
    let mut sfu = Sfu::new(SfuConfig::default(), 1, now);
    let far = Arc::new(Mutex::new(Vec::new()));
    let config = ShardRelayConfig {
        me: address("me"),
        boot: 1,
        dialer: Box::new(Far(Arc::clone(&far))),
        inbox: Inbox::new(Wake::new(|| {})),
        timing: Timing::default(),
    };
    let mut relay = ShardRelay::new(config, now);
    let room = RoomId::new("r").unwrap();
    assert!(relay.set_slice(now, &room, child_of_home()));
    relay.release(now, &room, &mut sfu);
    assert!(relay.carriers.is_empty());
    far.lock().unwrap().clear();
    relay.receive(now, &mut sfu);
}
