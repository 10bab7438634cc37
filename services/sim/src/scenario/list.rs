//! The list of scenarios.

use std::time::Duration;

use super::{Redundancy, Scenario};
use crate::{Access, Loss, Order, Time, Weather};

/// The way to a subscriber not far away, without trouble.
const NEAR: Weather = Weather::CLEAR.delay(20);

/// All scenarios, in the order of the table.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut list = losses();
    list.extend(distances());
    list.extend(redundancy());
    list.extend(disorder());
    list.extend(narrow());
    list.extend(company());
    list
}

fn both(name: &'static str, about: &'static str, weather: Weather) -> Scenario {
    Scenario::new(name, about, Access::both(weather))
}

fn losses() -> Vec<Scenario> {
    let even = |name, about, percent| both(name, about, NEAR.loss_percent(percent));
    vec![
        even("clear", "20 ms each way", 0.0),
        even("loss-1", "1 % loss, 20 ms each way", 1.0),
        even("loss-2", "2 % loss, 20 ms each way", 2.0),
        even("loss-5", "5 % loss, 20 ms each way", 5.0),
        even("loss-10", "10 % loss, 20 ms each way", 10.0),
        even("loss-20", "20 % loss, 20 ms each way", 20.0),
        even("loss-30", "30 % loss, 20 ms each way", 30.0),
        both("bursts-2", "2 % loss in bursts of 5", NEAR.loss(Loss::bursts(0.02, 5.0))),
        both("bursts-5", "5 % loss in bursts of 5", NEAR.loss(Loss::bursts(0.05, 5.0))),
        Scenario {
            publisher: Access::both(NEAR.loss_percent(5.0)),
            ..both("uplink-loss-5", "5 % loss at the publisher", NEAR)
        },
        Scenario {
            publisher: Access::both(NEAR.loss_percent(20.0)),
            ..both("uplink-loss-20", "20 % loss at the publisher", NEAR)
        },
    ]
}

fn distances() -> Vec<Scenario> {
    let far = Weather::CLEAR.delay(100);
    vec![
        both("delay-100", "100 ms each way", far),
        both("delay-200", "200 ms each way", Weather::CLEAR.delay(200)),
        both("loss-2-delay-100", "2 % loss, 100 ms each way", far.loss_percent(2.0)),
        both("loss-5-delay-100", "5 % loss, 100 ms each way", far.loss_percent(5.0)),
        both(
            "loss-5-delay-200",
            "5 % loss, 200 ms each way",
            Weather::CLEAR.delay(200).loss_percent(5.0),
        ),
    ]
}

/// Sound from far away over lossy ways, with redundancy and without. Without it and 5 %
/// loss there is a run among the distances.
fn redundancy() -> Vec<Scenario> {
    let far = Weather::CLEAR.delay(100);
    let to_the_node = Scenario {
        publisher: Access::both(far.loss_percent(5.0)),
        ..both("uplink-loss-5-far", "5 % loss, 100 ms each way at the publisher", NEAR)
    };
    vec![
        Scenario {
            redundancy: Redundancy::EndToEnd,
            ..both("red-5", "5 % loss, 100 ms each way, RED", far.loss_percent(5.0))
        },
        both("loss-10-delay-100", "10 % loss, 100 ms each way", far.loss_percent(10.0)),
        Scenario {
            redundancy: Redundancy::EndToEnd,
            ..both("red-10", "10 % loss, 100 ms each way, RED", far.loss_percent(10.0))
        },
        to_the_node.clone(),
        Scenario {
            name: "uplink-red-5-far",
            about: "5 % loss, 100 ms each way at the publisher, RED to the node",
            redundancy: Redundancy::ToTheNode,
            ..to_the_node
        },
    ]
}

fn disorder() -> Vec<Scenario> {
    vec![
        both("jitter-30", "±30 ms jitter, in order", NEAR.jitter(30, Order::Kept)),
        both("reorder-30", "±30 ms jitter, out of order", NEAR.jitter(30, Order::Mixed)),
        both(
            "jitter-30-loss-2",
            "±30 ms jitter and 2 % loss",
            NEAR.jitter(30, Order::Kept).loss_percent(2.0),
        ),
        both("duplicates", "10 % come twice", Weather { duplicates: 0.1, ..NEAR }),
    ]
}

fn narrow() -> Vec<Scenario> {
    let capped =
        |name, about, rate| Scenario::new(name, about, Access::down(NEAR.rate(rate).queue(300)));
    let wide = NEAR.rate(3_000_000).queue(300);
    vec![
        capped("cap-3000", "3 Mbit/s, queue of 300 ms", 3_000_000),
        capped("cap-1000", "1 Mbit/s, queue of 300 ms", 1_000_000),
        capped("cap-500", "500 kbit/s, queue of 300 ms", 500_000),
        capped("cap-250", "250 kbit/s, queue of 300 ms", 250_000),
        Scenario::new(
            "shallow-1000",
            "1 Mbit/s, queue of 80 ms",
            Access::down(NEAR.rate(1_000_000).queue(80)),
        ),
        Scenario {
            ends: Time::from_secs(90),
            changes: vec![(CUT, NEAR.rate(500_000).queue(300)), (RESTORED, wide)],
            ..Scenario::new("cut", "3 Mbit/s, 500 kbit/s, 3 Mbit/s", Access::down(wide))
        },
    ]
}

/// When the rate is cut.
pub(crate) const CUT: Time = Time::from_secs(30);
/// When it is back.
pub(crate) const RESTORED: Time = Time::from_secs(60);

fn company() -> Vec<Scenario> {
    vec![
        Scenario {
            others: 4,
            ..Scenario::new(
                "slow-among-fast",
                "500 kbit/s and 5 % loss next to four on clear ways",
                Access::down(NEAR.rate(500_000).queue(300).loss_percent(5.0)),
            )
        },
        Scenario {
            others: 100,
            joins: Time::ZERO.plus(Duration::from_millis(900)),
            ends: Time::from_secs(4),
            converged: Time::from_secs(1),
            ..Scenario::new(
                "late-joiner",
                "joins 100 others 0.9 s after the start",
                Access::both(Weather::CLEAR),
            )
        },
        Scenario {
            others: 100,
            joins: Time::ZERO.plus(Duration::from_millis(12_300)),
            ends: Time::from_secs(16),
            converged: Time::from_secs(13),
            ..Scenario::new(
                "latecomer",
                "joins 100 others 12 s after the start",
                Access::both(Weather::CLEAR),
            )
        },
    ]
}
