//! Worlds with the real transports: ICE, DTLS, SRTP and data channels on a bad network.

use std::time::{Duration, Instant};

use headwater_sfu::SfuConfig;
use headwater_sim::{Access, PeerId, PublisherConfig, SubscriberConfig, Time, Weather, World};

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

/// A publisher and a subscriber on the same weather.
fn pair(seed: u64, weather: Weather) -> (World, PeerId, PeerId) {
    let mut world = World::new(seed, origin());
    world.use_transports();
    let node = world.add_node(SfuConfig::default());
    let access = Access::both(weather);
    let publisher = world.add_publisher(node, PublisherConfig::default(), access);
    let subscriber = world.add_subscriber(node, SubscriberConfig::default(), access);
    world.subscribe(subscriber, publisher);
    (world, publisher, subscriber)
}

fn connected(world: &World, who: PeerId) -> Option<Time> {
    let seal = world.seal(who).expect("the world has transports");
    assert_eq!(seal.failed, None);
    seal.node_connected.max(seal.peer_connected).filter(|_| seal.node_connected.is_some())
}

#[test]
fn handshakes_survive_thirty_percent_loss_in_both_directions() {
    for seed in 1..=10 {
        let (mut world, publisher, subscriber) =
            pair(seed, Weather::CLEAR.delay(50).loss_percent(30.0));
        world.run_until(Time::from_secs(14));
        for who in [publisher, subscriber] {
            assert!(connected(&world, who).is_some(), "seed {seed}: {:?}", world.seal(who));
        }
    }
}

#[test]
fn sealed_media_is_seen_and_heard_over_a_lossy_network() {
    let (mut world, publisher, subscriber) = pair(3, Weather::CLEAR.delay(20).loss_percent(2.0));
    world.run_until(Time::from_secs(20));
    assert!(connected(&world, publisher).unwrap() < Time::from_secs(3));
    let report = world.subscriber(subscriber).unwrap().report();
    assert!(report.video[0].frames > 15 * 27, "{}", report.video[0].frames);
    assert!(report.audio[0].played > 15 * 45);
    assert!(report.audio[0].concealment() < 0.1, "{:?}", report.audio[0]);
    let stats = world.up(subscriber);
    assert!(stats.offered > 100, "feedback goes up");
}

#[test]
fn repeated_datagrams_are_opened_once() {
    let weather = Weather { duplicates: 1.0, ..Weather::CLEAR.delay(10) };
    let (mut world, _, subscriber) = pair(1, weather);
    world.run_until(Time::from_secs(5));
    let packets = world.subscriber(subscriber).unwrap().report().packets;
    let refused = world.seal(subscriber).unwrap().refused;
    let delivered = world.down(subscriber).delivered;
    assert!(packets > 500, "{packets}");
    assert!(refused >= packets, "{refused} of {delivered} were refused");
}

#[test]
fn messages_of_a_reliable_channel_all_arrive_in_order() {
    let weather = Weather::CLEAR.delay(30).loss_percent(10.0);
    let (mut world, _, subscriber) = pair(2, weather);
    world.run_until(Time::from_secs(8));
    connected(&world, subscriber).unwrap();
    let channel = world.open_channel(subscriber, "chat").unwrap();
    world.run_for(Duration::from_secs(2));
    let sent: Vec<Vec<u8>> = (0..50_u8).map(|number| vec![number; 2_000]).collect();
    for message in &sent {
        assert!(world.send_message(subscriber, channel, message));
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.seal(subscriber).unwrap().messages, sent);
}
