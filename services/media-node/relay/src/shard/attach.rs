//! Tracks of other shards in the forwarding core: their publishers appear as transports
//! that are always connected, and what is asked of those goes to where they are.

use std::time::Instant;

use headwater_model::media::{TrackKey, TransportKey};
use headwater_model::{RoomId, TrackUid};
use headwater_rtp::rtcp::{Compound, RtcpPacket};
use headwater_sfu::{Sfu, SfuError};

use super::ShardRelay;

/// Why a track of another shard was not taken into the forwarding core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The room is not carried, or the track is gone meanwhile.
    #[error("the track is not known to the relay")]
    Unknown,
    /// The forwarding core refused it.
    #[error("the forwarding core refused the track")]
    Refused(#[source] SfuError),
}

impl ShardRelay {
    /// Publishes a track of another shard in the forwarding core. Tracks of one
    /// participant share a transport, so that its sound and pictures share a clock;
    /// the transport is added with its first track. Both keys were never used before.
    ///
    /// # Errors
    /// [`AttachError::Unknown`], [`AttachError::Refused`].
    pub fn attach(
        &mut self,
        now: Instant,
        (room, track): (&RoomId, &TrackUid),
        (key, transport): (TrackKey, TransportKey),
        sfu: &mut Sfu,
    ) -> Result<(), AttachError> {
        let index = *self.by_room.get(room).ok_or(AttachError::Unknown)?;
        let junction = &mut self.junctions[index];
        let mut publication = junction.attach(now, track, key).ok_or(AttachError::Unknown)?;
        for encoding in &mut publication.encodings {
            self.last_ssrc = self.last_ssrc.wrapping_add(1).max(1);
            encoding.ssrc = Some(self.last_ssrc);
        }
        let ssrcs: Vec<_> = publication.encodings.iter().filter_map(|one| one.ssrc).collect();
        let known = self.transports.contains_key(&transport);
        let added = if known { Ok(()) } else { sfu.add_transport(transport) };
        let published = added.and_then(|()| sfu.publish(now, transport, key, publication));
        if let Err(error) = published {
            if !known {
                sfu.remove_transport(transport);
            }
            self.junctions[index].forget_key(now, key);
            return Err(AttachError::Refused(error));
        }
        sfu.set_connected(now, transport, true);
        self.transports.entry(transport).or_default().push(key);
        self.by_track.insert(key, index);
        for (encoding, ssrc) in (0..).zip(ssrcs) {
            self.by_ssrc.insert(ssrc, (index, key, encoding));
        }
        Ok(())
    }

    /// Takes a track of another shard out of the forwarding core, and its transport
    /// with the last of its tracks.
    pub fn detach(&mut self, now: Instant, key: TrackKey, sfu: &mut Sfu) {
        sfu.unpublish(key);
        if let Some(index) = self.by_track.remove(&key) {
            self.junctions[index].forget_key(now, key);
        }
        self.by_ssrc.retain(|_, (_, other, _)| *other != key);
        self.transports.retain(|transport, tracks| {
            tracks.retain(|other| *other != key);
            if tracks.is_empty() {
                sfu.remove_transport(*transport);
            }
            !tracks.is_empty()
        });
    }

    /// From [`headwater_sfu::Egress::rtcp`]: what the forwarding core asks of a
    /// publisher. `false` if the transport is not one of the relay's.
    pub fn rtcp(&mut self, to: TransportKey, compound: &[u8]) -> bool {
        if !self.transports.contains_key(&to) {
            return false;
        }
        for packet in Compound::new(compound).flatten() {
            match packet {
                RtcpPacket::Nack(nack) => {
                    if let Some((index, key, encoding)) = self.by_ssrc.get(&nack.media_ssrc) {
                        self.junctions[*index].ask_repeat(*key, *encoding, nack.lost());
                    }
                }
                RtcpPacket::PictureLossIndication(pli) => {
                    if let Some((index, key, encoding)) = self.by_ssrc.get(&pli.media_ssrc) {
                        self.junctions[*index].ask_keyframe(*key, *encoding);
                    }
                }
                // Reports say nothing that the link does not measure itself.
                _ => {}
            }
        }
        true
    }
}
