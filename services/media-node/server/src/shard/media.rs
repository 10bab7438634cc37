//! The three cores of a shard and how they feed each other: what arrives goes to
//! transports, from there to the forwarding core and the rooms, and back.

use std::sync::Arc;
use std::time::Instant;

use headwater_model::media::TransportKey;
use headwater_room::{
    ChannelKey, ChannelReliability, Limitation, MediaEvent, QualitySubject, Rooms,
};
use headwater_sfu::{Sfu, SfuEvent};
use headwater_transport::{
    ChannelId, DtlsIdentity, Output, PacketClass, Path, Retransmission, TransportEvent, classify,
    stun_local_ufrag,
};

use super::cascade::Cascade;
use super::observe::Observer;
use super::transports::Transports;

/// What arrived and was not taken, since the start. Plain integers.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngressCounters {
    /// STUN for a ufrag that nobody has.
    pub stun_unknown_ufrag: u64,
    /// STUN that is malformed or whose integrity is wrong.
    pub stun_refused: u64,
    /// DTLS, RTP or RTCP from a path that nobody authenticated.
    pub unknown_path: u64,
    /// SRTP or SRTCP that does not verify, or came before.
    pub srtp_refused: u64,
    /// Neither STUN nor DTLS nor RTP.
    pub unknown_class: u64,
    /// Data messages that a participant's full channel did not take.
    pub messages_dropped: u64,
    /// Transports that connected.
    pub connected: u64,
    /// Transports that failed.
    pub failed: u64,
    /// Sum of the times from creation to connection, in microseconds.
    pub connect_micros: u64,
}

/// The cores of a shard.
pub struct Media {
    /// ICE, DTLS, SRTP, SCTP of each participant.
    pub transports: Transports,
    /// Forwarding.
    pub sfu: Sfu,
    /// Participants, tracks, negotiation.
    pub rooms: Rooms,
    /// The node's certificate.
    pub identity: Arc<DtlsIdentity>,
    /// Counters.
    pub counters: IngressCounters,
    /// What the metrics are told as it happens.
    pub observer: Observer,
    /// Links to other shards.
    pub cascade: Cascade,
    /// Paths authenticated since the last wake-up.
    pub confirmed: Vec<Path>,
}

impl Media {
    /// Takes one datagram. The order of checks keeps strangers cheap: nothing is
    /// remembered and nothing answered before STUN's integrity was verified.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        match classify(datagram) {
            PacketClass::Rtp => self.handle_rtp(now, path, datagram),
            PacketClass::Rtcp => self.handle_rtcp(now, path, datagram),
            PacketClass::Stun => self.handle_stun(now, path, datagram),
            PacketClass::Dtls => match self.transports.by_path(path) {
                Some((key, slot)) => {
                    slot.transport.handle_dtls(now, path, datagram);
                    self.transports.touch(key);
                }
                None => self.counters.unknown_path += 1,
            },
            PacketClass::Unknown => self.counters.unknown_class += 1,
        }
    }

    fn handle_rtp(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        let Some((key, slot)) = self.transports.by_path(path) else {
            self.counters.unknown_path += 1;
            return;
        };
        match slot.transport.unprotect_rtp(now, datagram) {
            Ok(_) if slot.parted => {}
            Ok(len) => self.sfu.handle_rtp(now, key, &datagram[..len]),
            Err(_) => self.counters.srtp_refused += 1,
        }
    }

    fn handle_rtcp(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        let Some((key, slot)) = self.transports.by_path(path) else {
            self.counters.unknown_path += 1;
            return;
        };
        match slot.transport.unprotect_rtcp(datagram) {
            Ok(_) if slot.parted => {}
            Ok(len) => self.sfu.handle_rtcp(now, key, &datagram[..len]),
            Err(_) => self.counters.srtp_refused += 1,
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        let key = stun_local_ufrag(datagram).and_then(|ufrag| self.transports.by_ufrag(ufrag));
        let Some(key) = key else {
            self.counters.stun_unknown_ufrag += 1;
            return;
        };
        let Some(slot) = self.transports.get_mut(key) else { return };
        if slot.transport.handle_stun(now, path, datagram).is_err() {
            self.counters.stun_refused += 1;
            return;
        }
        self.transports.learn_path(key, path);
        self.transports.touch(key);
        self.confirmed.push(path);
    }

    /// Lets one transport say what it has to say: datagrams go to `transmit`.
    pub fn drain_transport(
        &mut self,
        now: Instant,
        key: TransportKey,
        mut transmit: impl FnMut(Path, &[u8]),
    ) {
        while let Some(slot) = self.transports.get_mut(key) {
            match slot.transport.poll_output() {
                Some(Output::Transmit { path, datagram }) => transmit(path, &datagram),
                Some(Output::Event(event)) => self.handle_transport_event(now, key, event),
                None => break,
            }
        }
        self.transports.settle(key);
    }

    fn handle_transport_event(&mut self, now: Instant, key: TransportKey, event: TransportEvent) {
        let transport = key;
        if self.transports.get_mut(key).is_none_or(|slot| slot.parted) {
            return;
        }
        let event = match event {
            TransportEvent::PathSelected(_) => return,
            TransportEvent::Connected { elapsed, .. } => {
                self.counters.connected += 1;
                self.observer.connected();
                self.counters.connect_micros +=
                    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
                if let Some(slot) = self.transports.get_mut(key) {
                    slot.connected = true;
                }
                self.sfu.set_connected(now, key, true);
                MediaEvent::TransportConnected { transport }
            }
            TransportEvent::ChannelOpen { id, label, reliability, .. } => MediaEvent::ChannelOpen {
                transport,
                channel: channel_key(id),
                label,
                reliability: match reliability.retransmission {
                    Retransmission::Unlimited => ChannelReliability::Reliable,
                    Retransmission::AtMost(_) | Retransmission::For(_) => ChannelReliability::Lossy,
                },
            },
            TransportEvent::ChannelClosed { id } => {
                MediaEvent::ChannelClosed { transport, channel: channel_key(id) }
            }
            TransportEvent::Message { id, data, .. } => {
                MediaEvent::ChannelMessage { transport, channel: channel_key(id), payload: data }
            }
            TransportEvent::Failed(reason) => {
                self.observer.failed(reason);
                self.lose(now, key);
                // The SRTP keys of a path that went silent would still be good, but the
                // transport is over: the client makes a new one.
                MediaEvent::TransportFailed { transport, recoverable: false }
            }
            TransportEvent::Closed => {
                self.lose(now, key);
                MediaEvent::TransportFailed { transport, recoverable: false }
            }
        };
        self.rooms.handle_media(now, event);
    }

    fn lose(&mut self, now: Instant, key: TransportKey) {
        self.counters.failed += 1;
        if let Some(slot) = self.transports.get_mut(key) {
            slot.connected = false;
        }
        self.sfu.set_connected(now, key, false);
    }

    /// Tells the rooms what the forwarding core noticed.
    pub fn pass_sfu_events(&mut self, now: Instant) {
        while let Some(event) = self.sfu.poll_event() {
            let event = match event {
                SfuEvent::TrackStarted { track, codec, .. } => {
                    MediaEvent::TrackStarted { track, codec }
                }
                SfuEvent::SpeakerLevel { track, level, active } => {
                    MediaEvent::SpeakerLevel { track, level, active }
                }
                SfuEvent::Quality(quality) => {
                    self.observer.quality(&quality);
                    MediaEvent::Quality {
                        subject: match quality.subject {
                            headwater_sfu::QualitySubject::Published(track) => {
                                QualitySubject::Track(track)
                            }
                            headwater_sfu::QualitySubject::Subscriber(transport) => {
                                QualitySubject::Transport(transport)
                            }
                        },
                        loss_ratio: quality.loss_ratio,
                        rtt: quality.rtt,
                        jitter: quality.jitter,
                        limitation: match quality.limitation {
                            headwater_sfu::Limitation::None => Limitation::None,
                            headwater_sfu::Limitation::Reduced => Limitation::Reduced,
                            headwater_sfu::Limitation::Paused => Limitation::Paused,
                        },
                    }
                }
                SfuEvent::Paused { track, transport, paused, .. } => {
                    MediaEvent::Paused { transport, track, paused }
                }
                SfuEvent::LayerForwarded { subscription, .. } => {
                    self.observer.forwarded(now, subscription);
                    continue;
                }
            };
            self.rooms.handle_media(now, event);
        }
    }

    /// Does what is due in all of them.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transports.handle_timeout(now);
        self.cascade.relay.handle_timeout(now, &mut self.sfu);
        self.sfu.handle_timeout(now);
        self.rooms.handle_timeout(now);
    }

    /// When something is due next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let relay = self.cascade.relay.poll_timeout();
        [self.transports.poll_timeout(), relay, self.sfu.poll_timeout(), self.rooms.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Channels are named by their SCTP stream.
pub fn channel_key(id: ChannelId) -> ChannelKey {
    ChannelKey(u32::from(id.0))
}
