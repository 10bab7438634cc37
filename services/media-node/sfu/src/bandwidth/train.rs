//! Packet path: no allocation. How fast a train of packets that left together came through:
//! what the narrowest piece of the way carries when it has nothing else to carry. It is not
//! how much may be sent for long; it says whether a burst would wait.

use super::history::SentPacket;
use crate::clock::Micros;

/// Shorter trains measure the jitter of the receiver rather than the way.
const BYTES_MIN: u64 = 15_000;
/// Feedback tells arrivals in quarters of a millisecond; four of them are the least that is
/// believed.
const SPAN_MIN: i64 = 1_000;
/// A measure holds for so long.
const VALID: Micros = Micros::from_millis(5_000);

#[derive(Debug, Clone, Copy)]
struct Train {
    sent: u32,
    bytes: u64,
    /// Of the packet that came first: it left before the span began.
    first_bytes: u64,
    first_arrival: i64,
    last_arrival: i64,
}

/// Measures the trains of one transport.
#[derive(Debug, Default)]
pub(crate) struct Trains {
    train: Option<Train>,
    measured: Option<(u64, Micros)>,
}

impl Trains {
    /// Feedback says now when a packet arrived, in microseconds of the receiver's clock.
    pub(crate) fn observe(&mut self, now: Micros, packet: SentPacket, arrival: i64) {
        let size = u64::from(packet.size);
        match &mut self.train {
            Some(train) if train.sent == packet.sent => {
                train.bytes += size;
                train.first_arrival = train.first_arrival.min(arrival);
                train.last_arrival = train.last_arrival.max(arrival);
            }
            Some(_) | None => {
                self.finish(now);
                self.train = Some(Train {
                    sent: packet.sent,
                    bytes: size,
                    first_bytes: size,
                    first_arrival: arrival,
                    last_arrival: arrival,
                });
            }
        }
    }

    fn finish(&mut self, now: Micros) {
        let Some(train) = self.train.take().filter(|train| train.bytes >= BYTES_MIN) else {
            return;
        };
        let span = (train.last_arrival - train.first_arrival).max(SPAN_MIN) as u64;
        self.measured = Some(((train.bytes - train.first_bytes) * 8_000_000 / span, now));
    }

    /// The way turned out to be full: what was measured before says nothing.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// How long a burst would take to get through; `None` if nothing is known of it.
    pub(crate) fn time_of(&self, now: Micros, bytes: u64) -> Option<Micros> {
        let (bps, at) = self.measured?;
        (now.since(at) < VALID).then(|| Micros(bytes * 8_000_000 / bps.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(trains: &mut Trains, millis: u32, packets: u16, spacing: i64) {
        for packet in 0..packets {
            let arrival = i64::from(millis) * 1_000 + i64::from(packet) * spacing;
            let sent = SentPacket { sent: millis * 1_000, size: 1_000 };
            trains.observe(Micros::from_millis(u64::from(millis)), sent, arrival);
        }
    }

    #[test]
    fn a_long_train_tells_how_long_a_burst_takes() {
        let mut trains = Trains::default();
        let now = Micros::from_millis(1_100);
        send(&mut trains, 1_000, 10, 4_000);
        send(&mut trains, 1_033, 1, 0);
        assert_eq!(trains.time_of(now, 1), None, "too short to say anything");
        send(&mut trains, 1_066, 20, 4_000);
        send(&mut trains, 1_099, 1, 0);
        let time = trains.time_of(now, 50_000).unwrap();
        assert_eq!(time, Micros::from_millis(200), "at 2 Mbit/s");
        assert_eq!(trains.time_of(now.plus(VALID), 50_000), None, "too long ago");
        trains.forget();
        assert_eq!(trains.time_of(now, 50_000), None);
    }
}
