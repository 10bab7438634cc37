//! Hostile SCTP chunks from a peer that has passed DTLS.

mod support;

use headwater_transport::fuzzing::{dcep, sctp_chunks};
use proptest::prelude::*;
use support::origin;

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, flags];
    chunk.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
    chunk.extend_from_slice(value);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// A chunk of a kind that the library knows, with values near what it expects.
fn any_chunk() -> impl Strategy<Value = Vec<u8>> {
    let kind =
        prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130, 132, 192, 194]);
    let number = prop_oneof![0u32..40, any::<u32>()];
    (
        kind,
        0u8..16,
        number,
        prop_oneof![0u16..4, any::<u16>()],
        prop::collection::vec(any::<u8>(), 0..60),
    )
        .prop_map(|(kind, flags, tsn, stream, rest)| {
            let mut value = tsn.to_be_bytes().to_vec();
            value.extend_from_slice(&stream.to_be_bytes());
            value.extend_from_slice(&rest);
            chunk(kind, flags, &value)
        })
}

/// DATA that opens channels, fragments and completes messages.
fn data_chunk() -> impl Strategy<Value = Vec<u8>> {
    let ppi = prop::sample::select(vec![50u32, 51, 53, 56, 57, 52, 0]);
    (0u32..40, 0u16..3, 0u16..4, ppi, 0u8..8, prop::collection::vec(0u8..8, 1..30)).prop_map(
        |(tsn, stream, sequence, ppi, flags, payload)| {
            let mut value = tsn.to_be_bytes().to_vec();
            value.extend_from_slice(&stream.to_be_bytes());
            value.extend_from_slice(&sequence.to_be_bytes());
            value.extend_from_slice(&ppi.to_be_bytes());
            value.extend_from_slice(&payload);
            chunk(0, flags, &value)
        },
    )
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![any_chunk(), data_chunk()], 1..5)
        .prop_map(|chunks| chunks.concat())
}

proptest! {
    #[test]
    fn hostile_chunks_never_panic_or_hang(packets in prop::collection::vec(packet(), 1..30)) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        sctp_chunks(origin(), &packets);
    }

    #[test]
    fn arbitrary_bytes_never_panic(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..20)) {
        let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
        sctp_chunks(origin(), &packets);
        packets.iter().for_each(|bytes| dcep(bytes));
    }
}

#[test]
fn a_jump_of_half_the_sequence_space_costs_nothing() {
    let jump = chunk(192, 0, &0x7fff_0000u32.to_be_bytes());
    let packets = vec![jump.as_slice(); 2000];
    sctp_chunks(origin(), &packets);
}
