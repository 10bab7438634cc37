//! A node that dies, stands still or is asked to stop: its people come back on
//! another one by themselves, and nobody else notices.

use headwater_e2e::chaos::{FAULTS, Scene};

/// Well above what is measured (docs/reliability.md) and below what a client
/// would need that had to find out by itself.
const SILENCE_MAX: u64 = 10_000;

fn play(id: &str) {
    let fault = FAULTS.iter().find(|fault| fault.id == id).unwrap();
    if let Some(obstacle) = fault.stage.obstacle() {
        println!("skipped: {obstacle}");
        return;
    }
    let mut scene = Scene::start(fault.stage).unwrap();
    let run = scene.play(fault, 1).unwrap();
    println!("{}: {run:?}", fault.title);
    let mut touched = run.hit.iter().chain(&run.listeners).peekable();
    assert!(touched.peek().is_some(), "{run:?}");
    assert!(touched.all(|silence| *silence < SILENCE_MAX), "{run:?}");
    assert!(run.others.iter().all(|silence| *silence < 1_000), "{run:?}");
    assert_eq!(scene.complaints(), Vec::<String>::new());
}

#[test]
fn people_of_a_killed_node_come_back_on_another() {
    play("node-killed");
}

#[test]
fn people_of_a_frozen_node_come_back_on_another() {
    play("node-frozen");
}

#[test]
fn a_node_that_is_asked_to_stop_moves_its_people_first() {
    play("node-stopped");
}

#[test]
fn people_of_rooms_on_two_nodes_survive_the_death_of_one() {
    play("spanning-killed");
}
