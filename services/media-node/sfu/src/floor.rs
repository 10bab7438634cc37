//! Packet path: no allocation. Who has the floor: of a room's many microphones the
//! loudest few are forwarded, judged by the levels in the packets (RFC 6464). Whoever
//! begins to speak gets a seat within two packets if one is free or held by somebody
//! silent; who is clearly louder takes that of the quietest. In a room with no more
//! microphones than seats all of them are forwarded.

use crate::clock::Micros;

/// Quieter than this (dB below overload) is not speech.
const SPEECH_MAX: u8 = 45;
/// Loud packets in a row that ask for a seat: a click is not speech.
const ATTACK: u8 = 2;
/// A seat is kept through pauses of this length.
const HOLD: Micros = Micros::from_millis(2_000);
/// Who has just got a seat is not driven out by who is louder.
const GRACE: Micros = Micros::from_millis(1_000);
/// Who drives out must be louder by this much, in dB.
const MARGIN: u8 = 6;
/// Loudness moves by one part in so many with each packet.
const SMOOTHING: i32 = 8;

/// What becomes of a packet's track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is forwarded.
    Heard,
    /// It is not.
    Unheard,
    /// It is, and this one is not any more.
    Instead(u32),
}

/// The seats of one room.
#[derive(Debug)]
pub(crate) struct Floor {
    /// Microphones.
    tracks: u32,
    seats: Vec<Seat>,
    seats_max: usize,
}

/// A microphone that is forwarded.
#[derive(Debug, Clone, Copy)]
struct Seat {
    track: u32,
    /// Of what it said, in dB above silence, in 1/256.
    loudness: i32,
    /// When it last spoke.
    spoke: Micros,
    since: Micros,
}

impl Floor {
    /// A floor with so many seats, at least one.
    pub(crate) fn new(seats: u16) -> Self {
        let seats_max = usize::from(seats.max(1));
        Self { tracks: 0, seats: Vec::with_capacity(seats_max), seats_max }
    }

    /// One more microphone.
    pub(crate) fn join(&mut self) {
        self.tracks += 1;
    }

    /// One less. `true` if none is left.
    pub(crate) fn leave(&mut self, track: u32) -> bool {
        self.vacate(track);
        self.tracks = self.tracks.saturating_sub(1);
        self.tracks == 0
    }

    /// It fell silent for good: it was muted.
    pub(crate) fn vacate(&mut self, track: u32) {
        self.seats.retain(|seat| seat.track != track);
    }

    /// A packet came, `level` dB below overload, after `loud` loud ones in a row.
    pub(crate) fn judge(&mut self, now: Micros, track: u32, level: u8, loud: u8) -> Verdict {
        let loudness = i32::from(127 - level.min(127)) * 256;
        let speaks = level <= SPEECH_MAX;
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.track == track) {
            if speaks {
                seat.loudness += (loudness - seat.loudness) / SMOOTHING;
                seat.spoke = now;
            }
            return Verdict::Heard;
        }
        let crowded = self.tracks as usize > self.seats_max;
        let otherwise = if crowded { Verdict::Unheard } else { Verdict::Heard };
        if !speaks || (crowded && loud < ATTACK) {
            return otherwise;
        }
        let seat = Seat { track, loudness, spoke: now, since: now };
        if self.seats.len() < self.seats_max {
            self.seats.push(seat);
            return Verdict::Heard;
        }
        let weakest = self.seats.iter_mut().min_by_key(|seat| (seat.speaks(now), seat.loudness));
        let Some(weakest) = weakest.filter(|weakest| seat.drives_out(weakest, now)) else {
            return otherwise;
        };
        Verdict::Instead(std::mem::replace(weakest, seat).track)
    }

    /// Loud packets in a row, with one more of this level.
    pub(crate) fn attack(loud: u8, level: u8) -> u8 {
        if level <= SPEECH_MAX { loud.saturating_add(1) } else { 0 }
    }
}

impl Seat {
    fn speaks(&self, now: Micros) -> bool {
        now.since(self.spoke) < HOLD
    }

    fn drives_out(&self, other: &Self, now: Micros) -> bool {
        let louder = self.loudness >= other.loudness + i32::from(MARGIN) * 256;
        !other.speaks(now) || (louder && now.since(other.since) >= GRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: u8 = 20;
    const SILENT: u8 = 127;

    /// A floor, its microphones' runs of loud packets, and who is forwarded.
    struct Hall {
        floor: Floor,
        loud: Vec<u8>,
        heard: Vec<bool>,
        now: Micros,
    }

    impl Hall {
        fn new(seats: u16, tracks: usize) -> Self {
            let mut floor = Floor::new(seats);
            (0..tracks).for_each(|_| floor.join());
            let (loud, heard) = (vec![0; tracks], vec![false; tracks]);
            Self { floor, loud, heard, now: Micros::from_millis(10_000) }
        }

        /// So many packets of 20 ms of everybody, each at its level.
        fn go_on(&mut self, packets: usize, levels: &[u8]) {
            for _ in 0..packets {
                self.now = self.now.plus(Micros::from_millis(20));
                for (track, level) in levels.iter().enumerate() {
                    self.loud[track] = Floor::attack(self.loud[track], *level);
                    let verdict =
                        self.floor.judge(self.now, track as u32, *level, self.loud[track]);
                    self.heard[track] = verdict != Verdict::Unheard;
                    if let Verdict::Instead(other) = verdict {
                        self.heard[other as usize] = false;
                    }
                }
            }
        }

        fn heard(&self) -> Vec<usize> {
            (0..self.heard.len()).filter(|track| self.heard[*track]).collect()
        }
    }

    #[test]
    fn with_a_seat_for_everybody_everything_is_heard() {
        let mut hall = Hall::new(3, 3);
        hall.go_on(1, &[LOUD, SILENT, SILENT]);
        assert_eq!(hall.heard(), [0, 1, 2]);
    }

    #[test]
    fn in_a_crowd_those_who_speak_are_heard_from_their_second_packet() {
        let mut hall = Hall::new(2, 4);
        hall.go_on(1, &[LOUD, SILENT, SILENT, SILENT]);
        assert_eq!(hall.heard(), [] as [usize; 0], "a click");
        hall.go_on(1, &[LOUD, SILENT, SILENT, SILENT]);
        assert_eq!(hall.heard(), [0]);
        hall.go_on(2, &[SILENT, SILENT, LOUD, SILENT]);
        assert_eq!(hall.heard(), [0, 2], "a pause takes no seat away");
    }

    #[test]
    fn who_fell_silent_makes_room_for_who_speaks() {
        let mut hall = Hall::new(2, 4);
        hall.go_on(10, &[LOUD, LOUD, SILENT, SILENT]);
        hall.go_on(50, &[LOUD, SILENT, SILENT, LOUD]);
        assert_eq!(hall.heard(), [0, 1], "silent for a second: it may go on");
        hall.go_on(60, &[LOUD, SILENT, SILENT, LOUD]);
        assert_eq!(hall.heard(), [0, 3]);
    }

    #[test]
    fn who_is_clearly_louder_takes_the_seat_of_the_quietest() {
        let mut hall = Hall::new(2, 3);
        hall.go_on(10, &[20, 40, SILENT]);
        hall.go_on(100, &[20, 40, 36]);
        assert_eq!(hall.heard(), [0, 1], "hardly louder");
        hall.go_on(2, &[20, 40, 20]);
        assert_eq!(hall.heard(), [0, 2]);
        hall.go_on(20, &[14, 10, 20]);
        assert_eq!(hall.heard(), [0, 2], "who has just got a seat keeps it for a second");
        hall.go_on(60, &[14, 10, 20]);
        assert_eq!(hall.heard(), [0, 1]);
    }

    #[test]
    fn the_number_heard_never_exceeds_the_seats() {
        let mut hall = Hall::new(3, 40);
        let mut state = 1_u32;
        for _ in 0..2_000 {
            let levels: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    if state >> 24 < 90 { (state >> 16) as u8 % 60 } else { SILENT }
                })
                .collect();
            hall.go_on(1, &levels);
            assert!(hall.heard().len() <= 3, "{:?}", hall.heard());
            assert!(hall.floor.seats.len() <= 3);
        }
        assert_eq!(hall.heard().len(), 3);
    }

    #[test]
    fn a_muted_or_ended_track_leaves_its_seat() {
        let mut hall = Hall::new(1, 2);
        hall.go_on(5, &[LOUD, SILENT]);
        hall.floor.vacate(0);
        hall.go_on(2, &[SILENT, LOUD]);
        assert_eq!(hall.heard(), [1]);
        assert!(!hall.floor.leave(0));
        assert!(hall.floor.leave(1));
    }
}
