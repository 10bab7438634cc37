//! A media node of a world: one forwarding core, and everything it sends on its way to the
//! links.

use std::collections::BTreeMap;
use std::time::Instant;

use headwater_model::media::TransportKey;
use headwater_rtp::RtpView;
use headwater_sfu::{Egress, OutgoingRtp, Sfu, SfuEvent};

use crate::checks::{StreamCheck, Violations};
use crate::{Datagram, Time};

/// Events that are kept for whoever looks at the world.
const EVENTS_MAX: usize = 100_000;

/// A node.
#[derive(Debug)]
pub struct Node {
    pub(crate) sfu: Sfu,
    origin: Instant,
    /// When its next timer is on the world's list.
    pub(crate) armed: Option<Time>,
    pub(crate) sent: Sent,
    pub(crate) checks: BTreeMap<(TransportKey, u32), StreamCheck>,
    pub(crate) violations: Violations,
    events: Vec<(Time, SfuEvent)>,
}

/// What the core handed out in one drain.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub(crate) list: Vec<(TransportKey, Datagram)>,
}

impl Egress for Sent {
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        let mut bytes = Vec::with_capacity(packet.len());
        bytes.extend_from_slice(packet.header);
        bytes.extend_from_slice(packet.prefix);
        bytes.extend_from_slice(packet.payload);
        self.list.push((to, Datagram::rtp(bytes)));
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        self.list.push((to, Datagram::rtcp(compound.to_vec())));
    }
}

impl Node {
    pub(crate) fn new(sfu: Sfu, origin: Instant) -> Self {
        Self {
            sfu,
            origin,
            armed: None,
            sent: Sent::default(),
            checks: BTreeMap::new(),
            violations: Violations::default(),
            events: Vec::new(),
        }
    }

    /// Its forwarding core.
    #[must_use]
    pub fn sfu(&self) -> &Sfu {
        &self.sfu
    }

    /// What its core told, in order.
    #[must_use]
    pub fn events(&self) -> &[(Time, SfuEvent)] {
        &self.events
    }

    /// What must hold and did not.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        self.violations.list()
    }

    /// Numbers that it left out of what it sent and never filled: what the publisher's
    /// network lost for good.
    #[must_use]
    pub fn holes(&self) -> usize {
        self.checks.values().map(StreamCheck::holes).sum()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        let due = self.sfu.poll_timeout()?.saturating_duration_since(self.origin);
        // Rounded up: a timer that fires early would fire again.
        Some(Time(due.as_nanos().div_ceil(1_000) as u64))
    }

    /// Lets the core hand out what it has, and looks at all of it.
    pub(crate) fn drain(&mut self, now: Time) {
        self.sfu.drain(self.origin + now.elapsed(), &mut self.sent);
        while let Some(event) = self.sfu.poll_event() {
            if self.events.len() < EVENTS_MAX {
                self.events.push((now, event));
            }
        }
        for (to, datagram) in &self.sent.list {
            if datagram.kind == crate::Kind::Rtp
                && let Ok(view) = RtpView::parse(&datagram.bytes)
                && let Some(check) = self.checks.get_mut(&(*to, view.ssrc()))
            {
                check.note(now, &view, &mut self.violations);
            }
        }
    }
}
