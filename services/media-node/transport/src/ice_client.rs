//! The controlling, full-agent side of ICE at its smallest: checks one remote
//! candidate, nominates it with every check and keeps consent. For native
//! clients and tests; no gathering, no pairs, no triggered checks.

use std::time::{Duration, Instant};

use crate::ice::{CONSENT_EXPIRY, IceCredentials};
use crate::path::Path;
use crate::stun::{BindingKind, BindingRequest, BindingView, StunError, mapped_address};

/// Between checks until the first answer (RFC 8445 §14: Ta is 50 ms for many
/// pairs; there is one pair here).
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Between consent checks afterwards (RFC 7675 §5.1 asks for about 5 s; half of
/// that survives one loss without the path looking stale).
const CONSENT_INTERVAL: Duration = Duration::from_millis(2500);
/// Requests that may wait for an answer at once; the oldest is forgotten.
const OUTSTANDING_MAX: usize = 16;

/// One client's checks of one remote candidate. Drive it with
/// [`IceClient::poll_transmit`] whenever the deadline of
/// [`IceClient::poll_timeout`] has come.
#[derive(Debug)]
pub struct IceClient {
    local: IceCredentials,
    remote: Option<IceCredentials>,
    target: Option<Path>,
    tie_breaker: u64,
    sent: u64,
    outstanding: Vec<[u8; 12]>,
    next_check_at: Option<Instant>,
    confirmed_at: Option<Instant>,
}

impl IceClient {
    /// `seed` makes the tie-breaker and the transaction ids; ids are public on
    /// the wire and authenticated by the integrity of the answer.
    #[must_use]
    pub fn new(local: IceCredentials, seed: u64) -> Self {
        Self {
            local,
            remote: None,
            target: None,
            tie_breaker: splitmix64(seed),
            sent: 0,
            outstanding: Vec::new(),
            next_check_at: None,
            confirmed_at: None,
        }
    }

    /// Our user fragment.
    #[must_use]
    pub fn local_ufrag(&self) -> &str {
        &self.local.ufrag
    }

    /// Sets the peer's credentials; new ones restart the checks (RFC 8445 §9).
    pub fn set_remote(&mut self, now: Instant, remote: IceCredentials) {
        if self.remote.as_ref() == Some(&remote) {
            return;
        }
        self.remote = Some(remote);
        self.restart(now);
    }

    /// Replaces our own credentials, as part of an ICE restart.
    pub fn set_local(&mut self, now: Instant, local: IceCredentials) {
        self.local = local;
        self.restart(now);
    }

    /// Sets the candidate to check. A new one takes over at its first answer.
    pub fn set_target(&mut self, now: Instant, target: Path) {
        self.target = Some(target);
        self.restart(now);
    }

    /// The candidate, once it has answered and while it has consent.
    #[must_use]
    pub fn valid_path(&self) -> Option<Path> {
        self.confirmed_at.and(self.target)
    }

    /// The next check, if one is due: where to and what.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Path, Vec<u8>)> {
        if self.next_check_at.is_none_or(|at| at > now) {
            return None;
        }
        let target = self.target?;
        let remote = self.remote.clone()?;
        let transaction = self.next_transaction();
        let request = BindingRequest {
            transaction,
            remote_ufrag: &remote.ufrag,
            local_ufrag: &self.local.ufrag,
            remote_pwd: &remote.pwd,
            priority: (110 << 24) | (65_535 << 8) | 255,
            tie_breaker: self.tie_breaker,
            use_candidate: true,
        };
        let interval = if self.confirmed_at.is_some() { CONSENT_INTERVAL } else { CHECK_INTERVAL };
        self.next_check_at = Some(now + interval);
        Some((target, request.encode()))
    }

    /// Takes a Binding response. `true` if it made the path valid.
    ///
    /// # Errors
    /// [`StunError`] for anything that is not an authentic answer from the
    /// candidate to one of our requests; nothing changes then.
    pub fn handle_response(
        &mut self,
        now: Instant,
        from: Path,
        datagram: &[u8],
    ) -> Result<bool, StunError> {
        let response = BindingView::parse(datagram)?;
        if response.kind == BindingKind::Request {
            return Err(StunError::UnexpectedType);
        }
        let index = self
            .outstanding
            .iter()
            .position(|transaction| *transaction == response.transaction)
            .filter(|_| self.target == Some(from))
            .ok_or(StunError::UnknownTransaction)?;
        let remote = self.remote.as_ref().ok_or(StunError::UnknownTransaction)?;
        response.verify(&remote.pwd)?;
        if response.kind == BindingKind::Error || mapped_address(datagram).is_none() {
            return Err(StunError::UnexpectedType);
        }
        self.outstanding.swap_remove(index);
        let first = self.confirmed_at.replace(now).is_none();
        if first {
            self.next_check_at = Some(now + CONSENT_INTERVAL);
        }
        Ok(first)
    }

    /// When a check or the end of consent is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.confirmed_at.map(|at| at + CONSENT_EXPIRY);
        [self.next_check_at.filter(|_| self.target.is_some() && self.remote.is_some()), expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// `true` if consent has just ended (RFC 7675 §5.1).
    pub fn expire(&mut self, now: Instant) -> bool {
        let expired = self.confirmed_at.is_some_and(|at| at + CONSENT_EXPIRY <= now);
        if expired {
            self.confirmed_at = None;
        }
        expired
    }

    fn restart(&mut self, now: Instant) {
        self.outstanding.clear();
        self.confirmed_at = None;
        self.next_check_at = Some(now);
    }

    fn next_transaction(&mut self) -> [u8; 12] {
        self.sent += 1;
        let mut transaction = [0; 12];
        transaction[..8].copy_from_slice(&splitmix64(self.tie_breaker ^ self.sent).to_be_bytes());
        transaction[8..].copy_from_slice(&(self.sent as u32).to_be_bytes());
        if self.outstanding.len() == OUTSTANDING_MAX {
            self.outstanding.remove(0);
        }
        self.outstanding.push(transaction);
        transaction
    }
}

/// One step of SplitMix64: spreads a counter over 64 bits.
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
