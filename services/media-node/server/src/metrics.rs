//! Brings the shards' plain counters to the metrics, once a second.

use std::sync::Arc;
use std::time::Duration;

use headwater_relay::{LinkDrops, RelayTotals};
use headwater_telemetry::metrics::{
    DropReason, MediaDirection, NodeMetrics, RefusedRetransmission, RelayDrop, RelayFlow,
    RelayLink, TrackKind, TransportProtocol,
};
use tokio_util::sync::CancellationToken;

use crate::shard::{ShardHandle, ShardSnapshot};

/// Does so until cancelled.
pub async fn publish(
    shards: Arc<[ShardHandle]>,
    metrics: Arc<NodeMetrics>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {
                let snapshots: Vec<ShardSnapshot> = shards.iter().map(ShardHandle::snapshot).collect();
                show(&metrics, &snapshots);
            }
        }
    }
}

fn show(metrics: &NodeMetrics, shards: &[ShardSnapshot]) {
    let count = |of: fn(&ShardSnapshot) -> usize| {
        i64::try_from(shards.iter().map(of).sum::<usize>()).unwrap_or(i64::MAX)
    };
    let sum = |of: fn(&ShardSnapshot) -> u64| shards.iter().map(of).sum::<u64>();
    metrics.rooms.set(count(|shard| shard.rooms));
    metrics.participants.set(count(|shard| shard.participants));
    metrics.tracks.get(TrackKind::Audio).set(count(|shard| shard.audio_tracks));
    metrics.tracks.get(TrackKind::Video).set(count(|shard| shard.video_tracks));
    metrics.subscriptions.set(count(|shard| shard.subscriptions));
    metrics.session_streams.set(count(|shard| shard.sessions));
    let tcp = count(|shard| shard.tcp_connections);
    let connected = count(|shard| shard.connected_transports);
    metrics.transports.get(TransportProtocol::Tcp).set(tcp);
    metrics.transports.get(TransportProtocol::Udp).set((connected - tcp).max(0));

    let (inward, outward) = (MediaDirection::In, MediaDirection::Out);
    metrics.rtp_packets.get(inward).set(sum(|shard| shard.sfu.packets_in));
    metrics.rtp_packets.get(outward).set(sum(|shard| shard.sfu.packets_out));
    metrics.rtp_bytes.get(inward).set(sum(|shard| shard.sfu.bytes_in));
    metrics.rtp_bytes.get(outward).set(sum(|shard| shard.sfu.bytes_out));
    metrics.rtcp_packets.get(inward).set(sum(|shard| shard.sfu.rtcp_in));
    metrics.rtcp_packets.get(outward).set(sum(|shard| shard.sfu.rtcp_out));
    metrics.nacks.get(inward).set(sum(|shard| shard.sfu.nacks_in));
    metrics.nacks.get(outward).set(sum(|shard| shard.sfu.nacks_out));
    metrics.plis.get(inward).set(sum(|shard| shard.sfu.keyframe_requests_in));
    metrics.plis.get(outward).set(sum(|shard| shard.sfu.keyframe_requests_out));
    metrics.rtx_packets.get(inward).set(sum(|shard| shard.sfu.repaired));
    metrics.rtx_packets.get(outward).set(sum(|shard| shard.sfu.retransmissions_out));
    metrics.udp_datagrams.get(inward).set(sum(|shard| shard.received.datagrams));
    metrics.udp_datagrams.get(outward).set(sum(|shard| shard.sent.datagrams));
    metrics.rtp_lost.set(sum(|shard| shard.sfu.lost));
    metrics.keyframes_replayed.set(sum(|shard| shard.sfu.keyframes_replayed));
    metrics.layer_switches.set(sum(|shard| shard.sfu.layer_switches));
    metrics.descriptors_unreadable.set(sum(|shard| shard.sfu.drops.unreadable_descriptor));
    metrics.feedback_dropped.set(sum(|shard| shard.sfu.drops.feedback_flood));
    metrics.events_dropped.set(sum(|shard| shard.sfu.events_dropped));
    metrics.udp_receive_overflow.set(sum(|shard| shard.received.kernel_drops));
    metrics.send_errors.set(sum(|shard| shard.sent.dropped + shard.sent.refused));
    metrics.stun_unknown_ufrag.set(sum(|shard| shard.ingress.stun_unknown_ufrag));
    metrics.stun_bad_integrity.set(sum(|shard| shard.ingress.stun_refused));
    let busiest = shards.iter().map(|shard| shard.busy_ratio).fold(0.0, f32::max);
    metrics.shard_busy.set(f64::from(busiest));
    show_drops(metrics, shards);
    show_relays(metrics, shards);
}

fn show_relays(metrics: &NodeMetrics, shards: &[ShardSnapshot]) {
    let links = |of: fn(&ShardSnapshot) -> usize| {
        i64::try_from(shards.iter().map(of).sum::<usize>()).unwrap_or(i64::MAX)
    };
    metrics.relay_links.get(RelayLink::InProcess).set(links(|shard| shard.relay_links.0));
    metrics.relay_links.get(RelayLink::BetweenNodes).set(links(|shard| shard.relay_links.1));
    let mut totals = RelayTotals::default();
    shards.iter().for_each(|shard| totals.add(&shard.relay));
    let RelayTotals { near, far } = totals;
    let packets = |flow: RelayFlow, count: u64| metrics.relay_packets.get(flow).set(count);
    packets(RelayFlow::InProcessIn, near.frames_in);
    packets(RelayFlow::InProcessOut, near.frames_out);
    packets(RelayFlow::BetweenNodesIn, far.frames_in);
    packets(RelayFlow::BetweenNodesOut, far.frames_out);
    let bytes = |flow: RelayFlow, count: u64| metrics.relay_bytes.get(flow).set(count);
    bytes(RelayFlow::InProcessIn, near.bytes_in);
    bytes(RelayFlow::InProcessOut, near.bytes_out);
    bytes(RelayFlow::BetweenNodesIn, far.bytes_in);
    bytes(RelayFlow::BetweenNodesOut, far.bytes_out);
    for (link, totals) in [(RelayLink::InProcess, near), (RelayLink::BetweenNodes, far)] {
        metrics.relay_message_bytes.get(link).set(totals.message_bytes_out);
        metrics.relay_lost.get(link).set(totals.lost_in);
        metrics.relay_repeated.get(link).set(totals.repeated_out);
    }
    let dropped = |reason: RelayDrop, of: fn(&LinkDrops) -> u64| {
        metrics.relay_dropped.get(reason).set(of(&near.drops) + of(&far.drops));
    };
    dropped(RelayDrop::Malformed, |drops| drops.malformed);
    dropped(RelayDrop::UnknownTrack, |drops| drops.unknown_handle);
    dropped(RelayDrop::StaleEpoch, |drops| drops.stale_epoch);
    dropped(RelayDrop::Looped, |drops| drops.looped + drops.looped_announcements);
    dropped(RelayDrop::WrongSource, |drops| drops.wrong_source);
    dropped(RelayDrop::QueueFull, |drops| drops.queue_full);
    dropped(RelayDrop::Congested, |drops| drops.congested);
    dropped(RelayDrop::TooManyTracks, |drops| drops.too_many_tracks);
}

fn show_drops(metrics: &NodeMetrics, shards: &[ShardSnapshot]) {
    let set = |reason: DropReason, of: fn(&ShardSnapshot) -> u64| {
        metrics.rtp_dropped.get(reason).set(shards.iter().map(of).sum());
    };
    set(DropReason::Malformed, |shard| shard.sfu.drops.malformed);
    set(DropReason::UnknownStream, |shard| shard.sfu.drops.unknown_stream);
    set(DropReason::UnknownPayloadType, |shard| shard.sfu.drops.unknown_payload_type);
    set(DropReason::TooManyStreams, |shard| shard.sfu.drops.too_many_streams);
    set(DropReason::Duplicate, |shard| shard.sfu.drops.duplicate);
    set(DropReason::TooOld, |shard| shard.sfu.drops.too_old);
    set(DropReason::TooLong, |shard| shard.sfu.drops.too_long + shard.egress.too_long);
    set(DropReason::Padding, |shard| shard.sfu.drops.padding);
    set(DropReason::Muted, |shard| shard.sfu.drops.muted);
    set(DropReason::BatchFull, |shard| shard.sfu.drops.batch_full);
    set(DropReason::UnsupportedCodec, |shard| shard.sfu.drops.unsupported_codec);
    set(DropReason::SrtpRejected, |shard| shard.ingress.srtp_refused);
    set(DropReason::UncheckedPath, |shard| shard.ingress.unknown_path);
    set(DropReason::QueueFull, |shard| shard.egress.not_sent + shard.egress.no_path);
    let refused = |reason: RefusedRetransmission, of: fn(&ShardSnapshot) -> u64| {
        metrics.retransmissions_refused.get(reason).set(shards.iter().map(of).sum());
    };
    refused(RefusedRetransmission::Budget, |shard| shard.sfu.drops.retransmission_budget);
    refused(RefusedRetransmission::Repeated, |shard| shard.sfu.drops.retransmission_repeated);
    refused(RefusedRetransmission::Gone, |shard| shard.sfu.drops.retransmission_gone);
}
