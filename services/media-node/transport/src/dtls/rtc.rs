//! DTLS 1.2 by `rtc-dtls`, fed through a front of our own.
//!
//! The library takes what it is given too literally for a public port, so the
//! front puts handshake messages together itself and hands in whole messages,
//! in order and once: otherwise a partial flight stops the library's timer for
//! good, repeated messages pile up in its buffers, and a chain of one-byte
//! fragments recurses as deep as it is long. Plain alerts, plain data and
//! records of unknown type never get through, and what is sealed is budgeted
//! until the handshake is done. The first ClientHello is read before the
//! library is started, because it follows the client's order of SRTP profiles.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc_dtls::cipher_suite::CipherSuiteId;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::handshake::{Inbox, Message};
use super::hello::{ClientHello, verify_request_cookie};
use super::record::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, Record, fragments, plain_message,
    plain_record, records, renumber, repeat_notice,
};
use super::server_flight::{ANSWER_INTERVAL, ServerFlight};
use super::{
    DtlsAssociation, DtlsIdentity, DtlsOutput, DtlsProblem, Established, Fingerprint, NotEstablished, SrtpPreference,
    srtp_session,
};
use crate::srtp::SrtpProfile;
use crate::stun::provider;

/// The library knows peers by address. Ours has one, so that a change of path
/// and TCP make no difference.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5000));

/// Sealed records and ChangeCipherSpecs taken before the handshake is done; the
/// library queues them. A peer sends one or two per repeat of its last flight.
const EARLY_RECORDS_MAX: u32 = 128;
/// Answers to a repeated last flight of the peer, over the association's life.
const REPEAT_NOTICES_MAX: u32 = 32;
/// ClientHellos whose cookie is waited for: one is the peer's, the others can
/// only be forged. The oldest gives way.
const CANDIDATES_MAX: usize = 4;
/// The client's flights are repeated by the library, at this fixed interval.
const CLIENT_FLIGHT_INTERVAL: Duration = Duration::from_millis(500);
/// Sealed records may overtake each other in bursts of data.
const RECORD_REPLAY_WINDOW: usize = 512;

enum Stage {
    /// Client: not started.
    Idle,
    /// Server: who has been sent a HelloVerifyRequest. Whoever returns the
    /// cookie goes on.
    Hello(Vec<Candidate>),
    /// Flights are exchanged.
    Handshake(Endpoint),
    Established(Endpoint),
    Closed,
}

/// One ClientHello that was answered by a HelloVerifyRequest.
struct Candidate {
    endpoint: Endpoint,
    random: [u8; 32],
    cookie: Vec<u8>,
    request: Vec<BytesMut>,
}

/// See the module's documentation.
pub(crate) struct RtcDtls {
    identity: Arc<DtlsIdentity>,
    preference: SrtpPreference,
    is_client: bool,
    stage: Stage,
    /// Server: ClientHellos without a cookie, message 0.
    first_hello: Inbox,
    /// Everything else.
    inbox: Inbox,
    flight: ServerFlight,
    outputs: VecDeque<DtlsOutput>,
    /// Record sequence numbers of epoch 0, towards the library and the peer.
    next_record_in: u64,
    next_record_out: u64,
    early_records: u32,
    repeat_notices: u32,
    noticed_at: Option<Instant>,
    problem: Option<DtlsProblem>,
    discarded: u64,
}

impl RtcDtls {
    /// An association that has not begun. A server waits for a ClientHello, a
    /// client sends it at [`DtlsAssociation::start`].
    pub fn new(identity: Arc<DtlsIdentity>, preference: SrtpPreference, is_client: bool) -> Self {
        let mut inbox = Inbox::default();
        if !is_client {
            // Message 0 of a client is the ClientHello without a cookie.
            inbox.rewind(1);
        }
        Self {
            identity,
            preference,
            is_client,
            stage: if is_client { Stage::Idle } else { Stage::Hello(Vec::new()) },
            first_hello: Inbox::default(),
            inbox,
            flight: ServerFlight::default(),
            outputs: VecDeque::new(),
            next_record_in: 0,
            next_record_out: 0,
            early_records: 0,
            repeat_notices: 0,
            noticed_at: None,
            problem: None,
            discarded: 0,
        }
    }

    fn handle_record(&mut self, now: Instant, record: Record<'_>) {
        match (record.content, record.epoch) {
            (HANDSHAKE, 0) => self.handle_plain_handshake(now, record),
            (CHANGE_CIPHER_SPEC, 0) if record.body == [1] => self.handle_change_cipher_spec(now),
            (HANDSHAKE | ALERT | APPLICATION_DATA, 1..) => self.handle_sealed(now, record),
            // Plain alerts and data can be anybody's: RFC 6347 §4.1.2.7.
            _ => self.discarded += 1,
        }
    }

    fn handle_plain_handshake(&mut self, now: Instant, record: Record<'_>) {
        let mut repeated = false;
        for fragment in fragments(record.body) {
            let taken = match &self.stage {
                Stage::Hello(_) if fragment.sequence == 0 => self.first_hello.push(fragment),
                Stage::Hello(_) | Stage::Handshake(_) if fragment.sequence >= self.inbox.next_sequence() => {
                    self.inbox.push(fragment)
                }
                Stage::Hello(_) | Stage::Handshake(_) | Stage::Established(_) => {
                    repeated |= fragment.offset == 0;
                    true
                }
                Stage::Idle | Stage::Closed => false,
            };
            self.discarded += u64::from(!taken);
            if let Some(message) = self.first_hello.pop() {
                self.first_hello.rewind(0);
                self.handle_first_hello(now, message);
            }
            while let Some(message) = self.inbox.pop() {
                self.handle_message(now, message);
            }
        }
        if repeated {
            self.handle_repeated_flight(now);
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message) {
        match &self.stage {
            Stage::Hello(_) => self.handle_second_hello(now, message),
            Stage::Handshake(_) => self.feed_message(now, &message),
            Stage::Idle | Stage::Established(_) | Stage::Closed => {}
        }
    }

    fn handle_first_hello(&mut self, now: Instant, message: Message) {
        let chosen = if message.message_type == CLIENT_HELLO {
            choose_profile(&message.body, self.preference)
        } else {
            Err(DtlsProblem::BadClientHello)
        };
        let (profile, random) = match chosen {
            Ok(chosen) => chosen,
            Err(problem) => {
                self.problem = Some(problem);
                self.discarded += 1;
                return;
            }
        };
        let Stage::Hello(candidates) = &self.stage else { return };
        if let Some(known) = candidates.iter().find(|candidate| candidate.random == random) {
            return self.send_all(known.request.clone());
        }
        match self.answer_hello(now, profile, random, &message) {
            Ok(candidate) => {
                self.send_all(candidate.request.clone());
                if let Stage::Hello(candidates) = &mut self.stage {
                    if candidates.len() == CANDIDATES_MAX {
                        candidates.remove(0);
                    }
                    candidates.push(candidate);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "ClientHello refused");
                self.problem = Some(DtlsProblem::Handshake);
                self.discarded += 1;
            }
        }
    }

    /// Starts the library with exactly the chosen profile.
    fn answer_hello(
        &mut self,
        now: Instant,
        profile: SrtpProfile,
        random: [u8; 32],
        hello: &Message,
    ) -> rtc_shared::error::Result<Candidate> {
        let config = config(&self.identity, &[profile], false)?;
        let mut endpoint = endpoint(Some(Arc::new(config)));
        let record = plain_message(self.next_record_in(), hello.message_type, 0, &hello.body);
        endpoint.read(now, PEER, None, BytesMut::from(&record[..]))?;
        let request = drain_transmits(&mut endpoint);
        let cookie = request
            .first()
            .and_then(|datagram| verify_request_cookie(datagram))
            .ok_or(Error::ErrCookieMismatch)?;
        Ok(Candidate { endpoint, random, cookie, request })
    }

    /// The ClientHello that returns a cookie starts the handshake proper. A
    /// forged one cannot know the cookie and changes nothing.
    fn handle_second_hello(&mut self, now: Instant, message: Message) {
        let Stage::Hello(candidates) = &mut self.stage else { return };
        let proven = ClientHello::parse(&message.body)
            .filter(|_| message.message_type == CLIENT_HELLO)
            .and_then(|hello| {
                candidates
                    .iter()
                    .position(|candidate| hello.cookie == candidate.cookie && hello.random == candidate.random)
            });
        let Some(index) = proven else {
            self.discarded += 1;
            self.inbox.rewind(message.sequence);
            return;
        };
        self.stage = Stage::Handshake(candidates.swap_remove(index).endpoint);
        self.feed_message(now, &message);
    }

    fn feed_message(&mut self, now: Instant, message: &Message) {
        let record = plain_message(self.next_record_in(), message.message_type, message.sequence, &message.body);
        self.feed(now, &record);
    }

    fn handle_change_cipher_spec(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Handshake(_)) && self.take_early_budget() {
            let record = plain_record(self.next_record_in(), CHANGE_CIPHER_SPEC, &[1]);
            self.feed(now, &record);
        } else {
            self.discarded += 1;
        }
    }

    fn handle_sealed(&mut self, now: Instant, record: Record<'_>) {
        let taken = match &self.stage {
            Stage::Handshake(_) => self.take_early_budget(),
            // Renegotiation is not spoken, and a repeated Finished comes with
            // plain messages that are noticed.
            Stage::Established(_) => record.content != HANDSHAKE,
            Stage::Idle | Stage::Hello(_) | Stage::Closed => false,
        };
        if taken {
            self.feed(now, record.raw);
        } else {
            self.discarded += 1;
        }
    }

    fn take_early_budget(&mut self) -> bool {
        let taken = self.early_records < EARLY_RECORDS_MAX;
        self.early_records += u32::from(taken);
        taken
    }

    /// The peer repeats a flight that has been handled: ours was lost.
    fn handle_repeated_flight(&mut self, now: Instant) {
        match &self.stage {
            Stage::Handshake(_) if !self.is_client => self.transmit_repeat(now, ServerFlight::repeat_by_request),
            Stage::Established(_) if !self.is_client && self.may_notice_repeat(now) => {
                self.repeat_notices += 1;
                self.noticed_at = Some(now);
                let notice = repeat_notice(self.next_record_in());
                self.feed(now, &notice);
            }
            // The client repeats by its own clock.
            Stage::Handshake(_) | Stage::Established(_) | Stage::Idle | Stage::Hello(_) | Stage::Closed => {
                self.discarded += 1;
            }
        }
    }

    /// One repeated flight comes in several records; it is answered once.
    fn may_notice_repeat(&self, now: Instant) -> bool {
        self.repeat_notices < REPEAT_NOTICES_MAX && self.noticed_at.is_none_or(|at| at + ANSWER_INTERVAL <= now)
    }

    /// Hands one record to the library and takes everything that comes of it.
    fn feed(&mut self, now: Instant, record: &[u8]) {
        let (mut endpoint, established) = match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Handshake(endpoint) => (endpoint, false),
            Stage::Established(endpoint) => (endpoint, true),
            other => {
                self.stage = other;
                return;
            }
        };
        let result = endpoint.read(now, PEER, None, BytesMut::from(record));
        if !established && let Err(error) = &result {
            return self.restart(error);
        }
        self.stage = if established { Stage::Established(endpoint) } else { Stage::Handshake(endpoint) };
        match result {
            Ok(events) => events.into_iter().for_each(|event| self.handle_event(event)),
            Err(Error::ErrAlertFatalOrClose) => self.peer_closed(),
            Err(error) => {
                self.discarded += 1;
                tracing::debug!(%error, "DTLS record dropped");
            }
        }
        self.after_feed(now);
    }

    fn after_feed(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Handshake(endpoint) if !self.is_client => {
                let flight = drain_transmits(endpoint);
                if !flight.is_empty() {
                    self.flight.replace(now, flight.clone());
                    self.send_all(flight);
                }
            }
            Stage::Handshake(endpoint) | Stage::Established(endpoint) => {
                let datagrams = drain_transmits(endpoint);
                self.send_all(datagrams);
            }
            Stage::Idle | Stage::Hello(_) | Stage::Closed => {}
        }
    }

    fn handle_event(&mut self, event: EndpointEvent) {
        match event {
            EndpointEvent::HandshakeComplete => self.establish(),
            EndpointEvent::ApplicationData(data) => self.outputs.push_back(DtlsOutput::Data(data)),
            EndpointEvent::PeerClosed => self.peer_closed(),
            _ => {}
        }
    }

    fn establish(&mut self) {
        let Stage::Handshake(endpoint) = std::mem::replace(&mut self.stage, Stage::Closed) else {
            return;
        };
        match export(&endpoint, self.is_client) {
            Some(established) => {
                self.flight.clear();
                self.stage = Stage::Established(endpoint);
                self.outputs.push_back(DtlsOutput::Established(Box::new(established)));
            }
            None => self.fail(DtlsProblem::NoCommonProfile, &Error::ErrInvalidPrivateKey),
        }
    }

    fn peer_closed(&mut self) {
        if let Stage::Handshake(mut endpoint) | Stage::Established(mut endpoint) =
            std::mem::replace(&mut self.stage, Stage::Closed)
        {
            self.collect_transmits(&mut endpoint);
        }
        self.outputs.push_back(DtlsOutput::PeerClosed);
    }

    /// Begins anew after a failed handshake: whoever spoiled it may have been
    /// somebody else.
    fn restart(&mut self, error: &Error) {
        self.fail(DtlsProblem::Handshake, error);
        if !self.is_client {
            self.inbox.rewind(1);
            self.stage = Stage::Hello(Vec::new());
        }
    }

    fn fail(&mut self, problem: DtlsProblem, error: &Error) {
        tracing::debug!(%error, "DTLS handshake broke off");
        self.problem = Some(problem);
        self.stage = Stage::Closed;
        self.inbox = Inbox::default();
        self.flight.clear();
    }

    fn next_record_in(&mut self) -> u64 {
        self.next_record_in += 1;
        self.next_record_in - 1
    }

    fn transmit_repeat(&mut self, now: Instant, repeat: fn(&mut ServerFlight, Instant) -> &[BytesMut]) {
        let datagrams = repeat(&mut self.flight, now).to_vec();
        self.send_all(datagrams);
    }

    fn collect_transmits(&mut self, endpoint: &mut Endpoint) {
        let datagrams = drain_transmits(endpoint);
        self.send_all(datagrams);
    }

    fn send_all(&mut self, datagrams: Vec<BytesMut>) {
        for mut datagram in datagrams {
            renumber(&mut datagram, &mut self.next_record_out);
            self.outputs.push_back(DtlsOutput::Transmit(datagram));
        }
    }
}

impl DtlsAssociation for RtcDtls {
    fn start(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Idle) {
            return;
        }
        let mut endpoint = endpoint(None);
        match config(&self.identity, self.preference.profiles(), true)
            .and_then(|config| endpoint.connect(now, PEER, Arc::new(config), None))
        {
            Ok(()) => {
                self.collect_transmits(&mut endpoint);
                self.stage = Stage::Handshake(endpoint);
            }
            Err(error) => self.fail(DtlsProblem::Handshake, &error),
        }
    }

    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        for record in records(datagram) {
            if matches!(self.stage, Stage::Closed) {
                return;
            }
            self.handle_record(now, record);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if !self.is_client {
            self.transmit_repeat(now, ServerFlight::repeat_by_clock);
            return;
        }
        if let Stage::Handshake(endpoint) = &mut self.stage {
            if let Err(error) = endpoint.handle_timeout(PEER, now) {
                return self.fail(DtlsProblem::Handshake, &error);
            }
            let datagrams = drain_transmits(endpoint);
            self.send_all(datagrams);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Handshake(endpoint) if self.is_client => endpoint.poll_timeout(&PEER),
            Stage::Handshake(_) => self.flight.next_repeat(),
            Stage::Idle | Stage::Hello(_) | Stage::Established(_) | Stage::Closed => None,
        }
    }

    fn poll_output(&mut self) -> Option<DtlsOutput> {
        self.outputs.pop_front()
    }

    fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), NotEstablished> {
        let Stage::Established(endpoint) = &mut self.stage else {
            return Err(NotEstablished);
        };
        endpoint.write(now, PEER, data).map_err(|_| NotEstablished)?;
        let datagrams = drain_transmits(endpoint);
        self.send_all(datagrams);
        Ok(())
    }

    fn close(&mut self, now: Instant) {
        if let Stage::Established(mut endpoint) = std::mem::replace(&mut self.stage, Stage::Closed) {
            endpoint.stop(now, PEER);
            self.collect_transmits(&mut endpoint);
        }
        self.flight.clear();
    }

    fn problem(&self) -> Option<DtlsProblem> {
        self.problem
    }

    fn discarded(&self) -> u64 {
        self.discarded
    }
}

fn choose_profile(body: &[u8], preference: SrtpPreference) -> Result<(SrtpProfile, [u8; 32]), DtlsProblem> {
    let hello = ClientHello::parse(body).ok_or(DtlsProblem::BadClientHello)?;
    if !hello.extended_master_secret {
        return Err(DtlsProblem::NoExtendedMasterSecret);
    }
    let profile = preference.choose(&hello.srtp_profiles).ok_or(DtlsProblem::NoCommonProfile)?;
    Ok((profile, hello.random))
}

fn endpoint(server: Option<Arc<HandshakeConfig>>) -> Endpoint {
    Endpoint::new(PEER, TransportProtocol::UDP, server)
}

fn config(
    identity: &DtlsIdentity,
    profiles: &[SrtpProfile],
    is_client: bool,
) -> rtc_shared::error::Result<HandshakeConfig> {
    ConfigBuilder::default()
        .with_crypto_provider(provider().clone())
        .with_certificates(vec![identity.certificate()])
        .with_cipher_suites(vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_256_Cbc_Sha,
        ])
        .with_srtp_protection_profiles(profiles.iter().map(|profile| library_profile(*profile)).collect())
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // WebRTC has no certificate authorities: the fingerprint from signalling
        // is compared before the keys are used.
        .with_insecure_skip_verify(true)
        .with_flight_interval(CLIENT_FLIGHT_INTERVAL)
        .with_replay_protection_window(RECORD_REPLAY_WINDOW)
        .with_server_name("headwater".to_owned())
        .build(is_client, None)
}

const fn library_profile(profile: SrtpProfile) -> SrtpProtectionProfile {
    match profile {
        SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        SrtpProfile::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        SrtpProfile::AesCm128HmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    }
}

fn drain_transmits(endpoint: &mut Endpoint) -> Vec<BytesMut> {
    std::iter::from_fn(|| endpoint.poll_transmit()).map(|transmit| transmit.message).collect()
}

/// Certificate, profile and keys of a finished handshake.
fn export(endpoint: &Endpoint, is_client: bool) -> Option<Established> {
    let state = endpoint.get_connection_state(PEER)?;
    let certificate = state.peer_certificates.first()?;
    let profile = match state.srtp_protection_profile() {
        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => SrtpProfile::AeadAes128Gcm,
        SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm => SrtpProfile::AeadAes256Gcm,
        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => SrtpProfile::AesCm128HmacSha1_80,
        _ => return None,
    };
    let exported = state.export_keying_material("EXTRACTOR-dtls_srtp", &[], profile.exported_len()).ok()?;
    Some(Established {
        peer_fingerprint: Fingerprint::of_certificate(certificate),
        srtp: srtp_session(profile, exported.as_ref(), is_client).ok()?,
    })
}
