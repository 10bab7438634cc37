//! DTLS 1.2 by `rtc-dtls`, fed through a front of our own.
//!
//! The library takes what it is given too literally for a public port, so the
//! front puts handshake messages together itself and hands in whole messages,
//! in order and once: otherwise a partial flight stops the library's timer for
//! good, repeated messages pile up in its buffers, and a chain of one-byte
//! fragments recurses as deep as it is long. Plain alerts, plain data and
//! records of unknown type never get through, and what is sealed is budgeted
//! until the handshake is done. The first ClientHello is read before the
//! library is started, because it follows the client's order of SRTP profiles;
//! so the front also exchanges the cookie, which keeps no state for forged ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_shared::error::Error;
use subtle::ConstantTimeEq;

use super::cookie::{Cookie, CookieProvider, new_cookie};
use super::handshake::{Inbox, Message};
use super::hello::{ClientHello, verify_request, verify_request_cookie};
use super::library::{PEER, config, drain_transmits, endpoint, export};
use super::record::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, CLIENT_HELLO, HANDSHAKE, HELLO_VERIFY_REQUEST,
    Record, fragments, plain_message, plain_record, records, renumber, repeat_notice,
};
use super::server_flight::{ANSWER_INTERVAL, ServerFlight};
use super::{
    DtlsAssociation, DtlsIdentity, DtlsOutput, DtlsProblem, NotEstablished, SrtpPreference,
};
use crate::contain::contain;
use crate::srtp::SrtpProfile;
use crate::stun::provider;

/// Sealed records and ChangeCipherSpecs taken before the handshake is done; the
/// library queues them. A peer sends one or two per repeat of its last flight.
const EARLY_RECORDS_MAX: u32 = 128;
/// Answers to a repeated last flight of the peer, over the association's life.
const REPEAT_NOTICES_MAX: u32 = 32;
enum Stage {
    /// Client: not started.
    Idle,
    /// Server: every ClientHello is told the cookie; the one that returns it
    /// goes on.
    Hello,
    /// Flights are exchanged.
    Handshake(Endpoint),
    Established(Endpoint),
    Closed,
}

/// See the module's documentation.
pub(crate) struct RtcDtls {
    identity: Arc<DtlsIdentity>,
    preference: SrtpPreference,
    is_client: bool,
    stage: Stage,
    cookie: Cookie,
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
    panics: u64,
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
            stage: if is_client { Stage::Idle } else { Stage::Hello },
            cookie: new_cookie(),
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
            panics: 0,
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
                Stage::Hello if fragment.sequence == 0 => self.first_hello.push(fragment),
                // Nothing comes after the second ClientHello before its answer.
                Stage::Hello if fragment.sequence > 1 => false,
                Stage::Hello | Stage::Handshake(_)
                    if fragment.sequence >= self.inbox.next_sequence() =>
                {
                    self.inbox.push(fragment)
                }
                Stage::Hello | Stage::Handshake(_) | Stage::Established(_) => {
                    repeated |= fragment.offset == 0;
                    true
                }
                Stage::Idle | Stage::Closed => false,
            };
            self.discarded += u64::from(!taken);
            if let Some(message) = self.first_hello.pop() {
                self.first_hello.rewind(0);
                self.handle_first_hello(&message);
            }
            while let Some(message) = self.inbox.pop() {
                self.handle_message(now, &message);
            }
        }
        if repeated {
            self.handle_repeated_flight(now);
        }
    }

    fn handle_message(&mut self, now: Instant, message: &Message) {
        match &self.stage {
            Stage::Hello => self.handle_second_hello(now, message),
            Stage::Handshake(_) => self.feed_message(now, message),
            Stage::Idle | Stage::Established(_) | Stage::Closed => {}
        }
    }

    /// A ClientHello without the cookie is told the cookie, and leaves no state:
    /// it may be forged. The answer is shorter than the question.
    fn handle_first_hello(&mut self, message: &Message) {
        match choose_profile(message, self.preference) {
            Ok(_) => {
                let request = verify_request(&self.cookie);
                let record = plain_message(0, HELLO_VERIFY_REQUEST, 0, &request);
                self.send_all(vec![BytesMut::from(&record[..])]);
            }
            Err(problem) => {
                self.problem = Some(problem);
                self.discarded += 1;
            }
        }
    }

    /// The ClientHello that returns the cookie starts the handshake proper. A
    /// forged one cannot know the cookie and changes nothing.
    fn handle_second_hello(&mut self, now: Instant, message: &Message) {
        let hello = ClientHello::parse(&message.body)
            .filter(|hello| bool::from(hello.cookie.ct_eq(&self.cookie)));
        let started = match (hello, choose_profile(message, self.preference)) {
            (Some(hello), Ok(profile)) => self.start_server(now, profile, &hello.without_cookie()),
            (None, _) | (_, Err(_)) => Err(Error::ErrCookieMismatch),
        };
        match started {
            Ok(endpoint) => {
                self.stage = Stage::Handshake(endpoint);
                self.feed_message(now, message);
            }
            Err(error) => {
                tracing::debug!(%error, "ClientHello refused");
                self.discarded += 1;
                self.inbox.rewind(message.sequence);
            }
        }
    }

    /// Starts the library with exactly the chosen profile, and takes it past the
    /// exchange of the cookie that has already happened.
    fn start_server(
        &mut self,
        now: Instant,
        profile: SrtpProfile,
        hello: &[u8],
    ) -> rtc_shared::error::Result<Endpoint> {
        let provider = Arc::new(CookieProvider { cookie: self.cookie });
        let config = config(&self.identity, &[profile], false, provider)?;
        let mut endpoint = endpoint(Some(Arc::new(config)));
        let record = plain_message(self.next_record_in(), CLIENT_HELLO, 0, hello);
        contain(|| endpoint.read(now, PEER, None, BytesMut::from(&record[..]))).unwrap_or_else(
            || {
                self.panics += 1;
                Err(Error::ErrInvalidFsmTransition)
            },
        )?;
        let request = drain_transmits(&mut endpoint);
        let cookie = request.first().and_then(|datagram| verify_request_cookie(datagram));
        if cookie == Some(&self.cookie[..]) { Ok(endpoint) } else { Err(Error::ErrCookieMismatch) }
    }

    fn feed_message(&mut self, now: Instant, message: &Message) {
        let record = plain_message(
            self.next_record_in(),
            message.message_type,
            message.sequence,
            &message.body,
        );
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
            Stage::Idle | Stage::Hello | Stage::Closed => false,
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
            Stage::Handshake(_) if !self.is_client => {
                self.transmit_repeat(now, ServerFlight::repeat_by_request)
            }
            Stage::Established(_) if !self.is_client && self.may_notice_repeat(now) => {
                self.repeat_notices += 1;
                self.noticed_at = Some(now);
                let notice = repeat_notice(self.next_record_in());
                self.feed(now, &notice);
            }
            // The client repeats by its own clock.
            Stage::Handshake(_)
            | Stage::Established(_)
            | Stage::Idle
            | Stage::Hello
            | Stage::Closed => {
                self.discarded += 1;
            }
        }
    }

    /// One repeated flight comes in several records; it is answered once.
    fn may_notice_repeat(&self, now: Instant) -> bool {
        self.repeat_notices < REPEAT_NOTICES_MAX
            && self.noticed_at.is_none_or(|at| at + ANSWER_INTERVAL <= now)
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
        let Some(result) = contain(|| endpoint.read(now, PEER, None, BytesMut::from(record)))
        else {
            self.panics += 1;
            return self.peer_closed();
        };
        if !established && let Err(error) = &result {
            return self.restart(error);
        }
        self.stage =
            if established { Stage::Established(endpoint) } else { Stage::Handshake(endpoint) };
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
            Stage::Idle | Stage::Hello | Stage::Closed => {}
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
            self.stage = Stage::Hello;
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

    fn transmit_repeat(
        &mut self,
        now: Instant,
        repeat: fn(&mut ServerFlight, Instant) -> &[BytesMut],
    ) {
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
        match config(&self.identity, self.preference.profiles(), true, provider().clone())
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
            Stage::Idle | Stage::Hello | Stage::Established(_) | Stage::Closed => None,
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
        if let Stage::Established(mut endpoint) = std::mem::replace(&mut self.stage, Stage::Closed)
        {
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

    fn panics(&self) -> u64 {
        self.panics
    }
}

fn choose_profile(
    message: &Message,
    preference: SrtpPreference,
) -> Result<SrtpProfile, DtlsProblem> {
    let hello = ClientHello::parse(&message.body)
        .filter(|_| message.message_type == CLIENT_HELLO)
        .ok_or(DtlsProblem::BadClientHello)?;
    if !hello.extended_master_secret {
        return Err(DtlsProblem::NoExtendedMasterSecret);
    }
    preference.choose(&hello.srtp_profiles).ok_or(DtlsProblem::NoCommonProfile)
}
