//! When a node that others miss is given up, and when not.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A replica's view of nodes `a`, `b` and `c`.
struct World {
    now: Instant,
    belief: Belief,
    sights: BTreeMap<NodeId, Sight>,
}

impl World {
    fn new() -> Self {
        let now = origin() + 100 * SECOND;
        let sights = ["a", "b", "c"].map(|name| (node(name), Sight::Reported(now)));
        Self { now, belief: Belief::default(), sights: sights.into() }
    }

    /// Time passes in which these nodes report.
    fn pass(&mut self, time: Duration, reporting: &[&str]) {
        self.now += time;
        for name in reporting {
            self.sights.insert(node(name), Sight::Reported(self.now));
            self.belief.handle_report(&node(name));
        }
    }

    fn accuse(&mut self, suspect: &str, witness: &str) {
        self.belief.handle_witness(self.now, &node(suspect), Witness::Node(node(witness)));
    }

    fn questions(&mut self) -> Vec<NodeId> {
        let sights = self.sights.clone();
        self.belief.questions(self.now, |node| sights.get(node).copied().unwrap_or(Sight::Unknown))
    }
}

#[test]
fn a_killed_node_is_given_up_on_a_neighbours_word_a_broken_stream_and_no_answer() {
    let mut world = World::new();
    world.sights.insert(node("a"), Sight::Lost);
    assert!(world.questions().is_empty(), "a broken stream alone is no reason");
    world.accuse("a", "b");
    assert_eq!(world.questions(), [node("a")]);
    assert!(world.questions().is_empty(), "it is asked once at a time");
    assert!(world.belief.given_up().is_empty());
    assert!(world.belief.handle_answer(&node("a"), false));
    assert_eq!(world.belief.given_up(), [node("a")].into());
    // It stays so until it reports again, whoever still complains.
    world.pass(60 * SECOND, &["b", "c"]);
    assert!(world.questions().is_empty());
    assert_eq!(world.belief.given_up(), [node("a")].into());
    assert!(world.belief.handle_report(&node("a")));
    assert!(world.belief.given_up().is_empty());
}

#[test]
fn no_number_of_neighbours_gives_up_a_node_that_reports() {
    // A partition between a and the two others, seen from a replica that reaches all.
    let mut world = World::new();
    for _ in 0..30 {
        world.pass(SECOND, &["a", "b", "c"]);
        world.accuse("a", "b");
        world.accuse("a", "c");
        world.accuse("b", "a");
        world.accuse("c", "a");
        world.belief.handle_witness(world.now, &node("a"), Witness::Gateway);
        assert!(world.questions().is_empty());
    }
}

#[test]
fn a_replica_cut_off_from_a_node_gives_nothing_up_on_its_own() {
    let mut world = World::new();
    world.sights.insert(node("a"), Sight::Lost);
    for _ in 0..30 {
        world.pass(SECOND, &["b", "c"]);
        assert!(world.questions().is_empty());
    }
}

#[test]
fn who_is_cut_off_from_everything_is_no_witness() {
    // The replica and node a are on one side, b and c on the other; a is not heard of.
    let mut world = World::new();
    for name in ["a", "b"] {
        world.sights.insert(node(name), Sight::Lost);
    }
    world.accuse("b", "a");
    assert!(world.questions().is_empty());
    // Nobody is a witness against itself.
    world.accuse("b", "b");
    assert!(world.questions().is_empty());
}

#[test]
fn a_frozen_node_is_asked_only_after_two_missing_reports() {
    let mut world = World::new();
    world.pass(SECOND, &["b", "c"]);
    world.accuse("a", "b");
    assert!(world.questions().is_empty(), "a second is a stall, not a death");
    world.pass(SECOND, &["b", "c"]);
    world.accuse("a", "b");
    assert_eq!(world.questions(), [node("a")]);
}

#[test]
fn an_answer_clears_a_node_until_somebody_complains_anew() {
    let mut world = World::new();
    world.sights.insert(node("a"), Sight::Lost);
    world.accuse("a", "b");
    assert_eq!(world.questions(), [node("a")]);
    assert!(!world.belief.handle_answer(&node("a"), true));
    assert!(world.questions().is_empty());
    world.accuse("a", "b");
    assert_eq!(world.questions(), [node("a")]);
    // A report while it is asked weighs more than the missing answer.
    world.belief.handle_report(&node("a"));
    assert!(!world.belief.handle_answer(&node("a"), false));
    assert!(world.belief.given_up().is_empty());
}

#[test]
fn words_grow_old_and_do_not_add_up_without_bound() {
    let mut world = World::new();
    world.accuse("a", "b");
    world.pass(WITNESS_HOLDS, &["b", "c"]);
    world.sights.insert(node("a"), Sight::Lost);
    assert!(world.questions().is_empty());
    assert!(world.belief.cases.is_empty(), "what is old is forgotten");
    for number in 0..100 {
        world.accuse("a", &format!("n{number}"));
    }
    assert_eq!(world.belief.cases[&node("a")].witnesses.len(), WITNESSES_MAX);
    world.belief.keep_only(|it| *it != node("a"));
    assert!(world.belief.cases.is_empty());
}
