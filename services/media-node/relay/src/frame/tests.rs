//! What is written is read again, and nothing that is read panics.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn packets()(
        encoding in 0_u8..8,
        life: u32,
        sequence in 0..=RELAY_SEQUENCE_MAX,
        timestamp: u32,
        codec: u8,
        flags in 0_u8..8,
        extensions in prop::collection::vec(any::<u8>(), 0..EXTENSIONS_MAX),
        payload in prop::collection::vec(any::<u8>(), 0..1_300),
        handle: u32,
        epoch: u16,
        hops in 0_u8..16,
        age_micros: u32,
    ) -> (FrameTag, u8, u32, u64, u32, u8, u8, Vec<u8>, Vec<u8>) {
        let tag = FrameTag { handle, epoch, hops, repeated: flags & 4 != 0, age_micros };
        (tag, encoding, life, sequence, timestamp, codec, flags, extensions, payload)
    }
}

proptest! {
    #[test]
    fn frames_of_a_train_are_read_as_they_were_written(
        list in prop::collection::vec(packets(), 0..5),
        number: u32,
        sent: u32,
    ) {
        let frames: Vec<_> = list
            .iter()
            .map(|(tag, encoding, life, sequence, timestamp, codec, flags, extensions, payload)| {
                Frame::Media(*tag, RelayPacket {
                    encoding: *encoding,
                    life: *life,
                    sequence: *sequence,
                    timestamp: *timestamp,
                    codec: *codec,
                    marker: flags & 1 != 0,
                    keyframe: flags & 2 != 0,
                    held: Duration::ZERO,
                    extensions,
                    payload,
                })
            })
            .collect();
        let mut train = Vec::new();
        begin_train(number, &mut train);
        for frame in &frames {
            let before = train.len();
            frame.write(&mut train);
            prop_assert_eq!(train.len() - before, frame.len());
        }
        stamp_train(sent, &mut train);
        let read = Train::parse(&train).unwrap();
        prop_assert_eq!((read.number, read.sent_micros), (number, sent));
        let back: Vec<_> = read.frames().map(Result::unwrap).collect();
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        as_train: bool,
    ) {
        if as_train && let Some(first) = bytes.first_mut() {
            *first = FRAME_VERSION << 4 | KIND_TRAIN;
        }
        if let Ok(train) = Train::parse(&bytes) {
            prop_assert!(train.frames().count() <= bytes.len());
        }
        let _ = Frame::parse(&bytes);
    }
}

#[test]
fn a_clock_is_read_as_it_was_written() {
    let tag = FrameTag { handle: 7, epoch: 3, hops: 2, ..FrameTag::default() };
    let clock = RelayClock { encoding: 1, life: 9, ntp_micros: u64::MAX - 5, timestamp: 77 };
    let mut bytes = Vec::new();
    Frame::Clock(tag, clock).write(&mut bytes);
    assert_eq!(Frame::parse(&bytes[2..]), Ok(Frame::Clock(tag, clock)));
    assert_eq!(bytes.len(), Frame::Clock(tag, clock).len());
}

#[test]
fn a_frame_that_cannot_be_read_does_not_hide_those_behind_it() {
    let clock = RelayClock { encoding: 0, life: 1, ntp_micros: 1, timestamp: 1 };
    let mut train = Vec::new();
    begin_train(1, &mut train);
    train.extend_from_slice(&[0, 3, 1, 2, 3]);
    Frame::Clock(FrameTag::default(), clock).write(&mut train);
    let read: Vec<_> = Train::parse(&train).unwrap().frames().collect();
    assert!(read[0].is_err());
    assert!(read[1].is_ok());
}
