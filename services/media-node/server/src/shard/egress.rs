//! Packet path: encrypts what the forwarding core hands out and queues it, frame
//! by frame and subscriber by subscriber, so that it leaves in few trains.

use headwater_model::media::{TrackKey, TransportKey};
use headwater_relay::ShardRelay;
use headwater_rtp::append_padding;
use headwater_sfu::{Egress, OutgoingRtp, RelayClock, RelayPacket};
use headwater_transport::{SRTP_OVERHEAD_MAX, SrtpError};

use super::padding::{PADDING_MAX, padding_of};
use super::ports::Ports;
use super::transports::Transports;

/// Longest plain packet that is sent: with SRTP, UDP and IPv6 around it, it fits an
/// Ethernet frame.
const PACKET_BYTES_MAX: usize = 1_400;
/// The same, padded and encrypted.
pub const DATAGRAM_BYTES_MAX: usize = PACKET_BYTES_MAX + PADDING_MAX + SRTP_OVERHEAD_MAX;

/// What could not be sent, since the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct EgressDrops {
    /// The subscriber has no path.
    pub no_path: u64,
    /// Longer than a datagram may be.
    pub too_long: u64,
    /// Keys are missing or used up, or the connection is full.
    pub not_sent: u64,
}

/// Where a shard's packets leave.
pub struct Outbox<'a> {
    /// The transports.
    pub transports: &'a mut Transports,
    /// The sockets.
    pub ports: &'a mut Ports,
    /// Links to other shards.
    pub relay: &'a mut ShardRelay,
    /// Counters.
    pub drops: &'a mut EgressDrops,
    /// Room to encrypt what goes over TCP.
    pub scratch: &'a mut [u8],
}

impl Egress for Outbox<'_> {
    fn relay(&mut self, track: TrackKey, packet: RelayPacket<'_>) {
        self.relay.relay(track, &packet);
    }

    fn relay_clock(&mut self, track: TrackKey, clock: RelayClock) {
        self.relay.relay_clock(track, clock);
    }

    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        let len = packet.len();
        if len > PACKET_BYTES_MAX {
            self.drops.too_long += 1;
            return;
        }
        let Some(transport) = self.transports.get_mut(to).map(|slot| &mut slot.transport) else {
            self.drops.no_path += 1;
            return;
        };
        let Some(path) = transport.selected_path() else {
            self.drops.no_path += 1;
            return;
        };
        let train = self.ports.open_train(path);
        let padding = padding_of(&packet, transport.rtp_overhead(), train);
        let room = len + usize::from(padding) + SRTP_OVERHEAD_MAX;
        let sent = self.ports.send_media(path, room, self.scratch, |out| {
            packet.copy_into(out)?;
            let padded = append_padding(out, len, padding).ok()?;
            match transport.protect_rtp(out, packet.header.len(), padded) {
                // A lost packet that goes out again under its own number, for
                // want of RTX: the forwarding core repeats it to the byte.
                Err(SrtpError::NonceReuse) if !packet.may_pad => {
                    transport.repeat_rtp(out, packet.header.len(), len).ok()
                }
                sealed => sealed.ok(),
            }
        });
        self.drops.not_sent += u64::from(sent.is_none());
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        if self.relay.rtcp(to, compound) {
            return;
        }
        let len = compound.len();
        if len > PACKET_BYTES_MAX {
            self.drops.too_long += 1;
            return;
        }
        let Some(transport) = self.transports.get_mut(to).map(|slot| &mut slot.transport) else {
            self.drops.no_path += 1;
            return;
        };
        let Some(path) = transport.selected_path() else {
            self.drops.no_path += 1;
            return;
        };
        let sent = self.ports.send_media(path, len + SRTP_OVERHEAD_MAX, self.scratch, |out| {
            out.get_mut(..len)?.copy_from_slice(compound);
            transport.protect_rtcp(out, len).ok()
        });
        self.drops.not_sent += u64::from(sent.is_none());
    }
}
