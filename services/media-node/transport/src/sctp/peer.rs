//! The SCTP association of one peer by `rtc-sctp`, keeping the library's
//! endpoint and its associations in step.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rtc_sctp::{
    Association, AssociationError, AssociationHandle, Chunks, ClientConfig, DatagramEvent,
    Endpoint, EndpointConfig, EndpointEvent, Event, Payload, PayloadProtocolIdentifier as Ppi,
    ServerConfig, TimerConfig, TransportConfig,
};
use rtc_shared::TransportProtocol;

use super::guard::STREAMS_MAX;
use super::{ChannelLimits, ChannelReliability, library_reliability};
use crate::contain::contain;

/// The library wants addresses; under DTLS there are none.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5000));
/// Received bytes that may wait for the rest of their message; also the window
/// that the peer is told. Two of the longest messages at once.
const RECEIVE_BUFFER: u32 = 1 << 20;
/// The library makes a new association for each repeated INIT; the first one to
/// come up is kept.
const CANDIDATES_MAX: usize = 4;

/// See the module's documentation.
pub(super) struct Peer {
    endpoint: Endpoint,
    transport: TransportConfig,
    associations: Vec<(AssociationHandle, Association)>,
    established: bool,
    packets: VecDeque<Bytes>,
    panics: u64,
}

impl Peer {
    /// Waits for INIT.
    pub fn new(limits: ChannelLimits) -> Self {
        let transport = TransportConfig::default()
            .with_max_message_size(u32::try_from(limits.receive_message_max).unwrap_or(u32::MAX))
            .with_max_receive_buffer_size(RECEIVE_BUFFER)
            .with_max_num_inbound_streams(STREAMS_MAX)
            .with_max_num_outbound_streams(STREAMS_MAX)
            .with_timer_config(TimerConfig {
                // The path's consent decides when to give up, not SCTP.
                max_t3_rtx_retrans: usize::MAX,
                max_reconfig_retrans: usize::MAX,
                max_t1_init_retrans: usize::MAX,
                max_t1_cookie_retrans: usize::MAX,
                ..TimerConfig::default()
            });
        let server = Arc::new(ServerConfig::new(transport.clone()));
        let endpoint = Endpoint::new(
            PEER,
            TransportProtocol::UDP,
            Arc::new(EndpointConfig::new()),
            Some(server),
        );
        Self {
            endpoint,
            transport,
            associations: Vec::new(),
            established: false,
            packets: VecDeque::new(),
            panics: 0,
        }
    }

    /// Sends INIT.
    pub fn connect(&mut self, now: Instant) {
        self.endpoint.reject_new_associations();
        let config = ClientConfig::new(self.transport.clone());
        if let Ok(association) = self.endpoint.connect(now, config, PEER) {
            self.associations.push(association);
        }
        self.collect(now);
    }

    pub fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        if contain(|| self.handle_admitted_packet(now, packet)).is_none() {
            self.lose();
        }
    }

    fn handle_admitted_packet(&mut self, now: Instant, packet: &[u8]) {
        match self.endpoint.handle(now, PEER, None, Bytes::copy_from_slice(packet)) {
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                if self.associations.len() == CANDIDATES_MAX {
                    self.release(0);
                }
                self.associations.push((handle, association));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) =
                    self.associations.iter_mut().find(|(known, _)| *known == handle)
                {
                    association.handle_event(event);
                }
            }
            Some(_) | None => {}
        }
        self.collect(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let advance = || {
            for (_, association) in &mut self.associations {
                association.handle_timeout(now);
            }
            self.collect(now);
        };
        if contain(advance).is_none() {
            self.lose();
        }
    }

    /// Panics of the library, each of which ended an association.
    pub const fn panics(&self) -> u64 {
        self.panics
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.associations.iter().filter_map(|(_, association)| association.poll_timeout()).min()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        let mut index = 0;
        while index < self.associations.len() {
            let Some(event) = self.associations[index].1.poll() else {
                index += 1;
                continue;
            };
            if matches!(event, Event::Connected) && !self.established {
                self.keep_only(index);
            } else if !self.established {
                continue;
            }
            return Some(event);
        }
        None
    }

    pub fn poll_packet(&mut self, now: Instant) -> Option<Bytes> {
        if self.packets.is_empty() {
            self.collect(now);
        }
        self.packets.pop_front()
    }

    /// The association was up and is gone.
    pub fn is_lost(&self) -> bool {
        self.established && self.associations.iter().all(|(_, association)| association.is_closed())
    }

    /// Makes sure that a stream exists.
    pub fn open_stream(&mut self, id: u16) -> bool {
        self.has_stream(id)
            || self
                .current()
                .is_some_and(|association| association.open_stream(id, Ppi::Binary).is_ok())
    }

    pub fn has_stream(&mut self, id: u16) -> bool {
        self.current().is_some_and(|association| association.stream(id).is_ok())
    }

    pub fn set_reliability(&mut self, id: u16, reliability: ChannelReliability) {
        let (unordered, kind, value) = library_reliability(reliability);
        if let Some(mut stream) = self.current().and_then(|association| association.stream(id).ok())
        {
            // Fails for a missing stream only, and this one is there.
            let _ = stream.set_reliability_params(unordered, kind, value);
        }
    }

    /// Unsent and unacknowledged bytes of a stream.
    pub fn buffered(&mut self, id: u16) -> usize {
        self.current()
            .and_then(|association| association.stream(id).ok()?.buffered_amount().ok())
            .unwrap_or(0)
    }

    pub fn write(&mut self, now: Instant, id: u16, payload: &[u8], ppi: Ppi) -> bool {
        self.current()
            .and_then(|association| {
                association.stream(id).ok()?.write_with_ppi(now, payload, ppi).ok()
            })
            .is_some()
    }

    pub fn read(&mut self, id: u16) -> Option<Chunks> {
        self.current()?.stream(id).ok()?.read_sctp().ok()?
    }

    pub fn reset(&mut self, now: Instant, id: u16) {
        if let Some(mut stream) = self.current().and_then(|association| association.stream(id).ok())
        {
            // Fails outside of the established state only; then there is no peer to tell.
            let _ = stream.close(now);
        }
    }

    /// ABORT goes out with the next packets.
    pub fn abort(&mut self) {
        for (_, association) in &mut self.associations {
            // Fails only if the chunk cannot be queued, which leaves nothing to do.
            let _ = association.abort();
        }
    }

    fn current(&mut self) -> Option<&mut Association> {
        self.associations
            .first_mut()
            .filter(|_| self.established)
            .map(|(_, association)| association)
    }

    /// The association at `index` came up: the others were repeated INITs.
    fn keep_only(&mut self, index: usize) {
        self.established = true;
        self.endpoint.reject_new_associations();
        self.associations.swap(0, index);
        while self.associations.len() > 1 {
            self.release(self.associations.len() - 1);
        }
    }

    /// The library panicked: nothing of it is used again.
    fn lose(&mut self) {
        self.panics += 1;
        self.associations.clear();
        self.packets.clear();
        self.endpoint.reject_new_associations();
        self.established = true;
    }

    /// Drops an association and its slot in the endpoint.
    fn release(&mut self, index: usize) {
        let (handle, mut association) = self.associations.remove(index);
        // Closing cannot fail; it stops the timers.
        let _ = association.close(AssociationError::LocallyClosed);
        self.endpoint.handle_event(handle, EndpointEvent::drained());
    }

    /// Takes the packets that the associations have ready, and tells the
    /// endpoint of those that are over: their slot goes exactly once.
    fn collect(&mut self, now: Instant) {
        let Self { endpoint, associations, packets, .. } = self;
        associations.retain_mut(|(handle, association)| {
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(ready) = transmit.message {
                    packets.extend(ready);
                }
            }
            let drained = association.poll_endpoint_event();
            let is_over = drained.is_some();
            if let Some(event) = drained {
                endpoint.handle_event(*handle, event);
            }
            !is_over
        });
    }
}
