//! Carries out what the rooms order of transports and of the forwarding core.

use std::time::Instant;

use headwater_model::media::MediaKind;
use headwater_room::{ChannelKey, ChannelReliability, MediaCommand};
use headwater_transport::{
    ChannelId, IceCredentials, MessageKind, RemoteParameters, Retransmission, Transport,
    TransportConfig,
};
use tracing::{debug, warn};

use super::media::Media;

impl Media {
    /// Does one thing. Orders for what is gone meanwhile do nothing; what is
    /// refused is logged, since the rooms keep to the same bounds.
    pub fn carry_out(&mut self, now: Instant, order: MediaCommand) {
        match order {
            MediaCommand::OpenTransport { transport, credentials } => {
                let identity = std::sync::Arc::clone(&self.identity);
                let config = TransportConfig::server(identity, ice(credentials));
                match self.sfu.add_transport(transport) {
                    Ok(()) => self.transports.insert(transport, Transport::new(now, config)),
                    Err(error) => warn!(%error, "transport refused"),
                }
            }
            MediaCommand::SetRemote { transport, remote } => {
                let Some(slot) = self.transports.get_mut(transport) else { return };
                let parameters = RemoteParameters {
                    fingerprint_sha256: remote.fingerprint,
                    ufrag: remote.credentials.ufrag,
                    pwd: remote.credentials.pwd,
                    max_message_size: remote.max_message_size,
                };
                if let Err(error) = slot.transport.set_remote(now, parameters) {
                    debug!(%error, "remote parameters refused");
                }
                self.transports.touch(transport);
            }
            MediaCommand::RestartIce { transport, credentials } => {
                let Some(slot) = self.transports.get_mut(transport) else { return };
                slot.transport.restart_ice(now, ice(credentials));
                self.transports.index_ufrags(transport);
                self.transports.touch(transport);
            }
            MediaCommand::CloseTransport { transport } => {
                self.sfu.remove_transport(transport);
                let slot = self.transports.get_mut(transport);
                if slot.is_some_and(|slot| slot.was_never_reached()) {
                    self.observer.never_reached();
                }
                self.transports.part(now, transport);
            }
            MediaCommand::OpenChannel { transport, label, reliability } => {
                let Some(slot) = self.transports.get_mut(transport) else { return };
                let opened = slot.transport.open_channel(now, label, delivery(reliability));
                if let Err(error) = opened {
                    debug!(%error, label, "channel refused");
                }
                self.transports.touch(transport);
            }
            MediaCommand::Send { transport, channel, payload } => {
                let Some(slot) = self.transports.get_mut(transport) else { return };
                let sent = slot.transport.send_message(
                    now,
                    channel_id(channel),
                    MessageKind::Binary,
                    &payload,
                );
                if let Err(error) = sent {
                    self.counters.messages_dropped += 1;
                    debug!(%error, "data message dropped");
                }
                self.transports.touch(transport);
            }
            MediaCommand::Publish { transport, track, publication } => {
                if let Err(error) = self.sfu.publish(now, transport, track, publication) {
                    warn!(%error, "publication refused");
                }
            }
            MediaCommand::Unpublish { track } => self.sfu.unpublish(track),
            MediaCommand::SetMuted { track, muted } => self.sfu.set_muted(now, track, muted),
            MediaCommand::JoinFloor { track, floor, seats } => {
                self.sfu.join_floor(track, floor, seats);
            }
            MediaCommand::Subscribe { subscription, track, transport, parameters } => {
                self.cascade.subscribed = true;
                let kind = parameters.codecs.first().map(|mapping| mapping.codec.kind());
                if kind == Some(MediaKind::Video) {
                    self.observer.subscribed(now, subscription);
                }
                if let Err(error) =
                    self.sfu.subscribe(now, subscription, track, transport, parameters)
                {
                    warn!(%error, "subscription refused");
                }
            }
            MediaCommand::Unsubscribe { subscription } => {
                self.observer.unsubscribed(subscription);
                self.sfu.unsubscribe(subscription);
            }
            MediaCommand::SetTarget { subscription, target } => {
                self.cascade.subscribed = true;
                if let Err(error) = self.sfu.set_target(now, subscription, target) {
                    debug!(%error, "target refused");
                }
            }
            MediaCommand::SetProminence { subscription, prominence } => {
                if let Err(error) = self.sfu.set_prominence(subscription, prominence) {
                    debug!(%error, "prominence refused");
                }
            }
            MediaCommand::LimitDownlink { transport, limit } => {
                self.sfu.limit_downlink(transport, limit);
            }
        }
    }
}

/// Reliable is in order and for ever; lossy is in any order and once.
const fn delivery(reliability: ChannelReliability) -> headwater_transport::ChannelReliability {
    let (ordered, retransmission) = match reliability {
        ChannelReliability::Reliable => (true, Retransmission::Unlimited),
        ChannelReliability::Lossy => (false, Retransmission::AtMost(0)),
    };
    headwater_transport::ChannelReliability { ordered, retransmission }
}

fn ice(credentials: headwater_room::IceCredentials) -> IceCredentials {
    IceCredentials { ufrag: credentials.ufrag, pwd: credentials.pwd }
}

/// The SCTP stream of a channel; keys are made from streams, so all fit.
fn channel_id(channel: ChannelKey) -> ChannelId {
    ChannelId(u16::try_from(channel.0).unwrap_or(u16::MAX))
}
