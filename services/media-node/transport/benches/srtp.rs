//! What one packet costs to protect and to open, per profile and size: the part
//! of the packet path that is this crate's.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headwater_transport::{MasterKey, SRTP_OVERHEAD_MAX, SrtpProfile, SrtpSession};

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm, SrtpProfile::AesCm128HmacSha1_80];
const SIZES: [usize; 2] = [100, 1200];
const HEADER: usize = 24;

fn session(profile: SrtpProfile) -> SrtpSession {
    let key = [7; 32];
    let master = MasterKey { key: &key[..profile.key_len()], salt: &key[..profile.salt_len()] };
    SrtpSession::new(profile, master, master).expect("lengths of the profile")
}

/// A plain packet with a one-byte extension and room behind it.
fn plain(size: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER + size + SRTP_OVERHEAD_MAX];
    packet[..2].copy_from_slice(&[0x90, 96]);
    packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 2]);
    packet
}

fn set_index(packet: &mut [u8], index: u32, ssrcs: u32) {
    packet[2..4].copy_from_slice(&((index / ssrcs) as u16).to_be_bytes());
    packet[8..12].copy_from_slice(&(index % ssrcs).to_be_bytes());
}

fn protect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("protect_rtp");
    group.throughput(Throughput::Elements(1));
    for (profile, size, ssrcs) in cases() {
        let (mut sender, template) = (session(profile), plain(size));
        let (mut packet, mut index) = (template.clone(), 0u32);
        group.bench_function(
            BenchmarkId::new(format!("{profile:?}/{size} B"), format!("{ssrcs} SSRCs")),
            |bencher| {
                bencher.iter(|| {
                    packet.copy_from_slice(&template);
                    set_index(&mut packet, index, ssrcs);
                    index = index.wrapping_add(1);
                    black_box(sender.protect_rtp(&mut packet, HEADER, HEADER + size))
                        .expect("a fresh packet")
                });
            },
        );
    }
}

fn unprotect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unprotect_rtp");
    group.throughput(Throughput::Elements(1));
    for (profile, size, ssrcs) in cases().filter(|(_, _, ssrcs)| *ssrcs <= 100) {
        let (mut sender, mut receiver) = (session(profile), session(profile));
        let (template, mut index) = (plain(size), 0u32);
        let mut sealed = || {
            let mut packet = template.clone();
            set_index(&mut packet, index, ssrcs);
            index = index.wrapping_add(1);
            let total =
                sender.protect_rtp(&mut packet, HEADER, HEADER + size).expect("a fresh packet");
            packet.truncate(total);
            packet
        };
        group.bench_function(
            BenchmarkId::new(format!("{profile:?}/{size} B"), format!("{ssrcs} SSRCs")),
            |bencher| {
                bencher.iter_batched_ref(
                    &mut sealed,
                    |packet| {
                        black_box(receiver.unprotect_rtp(packet)).expect("an authentic packet")
                    },
                    criterion::BatchSize::SmallInput,
                );
            },
        );
    }
}

fn cases() -> impl Iterator<Item = (SrtpProfile, usize, u32)> {
    let sizes =
        || SIZES.into_iter().flat_map(|size| [1, 100, 4000].map(move |ssrcs| (size, ssrcs)));
    PROFILES
        .into_iter()
        .flat_map(move |profile| sizes().map(move |(size, ssrcs)| (profile, size, ssrcs)))
}

criterion_group!(benches, protect, unprotect);
criterion_main!(benches);
