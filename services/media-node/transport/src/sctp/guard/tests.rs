//! What passes the guard and what does not.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = vec![0; PACKET_HEADER];
    packet[4..8].copy_from_slice(&TAG.to_be_bytes());
    for chunk in chunks {
        packet.extend_from_slice(chunk);
        packet.resize(packet.len().next_multiple_of(4), 0);
    }
    packet
}

const INIT: u8 = 1;
const DATA: u8 = 0;
const FORWARD_TSN: u8 = 192;
const RECONFIG: u8 = 130;
const TAG: u32 = 7;

fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, 3];
    chunk.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
    chunk.extend_from_slice(value);
    chunk
}

fn init(tsn: u32) -> Vec<u8> {
    chunk(INIT, &[&[0; 12][..], &tsn.to_be_bytes()].concat())
}

fn data(tsn: u32, stream: u16, length: usize) -> Vec<u8> {
    let header = [&tsn.to_be_bytes()[..], &stream.to_be_bytes(), &[0; 6]].concat();
    chunk(DATA, &[header, vec![1; length]].concat())
}

fn forward(tsn: u32) -> Vec<u8> {
    chunk(FORWARD_TSN, &tsn.to_be_bytes())
}

fn reset(last: u32) -> Vec<u8> {
    let parameter =
        [&PARAMETER_OUTGOING_RESET.to_be_bytes()[..], &[0, 16], &[0; 8], &last.to_be_bytes()]
            .concat();
    chunk(RECONFIG, &parameter)
}

fn guard(initial: u32) -> Guard {
    let mut guard = Guard::new(false);
    assert!(guard.admit(origin(), &packet(&[init(initial)])));
    guard.established(&packet(&[]));
    guard
}

#[test]
fn ordinary_data_passes_over_the_wrap_and_with_gaps() {
    let mut guard = guard(u32::MAX - 2);
    for step in 0..5u32 {
        assert!(guard.admit(origin(), &packet(&[data((u32::MAX - 2).wrapping_add(step), 0, 100)])));
    }
    assert_eq!(guard.base, Some(1));
    assert!(guard.admit(origin(), &packet(&[data(10, 0, 100)])));
    assert!(guard.admit(origin(), &packet(&[data(10, 0, 100)])), "a repeat");
    assert_eq!(guard.base, Some(1));
    for missing in 2..10 {
        assert!(guard.admit(origin(), &packet(&[data(missing, 0, 100)])));
    }
    assert_eq!(guard.base, Some(10));
}

#[test]
fn jumps_are_bounded() {
    let mut guard = guard(1);
    assert!(!guard.admit(origin(), &packet(&[forward(WINDOW + 1)])));
    assert!(!guard.admit(origin(), &packet(&[forward(0x7000_0000)])));
    assert!(!guard.admit(origin(), &packet(&[data(WINDOW + 1, 0, 10)])));
    assert!(!guard.admit(origin(), &packet(&[reset(0x7000_0000)])));
    assert!(guard.admit(origin(), &packet(&[forward(WINDOW)])));
    assert_eq!(guard.base, Some(WINDOW));
}

#[test]
fn empty_chunks_high_streams_and_data_before_init_are_refused() {
    assert!(!Guard::new(false).admit(origin(), &packet(&[data(1, 0, 10)])));
    let mut guard = guard(1);
    assert!(!guard.admit(origin(), &packet(&[data(1, 0, 0)])));
    assert!(!guard.admit(origin(), &packet(&[data(1, STREAMS_MAX, 10)])));
    assert!(guard.admit(origin(), &packet(&[data(1, STREAMS_MAX - 1, 10)])));
}

#[test]
fn chunks_that_wait_are_bounded_until_messages_come_out() {
    let mut guard = guard(1);
    let taken =
        (1..=10_000).filter(|tsn| guard.admit(origin(), &packet(&[data(*tsn, 0, 10)]))).count();
    assert_eq!(taken, WAITING_CHUNKS_MAX as usize);
    guard.delivered(500);
    let again = taken as u32 + 1..;
    assert_eq!(
        again.take(1000).filter(|tsn| guard.admit(origin(), &packet(&[data(*tsn, 0, 10)]))).count(),
        500
    );
    let later = origin() + Duration::from_secs(1);
    assert!(guard.admit(later, &packet(&[data(taken as u32 + 501, 0, 10)])), "written off");
}

#[test]
fn resets_are_bounded_in_rate() {
    let mut guard = guard(1);
    let taken = (0..1000).filter(|_| guard.admit(origin(), &packet(&[reset(0)]))).count();
    assert_eq!(taken, RESETS_MAX as usize);
    assert!(guard.admit(origin() + Duration::from_secs(1), &packet(&[reset(0)])));
}

#[test]
fn what_the_library_ignores_does_not_move_the_window() {
    let mut guard = guard(1);
    assert!(
        !guard.admit(origin(), &packet(&[init(0x7000_0000)])),
        "an INIT when the association is up"
    );
    let mut other_tag = packet(&[forward(5000)]);
    other_tag[7] ^= 1;
    assert!(!guard.admit(origin(), &other_tag));
    assert_eq!(guard.base, Some(0));
    let mut early = Guard::new(false);
    assert!(early.admit(origin(), &packet(&[init(1)])));
    assert!(early.admit(origin(), &packet(&[init(1)])), "a repeated INIT");
    assert!(!early.admit(origin(), &packet(&[init(0x7000_0000)])), "another INIT");
    assert!(!early.admit(origin(), &packet(&[forward(5)])));
    assert!(!early.admit(origin(), &packet(&[reset(0)])));
    assert_eq!(early.base, Some(0));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut guard = guard(77);
        let _ = guard.admit(origin(), &bytes);
    }

    #[test]
    fn the_base_is_the_tsn_before_the_first_missing_one(order in Just((1..200u32).collect::<Vec<_>>()).prop_shuffle(), taken in 0usize..199) {
        let mut guard = guard(1);
        for tsn in &order[..taken] {
            guard.admit(origin(), &packet(&[data(*tsn, 0, 10)]));
        }
        let first_missing = (1..).find(|tsn| !order[..taken].contains(tsn)).unwrap();
        prop_assert_eq!(guard.base, Some(first_missing - 1));
    }
}
