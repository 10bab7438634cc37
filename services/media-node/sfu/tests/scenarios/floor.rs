//! The loudest microphones of a room are forwarded, and each goes on without a gap.

use headwater_model::media::{Codec, TrackKey, TransportKey};

use crate::harness::publisher::{Encoder, delta};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const LISTENER: TransportKey = TransportKey(100);
const SPEECH: u8 = 20;
const SILENCE: u8 = 127;

/// People with microphones, one who listens to all of them.
struct Hall {
    world: World,
    encoders: Vec<Encoder>,
    receivers: Vec<Receiver>,
}

impl Hall {
    fn new(people: u32, seats: u16) -> Self {
        let mut world = World::new();
        world.transport(LISTENER.0);
        let (mut encoders, mut receivers) = (Vec::new(), Vec::new());
        for person in 0..people {
            let transport = world.transport(person);
            let track = world.publish(transport, person, &publication(Codec::Opus, "0", &[]));
            world.sfu.join_floor(track, 1, seats);
            let wanted = subscription(Codec::Opus, 5_000 + person * 10);
            world.subscribe(person, track, LISTENER, &wanted);
            receivers.push(Receiver::new(&wanted));
            encoders.push(Encoder::new(Codec::Opus, 0).with_mid("0"));
        }
        Self { world, encoders, receivers }
    }

    /// Everybody sends for so long, each at its level. How many packets of each the
    /// listener got.
    fn go_on(&mut self, millis: u64, levels: &[u8]) -> Vec<usize> {
        let before: Vec<usize> = self.receivers.iter().map(Receiver::len).collect();
        for _ in 0..millis / 20 {
            for (person, (encoder, level)) in self.encoders.iter_mut().zip(levels).enumerate() {
                encoder.level = Some(*level);
                let packet = encoder.picture(delta(1, 0), 960);
                self.world.batch(TransportKey(person as u32), &packet);
            }
            self.world.pass(20);
        }
        for packet in self.world.take_rtp(LISTENER) {
            let taken = self.receivers.iter_mut().filter_map(|it| it.take(&packet).then_some(()));
            assert_eq!(taken.count(), 1);
        }
        self.receivers
            .iter()
            .zip(before)
            .map(|(receiver, before)| receiver.len() - before)
            .collect()
    }

    /// Nobody sees a gap: silence takes as long as it took.
    fn check(&self) {
        for receiver in &self.receivers {
            assert_eq!(receiver.missing(), Vec::<u16>::new());
            let packets: Vec<_> = receiver.packets().collect();
            for pair in packets.windows(2) {
                let frames = pair[1].mark.unwrap().frame - pair[0].mark.unwrap().frame;
                let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                assert_eq!(step, 960 * frames);
            }
        }
    }
}

#[test]
fn a_small_room_hears_everybody() {
    let mut hall = Hall::new(3, 3);
    assert_eq!(hall.go_on(1_000, &[SPEECH, SILENCE, SILENCE]), [50, 50, 50]);
    hall.check();
}

#[test]
fn a_large_room_hears_those_who_speak_as_they_take_turns() {
    let mut hall = Hall::new(5, 2);
    let heard = hall.go_on(3_000, &[SPEECH, SILENCE, SILENCE, SILENCE, SILENCE]);
    assert_eq!(heard, [149, 0, 0, 0, 0], "one packet until it is speech");
    let heard = hall.go_on(3_000, &[SILENCE, SPEECH, SILENCE, SILENCE, SILENCE]);
    assert_eq!(heard, [150, 149, 0, 0, 0], "who has a seat keeps it while nobody needs it");
    let heard = hall.go_on(1_000, &[SILENCE, SPEECH, SILENCE, SPEECH, SILENCE]);
    assert_eq!(heard, [2, 50, 0, 49, 0]);
    let heard = hall.go_on(1_000, &[SPEECH, SPEECH, SPEECH, SPEECH, SPEECH]);
    assert_eq!(heard, [0, 50, 0, 50, 0], "no more than there are seats");
    hall.go_on(3_000, &[SPEECH, SILENCE, SILENCE, SILENCE, SILENCE]);
    hall.check();
}

#[test]
fn who_is_muted_or_gone_makes_room() {
    let mut hall = Hall::new(3, 1);
    let all = [SPEECH; 3];
    assert_eq!(hall.go_on(1_000, &all)[1..], [0, 0]);
    hall.world.sfu.set_muted(hall.world.now, TrackKey(0), true);
    assert_eq!(hall.go_on(1_000, &all), [0, 50, 0]);
    hall.world.sfu.set_muted(hall.world.now, TrackKey(0), false);
    assert_eq!(hall.go_on(1_000, &all), [0, 50, 0]);
    hall.world.sfu.unpublish(TrackKey(1));
    let heard = hall.go_on(1_000, &all);
    assert_eq!(heard[1..2], [0]);
    assert_eq!(heard[0] + heard[2], 50, "one of the two that are left: {heard:?}");
    hall.check();
}
