//! One direction of a way: queue, rate, loss, delay. It holds what waits for the rate; what
//! is on the way is handed out with the time of its arrival.

use std::collections::VecDeque;
use std::time::Duration;

use super::{LossState, Order, Weather};
use crate::time::micros;
use crate::{Random, Time};

/// Something arrives at the other end.
#[derive(Debug)]
pub struct Delivery<T> {
    /// When.
    pub at: Time,
    /// What.
    pub item: T,
}

#[derive(Debug)]
struct Waiting<T> {
    since: Time,
    size: usize,
    item: T,
}

/// What a link did. All counts are since the beginning.
#[derive(Debug, Clone, Default)]
pub struct LinkStats {
    /// Packets given to it.
    pub offered: u64,
    /// Packets lost on the way.
    pub lost: u64,
    /// Packets that the queue did not take.
    pub dropped: u64,
    /// Packets that arrived, repeated ones included.
    pub delivered: u64,
    /// Bytes given to it in each second, headers included; one entry a second.
    pub offered_bytes: Vec<u64>,
    /// Bytes that the rate let pass in each second.
    pub passed_bytes: Vec<u64>,
    /// The longest wait in the queue in each second.
    pub queue_delay: Vec<Duration>,
}

/// One direction of a way. Give packets to [`Link::send`]; when it returns a time, call
/// [`Link::serve`] then.
#[derive(Debug)]
pub struct Link<T> {
    weather: Weather,
    /// In order of time.
    schedule: VecDeque<(Time, Weather)>,
    random: Random,
    loss: LossState,
    /// Bounded by the weather's queue limit.
    queue: VecDeque<Waiting<T>>,
    queue_bytes: usize,
    last_arrival: Time,
    stats: LinkStats,
}

impl<T: Clone> Link<T> {
    /// A link with weather that does not change until it is told to.
    #[must_use]
    pub fn new(weather: Weather, random: Random) -> Self {
        Self {
            weather,
            schedule: VecDeque::new(),
            random,
            loss: LossState::default(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            last_arrival: Time::ZERO,
            stats: LinkStats::default(),
        }
    }

    /// The weather changes at a time, which must not be before one given earlier.
    pub fn change_at(&mut self, at: Time, weather: Weather) {
        self.schedule.push_back((at, weather));
    }

    /// The weather now, or at the last packet.
    #[must_use]
    pub fn weather(&self) -> &Weather {
        &self.weather
    }

    /// What it did.
    #[must_use]
    pub fn stats(&self) -> &LinkStats {
        &self.stats
    }

    /// A packet of `size` bytes, headers included. Appends what is on the way now. Returns
    /// when to call [`Link::serve`], if that was not known before.
    pub fn send(
        &mut self,
        now: Time,
        size: usize,
        item: T,
        out: &mut Vec<Delivery<T>>,
    ) -> Option<Time> {
        self.follow_schedule(now);
        self.stats.offered += 1;
        *at_second(&mut self.stats.offered_bytes, now) += size as u64;
        if self.weather.rate.is_none() && self.queue.is_empty() {
            self.pass(now, Waiting { since: now, size, item }, out);
            return None;
        }
        if !self.fits(size) {
            self.stats.dropped += 1;
            return None;
        }
        let idle = self.queue.is_empty();
        self.queue_bytes += size;
        self.queue.push_back(Waiting { since: now, size, item });
        idle.then(|| now.plus(self.airtime(size)))
    }

    /// The packet at the head of the queue has been sent. Returns when to call again.
    pub fn serve(&mut self, now: Time, out: &mut Vec<Delivery<T>>) -> Option<Time> {
        self.follow_schedule(now);
        let head = self.queue.pop_front()?;
        self.queue_bytes -= head.size;
        self.pass(now, head, out);
        self.queue.front().map(|next| now.plus(self.airtime(next.size)))
    }

    fn follow_schedule(&mut self, now: Time) {
        while let Some((at, weather)) = self.schedule.front().copied()
            && at <= now
        {
            self.weather = weather;
            self.schedule.pop_front();
        }
    }

    fn fits(&self, size: usize) -> bool {
        let bytes = self.queue_bytes + size;
        // An empty queue takes any packet, or a narrow link would take none.
        self.queue.is_empty()
            || (bytes <= self.weather.queue.bytes && self.airtime(bytes) <= self.weather.queue.time)
    }

    fn airtime(&self, bytes: usize) -> Duration {
        match self.weather.rate {
            Some(rate) => Duration::from_micros(bytes as u64 * 8_000_000 / rate.max(1)),
            None => Duration::ZERO,
        }
    }

    fn pass(&mut self, now: Time, packet: Waiting<T>, out: &mut Vec<Delivery<T>>) {
        *at_second(&mut self.stats.passed_bytes, now) += packet.size as u64;
        let longest = at_second(&mut self.stats.queue_delay, now);
        *longest = (*longest).max(now.since(packet.since));
        if self.loss.takes(self.weather.loss, &mut self.random) {
            self.stats.lost += 1;
            return;
        }
        if self.random.chance(self.weather.duplicates) {
            let at = self.arrival(now);
            self.deliver(at, packet.item.clone(), out);
        }
        let at = self.arrival(now);
        self.deliver(at, packet.item, out);
    }

    fn deliver(&mut self, at: Time, item: T, out: &mut Vec<Delivery<T>>) {
        self.stats.delivered += 1;
        out.push(Delivery { at, item });
    }

    fn arrival(&mut self, now: Time) -> Time {
        let late = self.random.below(2 * micros(self.weather.jitter) + 1);
        let at = now.plus(self.weather.delay).plus(Duration::from_micros(late));
        match self.weather.order {
            Order::Mixed => at,
            Order::Kept => {
                self.last_arrival = self.last_arrival.max(at);
                self.last_arrival
            }
        }
    }
}

fn at_second<V: Default + Clone>(list: &mut Vec<V>, now: Time) -> &mut V {
    let second = now.second();
    if list.len() <= second {
        list.resize(second + 1, V::default());
    }
    &mut list[second]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Loss;

    /// Sends packets of 1,250 bytes every 10 ms (1 Mbit/s) and returns (number, arrival).
    fn run(link: &mut Link<u32>, packets: u32) -> Vec<(u32, Time)> {
        let mut out = Vec::new();
        let mut serve: Option<Time> = None;
        for number in 0..packets {
            let now = Time::from_millis(10 * u64::from(number));
            while let Some(at) = serve.filter(|at| *at <= now) {
                serve = link.serve(at, &mut out);
            }
            serve = link.send(now, 1_250, number, &mut out).or(serve);
        }
        while let Some(at) = serve {
            serve = link.serve(at, &mut out);
        }
        out.iter().map(|delivery| (delivery.item, delivery.at)).collect()
    }

    #[test]
    fn a_clear_link_only_delays() {
        let mut link = Link::new(Weather::CLEAR.delay(50), Random::new(1));
        let got = run(&mut link, 100);
        assert_eq!(got.len(), 100);
        assert!(got.iter().all(|(n, at)| *at == Time::from_millis(10 * u64::from(*n) + 50)));
    }

    #[test]
    fn a_narrow_link_passes_its_rate_and_drops_what_its_queue_does_not_hold() {
        let weather = Weather::CLEAR.delay(0).rate(500_000).queue(200);
        let mut link = Link::new(weather, Random::new(1));
        let got = run(&mut link, 1_000);
        let last = got.last().unwrap().1;
        let rate = got.len() as f64 * 10_000.0 / last.elapsed().as_secs_f64();
        assert!((rate - 500_000.0).abs() < 5_000.0, "{rate}");
        assert!(link.stats().dropped > 450);
        let worst = link.stats().queue_delay.iter().max().unwrap();
        assert!((Duration::from_millis(180)..=Duration::from_millis(200)).contains(worst));
    }

    #[test]
    fn jitter_keeps_the_order_or_mixes_it() {
        for (order, mixed) in [(Order::Kept, false), (Order::Mixed, true)] {
            let weather = Weather::CLEAR.jitter(30, order);
            let got = run(&mut Link::new(weather, Random::new(1)), 500);
            let overtakes = got.windows(2).any(|pair| pair[1].1 < pair[0].1);
            assert_eq!(overtakes, mixed);
        }
    }

    #[test]
    fn weather_follows_its_schedule_and_packets_may_come_twice() {
        let mut link = Link::new(Weather::CLEAR, Random::new(1));
        link.change_at(Time::from_secs(1), Weather::CLEAR.loss(Loss::Even(1.0)));
        link.change_at(Time::from_secs(2), Weather { duplicates: 1.0, ..Weather::CLEAR });
        let got = run(&mut link, 300);
        assert_eq!(got.len(), 300);
        assert_eq!(link.stats().lost, 100);
        assert!(got.iter().all(|(number, _)| !(100..200).contains(number)));
    }
}
